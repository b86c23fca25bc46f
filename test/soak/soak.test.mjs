// Load with random faults for as long as asked, and what must hold all the time. See test/README.md.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { it } from 'node:test';

import { sleep, startGateway, until } from '../../e2e/harness.mjs';
import { doHarm, GoodClient } from './clients.mjs';
import { Random } from './random.mjs';
import { Engine, Joker, jokes } from './workers.mjs';

const minutes = Number(process.env.HENG_SOAK_MINUTES ?? 1);
const seed = Number(process.env.HENG_SOAK_SEED ?? Date.now() % 1_000_000);
const goodClients = 12;
const badClients = 4;
const policies = [
  'least_connections',
  'round_robin',
  'two_choices',
  'response_time',
  'dynamic_weight',
  'hash',
];
// A longer run can tell a leak from the allocator's habits more exactly.
const growthLimitMiB = Math.max(8, minutes / 60);

const say = line => process.stdout.write(`${line}\n`);

class Soak {
  constructor() {
    this.random = new Random(seed);
    this.tally = { complete: 0, marked: 0, harm: 0, faults: 0 };
    this.violations = [];
    this.samples = [];
    this.last = '';
  }

  async start() {
    this.engines = [await Engine.start(), await Engine.start(), await Engine.start()];
    this.jokers = [await Joker.start(), await Joker.start()];
    this.workers = [...this.engines, ...this.jokers];
    this.gateway = await startGateway(this.config());
    this.pid = this.gateway.program.child.pid;
    this.ends = performance.now() + minutes * 60_000;
    this.went = true;
  }

  config() {
    const workers = this.workers.map(({ name }) => ({
      url: `http://${name}`,
      weight: 1 + this.random.whole(0, 3),
    }));
    return {
      timeouts: {
        first_byte: '4s',
        idle: '3s',
        connect: '1s',
        client_header: '1s',
        client_body: '1s',
        client_write: '2s',
        worker_idle: '2s',
        drain: '20s',
      },
      health: { interval: '300ms', timeout: '500ms', probe_back: '200ms', slow_start: '1s' },
      pools: [{ model: 'm', policy: this.random.pick(policies), workers }],
    };
  }

  going() {
    return performance.now() < this.ends;
  }
  violation(what) {
    this.violations.push(what);
    say(`soak: VIOLATION ${what}`);
  }

  // ------------------------------------------------------------------------------------------------- actors

  async goodClient(random) {
    const jokerNames = new Set(this.jokers.map(joker => joker.name));
    const client = new GoodClient(this.gateway.port, random, jokerNames);
    while (this.going()) {
      try {
        ++this.tally[await client.ask()];
      } catch (error) {
        this.violation(error.message);
      }
      await sleep(random.whole(0, 60));
    }
  }

  async badClient(random) {
    while (this.going()) {
      await doHarm(this.gateway.port, random).catch(() => {}); // how it fares is its own affair
      ++this.tally.harm;
      await sleep(random.whole(0, 150));
    }
  }

  /// One engine's misfortunes.
  async engineFate(engine, random) {
    while (this.going()) {
      await sleep(random.whole(2000, 9000));
      if (!this.going()) return;
      const how = random.pick(['killed', 'stopped', 'flapping']);
      this.note(`${engine.name} ${how}`);
      if (how !== 'flapping') await engine[how](random.whole(300, 3000));
      else for (let i = 0; i < 3; ++i) await engine.killed(random.whole(10, 200));
    }
  }

  async jokerFate(joker, random) {
    while (this.going()) {
      joker.manner = random.pick(jokes);
      this.note(`${joker.name} ${joker.manner}`);
      await sleep(random.whole(300, 2500));
      joker.manner = 'good';
      await sleep(random.whole(300, 2500));
    }
  }

  async reloads(random) {
    while (this.going()) {
      await sleep(random.whole(1000, 6000));
      const bad = random.next() < 0.2;
      this.gateway.write(bad ? 'listn: nowhere\n' : this.config());
      process.kill(this.pid, 'SIGHUP');
      this.note(bad ? 'bad reload' : 'reload');
    }
  }

  /// Workers drained, weighted, removed and added through the admin API.
  async workerChanges(random) {
    const worker = async (...args) => {
      const { code, stderr } = await this.gateway.heng('worker', ...args);
      // A reload or a hand-over may have been quicker.
      if (code !== 0 && !/no worker|there is|unreachable|connect|hand-over is under way/i.test(stderr))
        this.violation(`worker ${args}: ${stderr}`);
    };
    while (this.going()) {
      await sleep(random.whole(500, 4000));
      const { name } = random.pick(this.workers);
      const change = random.pick(['drain', 'weight', 'remove']);
      this.note(`${name} ${change}`);
      if (change === 'weight') {
        await worker('weight', name, String(random.whole(1, 9)));
        continue;
      }
      await worker(change, name);
      await sleep(random.whole(100, 2000));
      await worker('ready', name);
    }
  }

  /// The gateway hands over to a new process, early: later samples of memory are of one process.
  async handOvers(random) {
    const early = this.ends - 0.75 * minutes * 60_000;
    if ((await this.gateway.heng('handover', '--help')).code !== 0) return; // a build without it
    for (;;) {
      await sleep(random.whole(3000, 10_000));
      if (performance.now() > early) return;
      const old = this.pid;
      const { code, stdout, stderr } = await this.gateway.heng('handover');
      // The file may be one of the bad ones just now: then the old process goes on.
      if (code !== 0 && /did not take over.*'listn'/s.test(stderr)) continue;
      if (code !== 0) return this.violation(`hand-over: ${stderr}`);
      this.pid = Number(/process (\d+)/.exec(stdout)[1]);
      this.note(`hand-over from ${old} to ${this.pid}`);
    }
  }

