// Workers that come and go while the gateway runs: by the admin API and `heng worker`, out of a file, by DNS.
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import {
  assertApiError,
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

const ask = (gateway, extra) => gateway.request('/v1/chat/completions', { body: chat('m', extra) });
const listed = async gateway => (await gateway.admin('/api/v1/workers')).json().workers;
const worker = async (gateway, name) => (await listed(gateway)).find(one => one.name === name);
const names = async gateway => (await listed(gateway)).map(one => one.name).sort();
const change = (gateway, method, target, body) =>
  gateway.admin(`/api/v1/pools/m/workers${target}`, { method, body });
const add = (gateway, body) => change(gateway, 'POST', '', body);

async function run(gateway, ...args) {
  const { code, stdout, stderr } = await gateway.heng('worker', ...args);
  assert.equal(code, 0, stderr);
  return stdout;
}

/// A worker whose streams end when told to.
async function startHolding() {
  const finish = gate();
  const upstream = await startUpstream(async (incoming, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: 1\n\n');
    await finish.promise;
    response.end('data: [DONE]\n\n');
  });
  return { ...upstream, finish: finish.resolve };
}

async function openStream(gateway) {
  const wire = await Wire.open(gateway.port);
  wire.send(postBytes('/v1/chat/completions', chat('m', { stream: true })));
  await wire.takeThrough('data: 1\n\n');
  return wire;
}

describe('workers at run time', () => {
  it('come, change and go under load without one lost request', { timeout: 60_000 }, async t => {
    const [first, second, third] = await Promise.all([0, 1, 2].map(() => startUpstream(streamSlowly)));
    const gateway = await startGateway({
      pools: [{ model: 'm', policy: 'round_robin', workers: [first.url] }],
    });
    const { failures, usedNow, usedNoMore, stop } = startStreams(t, gateway);
    for (let round = 0; round < 2; ++round) {
      await run(gateway, 'add', second.url, '--name', 'second');
      await usedNow('second');
      await run(gateway, 'drain', first.name, '--wait');
      assert.equal((await worker(gateway, first.name)).in_flight, 0);
      await usedNoMore(first.name);
      await run(gateway, 'add', third.url, '--weight', '2');
      await usedNow(third.name);
      await run(gateway, 'weight', third.name, '3');
      assert.equal((await worker(gateway, third.name)).weight, 3);
      await run(gateway, 'ready', first.name);
      await usedNow(first.name);
      await run(gateway, 'remove', 'second', '--wait');
      await run(gateway, 'remove', third.name);
      await usedNoMore('second');
      await usedNoMore(third.name);
      assert.equal(await worker(gateway, 'second'), undefined);
    }
    await stop();
    assert.deepEqual(failures, []);
    const page = (await gateway.admin('/metrics')).text();
    assert.ok(!page.includes('worker="second"') && !page.includes(`worker="${third.name}"`));
    const weights = (await gateway.admin('/api/v1/weights')).json().pools[0];
    assert.deepEqual(weights.workers, [first.name], 'no trace of workers that have left');
    assert.equal(weights.weights.length, 1);
    assert.ok(weights.history.every(sample => sample.assigned.length === 1));
  });

  it('drains: streams go on, new requests wait for another', { timeout: 20_000 }, async () => {
    const upstream = await startHolding();
    const gateway = await startGateway({ pools: [{ model: 'm', workers: [upstream.url] }] });
    const wire = await openStream(gateway);
    assert.match(await run(gateway, 'drain', upstream.name), /: draining, 1 request/);
    assert.deepEqual(
      (({ state, eligible, in_flight }) => ({ state, eligible, in_flight }))(
        await worker(gateway, upstream.name),
      ),
      { state: 'draining', eligible: false, in_flight: 1 },
    );
    assert.match((await gateway.heng('workers')).stdout, /draining/);
    const metrics = (await gateway.admin('/metrics')).text();
    assert.match(metrics, /heng_worker_drained\{[^}]*\} 1\n/);
    assert.match(metrics, /heng_worker_health\{[^}]*\} 0\n/);
    const refused = await ask(gateway);
    assertApiError(refused, 503);
    assert.ok(Number(refused.headers['retry-after']) > 0);
    assert.equal((await gateway.admin('/readyz')).status, 503);
    const waiting = gateway.heng('worker', 'drain', upstream.name, '--wait');
    const late = await gateway.heng('worker', 'drain', upstream.name, '--wait', '--timeout', '0.3');
    assert.equal(late.code, 1);
    assert.match(late.stderr, /still under way/);
    upstream.finish();
    await wire.takeThrough('[DONE]\n\n');
    assert.equal((await waiting).code, 0);
    assert.equal((await worker(gateway, upstream.name)).state, 'drained');
    assert.match(await run(gateway, 'ready', upstream.name), /healthy|unknown/);
    assert.equal((await ask(gateway)).status, 200);
  });

  it('are removed when their last stream has ended, or at once', { timeout: 20_000 }, async () => {
    const upstream = await startHolding();
    const gateway = await startGateway({ pools: [{ model: 'm', workers: [upstream.url] }] });
    const wire = await openStream(gateway);
    assert.match(await run(gateway, 'remove', upstream.name), /: removing, 1 request/);
    assert.equal((await worker(gateway, upstream.name)).state, 'removing');
    const refused = await ask(gateway);
    assertApiError(refused, 503);
    assert.ok(Number(refused.headers['retry-after']) > 0);
    upstream.finish();
    await wire.takeThrough('[DONE]\n\n');
    await until('it is gone', async () => (await listed(gateway)).length === 0);
    assert.equal((await change(gateway, 'DELETE', `/${upstream.name}`)).status, 404);

    const other = await startHolding();
    await run(gateway, 'add', other.url, '--name', 'other');
    const cut = await openStream(gateway);
    assert.match(await run(gateway, 'remove', 'other', '--now'), /other: removed/);
    const rest = (await cut.takeUntilClose()).toString();
    assert.match(rest, /removed by the operator/);
    assert.ok(!rest.includes('[DONE]') && !rest.endsWith('0\r\n\r\n'));
    other.finish();
    await run(gateway, 'ready', upstream.name);
    assert.deepEqual(await names(gateway), [upstream.name], 'what the file names can be had back');
  });

  it('keep what was changed over a reload', async () => {
    const [first, second, added] = await Promise.all([0, 1, 2].map(() => startUpstream()));
    const config = workers => ({ pools: [{ model: 'm', workers: workers.map(one => one.url) }] });
    const gateway = await startGateway(config([first, second]));
    await run(gateway, 'add', added.url, '--name', 'added');
    await run(gateway, 'drain', first.name);
    await run(gateway, 'remove', second.name);
    await run(gateway, 'weight', 'added', '4');
    for (const signal of [false, true]) {
      if (signal) {
        gateway.program.signal('SIGHUP');
        await until('reloaded', async () =>
          /heng_reloads_total\S* 2/.test((await gateway.admin('/metrics')).text()),
        );
      } else {
        assert.equal((await gateway.heng('reload')).code, 0);
      }
      assert.equal((await worker(gateway, first.name)).state, 'drained');
      assert.equal((await worker(gateway, 'added')).weight, 4);
      assert.deepEqual(await names(gateway), [first.name, 'added'].sort());
    }
    const list = await run(gateway, 'list');
    assert.match(list, new RegExp(`${first.name} +drained +file`));
    assert.match(list, /added +\w+ +runtime/);
    gateway.write(config([first, second, added]));
    assert.equal((await gateway.heng('reload')).code, 0);
    assert.equal((await listed(gateway)).filter(one => one.url === added.url).length, 1);
  });

  it('adding twice is the same once, anything else is explained', async () => {
    const [first, second] = await Promise.all([0, 1].map(() => startUpstream()));
    const gateway = await startGateway({
      pools: [
        { model: 'm', aliases: ['org/alias'], workers: [first.url] },
        { model: 'n', workers: [{ url: first.url, name: 'only' }] },
      ],
    });
    const body = { url: second.url, name: 'new', weight: 2 };
    const created = await add(gateway, body);
    assert.equal(created.status, 201, created.text());
    assert.equal(created.json().origin, 'runtime');
    assert.equal((await add(gateway, body)).status, 200);
    assert.equal((await add(gateway, { ...body, weight: 3 })).status, 409);
    assert.equal((await add(gateway, { ...body, name: 'other' })).status, 409);
    assert.equal((await add(gateway, { url: first.url })).status, 200, 'as the file has it');
    assert.equal((await change(gateway, 'PATCH', '/new', { weight: 5 })).json().weight, 5);
    assert.equal((await add(gateway, body)).status, 200, 'what was changed since does not count');
    assert.equal((await change(gateway, 'PATCH', '/new', { weight: null })).json().weight, 2);
    assert.equal((await change(gateway, 'GET', '/new')).json().name, 'new');
    assert.equal((await change(gateway, 'GET', '')).json().workers.length, 2);
    const alias = await gateway.admin('/api/v1/pools/org%2Falias/workers/new/drain', { method: 'POST' });
    assert.equal(alias.json().state, 'drained');

    for (const [method, target, sent, status] of [
      ['POST', '', 'nonsense', 400],
      ['POST', '', [1], 400],
      ['POST', '', {}, 422],
      ['POST', '', { url: 'http://' }, 422],
      ['POST', '', { url: first.url, wieght: 2 }, 422],
      ['POST', '', { url: first.url, weight: -1 }, 422],
      ['POST', '', { url: first.url, api_key_file: '/etc/shadow' }, 422],
      ['PATCH', '/new', { weight: 0 }, 422],
      ['PATCH', '/new', { weight: 'heavy' }, 422],
      ['PATCH', '/new', { url: 'http://127.0.0.1:1' }, 422],
      ['PATCH', '/new', {}, 422],
      ['PATCH', '/new', 'nonsense', 400],
      ['PATCH', '/absent', { weight: 2 }, 404],
      ['POST', '/absent/drain', undefined, 404],
      ['POST', '/new/dance', undefined, 404],
      ['DELETE', '/absent', undefined, 404],
      ['DELETE', '', undefined, 405],
      ['PUT', '/new', {}, 405],
    ]) {
      const answer = await change(gateway, method, target, sent);
      assertApiError(answer, status);
    }
    assertApiError(await gateway.admin('/api/v1/pools/absent/workers', { body }), 404);
    for (const method of ['POST', 'PATCH', 'DELETE'])
      assertApiError(
        await gateway.admin('/api/v1/pools/m/workers/new', { method, body: {}, token: false }),
        401,
      );
    const unknown = await gateway.heng('worker', 'drain', 'absent', '--pool', 'm');
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /no worker 'absent'/);
    assert.match((await gateway.heng('worker', 'add', second.url)).stderr, /--pool/);
    assert.equal((await gateway.heng('worker', 'drain', 'only')).code, 0, 'its name is enough');
  });

  it('shows a thousand workers quickly', { timeout: 30_000 }, async () => {
    const list = path.join(scratch, 'thousand.yaml');
    const urls = Array.from({ length: 1000 }, (_, i) => `http://127.0.${1 + (i >> 8)}.${i & 255}:9`);
    fs.writeFileSync(list, urls.map(url => `- ${url}\n`).join(''));
    const gateway = await startGateway({
      health: { active: false },
      pools: [{ model: 'm', discover: { file: list } }],
    });
    await listed(gateway);
    const start = performance.now();
    assert.equal((await listed(gateway)).length, 1000);
    assert.ok(performance.now() - start < 250, `${performance.now() - start} ms`);
    fs.writeFileSync(list, urls.slice(0, 500).map(url => `- ${url}\n`).join(''));
    await until('half of them are gone', async () => (await listed(gateway)).length === 500);
    assert.ok((await gateway.admin('/healthz')).status === 200);
  });
});

