// Changing a running gateway: reload under load, refusal of bad files, draining on SIGTERM.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import {
  chat,
  freePort,
  gate,
  postBytes,
  scratch,
  sleep,
  startGateway,
  startStreams,
  startUpstream,
  streamSlowly,
  until,
  Wire,
} from './harness.mjs';

describe('reload', () => {
  let first, second;
  before(async () => {
    [first, second] = [await startUpstream(streamSlowly), await startUpstream(streamSlowly)];
  });

  const pool = (...workers) => ({
    pools: [{ model: 'm', policy: 'round_robin', workers: workers.map(worker => worker.url) }],
  });
  const ask = gateway => gateway.request('/v1/chat/completions', { body: chat('m', { stream: true }) });

  for (const [how, reload] of [
    [
      'heng reload',
      async gateway => {
        const { code, stderr } = await gateway.heng('reload');
        assert.equal(code, 0, stderr);
      },
    ],
    ['SIGHUP', async gateway => gateway.program.signal('SIGHUP')],
  ]) {
    it(`${how} under load loses nothing`, async t => {
      const gateway = await startGateway(pool(first));
      const { failures, usedNow, usedNoMore, stop } = startStreams(t, gateway);
      await usedNow(first.name);
      for (let round = 0; round < 2; ++round) {
        gateway.write(pool(first, second));
        await reload(gateway);
        await usedNow(second.name);
        gateway.write(pool(second));
        await reload(gateway);
        await usedNoMore(first.name);
        gateway.write(pool(first));
        await reload(gateway);
        await usedNoMore(second.name);
      }
      await stop();
      assert.deepEqual(failures, []);
    });
  }

  it('a thousand times under load loses nothing', { timeout: 60_000 }, async t => {
    const gateway = await startGateway(pool(first));
    const { failures, usedNow, stop } = startStreams(t, gateway);
    await usedNow(first.name);
    const before = first.requests.length + second.requests.length;
    for (let round = 0; round < 1000; ++round) {
      gateway.write(round % 2 ? pool(first, second) : pool(second));
      assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
    }
    await usedNow(second.name);
    await stop();
    assert.deepEqual(failures, []);
    assert.ok(first.requests.length + second.requests.length > before + 20, 'there was load');
    assert.match((await gateway.admin('/metrics')).text(), /^heng_reloads_total{result="applied"} 1000$/m);
  });

  it('of a bad file changes nothing and says why', async () => {
    const gateway = await startGateway(pool(first));
    const good = fs.readFileSync(gateway.configPath, 'utf8');
    gateway.write('listen: 127.0.0.1:1\npools:\n  - model: m\n    polcy: round_robin\n');
    const { code, stderr } = await gateway.heng('reload');
    assert.notEqual(code, 0);
    assert.match(stderr, /heng-\d+\.yaml:4:5: .*polcy/);
    assert.equal((await ask(gateway)).worker, first.name);
    gateway.program.signal('SIGHUP');
    await until('the log names the mistake', () => /heng-\d+\.yaml:4:5: .*polcy/.test(gateway.program.log()));
    assert.equal((await ask(gateway)).worker, first.name);
    fs.writeFileSync(gateway.configPath, good);
    assert.equal((await gateway.heng('reload')).code, 0, 'and the good file is fine again');
  });

  it('cannot move the address: that is said, and nothing is changed', async () => {
    const gateway = await startGateway(pool(first));
    gateway.write({ listen: `127.0.0.1:${await freePort()}`, ...pool(second) });
    const { code, stderr } = await gateway.heng('reload');
    assert.notEqual(code, 0);
    assert.match(stderr, /listen/);
    assert.equal((await ask(gateway)).worker, first.name);
  });

  it('keeps what a running stream uses, also if its pool is gone', { timeout: 20_000 }, async () => {
    const finish = gate();
    const upstream = await startUpstream(async (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      await finish.promise;
      response.end('data: 2\n\n');
    });
    const gateway = await startGateway(pool(upstream));
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
    await wire.takeThrough('data: 1\n\n');
    gateway.write({ pools: [{ model: 'other', workers: [first.url] }] });
    assert.equal((await gateway.heng('reload')).code, 0);
    assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 404);
    finish.resolve();
    await wire.takeThrough('data: 2\n\n');
  });

  it('keeps what a running stream uses if its policy is replaced, then its worker leaves', async () => {
    const finish = gate();
    const upstream = await startUpstream(async (incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      await finish.promise;
      for (let i = 2; i < 50; ++i) {
        response.write(`data: ${i}\n\n`);
        await sleep(2);
      }
      response.end('data: 50\n\n');
    });
    const gateway = await startGateway(pool(upstream));
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
    await wire.takeThrough('data: 1\n\n');
    for (const workers of [[upstream.url, first.url], [first.url]]) {
      gateway.write({ pools: [{ model: 'm', policy: 'least_connections', workers }] });
      assert.equal((await gateway.heng('reload')).code, 0);
    }
    finish.resolve();
    await wire.takeThrough('data: 50\n\n');
    assert.ok(!(await gateway.admin('/metrics')).text().includes(upstream.name), 'its series have gone');
  });
});

