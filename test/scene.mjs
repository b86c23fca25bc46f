// The actors of a `.fault` file: the gateway under test, clients that say any bytes, workers that answer
// any. Each `do_VERB` is one thing an actor can do; test/README.md lists them.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';

import {
  assertApiError,
  freePort,
  heng,
  request,
  requestBytes,
  scratch,
  sleep,
  startGateway,
  until,
  Wire,
} from '../e2e/harness.mjs';
import { bytesOf, fill } from './script.mjs';

const patience = '3s';

/// "200ms" -> 200
function milliseconds(text) {
  const [, number, unit] = /^(\d+)(ms|s)$/.exec(text) ?? assert.fail(`'${text}' is no time: 200ms, 5s`);
  return Number(number) * (unit === 's' ? 1000 : 1);
}

const latin1 = text => Buffer.from(text, 'latin1');

/// The words of a step after its verb, taken from the front.
class Words {
  constructor(words, values) {
    this.left = words.map(word => ({ ...word, text: fill(word.text, values) }));
    const within = this.left.findIndex(word => !word.quoted && word.text === 'within');
    this.timeoutMs = milliseconds(within < 0 ? patience : this.left.splice(within, 2)[1].text);
  }
  /// The next one, if it is a word (of that text), not a quoted text.
  word(wanted) {
    const next = this.left[0];
    if (!next || next.quoted || (wanted !== undefined && next.text !== wanted)) return undefined;
    return this.left.shift().text;
  }
  /// All quoted texts that come now, as one; undefined without any.
  text() {
    let all;
    while (this.left[0]?.quoted) all = (all ?? '') + bytesOf(this.left.shift());
    return all;
  }
  duration() {
    return milliseconds(this.word() ?? '');
  }
  number() {
    return Number(this.word());
  }
  /// `with "name: value"...` as an object.
  headers() {
    const headers = {};
    if (!this.word('with')) return headers;
    while (this.left[0]?.quoted) {
      const field = bytesOf(this.left.shift());
      headers[field.slice(0, field.indexOf(':')).toLowerCase()] = field.slice(field.indexOf(':') + 1).trim();
    }
    return headers;
  }
  end() {
    assert.equal(this.left.length, 0, `not understood: ${this.left.map(word => word.text).join(' ')}`);
  }
}

/// Calls `do_VERB` of an actor; `expect` and its like are spelt `do_expect_...`.
async function perform(actor, step, values) {
  const words = new Words(step.words, values);
  let verb = words.word();
  if (words.left[0] && !words.left[0].quoted && actor[`do_${verb}_${words.left[0].text}`]) {
    verb += `_${words.word()}`;
  }
  const action = actor[`do_${verb}`];
  assert.ok(action, `there is no '${verb}' for ${step.actor}`);
  await action.call(actor, words);
  words.end();
}

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

class Actor {
  do_wait(words) {
    return sleep(words.duration());
  }
}

// -------------------------------------------------------------------------------------------------- client

class Client extends Actor {
  constructor(port, host) {
    super();
    this.port = port;
    this.host = host;
  }
  async open() {
    this.wire ??= await Wire.open(this.port);
    return this.wire;
  }
  close() {
    this.wire?.destroy();
  }

  async do_connect() {
    this.close();
    this.wire = await Wire.open(this.port);
  }
  async do_send(words) {
    (await this.open()).send(latin1(words.text() ?? ''));
  }
  async ask(method, target, headers, body) {
    this.bodiless = method === 'HEAD';
    if (body !== undefined) {
      headers = { 'content-type': 'application/json', 'content-length': body.length, ...headers };
    }
    const all = { host: this.host, ...headers };
    (await this.open()).send(requestBytes(method, target, all, latin1(body ?? '')));
  }
  /// chat [stream] ["{more JSON}"] [with "header: value"...]
  async do_chat(words) {
    const stream = words.word('stream') ? { stream: true } : {};
    const more = JSON.parse(words.text() ?? '{}');
    const body = { model: 'm', messages: [{ role: 'user', content: 'hello' }], ...stream, ...more };
    await this.ask('POST', '/v1/chat/completions', words.headers(), JSON.stringify(body));
  }
  /// body "TEXT" [with ...]: a chat request of exactly that body
  async do_body(words) {
    const body = words.text();
    await this.ask('POST', '/v1/chat/completions', words.headers(), body);
  }
  async do_get(words) {
    await this.ask('GET', words.word() ?? words.text(), words.headers());
  }
  async do_head(words) {
    await this.ask('HEAD', words.word(), words.headers());
  }
  async do_delete(words) {
    await this.ask('DELETE', words.word(), words.headers());
  }
  async do_post(words) {
    const [target, body] = [words.word(), words.text()];
    await this.ask('POST', target, words.headers(), body ?? '');
  }
  async do_put(words) {
    const [target, body] = [words.word(), words.text()];
    await this.ask('PUT', target, words.headers(), body ?? '');
  }
  do_leave() {
    this.wire.socket.destroy();
  }
  do_reset() {
    this.wire.socket.resetAndDestroy();
  }
  do_finish() {
    this.wire.finish();
  }
  do_pause() {
    this.wire.socket.pause();
  }
  do_resume() {
    this.wire.socket.resume();
  }

