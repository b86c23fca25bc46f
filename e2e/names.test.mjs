// Names and keys: aliases, a worker's own model name, base paths, API keys on both sides.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import { chat, scratch, startGateway, startUpstream } from './harness.mjs';

describe('model names', () => {
  let upstream, wildcard, gateway;

  before(async () => {
    upstream = await startUpstream();
    wildcard = await startUpstream();
    gateway = await startGateway({
      pools: [
        { model: 'public', aliases: ['gpt-4o-mini', 'other/name:1'], workers: [upstream.url] },
        {
          model: 'renamed',
          workers: [{ url: `${upstream.url}/some/base`, name: 'inner', model: 'in "quotes"' }],
        },
        { model: '*', workers: [wildcard.url] },
      ],
    });
  });

  const seen = () => upstream.requests.at(-1);
  const send = body =>
    gateway.request('/v1/chat/completions', {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
    });

  it('an alias is renamed, and nothing else in the body', async () => {
    const body = name =>
      `{ "a":"\\"model\\":\\"x\\"", "nested":{"model":"gpt-4o-mini"},\n\t"model" : ${name} ,"score":1.50e3}`;
    for (const alias of ['"gpt-4o-mini"', '"other/name:1"', '"gpt-4o-\\u006dini"', '"public"']) {
      assert.equal((await send(body(alias))).status, 200);
      assert.equal(seen().body.toString(), body('"public"'));
    }
  });

  it("a worker's own name of the model is used, below its base path", async () => {
    const answer = await send('{"model":"renamed","x":1}');
    assert.equal(answer.status, 200);
    assert.equal(answer.worker, 'inner');
    assert.equal(seen().url, '/some/base/v1/chat/completions');
    assert.deepEqual(JSON.parse(seen().body), { model: 'in "quotes"', x: 1 });
    assert.equal(seen().headers['content-length'], String(seen().body.length));
  });

  it('any other model goes to the pool "*", unchanged', async () => {
    assert.equal((await send('{"model":"whatever"}')).worker, wildcard.name);
    assert.equal(wildcard.requests.at(-1).body.toString(), '{"model":"whatever"}');
  });

  it('are listed, the "*" is not', async () => {
    const ids = (await gateway.client().models.list()).data.map(model => model.id);
    for (const id of ['public', 'renamed']) assert.ok(ids.includes(id), `${ids}`);
    assert.ok(!ids.includes('*'));
  });
});

describe('keys', () => {
  it("a worker's key is sent and the client's is not passed on", async () => {
    const keyed = await startUpstream(),
      filed = await startUpstream(),
      open = await startUpstream();
    fs.writeFileSync(path.join(scratch, 'worker.key'), 'from-file\n', { mode: 0o600 });
    const gateway = await startGateway({
      pools: [
        { model: 'keyed', workers: [{ url: keyed.url, api_key: 'worker-key' }] },
        { model: 'filed', workers: [{ url: filed.url, api_key_file: 'worker.key' }] },
        { model: 'open', workers: [open.url] },
      ],
    });
    const client = gateway.client({ apiKey: 'client-secret' });
    for (const [model, upstream, expected] of [
      ['keyed', keyed, 'Bearer worker-key'],
      ['filed', filed, 'Bearer from-file'],
      ['open', open, undefined],
    ]) {
      await client.chat.completions.create(chat(model));
      const { headers } = upstream.requests.at(-1);
      assert.equal(headers.authorization, expected);
      assert.ok(!JSON.stringify(headers).includes('client-secret'));
    }
    const listing = (await gateway.admin('/api/v1/workers')).text();
    assert.ok(!listing.includes('worker-key') && !listing.includes('from-file'), 'keys are not shown');
  });

  it("the client's is passed on where configured, unless the worker has its own", async () => {
    const keyed = await startUpstream(),
      open = await startUpstream();
    const gateway = await startGateway({
      forward_authorization: true,
      pools: [
        { model: 'keyed', workers: [{ url: keyed.url, api_key: 'worker-key' }] },
        { model: 'open', workers: [open.url] },
      ],
    });
    for (const model of ['keyed', 'open'])
      await gateway.client({ apiKey: 'client-key' }).chat.completions.create(chat(model));
    assert.equal(keyed.requests.at(-1).headers.authorization, 'Bearer worker-key');
    assert.equal(open.requests.at(-1).headers.authorization, 'Bearer client-key');
  });
});