/// Answers A queries out of `records` {name: [addresses]}; others do not exist. `silent` answers nothing.
async function startDns() {
  const socket = dgram.createSocket('udp4');
  const dns = { records: {}, queries: 0, silent: false, broken: false };
  socket.on('message', (query, peer) => {
    ++dns.queries;
    if (dns.silent) return;
    const labels = [];
    let at = 12;
    while (query[at] !== 0) {
      labels.push(query.toString('latin1', at + 1, at + 1 + query[at]));
      at += 1 + query[at];
    }
    const isA = query.readUInt16BE(at + 1) === 1;
    const addresses = dns.records[labels.join('.').toLowerCase()];
    const answers = dns.broken || !isA ? [] : (addresses ?? []);
    const code = dns.broken ? 2 : addresses ? 0 : 3;
    const head = Buffer.from(query.subarray(0, 12));
    head.writeUInt16BE(0x8180 | code, 2);
    head.writeUInt16BE(answers.length, 6);
    head.writeUInt32BE(0, 8);
    const records = answers.map(address =>
      Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...address.split('.').map(Number)]),
    );
    socket.send(Buffer.concat([head, query.subarray(12, at + 5), ...records]), peer.port, peer.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  socket.unref();
  dns.server = `127.0.0.1:${socket.address().port}`;
  return dns;
}

describe('a name with several addresses', () => {
  let dns, port;
  const start = (host, config) =>
    startGateway({
      dns_server: dns.server,
      health: { interval: '100ms' },
      pools: [{ model: 'm', workers: [`http://${host}:${port}`] }],
      ...config,
    });
  before(async () => {
    dns = await startDns();
    port = await freePort();
  });

  it('is asked at the one where somebody listens, also after that one was gone', async () => {
    dns.records['two.example.com'] = ['127.0.0.2', '127.0.0.1'];
    let upstream = await startUpstream(undefined, { port }); // on 127.0.0.1
    const gateway = await start('two.example.com', { timeouts: { worker_idle: '0s' } });
    for (let i = 0; i < 10; ++i) assert.equal((await ask(gateway)).status, 200);
    await upstream.close();
    await until('it is out', async () => (await ask(gateway)).status === 503);
    upstream = await startUpstream(undefined, { port });
    await until('it is back', async () => (await ask(gateway)).status === 200);
    for (let i = 0; i < 10; ++i) assert.equal((await ask(gateway)).status, 200);
  });

  it('is looked up once for all who ask meanwhile', async () => {
    dns.records['crowd.example.com'] = ['127.0.0.1'];
    const gateway = await start('crowd.example.com', { health: { interval: '1h' } });
    const before = dns.queries;
    const answers = await Promise.all(Array.from({ length: 50 }, () => ask(gateway)));
    assert.ok(answers.every(({ status }) => status === 200));
    assert.ok(dns.queries - before <= 4, `${dns.queries - before} queries`);
  });
});

describe('a new worker may not be just anywhere', () => {
  let dns, gateway, upstream;
  before(async () => {
    dns = await startDns();
    upstream = await startUpstream();
    gateway = await startGateway({
      dns_server: dns.server,
      worker_allow: ['127.0.0.0/8', '10.0.0.0/8', 'gpu.example.com'],
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
  });

  for (const url of [
    'http://169.254.169.254/latest/meta-data',
    'http://[::ffff:169.254.169.254]/',
    'http://[fe80::1]:80',
    'http://[fd00:ec2::254]',
    'http://100.100.100.200',
    'http://0.0.0.0:80',
    'http://2852039166',
    'http://0xa9fea9fe',
    'http://0251.0376.0251.0376',
    'http://127.1:80',
    'http://169.254.169.254.',
    'file:///etc/passwd',
    'gopher://127.0.0.1:70/_x',
    'http://user@127.0.0.1:80',
    'http://10.0.0.1:80@169.254.169.254/',
    'http://8.8.8.8',
    'http://192.168.0.1:80',
    'http://rebound.example.com',
    'http://mixed.example.com',
  ]) {
    it(`403: ${url}`, async () => {
      dns.records['rebound.example.com'] = ['169.254.169.254'];
      dns.records['mixed.example.com'] = ['127.0.0.1', '169.254.169.254'];
      assertApiError(await add(gateway, { url }), 403);
      assert.deepEqual(await names(gateway), [upstream.name]);
    });
  }

  it('but at what its name leads to, when that is allowed', async () => {
    dns.records['inside.example.com'] = ['127.0.0.1'];
    dns.records['gpu.example.com'] = ['93.184.216.34'];
    const port = upstream.port;
    assert.equal((await add(gateway, { url: `http://inside.example.com:${port}` })).status, 201);
    assert.equal((await add(gateway, { url: 'http://gpu.example.com', name: 'gpu' })).status, 201);
    assertApiError(await add(gateway, { url: 'http://absent.example.com' }), 422);
    await run(gateway, 'remove', 'gpu');
    await run(gateway, 'remove', `inside.example.com:${port}`);
  });

  it('the connection goes to the address that was checked, however the name leads on', async () => {
    // Connections are made to what the name says then: the check is made again, on that very address.
    let connections = 0;
    const trap = await startUpstream((incoming, response) => {
      ++connections;
      response.end('{}');
    });
    const guarded = await startGateway({
      dns_server: dns.server,
      worker_allow: ['127.0.0.1'],
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    dns.records['turning.example.com'] = ['127.0.0.1'];
    const name = `turning.example.com:${trap.port}`;
    assert.equal((await add(guarded, { url: `http://${name}` })).status, 201);
    await run(guarded, 'drain', upstream.name);
    assert.equal((await ask(guarded)).status, 200);
    assert.equal(connections, 1);
    // What may be connected to can be narrowed by a reload; that holds for the next connection.
    guarded.write({
      dns_server: dns.server,
      worker_allow: ['127.0.0.9'],
      health: { interval: '300ms', timeout: '1s', probe_back: '200ms', slow_start: '0s' },
      timeouts: { drain: '5s', worker_idle: '0s' },
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    assert.equal((await guarded.heng('reload')).code, 0);
    await until('it is not used any more', async () => (await ask(guarded)).status >= 500);
  });
});

describe('discovery', () => {
  const pool = discover => ({ pools: [{ model: 'm', discover }] });

  it('from a file: edited, renamed, linked, broken and emptied', { timeout: 60_000 }, async () => {
    const [first, second] = await Promise.all([0, 1].map(() => startUpstream()));
    const folder = fs.mkdtempSync(path.join(scratch, 'list-'));
    const list = path.join(folder, 'workers.yaml');
    const at = name => path.join(folder, name);
    fs.writeFileSync(list, `- ${first.url}\n`);
    const gateway = await startGateway(pool({ file: list }));
    const become = (...expected) =>
      until(`workers ${expected}`, async () => `${await names(gateway)}` === `${expected.sort()}`);
    assert.equal((await ask(gateway)).worker, first.name);
    fs.writeFileSync(list, `- {url: "${second.url}", name: second}\n`);
    await become('second');
    assert.equal((await ask(gateway)).worker, 'second');
    fs.writeFileSync(at('next.yaml'), `- ${first.url}\n- ${second.url}\n`);
    fs.renameSync(at('next.yaml'), list);
    await become(first.name, second.name);
    fs.mkdirSync(at('v1'));
    fs.mkdirSync(at('v2'));
    fs.writeFileSync(at('v1/workers.yaml'), `- ${first.url}\n`);
    fs.writeFileSync(at('v2/workers.yaml'), `- ${second.url}\n`);
    fs.symlinkSync('v1', at('data'));
    fs.rmSync(list);
    fs.symlinkSync('data/workers.yaml', list);
    await become(first.name);
    fs.symlinkSync('v2', at('data.new'));
    fs.renameSync(at('data.new'), at('data'));
    await become(second.name);
    for (const text of ['', '- {url: ', 'workers: []', '- http://169.254.169.254\n- nonsense']) {
      fs.writeFileSync(list, text);
      await sleep(1600);
      assert.deepEqual(await names(gateway), [second.name], text);
    }
    assert.match(gateway.program.log(), /the 1 worker\(s\) found before stay/);
    fs.writeFileSync(list, `- ${first.url}\n- http://169.254.169.254\n- http://8.8.8.8\n`);
    await become(first.name);
    assert.match(gateway.program.log(), /discovered worker http:\/\/169\.254\.169\.254:80 is not used/);
    assert.equal((await worker(gateway, first.name)).origin, 'discovery file');
    await run(gateway, 'drain', first.name);
    fs.writeFileSync(list, `- ${first.url}\n- ${second.url}\n`);
    await become(first.name, second.name);
    assert.equal((await worker(gateway, first.name)).state, 'drained', 'what was changed stays');
    fs.writeFileSync(list, '[]\n');
    await become();
    assertApiError(await ask(gateway), 503);
  });

  it('lets streams of vanished workers finish', { timeout: 20_000 }, async () => {
    const upstream = await startHolding();
    const list = path.join(scratch, 'vanish.yaml');
    fs.writeFileSync(list, `- ${upstream.url}\n`);
    const gateway = await startGateway(pool({ file: list }));
    const wire = await openStream(gateway);
    fs.writeFileSync(list, '[]\n');
    await until('it is leaving', async () => (await listed(gateway))[0].state === 'removing');
    upstream.finish();
    await wire.takeThrough('[DONE]\n\n');
    await until('it has left', async () => (await listed(gateway)).length === 0);
  });

  it('by DNS: addresses come and go, failures take nobody away', { timeout: 60_000 }, async () => {
    const dns = await startDns();
    const upstream = await startUpstream(); // on 127.0.0.1; the other addresses refuse
    const port = upstream.port;
    dns.records['llm.example.com'] = ['127.0.0.1'];
    const gateway = await startGateway({
      dns_server: dns.server,
      ...pool({ dns: `llm.example.com:${port}`, every: '200ms' }),
    });
    const become = (...hosts) =>
      until(
        `workers ${hosts}`,
        async () => `${await names(gateway)}` === `${hosts.map(host => `${host}:${port}`).sort()}`,
      );
    await become('127.0.0.1');
    assert.equal((await ask(gateway)).status, 200);
    assert.equal((await listed(gateway))[0].origin, 'dns');
    dns.records['llm.example.com'] = ['127.0.0.3', '127.0.0.1', '127.0.0.2', '169.254.169.254'];
    await become('127.0.0.1', '127.0.0.2', '127.0.0.3');
    dns.records['llm.example.com'] = ['127.0.0.1', '127.0.0.2'];
    await become('127.0.0.1', '127.0.0.2');
    dns.broken = true;
    await until('the failure is said', () =>
      /cannot resolve 'llm\.example\.com'/.test(gateway.program.log()),
    );
    dns.broken = false;
    delete dns.records['llm.example.com'];
    await sleep(1000);
    assert.equal((await names(gateway)).length, 2, 'they stay');
    dns.records['llm.example.com'] = ['127.0.0.1'];
    await become('127.0.0.1');
    assert.match(gateway.program.log(), /is fine again/);
    assert.equal((await ask(gateway)).status, 200);
  });
});
