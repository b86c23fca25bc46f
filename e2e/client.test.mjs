// The official OpenAI client through the gateway over real engines: what answers the engine gives, the client
// gets.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import OpenAI from 'openai';

import { chat, startGateway, startLlama, until, withoutLlama } from './harness.mjs';

describe('official client over two llama-servers', { skip: withoutLlama }, () => {
  let workers, embedder, gateway, client;

  before(async () => {
    workers = await Promise.all([startLlama(), startLlama()]);
    embedder = await startLlama({ model: 'tiny-embed', embeddings: true });
    gateway = await startGateway({
      pools: [
        { model: 'tiny', policy: 'round_robin', workers: workers.map(worker => worker.url) },
        { model: 'tiny-embed', workers: [embedder.url] },
      ],
    });
    client = gateway.client();
  });

  const directly = () => new OpenAI({ baseURL: `${workers[0].url}/v1`, apiKey: 'unused', maxRetries: 0 });
  // cache_prompt off: a prompt cached by an earlier request is computed in other batches, which may round
  // differently.
  const question = chat('tiny', { max_tokens: 24, seed: 7, cache_prompt: false });

  it('lists the models of all pools', async () => {
    const models = [];
    for await (const model of client.models.list()) models.push(model);
    assert.deepEqual(models.map(model => model.id).sort(), ['tiny', 'tiny-embed']);
    for (const model of models) assert.equal(model.object, 'model');
  });

  it('shows one model', async () => {
    assert.equal((await client.models.retrieve('tiny')).id, 'tiny');
    await assert.rejects(client.models.retrieve('absent'), OpenAI.NotFoundError);
  });

  it('answers a chat as the engine would', async () => {
    const answer = await client.chat.completions.create(question);
    const expected = await directly().chat.completions.create(question);
    assert.equal(answer.object, 'chat.completion');
    assert.equal(answer.choices[0].message.content, expected.choices[0].message.content);
    assert.equal(answer.choices[0].finish_reason, 'length');
    assert.equal(answer.usage.completion_tokens, 24);
  });

  it('streams a chat chunk by chunk', async () => {
    const expected = await directly().chat.completions.create({ ...question, max_tokens: 200 });
    const arrivals = [];
    let content = '',
      finish;
    const stream = await client.chat.completions.create({ ...question, max_tokens: 200, stream: true });
    for await (const chunk of stream) {
      arrivals.push(performance.now());
      content += chunk.choices[0]?.delta?.content ?? '';
      finish ??= chunk.choices[0]?.finish_reason ?? undefined;
    }
    assert.equal(content, expected.choices[0].message.content);
    assert.equal(finish, 'length');
    assert.ok(arrivals.length > 100, `${arrivals.length} chunks for 200 tokens`);
    assert.ok(arrivals.at(-1) - arrivals[0] > 20, `all chunks within ${arrivals.at(-1) - arrivals[0]} ms`);
  });

  it('passes usage in a stream to a client that asks for it, and to no other', async () => {
    for (const include_usage of [true, false]) {
      const stream = await client.chat.completions.create({
        ...question,
        stream: true,
        stream_options: { include_usage },
      });
      const usages = [];
      for await (const chunk of stream) if (chunk.usage) usages.push(chunk.usage);
      assert.equal(usages.length, include_usage ? 1 : 0);
      if (include_usage) assert.equal(usages[0].completion_tokens, 24);
    }
  });

  it('knows what was cached of a prompt whose client does not ask for usage', async () => {
    const cached = async () => {
      const page = (await gateway.admin('/metrics')).text();
      return Number(/heng_cache_hit_tokens_total\{[^}]*"tiny"[^}]*\} (\d+)/.exec(page)[1]);
    };
    const before = await cached();
    const messages = [{ role: 'user', content: 'a long question about nothing '.repeat(10) }];
    for (let i = 0; i < 4; ++i) {
      const { text } = await gateway.request('/v1/chat/completions', {
        body: chat('tiny', { messages, stream: true, cache_prompt: true }),
      });
      assert.ok(!text().includes('"usage"'), text());
    }
    await until('the tokens counted', async () => (await cached()) > before + 100);
  });

  it('completes text', async () => {
    const answer = await client.completions.create({
      model: 'tiny',
      prompt: 'hello',
      max_tokens: 8,
      temperature: 0,
    });
    assert.equal(answer.object, 'text_completion');
    assert.ok(answer.choices[0].text.length > 0);
  });

  it('embeds', async () => {
    const answer = await client.embeddings.create({ model: 'tiny-embed', input: ['hello', 'there'] });
    assert.deepEqual(
      answer.data.map(entry => entry.embedding.length),
      [256, 256],
    );
  });

  it('creates a response, whole and streamed', async () => {
    const whole = await client.responses.create({
      model: 'tiny',
      input: 'hello',
      max_output_tokens: 8,
      temperature: 0,
    });
    assert.ok(whole.output_text.length > 0);
    const stream = await client.responses.create({
      model: 'tiny',
      input: 'hello',
      max_output_tokens: 8,
      temperature: 0,
      stream: true,
    });
    let text = '',
      last;
    for await (const event of stream) {
      if (event.type === 'response.output_text.delta') text += event.delta;
      last = event.type;
    }
    assert.equal(text, whole.output_text);
    assert.equal(last, 'response.completed');
  });

  it('uses both workers in turn and names them', async () => {
    const names = [];
    for (let i = 0; i < 6; ++i) {
      const { response } = await client.chat.completions.create(chat('tiny')).withResponse();
      names.push(response.headers.get('x-heng-worker'));
    }
    for (const worker of workers)
      assert.equal(names.filter(name => name === worker.name).length, 3, `${names}`);
  });

  it('serves many at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 24 }, () => client.chat.completions.create(chat('tiny'))),
    );
    for (const answer of answers) assert.equal(answer.usage.completion_tokens, 8);
  });

  it("passes an engine's error on as it is", async () => {
    const bad = { model: 'tiny', messages: 'not a list' };
    const [through, expected] = await Promise.all(
      [client, directly()].map(target =>
        target.chat.completions.create(bad).then(
          () => assert.fail('no error'),
          error => error,
        ),
      ),
    );
    assert.equal(through.status, expected.status);
    assert.deepEqual(through.error, expected.error);
  });

  it('finds out the models of workers when none is configured', async () => {
    const discovering = await startGateway({ pools: [{ workers: [workers[0].url, embedder.url] }] });
    const other = discovering.client();
    await until('the workers have been asked', async () => (await other.models.list()).data.length === 2);
    const answer = await other.chat.completions.create(chat('tiny'));
    assert.equal(answer.usage.completion_tokens, 8);
    assert.equal((await other.embeddings.create({ model: 'tiny-embed', input: 'hello' })).data.length, 1);
    const ids = (await other.models.list()).data.map(model => model.id).sort();
    assert.deepEqual(ids, ['tiny', 'tiny-embed']);
  });
});
