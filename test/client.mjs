// Clients of a `.fault` file: one that says any bytes, and crowds.
import assert from 'node:assert/strict';

import { assertApiError, requestBytes, sleep, until, Wire } from '../e2e/harness.mjs';
import { Actor, latin1 } from './actor.mjs';

export class Client extends Actor {
  constructor(port, host) {
    super();
    this.port = port;
    this.host = host;
  }
  async open() {
    this.wire ??= await Wire.open(this.port);
    return this.wire;
  }
  close() {
    this.wire?.destroy();
  }

  async do_connect() {
    this.close();
    this.wire = await Wire.open(this.port);
  }
  async do_send(words) {
    (await this.open()).send(latin1(words.text() ?? ''));
  }
  async ask(method, target, headers, body) {
    this.bodiless = method === 'HEAD';
    if (body !== undefined) {
      headers = { 'content-type': 'application/json', 'content-length': body.length, ...headers };
    }
    const all = { host: this.host, ...headers };
    (await this.open()).send(requestBytes(method, target, all, latin1(body ?? '')));
  }
  /// chat [stream] ["{more JSON}"] [with "header: value"...]
  async do_chat(words) {
    const stream = words.word('stream') ? { stream: true } : {};
    const more = JSON.parse(words.text() ?? '{}');
    const body = { model: 'm', messages: [{ role: 'user', content: 'hello' }], ...stream, ...more };
    await this.ask('POST', '/v1/chat/completions', words.headers(), JSON.stringify(body));
  }
  /// body "TEXT" [with ...]: a chat request of exactly that body
  async do_body(words) {
    const body = words.text();
    await this.ask('POST', '/v1/chat/completions', words.headers(), body);
  }
  async do_get(words) {
    await this.ask('GET', words.word() ?? words.text(), words.headers());
  }
  async do_head(words) {
    await this.ask('HEAD', words.word(), words.headers());
  }
  async do_delete(words) {
    await this.ask('DELETE', words.word(), words.headers());
  }
  async do_post(words) {
    const [target, body] = [words.word(), words.text()];
    await this.ask('POST', target, words.headers(), body ?? '');
  }
  async do_put(words) {
    const [target, body] = [words.word(), words.text()];
    await this.ask('PUT', target, words.headers(), body ?? '');
  }
  do_leave() {
    this.wire.socket.destroy();
  }
  do_reset() {
    this.wire.socket.resetAndDestroy();
  }
  do_finish() {
    this.wire.finish();
  }
  do_pause() {
    this.wire.socket.pause();
  }
  do_resume() {
    this.wire.socket.resume();
  }

