// What the end-to-end tests share: starting and stopping programs on free ports, servers that play the
// worker, and connections that show their bytes. Everything started here is stopped when the test file ends.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import OpenAI from 'openai';

export { sleep };
export const hengBinary =
  process.env.HENG_BINARY ?? path.resolve(import.meta.dirname, '../build/release/heng');
const logs = process.env.HENG_E2E_LOGS ?? fs.mkdtempSync(path.join(os.tmpdir(), 'heng-e2e-'));
const file = path.basename(process.argv[1] ?? 'test', '.test.mjs');

/// For `describe(..., {skip: withoutLlama})`: why there is no real engine, or false. In CI there must be one.
export const withoutLlama = process.env.HENG_LLAMA_SERVER ? false : 'llama-server could not be fetched';
assert.ok(
  !(withoutLlama && process.env.CI === 'true' && process.env.HENG_E2E_ENGINE !== 'none'),
  'CI runs every test, but HENG_LLAMA_SERVER is not set',
);

/// A folder that is removed when the test file ends.
export const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'heng-e2e-files-'));

const cleanups = []; // run last to first
after(async () => {
  const failures = [];
  for (const cleanup of cleanups.reverse()) await cleanup().catch(error => failures.push(error));
  fs.rmSync(scratch, { recursive: true });
  if (failures.length > 0) throw failures[0];
});

/// Polls until `probe` gives a truthy value (an exception counts as not yet) and returns it.
export async function until(what, probe, { timeoutMs = 10_000, everyMs = 20 } = {}) {
  const deadline = performance.now() + timeoutMs;
  for (let last; ;) {
    try {
      const value = await probe();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
    await sleep(everyMs);
  }
}

/// Ports below the range the kernel hands out; test files run side by side, so each process searches its own
/// corner.
let portNext = 10000 + (process.pid % 140) * 150;
export async function freePort() {
  for (;;) {
    const server = net.createServer();
    const port = portNext++;
    const free = await new Promise(resolve => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

// ---------------------------------------------------------------------------------------------------- progra

/// Without HENG_...: `heng` would take them for options of its own. Gateways keep their admin tokens in the
/// test's own folder, where the commands look for them too.
const plainEnvironment = {
  ...Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('HENG_') && name !== 'RUNTIME_DIRECTORY'),
  ),
  XDG_RUNTIME_DIR: scratch,
};

/// A child process. Its output goes to a log file; it dies with the test process, however that ends.
export class Program {
  constructor(name, command, args, { env = {} } = {}) {
    this.name = name;
    this.logPath = path.join(logs, `${file}-${name}-${process.pid}-${++Program.count}.log`);
    const log = fs.openSync(this.logPath, 'a');
    this.child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
      stdio: ['ignore', log, log],
      env: { ...plainEnvironment, ...env },
    });
    fs.closeSync(log);
    this.exited = once(this.child, 'exit').then(([code, signal]) => (this.end = signal ?? code));
    cleanups.push(() => this.kill());
  }
  static count = 0;

  log() {
    return fs.readFileSync(this.logPath, 'utf8');
  }
  signal(name) {
    this.child.kill(name);
  }
  async kill() {
    if (this.end === undefined) this.child.kill('SIGKILL');
    await this.exited;
  }
  /// Exit code, or the name of the signal that ended it.
  async waitForEnd(timeoutMs = 10000) {
    const late = sleep(timeoutMs, 'late', { ref: false });
    const end = await Promise.race([this.exited, late]);
    assert.notEqual(
      end,
      'late',
      `${this.name} still runs after ${timeoutMs} ms; it wrote:\n${this.log().slice(-2000)}`,
    );
    return end;
  }
  async waitForHttp(url, timeoutMs = 10000) {
    await until(
      `${this.name} answers ${url}`,
      async () => {
        if (this.end !== undefined) return true;
        return (await fetch(url, { signal: AbortSignal.timeout(1000) })).ok;
      },
      { timeoutMs },
    );
    assert.equal(this.end, undefined, `${this.name} ended at once; it wrote:\n${this.log().slice(-2000)}`);
  }
}

/// A real engine with the tiny model. With a `port`, there (to restart one in its place).
export async function startLlama({ port, model = 'tiny', slots = 4, embeddings = false } = {}) {
  port ??= await freePort();
  const args = [
    '-m',
    process.env.HENG_TINY_MODEL,
    '--host',
    '127.0.0.1',
    '--port',
    port,
    '--alias',
    model,
    '-t',
    1,
    '-np',
    slots,
    '-c',
    2048 * slots,
    '--context-shift',
    '--threads-http',
    32, // each request under way holds one, those for its metrics too
    '--metrics',
    '--slots',
  ];
  if (embeddings) args.push('--embeddings', '--pooling', 'mean');
  const program = new Program('llama', process.env.HENG_LLAMA_SERVER, args.map(String));
  const url = `http://127.0.0.1:${port}`;
  await program.waitForHttp(`${url}/health`);
  const busySlots = async () =>
    (await (await fetch(`${url}/slots`)).json()).filter(slot => slot.is_processing).length;
  return { port, url, name: `127.0.0.1:${port}`, program, busySlots, kill: () => program.kill() };
}

