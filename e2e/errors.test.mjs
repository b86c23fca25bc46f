// Bad input and missing workers: the right status, an OpenAI error body, and the official client's own
// exceptions.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import zlib from 'node:zlib';

import OpenAI from 'openai';

import {
  assertApiError,
  chat,
  freePort,
  postBytes,
  requestBytes,
  startGateway,
  startUpstream,
  until,
  Wire,
} from './harness.mjs';

describe('errors', () => {
  let upstream, gateway, client;

  before(async () => {
    upstream = await startUpstream();
    gateway = await startGateway({
      limits: { body_bytes: '64KiB', head_bytes: '8KiB', header_count: 50 },
      pools: [
        { model: 'm', workers: [upstream.url] },
        { model: 'dead', workers: [`http://127.0.0.1:${await freePort()}`] },
      ],
    });
    client = gateway.client();
  });

  async function exchange(bytes) {
    const wire = await Wire.open(gateway.port);
    wire.send(bytes);
    return wire.takeResponse();
  }

  it('unknown model: 404, NotFoundError', async () => {
    await assert.rejects(client.chat.completions.create(chat('absent')), error => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.match(error.message, /absent/);
      assert.equal(error.code, 'model_not_found');
      assert.ok(error.requestID, 'has x-request-id');
      return true;
    });
  });

  it('unknown path: 404', async () => {
    assertApiError(await gateway.request('/nothing/here'), 404);
  });

  for (const [what, body] of [
    ['cut off', '{"model":"m","messages":['],
    ['not JSON', 'hello'],
    ['not an object', '["m"]'],
    ['empty', ''],
    ['bytes after the value', '{"model":"m"} {"model":"m"}'],
    ['a model that is no string', '{"model":17}'],
    ['two models', '{"model":"m","model":"dead"}'],
    ['invalid UTF-8', Buffer.from('{"model":"m","x":"\xff"}', 'latin1')],
    ['too deep', `{"model":"m","x":${'['.repeat(5000)}${']'.repeat(5000)}}`],
  ]) {
    it(`malformed JSON (${what}): 400`, async () => {
      const before = upstream.requests.length;
      const answer = await gateway.request('/v1/chat/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
      const error = assertApiError(answer, 400);
      assert.equal(error.type, 'invalid_request_error');
      assert.equal(upstream.requests.length, before, 'no worker sees it');
    });
  }

  it('malformed JSON: BadRequestError in the client', async () => {
    await assert.rejects(
      client.post('/chat/completions', {
        body: Buffer.from('{"model":'),
        headers: { 'content-type': 'application/json' },
      }),
      OpenAI.BadRequestError,
    );
  });

  it('compressed JSON, which nobody could look into: 415', async () => {
    const headers = { 'content-type': 'application/json', 'content-encoding': 'gzip' };
    const body = zlib.gzipSync(JSON.stringify(chat('m')));
    assertApiError(await gateway.request('/v1/chat/completions', { method: 'POST', headers, body }), 415);
  });

  it('no model: refused with a hint', async () => {
    const answer = await gateway.request('/v1/chat/completions', { body: { messages: [] } });
    const error = assertApiError(answer, 400);
    assert.match(error.message, /model/);
  });

  for (const [what, bytes] of [
    ['no HTTP at all', 'hello\r\n\r\n'],
    ['unknown version', 'GET /v1/models HTTP/3.7\r\nhost: heng\r\n\r\n'],
    ['no host', 'GET /v1/models HTTP/1.1\r\n\r\n'],
    [
      'two different lengths',
      'POST /v1/x HTTP/1.1\r\nhost: heng\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}',
    ],
    [
      'length and chunks',
      'POST /v1/x HTTP/1.1\r\nhost: heng\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['space before the colon', 'GET /v1/models HTTP/1.1\r\nhost: heng\r\nx-a : 1\r\n\r\n'],
    ['folded header', 'GET /v1/models HTTP/1.1\r\nhost: heng\r\nx-a: 1\r\n 2\r\n\r\n'],
    [
      'bad chunk size',
      'POST /v1/x HTTP/1.1\r\nhost: heng\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n',
    ],
  ]) {
    it(`malformed HTTP (${what}): 400 and close`, async () => {
      const wire = await Wire.open(gateway.port);
      wire.send(bytes);
      assertApiError(await wire.takeResponse(), 400);
      await wire.takeUntilClose();
    });
  }

  it('body too large by its length: 413 before it is sent', async () => {
    const answer = await exchange(
      requestBytes('POST', '/v1/chat/completions', {
        'content-type': 'application/json',
        'content-length': 10_000_000,
      }),
    );
    assertApiError(answer, 413);
  });

  it('body too large in chunks: 413', async () => {
    const wire = await Wire.open(gateway.port);
    wire.send(
      requestBytes('POST', '/v1/chat/completions', {
        'content-type': 'application/json',
        'transfer-encoding': 'chunked',
      }),
    );
    for (let i = 0; i < 9; ++i) wire.send(`2000\r\n${' '.repeat(0x2000)}\r\n`);
    assertApiError(await wire.takeResponse(), 413);
  });

  it('a body at the limit passes', async () => {
    const body = JSON.stringify(chat('m', { filler: '' }));
    const filler = 'x'.repeat((64 << 10) - body.length);
    const answer = await gateway.request('/v1/chat/completions', { body: chat('m', { filler }) });
    assert.equal(answer.status, 200);
    assert.equal(upstream.requests.at(-1).body.length, 64 << 10);
  });

  it('head too large: 431', async () => {
    assertApiError(await exchange(requestBytes('GET', '/v1/models', { 'x-filler': 'x'.repeat(9000) })), 431);
  });

  it('too many headers: 431', async () => {
    const headers = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`x-${i}`, 'x']));
    assertApiError(await exchange(requestBytes('GET', '/v1/models', headers)), 431);
  });

  it('no worker available: 503 with Retry-After', async () => {
    const answer = await until('the dead worker is known to be dead', async () => {
      const answer = await gateway.request('/v1/chat/completions', { body: chat('dead') });
      return answer.status === 503 && answer;
    });
    assertApiError(answer, 503);
    assert.match(answer.headers['retry-after'], /^[1-9]\d*$/);
    await assert.rejects(client.chat.completions.create(chat('dead')), OpenAI.InternalServerError);
  });

  it('the gateway is well after all that', async () => {
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', chat('m')));
    assert.equal((await wire.takeResponse()).status, 200);
  });
});
