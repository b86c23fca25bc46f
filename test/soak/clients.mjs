// Clients of the soak: good ones, who judge every answer, and bad ones, who only do harm.
import assert from 'node:assert/strict';
import http from 'node:http';

import { chat, postBytes, sleep, Wire } from '../../e2e/harness.mjs';
import { words } from './workers.mjs';

const target = '/v1/chat/completions';
const answerLimitMs = 40_000; // beyond all time-outs of the gateway together
const prompts = Array.from({ length: 40 }, (_, i) => `prompt ${'abcdefghij'.slice(0, i % 10)}${i}`);

const agent = new http.Agent({ keepAlive: true, timeout: 20_000 });

/// What a good client made of an answer: 'complete', 'marked' (an error it can see) or, as an exception, a
/// violation.
export class GoodClient {
  constructor(port, random, jokerNames) {
    Object.assign(this, { port, random, jokerNames });
  }
  static learned = new Map(); // prompt -> an engine's text

  async ask() {
    const prompt = this.random.pick(prompts);
    const stream = this.random.next() < 0.7;
    const body = JSON.stringify(
      chat('m', {
        stream,
        max_tokens: 10 + (prompt.length % 20),
        messages: [{ role: 'user', content: prompt }],
      }),
    );
    const began = performance.now();
    try {
      const answer = await this.exchange(body);
      return this.judge(answer, prompt, stream);
    } finally {
      const took = performance.now() - began;
      assert.ok(took < answerLimitMs, `an answer took ${took} ms`);
    }
  }

  /// The answer with what ended it: `complete`, or an `error` in mid-answer. Throws if nothing came at all.
  exchange(body, retried = false) {
    return new Promise((resolve, reject) => {
      const request = http.request({
        port: this.port,
        path: target,
        method: 'POST',
        agent,
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
        signal: AbortSignal.timeout(answerLimitMs),
      });
      request.on('error', error => {
        // A kept connection may close just as it is used again: every client asks once more then.
        if (request.reusedSocket && error.code === 'ECONNRESET' && !retried) {
          return this.exchange(body, true).then(resolve, reject);
        }
        reject(new Error(`no answer: ${error.message}`));
      });
      request.on('response', response => {
        const pieces = [];
        const done = error =>
          resolve({ response, text: Buffer.concat(pieces).toString(), error: error ?? !response.complete });
        response.on('data', piece => pieces.push(piece));
        response.on('end', () => done());
        response.on('error', done);
      });
      request.end(body);
    });
  }

  judge({ response, text, error }, prompt, stream) {
    if (response.statusCode !== 200) {
      assert.ok(!error, `an error answer broke off: ${error}`);
      assert.equal(typeof JSON.parse(text).error.message, 'string', text);
      return 'marked';
    }
    if (error) return 'marked'; // the client's library says that it broke off
    let content;
    if (stream) {
      const events = text.split('\n\n').filter(event => event.startsWith('data: '));
      assert.ok(
        events.at(-1) === 'data: [DONE]',
        `a stream ended cleanly without [DONE]: ${text.slice(-300)}`,
      );
      const chunks = events.slice(0, -1).map(event => JSON.parse(event.slice(6)));
      content = chunks.map(chunk => chunk.choices[0]?.delta?.content ?? '').join('');
    } else {
      content = JSON.parse(text).choices[0].message.content;
    }
    this.check(prompt, response.headers['x-heng-worker'], content);
    return 'complete';
  }

  check(prompt, worker, content) {
    if (this.jokerNames.has(worker)) return assert.equal(content, words(prompt).join(''), 'another answer');
    const { learned } = GoodClient;
    if (!learned.has(prompt)) learned.set(prompt, content);
    assert.ok(
      content.length > 0 && content === learned.get(prompt),
      `not the answer to '${prompt}': ${content}`,
    );
  }
}

const garbage = [
  '\r\n\r\n\r\n',
  'GET / HTTP/9.9\r\n\r\n',
  `${'A'.repeat(70_000)}\r\n\r\n`,
  'POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
  'POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"model":',
  '\x16\x03\x01\x02\x00\x01\x00',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
];

const harms = {
  leaves_at_once: wire => wire.destroy(),
  async leaves_later(wire, random) {
    await sleep(random.whole(1, 300));
    random.next() < 0.5 ? wire.destroy() : wire.socket.resetAndDestroy();
  },
  async stops_reading(wire, random) {
    wire.socket.pause();
    await sleep(random.whole(100, 3000));
  },
  async half_closes(wire) {
    wire.finish();
    await wire.takeUntilClose(5000);
  },
  async pipelines(wire) {
    wire.send(postBytes(target, chat('m', { stream: true })));
    wire.send(postBytes(target, '{"model": }'));
    await sleep(100);
  },
};

/// One bad client's visit.
export async function doHarm(port, random) {
  const wire = await Wire.open(port);
  try {
    if (random.next() < 0.3) {
      wire.send(random.pick(garbage));
      await sleep(random.whole(0, 50));
      return 'garbage';
    }
    const harm = random.pick(Object.keys(harms));
    wire.send(postBytes(target, chat('m', { stream: random.next() < 0.7, max_tokens: 30 })));
    await harms[harm](wire, random);
    return harm;
  } finally {
    wire.destroy();
  }
}
