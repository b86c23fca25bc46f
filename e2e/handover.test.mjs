// A new process takes over from the running one, and nobody notices.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { describe, it } from 'node:test';

import {
  chat,
  freePort,
  gate,
  hengBinary,
  postBytes,
  Program,
  requestBytes,
  scratch,
  startGateway,
  startStreams,
  startUpstream,
  streamSlowly,
  until,
  Wire,
} from './harness.mjs';

/// Also of a process that nobody has waited for yet.
function hasEnded(pid) {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`).length === 0;
  } catch {
    return true;
  }
}

/// A gateway whose successors end with the test. They outlive the program that `startGateway` watches.
async function startPredecessor(t, config) {
  const gateway = await startGateway({ ...config, timeouts: { client_idle: '1500ms', drain: '2s' } });
  const successors = [];
  t.after(async () => {
    for (const pid of successors) {
      if (hasEnded(pid)) continue;
      process.kill(pid, 'SIGTERM');
      await until(`${pid} has ended`, () => hasEnded(pid));
    }
  });
  const handOver = async () => {
    const answer = await gateway.admin('/api/v1/handover', { method: 'POST' });
    if (answer.status === 200) successors.push(answer.json().pid);
    return answer;
  };
  return { gateway, handOver, successors };
}

/// More of them, for a soak: HENG_E2E_HANDOVERS=20 HENG_E2E_RELOADS=1000.
const handovers = Number(process.env.HENG_E2E_HANDOVERS ?? 5);
const reloads = Number(process.env.HENG_E2E_RELOADS ?? 100);

describe('hand-over', () => {
  it(`under load loses nothing, ${handovers} times over and between ${reloads} reloads`, async t => {
    const upstream = await startUpstream(streamSlowly);
    const { gateway, handOver, successors } = await startPredecessor(t, {
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const load = startStreams(t, gateway);
    await until('the load runs', () => load.done() > 20);
    for (let round = 0; round < handovers; ++round) {
      for (let i = 0; i < reloads / handovers; ++i)
        assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
      const answer = await handOver();
      assert.equal(answer.status, 200, answer.text());
      const before = load.done();
      await until('requests go on', () => load.done() > before + 20);
    }
    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.equal(new Set(successors).size, handovers);
    t.diagnostic(`${load.done()} requests`);
    assert.equal(await gateway.program.waitForEnd(), 0, 'the first process has gone when its work was done');
    for (const pid of successors.slice(0, -1))
      await until(`${pid} has gone`, () => hasEnded(pid));
    const info = (await gateway.admin('/api/v1/info')).json();
    assert.equal(info.requests.failed + info.requests.refused + info.requests.canceled, 0);
  });

  it('lets a running stream finish, answers on idle connections, and takes the queue along', async t => {
    const finish = gate();
    const upstream = await startUpstream(async (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      await finish.promise;
      response.end('data: 2\n\n');
    });
    const { gateway, handOver, successors } = await startPredecessor(t, {
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const [streaming, idle] = [await Wire.open(gateway.port), await Wire.open(gateway.port)];
    streaming.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
    await streaming.takeThrough('data: 1\n\n');
    idle.send(requestBytes('GET', '/healthz'));
    assert.equal((await idle.takeResponse()).headers.connection, undefined);
    assert.equal((await handOver()).status, 200);
    idle.send(requestBytes('GET', '/readyz'));
    const last = await idle.takeResponse();
    assert.equal(last.status, 200);
    assert.equal(last.headers.connection, 'close');
    await idle.takeUntilClose();
    const info = (await gateway.admin('/api/v1/info')).json();
    assert.equal(info.requests.in_flight, 0, 'the new process answers here');
    assert.equal(gateway.program.end, undefined, 'the old one waits for its stream');
    finish.resolve();
    await streaming.takeThrough('data: 2\n\n');
    await streaming.takeThrough('0\r\n\r\n');
    assert.equal(await gateway.program.waitForEnd(), 0);
    assert.equal(successors.length, 1);
  });

  // The thread sanitizer mixes up the signal handlers of the old process and of the one that it launches.
  const skip = process.env.HENG_E2E_SANITIZED === 'tsan';
  it('of a bad configuration leaves the old process at work and says why', { skip }, async t => {
    const upstream = await startUpstream();
    const { gateway, handOver } = await startPredecessor(t, {
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const good = fs.readFileSync(gateway.configPath, 'utf8');
    gateway.write('pools:\n  - model: m\n    polcy: round_robin\n');
    const { code, stderr } = await gateway.heng('handover');
    assert.notEqual(code, 0);
    assert.match(stderr, /did not take over: .*heng-\d+\.yaml:3:5: .*polcy/s);
    assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 200);
    gateway.program.signal('SIGUSR2');
    const reasons = () => gateway.program.log().match(/did not take over.*\n?.*polcy/g) ?? [];
    await until('the log says why, too', () => reasons().length === 2);
    fs.writeFileSync(gateway.configPath, good);
    assert.equal((await handOver()).status, 200, 'and it can be tried again');
  });

  it('remembers what was changed about workers', async t => {
    const [first, second] = [await startUpstream(), await startUpstream()];
    const { gateway, handOver } = await startPredecessor(t, {
      pools: [{ model: 'm', policy: 'round_robin', workers: [first.url, second.url] }],
    });
    const drained = await gateway.admin(`/api/v1/pools/m/workers/${first.name}/drain`, { method: 'POST' });
    assert.ok(drained.status < 300, drained.text());
    assert.equal((await handOver()).status, 200);
    for (let i = 0; i < 4; ++i)
      assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).worker, second.name);
  });

  it('remembers where sessions live', async t => {
    const upstreams = [await startUpstream(), await startUpstream()];
    const { gateway, handOver } = await startPredecessor(t, {
      pools: [
        {
          model: 'm',
          policy: 'round_robin',
          session_header: 'x-session',
          workers: upstreams.map(each => each.url),
        },
      ],
    });
    const ask = session =>
      gateway.request('/v1/chat/completions', { body: chat('m'), headers: { 'x-session': session } });
    const homes = new Map();
    for (let i = 0; i < 10; ++i) homes.set(`session ${i}`, (await ask(`session ${i}`)).worker);
    assert.equal(new Set(homes.values()).size, 2);
    assert.equal((await handOver()).status, 200);
    for (const [session, home] of homes) assert.equal((await ask(session)).worker, home);
  });
});

describe('socket activation', () => {
  it('takes the sockets that systemd passes', async () => {
    // Plays systemd. Two sockets cannot listen on one address: that the program starts shows which it has.
    const upstream = await startUpstream();
    const [port, adminPort] = [await freePort(), await freePort()];
    const config = `${scratch}/activated.yaml`;
    fs.writeFileSync(
      config,
      JSON.stringify({
        listen: `127.0.0.1:${port}`,
        admin: `127.0.0.1:${adminPort}`,
        pools: [{ model: 'm', workers: [upstream.url] }],
      }),
      { mode: 0o600 },
    );
    const activate = `
import os, socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(128)
os.dup2(listener.fileno(), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
`;
    const program = new Program('activated', '/usr/bin/python3', [
      '-c',
      activate,
      String(port),
      hengBinary,
      'serve',
      '-c',
      config,
    ]);
    await program.waitForHttp(`http://127.0.0.1:${port}/healthz`);
    program.signal('SIGTERM');
    assert.equal(await program.waitForEnd(), 0);
  });
});
