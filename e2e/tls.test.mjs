// TLS on both sides: https workers, clients over https, certificates of clients and of the gateway, and their
// renewal. And Unix sockets.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { Readable } from 'node:stream';
import { before, describe, it } from 'node:test';
import tls from 'node:tls';

import { chat, gate, heng, request, scratch, startGateway, startUpstream, until } from './harness.mjs';

/// In `scratch`: NAME.crt and NAME.key, for 127.0.0.1; by `authority` (a name used before) or by itself.
function issue(name, authority) {
  const file = `${path.join(scratch, name)}`;
  const by = authority && path.join(scratch, authority);
  const args = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2';
  const signed = by
    ? ['-CA', `${by}.crt`, '-CAkey', `${by}.key`, '-addext', 'basicConstraints=CA:FALSE']
    : [];
  const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'];
  execFileSync(
    'openssl',
    [...args.split(' '), ...names, '-keyout', `${file}.key`, '-out', `${file}.crt`, ...signed],
    { stdio: 'ignore' },
  );
  fs.chmodSync(`${file}.key`, 0o600);
  return { cert_file: `${file}.crt`, key_file: `${file}.key` };
}

/// As options of node's TLS.
const shown = files => ({ cert: fs.readFileSync(files.cert_file), key: fs.readFileSync(files.key_file) });
const trusting = authority => ({ ca: fs.readFileSync(path.join(scratch, `${authority}.crt`)) });

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

