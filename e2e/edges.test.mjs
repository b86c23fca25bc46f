// Corners where two sides could misunderstand each other: resets, cut answers, disguised paths, doubled
// fields, rebound names.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import {
  assertApiError,
  chat,
  postBytes,
  scratch,
  sleep,
  startGateway,
  startUpstream,
  until,
  Wire,
} from './harness.mjs';

describe('edges', () => {
  let upstream, gateway, answer;
  const accessLog = path.join(scratch, 'edges.log');
  const target = '/v1/chat/completions';
  const echo = (incoming, response, body) => response.end(body);
  const sse = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n';

  before(async () => {
    upstream = await startUpstream((incoming, response, body) => answer(incoming, response, body));
    gateway = await startGateway({
      default_model: 'm',
      access_log: accessLog,
      forward_authorization: true,
      health: { active: false, passive_faults: 100 },
      pools: [
        { model: 'm', workers: [upstream.url] },
        { model: 'keyed', workers: [{ url: `${upstream.url}/base`, api_key: 'worker-key' }] },
      ],
    });
  });

  it('a large pipelined body is read on after the answer before it', async () => {
    answer = async (incoming, response, body) => {
      if (body.length < 1000) await sleep(200);
      response.end(String(body.length));
    };
    const wire = await Wire.open(gateway.port);
    const large = JSON.stringify(chat('m', { filler: 'x'.repeat(500_000) }));
    wire.send(Buffer.concat([postBytes(target, chat('m')), postBytes(target, large)]));
    await wire.takeResponse();
    assert.equal((await wire.takeResponse()).body.toString(), String(large.length));
  });

  it('bytes and a reset in one turn end the answer at once', { timeout: 20_000 }, async () => {
    answer = async (incoming, response) => {
      incoming.socket.write(`${sse}transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n`);
      await sleep(100);
      gateway.program.signal('SIGSTOP');
      await sleep(100); // until it has stopped
      incoming.socket.write('9\r\ndata: 2\n\n\r\n');
      await sleep(100);
      incoming.socket.resetAndDestroy();
      await sleep(100);
      gateway.program.signal('SIGCONT');
    };
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes(target, chat('m', { stream: true })));
    const text = (await wire.takeUntilClose(8000)).toString();
    assert.match(text, /data: 2/);
    assert.match(text, /broke off/);
    assert.doesNotMatch(text, /\r\n0\r\n/);
  });

  it('a cut answer of known length is not filled up with an error event', async () => {
    answer = (incoming, response) => incoming.socket.end(`${sse}content-length: 60\r\n\r\ndata: 1\n\n`);
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes(target, chat('m', { stream: true })));
    assert.equal((await wire.takeHead()).headers['content-length'], '60');
    assert.equal((await wire.takeUntilClose()).toString(), 'data: 1\n\n');
  });

  it('an answer cut in the middle of an event gets no other event mixed into it', async () => {
    for (const [sent, told] of [
      ['data: 1\r\n\r\n', true],
      ['data: 1\r\n', false],
      ['data: 1\n', false],
      ['data: 1\n\n', true],
    ]) {
      answer = (incoming, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write(sent, () => incoming.socket.destroy());
      };
      const wire = await Wire.open(gateway.port);
      wire.send(postBytes(target, chat('m', { stream: true })));
      const text = (await wire.takeUntilClose()).toString();
      assert.ok(text.includes(sent));
      assert.equal(text.includes('broke off'), told, JSON.stringify(sent));
    }
  });

  it('a request its worker took and died over is not sent there again', { timeout: 20_000 }, async () => {
    answer = echo;
    await gateway.request(target, { body: chat('m') });
    const before = upstream.requests.length;
    answer = async incoming => {
      await sleep(1500);
      incoming.socket.destroy();
    };
    assertApiError(await gateway.request(target, { body: chat('m') }), 502);
    assert.equal(upstream.requests.length, before + 1);
  });

  it('a path that climbs out of /v1/ is refused, however it is written', async () => {
    answer = echo;
    const before = upstream.requests.length;
    for (const climb of ['/v1/..', '/v1/../x', '/v1/a/./b', '/v1/%2e%2E/x', '/v1/.%2e%2fx', '/v1/..%5cx?q']) {
      const wire = await Wire.open(gateway.port);
      wire.send(postBytes(climb, chat('m')));
      assertApiError(await wire.takeResponse(), 400);
    }
    assert.equal(upstream.requests.length, before);
    for (const plain of ['/v1/a..b/...', '/v1/.well/x.', `${target}?a=../b`]) {
      assert.equal((await gateway.request(plain, { body: chat('m') })).status, 200);
      assert.equal(upstream.requests.at(-1).url, plain);
    }
  });

  it('"model": null is no model, and stays as it is', async () => {
    answer = echo;
    const body = '{"model": null, "messages": []}';
    assert.equal((await gateway.request(target, { body, method: 'POST' })).text(), body);
  });

  it("a worker with a key of its own does not get the client's", async () => {
    answer = echo;
    const headers = { authorization: 'Bearer client-key', 'x-api-key': 'client-key' };
    const seen = async model => {
      assert.equal((await gateway.request(target, { body: chat(model), headers })).status, 200);
      return upstream.requests.at(-1).headers;
    };
    assert.equal((await seen('m')).authorization, 'Bearer client-key');
    const keyed = await seen('keyed');
    assert.equal(keyed.authorization, 'Bearer worker-key');
    assert.equal(keyed['x-api-key'], undefined);
  });

  it('all Connection fields count', async () => {
    answer = echo;
    const wire = await Wire.open(gateway.port);
    const fields = { connection: 'keep-alive\r\nconnection: x-secret', 'x-secret': 'hop' };
    wire.send(postBytes(target, chat('m'), fields));
    assert.equal((await wire.takeResponse()).status, 200);
    assert.equal(upstream.requests.at(-1).headers['x-secret'], undefined);
  });

  it("a refused request's log line does not name the model of the one before", async () => {
    answer = echo;
    await gateway.request(target, { body: chat('m') });
    const lines = () =>
      fs.readFileSync(accessLog, 'utf8').trimEnd().split('\n').map(line => JSON.parse(line));
    const headers = { 'x-request-id': 'bad-1' };
    assertApiError(await gateway.request(target, { body: '{"bad', headers }), 400);
    await until('the line is written', () => lines().at(-1).id === 'bad-1');
    assert.equal(lines().at(-1).model, '');
    assert.equal(lines().at(-1).end, 'refused');
  });

  it('the admin API answers to addresses and localhost, not to rebound names', async () => {
    for (const [host, status] of [
      ['127.0.0.1:8081', 200],
      ['localhost', 200],
      ['[::1]:8081', 200],
      ['evil.example:8081', 403],
      ['127.0.0.1.evil.example', 403],
    ]) {
      assert.equal((await gateway.admin('/api/v1/workers', { headers: { host } })).status, status, host);
      assert.equal((await gateway.admin('/healthz', { headers: { host } })).status, 200);
    }
  });

  it('connections to a worker that was taken out are closed', async () => {
    const [stays, leaves] = [await startUpstream(), await startUpstream()];
    const own = await startGateway({ pools: [{ model: 'm', workers: [leaves.url] }] });
    await own.request(target, { body: chat('m') });
    const { socket } = leaves.requests.at(-1);
    own.write({ pools: [{ model: 'm', workers: [stays.url] }] });
    assert.equal((await own.heng('reload')).code, 0);
    await until('closed', () => socket.destroyed, { timeoutMs: 5000 });
  });
});