describe('the access log', () => {
  it('moved away is begun anew on SIGUSR1; in a folder that is gone, the log says so', async () => {
    const upstream = await startUpstream();
    const folder = fs.mkdtempSync(path.join(scratch, 'logs-'));
    const log = path.join(folder, 'access.log');
    const gateway = await startGateway({
      access_log: log,
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const lines = file => (fs.existsSync(file) ? fs.readFileSync(file, 'utf8').split('\n').length - 1 : 0);
    const ask = async () =>
      assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 200);
    await ask();
    await until('the line is there', () => lines(log) === 1);
    fs.renameSync(log, `${log}.1`);
    gateway.program.signal('SIGUSR1');
    await until('there is a new file', () => fs.existsSync(log));
    await ask();
    await until('the line is in the new file', () => lines(log) === 1);
    assert.equal(lines(`${log}.1`), 1);

    fs.renameSync(folder, `${folder}-moved`);
    assert.equal((await gateway.heng('reload')).code, 0);
    await until('the log says why', () =>
      /access\.log' cannot be opened anew: No such file/.test(gateway.program.log()),
    );
    await ask();
    await until('the lines go on', () => lines(path.join(`${folder}-moved`, 'access.log')) === 2);
  });
});

describe('SIGTERM', () => {
  it(
    'lets a running stream finish, takes no new connections and exits with 0',
    { timeout: 20_000 },
    async () => {
      const finish = gate();
      const upstream = await startUpstream(async (incoming, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: 1\n\n');
        await finish.promise;
        response.end('data: 2\n\n');
      });
      const gateway = await startGateway({ pools: [{ model: 'm', workers: [upstream.url] }] });
      const idle = await Wire.open(gateway.port);
      const wire = await Wire.open(gateway.port);
      wire.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
      await wire.takeThrough('data: 1\n\n');
      gateway.program.signal('SIGTERM');
      await until('no new connections', () =>
        Wire.open(gateway.port).then(
          late => late.destroy(),
          () => true,
        ),
      );
      assert.equal(gateway.program.end, undefined, 'it waits for the stream');
      finish.resolve();
      await wire.takeThrough('data: 2\n\n');
      await idle.takeUntilClose();
      assert.equal(await gateway.program.waitForEnd(), 0);
    },
  );

  it('does not wait longer than the drain time', { timeout: 20_000 }, async () => {
    const upstream = await startUpstream((incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
    });
    const gateway = await startGateway({
      timeouts: { drain: '1s' },
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
    await wire.takeThrough('data: 1\n\n');
    const start = performance.now();
    gateway.program.signal('SIGTERM');
    await gateway.program.waitForEnd(5000);
    assert.ok(performance.now() - start > 800, 'it waits for the drain time');
  });
});
