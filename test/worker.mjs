// A worker of a `.fault` file, which answers any bytes.
import assert from 'node:assert/strict';
import net from 'node:net';

import { sleep, Wire } from '../e2e/harness.mjs';
import { Actor, latin1 } from './actor.mjs';

/// A server that answers what the conversation says. Health probes are answered by themselves.
export class Worker extends Actor {
  constructor(port) {
    super();
    this.port = port;
    this.sockets = new Set();
    this.mode = 'talks';
    this.forget();
  }
  /// Of the variant of a case before: its requests and what it was told to do.
  forget() {
    this.waiting = []; // requests nobody has looked at
    this.count = 0;
    this.automatic = undefined;
    this.showsProbes = false;
    this.wake = () => {};
  }
  async listen() {
    this.server = net.createServer({ allowHalfOpen: true, noDelay: true }, socket => this.serve(socket));
    await new Promise((resolve, reject) =>
      this.server.once('error', reject).listen(this.port, '127.0.0.1', resolve),
    );
  }
  close() {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
  async serve(socket) {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    if (this.mode === 'hangs-up') return socket.destroy();
    const wire = new Wire(socket);
    try {
      for (;;) {
        const head = await wire.take(
          'a head',
          bytes => {
            const end = bytes.indexOf('\r\n\r\n');
            return end < 0 ? -1 : end + 4;
          },
          3600_000,
        );
        const text = head.toString('latin1');
        const size = Number(/\r\ncontent-length: *(\d+)/i.exec(text)?.[1] ?? 0);
        const body = await wire.takeBytes(size, 3600_000);
        if (this.mode === 'silent') continue;
        if (/^GET \S*\/health /.test(text) && !this.showsProbes) {
          wire.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
          continue;
        }
        if (/^GET \S*\/metrics /.test(text)) {
          wire.send('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
          continue;
        }
        ++this.count;
        const asked = { wire, text: text + body.toString('latin1') };
        if (this.automatic) {
          wire.send(latin1(this.automatic));
          continue;
        }
        this.waiting.push(asked);
        this.wake();
      }
    } catch {
      if (!socket.destroyed && wire.received.length === 0) socket.end();
    }
  }

  /// request ["part of it"]: waits for the next one; what follows is about it.
  async do_request(words) {
    const deadline = performance.now() + words.timeoutMs;
    while (this.waiting.length === 0) {
      const left = deadline - performance.now();
      assert.ok(left > 0, 'no request came');
      await new Promise(resolve => {
        this.wake = resolve;
        setTimeout(resolve, left).unref();
      });
    }
    const before = this.asked?.wire;
    this.asked = this.waiting.shift();
    this.reused = before === this.asked.wire;
    if (words.left.length > 0) this.do_expect(words);
  }
  /// shows probes: they wait like other requests.
  do_shows(words) {
    words.word('probes');
    this.showsProbes = true;
  }
  do_expect(words) {
    const wanted = words.text();
    assert.ok(this.asked.text.includes(wanted), `not in the request: ${this.asked.text.slice(0, 1000)}`);
  }
  do_expect_no(words) {
    if (words.word('header')) {
      const name = words.word();
      return assert.ok(
        !new RegExp(`\\n${name}:`, 'i').test(this.asked.text),
        `has ${name}: ${this.asked.text}`,
      );
    }
    const unwanted = words.text();
    assert.ok(!this.asked.text.includes(unwanted), `in the request: ${this.asked.text.slice(0, 1000)}`);
  }
  do_expect_header(words) {
    const [name, value] = [words.word(), words.text()];
    const given = [...this.asked.text.matchAll(new RegExp(`\\n${name}: *(.*)\\r`, 'gi'))].map(
      match => match[1],
    );
    assert.equal(given.length, 1, `not one ${name}: ${this.asked.text}`);
    if (value !== undefined) assert.equal(given[0], value);
  }
  do_expect_new() {
    assert.ok(!this.reused, 'the request came over the connection of the one before');
  }
  do_expect_same() {
    assert.ok(this.reused, 'the request came over another connection');
  }
  do_expect_closed(words) {
    return this.asked.wire.takeUntilClose(words.timeoutMs);
  }
  do_expect_open() {
    assert.ok(!this.asked.wire.closed, 'the connection is closed');
  }
  /// got nothing, got N requests, got at most N requests
  do_got(words) {
    const atMost = words.word('at') && words.word('most');
    const wanted = words.word('nothing') ? 0 : words.number();
    words.word('requests') ?? words.word('request');
    if (atMost) return assert.ok(this.count <= wanted, `${this.count} requests came`);
    assert.equal(this.count, wanted, 'requests that came');
  }

  do_send(words) {
    this.asked.wire.send(latin1(words.text()));
  }
  wholeAnswer(words) {
    const status = words.word() ?? '200';
    const body = words.text() ?? '{"object":"chat.completion"}';
    const fields = Object.entries({ 'content-type': 'application/json', ...words.headers() });
    const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    return `HTTP/1.1 ${status} Said\r\n${head}content-length: ${body.length}\r\n\r\n${body}`;
  }
  /// answer [STATUS] ["body"] [with "header: value"...]
  do_answer(words) {
    this.asked.wire.send(latin1(this.wholeAnswer(words)));
  }
  /// answers ...: every request from now on, by itself
  do_answers(words) {
    this.automatic = this.wholeAnswer(words);
    for (const asked of this.waiting.splice(0)) asked.wire.send(latin1(this.automatic));
  }
  /// A byte at a time.
  async do_slowly(words) {
    for (const byte of latin1(words.text())) {
      this.asked.wire.send(Buffer.from([byte]));
      await sleep(1);
    }
  }
  /// The head of a stream of server-sent events, and some of them.
  do_stream() {
    this.asked.wire.send(
      'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
  }
  do_chunk(words) {
    const bytes = words.text();
    this.asked.wire.send(latin1(`${bytes.length.toString(16)}\r\n${bytes}\r\n`));
  }
  do_event(words) {
    this.do_chunk({ text: () => `data: ${words.text()}\n\n` });
  }
  do_done() {
    this.do_chunk({ text: () => 'data: [DONE]\n\n' });
    this.asked.wire.send('0\r\n\r\n');
  }
  do_finish() {
    this.asked.wire.finish();
  }
  do_close() {
    this.asked.wire.destroy();
  }
  do_reset() {
    this.asked.wire.socket.resetAndDestroy();
  }
  /// As if killed: every connection is reset and the port refuses.
  do_dies() {
    this.server.close();
    for (const socket of this.sockets) socket.resetAndDestroy();
  }
  async do_returns() {
    this.mode = 'talks';
    await this.listen();
  }
  /// As if stopped: connections are accepted, nothing is ever answered, not even probes.
  do_stops() {
    this.mode = 'silent';
  }
  /// ... as by SIGCONT; what came meanwhile is lost.
  do_goes(words) {
    words.word('on');
    this.mode = 'talks';
  }
  do_hangs() {
    this.mode = 'hangs-up';
  }
}
