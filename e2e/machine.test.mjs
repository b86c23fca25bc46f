// What the machine does to the gateway: it is stopped and goes on, it runs short of descriptors and memory,
// its disk is full.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { describe, it } from 'node:test';

import {
  assertApiError,
  chat,
  freePort,
  gate,
  hengBinary,
  postBytes,
  Program,
  requestBytes,
  scratch,
  sleep,
  startGateway,
  startUpstream,
  until,
  Wire,
} from './harness.mjs';

/// The value of one metric, all labels added up.
const metric = async (gateway, name) =>
  [...(await gateway.admin('/metrics')).text().matchAll(new RegExp(`^${name}(?:{[^}]*})? (\\S+)$`, 'gm'))]
    .map(match => Number(match[1]))
    .reduce((sum, value) => sum + value, 0);

describe('a gateway that is stopped for longer than its time-outs', () => {
  it('goes on as if no time had passed: nothing is cut off, nobody ejected', async () => {
    const resumed = gate();
    const upstream = await startUpstream(async (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      await resumed.promise;
      response.end('data: 2\n\n');
    });
    const gateway = await startGateway({
      health: { interval: '100ms', timeout: '1s', fall: 1, slow_start: '0s' },
      timeouts: { idle: '1500ms', client_header: '1500ms', client_idle: '1500ms', drain: '5s' },
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const [streaming, halfSent, idle] = [
      await Wire.open(gateway.port),
      await Wire.open(gateway.port),
      await Wire.open(gateway.port),
    ];
    streaming.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
    await streaming.takeThrough('data: 1\n\n');
    const question = requestBytes('GET', '/healthz');
    halfSent.send(question.subarray(0, 10));
    idle.send(question);
    await idle.takeResponse();
    const stalls = await metric(gateway, 'heng_stalls_total');

    gateway.program.signal('SIGSTOP');
    await sleep(3000);
    gateway.program.signal('SIGCONT');
    await until('the stall is noticed', async () => (await metric(gateway, 'heng_stalls_total')) > stalls);
    assert.ok((await metric(gateway, 'heng_stalled_seconds_total')) > 2);

    idle.send(question);
    assert.equal((await idle.takeResponse()).status, 200);
    halfSent.send(question.subarray(10));
    assert.equal((await halfSent.takeResponse()).status, 200);
    resumed.resolve();
    await streaming.takeThrough('data: 2\n\n');
    await streaming.takeThrough('0\r\n\r\n');
    const [worker] = (await gateway.admin('/api/v1/workers')).json().workers;
    assert.equal(worker.state, 'healthy');
    assert.equal(worker.last_fault, 'none');
  });
});

describe('descriptors', () => {
  const descriptors = pid => fs.readdirSync(`/proc/${pid}/fd`).length;

  it('that are few from the start leave some for workers and the admin API', async () => {
    const upstream = await startUpstream();
    const [port, adminPort] = [await freePort(), await freePort()];
    const config = `${scratch}/few.yaml`;
    fs.writeFileSync(
      config,
      JSON.stringify({
        listen: `127.0.0.1:${port}`,
        admin: `127.0.0.1:${adminPort}`,
        pools: [{ model: 'm', workers: [upstream.url] }],
      }),
      { mode: 0o600 },
    );
    const program = new Program('few', 'prlimit', ['--nofile=64:64', hengBinary, 'serve', '-c', config]);
    await program.waitForHttp(`http://127.0.0.1:${adminPort}/healthz`);
    assert.match(program.log(), /limits.connections is 20000, but 64 open files are enough for 14 only/);
    const busy = await Promise.all(Array.from({ length: 14 }, () => Wire.open(port)));
    for (const wire of busy) wire.send(requestBytes('POST', '/v1/x', { 'content-length': 10 }, 'half'));
    const turnedAway = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const wire = await Wire.open(port);
        wire.send(requestBytes('GET', '/healthz'));
        return wire.takeHead();
      }),
    );
    for (const { status, headers } of turnedAway) {
      assert.equal(status, 503);
      assert.equal(headers['retry-after'], '1');
    }
    assert.equal((await fetch(`http://127.0.0.1:${adminPort}/healthz`)).status, 200);
    for (const wire of busy) wire.destroy();
    const answer = await until('there is room again', async () => {
      const wire = await Wire.open(port);
      wire.send(postBytes('/v1/chat/completions', chat('m')));
      const { status } = await wire.takeResponse();
      return status === 200;
    });
    assert.ok(answer);
    program.signal('SIGTERM');
    assert.equal(await program.waitForEnd(), 0);
  });

  it('that run out are no fault of workers: 503 and a word when to come again, no spinning', async () => {
    const finish = gate();
    const upstream = await startUpstream(async (incoming, response) => {
      await finish.promise;
      response.end('{}');
    });
    const gateway = await startGateway({ pools: [{ model: 'm', workers: [upstream.url] }] });
    const wires = await Promise.all(Array.from({ length: 4 }, () => Wire.open(gateway.port)));
    for (const wire of wires) {
      wire.send(requestBytes('GET', '/healthz'));
      await wire.takeResponse();
    }
    const { pid } = gateway.program.child;
    const limit = (soft, hard) => execFileSync('prlimit', ['--pid', String(pid), `--nofile=${soft}:${hard}`]);
    const [, soft, hard] = /open files +(\d+) +(\d+)/.exec(fs.readFileSync(`/proc/${pid}/limits`, 'utf8'));
    await gateway.admin('/healthz'); // keeps a connection for later
    limit(descriptors(pid), hard);
    // One of them may still have the connection of a probe.
    const answers = wires.map(wire => {
      wire.send(postBytes('/v1/chat/completions', chat('m')));
      return wire.takeResponse();
    });
    const late = await Wire.open(gateway.port);
    const told = await late.takeHead();
    assert.equal(told.status, 503);
    assert.equal(told.headers['retry-after'], '1');
    const ticks = () => fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')[13] * 1;
    const before = ticks();
    const more = await Wire.open(gateway.port);
    await more.takeUntilClose();
    await sleep(500);
    assert.ok(ticks() - before < 25, 'no more than half of half a second of CPU');
    const { workers } = (await gateway.admin('/api/v1/workers')).json();
    assert.equal(workers[0].last_fault, 'none');
    limit(soft, hard);
    finish.resolve();
    const statuses = (await Promise.all(answers)).map(answer => {
      if (answer.status !== 200) assert.equal(assertApiError(answer, 503).code, 'gateway_exhausted');
      return answer.status;
    });
    assert.ok(statuses.filter(status => status === 503).length >= 2, `${statuses}`);
    assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 200);
    assert.match(gateway.program.log(), /out of descriptors/);
  });
});

