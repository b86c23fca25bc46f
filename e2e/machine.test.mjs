// What the machine does to the gateway: it is stopped and goes on, it runs short of descriptors and memory,
// its disk is full.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

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

/// The value of one metric, all labels added up.
const metric = async (gateway, name) =>
  [...(await gateway.admin('/metrics')).text().matchAll(new RegExp(`^${name}(?:{[^}]*})? (\\S+)$`, 'gm'))]
    .map(match => Number(match[1]))
    .reduce((sum, value) => sum + value, 0);

describe('a gateway that is stopped for longer than its time-outs', () => {
  it('goes on as if no time had passed: nothing is cut off, nobody ejected', async () => {
    const resumed = gate();
    const upstream = await startUpstream(async (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      await resumed.promise;
      response.end('data: 2\n\n');
    });
    const gateway = await startGateway({
      health: { interval: '100ms', timeout: '1s', fall: 1, slow_start: '0s' },
      timeouts: { idle: '1500ms', client_header: '1500ms', client_idle: '1500ms', drain: '5s' },
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const [streaming, halfSent, idle] = [
      await Wire.open(gateway.port),
      await Wire.open(gateway.port),
      await Wire.open(gateway.port),
    ];
    streaming.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
    await streaming.takeThrough('data: 1\n\n');
    const question = requestBytes('GET', '/healthz');
    halfSent.send(question.subarray(0, 10));
    idle.send(question);
    await idle.takeResponse();
    const stalls = await metric(gateway, 'heng_stalls_total');

    gateway.program.signal('SIGSTOP');
    await sleep(3000);
    gateway.program.signal('SIGCONT');
    await until('the stall is noticed', async () => (await metric(gateway, 'heng_stalls_total')) > stalls);
    assert.ok((await metric(gateway, 'heng_stalled_seconds_total')) > 2);

    idle.send(question);
    assert.equal((await idle.takeResponse()).status, 200);
    halfSent.send(question.subarray(10));
    assert.equal((await halfSent.takeResponse()).status, 200);
    resumed.resolve();
    await streaming.takeThrough('data: 2\n\n');
    await streaming.takeThrough('0\r\n\r\n');
    const [worker] = (await gateway.admin('/api/v1/workers')).json().workers;
    assert.equal(worker.state, 'healthy');
    assert.equal(worker.last_fault, 'none');
  });
});
