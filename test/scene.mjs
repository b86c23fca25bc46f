// Brings the actors of one `.fault` file together and lets them do its steps.
import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { freePort, scratch, startGateway, until } from '../e2e/harness.mjs';
import { latin1, perform } from './actor.mjs';
import { Client, Crowd } from './client.mjs';
import { GatewayActor, Run } from './gateway.mjs';
import { fill } from './script.mjs';
import { Worker } from './worker.mjs';

/// An API key for `id`, as `heng key new` makes them, and its line in the file of keys.
function makeKey(id, rest) {
  const secret = randomBytes(20).toString('hex');
  const salt = randomBytes(16);
  const hash = createHmac('sha256', salt).update(secret).digest('hex');
  return {
    text: `hk_${id}_${secret}`,
    entry: `  - {id: ${id}, hash: "hmac-sha256:${salt.toString('hex')}:${hash}"${rest ? `, ${rest}` : ''}}\n`,
  };
}

const workerName = /\bw[1-9]\b/g;

/// All actors of one file. `start` once, `play` for each variant, `stop` at the end.
export class Scene {
  constructor(script) {
    this.script = script;
    this.values = {};
    this.workers = {};
  }

  async start() {
    this.dir = fs.mkdtempSync(path.join(scratch, 'case-'));
    this.values.dir = this.dir;
    const said = JSON.stringify([this.script.steps, this.script.config]);
    for (const name of new Set(['w1', ...(said.match(workerName) ?? [])])) {
      const worker = new Worker(await freePort());
      await worker.listen();
      this.workers[name] = worker;
      this.values[name] = `http://127.0.0.1:${worker.port}`;
      this.values[`${name}.address`] = `127.0.0.1:${worker.port}`;
    }
    let entries = '';
    for (const line of this.script.keys) {
      const [id, ...rest] = line.split(' ');
      const key = makeKey(id, rest.join(' '));
      this.values[id] = key.text;
      entries += key.entry;
    }
    if (entries) fs.writeFileSync(path.join(this.dir, 'keys.yaml'), `keys:\n${entries}`, { mode: 0o600 });
    this.values.token = randomBytes(20).toString('hex');
    fs.writeFileSync(path.join(this.dir, 'admin.token'), this.values.token, { mode: 0o600 });
    for (const [name, text] of Object.entries(this.script.files)) {
      fs.writeFileSync(path.join(this.dir, name), latin1(fill(text, this.values)), { mode: 0o600 });
    }
    if (this.script.fields.needs === 'no gateway') return;
    this.gateway = await startGateway(this.configText(this.script.config ?? ''), {
      wrap: this.script.fields.limit ? ['prlimit', `--${this.script.fields.limit.replace(' ', '=')}`] : [],
    });
    this.values.port = this.gateway.port;
    this.values.admin_port = this.gateway.adminPort;
  }

  filled(file) {
    return fs.readFileSync(path.join(this.dir, file), 'latin1');
  }

  /// What a configuration leaves out: no probes (they are not part of the conversation) and one pool of all,
  /// in which w1 is always the first choice and w2 the second.
  configText(text) {
    const weighted = name => `{url: $${name}, weight: ${{ w1: 1000000, w2: 1000 }[name] ?? 1}}`;
    const all = Object.keys(this.workers).map(weighted).join(', ');
    const defaults = {
      listen: '$listen',
      admin: '$admin',
      health: '{active: false, passive_faults: 100, slow_start: 0s}',
      pools: `[{model: m, policy: least_connections, workers: [${all}]}]`,
    };
    if (JSON.stringify(this.script.steps).includes('$token')) defaults.admin_token_file = '$dir/admin.token';
    for (const [key, value] of Object.entries(defaults)) {
      if (!new RegExp(`^${key}:`, 'm').test(text)) text += `\n${key}: ${value}`;
    }
    return addresses => fill(`${text}\n`, { ...this.values, ...addresses });
  }

  actor(name) {
    if (this.actors[name]) return this.actors[name];
    if (name === 'heng') return (this.actors[name] = new GatewayActor(this));
    if (name === 'crowd') return (this.actors[name] = new Crowd(this.gateway));
    if (name === 'run') return (this.actors[name] = new Run(this.dir));
    const { port, adminPort } = this.gateway;
    const client = name.startsWith('admin') ? new Client(adminPort, 'localhost') : new Client(port, 'heng');
    return (this.actors[name] = client);
  }

  async play(row) {
    const values = { ...this.values };
    this.script.names.forEach((name, column) => (values[name] = fill(row[column], this.values)));
    for (const worker of Object.values(this.workers)) worker.forget();
    this.actors = { ...this.workers };
    try {
      for (const step of this.script.steps) {
        try {
          await perform(this.actor(step.actor), step, values);
        } catch (error) {
          error.message = `${this.script.path}:${step.line}: ${error.message}`;
          throw error;
        }
      }
    } finally {
      for (const actor of Object.values(this.actors))
        if (actor instanceof Client || actor instanceof Crowd) actor.close();
    }
    if (this.gateway && this.gateway.program.end === undefined) await this.checkAccounts();
  }

  /// After every case: nothing in flight, and every request is accounted for once.
  async checkAccounts() {
    await until('nothing is in flight', async () => {
      const { requests } = (await this.gateway.admin('/api/v1/info')).json();
      const { arrived, completed, refused, failed, canceled, in_flight } = requests;
      assert.equal(arrived, completed + refused + failed + canceled + in_flight, JSON.stringify(requests));
      return in_flight === 0;
    });
  }

  async stop() {
    for (const worker of Object.values(this.workers)) worker.close();
    if (!this.gateway || this.gateway.program.end !== undefined) return;
    this.gateway.program.signal('SIGTERM');
    const end = await this.gateway.program.waitForEnd();
    assert.equal(end, 0, `the gateway ended badly; it wrote:\n${this.gateway.program.log().slice(-4000)}`);
  }
}
