// Who may come in and what they may use: API keys, tenants, the admin token, addresses, and that no secret
// ever comes out.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import OpenAI from 'openai';

import {
  adminToken,
  assertApiError,
  chat,
  freePort,
  heng,
  scratch,
  startGateway,
  startUpstream,
  until,
  Wire,
} from './harness.mjs';

/// A file of keys, made with `heng key new`. `keys`: {id: [options]}. Gives {file, secrets: {id: key}}.
async function makeKeys(name, keys) {
  const file = path.join(scratch, name);
  const secrets = {};
  for (const [id, options] of Object.entries(keys)) {
    const { code, stdout, stderr } = await heng('key', 'new', id, '--file', file, ...options);
    assert.equal(code, 0, stderr);
    secrets[id] = stdout.trim();
    assert.match(secrets[id], new RegExp(`^hk_${id}_[0-9a-f]{40}$`));
  }
  return { file, secrets };
}

const bearer = key => ({ authorization: `Bearer ${key}` });
const post = (gateway, key, body, target = '/v1/chat/completions') =>
  gateway.request(target, { body, headers: key === undefined ? {} : bearer(key) });

describe('heng key', () => {
  it('writes a file that holds no secret, lists it and recognises its keys', async () => {
    const { file, secrets } = await makeKeys('listed.yaml', {
      'alice-1': ['--tenant', 'alice', '--models', 'llama-3', 'qwen-*', '--requests-per-minute', '60'],
      old: ['--expires', '2020-01-31'],
    });
    const text = fs.readFileSync(file, 'utf8');
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    for (const key of Object.values(secrets)) assert.ok(!text.includes(key.split('_')[2]), 'only a hash');
    const list = await heng('key', 'list', '--file', file);
    assert.equal(list.code, 0, list.stderr);
    assert.match(list.stdout, /alice-1 +alice +llama-3,qwen-\* +5 +60 +- +- +-\n/);
    assert.match(list.stdout, /old .*2020-02-01T00:00:00Z \(expired\)/);
    const shown = path.join(scratch, 'shown.key');
    for (const [key, code, words] of [
      [secrets['alice-1'], 0, /'alice-1' of tenant 'alice'/],
      [secrets.old, 1, /expired/],
      [secrets['alice-1'].replace('alice-1', 'old'), 1, /none of the keys/],
    ]) {
      fs.writeFileSync(shown, `${key}\n`);
      const checked = await heng('key', 'check', '--file', file, '--key-file', shown);
      assert.equal(checked.code, code, checked.stderr);
      assert.match(checked.stdout + checked.stderr, words);
    }
  });

  it('does not touch a file it cannot add to', async () => {
    const { file } = await makeKeys('kept.yaml', { a: [] });
    const before = fs.readFileSync(file);
    const again = await heng('key', 'new', 'a', '--file', file);
    assert.equal(again.code, 3);
    assert.match(again.stderr, /a second key 'a', the first is on line 3/);
    assert.equal(again.stdout, '', 'no key that nothing recognises');
    assert.deepEqual(fs.readFileSync(file), before);
    assert.equal((await heng('key', 'new', 'a_b', '--file', file)).code, 2);
    fs.chmodSync(file, 0o644);
    assert.equal((await heng('key', 'new', 'b', '--file', file)).code, 3);
    assert.equal((await heng('key', 'check', '--file', file)).code, 3);
  });
});

