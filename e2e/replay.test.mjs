// Recording a run and deciding it again: the same worker for every request, whatever happened meanwhile.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';

import { chat, heng, scratch, sleep, startEngine, startGateway, until } from './harness.mjs';

/// Clients that ask until stopped, with beginnings in common, some of them in a session.
function startLoad(t, gateway, clients = 6) {
  let running = true;
  t.after(() => (running = false));
  const ids = [];
  const all = Array.from({ length: clients }, async (_, client) => {
    for (let turn = 0; running; ++turn) {
      const content = `topic ${turn % 5} `.repeat(200) + `client ${client} turn ${turn}`;
      const body = chat('m', { messages: [{ role: 'user', content }], stream: turn % 2 === 0 });
      const headers = client === 0 ? { 'x-session-id': 'one' } : {};
      const answer = await gateway.request('/v1/chat/completions', { body, headers }).catch(() => undefined);
      if (answer) ids.push(answer.headers['x-request-id']);
    }
  });
  const stop = async () => {
    running = false;
    await Promise.all(all);
  };
  return { ids, stop };
}

const replayJson = async (...args) => {
  const { code, stdout, stderr } = await heng('replay', ...args, '--json');
  return { code, stderr, ...(stdout ? JSON.parse(stdout) : {}) };
};