describe('clients over https', () => {
  let upstream, pools;

  before(async () => {
    issue('ca');
    upstream = await startUpstream((incoming, response, body) => {
      response.setHeader('content-type', 'application/json');
      if (!JSON.parse(body).stream) return response.end('{"choices":[{"message":{"content":"hi"}}]}');
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const word of ['a', 'b'])
        response.write(`data: {"choices":[{"delta":{"content":"${word}"}}]}\n\n`);
      response.end('data: [DONE]\n\n');
    });
    pools = [{ model: 'm', workers: [upstream.url] }];
  });

  const ask = (gateway, options) =>
    request(`https://127.0.0.1:${gateway.port}/v1/chat/completions`, { body: chat('m'), tls: options });

  /// Clients who ask without a pause, half of them on kept connections. A request that fails fails `stop`.
  function startLoad(gateway) {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 4, ...trusting('ca') });
    let running = true,
      answered = 0;
    const all = Array.from({ length: 8 }, async (_, i) => {
      while (running) {
        assert.equal((await ask(gateway, i % 2 ? { agent } : trusting('ca'))).status, 200);
        ++answered;
      }
    });
    const goesOn = (before = answered) => until('load goes on', () => answered > before + 40);
    const stop = async () => {
      running = false;
      await Promise.all(all).finally(() => agent.destroy());
    };
    return { goesOn, stop };
  }

  /// `fetch` that trusts our authority.
  const trustingFetch = async (url, init) => {
    const outgoing = https.request(url, {
      method: init.method,
      headers: Object.fromEntries(new Headers(init.headers)),
      ...trusting('ca'),
    });
    outgoing.end(init.body);
    const incoming = await new Promise((resolve, reject) =>
      outgoing.on('response', resolve).on('error', reject),
    );
    return new Response(Readable.toWeb(incoming), { status: incoming.statusCode, headers: incoming.headers });
  };

  it('the official client, whole answers and streams', async () => {
    const gateway = await startGateway({ pools, tls: issue('server', 'ca') });
    const client = gateway.client({
      baseURL: `https://127.0.0.1:${gateway.port}/v1`,
      fetch: trustingFetch,
    });
    const answer = await client.chat.completions.create(chat('m'));
    assert.equal(answer.choices[0].message.content, 'hi');
    const large = await client.chat.completions.create(chat('m', { filler: 'x'.repeat(1_000_000) }));
    assert.equal(large.choices[0].message.content, 'hi');
    let text = '';
    for await (const part of await client.chat.completions.create(chat('m', { stream: true })))
      text += part.choices[0].delta.content;
    assert.equal(text, 'ab');
  });

  it('plain HTTP is told to use https, HTTP/2 and TLS 1.1 are not spoken', async () => {
    const gateway = await startGateway({ pools, tls: issue('server', 'ca') });
    const answer = await gateway.request('/v1/models');
    assert.equal(answer.status, 400);
    assert.match(answer.text(), /https:/);
    await assert.rejects(ask(gateway, { ...trusting('ca'), ALPNProtocols: ['h2'] }));
    await assert.rejects(ask(gateway, { ...trusting('ca'), maxVersion: 'TLSv1.1', minVersion: 'TLSv1' }));
    const metrics = (await gateway.admin('/metrics')).text();
    assert.match(metrics, /heng_tls_handshake_failures_total\{reason="[^"]+"\} [1-9]/);
    assert.match(metrics, /heng_tls_certificate_expires_seconds \d/);
  });

  it('only those with a certificate, where their authority is named', async () => {
    issue('clients');
    const client_ca_file = path.join(scratch, 'clients.crt');
    const gateway = await startGateway({ pools, tls: { ...issue('server', 'ca'), client_ca_file } });
    await assert.rejects(ask(gateway, trusting('ca')));
    await assert.rejects(ask(gateway, { ...trusting('ca'), ...shown(issue('stranger')) }));
    const known = shown(issue('known', 'clients'));
    assert.equal((await ask(gateway, { ...trusting('ca'), ...known })).status, 200);
  });

  it('a renewed certificate is shown after a reload, no request fails', { timeout: 60_000 }, async () => {
    const files = issue('renewed', 'ca');
    const gateway = await startGateway({ pools, tls: files });
    const serial = () =>
      new Promise((resolve, reject) => {
        const socket = tls.connect({ port: gateway.port, host: '127.0.0.1', ...trusting('ca') }, () => {
          resolve(socket.getPeerCertificate().serialNumber);
          socket.destroy();
        });
        socket.on('error', reject);
      });
    const load = startLoad(gateway);
    const first = await serial();
    issue('renewed', 'ca'); // the same files
    assert.equal(await serial(), first, 'read before it was asked to');
    gateway.program.signal('SIGHUP');
    await until('the new certificate is shown', async () => (await serial()) !== first);
    const second = await serial();

    fs.writeFileSync(files.cert_file, 'garbage');
    const reload = await gateway.heng('reload');
    assert.equal(reload.code, 3, reload.stderr);
    assert.match(reload.stderr, /renewed\.crt/);
    assert.equal(await serial(), second, 'the one before stays');
    await load.goesOn();
    await load.stop();
  });

  it('a hand-over loses no request of theirs', { timeout: 60_000 }, async t => {
    const gateway = await startGateway({ pools, tls: issue('server', 'ca'), timeouts: { drain: '5s' } });
    const load = startLoad(gateway);
    let successor;
    t.after(() => successor && process.kill(successor, 'SIGTERM'));
    for (let round = 0; round < 3; ++round) {
      await load.goesOn();
      const { code, stdout, stderr } = await gateway.heng('handover');
      assert.equal(code, 0, stderr);
      successor = Number(/process (\d+)/.exec(stdout)[1]);
    }
    await load.goesOn();
    await load.stop();
    assert.equal(await gateway.program.waitForEnd(), 0);
  });

  it('the admin API too, where that is wanted', async () => {
    const files = issue('server', 'ca');
    const gateway = await startGateway({ pools, tls: { ...files, admin: true } }, { announced: true });
    const address = `https://127.0.0.1:${gateway.adminPort}`;
    assert.equal((await request(`${address}/healthz`, { tls: trusting('ca') })).status, 200);
    const workers = await heng('workers', '--admin', address, '--ca-file', path.join(scratch, 'ca.crt'));
    assert.equal(workers.code, 0, workers.stderr);
    assert.match(workers.stdout, new RegExp(upstream.name));
    assert.notEqual((await heng('workers', '--admin', address)).code, 0, 'an unknown authority');
  });

  it('start and check refuse what cannot work, and say why', async () => {
    const [good, other] = [issue('good', 'ca'), issue('other', 'ca')];
    const config = path.join(scratch, 'broken.yaml');
    const said = async files => {
      fs.writeFileSync(config, JSON.stringify({ pools, tls: files }), { mode: 0o600 });
      const [check, serve] = [await heng('check', '-c', config), await heng('serve', '-c', config)];
      assert.equal(check.code, 3);
      assert.notEqual(serve.code, 0);
      assert.equal(serve.stdout, '');
      assert.match(serve.stderr, new RegExp(check.stderr.trim().split(': ').at(-1).slice(0, 30)));
      return check.stderr;
    };
    assert.match(await said({ ...good, key_file: other.key_file }), /is not that of the certificate/);
    assert.match(await said({ ...good, cert_file: '/nowhere.crt' }), /nowhere\.crt.*No such file/);
    fs.chmodSync(other.key_file, 0o644);
    assert.match(await said(other), /chmod 600/);
    fs.writeFileSync(config, JSON.stringify({ pools, tls: good }), { mode: 0o600 });
    const fine = await heng('check', '-c', config);
    assert.equal(fine.code, 0, fine.stderr);
    assert.match(fine.stderr, /expires in 2\.0 days/);
  });

  it('the gateway shows its own certificate to workers that ask for one', async () => {
    const own = issue('gateway', 'ca');
    const strict = await startUpstream(undefined, {
      tls: { ...shown(issue('worker', 'ca')), ...trusting('ca'), requestCert: true },
    });
    const ask = async tls => {
      const gateway = await startGateway({
        health: { active: false },
        pools: [{ model: 'm', workers: [{ url: strict.url, tls }] }],
      });
      return gateway.request('/v1/chat/completions', { body: chat('m') });
    };
    const ca_file = path.join(scratch, 'ca.crt');
    assert.equal((await ask({ ca_file, ...own })).status, 200);
    assert.ok([502, 503].includes((await ask({ ca_file })).status));
    assert.equal(strict.requests.length, 1);
  });
});

describe('Unix sockets', () => {
  it('serve API and admin API, are their owner\'s only, and are gone at the end', async () => {
    const upstream = await startUpstream();
    const [listen, admin] = ['api', 'admin'].map(name => path.join(scratch, `${name}.sock`));
    const config = {
      listen: `unix:${listen}`,
      admin: `unix:${admin}`,
      pools: [{ model: 'm', workers: [upstream.url] }],
    };
    const gateway = await startGateway(config, { announced: true });
    await until('both are there', () => fs.existsSync(admin));
    for (const file of [listen, admin]) assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    const answer = await request('http://heng/v1/chat/completions', {
      body: chat('m'),
      tls: { socketPath: listen },
    });
    assert.equal(answer.status, 200);
    const workers = await heng('workers', '--admin', `unix:${admin}`);
    assert.equal(workers.code, 0, workers.stderr);
    assert.match(workers.stdout, new RegExp(upstream.name));
    gateway.program.signal('SIGKILL');
    await gateway.program.waitForEnd();
    const next = await startGateway(config, { announced: true }); // in spite of the files left over
    await until('it is there', async () => (await heng('pools', '--admin', `unix:${admin}`)).code === 0);
    next.program.signal('SIGTERM');
    assert.equal(await next.program.waitForEnd(), 0);
    assert.ok(!fs.existsSync(listen) && !fs.existsSync(admin));
  });
});
