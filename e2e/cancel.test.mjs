// A client that leaves frees the worker at once, before its answer has begun and in the middle of it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, describe, it } from 'node:test';

import OpenAI from 'openai';

import {
  chat,
  gate,
  postBytes,
  startGateway,
  startLlama,
  startUpstream,
  until,
  Wire,
  withoutLlama,
} from './harness.mjs';

describe("a client that leaves closes the worker's connection", () => {
  let arrivals, gateway;

  before(async () => {
    const upstream = await startUpstream((incoming, response, body) => {
      if (JSON.parse(body).stream)
        response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n');
      arrivals.resolve(response);
    });
    gateway = await startGateway({
      pools: [{ model: 'm', policy: 'least_connections', workers: [upstream.url] }],
    });
  });

  for (const stream of [false, true]) {
    for (const how of ['destroy', 'resetAndDestroy']) {
      it(
        `${stream ? 'in the middle of a stream' : 'before the answer has begun'}, by ${how}`,
        { timeout: 20_000 },
        async () => {
          arrivals = gate();
          const wire = await Wire.open(gateway.port);
          wire.send(postBytes('/v1/chat/completions', chat('m', { stream })));
          const response = await arrivals.promise;
          if (stream) await wire.takeThrough('data: 1\n\n');
          const closed = once(response, 'close');
          const start = performance.now();
          wire.socket[how]();
          await closed;
          assert.ok(performance.now() - start < 1000, `closed only after ${performance.now() - start} ms`);
          assert.equal(response.writableFinished, false);
        },
      );
    }
  }

  it('and is counted no longer', async () => {
    await until('nothing in flight', async () => {
      const page = (await gateway.admin('/metrics')).text();
      const counts = [...page.matchAll(/^heng_worker_inflight\{.*\} (\S+)$/gm)].map(match =>
        Number(match[1]),
      );
      return counts.length === 1 && counts[0] === 0;
    });
  });
});

describe('a client that leaves frees a slot of a real engine', { skip: withoutLlama }, () => {
  const endless = chat('tiny', { max_tokens: 1_000_000 });
  let worker, gateway;

  before(async () => {
    worker = await startLlama({ slots: 2 });
    gateway = await startGateway({ pools: [{ model: 'tiny', workers: [worker.url] }] });
  });

  const busy = (count, options) =>
    until(`${count} busy slots`, async () => (await worker.busySlots()) === count, options);

  it('in the middle of a stream, within a second', async () => {
    const stream = await gateway.client().chat.completions.create({ ...endless, stream: true });
    let chunks = 0;
    for await (const chunk of stream) {
      assert.ok(chunk.choices);
      if (++chunks === 20) break; // leaving the loop aborts the request
    }
    const start = performance.now();
    await busy(0);
    assert.ok(performance.now() - start < 1000, `idle only after ${performance.now() - start} ms`);
  });

  it('before the answer has begun', async () => {
    const controller = new AbortController();
    const answer = gateway.client().chat.completions.create(endless, { signal: controller.signal });
    await busy(1);
    controller.abort();
    await assert.rejects(answer, OpenAI.APIUserAbortError);
    // llama-server looks for closed connections once a second, counted anew whenever it is asked for its
    // slots.
    await busy(0, { everyMs: 1500, timeoutMs: 5000 });
  });

  it('without hurting the others', async () => {
    const client = gateway.client();
    const other = await client.chat.completions.create({ ...chat('tiny', { max_tokens: 60 }), stream: true });
    const leaving = await client.chat.completions.create({ ...endless, stream: true });
    leaving.controller.abort();
    let content = '';
    for await (const chunk of other) content += chunk.choices[0]?.delta?.content ?? '';
    assert.equal(
      content,
      (await client.chat.completions.create(chat('tiny', { max_tokens: 60 }))).choices[0].message.content,
    );
    await busy(0, { everyMs: 1500 });
  });
});
