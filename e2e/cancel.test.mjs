// A client that leaves frees the worker at once, before its answer has begun and in the middle of it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { before, describe, it } from 'node:test';

import OpenAI from 'openai';

import {
  chat,
  gate,
  postBytes,
  sleep,
  startEngine,
  startGateway,
  startLlama,
  startUpstream,
  until,
  Wire,
  withoutLlama,
} from './harness.mjs';

describe("a client that leaves closes the worker's connection within 100 ms", () => {
  // A pause of the machine makes some of these late, a fault of the gateway makes all of a kind late.
  const leavesOfAKind = 15;
  const msMax = 100;
  let arrivals, gateway;

  before(async () => {
    // In decode the worker streams an event and is silent, or goes on with one every 5 ms.
    const upstream = await startUpstream(async (incoming, response, body) => {
      const { stream, flowing } = JSON.parse(body);
      const closed = once(response, 'close').then(() => performance.now());
      if (stream) response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n');
      arrivals.resolve({ response, closed });
      while (flowing && !response.destroyed) {
        response.write('data: 1\n\n');
        await sleep(5);
      }
    });
    const engine = await startEngine({ model: 'busy', args: ['--speed', '0.5'] });
    gateway = await startGateway({
      pools: [
        { model: 'm', policy: 'least_connections', workers: [upstream.url] },
        { model: 'busy', workers: [engine.url] },
      ],
    });
  });

  const inFlight = async model => {
    const page = (await gateway.admin('/metrics')).text();
    const found = page.match(new RegExp(`^heng_worker_inflight\\{.*model="${model}".*\\} (\\S+)$`, 'm'));
    return Number(found?.[1]);
  };

  /// Milliseconds from leaving to the end of the connection at the worker.
  async function leave(request, how) {
    arrivals = gate();
    const wire = await Wire.open(gateway.port);
    wire.send(postBytes('/v1/chat/completions', chat('m', request)));
    const { response, closed } = await arrivals.promise;
    if (request.stream) await wire.takeThrough('data: 1\n\n');
    const left = performance.now();
    wire.socket[how]();
    const took = (await closed) - left;
    assert.equal(response.writableFinished, false);
    return took;
  }

  const moments = {
    'in prefill': {},
    'in decode, between events': { stream: true },
    'in decode, while events flow': { stream: true, flowing: true },
  };
  function leaveInEveryWay() {
    for (const [moment, request] of Object.entries(moments)) {
      for (const how of ['destroy', 'resetAndDestroy']) {
        it(`${moment}, by ${how}`, { timeout: 30_000 }, async t => {
          const took = [];
          for (let i = 0; i < leavesOfAKind; ++i) took.push(await leave(request, how));
          took.sort((a, b) => a - b);
          const median = took[leavesOfAKind >> 1];
          t.diagnostic(`${median.toFixed(1)} ms, at most ${took.at(-1).toFixed(1)} ms`);
          assert.ok(median < msMax, `half of them took longer than ${median} ms`);
        });
      }
    }
  }

  leaveInEveryWay();

  describe('beside 200 streams', () => {
    const bytes = new Array(200).fill(0);
    const streams = [];

    before(async () => {
      const body = JSON.stringify(chat('busy', { stream: true, max_tokens: 100_000 }));
      const headers = { 'content-type': 'application/json', 'content-length': body.length };
      const url = `${gateway.url}/v1/chat/completions`;
      bytes.forEach((_, i) => {
        const outgoing = http.request(url, { method: 'POST', headers, agent: false });
        outgoing.on('error', () => {}); // it is cut off at the end
        outgoing.on('response', incoming => {
          incoming.on('error', () => {});
          incoming.on('data', piece => (bytes[i] += piece.length));
        });
        outgoing.end(body);
        streams.push(outgoing);
      });
      await until('all stream', () => bytes.every(count => count > 0));
    });

    leaveInEveryWay();

    it('which go on, and leave all at once', async () => {
      const sofar = [...bytes];
      await until('all go on', () => bytes.every((count, i) => count > sofar[i]));
      assert.equal(await inFlight('busy'), 200);
      streams.forEach(outgoing => outgoing.destroy());
      await until('none is left', async () => (await inFlight('busy')) === 0);
    });
  });

  it('and is counted no longer', () => until('nothing in flight', async () => (await inFlight('m')) === 0));
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