describe('memory', () => {
  const large = { messages: [{ role: 'user', content: 'x'.repeat(600_000) }] };

  it('above limits.buffered_bytes refuses bodies, and nothing else', async () => {
    const finish = gate();
    const upstream = await startUpstream(async (incoming, response) => {
      await finish.promise;
      response.end('{}');
    });
    const gateway = await startGateway({
      limits: { buffered_bytes: '1600KiB' },
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const ask = () => gateway.request('/v1/chat/completions', { body: { ...chat('m'), ...large } });
    const held = [ask(), ask()];
    await until('they are under way', () => upstream.requests.length === 2);
    const refused = await ask();
    assertApiError(refused, 503);
    assert.equal(refused.headers['retry-after'], '1');
    const wire = await Wire.open(gateway.port);
    const piece = Buffer.from(`10000\r\n${'x'.repeat(0x10000)}\r\n`);
    wire.send(requestBytes('POST', '/v1/chat/completions', { 'transfer-encoding': 'chunked' }));
    for (let i = 0; i < 40; ++i) wire.send(piece);
    assertApiError(await wire.takeResponse(), 503);
    assert.equal((await gateway.request('/healthz')).status, 200);
    assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
    finish.resolve();
    for (const answer of await Promise.all(held)) assert.equal(answer.status, 200);
    assert.equal((await ask()).status, 200);
  });

  // A sanitizer alone needs more addresses than that.
  const sanitized = Boolean(process.env.HENG_E2E_SANITIZED);
  it('that is really used up ends the program with a word on why', { skip: sanitized }, async () => {
    const [port, adminPort] = [await freePort(), await freePort()];
    const config = `${scratch}/memory.yaml`;
    fs.writeFileSync(
      config,
      JSON.stringify({
        listen: `127.0.0.1:${port}`,
        admin: `127.0.0.1:${adminPort}`,
        limits: { buffered_bytes: '4GiB', body_bytes: '1GiB' },
        pools: [{ model: 'm', workers: ['http://127.0.0.1:1'] }],
      }),
      { mode: 0o600 },
    );
    const memory = 300 << 20;
    const program = new Program('memory', 'prlimit', [`--as=${memory}`, hengBinary, 'serve', '-c', config]);
    await program.waitForHttp(`http://127.0.0.1:${adminPort}/healthz`);
    const wire = await Wire.open(port);
    wire.send(requestBytes('POST', '/v1/chat/completions', { 'content-length': memory }));
    for (let i = 0; i < memory >> 20 && program.end === undefined; ++i) {
      wire.send(Buffer.alloc(1 << 20));
      await sleep(1);
    }
    assert.equal(await program.waitForEnd(), 'SIGABRT');
    assert.match(program.log(), /out of memory; lower limits.buffered_bytes/);
  });
});

describe('an access log on a full disk', () => {
  it('is said and counted, and holds up nothing', async () => {
    const upstream = await startUpstream();
    const gateway = await startGateway({
      access_log: '/dev/full',
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    for (let i = 0; i < 5; ++i)
      assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 200);
    await until(
      'all five are counted',
      async () => (await metric(gateway, 'heng_access_log_dropped_total')) === 5,
    );
    await until('the log says why', () => /No space left on device/.test(gateway.program.log()));
  });
});