/// A simulated engine. With a `port`, there (to restart one in its place).
export async function startEngine({ port, model = 'sim', args = [] } = {}) {
  port ??= await freePort();
  const program = new Program('engine', hengBinary, [
    'engine',
    '--listen',
    `127.0.0.1:${port}`,
    '--model',
    model,
    ...args,
  ]);
  const url = `http://127.0.0.1:${port}`;
  await program.waitForHttp(`${url}/health`);
  return { port, url, name: `127.0.0.1:${port}`, program };
}

/// Runs `heng ARGS` to its end.
export async function heng(...args) {
  const child = spawn(hengBinary, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: plainEnvironment,
    timeout: 20000,
  });
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit'),
  ]);
  return { code, stdout, stderr };
}

async function text(stream) {
  return (await Array.fromAsync(stream)).join('');
}

/// Checks faster than a user would want, so that tests need not wait; everything can be overridden.
const hastyConfig = {
  health: { interval: '300ms', timeout: '1s', probe_back: '200ms', slow_start: '0s' },
  timeouts: { drain: '5s' },
};

/// The field with the token that the gateway with its admin API at `port` has made for itself, if it has.
export function adminToken(port) {
  const tokenPath = path.join(scratch, 'heng', `admin-${port}.token`);
  if (!fs.existsSync(tokenPath)) return {};
  return { authorization: `Bearer ${fs.readFileSync(tokenPath, 'utf8').trim()}` };
}

/// The gateway under test. `config` is an object in the shape of the YAML file (JSON is YAML) without
/// addresses, or a function of the addresses that gives the file's text. `wrap`: a command to run it under.
/// `announced`: it is up when it says so (its addresses are not to be asked over plain HTTP). It must end
/// cleanly: a nonzero exit at the end of the file fails the file.
export async function startGateway(config, { wrap = [], announced = false } = {}) {
  const port = await freePort();
  const adminPort = await freePort();
  const configPath = path.join(scratch, `heng-${port}.yaml`);
  const url = `http://127.0.0.1:${port}`;
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  // Whole or not at all: a reload or a hand-over may be reading it.
  const write = next => {
    fs.writeFileSync(
      `${configPath}.new`,
      typeof next === 'string'
        ? next
        : typeof next === 'function'
        ? next({ listen: `127.0.0.1:${port}`, admin: `127.0.0.1:${adminPort}` })
        : JSON.stringify(
            { listen: `127.0.0.1:${port}`, admin: `127.0.0.1:${adminPort}`, ...hastyConfig, ...next },
            null,
            2,
          ),
      { mode: 0o600 },
    );
    fs.renameSync(`${configPath}.new`, configPath);
  };
  write(config);
  const gateway = {
    port,
    url,
    adminPort,
    adminUrl,
    configPath,
    /// Again, after it has ended.
    async start() {
      const [command, ...args] = [...wrap, hengBinary, 'serve', '-c', configPath];
      gateway.program = new Program('gateway', command, args);
      if (announced) await until('the gateway is up', () => gateway.program.log().includes(' API on '));
      else await gateway.program.waitForHttp(`${adminUrl}/healthz`);
    },
    /// Replaces the configuration file (text as it is, an object like the first one); does not reload it.
    write,
    /// The official client, as a user would make it; no retries, so that each failure is seen.
    client: options => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'client-key', maxRetries: 0, ...options }),
    request: (target, options) => request(`${url}${target}`, options),
    /// Changes carry the token that the gateway has made for itself, unless the test sends one or `token` is
    /// false.
    admin: (target, { token = true, headers = {}, ...options } = {}) => {
      const change = options.body !== undefined || !['GET', 'HEAD'].includes(options.method ?? 'GET');
      if (token && change && !headers.authorization) headers = { ...headers, ...adminToken(adminPort) };
      return request(`${adminUrl}${target}`, { headers, ...options });
    },
    heng: (command, ...args) => heng(command, '--admin', `127.0.0.1:${adminPort}`, ...args),
  };
  cleanups.push(async () => {
    const { program } = gateway;
    if (program.end !== undefined) return;
    program.signal('SIGTERM');
    assert.equal(
      await program.waitForEnd(),
      0,
      `the gateway ended badly; it wrote:\n${program.log().slice(-4000)}`,
    );
  });
  await gateway.start();
  return gateway;
}

