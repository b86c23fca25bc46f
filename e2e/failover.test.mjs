// A worker that dies and comes back under load: nobody notices before the first byte, and it is used again
// soon.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import { chat, sleep, startGateway, startLlama, startUpstream, until, withoutLlama } from './harness.mjs';

/// Requests from several clients until `stop()`; counts answers per worker and keeps every failure.
function startLoad(t, gateway, { clients = 4, body = chat('tiny') } = {}) {
  const answers = new Map(),
    failures = [];
  let running = true;
  t.after(() => (running = false));
  const client = async () => {
    while (running) {
      try {
        const answer = await gateway.request('/v1/chat/completions', { body });
        if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text()}`);
        answers.set(answer.worker, (answers.get(answer.worker) ?? 0) + 1);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  const all = Array.from({ length: clients }, client);
  const count = worker => answers.get(worker.name) ?? 0;
  return {
    count,
    failures,
    grows: async (worker, timeoutMs) => {
      const now = count(worker);
      await until(`${worker.name} answers`, () => count(worker) >= now + 3, { timeoutMs });
    },
    stop: async () => {
      running = false;
      await Promise.all(all);
    },
  };
}

describe('a real engine killed and started again', { skip: withoutLlama }, () => {
  it('loses no request and is used again within seconds', async t => {
    const steady = await startLlama();
    let mortal = await startLlama();
    const gateway = await startGateway({
      pools: [{ model: 'tiny', policy: 'least_connections', workers: [steady.url, mortal.url] }],
    });
    const load = startLoad(t, gateway);
    await load.grows(mortal, 5000);
    await mortal.kill();
    await load.grows(steady, 5000);
    await sleep(500); // long enough for the dead worker to be probed, chosen by mistake, and so on
    mortal = await startLlama({ port: mortal.port });
    const start = performance.now();
    await load.grows(mortal, 5000);
    await load.stop();
    assert.ok(performance.now() - start < 5000);
    assert.deepEqual(load.failures, []);
  });
});

describe('workers that fail', () => {
  let good;
  before(async () => (good = await startUpstream()));

  it('are replaced when they refuse the connection', async () => {
    const gone = await startUpstream();
    await gone.close();
    const gateway = await startGateway({
      health: { active: false },
      pools: [{ model: 'm', policy: 'round_robin', workers: [gone.url, good.url] }],
    });
    for (let i = 0; i < 4; ++i) {
      const answer = await gateway.request('/v1/chat/completions', { body: chat('m') });
      assert.equal(answer.status, 200);
      assert.equal(answer.worker, good.name);
    }
  });

  it('are replaced when they hang up instead of answering', async () => {
    const rude = await startUpstream((incoming, response) => response.destroy());
    const gateway = await startGateway({
      pools: [{ model: 'm', policy: 'round_robin', workers: [rude.url, good.url] }],
    });
    for (let i = 0; i < 4; ++i) {
      const answer = await gateway.request('/v1/chat/completions', { body: chat('m') });
      assert.equal(answer.status, 200, answer.text());
      assert.equal(answer.worker, good.name);
    }
    assert.ok(rude.requests.length >= 1, 'it was tried');
  });

  it('are replaced when they send no first byte in time', async () => {
    const silent = await startUpstream(() => {});
    const gateway = await startGateway({
      timeouts: { first_byte: '500ms', drain: '5s' },
      pools: [{ model: 'm', policy: 'round_robin', workers: [silent.url, good.url] }],
    });
    const answers = await Promise.all(
      [0, 1].map(() => gateway.request('/v1/chat/completions', { body: chat('m') })),
    );
    for (const answer of answers) {
      assert.equal(answer.status, 200, answer.text());
      assert.equal(answer.worker, good.name);
    }
    assert.equal(silent.requests.length, 1, 'it was tried once');
  });

  it('get no second attempt after the first byte: the client sees the break', async () => {
    const breaking = await startUpstream((incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: {"n":1}\n\n', () => response.destroy());
    });
    const before = good.requests.length;
    const gateway = await startGateway({
      pools: [
        { model: 'm', policy: 'round_robin', workers: [breaking.url] },
        { model: 'x', workers: [good.url] },
      ],
    });
    await assert.rejects(
      gateway.request('/v1/chat/completions', { body: chat('m', { stream: true }) }),
      /aborted|ECONNRESET|terminated/,
    );
    assert.equal(breaking.requests.length, 1);
    assert.equal(good.requests.length, before);
  });

  it("may answer 4xx and stay in use: that is the client's fault", async () => {
    const strict = await startUpstream((incoming, response) =>
      response.writeHead(422).end('{"error":{"message":"no"}}'),
    );
    const gateway = await startGateway({ pools: [{ model: 'm', workers: [strict.url] }] });
    for (let i = 0; i < 8; ++i) {
      const answer = await gateway.request('/v1/chat/completions', { body: chat('m') });
      assert.equal(answer.status, 422);
      assert.equal(answer.text(), '{"error":{"message":"no"}}');
    }
    assert.equal(strict.requests.length, 8, 'no second attempts');
  });
});