  /// expect 200, expect 400|431: the next head. expect "bytes": they come next or later.
  async do_expect(words) {
    const text = words.text();
    if (text !== undefined) return (await this.open()).takeThrough(latin1(text), words.timeoutMs);
    const statuses = words.word().split('|');
    await this.readKnownBody(words.timeoutMs);
    this.head = await (
      await this.open()
    ).takeHead({ interim: statuses[0] < 200, timeoutMs: words.timeoutMs });
    this.body = undefined;
    if (!statuses.includes(String(this.head.status))) {
      const body = await this.readBody(500).catch(() => this.wire.received);
      assert.fail(`expected ${statuses}, got ${this.head.status}: ${body.toString().slice(0, 300)}`);
    }
  }
  /// Of an answer nobody wanted to look at, so that the next one can be read.
  async readKnownBody(timeoutMs) {
    if (this.head?.headers['content-length'] !== undefined) await this.readBody(timeoutMs);
  }
  async readBody(timeoutMs) {
    if (this.body !== undefined) return this.body;
    const { headers, status } = this.head;
    if (this.bodiless || status < 200 || status === 204 || status === 304)
      return (this.body = Buffer.alloc(0));
    if (headers['transfer-encoding'] === 'chunked') {
      const pieces = [];
      for (;;) {
        const size = parseInt((await this.wire.takeThrough('\r\n', timeoutMs)).toString(), 16);
        const chunk = await this.wire.takeBytes(size + 2, timeoutMs);
        if (size === 0) break;
        pieces.push(chunk.subarray(0, size));
      }
      this.body = Buffer.concat(pieces);
    } else {
      const size = headers['content-length'];
      this.body = await (size === undefined
        ? this.wire.takeUntilClose(timeoutMs)
        : this.wire.takeBytes(Number(size), timeoutMs));
    }
    return this.body;
  }
  /// expect body "part", expect body is "all"
  async do_expect_body(words) {
    const whole = words.word('is');
    const wanted = words.text();
    const body = (await this.readBody(words.timeoutMs)).toString('latin1');
    if (whole) return assert.ok(body === wanted, `the body is ${JSON.stringify(body.slice(0, 500))}`);
    assert.ok(body.includes(wanted), `not in the body: ${body.slice(0, 500)}`);
  }
  /// expect error ["text in it"]: an error body as OpenAI's API has it
  async do_expect_error(words) {
    const body = await this.readBody(words.timeoutMs);
    const error = assertApiError({ ...this.head, body }, this.head.status);
    const wanted = words.text();
    if (wanted !== undefined) assert.ok(JSON.stringify(error).includes(wanted), JSON.stringify(error));
  }
  do_expect_header(words) {
    const name = words.word();
    const value = words.text();
    const given = this.head.headers[name];
    assert.ok(given !== undefined, `no ${name} in ${JSON.stringify(this.head.headers)}`);
    if (value !== undefined) assert.equal(given, value);
  }
  do_expect_no(words) {
    const name = words.word('header') && words.word();
    assert.equal(this.head.headers[name], undefined, `there is a header ${name}`);
  }
  /// The connection ends, and nothing that was not asked for came before.
  async do_expect_closed(words) {
    await this.readKnownBody(words.timeoutMs);
    const left = await (await this.open()).takeUntilClose(words.timeoutMs);
    assert.equal(left.toString('latin1').slice(0, 500), '', 'bytes before the close');
  }
  /// The connection ends in a way that no client can take for the end of the answer.
  async do_expect_cut(words) {
    const left = (await this.wire.takeUntilClose(words.timeoutMs)).toString('latin1');
    const { headers } = this.head;
    if (headers['content-length'] !== undefined) {
      return assert.ok(left.length < Number(headers['content-length']), 'all the length told has come');
    }
    assert.equal(headers['transfer-encoding'], 'chunked', 'an answer that ends with its connection');
    assert.ok(!/(^|\n)0+\r\n\r\n$/.test(left), 'the last chunk came');
  }
  /// The connection ends by a reset: all that came is in `seen`.
  async do_expect_reset(words) {
    await this.wire.takeUntilClose(words.timeoutMs);
    await until('the socket is closed', () => this.wire.socket.closed);
    assert.equal(this.wire.socket.errored?.code, 'ECONNRESET');
  }
  /// Nothing more comes and the connection stays.
  async do_expect_silence(words) {
    await sleep(words.duration());
    assert.equal(this.wire.received.toString('latin1').slice(0, 500), '');
    assert.ok(!this.wire.closed, 'the connection closed');
  }
  count(words) {
    const wanted = words.text();
    return this.wire.seen.toString('latin1').split(wanted).length - 1;
  }
  /// Over everything the connection ever brought.
  do_expect_never(words) {
    assert.equal(this.count(words), 0);
  }
  do_expect_once(words) {
    assert.equal(this.count(words), 1);
  }
}

/// Many clients at once, of which only the answers' statuses matter.
export class Crowd extends Actor {
  constructor(gateway) {
    super();
    this.gateway = gateway;
  }
  /// asks N [stream] [with ...]
  async do_asks(words) {
    const count = words.number();
    const body = { model: 'm', messages: [{ role: 'user', content: 'hello' }] };
    const headers = words.headers();
    const ask = () => this.gateway.request('/v1/chat/completions', { body, headers });
    this.answers = await Promise.all(Array.from({ length: count }, ask));
  }
  /// expect 200|429: all of them. expect some 429: at least one.
  do_expect(words) {
    const some = words.word('some');
    const statuses = words.word().split('|');
    const has = answer => statuses.includes(String(answer.status));
    const got = JSON.stringify(
      Object.groupBy(this.answers, answer => answer.status),
      (key, value) => (Array.isArray(value) ? value.length : value),
    );
    assert.ok(some ? this.answers.some(has) : this.answers.every(has), got);
  }
  /// connects N [admin]: to the API, or the admin API
  async do_connects(words) {
    const count = words.number();
    const port = words.word('admin') ? this.gateway.adminPort : this.gateway.port;
    this.wires = await Promise.all(Array.from({ length: count }, () => Wire.open(port)));
  }
  do_sends(words) {
    const bytes = latin1(words.text());
    for (const wire of this.wires) wire.send(bytes);
  }
  /// all closed within 4s
  async do_all(words) {
    words.word('closed');
    await until('all are closed', () => this.wires.every(wire => wire.closed), words);
  }
  do_leaves() {
    this.close();
  }
  close() {
    for (const wire of this.wires ?? []) wire.destroy();
  }
}
