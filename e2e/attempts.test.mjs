// First and second attempts: when there is a second one, where it goes, and what it may not do.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import {
  answerJson,
  assertApiError,
  chat,
  sleep,
  startEngine,
  startGateway,
  startUpstream,
  until,
} from './harness.mjs';

const ask = (gateway, headers = {}) => gateway.request('/v1/chat/completions', { body: chat('m'), headers });

describe('a hedged request', () => {
  let slow, good;
  before(async () => {
    slow = await startUpstream(async (incoming, response) => {
      await sleep(1500);
      answerJson(incoming, response, '');
    });
    good = await startUpstream();
  });
  const start = retry =>
    startGateway({ retry, pools: [{ model: 'm', policy: 'round_robin', workers: [slow.url, good.url] }] });

  it('is answered by the faster worker, and the slower one is let go', async () => {
    const gateway = await start({ hedge_after: '100ms', hedge_ratio: 1 });
    for (let i = 0; i < 4; ++i) {
      const answer = await ask(gateway);
      assert.equal(answer.status, 200);
      assert.equal(answer.worker, good.name);
    }
    await until('the slow worker is let go', () => slow.requests.every(({ socket }) => socket.destroyed));
    assert.equal(slow.requests.length, 2);
    const metrics = (await gateway.admin('/metrics')).text();
    assert.match(metrics, /heng_hedges_total\{model="m"\} 2\n/);
  });

  it('is none without the wish for it, nor without a share of the traffic', async () => {
    for (const retry of [{}, { hedge_after: '100ms', hedge_ratio: 0 }]) {
      const gateway = await start(retry);
      const answers = await Promise.all([ask(gateway), ask(gateway)]);
      assert.deepEqual(new Set(answers.map(({ worker }) => worker)), new Set([slow.name, good.name]));
    }
  });

  it('waits for its twin when one of the two fails', async () => {
    const failing = await startUpstream(async (incoming, response) => {
      await sleep(300);
      response.writeHead(500).end('{}');
    });
    const gateway = await startGateway({
      retry: { hedge_after: '100ms', hedge_ratio: 1 },
      pools: [{ model: 'm', policy: 'round_robin', workers: [failing.url, slow.url] }],
    });
    const answer = await ask(gateway);
    assert.equal(answer.status, 200);
    assert.equal(answer.worker, slow.name);
  });
});

describe('requests at a worker that stops', () => {
  it('go to another one if their answer has not begun, and nothing is asked twice', async () => {
    const stopped = await startEngine({ model: 'm' });
    const good = await startEngine({ model: 'm' });
    const gateway = await startGateway({
      health: { interval: '200ms', timeout: '300ms' },
      pools: [{ model: 'm', policy: 'round_robin', workers: [stopped.url, good.url] }],
    });
    await ask(gateway); // both have been seen alive
    stopped.program.signal('SIGSTOP');
    const answers = await Promise.all(Array.from({ length: 16 }, () => ask(gateway)));
    stopped.program.signal('SIGCONT');
    for (const answer of answers) {
      assert.equal(answer.status, 200, answer.text());
      assert.equal(answer.worker, good.name);
    }
  });
});

describe('what the client is told', () => {
  const answering = (status, headers = {}) =>
    startUpstream((incoming, response) => response.writeHead(status, headers).end('{}'));

  it('a redirect to another host is not passed on', async () => {
    const worker = await answering(307, { location: 'http://169.254.169.254/latest/meta-data' });
    const gateway = await startGateway({ pools: [{ model: 'm', workers: [worker.url] }] });
    const answer = await ask(gateway);
    assertApiError(answer, 502);
    assert.equal(answer.headers.location, undefined);
  });

  it('when to come back, if all workers are overloaded; the workers own word has precedence', async () => {
    for (const [headers, expected] of [
      [{}, '1'],
      [{ 'retry-after': '7' }, '7'],
    ]) {
      const workers = [await answering(429, headers), await answering(429, headers)];
      const gateway = await startGateway({ pools: [{ model: 'm', workers: workers.map(({ url }) => url) }] });
      const answer = await ask(gateway);
      assert.equal(answer.status, 429);
      assert.equal(answer.headers['retry-after'], expected);
      assert.equal(workers[0].requests.length + workers[1].requests.length, 2);
    }
  });

  it('when to come back, if no worker is there', async () => {
    const gone = await startUpstream();
    await gone.close();
    const gateway = await startGateway({ pools: [{ model: 'm', workers: [gone.url] }] });
    await until('the worker is out', async () => (await ask(gateway)).status === 503);
    const answer = await ask(gateway);
    assertApiError(answer, 503);
    assert.equal(answer.headers['retry-after'], '1');
    assert.equal(answer.headers['retry-after-ms'], '1000');
  });

  it('not to repeat, once the retries of gateway and client are used up', async () => {
    const hangUp = (incoming, response) => response.destroy();
    const rude = [await startUpstream(hangUp), await startUpstream(hangUp)];
    const gateway = await startGateway({
      retry: { budget_floor: 3 },
      health: { passive_faults: 1000 },
      pools: [{ model: 'm', workers: rude.map(({ url }) => url) }],
    });
    const first = await ask(gateway);
    assertApiError(first, 502);
    assert.equal(first.headers['x-should-retry'], undefined);
    for (let i = 0; i < 4; ++i) await ask(gateway, { 'x-stainless-retry-count': '1' });
    const tried = rude[0].requests.length + rude[1].requests.length;
    const last = await ask(gateway);
    assertApiError(last, 502);
    assert.equal(last.headers['x-should-retry'], 'false');
    assert.equal(rude[0].requests.length + rude[1].requests.length, tried + 1, 'no second attempt');
  });
});

describe('an upload', () => {
  it('is not sent twice, for the first worker may have taken it', async () => {
    const rude = await startUpstream((incoming, response) => response.destroy());
    const good = await startUpstream();
    const gateway = await startGateway({
      pools: [{ model: 'm', policy: 'round_robin', workers: [rude.url, good.url] }],
    });
    const upload = () => gateway.request('/v1/files', { method: 'POST', body: { purpose: 'batch' } });
    const statuses = [(await upload()).status, (await upload()).status];
    assert.deepEqual(statuses.sort(), [200, 502]);
    assert.equal(good.requests.length, 1);
  });
});