describe('with API keys', () => {
  let upstream, gateway, keys;

  before(async () => {
    upstream = await startUpstream();
    keys = await makeKeys('keys.yaml', {
      all: [],
      llama: ['--models', 'llama-*'],
      old: ['--expires', '2020-01-31'],
    });
    gateway = await startGateway({
      keys_file: keys.file,
      access_log: path.join(scratch, 'keys-access.log'),
      limits: { failed_logins_per_minute: 1000 },
      pools: [
        { model: 'llama-3', aliases: ['cheap'], workers: [upstream.url] },
        { model: 'other', workers: [upstream.url] },
      ],
    });
  });

  it('the official client raises AuthenticationError without a valid one', async () => {
    for (const apiKey of [
      'wrong',
      'hk_all_0',
      'hk_nobody_0',
      keys.secrets.all.slice(0, -1),
      keys.secrets.old,
    ]) {
      await assert.rejects(gateway.client({ apiKey }).chat.completions.create(chat('llama-3')), error => {
        assert.ok(error instanceof OpenAI.AuthenticationError, `${error}`);
        assert.equal(error.status, 401);
        assert.equal(error.code, 'invalid_api_key');
        assert.equal(error.headers.get('www-authenticate'), 'Bearer realm="heng"');
        assert.ok(error.requestID);
        assert.ok(!error.message.includes(apiKey), 'the key is not repeated');
        return true;
      });
    }
    assert.equal(upstream.requests.length, 0);
  });

  it('the official clients get in with one, Azure and Anthropic style too', async () => {
    const apiKey = keys.secrets.all;
    assert.equal((await gateway.client({ apiKey }).chat.completions.create(chat('llama-3'))).id, 'answer');
    assert.equal((await gateway.client({ apiKey }).models.list()).data.length, 3);
    for (const field of ['api-key', 'x-api-key']) {
      const headers = { [field]: apiKey };
      const plain = await gateway.request('/v1/chat/completions', { body: chat('llama-3'), headers });
      assert.equal(plain.status, 200);
    }
  });

  it('the key does not reach the worker in any field', async () => {
    const from = upstream.requests.length;
    const { all } = keys.secrets;
    for (const headers of [
      bearer(all),
      { 'api-key': all },
      { 'x-api-key': all },
      { ...bearer(all), 'api-key': all, 'x-api-key': all },
    ]) {
      assert.equal(
        (await gateway.request('/v1/chat/completions', { body: chat('llama-3'), headers })).status,
        200,
      );
    }
    assert.equal(upstream.requests.length, from + 4);
    for (const { headers } of upstream.requests.slice(from))
      assert.ok(!JSON.stringify(headers).includes('hk_'));
  });

  it('a key in the query is no key', async () => {
    const { all } = keys.secrets;
    for (const name of ['api-key', 'api_key', 'key', 'authorization']) {
      const answer = await gateway.request(`/v1/chat/completions?${name}=${all}`, { body: chat('llama-3') });
      assertApiError(answer, 401);
    }
    assert.ok(!fs.readFileSync(path.join(scratch, 'keys-access.log'), 'utf8').includes(all));
  });

  it('keys made to break parsers, logs or terminals are just wrong', async () => {
    const before = upstream.requests.length;
    for (const key of [
      "hk_all'--_0",
      "' OR '1'='1",
      'hk_all_%n%n%s',
      'hk_%00_0',
      'hk_all_\u001b[31mred'.replace('\u001b', '\x9b'),
      '',
      'hk__',
      'x'.repeat(20_000),
    ]) {
      assertApiError(await post(gateway, key, chat('llama-3')), 401);
    }
    assert.equal(
      (await post(gateway, 'x'.repeat(1 << 20), chat('llama-3')).catch(() => ({ status: 431 }))).status,
      431,
    );
    for (const raw of ['a\x00b', 'a\x1b[31m', 'a\nb']) {
      const wire = await Wire.open(gateway.port);
      wire.send(
        `POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${raw}\r\nContent-Length: 0\r\n\r\n`,
      );
      assert.ok([400, 401].includes((await wire.takeResponse()).status));
    }
    assert.equal(upstream.requests.length, before);
    assert.doesNotMatch(gateway.program.log(), /[\x00-\x08\x0b-\x1f\x7f]/);
  });

  it('is asked for before the body is read and before 100 Continue', async () => {
    const wire = await Wire.open(gateway.port);
    wire.send(
      'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n' +
        'Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n',
    );
    const head = await wire.takeHead({ interim: true });
    assert.equal(head.status, 401, 'not 100');
    const good = await Wire.open(gateway.port);
    const body = JSON.stringify(chat('llama-3'));
    good.send(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.secrets.all}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`,
    );
    assert.equal((await good.takeHead({ interim: true })).status, 100);
    good.send(body);
    assert.equal((await good.takeResponse()).status, 200);
  });

  it('a refused request leaves the connection usable for a right one', async () => {
    const wire = await Wire.open(gateway.port);
    const body = JSON.stringify(chat('llama-3'));
    const bytes = key =>
      `POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    wire.send(bytes('wrong') + bytes(keys.secrets.all));
    assert.equal((await wire.takeResponse()).status, 401);
    assert.equal((await wire.takeResponse()).status, 200);
  });

  it('health needs none', async () => {
    assert.equal((await gateway.request('/healthz')).status, 200);
    await until('ready', async () => (await gateway.request('/readyz')).status === 200);
  });

  it('models outside of the list look like models that do not exist', async () => {
    const { llama } = keys.secrets;
    for (const model of ['llama-3', 'cheap'])
      assert.equal((await post(gateway, llama, chat(model))).status, 200);
    const others = await post(gateway, llama, chat('other'));
    const absent = await post(gateway, llama, chat('absent'));
    assertApiError(others, 404);
    assert.equal(others.text().replaceAll('other', 'absent'), absent.text());
    const list = await gateway.request('/v1/models', { headers: bearer(llama) });
    assert.deepEqual(
      list
        .json()
        .data.map(model => model.id)
        .sort(),
      ['cheap', 'llama-3'],
    );
    assert.equal((await gateway.request('/v1/models/other', { headers: bearer(llama) })).status, 404);
    assert.equal((await gateway.request('/v1/models/llama-3', { headers: bearer(llama) })).status, 200);
  });

  it('the access log names the key by its id', async () => {
    await post(gateway, keys.secrets.llama, chat('llama-3'));
    const log = path.join(scratch, 'keys-access.log');
    await until('a line', () => fs.readFileSync(log, 'utf8').includes('"key":"llama"'));
    assert.ok(!fs.readFileSync(log, 'utf8').includes('hk_'));
  });

  it('refusals are counted by their cause', async () => {
    const page = (await gateway.admin('/metrics')).text();
    for (const reason of ['wrong', 'expired', 'missing'])
      assert.match(page, new RegExp(`heng_logins_refused_total\\{reason="${reason}"\\} [1-9]`));
  });
});

