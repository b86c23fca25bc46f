// A worker that dies and comes back under load: nobody notices before the first byte, and it is used again
// soon.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import {
  chat,
  freePort,
  sleep,
  startEngine,
  startGateway,
  startLlama,
  startUpstream,
  until,
  withoutLlama,
} from './harness.mjs';

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

const workersOf = async gateway => (await gateway.admin('/api/v1/workers')).json().workers;
const ask = (gateway, model = 'm') => gateway.request('/v1/chat/completions', { body: chat(model) });

describe('an engine that is stopped', () => {
  it('gets nothing new within 2 s, and nobody waits for it much longer', async () => {
    const engines = await Promise.all([1, 2, 3].map(() => startEngine()));
    const gateway = await startGateway({
      health: { slow_start: '0s' },
      pools: [{ model: 'sim', policy: 'round_robin', workers: engines.map(engine => engine.url) }],
    });
    const took = [];
    const failures = [];
    const one = async () => {
      const start = performance.now();
      const body = chat('sim', { stream: true, max_tokens: 40 });
      const answer = await gateway.request('/v1/chat/completions', { body });
      if (answer.status !== 200 || !answer.text().endsWith('data: [DONE]\n\n')) failures.push(answer.text());
      took.push(performance.now() - start);
    };
    const load = async seconds => {
      const all = [];
      for (let i = 0; i < seconds * 30; ++i) {
        all.push(one().catch(error => failures.push(error)));
        await sleep(1000 / 30);
      }
      return all;
    };
    await Promise.all(await load(2));
    took.length = 0;
    // Nothing is under way now: all that are hurt began after the fault.
    engines[0].program.signal('SIGSTOP');
    const stopped = performance.now();
    const noticed = until('it is left out', async () => !(await workersOf(gateway))[0].eligible);
    const all = await load(3);
    await noticed;
    await Promise.all(all);
    const state = (await workersOf(gateway))[0];
    assert.equal(state.state, 'ejected');
    assert.ok(performance.now() - stopped - state.since_s * 1000 < 2500, 'out soon after 1.5 s of silence');
    assert.deepEqual(failures, []);
    const late = took.filter(ms => ms > 2600);
    assert.ok(late.length <= 10, `${late.length} of ${took.length} took over 2.6 s`);
    engines[0].program.signal('SIGCONT');
    await until('it is used again', async () => (await workersOf(gateway))[0].eligible, { timeoutMs: 3000 });
  });
});

describe('health of workers', () => {
  it('does not go by one bad answer, nor does it take the last worker out', async () => {
    const broken = await startUpstream((incoming, response) => response.writeHead(500).end('broken'));
    const gateway = await startGateway({ pools: [{ model: 'm', workers: [broken.url] }] });
    for (let i = 0; i < 8; ++i) {
      const answer = await ask(gateway);
      assert.equal(answer.status, 500);
      assert.equal(answer.text(), 'broken');
    }
    const [worker] = await workersOf(gateway);
    assert.equal(worker.state, 'ejected');
    assert.equal(worker.eligible, true, 'better than nobody');
    assert.equal(worker.faults.server_error, 8);
    assert.equal(worker.faults.probe, 0);
    assert.equal(worker.ejections, 1);
    const page = (await gateway.admin('/metrics')).text();
    assert.match(page, /^heng_worker_faults_total\{[^}]*cause="server_error"[^}]*\} 8$/m);
    assert.match(page, /^heng_worker_state\{[^}]*state="ejected"[^}]*\} 1$/m);
    assert.match(page, /^heng_worker_state\{[^}]*state="healthy"[^}]*\} 0$/m);
  });

  it('leaves an outlier out and tries one request before it is used again', async () => {
    let broken = true;
    const outlier = await startUpstream((incoming, response) =>
      broken ? response.writeHead(500).end() : response.end('{"ok":true}'),
    );
    const good = await startUpstream();
    const gateway = await startGateway({
      health: { probe_back: '200ms', interval: '100ms', slow_start: '0s' },
      pools: [{ model: 'm', policy: 'round_robin', workers: [outlier.url, good.url] }],
    });
    for (let i = 0; i < 8; ++i) assert.equal((await ask(gateway)).status, 200);
    assert.equal((await workersOf(gateway))[0].state, 'ejected');
    const before = outlier.requests.length;
    await until('one more is tried', async () => {
      assert.equal((await ask(gateway)).status, 200);
      return outlier.requests.length > before;
    });
    assert.equal((await workersOf(gateway))[0].state, 'ejected', 'good probes are not enough');
    broken = false;
    await until('it is back', async () => {
      assert.equal((await ask(gateway)).status, 200);
      return (await workersOf(gateway))[0].state === 'healthy';
    });
  });

  it('reaches all pools of a worker at once', async () => {
    const gone = await startUpstream();
    await gone.close();
    const good = await startUpstream();
    const workers = [gone.url, good.url];
    const gateway = await startGateway({
      health: { active: false },
      pools: ['a', 'b'].map(model => ({ model, policy: 'round_robin', workers })),
    });
    await Promise.all([ask(gateway, 'a'), ask(gateway, 'a')]);
    const members = (await workersOf(gateway)).filter(worker => worker.name === gone.name);
    assert.equal(members.length, 2);
    for (const member of members) {
      assert.equal(member.state, 'ejected');
      assert.equal(member.faults.refused, 1, 'asked once, for both');
    }
  });

  it('is kept by a reload that changes how it is judged, and a worker added then starts slowly', async () => {
    const good = await startUpstream();
    const late = await startUpstream();
    const gone = `http://127.0.0.1:${await freePort()}`;
    const pools = (...workers) => [{ model: 'm', policy: 'round_robin', workers }];
    const gateway = await startGateway({ health: { slow_start: '60s' }, pools: pools(good.url, gone) });
    await until('one is out', async () => (await workersOf(gateway))[1].state === 'ejected');
    assert.equal((await workersOf(gateway))[0].ramp, 1, 'there from the start');
    gateway.write({ health: { slow_start: '60s', fall: 7 }, pools: pools(good.url, gone, late.url) });
    gateway.program.signal('SIGHUP');
    const now = await until('the third is used', async () => {
      const workers = await workersOf(gateway);
      return workers[2]?.state === 'healthy' && workers;
    });
    assert.equal(now[1].state, 'ejected');
    assert.equal(now[1].ejections, 1);
    assert.ok(now[2].ramp < 0.2);
    assert.equal(now[0].ramp, 1);
  });
});
