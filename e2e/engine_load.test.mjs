// What engines say of their own load: the gateway's view follows it, and pages that are missing, slow or
// endless do nobody any harm.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';

import {
  chat,
  request,
  startEngine,
  startGateway,
  startLlama,
  startUpstream,
  until,
  withoutLlama,
} from './harness.mjs';

const always = { interval: '100ms', always: true };
const pool = (url, more = {}) => ({
  pools: [{ model: 'm', policy: 'round_robin', workers: [url] }],
  ...more,
});

async function worker(gateway) {
  return (await gateway.admin('/api/v1/workers')).json().workers[0];
}

/// Long streams from the engine itself, past the gateway: only its page can tell of them. Returns how to end
/// them.
function busy(engine, requests) {
  const left = new AbortController();
  const body = JSON.stringify(chat('m', { stream: true, max_tokens: 1500, ignore_eos: true }));
  const headers = { 'content-type': 'application/json' };
  const all = Array.from({ length: requests }, () =>
    fetch(`${engine.url}/v1/chat/completions`, { method: 'POST', headers, body, signal: left.signal })
      .then(answer => answer.text())
      .catch(() => {}),
  );
  return async () => {
    left.abort();
    await Promise.all(all);
  };
}

async function follows(engine) {
  const gateway = await startGateway(pool(engine.url, { engine_load: always }));
  const says = (running, waiting) =>
    until(`${running} run and ${waiting} wait`, async () => {
      const { engine_load: load } = await worker(gateway);
      return load?.running === running && load.waiting === waiting && load;
    });
  assert.equal((await says(0, 0)).kv_used, 0);
  const end = busy(engine, 5);
  const load = await says(2, 3);
  assert.ok(load.age_s < 2, JSON.stringify(load));
  await end();
  await says(0, 0);
  assert.equal((await worker(gateway)).in_flight, 0);
  return load;
}

describe('engine load', { concurrency: 4 }, () => {
  it("follows a simulated engine's page", async () => {
    const engine = await startEngine({ model: 'm', args: ['--max-num-seqs', '2', '--kv-blocks', '1000'] });
    const load = await follows(engine);
    assert.ok(load.kv_used > 0 && load.kv_used < 1, JSON.stringify(load));
  });

  it("follows llama-server's page", { skip: withoutLlama }, async () => {
    await follows(await startLlama({ model: 'm', slots: 2 }));
  });

  it('is not asked for where no policy goes by it', async () => {
    const upstream = await startUpstream();
    const config = { engine_load: { interval: '100ms' }, health: { path: '/ping', interval: '50ms' } };
    await startGateway(pool(upstream.url, config));
    await until('some probes', () => upstream.requests.length > 10);
    assert.ok(upstream.requests.every(({ url }) => url === '/ping'));
  });

  it('ends with a reload that turns it off', async () => {
    const engine = await startEngine({ model: 'm' });
    const gateway = await startGateway(pool(engine.url, { engine_load: always }));
    await until('a reading', async () => (await worker(gateway)).engine_load);
    gateway.write(pool(engine.url, { engine_load: { ...always, interval: '0s' } }));
    assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
    assert.equal((await worker(gateway)).engine_load, null);
  });

  it('knows a worker again that comes back from a reload with another policy', async () => {
    const engine = await startEngine({ model: 'm' });
    const slowly = { ...always, interval: '1h' };
    const gateway = await startGateway(pool(engine.url, { engine_load: always }));
    await until('a reading', async () => (await worker(gateway)).engine_load);
    const other = pool(engine.url, { engine_load: slowly });
    other.pools[0].policy = 'two_choices';
    gateway.write(other);
    assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
    assert.equal((await worker(gateway)).engine_load.running, 0);
  });

  for (const [what, answer] of [
    ['is missing', (incoming, response) => response.writeHead(404).end('{}')],
    ['is not there, as llama-server puts it', (incoming, response) => response.writeHead(501).end()],
    ["is another's", (incoming, response) => response.end('up 1\n')],
    ['cannot be read', (incoming, response) => response.end('vllm:num_requests_running{a="b} 1\n')],
  ]) {
    it(`is asked for once a minute where the page ${what}`, async () => {
      const upstream = await startUpstream(
        (incoming, response) =>
          incoming.url === '/metrics' ? answer(incoming, response) : response.end('{}'),
        { showsMetrics: true },
      );
      const gateway = await startGateway(
        pool(upstream.url, { engine_load: always, health: { path: '/ping', interval: '50ms' } }),
      );
      const asked = () => upstream.requests.filter(({ url }) => url === '/metrics').length;
      await until('it is asked', asked);
      const before = upstream.requests.length;
      await until('many probes more', () => upstream.requests.length > before + 12);
      assert.equal(asked(), 1);
      assert.match(gateway.program.log(), /\/metrics: no engine load there: /);
      const { state, engine_load: load, faults } = await worker(gateway);
      assert.equal(state, 'healthy');
      assert.equal(load, null);
      assert.ok(Object.values(faults).every(count => count === 0), JSON.stringify(faults));
    });
  }

  for (const [what, answer] of [
    ['never comes', () => {}],
    [
      'never ends',
      async (incoming, response) => {
        const closed = once(response, 'close');
        while (!response.destroyed) {
          if (!response.write('vllm:num_requests_running 1\n'.repeat(1000)))
            await Promise.race([once(response, 'drain'), closed]);
        }
      },
    ],
    [
      'breaks off',
      (incoming, response) => {
        response.writeHead(200, { 'content-length': 1000 });
        const page = 'vllm:num_requests_running 1\nvllm:num_requests_waiting 1\n';
        response.write(page, () => response.destroy());
      },
    ],
    ['fails', (incoming, response) => response.writeHead(500).end()],
  ]) {
    it(`does no harm where the page ${what}`, async () => {
      const upstream = await startUpstream(
        (incoming, response) =>
          incoming.url === '/metrics' ? answer(incoming, response) : response.end('{}'),
        { showsMetrics: true },
      );
      const gateway = await startGateway(
        pool(upstream.url, { engine_load: { ...always, timeout: '200ms' } }),
      );
      const asked = () => upstream.requests.filter(({ url }) => url === '/metrics').length;
      await until('it is asked again', () => asked() > 3);
      assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 200);
      const { state, engine_load: load, faults, last_fault: last } = await worker(gateway);
      assert.equal(state, 'healthy');
      assert.equal(load, null);
      assert.equal(last, 'none');
      assert.ok(Object.values(faults).every(count => count === 0), JSON.stringify(faults));
    });
  }

  it('sends the key of the worker, below its base path, to the configured page', async () => {
    const upstream = await startUpstream((incoming, response) =>
      response.end('tgi_batch_current_size 3\ntgi_queue_size 1\n'),
    );
    const gateway = await startGateway({
      engine_load: { ...always, path: '/load' },
      pools: [{ model: 'm', workers: [{ url: `${upstream.url}/base`, api_key: 'secret' }] }],
    });
    const load = await until('a reading', async () => (await worker(gateway)).engine_load);
    assert.equal(load.running, 3);
    const asked = upstream.requests.find(({ url }) => url === '/base/load');
    assert.equal(asked.headers.authorization, 'Bearer secret');
    assert.equal((await request(`${gateway.adminUrl}/healthz`)).status, 200);
  });
});
