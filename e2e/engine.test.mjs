// The simulated engine with the official client: it must look like a real one.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import OpenAI from 'openai';

import { heng, request, scratch, startEngine } from './harness.mjs';

describe('heng engine', () => {
  let engine, client;
  const messages = [{ role: 'user', content: 'word '.repeat(400) }];

  before(async () => {
    engine = await startEngine();
    client = new OpenAI({ baseURL: `${engine.url}/v1`, apiKey: 'unused', maxRetries: 0 });
  });

  it('is healthy and names its model', async () => {
    assert.equal((await request(`${engine.url}/health`)).status, 200);
    assert.deepEqual(
      (await client.models.list()).data.map(model => model.id),
      ['sim'],
    );
  });

  it('answers a chat, whole and streamed', async () => {
    const whole = await client.chat.completions.create({ model: 'sim', messages, max_tokens: 12 });
    assert.equal(whole.object, 'chat.completion');
    assert.equal(whole.usage.completion_tokens, 12);
    assert.equal(whole.choices[0].finish_reason, 'length');
    assert.ok(whole.choices[0].message.content.length > 0);
    let chunks = 0,
      usage,
      finish;
    const stream = await client.chat.completions.create({
      model: 'sim',
      messages,
      max_tokens: 12,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) ++chunks;
      finish ??= chunk.choices[0]?.finish_reason ?? undefined;
      usage = chunk.usage ?? usage;
    }
    assert.equal(chunks, 12);
    assert.equal(finish, 'length');
    assert.equal(usage.completion_tokens, 12);
    assert.equal(usage.prompt_tokens, whole.usage.prompt_tokens);
  });

  it('uses cached blocks of a prompt it has seen', async () => {
    const fresh = [{ role: 'user', content: 'another '.repeat(400) }];
    const ask = () => client.chat.completions.create({ model: 'sim', messages: fresh, max_tokens: 1 });
    assert.equal((await ask()).usage.prompt_tokens_details.cached_tokens, 0);
    const again = (await ask()).usage;
    assert.ok(again.prompt_tokens_details.cached_tokens > again.prompt_tokens / 2, JSON.stringify(again));
  });

  it('completes text', async () => {
    const answer = await client.completions.create({ model: 'sim', prompt: 'hello', max_tokens: 3 });
    assert.equal(answer.usage.completion_tokens, 3);
  });

  it('knows only its model', async () => {
    await assert.rejects(client.chat.completions.create({ model: 'other', messages }), OpenAI.NotFoundError);
  });

  it('is fitted to measurements, and runs as fitted', async () => {
    const file = name => path.join(scratch, name);
    const slow = 'workers: 1\nengine: {t_base: 30ms, t_prefill: 0.2ms}\ntraffic: {rate: 1}\n';
    fs.writeFileSync(file('slow.yaml'), slow);
    const simulated = ['sim', '-c', file('slow.yaml'), '--requests', '150', '--log', file('slow.jsonl')];
    assert.equal((await heng(...simulated)).code, 0);
    const known = ['--max-num-seqs', '256', '--max-num-batched-tokens', '2048', '--kv-blocks', '27000'];
    const { code, stdout, stderr } = await heng('engine', 'fit', file('slow.jsonl'), ...known);
    assert.equal(code, 0, stderr);
    const base = Number(/t_base: ([\d.]+)ms/.exec(stdout)[1]);
    assert.ok(Math.abs(base / 30 - 1) < 0.05, stdout);
    fs.writeFileSync(file('fitted.yaml'), stdout);
    assert.equal((await heng('sim', '-c', file('fitted.yaml'), '--requests', '20')).code, 0);
    const fitted = await startEngine({ args: ['-c', file('fitted.yaml')] });
    const ask = { model: 'sim', prompt: 'hello', max_tokens: 11 };
    const begun = performance.now();
    await request(`${fitted.url}/v1/completions`, { method: 'POST', body: JSON.stringify(ask) });
    assert.ok(performance.now() - begun > 300, 'eleven steps of 30 ms');
    for (const twice of [[file('slow.jsonl')], ['--predict', path.join(scratch, '.', 'slow.jsonl')]]) {
      const refused = await heng('engine', 'fit', file('slow.jsonl'), ...twice);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /slow\.jsonl is given twice/);
    }
    const bad = await heng('engine', 'fit', file('slow.yaml'));
    assert.equal(bad.code, 1);
    assert.match(bad.stderr, /slow\.yaml:1: not JSON/);
  });

  it("has metrics under vLLM's names", async () => {
    const page = (await request(`${engine.url}/metrics`)).text();
    for (const name of [
      'vllm:num_requests_running',
      'vllm:num_requests_waiting',
      'vllm:kv_cache_usage_perc',
      'vllm:prefix_cache_queries_total',
      'vllm:prefix_cache_hits_total',
      'vllm:prompt_tokens_total',
      'vllm:generation_tokens_total',
    ]) {
      assert.match(page, new RegExp(`^${name}(\\{.*\\})? \\S+$`, 'm'));
    }
    // promtool prints lint for the colons of vLLM's names (exit 3); a page it cannot parse is exit 1.
    const promtool = spawnSync('promtool', ['check', 'metrics'], { input: page, encoding: 'utf8' });
    assert.ok([0, 3].includes(promtool.status), promtool.stdout + promtool.stderr);
  });
});