  /// expect 200, expect 400|431: the next head. expect "bytes": they come next or later.
  async do_expect(words) {
    const text = words.text();
    if (text !== undefined) return (await this.open()).takeThrough(latin1(text), words.timeoutMs);
    const statuses = words.word().split('|');
    await this.readKnownBody(words.timeoutMs);
    this.head = await (await this.open()).takeHead({ interim: statuses[0] < 200, timeoutMs: words.timeoutMs });
    this.body = undefined;
    if (!statuses.includes(String(this.head.status))) {
      const body = await this.readBody(500).catch(() => this.wire.received);
      assert.fail(`expected ${statuses}, got ${this.head.status}: ${body.toString().slice(0, 300)}`);
    }
  }
  /// Of an answer nobody wanted to look at, so that the next one can be read.
  async readKnownBody(timeoutMs) {
    if (this.head?.headers['content-length'] !== undefined) await this.readBody(timeoutMs);
  }
  async readBody(timeoutMs) {
    if (this.body !== undefined) return this.body;
    const { headers, status } = this.head;
    if (this.bodiless || status < 200 || status === 204 || status === 304) return (this.body = Buffer.alloc(0));
    if (headers['transfer-encoding'] === 'chunked') {
      const pieces = [];
      for (;;) {
        const size = parseInt((await this.wire.takeThrough('\r\n', timeoutMs)).toString(), 16);
        const chunk = await this.wire.takeBytes(size + 2, timeoutMs);
        if (size === 0) break;
        pieces.push(chunk.subarray(0, size));
      }
      this.body = Buffer.concat(pieces);
    } else {
      const size = headers['content-length'];
      this.body = await (size === undefined
        ? this.wire.takeUntilClose(timeoutMs)
        : this.wire.takeBytes(Number(size), timeoutMs));
    }
    return this.body;
  }
  /// expect body "part", expect body is "all"
  async do_expect_body(words) {
    const whole = words.word('is');
    const wanted = words.text();
    const body = (await this.readBody(words.timeoutMs)).toString('latin1');
    if (whole) return assert.ok(body === wanted, `the body is ${JSON.stringify(body.slice(0, 500))}`);
    assert.ok(body.includes(wanted), `not in the body: ${body.slice(0, 500)}`);
  }
  /// expect error ["text in it"]: an error body as OpenAI's API has it
  async do_expect_error(words) {
    const body = await this.readBody(words.timeoutMs);
    const error = assertApiError({ ...this.head, body }, this.head.status);
    const wanted = words.text();
    if (wanted !== undefined) assert.ok(JSON.stringify(error).includes(wanted), JSON.stringify(error));
  }
  do_expect_header(words) {
    const name = words.word();
    const value = words.text();
    const given = this.head.headers[name];
    assert.ok(given !== undefined, `no ${name} in ${JSON.stringify(this.head.headers)}`);
    if (value !== undefined) assert.equal(given, value);
  }
  do_expect_no(words) {
    const name = words.word('header') && words.word();
    assert.equal(this.head.headers[name], undefined, `there is a header ${name}`);
  }
  /// The connection ends, and nothing that was not asked for came before.
  async do_expect_closed(words) {
    await this.readKnownBody(words.timeoutMs);
    const left = await (await this.open()).takeUntilClose(words.timeoutMs);
    assert.equal(left.toString('latin1').slice(0, 500), '', 'bytes before the close');
  }
  /// The connection ends in a way that no client can take for the end of the answer.
  async do_expect_cut(words) {
    const left = (await this.wire.takeUntilClose(words.timeoutMs)).toString('latin1');
    const { headers } = this.head;
    if (headers['content-length'] !== undefined) {
      return assert.ok(left.length < Number(headers['content-length']), 'all the length told has come');
    }
    assert.equal(headers['transfer-encoding'], 'chunked', 'an answer that ends with its connection');
    assert.ok(!/(^|\n)0+\r\n\r\n$/.test(left), 'the last chunk came');
  }
  /// The connection ends by a reset: all that came is in `seen`.
  async do_expect_reset(words) {
    await this.wire.takeUntilClose(words.timeoutMs);
    await until('the socket is closed', () => this.wire.socket.closed);
    assert.equal(this.wire.socket.errored?.code, 'ECONNRESET');
  }
  /// Nothing more comes and the connection stays.
  async do_expect_silence(words) {
    await sleep(words.duration());
    assert.equal(this.wire.received.toString('latin1').slice(0, 500), '');
    assert.ok(!this.wire.closed, 'the connection closed');
  }
  count(words) {
    const wanted = words.text();
    return this.wire.seen.toString('latin1').split(wanted).length - 1;
  }
  /// Over everything the connection ever brought.
  do_expect_never(words) {
    assert.equal(this.count(words), 0);
  }
  do_expect_once(words) {
    assert.equal(this.count(words), 1);
  }
}

