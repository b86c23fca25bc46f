// Workers of the soak: simulated engines that are killed, stopped and started again, and servers that
// misbehave in changing ways.
import http from 'node:http';
import { once } from 'node:events';

import { freePort, sleep, startEngine } from '../../e2e/harness.mjs';

/// A `heng engine` on a fixed port. Its answers depend on the request alone.
export class Engine {
  static async start() {
    const engine = new Engine();
    engine.port = await freePort();
    engine.name = `127.0.0.1:${engine.port}`;
    await engine.run();
    return engine;
  }
  async run() {
    const args = ['--seed', '1', '--speed', '4'];
    this.program = (await startEngine({ port: this.port, model: 'm', args })).program;
  }
  /// Does harm and, after `ms`, undoes it.
  async killed(ms) {
    await this.program.kill();
    await sleep(ms);
    await this.run();
  }
  async stopped(ms) {
    this.program.signal('SIGSTOP');
    await sleep(ms);
    this.program.signal('SIGCONT');
  }
}

/// What a prompt's answer is on every Joker: the clients know it.
export const words = prompt => Array.from({ length: 5 + (prompt.length % 7) }, (_, i) => `${prompt}-${i} `);

const chunk = (text, finish = null) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text }, finish_reason: finish }] })}\n\n`;

/// How a Joker answers; `good` is one of them.
const manners = {
  async good(answer) {
    await answer.whole(2);
  },
  async slow(answer) {
    await answer.whole(100);
  },
  async dies_before(answer) {
    answer.socket.resetAndDestroy();
  },
  async dies_in_head(answer) {
    answer.socket.write('HTTP/1.1 200 OK\r\nContent-');
    await sleep(5);
    answer.socket.destroy();
  },
  async dies_between_events(answer) {
    answer.begin();
    answer.response.write(chunk('x'), () => answer.socket.resetAndDestroy());
  },
  async dies_inside_event(answer) {
    answer.begin();
    answer.response.write('data: {"choi', () => answer.socket.destroy());
  },
  async forgets_done(answer) {
    answer.begin();
    answer.response.write(chunk('x'));
    await sleep(20);
    answer.socket.destroy();
  },
  async garbage(answer) {
    answer.socket.end('\x00\x01garbage\r\n\r\n');
  },
  async double_framing(answer) {
    answer.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}');
  },
  async bad_chunk(answer) {
    answer.socket.write(
      'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
    await sleep(5);
    answer.socket.end('zz\r\nwhat\r\n');
  },
  /// In one piece with the answer. What comes later, when the next request is on its way, cannot be told from
  /// that one's answer.
  async extra_bytes(answer) {
    const body = answer.pieces().join('');
    const fields = `Content-Type: ${answer.type()}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`;
    answer.socket.write(
      `HTTP/1.1 200 OK\r\n${fields}\r\n${body}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`,
    );
  },
  async error_500(answer) {
    answer.error(500);
  },
  async busy_429(answer) {
    answer.error(429);
  },
  async silent() {},
  async endless_interim(answer) {
    for (let i = 0; i < 50 && !answer.socket.destroyed; ++i) {
      answer.socket.write('HTTP/1.1 100 Continue\r\n\r\n');
      await sleep(10);
    }
  },
};
export const jokes = Object.keys(manners);

class Answer {
  constructor(request, response, body) {
    this.response = response;
    this.socket = request.socket;
    this.body = body;
    this.words = words(body.messages?.[0]?.content ?? '');
  }
  type() {
    return this.body.stream ? 'text/event-stream' : 'application/json';
  }
  begin() {
    this.response.writeHead(200, { 'content-type': this.type() });
  }
  error(status) {
    this.response.writeHead(status, { 'content-type': 'application/json', 'retry-after': '1' });
    this.response.end(JSON.stringify({ error: { message: 'a joke', type: 'server_error', code: null } }));
  }
  /// The pieces of the whole answer, or the one if it is not streamed.
  pieces() {
    if (this.body.stream) {
      return [...this.words.map(word => chunk(word)), `${chunk('', 'stop')}data: [DONE]\n\n`];
    }
    const message = { content: this.words.join('') };
    return [JSON.stringify({ choices: [{ index: 0, message, finish_reason: 'stop' }] })];
  }
  async whole(pauseMs) {
    this.begin();
    const pieces = this.pieces();
    for (const piece of pieces.slice(0, -1)) {
      if (this.socket.destroyed) return;
      this.response.write(piece);
      await sleep(pauseMs);
    }
    this.response.end(pieces.at(-1));
  }
}

/// A server in this process that answers in the manner of the hour, and probes too unless it is silent.
export class Joker {
  static async start() {
    const joker = new Joker();
    joker.port = await freePort();
    joker.name = `127.0.0.1:${joker.port}`;
    joker.manner = 'good';
    joker.server = http.createServer((request, response) => joker.serve(request, response).catch(() => {}));
    joker.server.keepAliveTimeout = 60_000;
    joker.server.on('connection', socket => socket.on('error', () => {}));
    joker.server.on('clientError', (error, socket) => socket.destroy());
    joker.server.listen(joker.port, '127.0.0.1');
    await once(joker.server, 'listening');
    return joker;
  }
  async serve(request, response) {
    if (request.url === '/health') {
      if (this.manner !== 'silent') response.end('{}');
      return;
    }
    if (request.url === '/metrics') return void response.writeHead(404).end();
    const text = Buffer.concat(await Array.fromAsync(request)).toString();
    await manners[this.manner](new Answer(request, response, JSON.parse(text)));
  }
  close() {
    this.server.close();
    this.server.closeAllConnections();
  }
}