describe('guessing keys', () => {
  it('is answered with 401, then 429 and Retry-After; a right key still gets in', async () => {
    const upstream = await startUpstream();
    const { file, secrets } = await makeKeys('guessed.yaml', { a: [] });
    const gateway = await startGateway({
      keys_file: file,
      limits: { failed_logins_per_minute: 5 },
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const statuses = [];
    for (let i = 0; i < 10; ++i) {
      const near = secrets.a.slice(0, -2) + i.toString().padStart(2, 'g');
      const answer = await post(gateway, near, chat('m'));
      statuses.push(answer.status);
      if (answer.status === 429) assert.ok(Number(answer.headers['retry-after']) >= 1);
    }
    assert.deepEqual(statuses.slice(0, 5), Array(5).fill(401));
    assert.equal(statuses.at(-1), 429);
    assert.equal((await post(gateway, secrets.a, chat('m'))).status, 200);
    assert.equal(upstream.requests.length, 1);
  });
});

describe('a change of keys', () => {
  it('takes effect with a reload, both valid in between; a bad file changes nothing', async () => {
    const upstream = await startUpstream();
    const { file, secrets } = await makeKeys('rotated.yaml', { 'a-1': ['--tenant', 'a'] });
    const gateway = await startGateway({
      keys_file: file,
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const works = async key => (await post(gateway, key, chat('m'))).status === 200;
    assert.ok(await works(secrets['a-1']));
    const added = await heng('key', 'new', 'a-2', '--tenant', 'a', '--file', file);
    const second = added.stdout.trim();
    assert.ok(!(await works(second)), 'not before the reload');
    assert.equal((await gateway.heng('reload')).code, 0);
    assert.ok((await works(secrets['a-1'])) && (await works(second)));
    const both = fs.readFileSync(file, 'utf8');
    fs.writeFileSync(file, `${both}  - {id: bad}\n`);
    const refused = await gateway.heng('reload');
    assert.equal(refused.code, 3);
    assert.match(refused.stderr, /rotated\.yaml:\d+:5: this key has no `hash`/);
    assert.ok((await works(secrets['a-1'])) && (await works(second)), 'the old keys stay');
    fs.writeFileSync(file, both.replace(/ {2}- id: "a-1"[^]*?(?= {2}- id)/, ''));
    assert.equal((await gateway.heng('reload')).code, 0);
    assert.ok(!(await works(secrets['a-1'])) && (await works(second)));
  });
});

describe('tenants', () => {
  let workers, clients, keys, gateway;

  before(async () => {
    let made = 0;
    const store = (incoming, response) => {
      const id = /^\/v1\/(?:responses|files)\/([^/?]+)/.exec(incoming.url)?.[1] ?? `resp_${++made}`;
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ id, object: 'response', output: [], secret: 'of whoever made it' }));
    };
    workers = await Promise.all([startUpstream(store), startUpstream(store)]);
    keys = await makeKeys('tenants.yaml', { 'a-1': ['--tenant', 'a'], 'a-2': ['--tenant', 'a'], b: [] });
    gateway = await startGateway({
      keys_file: keys.file,
      default_model: 'm',
      pools: [{ model: 'm', workers: workers.map(worker => worker.url) }],
    });
    clients = Object.fromEntries(
      Object.entries(keys.secrets).map(([id, apiKey]) => [id, gateway.client({ apiKey })]),
    );
  });
  const forwarded = () => workers.reduce((sum, worker) => sum + worker.requests.length, 0);

  it('share what their own keys made', async () => {
    const { id } = await clients['a-1'].responses.create({ model: 'm', input: 'x' });
    assert.equal((await clients['a-2'].responses.retrieve(id)).id, id);
    await clients['a-2'].responses.create({ model: 'm', input: 'y', previous_response_id: id });
    await clients['a-2'].responses.delete(id);
  });

  it("do not see what others' keys made, in any way to ask for it", async () => {
    const { id } = await clients['a-1'].responses.create({ model: 'm', input: 'x' });
    const before = forwarded();
    const { b } = clients;
    const unknown = await b.responses.retrieve('resp_unknown1').catch(error => error);
    for (const attempt of [
      () => b.responses.retrieve(id),
      () => b.responses.delete(id),
      () => b.responses.cancel(id),
      () => b.responses.create({ model: 'm', input: 'y', previous_response_id: id }),
      () => b.files.retrieve(id),
      () => b.files.list(),
    ]) {
      await assert.rejects(attempt, error => {
        assert.ok(error instanceof OpenAI.NotFoundError, `${error}`);
        assert.equal(error.message, unknown.message, 'whether it exists cannot be told');
        return true;
      });
    }
    const asB = (target, options = {}) =>
      gateway.request(target, { ...options, headers: bearer(keys.secrets.b) });
    for (const [target, options] of [
      [`/v1/responses/${id}`, { method: 'DELETE', body: { model: 'm' } }],
      [`/v1/responses%2f${id}`, { method: 'POST', body: { model: 'm' } }],
      [`/v1/responses/${id}/`, {}],
      [`/v1//responses/${id}`, {}],
      ['/v1/responses', {}],
      ['/v1/load_lora_adapter', { method: 'POST', body: { lora_name: 'x' } }],
    ]) {
      assert.ok([400, 404].includes((await asB(target, options)).status), target);
    }
    assert.equal(forwarded(), before, 'no worker was asked');
  });
});

describe('the admin API', () => {
  let gateway, upstream;

  before(async () => {
    upstream = await startUpstream();
    gateway = await startGateway({
      pools: [{ model: 'm', policy: 'dynamic_weight', workers: [{ url: upstream.url, capacity: 100 }] }],
    });
  });

  it('takes no change without the token, loopback included', async () => {
    for (const [target, options] of [
      ['/balance', { body: { loads: [1] } }],
      ['/api/v1/reload', { method: 'POST' }],
      ['/api/v1/workers', { method: 'DELETE' }],
      ['/api/v1/nothing', { method: 'PUT', body: {} }],
    ]) {
      const answer = await gateway.admin(target, { ...options, token: false });
      assertApiError(answer, 401);
      assert.match(answer.headers['www-authenticate'], /^Bearer/);
    }
    assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
  });

  it('keeps the token of its own making in a file for its user alone, and prints only the path', async () => {
    const { authorization } = adminToken(gateway.adminPort);
    const token = authorization.split(' ')[1];
    assert.match(token, /^[0-9a-f]{40}$/);
    const file = path.join(scratch, 'heng', `admin-${gateway.adminPort}.token`);
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    const log = gateway.program.log();
    assert.ok(log.includes(file) && !log.includes(token));
  });

  it('is found by the same user’s commands; another token is refused', async () => {
    assert.equal((await gateway.heng('reload')).code, 0);
    const wrong = path.join(scratch, 'wrong.token');
    fs.writeFileSync(wrong, 'wrong\n', { mode: 0o600 });
    const refused = await gateway.heng('reload', '--token-file', wrong);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /needs the admin token/);
  });

  it('asks for it before the body', async () => {
    const wire = await Wire.open(gateway.adminPort);
    wire.send(
      'POST /balance HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n',
    );
    assert.equal((await wire.takeHead({ interim: true })).status, 401);
  });

  it('refuses web pages on other sites with 403, token or not', async () => {
    for (const headers of [
      { origin: 'http://evil.example' },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { origin: 'null' },
    ]) {
      for (const method of ['POST', 'DELETE']) {
        assertApiError(await gateway.admin('/api/v1/reload', { method, headers }), 403);
        assertApiError(await gateway.admin('/api/v1/reload', { method, headers, token: false }), 403);
      }
    }
  });

  it('on a Unix socket takes changes from whoever may open it, but not from web pages', async () => {
    const socketPath = path.join(scratch, 'access-admin.sock');
    await startGateway(
      { admin: `unix:${socketPath}`, pools: [{ model: 'm', workers: [upstream.url] }] },
      { announced: true },
    );
    await until('it is there', () => fs.existsSync(socketPath));
    assert.equal(fs.statSync(socketPath).mode & 0o777, 0o600);
    const { code, stderr } = await heng('reload', '--admin', `unix:${socketPath}`);
    assert.equal(code, 0, stderr);
    const outgoing = http.request({
      socketPath,
      path: '/api/v1/reload',
      method: 'POST',
      headers: { origin: 'http://evil.example' },
    });
    outgoing.end();
    const [answer] = await once(outgoing, 'response');
    assert.equal(answer.resume().statusCode, 403);
  });

  it('answers guesses with 401, then 429', async () => {
    const lonely = await startGateway({
      limits: { failed_logins_per_minute: 3 },
      pools: [{ model: 'm', workers: [upstream.url] }],
    });
    const statuses = [];
    for (let i = 0; i < 5; ++i) {
      const headers = { authorization: `Bearer ${i}` };
      statuses.push((await lonely.admin('/api/v1/reload', { method: 'POST', headers })).status);
    }
    assert.deepEqual(statuses, [401, 401, 401, 429, 429]);
    assert.equal((await lonely.admin('/api/v1/reload', { method: 'POST' })).status, 200);
  });
});

