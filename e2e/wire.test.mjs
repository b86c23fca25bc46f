// HTTP as it is on the wire: chunks, 100-continue, pipelining, half-closed and old clients, keep-alive.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import {
  chat,
  gate,
  postBytes,
  requestBytes,
  sleep,
  startGateway,
  startUpstream,
  until,
  Wire,
} from './harness.mjs';

describe('on the wire', () => {
  let upstream, gateway, answer;
  const json = JSON.stringify(chat('m'));
  const echo = (incoming, response, body) => response.end(body);

  before(async () => {
    upstream = await startUpstream((incoming, response, body) => answer(incoming, response, body));
    gateway = await startGateway({ pools: [{ model: 'm', workers: [upstream.url] }] });
  });

  it('a request body in chunks, of any size, cut anywhere', async () => {
    answer = echo;
    const chunks =
      [...json].map((byte, i) => `${i % 3 === 0 ? '0001;name="v"' : '1'}\r\n${byte}\r\n`).join('') +
      '0\r\nx-trailer: 1\r\n\r\n';
    const bytes = Buffer.concat([
      requestBytes('POST', '/v1/chat/completions', {
        'content-type': 'application/json',
        'transfer-encoding': 'chunked',
      }),
      Buffer.from(chunks),
    ]);
    const wire = await Wire.open(gateway.port);
    for (const step of [bytes.length, 7, 1]) {
      for (let at = 0; at < bytes.length; at += step) {
        wire.send(bytes.subarray(at, at + step));
        if (at % 50 === 0) await new Promise(setImmediate);
      }
      const got = await wire.takeResponse();
      assert.equal(got.status, 200);
      assert.equal(got.body.toString(), json);
      assert.equal(upstream.requests.at(-1).body.toString(), json);
    }
  });

  it('trailers on either side do no harm', async () => {
    answer = (incoming, response, body) => {
      response.writeHead(200, { trailer: 'x-checksum' });
      response.write(body);
      response.addTrailers({ 'x-checksum': 'abc', 'x-other': 'y'.repeat(2000) });
      response.end();
    };
    const head = { 'content-type': 'application/json', 'transfer-encoding': 'chunked' };
    const wire = await Wire.open(gateway.port);
    for (const trailers of ['', 'x-a: 1\r\n', `x-a: ${'1'.repeat(2000)}\r\nx-b:\r\n`.repeat(4)]) {
      wire.send(requestBytes('POST', '/v1/chat/completions', head));
      wire.send(`${json.length.toString(16)}\r\n${json}\r\n0\r\n${trailers}\r\n`);
      const got = await wire.takeHead();
      assert.equal(got.status, 200);
      assert.ok((await wire.takeThrough('\r\n0\r\n')).includes(json));
      await wire.takeThrough('\r\n'); // the gateway may drop trailers, or pass them on before this line
      while (wire.received.length > 0) await wire.takeThrough('\r\n');
    }
  });

  it('Expect: 100-continue is answered before the body is sent', async () => {
    answer = echo;
    const wire = await Wire.open(gateway.port);
    wire.send(
      requestBytes('POST', '/v1/chat/completions', {
        'content-type': 'application/json',
        'content-length': json.length,
        expect: '100-continue',
      }),
    );
    assert.equal((await wire.takeHead({ interim: true })).status, 100);
    wire.send(json);
    const got = await wire.takeResponse();
    assert.equal(got.status, 200);
    assert.equal(got.body.toString(), json);
  });

  it('pipelined requests are answered in order, also when the first takes longer', async () => {
    const first = gate();
    answer = async (incoming, response, body) => {
      const { n } = JSON.parse(body);
      if (n === 0) await first.promise;
      response.end(`answer ${n}`);
    };
    const wire = await Wire.open(gateway.port);
    wire.send(Buffer.concat([0, 1, 2].map(n => postBytes('/v1/chat/completions', chat('m', { n })))));
    await sleep(100); // the wrong order would show now
    assert.equal(wire.received.length, 0);
    first.resolve();
    for (const n of [0, 1, 2]) assert.equal((await wire.takeResponse()).body.toString(), `answer ${n}`);
  });

  for (const when of ['with its request', 'in the middle of the answer']) {
    it(`a client that closes its half ${when} still gets everything`, { timeout: 20_000 }, async () => {
      const [begin, finish] = [gate(), gate()];
      answer = async (incoming, response, body) => {
        await begin.promise;
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: 1\n\n');
        await finish.promise;
        response.end('data: 2\n\n');
      };
      const wire = await Wire.open(gateway.port);
      wire.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
      if (when === 'with its request') wire.finish();
      await sleep(50); // time for the gateway to see the FIN
      begin.resolve();
      const got = wire.takeResponse();
      await until('the answer has begun', () => wire.seen.includes('data: 1'));
      if (when !== 'with its request') wire.finish();
      await sleep(50);
      finish.resolve();
      assert.equal((await got).body.toString(), 'data: 1\n\ndata: 2\n\n');
      await wire.takeUntilClose();
    });
  }

  it('an HTTP/1.0 client gets no chunks and a close', async () => {
    answer = (incoming, response) => {
      response.write('one ');
      response.end('two');
    };
    const wire = await Wire.open(gateway.port);
    wire.send(
      'POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\n' +
        `content-length: ${json.length}\r\n\r\n${json}`,
    );
    const got = await wire.takeResponse();
    assert.equal(got.status, 200);
    assert.equal(got.headers['transfer-encoding'], undefined);
    assert.equal(got.body.toString(), 'one two');
    await wire.takeUntilClose();
  });

  it('a connection is kept for many requests and closed when asked', async () => {
    answer = echo;
    const wire = await Wire.open(gateway.port);
    for (let i = 0; i < 20; ++i) {
      wire.send(postBytes('/v1/chat/completions', json));
      assert.equal((await wire.takeResponse()).body.toString(), json);
    }
    wire.send(postBytes('/v1/chat/completions', json, { connection: 'close' }));
    const got = await wire.takeResponse();
    assert.equal(got.headers.connection, 'close');
    await wire.takeUntilClose();
  });

  it('a worker that closes after each answer costs nothing', async () => {
    answer = (incoming, response, body) => {
      response.setHeader('connection', 'close');
      response.end(body);
    };
    const wire = await Wire.open(gateway.port);
    for (let i = 0; i < 10; ++i) {
      wire.send(postBytes('/v1/chat/completions', json));
      const got = await wire.takeResponse();
      assert.equal(got.status, 200);
      assert.equal(got.body.toString(), json);
      assert.notEqual(got.headers.connection, 'close', "the worker's connection is not the client's");
    }
  });

  it('a worker that closes idle connections is met with new ones', async () => {
    answer = echo;
    const wire = await Wire.open(gateway.port);
    for (let i = 0; i < 5; ++i) {
      wire.send(postBytes('/v1/chat/completions', json));
      assert.equal((await wire.takeResponse()).status, 200);
      upstream.requests.at(-1).socket.destroy();
    }
  });

  it('an answer without length or chunks ends with its connection', async () => {
    answer = (incoming, response) =>
      incoming.socket.end('HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end');
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', json));
    const got = await wire.takeResponse();
    assert.equal(got.status, 200);
    assert.equal(got.body.toString(), 'until the end');
  });

  it('an interim answer of the worker does not end the request', async () => {
    answer = (incoming, response, body) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      response.end(body);
    };
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', json));
    const got = await wire.takeResponse();
    assert.equal(got.status, 200);
    assert.equal(got.body.toString(), json);
  });

  it('a worker that sends garbage: 502', async () => {
    answer = (incoming, response) => incoming.socket.end('SMTP ready\r\n\r\n');
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', json));
    assert.equal((await wire.takeResponse()).status, 502);
  });
});
