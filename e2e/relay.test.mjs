// What passes through passes unchanged and at once: bodies, compression, server-sent events, headers,
// methods.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { before, describe, it } from 'node:test';
import zlib from 'node:zlib';

import { chat, gate, postBytes, sleep, startGateway, startUpstream, Wire } from './harness.mjs';

describe('relay', () => {
  let upstream, gateway, answer;

  before(async () => {
    upstream = await startUpstream((incoming, response, body) => answer(incoming, response, body));
    gateway = await startGateway({ default_model: 'm', pools: [{ model: 'm', workers: [upstream.url] }] });
  });

  const post = (body, headers) =>
    gateway.request('/v1/chat/completions', {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json', ...headers },
    });
  const plain = (incoming, response) => response.end('{}');

  it('request bodies byte for byte', async () => {
    answer = plain;
    for (const body of [
      '{"model":"m"}',
      ' \r\n{ "messages" : [ {"content":"\\u00e9\\/ \\ud83d\\ude00 {\\"model\\":\\"x\\"}"} ],' +
        '\t"big":12345678901234567890.50,' +
        '"nested":{"model":"other"},\n "model":"m" } \n',
      JSON.stringify(chat('m', { filler: randomBytes(1 << 20).toString('base64') })),
    ]) {
      assert.equal((await post(body)).status, 200);
      assert.deepEqual(upstream.requests.at(-1).body, Buffer.from(body));
      assert.equal(upstream.requests.at(-1).headers['content-type'], 'application/json');
    }
  });

  it('answers byte for byte, with a length and in chunks', async () => {
    for (const size of [0, 1, 1000, 70_000, 3 << 20]) {
      const bytes = randomBytes(size);
      for (const head of [{ 'content-length': size }, {}]) {
        answer = (incoming, response) =>
          response.writeHead(200, { 'content-type': 'audio/mpeg', ...head }).end(bytes);
        const got = await post('{"model":"m"}');
        assert.equal(Buffer.compare(got.body, bytes), 0, `${size} bytes`);
        assert.equal(got.headers['content-type'], 'audio/mpeg');
        if ('content-length' in head) assert.equal(got.headers['content-length'], String(size));
      }
    }
  });

  it('streams whose head comes first: the time to the first byte is that to the first event', async () => {
    answer = (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
      setTimeout(() => response.end('data: [DONE]\n\n'), 300);
    };
    const sum = async () =>
      Number((await gateway.admin('/metrics')).text().match(/^heng_ttft_seconds_sum\{.*\} (.*)$/m)[1]);
    const before = await sum();
    assert.equal((await post(JSON.stringify(chat('m', { stream: true })))).status, 200);
    const took = (await sum()) - before;
    assert.ok(took >= 0.29, `${took} s`);
  });

  it('compressed answers as they are, and the wish for them', async () => {
    const bytes = zlib.gzipSync(JSON.stringify({ object: 'chat.completion', filler: 'x'.repeat(50_000) }));
    answer = (incoming, response) =>
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-type': 'application/json' }).end(bytes);
    const got = await post('{"model":"m"}', { 'accept-encoding': 'gzip, br;q=0.5' });
    assert.deepEqual(got.body, bytes);
    assert.equal(got.headers['content-encoding'], 'gzip');
    assert.equal(upstream.requests.at(-1).headers['accept-encoding'], 'identity', 'usage must be readable');
    await post('{"model":"m"}');
    assert.equal(upstream.requests.at(-1).headers['accept-encoding'], undefined, 'none is added');
  });

  it('status and headers of the worker, several of one name included', async () => {
    answer = (incoming, response) =>
      response
        .writeHead(
          418,
          'Short And Stout',
          [
            ['content-type', 'text/plain'],
            ['x-custom', 'a'],
            ['set-cookie', 'a=1'],
            ['set-cookie', 'b=2'],
          ].flat(),
        )
        .end('tea');
    const got = await post('{"model":"m"}');
    assert.equal(got.status, 418);
    assert.equal(got.headers['x-custom'], 'a');
    assert.deepEqual(got.headers['set-cookie'], ['a=1', 'b=2']);
    assert.equal(got.text(), 'tea');
  });

  it('headers of the client, but not those of the connection', async () => {
    answer = plain;
    const wire = await Wire.open(gateway.port);
    wire.send(
      postBytes('/v1/chat/completions?a=1&b=%20', '{"model":"m"}', {
        'x-custom': 'one',
        'x-secret': 'hop',
        connection: 'keep-alive, x-secret',
        te: 'trailers',
        'keep-alive': 'timeout=5',
        'openai-organization': 'org',
        'user-agent': 'e2e/1',
      }),
    );
    assert.equal((await wire.takeResponse()).status, 200);
    const { url, headers } = upstream.requests.at(-1);
    assert.equal(url, '/v1/chat/completions?a=1&b=%20');
    assert.equal(headers.host, upstream.name);
    assert.equal(headers['x-custom'], 'one');
    assert.equal(headers['openai-organization'], 'org');
    assert.equal(headers['user-agent'], 'e2e/1');
    for (const name of ['x-secret', 'te', 'keep-alive']) assert.equal(headers[name], undefined, name);
  });

  it('server-sent events unbuffered: each arrives before the next is sent', { timeout: 10_000 }, async () => {
    const events = [
      'data: {"n":0}\n\n',
      ': comment\n\n',
      'event: x\r\ndata: 2\r\n\r\n',
      'd',
      'ata: split\n',
      '\n',
      'data: [DONE]\n\n',
    ];
    const arrived = events.map(gate);
    answer = async (incoming, response) => {
      response.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-cache',
      });
      for (const [i, event] of events.entries()) {
        response.write(event);
        await arrived[i].promise;
      }
      response.end();
    };
    const outgoing = http.request(`${gateway.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    outgoing.end('{"model":"m","stream":true}');
    const [incoming] = await once(outgoing, 'response');
    assert.equal(incoming.headers['content-type'], 'text/event-stream; charset=utf-8');
    let text = '',
      next = 0,
      expected = '';
    for await (const bytes of incoming) {
      text += bytes;
      for (; next < events.length && text === expected + events[next]; ++next) {
        expected += events[next];
        arrived[next].resolve();
      }
    }
    assert.equal(text, events.join(''));
    assert.equal(next, events.length, 'no two events came together');
  });

  it('the head of a stream with its first event: before, another worker may still answer', async () => {
    const [sent, first] = [gate(), gate()];
    answer = async (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.flushHeaders();
      sent.resolve();
      await first.promise;
      response.end('data: [DONE]\n\n');
    };
    const outgoing = http.request(`${gateway.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    outgoing.end('{"model":"m","stream":true}');
    let answered = false;
    const response = once(outgoing, 'response', { signal: AbortSignal.timeout(5000) });
    response.then(() => (answered = true));
    await sent.promise;
    await sleep(200);
    assert.ok(!answered);
    first.resolve();
    const [incoming] = await response;
    assert.equal(Buffer.concat(await Array.fromAsync(incoming)).toString(), 'data: [DONE]\n\n');
  });

  it('a slow reader gets everything of a fast worker', async () => {
    const bytes = randomBytes(8 << 20);
    answer = (incoming, response) =>
      response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(bytes);
    const outgoing = http.request(`${gateway.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    outgoing.end('{"model":"m"}');
    const [incoming] = await once(outgoing, 'response');
    incoming.pause();
    // The pause is over when the other side stands still, not after some time.
    for (let last = -1; last !== incoming.socket.bytesRead;) {
      last = incoming.socket.bytesRead;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
    assert.equal(Buffer.compare(Buffer.concat(await Array.fromAsync(incoming)), bytes), 0);
  });

  it('requests without a body: GET, HEAD, OPTIONS, DELETE', async () => {
    answer = (incoming, response) =>
      response
        .writeHead(200, { 'x-method': incoming.method, 'content-length': 4 })
        .end(incoming.method === 'HEAD' ? undefined : 'body');
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'DELETE']) {
      const wire = await Wire.open(gateway.port);
      const bytes = `${method} /v1/files/file-1 HTTP/1.1\r\nhost: heng\r\n\r\n`;
      for (let i = 0; i < 2; ++i) {
        // twice: the first must leave the connection in order
        wire.send(bytes);
        const got = await wire.takeResponse({ toHead: method === 'HEAD' });
        assert.equal(got.status, 200);
        assert.equal(got.headers['x-method'], method);
        assert.equal(got.headers['content-length'], '4');
        assert.equal(got.body.toString(), method === 'HEAD' ? '' : 'body');
      }
      assert.equal(upstream.requests.at(-1).method, method);
      assert.equal(upstream.requests.at(-1).url, '/v1/files/file-1');
    }
  });

  it('answers without a body: 204 and 304', async () => {
    for (const status of [204, 304]) {
      answer = (incoming, response) => response.writeHead(status).end();
      const wire = await Wire.open(gateway.port);
      for (let i = 0; i < 2; ++i) {
        wire.send(postBytes('/v1/chat/completions', '{"model":"m"}'));
        assert.equal((await wire.takeResponse()).status, status);
      }
    }
  });

  it('x-request-id: a given one is kept, a missing one is made; worker and client see the same', async () => {
    answer = plain;
    const given = await post('{"model":"m"}', { 'x-request-id': 'my-id-1' });
    assert.equal(given.headers['x-request-id'], 'my-id-1');
    assert.equal(upstream.requests.at(-1).headers['x-request-id'], 'my-id-1');
    const ids = new Set();
    for (let i = 0; i < 3; ++i) {
      const made = await post('{"model":"m"}');
      assert.equal(upstream.requests.at(-1).headers['x-request-id'], made.headers['x-request-id']);
      ids.add(made.headers['x-request-id']);
    }
    assert.equal(ids.size, 3);
    assert.ok(!ids.has(undefined) && !ids.has(''));
  });

  it('connections to the worker are used again', async () => {
    answer = plain;
    const start = upstream.requests.length;
    for (let i = 0; i < 10; ++i) await post('{"model":"m"}');
    const sockets = new Set(upstream.requests.slice(start).map(entry => entry.socket));
    // A probe may have taken one.
    assert.ok(sockets.size <= 2, `${sockets.size} connections for 10 requests in turn`);
  });
});

describe('x-heng-worker', () => {
  it('can be switched off', async () => {
    const upstream = await startUpstream();
    const gateway = await startGateway({
      worker_header: false,
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const got = await gateway.request('/v1/chat/completions', { body: chat('m') });
    assert.equal(got.status, 200);
    assert.equal(got.worker, undefined);
  });
});