describe('an address beyond loopback', () => {
  const config = (lines, pools = 'pools: [{model: m, workers: [http://127.0.0.1:1]}]\n') => {
    const file = path.join(scratch, 'exposed.yaml');
    fs.writeFileSync(file, lines + pools, { mode: 0o600 });
    return file;
  };

  it('is refused at the start and by heng check, with the way out', async () => {
    const file = config('listen: 0.0.0.0:9\nadmin: off\n');
    for (const command of ['check', 'serve']) {
      const { code, stderr } = await heng(command, '-c', file);
      assert.equal(code, 3);
      assert.match(stderr, /exposed\.yaml:1:9: `listen` on 0\.0\.0\.0:9 can be reached by other machines/);
      assert.match(stderr, /insecure_bind: true/);
    }
  });

  it('is taken with the flag, and warned of', async () => {
    const port = await freePort();
    const file = config(`listen: 0.0.0.0:${port}\nadmin: off\n`);
    assert.equal((await heng('check', '-c', file, '--insecure-bind')).code, 0);
    const gateway = await startGateway({
      listen: `0.0.0.0:${port}`,
      insecure_bind: true,
      pools: [{ model: 'm', workers: ['http://127.0.0.1:1'] }],
    });
    assert.match(
      gateway.program.log(),
      /warning insecure_bind: other machines can reach 0\.0\.0\.0:\d+ in the clear/,
    );
  });
});