// -------------------------------------------------------------------------------------------------- worker

/// A server that answers what the conversation says. Health probes are answered by themselves.
class Worker extends Actor {
  constructor(port) {
    super();
    this.port = port;
    this.sockets = new Set();
    this.mode = 'talks';
    this.forget();
  }
  /// Of the variant of a case before: its requests and what it was told to do.
  forget() {
    this.waiting = []; // requests nobody has looked at
    this.count = 0;
    this.automatic = undefined;
    this.wake = () => {};
  }
  async listen() {
    this.server = net.createServer({ allowHalfOpen: true, noDelay: true }, socket => this.serve(socket));
    await new Promise((resolve, reject) =>
      this.server.once('error', reject).listen(this.port, '127.0.0.1', resolve),
    );
  }
  close() {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
  async serve(socket) {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    if (this.mode === 'hangs-up') return socket.destroy();
    const wire = new Wire(socket);
    try {
      for (;;) {
        const head = await wire.take('a head', bytes => {
          const end = bytes.indexOf('\r\n\r\n');
          return end < 0 ? -1 : end + 4;
        }, 3600_000);
        const text = head.toString('latin1');
        const size = Number(/\r\ncontent-length: *(\d+)/i.exec(text)?.[1] ?? 0);
        const body = await wire.takeBytes(size, 3600_000);
        if (this.mode === 'silent') continue;
        if (/^GET \S*\/health /.test(text)) {
          wire.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
          continue;
        }
        ++this.count;
        const asked = { wire, text: text + body.toString('latin1') };
        if (this.automatic) {
          wire.send(latin1(this.automatic));
          continue;
        }
        this.waiting.push(asked);
        this.wake();
      }
    } catch {
      if (!socket.destroyed && wire.received.length === 0) socket.end();
    }
  }

  /// request ["part of it"]: waits for the next one; what follows is about it.
  async do_request(words) {
    const deadline = performance.now() + words.timeoutMs;
    while (this.waiting.length === 0) {
      const left = deadline - performance.now();
      assert.ok(left > 0, 'no request came');
      await new Promise(resolve => {
        this.wake = resolve;
        setTimeout(resolve, left).unref();
      });
    }
    const before = this.asked?.wire;
    this.asked = this.waiting.shift();
    this.reused = before === this.asked.wire;
    if (words.left.length > 0) this.do_expect(words);
  }
  do_expect(words) {
    const wanted = words.text();
    assert.ok(this.asked.text.includes(wanted), `not in the request: ${this.asked.text.slice(0, 1000)}`);
  }
  do_expect_no(words) {
    if (words.word('header')) {
      const name = words.word();
      return assert.ok(!new RegExp(`\\n${name}:`, 'i').test(this.asked.text), `has ${name}: ${this.asked.text}`);
    }
    const unwanted = words.text();
    assert.ok(!this.asked.text.includes(unwanted), `in the request: ${this.asked.text.slice(0, 1000)}`);
  }
  do_expect_header(words) {
    const [name, value] = [words.word(), words.text()];
    const given = [...this.asked.text.matchAll(new RegExp(`\\n${name}: *(.*)\\r`, 'gi'))].map(match => match[1]);
    assert.equal(given.length, 1, `not one ${name}: ${this.asked.text}`);
    if (value !== undefined) assert.equal(given[0], value);
  }
  do_expect_new() {
    assert.ok(!this.reused, 'the request came over the connection of the one before');
  }
  do_expect_same() {
    assert.ok(this.reused, 'the request came over another connection');
  }
  do_expect_closed(words) {
    return this.asked.wire.takeUntilClose(words.timeoutMs);
  }
  do_expect_open() {
    assert.ok(!this.asked.wire.closed, 'the connection is closed');
  }
  /// got nothing, got N requests, got at most N requests
  do_got(words) {
    const atMost = words.word('at') && words.word('most');
    const wanted = words.word('nothing') ? 0 : words.number();
    words.word('requests') ?? words.word('request');
    if (atMost) return assert.ok(this.count <= wanted, `${this.count} requests came`);
    assert.equal(this.count, wanted, 'requests that came');
  }

  do_send(words) {
    this.asked.wire.send(latin1(words.text()));
  }
  wholeAnswer(words) {
    const status = words.word() ?? '200';
    const body = words.text() ?? '{"object":"chat.completion"}';
    const fields = Object.entries({ 'content-type': 'application/json', ...words.headers() });
    const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    return `HTTP/1.1 ${status} Said\r\n${head}content-length: ${body.length}\r\n\r\n${body}`;
  }
  /// answer [STATUS] ["body"] [with "header: value"...]
  do_answer(words) {
    this.asked.wire.send(latin1(this.wholeAnswer(words)));
  }
  /// answers ...: every request from now on, by itself
  do_answers(words) {
    this.automatic = this.wholeAnswer(words);
    for (const asked of this.waiting.splice(0)) asked.wire.send(latin1(this.automatic));
  }
  /// A byte at a time.
  async do_slowly(words) {
    for (const byte of latin1(words.text())) {
      this.asked.wire.send(Buffer.from([byte]));
      await sleep(1);
    }
  }
  /// The head of a stream of server-sent events, and some of them.
  do_stream() {
    this.asked.wire.send(
      'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
  }
  do_chunk(words) {
    const bytes = words.text();
    this.asked.wire.send(latin1(`${bytes.length.toString(16)}\r\n${bytes}\r\n`));
  }
  do_event(words) {
    this.do_chunk({ text: () => `data: ${words.text()}\n\n` });
  }
  do_done() {
    this.do_chunk({ text: () => 'data: [DONE]\n\n' });
    this.asked.wire.send('0\r\n\r\n');
  }
  do_finish() {
    this.asked.wire.finish();
  }
  do_close() {
    this.asked.wire.destroy();
  }
  do_reset() {
    this.asked.wire.socket.resetAndDestroy();
  }
  /// As if killed: every connection is reset and the port refuses.
  do_dies() {
    this.server.close();
    for (const socket of this.sockets) socket.resetAndDestroy();
  }
  async do_returns() {
    this.mode = 'talks';
    await this.listen();
  }
  /// As if stopped: connections are accepted, nothing is ever answered, not even probes.
  do_stops() {
    this.mode = 'silent';
  }
  do_hangs() {
    this.mode = 'hangs-up';
  }
}

// ------------------------------------------------------------------------------------------------- gateway

class GatewayActor extends Actor {
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
  /// memory below N MiB
  do_memory(words) {
    const status = fs.readFileSync(`/proc/${this.gateway.program.child.pid}/status`, 'utf8');
    const megabytes = Number(/VmRSS:\s+(\d+)/.exec(status)[1]) / 1024;
    words.word('below');
    const limit = words.number();
    words.word('MiB');
    assert.ok(megabytes < limit, `${megabytes} MiB`);
  }
}

/// Many clients at once, of which only the answers' statuses matter.
class Crowd extends Actor {
  constructor(gateway) {
    super();
    this.gateway = gateway;
  }
  /// asks N [stream] [with ...]
  async do_asks(words) {
    const count = words.number();
    const body = { model: 'm', messages: [{ role: 'user', content: 'hello' }] };
    const headers = words.headers();
    const ask = () => this.gateway.request('/v1/chat/completions', { body, headers });
    this.answers = await Promise.all(Array.from({ length: count }, ask));
  }
  /// expect 200|429: all of them. expect some 429: at least one.
  do_expect(words) {
    const some = words.word('some');
    const statuses = words.word().split('|');
    const has = answer => statuses.includes(String(answer.status));
    const got = JSON.stringify(Object.groupBy(this.answers, answer => answer.status), (key, value) =>
      Array.isArray(value) ? value.length : value,
    );
    assert.ok(some ? this.answers.some(has) : this.answers.every(has), got);
  }
  async do_connects(words) {
    const open = () => Wire.open(this.gateway.port);
    this.wires = await Promise.all(Array.from({ length: words.number() }, open));
  }
  do_sends(words) {
    const bytes = latin1(words.text());
    for (const wire of this.wires) wire.send(bytes);
  }
  /// all closed within 4s
  async do_all(words) {
    words.word('closed');
    await until('all are closed', () => this.wires.every(wire => wire.closed), words);
  }
  do_leaves() {
    this.close();
  }
  close() {
    for (const wire of this.wires ?? []) wire.destroy();
  }
}

/// Runs programs to their ends, in the folder of the case.
class Run extends Actor {
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

// --------------------------------------------------------------------------------------------------- scene

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
      for (const actor of Object.values(this.actors)) if (actor instanceof Client || actor instanceof Crowd) actor.close();
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
