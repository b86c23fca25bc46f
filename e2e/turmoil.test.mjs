// Everything at once: clients that leave and workers that fail in every way, then all accounts must balance.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import { chat, postBytes, sleep, startGateway, startUpstream, until, Wire } from './harness.mjs';

describe('turmoil', () => {
  /// What the worker does, by the request's `way`.
  const ways = {
    whole: (incoming, response) => response.end('{"object":"chat.completion"}'),
    stream: async (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (let i = 0; i < 5 && !response.destroyed; ++i) {
        response.write(`data: ${i}\n\n`);
        await sleep(5);
      }
      response.end('data: [DONE]\n\n');
    },
    never: () => {},
    error: (incoming, response) => response.writeHead(500).end('{"error":{"message":"no"}}'),
    hangup: (incoming, response) => response.destroy(),
    broken: (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'content-length': 1000 });
      response.write('data: 0\n\n', () => response.destroy());
    },
    garbage: incoming => incoming.socket.end('nonsense\r\n\r\n'),
    large: (incoming, response) => response.end(Buffer.alloc(1 << 20, 'x')),
  };
  let gateway;

  before(async () => {
    const handler = (incoming, response, body) => ways[JSON.parse(body).way](incoming, response);
    const upstreams = await Promise.all([0, 1, 2].map(() => startUpstream(handler)));
    gateway = await startGateway({
      // A worker that is ejected takes no part: here all of them misbehave all the time.
      health: { interval: '300ms', probe_back: '50ms', passive_faults: 1000, slow_start: '0s' },
      timeouts: { first_byte: '1s', drain: '5s' },
      pools: [{ model: 'm', policy: 'least_connections', workers: upstreams.map(upstream => upstream.url) }],
    });
  });

  /// One client: sends, and then stays, leaves at once or in a moment, or half-closes.
  async function client(way, manner) {
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', chat('m', { way, stream: way === 'stream' })));
    if (manner === 'half-closes') wire.finish();
    if (manner === 'leaves at once') return wire.destroy();
    if (manner === 'leaves in a moment') return sleep(10).then(() => wire.socket.resetAndDestroy());
    const got = await wire.takeResponse({ timeoutMs: 20_000 }).catch(error => ({ error }));
    wire.destroy();
    return got;
  }

  it('every request ends, in a way that fits, and none is left over', { timeout: 50_000 }, async () => {
    const manners = ['stays', 'stays', 'half-closes', 'leaves at once', 'leaves in a moment'];
    const results = [];
    for (let round = 0; round < 3; ++round) {
      const clients = Object.keys(ways).flatMap(way =>
        manners.map(async manner => results.push([way, manner, await client(way, manner)])),
      );
      await Promise.all(clients);
    }
    for (const [way, manner, got] of results) {
      if (manner.startsWith('leaves')) continue;
      const what = `${way}, ${manner}: ${got.error ?? got.status}`;
      if (['whole', 'large', 'stream'].includes(way)) assert.equal(got.status, 200, what);
      if (way === 'large') assert.equal(got.body.length, 1 << 20, what);
      if (way === 'stream') assert.ok(got.body.toString().endsWith('data: [DONE]\n\n'), what);
      if (way === 'never') assert.equal(got.status, 504, what);
      if (way === 'error') assert.equal(got.status, 500, what);
      if (way === 'hangup' || way === 'garbage') assert.equal(got.status, 502, what);
      if (way === 'broken') assert.match(String(got.error), /closed/, what);
    }
    const values = (page, name) =>
      [...page.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))].map(match => Number(match[1]));
    const sum = (page, name) => values(page, name).reduce((all, value) => all + value, 0);
    const page = await until('nothing in flight', async () => {
      const text = (await gateway.admin('/metrics')).text();
      return sum(text, 'heng_worker_inflight') === 0 && sum(text, 'heng_requests_in_flight') === 0 && text;
    });
    assert.equal(sum(page, 'heng_requests_arrived_total'), sum(page, 'heng_requests_ended_total'));
    assert.ok(sum(page, 'heng_requests_arrived_total') > results.length / 2);
  });
});