/// Every policy there is, from the reference page's table.
const policies = (await heng('docs', 'policies')).stdout.match(/(?<=^\| \[`)\w+/gm);

describe('a recorded run', () => {
  for (const policy of policies) {
    it(`of ${policy}, with faults and reloads, is decided the same again`, async t => {
      const record = path.join(scratch, `${policy}.jsonl`);
      const engines = await Promise.all(
        [1, 0.5, 2].map(speed => startEngine({ model: 'm', args: ['--speed', String(20 * speed)] })),
      );
      const config = (workers, limit = 0) => ({
        record,
        pools: [
          {
            model: 'm',
            policy,
            session_header: 'x-session-id',
            hash_on: 'prompt',
            worker_max_in_flight: limit,
            workers: workers.map(({ url }) => url),
          },
          { model: 'other', policy: 'round_robin', workers: [engines[0].url] },
        ],
      });
      const gateway = await startGateway(config(engines));
      const load = startLoad(t, gateway);
      const served = count => {
        const goal = load.ids.length + count;
        return until(`${count} requests more`, () => load.ids.length >= goal);
      };
      await served(60);
      await engines[1].program.kill(); // what it had goes elsewhere, and it is ejected
      await served(60);
      gateway.write(config([engines[0], engines[2]], 2)); // leaves; the others fill up
      assert.equal((await gateway.heng('reload')).code, 0);
      await served(60);
      engines[1] = await startEngine({ port: engines[1].port, model: 'm', args: ['--speed', '20'] });
      gateway.write(config(engines));
      assert.equal((await gateway.heng('reload')).code, 0);
      await served(60);
      if (policy === 'dynamic_weight') {
        const loads = JSON.stringify({ pool: 'm', loads: [10, 20, 30] });
        assert.equal((await gateway.admin('/balance', { method: 'POST', body: loads })).status, 200);
        await served(20);
      }
      await load.stop();
      gateway.program.signal('SIGTERM');
      await gateway.program.waitForEnd();
      const result = await replayJson(record);
      assert.deepEqual(result.differences, []);
      assert.equal(result.code, 0, result.stderr);
      assert.ok(result.decisions >= 240, `${result.decisions} decisions`);
      const { code, stdout } = await heng('replay', record);
      assert.deepEqual([code, stdout], [0, `${result.decisions} decisions, all the same\n`]);
    });
  }

  it('is compared with another policy, explains a request, and is traffic for the simulator', async t => {
    const record = path.join(scratch, 'other.jsonl');
    const accessLog = path.join(scratch, 'other-access.jsonl');
    const engines = await Promise.all([1, 2].map(() => startEngine({ model: 'm', args: ['--speed', '20'] })));
    const gateway = await startGateway({
      record,
      access_log: accessLog,
      pools: [{ model: 'm', policy: 'round_robin', workers: engines.map(({ url }) => url) }],
    });
    const load = startLoad(t, gateway, 3);
    await until('forty requests', () => load.ids.length >= 40);
    await load.stop();
    gateway.program.signal('SIGTERM');
    await gateway.program.waitForEnd();

    const other = await replayJson(record, '--policy', 'least_time');
    assert.equal(other.code, 0, other.stderr);
    assert.equal(other.policy, 'least_time');
    const sum = key => other.workers.reduce((total, worker) => total + worker[key], 0);
    assert.equal(sum('recorded'), other.decisions);
    assert.equal(sum('replayed'), other.decisions);
    assert.match((await heng('replay', record, '--policy', 'hash')).stdout, /exactly as it went/);

    const line = JSON.parse(fs.readFileSync(accessLog, 'utf8').split('\n')[10]);
    const { explained } = await replayJson(record, '--explain', line.id);
    assert.equal(explained.length, 1);
    assert.equal(explained[0].recorded, line.worker);
    const candidates = explained[0].candidates.map(({ worker }) => worker);
    assert.deepEqual(candidates.sort(), engines.map(({ name }) => name).sort());
    assert.equal(typeof explained[0].candidates[0].terms.in_flight, 'number');
    const shown = await heng('replay', record, '--explain', line.id, '--policy', 'least_connections');
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, new RegExp(`recorded: ${line.worker}`));
    assert.match(shown.stdout, /WORKER +in_flight/);
    assert.equal((await heng('replay', record, '--explain', 'nobody')).code, 1);

    const sim = await heng('sim', '--trace', record, '--workers', '2', '--policy', 'least_time', '--json');
    assert.equal(sim.code, 0, sim.stderr);
    const [result] = JSON.parse(sim.stdout).results;
    assert.equal(result.completed, load.ids.length);
    assert.ok(result.cached_share > 0.5, 'the beginnings in common are known');
  });

  it('of conversations is predicted by the simulator: what was cached, how long answers took', async t => {
    const record = path.join(scratch, 'talk.jsonl');
    const accessLog = path.join(scratch, 'talk-access.jsonl');
    const engines = await Promise.all([1, 2].map(() => startEngine({ model: 'm' })));
    const gateway = await startGateway({
      record,
      access_log: accessLog,
      pools: [{ model: 'm', workers: engines.map(({ url }) => url) }],
    });
    // Each turn repeats the answers before it; all begin alike.
    const talk = async number => {
      const messages = [{ role: 'system', content: 'be brief and kind '.repeat(100) }];
      for (let turn = 0; turn < 6; ++turn) {
        messages.push({ role: 'user', content: `question ${turn} of ${number} `.repeat(20) });
        const usage = { stream: true, stream_options: { include_usage: true } };
        const body = { model: 'm', messages, max_tokens: 120, ...usage };
        const answer = await gateway.request('/v1/chat/completions', { body });
        assert.equal(answer.status, 200);
        const words = [...answer.text().matchAll(/"content":"([^"]*)"/g)].map(([, word]) => word);
        messages.push({ role: 'assistant', content: words.join('') });
        await sleep(150);
      }
    };
    const later = number => sleep(200 * number).then(() => talk(number));
    await Promise.all(Array.from({ length: 12 }, (_, number) => later(number)));
    gateway.program.signal('SIGTERM');
    await gateway.program.waitForEnd();
    const replayed = await replayJson(record);
    assert.deepEqual([replayed.code, replayed.differences, replayed.decisions], [0, [], 72]);

    const simLog = path.join(scratch, 'talk-sim.jsonl');
    const two = ['--workers', '2', '--policy', 'least_time'];
    const sim = await heng('sim', '--trace', record, ...two, '--log', simLog);
    assert.equal(sim.code, 0, sim.stderr);
    const [live, simulated] = [accessLog, simLog].map(file =>
      fs.readFileSync(file, 'utf8').trim().split('\n').map(line => JSON.parse(line)),
    );
    assert.equal(simulated.length, live.length);
    const sum = (lines, key) => lines.reduce((total, line) => total + line[key], 0);
    const cached = lines => sum(lines, 'cached_tokens') / sum(lines, 'prompt_tokens');
    assert.ok(cached(live) > 0.6, `${cached(live)} was cached`);
    assert.ok(Math.abs(cached(live) - cached(simulated)) < 0.05, `${cached(live)}, ${cached(simulated)}`);
    const median = lines => lines.map(line => line.duration_ms).sort((a, b) => a - b)[lines.length >> 1];
    const ratio = median(live) / median(simulated); // bench/agreement measures it well, on an idle machine
    assert.ok(ratio > 0.5 && ratio < 2, `answers took ${ratio} times as long as in the simulator`);
  });

  it('is read to the last whole line after kill -9, and goes on with the next process', async t => {
    const record = path.join(scratch, 'killed.jsonl');
    const engines = await Promise.all([1, 2].map(() => startEngine({ model: 'm', args: ['--speed', '20'] })));
    const gateway = await startGateway({
      record,
      pools: [{ model: 'm', policy: 'two_choices', workers: engines.map(({ url }) => url) }],
    });
    let load = startLoad(t, gateway, 3);
    await until('requests', () => load.ids.length >= 20);
    await sleep(200); // what is gathered is written every 100 ms
    await gateway.program.kill();
    await load.stop();
    const first = await replayJson(record);
    assert.equal(first.code, 0, first.stderr);
    assert.ok(first.decisions >= 20);
    const whole = fs.readFileSync(record, 'utf8').lastIndexOf('\n', fs.statSync(record).size - 2) + 1;
    fs.truncateSync(record, whole + 20);
    const torn = await replayJson(record);
    assert.equal(torn.code, 0, torn.stderr);
    assert.match(torn.stderr, /unfinished line/);
    await gateway.start();
    load = startLoad(t, gateway, 3);
    await until('requests', () => load.ids.length >= 20);
    await load.stop();
    gateway.program.signal('SIGTERM');
    await gateway.program.waitForEnd();
    const both = await replayJson(record);
    assert.equal(both.code, 0, both.stderr);
    assert.ok(both.decisions >= torn.decisions + 20);
  });

  it('goes on through a hand-over: two processes write one file', async t => {
    const record = path.join(scratch, 'handover.jsonl');
    const engines = await Promise.all([1, 2].map(() => startEngine({ model: 'm', args: ['--speed', '20'] })));
    const gateway = await startGateway({
      record,
      pools: [{ model: 'm', policy: 'least_time', workers: engines.map(({ url }) => url) }],
    });
    const load = startLoad(t, gateway, 4);
    await until('requests', () => load.ids.length >= 30);
    const { status, ...answer } = await gateway.admin('/api/v1/handover', { method: 'POST' });
    assert.equal(status, 200);
    const { pid } = answer.json();
    t.after(() => process.kill(pid, 'SIGKILL'));
    const before = load.ids.length;
    await until('more requests', () => load.ids.length >= before + 30);
    await load.stop();
    await until('all is written', async () => {
      const { code, decisions } = await replayJson(record);
      return code === 0 && decisions >= load.ids.length;
    });
    const processes = new Set(fs.readFileSync(record, 'utf8').match(/"process":\d+/g));
    assert.equal(processes.size, 2);
  });

  it('ends, and nothing else does, when the disk is full', async () => {
    const engine = await startEngine({ model: 'm', args: ['--speed', '20'] });
    const gateway = await startGateway({
      record: '/dev/full',
      pools: [{ model: 'm', workers: [engine.url] }],
    });
    const said = /the recording '\/dev\/full' ends here: No space/;
    await until('that is said', () => said.test(gateway.program.log()));
    for (let i = 0; i < 3; ++i)
      assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 200);
    assert.match((await gateway.admin('/metrics')).text(), /^heng_recording 0$/m);
    await sleep(300);
    assert.equal(gateway.program.log().match(/ends here/g).length, 1, 'once');
  });

  it('is not written into a file that holds something else', async () => {
    const notes = path.join(scratch, 'notes.txt');
    fs.writeFileSync(notes, 'mine\n');
    const config = path.join(scratch, 'notes.yaml');
    const listen = `unix:${path.join(scratch, 'notes.sock')}`;
    const pools = [{ model: 'm', workers: ['http://127.0.0.1:9'] }];
    fs.writeFileSync(config, JSON.stringify({ listen, admin: 'off', pools }));
    const { code, stderr } = await heng('serve', '-c', config, '--record', notes);
    assert.notEqual(code, 0);
    assert.match(stderr, /notes\.txt' is there already and is no recording/);
    assert.equal(fs.readFileSync(notes, 'utf8'), 'mine\n');
  });

  it('is not begun or ended by a reload, and says so', async () => {
    const engine = await startEngine({ model: 'm' });
    const config = { pools: [{ model: 'm', workers: [engine.url] }] };
    const gateway = await startGateway(config);
    gateway.write({ ...config, record: path.join(scratch, 'late.jsonl') });
    const { code, stderr } = await gateway.heng('reload');
    assert.notEqual(code, 0);
    assert.match(stderr, /'record' cannot change while running/);
  });
});
