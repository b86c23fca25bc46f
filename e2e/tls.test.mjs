// Workers behind https: trusted by a CA file, refused otherwise, unless checking is switched off.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';

import { chat, gate, scratch, startGateway, startUpstream } from './harness.mjs';

describe('https workers', () => {
  const certificate = path.join(scratch, 'worker.crt'),
    key = path.join(scratch, 'worker.key');
  const other = path.join(scratch, 'other.crt');
  let upstream;

  function makeCertificate(out, keyOut, name) {
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '2',
        '-subj',
        '/CN=worker',
        '-addext',
        `subjectAltName=${name}`,
        '-keyout',
        keyOut,
        '-out',
        out,
      ],
      { stdio: 'ignore' },
    );
  }

  before(async () => {
    makeCertificate(certificate, key, 'IP:127.0.0.1');
    makeCertificate(other, path.join(scratch, 'other.key'), 'IP:127.0.0.1');
    upstream = await startUpstream(undefined, {
      tls: { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) },
    });
  });

  const ask = async worker => {
    const gateway = await startGateway({
      health: { active: false },
      pools: [{ model: 'm', workers: [{ url: upstream.url, ...worker }] }],
    });
    return gateway.request('/v1/chat/completions', { body: chat('m', { filler: 'x'.repeat(200_000) }) });
  };

  it('are trusted by ca_file, with a base path and a key', async () => {
    const answer = await ask({ url: `${upstream.url}/base`, api_key: 'k', tls: { ca_file: certificate } });
    assert.equal(answer.status, 200, answer.text());
    const seen = upstream.requests.at(-1);
    assert.equal(seen.url, '/base/v1/chat/completions');
    assert.equal(seen.headers.authorization, 'Bearer k');
    assert.equal(JSON.parse(seen.body).filler.length, 200_000);
  });

  it('are refused without their CA, and nothing is sent to them', async () => {
    const count = upstream.requests.length;
    for (const tls of [{}, { ca_file: other }]) {
      const answer = await ask({ tls });
      assert.ok([502, 503].includes(answer.status), `${answer.status}`);
    }
    assert.equal(upstream.requests.length, count);
  });

  it('are refused under another name', async () => {
    const named = path.join(scratch, 'named.crt'),
      namedKey = path.join(scratch, 'named.key');
    makeCertificate(named, namedKey, 'DNS:elsewhere.example');
    const server = await startUpstream(undefined, {
      tls: { cert: fs.readFileSync(named), key: fs.readFileSync(namedKey) },
    });
    const answer = await ask({ url: server.url, tls: { ca_file: named } });
    assert.ok([502, 503].includes(answer.status), `${answer.status}`);
    assert.equal(server.requests.length, 0);
  });

  it('are used unchecked where configured', async () => {
    assert.equal((await ask({ tls: { verify: false } })).status, 200);
  });

  it('stream, are probed, and their connections are used again', { timeout: 20_000 }, async () => {
    const arrived = [gate(), gate()];
    const streaming = await startUpstream(
      async (incoming, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        for (const [i, { promise }] of arrived.entries()) {
          response.write(`data: ${i}\n\n`);
          await promise;
        }
        response.end('data: [DONE]\n\n');
      },
      { tls: { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) } },
    );
    const gateway = await startGateway({
      pools: [{ model: 'm', workers: [{ url: streaming.url, tls: { ca_file: certificate } }] }],
    });
    for (let i = 0; i < 6; ++i) {
      const stream = await fetch(`${gateway.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(chat('m', { stream: true })),
      });
      let text = '';
      for await (const bytes of stream.body) {
        text += Buffer.from(bytes);
        arrived[text.split('\n\n').length - 2]?.resolve();
      }
      assert.equal(text, 'data: 0\n\ndata: 1\n\ndata: [DONE]\n\n');
    }
    const sockets = new Set(streaming.requests.map(entry => entry.socket));
    // A probe may have taken one.
    assert.ok(sockets.size <= 2, `${sockets.size} connections for 6 requests in turn`);
  });
});
