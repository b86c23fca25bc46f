// Seeing and steering: metrics, the admin API, POST /balance, tokens, and the commands that use them.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import { chat, freePort, heng, scratch, startGateway, startUpstream, until } from './harness.mjs';

/// Series of a metrics page: [{name, labels, value}].
function parseMetrics(page) {
  return page
    .split('\n')
    .filter(line => line && !line.startsWith('#'))
    .map(line => {
      const [, name, labels = '', value] =
        /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? assert.fail(`odd line: ${line}`);
      return {
        name,
        labels: Object.fromEntries([...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(m => [m[1], m[2]])),
        value: Number(value),
      };
    });
}

describe('admin', () => {
  let upstreams, gateway;

  before(async () => {
    const handler = (incoming, response) => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 } }));
    };
    upstreams = await Promise.all([0, 1].map(() => startUpstream(handler)));
    gateway = await startGateway({
      pools: [
        {
          model: 'm',
          policy: 'round_robin',
          workers: [
            { url: upstreams[0].url, name: 'first' },
            { url: upstreams[1].url, name: 'second' },
          ],
        },
        { model: 'dynamic', policy: 'dynamic_weight', workers: upstreams.map(upstream => upstream.url) },
      ],
    });
    for (let i = 0; i < 6; ++i)
      assert.equal((await gateway.request('/v1/chat/completions', { body: chat('m') })).status, 200);
    await gateway.request('/v1/chat/completions', { body: chat('absent') });
  });

  it('/metrics satisfies promtool and counts the requests', async () => {
    const { headers, text } = await gateway.admin('/metrics');
    assert.match(headers['content-type'], /^text\/plain/);
    const promtool = spawnSync('promtool', ['check', 'metrics'], { input: text(), encoding: 'utf8' });
    assert.equal(promtool.status, 0, promtool.stdout + promtool.stderr);
    const series = parseMetrics(text());
    const sum = (name, labels = {}) =>
      series
        .filter(
          entry =>
            entry.name === name &&
            Object.entries(labels).every(([key, value]) => entry.labels[key] === value),
        )
        .reduce((total, entry) => total + entry.value, 0);
    assert.equal(sum('heng_requests_total', { model: 'm', code: '200' }), 6);
    for (const worker of ['first', 'second'])
      assert.equal(sum('heng_requests_total', { worker, code: '200' }), 3);
    assert.equal(sum('heng_request_duration_seconds_count', { model: 'm' }), 6);
    assert.equal(sum('heng_tokens_total'), 6 * 18);
    assert.equal(sum('heng_worker_inflight', { worker: 'first' }), 0);
    for (const name of ['heng_worker_weight', 'heng_worker_health', 'heng_build_info'])
      assert.ok(
        series.some(entry => entry.name === name),
        name,
      );
    assert.ok(
      series.every(entry => entry.labels.model !== 'absent'),
      'clients cannot make up label values',
    );
  });

  it('/healthz and /readyz', async () => {
    assert.equal((await gateway.admin('/healthz')).status, 200);
    // promtool has held up this process, and with it the workers' answers to probes.
    await until('ready', async () => (await gateway.admin('/readyz')).status === 200);
  });

  it('/readyz is 503 while no worker is available', async () => {
    const lonely = await startGateway({
      pools: [{ model: 'm', workers: [`http://127.0.0.1:${await freePort()}`] }],
    });
    await until('not ready', async () => (await lonely.admin('/readyz')).status === 503);
    assert.equal((await lonely.admin('/healthz')).status, 200);
  });

  for (const what of ['workers', 'pools', 'weights']) {
    it(`/api/v1/${what} is JSON that names what it shows`, async () => {
      const answer = await gateway.admin(`/api/v1/${what}`);
      assert.equal(answer.status, 200);
      assert.match(answer.headers['content-type'], /^application\/json/);
      assert.ok(Object.values(answer.json()).every(Array.isArray), answer.text().slice(0, 200));
      assert.ok(answer.text().includes('"dynamic"'), answer.text().slice(0, 500));
      if (what === 'workers')
        for (const name of ['first', 'second']) assert.ok(answer.text().includes(`"${name}"`));
    });
  }

  it('unknown paths: 404, wrong methods: 405', async () => {
    assert.equal((await gateway.admin('/api/v1/nothing')).status, 404);
    assert.equal((await gateway.admin('/api/v1/workers', { method: 'DELETE' })).status, 405);
  });

  for (const command of ['workers', 'weights']) {
    it(`heng ${command} shows a table or JSON`, async () => {
      const table = await gateway.heng(command);
      assert.equal(table.code, 0, table.stderr);
      assert.ok(table.stdout.includes(upstreams[0].name), table.stdout);
      const json = await gateway.heng(command, '-o', 'json');
      assert.equal(json.code, 0, json.stderr);
      assert.ok(JSON.stringify(JSON.parse(json.stdout)).includes(upstreams[0].name));
    });
  }

  it('heng workers says when there is no gateway: exit code 4', async () => {
    const { code, stdout, stderr } = await heng('workers', '--admin', `127.0.0.1:${await freePort()}`);
    assert.equal(code, 4);
    assert.equal(stdout, '');
    assert.match(stderr, /127\.0\.0\.1/);
  });
});