  note(what) {
    ++this.tally.faults;
    this.last = what;
  }

  // ------------------------------------------------------------------------------------------------- checks

  async accounts() {
    const { requests } = (await this.gateway.admin('/api/v1/info')).json();
    const { arrived, completed, refused, failed, canceled, in_flight } = requests;
    if (arrived !== completed + refused + failed + canceled + in_flight) {
      this.violation(`the accounts do not add up: ${JSON.stringify(requests)}`);
    }
    const page = (await this.gateway.admin('/metrics')).text();
    const sum = name =>
      [...page.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))].reduce(
        (all, m) => all + Number(m[1]),
        0,
      );
    const left = sum('heng_requests_arrived_total') - sum('heng_requests_ended_total');
    if (left !== sum('heng_requests_in_flight'))
      this.violation(`the metrics do not add up: ${left} not ended`);
    return requests;
  }

  usage() {
    const folder = `/proc/${this.pid}`;
    const status = fs.readFileSync(`${folder}/status`, 'utf8');
    return {
      rssMiB: Number(/VmRSS:\s+(\d+)/.exec(status)[1]) / 1024,
      descriptors: fs.readdirSync(`${folder}/fd`).length,
    };
  }

  async watch() {
    for (let round = 0; this.going(); ++round) {
      const requests = await this.accounts();
      const usage = this.usage();
      this.samples.push(usage.rssMiB);
      if (round % 10 === 0) this.progress(requests, usage);
      await sleep(500);
    }
  }

  progress(requests, { rssMiB, descriptors }) {
    const left = Math.max(0, Math.round((this.ends - performance.now()) / 1000));
    const { complete, marked, harm, faults } = this.tally;
    say(
      `soak: ${left} s left, ${requests.arrived} requests (${complete} whole, ${marked} marked, ` +
        `${harm} bad clients), ` +
        `${requests.in_flight} in flight, ${rssMiB.toFixed(1)} MiB, ${descriptors} descriptors, ` +
        `${faults} faults, last: ${this.last}`,
    );
  }

  /// Memory from the second to the last quarter of the run, by their least samples: what is not given back.
  growthMiB() {
    const quarter = Math.floor(this.samples.length / 4);
    if (quarter < 4) return 0;
    const least = list => Math.min(...list);
    return least(this.samples.slice(-quarter)) - least(this.samples.slice(quarter, 2 * quarter));
  }

  // --------------------------------------------------------------------------------------------------- whole

  /// A process that took over is no child of ours.
  async stop() {
    if (this.pid === this.gateway.program.child.pid || !fs.existsSync(`/proc/${this.pid}`)) return;
    process.kill(this.pid, 'SIGTERM');
    // Nobody may be there to bury it.
    const ended = () => {
      const file = `/proc/${this.pid}/stat`;
      return !fs.existsSync(file) || fs.readFileSync(file, 'utf8').split(') ')[1].startsWith('Z');
    };
    await until('the gateway has ended', ended, { timeoutMs: 30_000 });
  }

  async run() {
    await this.start();
    const before = this.usage();
    const actors = [this.watch()];
    for (const change of ['reloads', 'workerChanges', 'handOvers']) {
      actors.push(this[change](this.random.fork()));
    }
    for (const engine of this.engines) actors.push(this.engineFate(engine, this.random.fork()));
    for (const joker of this.jokers) actors.push(this.jokerFate(joker, this.random.fork()));
    for (let i = 0; i < goodClients; ++i) actors.push(this.goodClient(this.random.fork()));
    for (let i = 0; i < badClients; ++i) actors.push(this.badClient(this.random.fork()));
    await Promise.all(actors);
    await until('nothing is in flight', async () => (await this.accounts()).in_flight === 0, {
      timeoutMs: 30_000,
    }).catch(error => this.violation(error.message));
    for (const joker of this.jokers) joker.close();
    // Kept connections to workers go after worker_idle; probes keep one each.
    const allowed = before.descriptors + 3 * this.workers.length + goodClients;
    await until('descriptors are given back', () => this.usage().descriptors <= allowed, {
      timeoutMs: 15_000,
    }).catch(() => this.violation(`${this.usage().descriptors} descriptors at the end, ${allowed} allowed`));
    const growth = this.growthMiB();
    if (growth > growthLimitMiB) this.violation(`memory grew by ${growth.toFixed(1)} MiB`);
    if (this.tally.complete === 0) this.violation('not one request was answered whole');
    this.progress(await this.accounts(), this.usage());
    return growth;
  }
}

it(`soak: ${minutes} min with seed ${seed}`, { timeout: minutes * 60_000 + 120_000 }, async () => {
  say(`soak: seed ${seed}, ${minutes} min`);
  const soak = new Soak();
  const growth = await soak.run().finally(() => soak.stop());
  say(
    `soak: ${soak.violations.length || 'no'} promise(s) broken, ` +
      `memory ${growth >= 0 ? '+' : ''}${growth.toFixed(2)} MiB from the second to the last quarter, ` +
      `seed ${seed}`,
  );
  assert.deepEqual(soak.violations, []);
});