// ------------------------------------------------------------------------------------------- servers and req

/// An HTTP server that plays a worker. `handler(request, response, body)` is called with the body read and
/// may return a promise; without one it answers every request with a small JSON object. `requests` holds all
/// but the probes and, unless it `showsMetrics`, questions for these.
export async function startUpstream(handler = answerJson, { tls, port, showsMetrics } = {}) {
  const requests = [];
  const listener = async (incoming, response) => {
    if (incoming.url.endsWith('/health')) return response.end('{"status":"ok"}');
    if (!showsMetrics && incoming.url.endsWith('/metrics')) return response.writeHead(404).end();
    try {
      const entry = {
        method: incoming.method,
        url: incoming.url,
        headers: incoming.headers,
        socket: incoming.socket,
      };
      entry.body = Buffer.concat(await Array.fromAsync(incoming));
      requests.push(entry);
      await handler(incoming, response, entry.body);
    } catch (error) {
      response.destroy(error); // the client is gone or the test is over
    }
  };
  const server = tls ? https.createServer(tls, listener) : http.createServer(listener);
  server.keepAliveTimeout = 60000;
  server.listen(port ?? (await freePort()), '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const close = async () => {
    server.close();
    server.closeAllConnections();
  };
  cleanups.push(close);
  return {
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${address.port}`,
    name: `127.0.0.1:${address.port}`,
    port: address.port,
    requests,
    close,
  };
}

export function answerJson(incoming, response, body) {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ id: 'answer', object: 'chat.completion', bytes: body.length }));
}

/// A worker's handler: a few events, slowly.
export async function streamSlowly(incoming, response) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (let i = 0; i < 5; ++i) {
    response.write(`data: ${i}\n\n`);
    await sleep(10);
  }
  response.end('data: [DONE]\n\n');
}

/// Clients that stream again and again until stopped, on kept and on new connections, from workers that
/// `streamSlowly`. What went wrong is in `failures`.
export function startStreams(t, gateway, { clients = 8 } = {}) {
  const used = [],
    failures = [],
    recent = 3 * clients;
  let running = true;
  t.after(() => (running = false));
  const all = Array.from({ length: clients }, async (_, index) => {
    const headers = index % 2 === 0 ? {} : { connection: 'close' };
    while (running) {
      const answer = await gateway
        .request('/v1/chat/completions', { body: chat('m', { stream: true }), headers })
        .catch(error => ({ error }));
      if (answer.error || answer.status !== 200 || !answer.text().endsWith('data: [DONE]\n\n'))
        failures.push(answer.error ?? `${answer.status} ${answer.text()}`);
      used.push(answer.worker);
    }
  });
  return {
    failures,
    done: () => used.length,
    usedNow: name => until(`${name} is used`, () => used.slice(-recent).includes(name)),
    usedNoMore: name =>
      until(`${name} is not used`, () => used.length > recent && !used.slice(-recent).includes(name)),
    stop: async () => {
      running = false;
      await Promise.all(all);
    },
  };
}

const agent = new http.Agent({ keepAlive: true });
cleanups.push(async () => agent.destroy());

/// One HTTP request with the bytes as they are (fetch would decompress). `body`: string, Buffer or object (as
/// JSON).
/// `tls`: options of `https.request`, for https and Unix sockets too.
export async function request(url, { method, headers = {}, body, tls } = {}) {
  if (body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body)) {
    body = JSON.stringify(body);
    headers = { 'content-type': 'application/json', ...headers };
  }
  const outgoing = (url.startsWith('https:') ? https : http).request(url, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    headers,
    agent: tls ? false : agent,
    ...tls,
  });
  outgoing.end(body);
  const [incoming] = await once(outgoing, 'response');
  const bytes = Buffer.concat(await Array.fromAsync(incoming));
  return {
    status: incoming.statusCode,
    headers: incoming.headers,
    body: bytes,
    worker: incoming.headers['x-heng-worker'],
    text: () => bytes.toString(),
    json: () => JSON.parse(bytes.toString()),
  };
}

/// A small chat request for `model`.
export function chat(model, extra = {}) {
  return {
    model,
    messages: [{ role: 'user', content: 'hello there' }],
    max_tokens: 8,
    temperature: 0,
    ...extra,
  };
}

// --------------------------------------------------------------------------------------------------------- b

/// One TCP connection with its bytes in view.
export class Wire {
  static async open(port) {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    await once(socket, 'connect');
    return new Wire(socket);
  }

  constructor(socket) {
    this.socket = socket;
    this.received = Buffer.alloc(0); // and not yet taken
    this.seen = Buffer.alloc(0); // all that ever came
    this.closed = false;
    this.wake = () => {};
    socket.on('data', bytes => {
      this.received = Buffer.concat([this.received, bytes]);
      this.seen = Buffer.concat([this.seen, bytes]);
      this.wake();
    });
    for (const event of ['end', 'close', 'error']) {
      socket.on(event, () => {
        this.closed = true;
        this.wake();
      });
    }
    cleanups.push(async () => socket.destroy());
  }

  send(bytes) {
    this.socket.write(bytes);
  }
  /// Sends FIN: nothing more comes from us, but we still listen.
  finish() {
    this.socket.end();
  }
  destroy() {
    this.socket.destroy();
  }

  /// Waits until `length()` (of what is received) is not negative; cuts so many bytes off the front.
  async take(what, length, timeoutMs = 10_000) {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const count = length(this.received);
      if (count >= 0) {
        const taken = this.received.subarray(0, count);
        this.received = this.received.subarray(count);
        return taken;
      }
      const left = deadline - performance.now();
      if (this.closed || left <= 0) {
        throw new Error(
          `${this.closed ? 'closed' : 'silent'} while waiting for ${what}; received: ` +
            JSON.stringify(this.received.toString('latin1').slice(0, 500)),
        );
      }
      await new Promise(resolve => {
        this.wake = resolve;
        setTimeout(resolve, left).unref();
      });
    }
  }

  takeThrough(marker, timeoutMs) {
    return this.take(
      JSON.stringify(marker),
      received => {
        const at = received.indexOf(marker);
        return at < 0 ? -1 : at + marker.length;
      },
      timeoutMs,
    );
  }

  takeBytes(count, timeoutMs) {
    return this.take(`${count} bytes`, received => (received.length >= count ? count : -1), timeoutMs);
  }

  takeUntilClose(timeoutMs) {
    return this.take('close', received => (this.closed ? received.length : -1), timeoutMs);
  }

  /// The next head; interim ones (1xx) are skipped unless wanted.
  async takeHead({ interim = false, timeoutMs } = {}) {
    const lines = (await this.takeThrough('\r\n\r\n', timeoutMs)).toString('latin1').trimEnd().split('\r\n');
    const [, version, status] =
      /^HTTP\/(1\.[01]) (\d{3})/.exec(lines[0]) ?? assert.fail(`no status line: ${lines[0]}`);
    const headers = Object.fromEntries(
      lines.slice(1).map(line => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }),
    );
    if (status.startsWith('1') && !interim) return this.takeHead({ timeoutMs });
    return { version, status: Number(status), headers };
  }

  /// A whole response: head and body (by length, chunks or close). `toHead`: it answers HEAD and has no body.
  async takeResponse({ toHead = false, timeoutMs } = {}) {
    const head = await this.takeHead({ timeoutMs });
    let body = Buffer.alloc(0);
    if (toHead || head.status === 204 || head.status === 304) return { ...head, body };
    if (head.headers['transfer-encoding'] === 'chunked') {
      for (;;) {
        const size = parseInt((await this.takeThrough('\r\n', timeoutMs)).toString(), 16);
        const chunk = await this.takeBytes(size + 2, timeoutMs);
        if (size === 0) break;
        body = Buffer.concat([body, chunk.subarray(0, size)]);
      }
    } else if (head.headers['content-length'] !== undefined) {
      body = await this.takeBytes(Number(head.headers['content-length']), timeoutMs);
    } else {
      body = await this.takeUntilClose(timeoutMs);
    }
    return { ...head, body };
  }
}

/// The bytes of a request.
export function requestBytes(method, target, headers = {}, body = '') {
  const lines = Object.entries({ host: 'heng', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([
    Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`),
    Buffer.from(body),
  ]);
}

/// The bytes of a POST of JSON.
export function postBytes(target, value, headers = {}) {
  const body = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
  return requestBytes(
    'POST',
    target,
    { 'content-type': 'application/json', 'content-length': body.length, ...headers },
    body,
  );
}

/// A promise with its `resolve` in hand, for servers that wait for the test.
export const gate = () => Promise.withResolvers();

/// Asserts an error body as OpenAI's API has it.
export function assertApiError(answer, status) {
  assert.equal(answer.status, status, answer.body.toString());
  assert.match(answer.headers['content-type'] ?? '', /^application\/json/);
  const { error } = JSON.parse(answer.body.toString());
  assert.ok(error, answer.body.toString());
  assert.equal(typeof error.message, 'string');
  assert.ok(error.message.length > 0);
  assert.equal(typeof error.type, 'string');
  assert.ok('param' in error && 'code' in error, 'has param and code');
  return error;
}