describe('POST /balance', () => {
  const capacities = [100, 100, 200, 200, 300];
  const loads = [50, 60, 80, 90, 40];
  let gateway;

  before(async () => {
    const upstreams = await Promise.all(capacities.map(() => startUpstream()));
    gateway = await startGateway({
      pools: [
        {
          model: 'm',
          policy: { name: 'dynamic_weight', alpha: 0.5, beta: 0.1 },
          workers: capacities.map((capacity, i) => ({ url: upstreams[i].url, name: `w${i}`, capacity })),
        },
      ],
    });
  });
  const balance = body => gateway.admin('/balance', { body });

  it('moves the weights by the loads reported, as DESIGN.md section 5 works out', async () => {
    const answer = await balance({ loads });
    assert.equal(answer.status, 200, answer.text());
    const { weights } = answer.json();
    const sum = weights.reduce((a, b) => a + b);
    // One step from 50,50,100,100,150; scaling to a constant sum keeps the shares.
    const expected = [55, 54, 112, 111, 176];
    assert.equal(weights.length, 5);
    weights.forEach((weight, i) =>
      assert.ok(Math.abs(weight / sum - expected[i] / 508) < 0.002, `${weights}`),
    );
  });

  it('takes the load of one node', async () => {
    const answer = await balance({ node_index: 0, load: 50 });
    assert.equal(answer.status, 200, answer.text());
    assert.equal(answer.json().weights.length, 5);
  });

  it('refuses what makes no sense', async () => {
    for (const body of [
      { loads: [1, 2] },
      { loads: 'many' },
      { loads: [1, 2, 3, 4, -5] },
      { node_index: 5, load: 1 },
      { node_index: 0 },
      {},
    ]) {
      assert.equal((await balance(body)).status, 400, JSON.stringify(body));
    }
    assert.equal((await balance({ pool: 'absent', loads })).status, 404);
  });
});

describe('admin token', () => {
  it('is needed for changes, not for reading on loopback', async () => {
    fs.writeFileSync(path.join(scratch, 'admin.token'), 'open-sesame\n', { mode: 0o600 });
    const upstream = await startUpstream();
    const gateway = await startGateway({
      admin_token_file: 'admin.token',
      pools: [{ model: 'm', policy: 'dynamic_weight', workers: [{ url: upstream.url, capacity: 100 }] }],
    });
    const right = { authorization: 'Bearer open-sesame' },
      wrong = { authorization: 'Bearer open-sesamf' };
    for (const target of ['/healthz', '/metrics', '/api/v1/workers']) {
      assert.equal((await gateway.admin(target)).status, 200);
    }
    const body = { loads: [1] };
    assert.equal((await gateway.admin('/balance', { body })).status, 401);
    assert.equal((await gateway.admin('/balance', { body, headers: wrong })).status, 401);
    assert.equal((await gateway.admin('/balance', { body, headers: right })).status, 200);
  });
});
