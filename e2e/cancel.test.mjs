// A client that leaves frees the engine at once: a real engine's slots show it.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import OpenAI from 'openai';

import { chat, postBytes, startGateway, startLlama, until, Wire, withoutLlama } from './harness.mjs';

describe('a client that leaves', { skip: withoutLlama }, () => {
  const endless = chat('tiny', { max_tokens: 1_000_000 });
  let worker, gateway;

  before(async () => {
    worker = await startLlama({ slots: 2 });
    gateway = await startGateway({ pools: [{ model: 'tiny', workers: [worker.url] }] });
  });

  const busy = count => until(`${count} busy slots`, async () => (await worker.busySlots()) === count, { timeoutMs: 5000 });
  async function assertIdleSoon() {
    const start = performance.now();
    await busy(0);
    assert.ok(performance.now() - start < 1000, `idle only after ${performance.now() - start} ms`);
  }

  it('in the middle of a stream', async () => {
    const stream = await gateway.client().chat.completions.create({ ...endless, stream: true });
    let chunks = 0;
    for await (const chunk of stream) {
      assert.ok(chunk.choices);
      if (++chunks === 20) break;  // leaving the loop aborts the request
    }
    await assertIdleSoon();
  });

  it('by the abort signal, before the answer has begun', async () => {
    const controller = new AbortController();
    const answer = gateway.client().chat.completions.create(endless, { signal: controller.signal });
    await busy(1);
    controller.abort();
    await assert.rejects(answer, OpenAI.APIUserAbortError);
    await assertIdleSoon();
  });

  it('by a reset of its connection', async () => {
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', { ...endless, stream: true }));
    await wire.takeThrough('data: ');
    wire.socket.resetAndDestroy();
    await assertIdleSoon();
  });

  it('does not hurt the others', async () => {
    const client = gateway.client();
    const other = await client.chat.completions.create({ ...chat('tiny', { max_tokens: 400 }), stream: true });
    const leaving = await client.chat.completions.create({ ...endless, stream: true });
    leaving.controller.abort();
    let tokens = 0;
    for await (const chunk of other) if (chunk.choices[0]?.delta?.content) ++tokens;
    assert.ok(tokens > 200, `${tokens} chunks of 400 tokens`);
    await assertIdleSoon();
  });
});