describe('canary secrets', () => {
  it('come out nowhere, whatever goes wrong', async () => {
    const canary = name => `canary-${name}-7f3a`;
    const write = (name, mode = 0o600) => {
      const file = path.join(scratch, `${name}.secret`);
      fs.writeFileSync(file, `${canary(name)}\n`, { mode });
      return file;
    };
    const { file, secrets } = await makeKeys('canary.yaml', { good: [], old: ['--expires', '2020-01-01'] });
    const upstream = await startUpstream((incoming, response, body) => {
      if (body.includes('fail')) return response.destroy();
      if (body.includes('refuse')) return response.writeHead(500).end('{"error":{"message":"no"}}');
      response.setHeader('content-type', 'application/json').end('{"id":"x"}');
    });
    const log = path.join(scratch, 'canary-access.log');
    const gateway = await startGateway({
      keys_file: file,
      admin_token_file: write('admin'),
      access_log: log,
      pools: [
        { model: 'm', workers: [{ url: upstream.url, api_key_file: write('worker') }] },
        {
          model: 'gone',
          workers: [{ url: `http://127.0.0.1:${await freePort()}`, api_key: canary('inline') }],
        },
      ],
    });
    const outputs = [];
    const note = answer => outputs.push(JSON.stringify(answer.headers) + answer.text());
    const prompt = canary('prompt');
    for (const key of [secrets.good, secrets.old, canary('client'), `hk_good_${canary('near')}`]) {
      for (const [model, text] of [
        ['m', 'fine'],
        ['m', 'fail'],
        ['m', 'refuse'],
        ['gone', 'x'],
        ['absent', 'x'],
      ]) {
        const body = chat(model, { messages: [{ role: 'user', content: `${prompt} ${text}` }] });
        note(await post(gateway, key, body));
        note(await post(gateway, key, `{"model":"m","messages":"${prompt}`));
      }
      note(await gateway.request(`/v1/files/${canary('path')}?key=${key}`, { headers: bearer(key) }));
    }
    assert.equal(upstream.requests[0].headers.authorization, `Bearer ${canary('worker')}`);
    for (const authorization of [`Bearer ${canary('guess')}`, `Basic ${canary('guess')}`]) {
      note(await gateway.admin('/api/v1/reload', { method: 'POST', headers: { authorization } }));
    }
    const right = { authorization: `Bearer ${canary('admin')}` };
    fs.appendFileSync(file, `  - {id: x, hash: ${canary('hash')}}\n`);
    note(await gateway.admin('/api/v1/reload', { method: 'POST', headers: right }));
    for (const target of [
      '/',
      '/metrics',
      '/api/v1/info',
      '/api/v1/pools',
      '/api/v1/workers',
      '/api/v1/weights',
    ])
      note(await gateway.admin(target, { headers: right }));
    for (const command of [
      ['check', '-c', gateway.configPath],
      ['key', 'list', '-f', file],
      ['key', 'check', '-f', file],
    ]) {
      const { stdout, stderr } = await heng(...command);
      outputs.push(stdout + stderr);
    }
    await until('the log is written', () => fs.readFileSync(log, 'utf8').includes('"model":"absent"'));
    outputs.push(gateway.program.log(), fs.readFileSync(log, 'utf8'));
    const everything = outputs.join('\n');
    assert.ok(everything.includes('invalid_api_key') && everything.includes('"key":"good"'));
    for (const secret of ['admin', 'worker', 'inline', 'prompt', 'client', 'near', 'guess', 'hash'].map(
      canary,
    ))
      assert.ok(!everything.includes(secret), `${secret} came out`);
    for (const key of Object.values(secrets))
      assert.ok(!everything.includes(key.split('_')[2]), 'a key came out');
  });

  it('in files open to everybody are refused', async () => {
    const open = path.join(scratch, 'open.secret');
    fs.writeFileSync(open, 'canary\n', { mode: 0o644 });
    fs.chmodSync(open, 0o644);
    for (const line of [`admin_token_file: ${open}`, `keys_file: ${open}`]) {
      const file = path.join(scratch, 'open.yaml');
      fs.writeFileSync(file, `${line}\npools: [{model: m, workers: [http://127.0.0.1:1]}]\n`);
      const { code, stderr } = await heng('check', '-c', file);
      assert.equal(code, 3);
      assert.match(stderr, /open to every user of this machine; run: chmod 600/);
    }
  });
});

