// The program under test as an actor of a `.fault` file: the gateway that runs, and `heng` commands.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { heng, request, sleep, until } from '../e2e/harness.mjs';
import { Actor, latin1 } from './actor.mjs';

export class GatewayActor extends Actor {
  constructor(scene) {
    super();
    this.scene = scene;
  }
  get gateway() {
    return this.scene.gateway;
  }
  do_signal(words) {
    this.gateway.program.signal(words.word());
  }
  /// takes FILE: it becomes the configuration file, and is loaded; `refuses FILE`: the load must fail
  async reload(words, code) {
    this.gateway.write(this.scene.configText(this.scene.filled(words.word())));
    this.answer = await this.gateway.heng('reload');
    assert.equal(this.answer.code === 0, code, this.answer.stderr + this.answer.stdout);
  }
  do_takes(words) {
    return this.reload(words, true);
  }
  async do_refuses(words) {
    await this.reload(words, false);
    const wanted = words.text();
    const said = this.answer.stderr + this.answer.stdout;
    if (wanted !== undefined) assert.ok(said.includes(wanted), said);
  }
  async do_killed() {
    this.gateway.program.signal('SIGKILL');
    await this.gateway.program.waitForEnd();
  }
  async do_started(words) {
    words.word('again');
    await this.gateway.start();
  }
  /// idle over 500ms: uses next to no processor time
  async do_idle(words) {
    words.word('over');
    const ticks = () =>
      fs.readFileSync(`/proc/${this.gateway.program.child.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    const used = () => (Number(ticks()[11]) + Number(ticks()[12])) * 10;
    const before = used();
    const span = words.duration();
    await sleep(span);
    assert.ok(used() - before < span / 4, `${used() - before} ms of processor time in ${span} ms`);
  }
  /// access log is lines of JSON
  async do_access(words) {
    for (const word of ['log', 'is', 'lines', 'of', 'JSON']) words.word(word);
    const lines = await until('the access log has lines', () => {
      const text = fs.readFileSync(path.join(this.scene.dir, 'access.log'), 'utf8');
      return text.length > 0 && text.trimEnd().split('\n');
    });
    for (const line of lines) assert.equal(typeof JSON.parse(line).status, 'number');
  }
  /// worker w1 in|out: whether it gets requests
  async do_worker(words) {
    const [name, state] = [`127.0.0.1:${this.scene.workers[words.word()].port}`, words.word()];
    await until(
      `${name} is ${state}`,
      async () => {
        const { workers } = (await this.gateway.admin('/api/v1/workers')).json();
        return workers.find(worker => worker.name === name)?.eligible === (state === 'in');
      },
      { timeoutMs: words.timeoutMs },
    );
  }
  /// log has "text", log lacks "text"
  async do_log(words) {
    const has = words.word() === 'has';
    const text = words.text();
    if (!has) return assert.ok(!this.gateway.program.log().includes(text), `the log has ${text}`);
    await until(`the log has ${text}`, () => this.gateway.program.log().includes(text));
  }
  /// counts WHAT N: of /api/v1/info, by the time limit
  async do_counts(words) {
    const [what, wanted] = [words.word(), words.number()];
    await until(
      `${what} is ${wanted}`,
      async () => (await this.gateway.admin('/api/v1/info')).json().requests[what] === wanted,
      { timeoutMs: words.timeoutMs },
    );
  }
  /// show: what the workers look like, for whoever writes a case
  async do_show() {
    console.log((await this.gateway.admin('/api/v1/workers')).text());
  }
  /// healthy: health and admin answer at once
  async do_healthy() {
    const began = performance.now();
    for (const target of ['/healthz', '/metrics']) {
      assert.equal((await request(this.gateway.adminUrl + target)).status, 200);
    }
    assert.ok(performance.now() - began < 1000, 'health took over a second');
  }
  /// memory below N MiB (a sanitizer keeps what is freed, so nothing can be said there)
  do_memory(words) {
    const status = fs.readFileSync(`/proc/${this.gateway.program.child.pid}/status`, 'utf8');
    const megabytes = Number(/VmRSS:\s+(\d+)/.exec(status)[1]) / 1024;
    words.word('below');
    const limit = words.number();
    words.word('MiB');
    assert.ok(megabytes < limit || process.env.HENG_E2E_SANITIZED, `${megabytes} MiB`);
  }
}

/// Runs programs to their ends, in the folder of the case.
export class Run extends Actor {
  constructor(dir) {
    super();
    this.dir = dir;
  }
  rest(words) {
    const args = [];
    while (words.left.length > 0) args.push(words.word() ?? words.text());
    return args;
  }
  async do_heng(words) {
    const began = performance.now();
    this.result = await heng(...this.rest(words));
    this.tookMs = performance.now() - began;
  }
  do_openssl(words) {
    const { status, stderr } = spawnSync('openssl', this.rest(words), { cwd: this.dir, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  }
  /// file NAME "text" [mode 644]
  do_file(words) {
    const file = path.join(this.dir, words.word());
    fs.writeFileSync(file, latin1(words.text()));
    fs.chmodSync(file, words.word('mode') ? parseInt(words.word(), 8) : 0o600);
  }
  do_chmod(words) {
    const mode = parseInt(words.word(), 8);
    fs.chmodSync(path.join(this.dir, words.word()), mode);
  }
  do_expect_exit(words) {
    const wanted = words.word('bad') ? undefined : words.number();
    const { code, stdout, stderr } = this.result;
    if (wanted === undefined) assert.ok(code > 0, `exit code ${code}`);
    else assert.equal(code, wanted, (stdout + stderr).slice(0, 1000));
    assert.ok(this.tookMs < words.timeoutMs, `took ${this.tookMs} ms`);
  }
  do_expect_output(words) {
    const said = this.result.stdout + this.result.stderr;
    const wanted = words.text();
    assert.ok(said.includes(wanted), `not in: ${said.slice(0, 1000)}`);
  }
}