describe('documents', () => {
  it('the example of the hardening guide is valid', async () => {
    const guide = fs.readFileSync(path.join(import.meta.dirname, '../docs/hardening.md'), 'utf8');
    const [, yaml] = /```yaml\n# heng\.yaml\n([^]*?)```/.exec(guide) ?? assert.fail('no example');
    const folder = fs.mkdtempSync(path.join(scratch, 'hardened-'));
    const put = (name, text) => fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    const made = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=heng';
    const files = ['-keyout', 'server.key', '-out', 'server.crt'];
    execFileSync('openssl', [...made.split(' '), ...files], { cwd: folder, stdio: 'ignore' });
    fs.chmodSync(path.join(folder, 'server.key'), 0o600);
    put('worker.key', 'secret\n');
    assert.equal((await heng('key', 'new', 'a', '-f', path.join(folder, 'keys.yaml'))).code, 0);
    put('heng.yaml', yaml);
    const { code, stdout, stderr } = await heng('check', '-c', path.join(folder, 'heng.yaml'));
    assert.equal(code, 0, stdout + stderr);
    put('heng.yaml', yaml.replace(/^keys_file.*$/m, ''));
    assert.equal((await heng('check', '-c', path.join(folder, 'heng.yaml'))).code, 3, 'without keys');
    put('heng.yaml', yaml.replace(/^tls:[^]*?(?=^admin)/m, ''));
    assert.equal((await heng('check', '-c', path.join(folder, 'heng.yaml'))).code, 3, 'without TLS');
  });
});
