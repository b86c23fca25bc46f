// More requests than the workers can take: who waits, who goes first, who is turned away, and how it ends.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import path from 'node:path';
import { describe, test } from 'node:test';

import OpenAI from 'openai';

import {
  assertApiError,
  chat,
  gate,
  heng,
  scratch,
  sleep,
  startEngine,
  startGateway,
  startUpstream,
  until,
} from './harness.mjs';

/// A worker that holds every request until told to answer. `open(n)`: answers the n oldest.
async function startGatedUpstream() {
  const held = [];
  const upstream = await startUpstream(async (incoming, response, body) => {
    const gone = gate();
    held.push(gone);
    await gone.promise;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ id: 'answer', user: JSON.parse(body.toString()).user }));
  });
  return {
    ...upstream,
    held,
    users: () => upstream.requests.map(({ body }) => JSON.parse(body.toString()).user),
    open: count => held.splice(0, count).forEach(one => one.resolve()),
  };
}

const pools = (worker, extra = {}) => ({
  pools: [{ model: 'm', worker_max_in_flight: 1, workers: [].concat(worker).map(one => one.url) }],
  ...extra,
});

/// A chat request that need not be awaited; `from`: the client's address.
function ask(gateway, user, { headers = {}, from, stream = false } = {}) {
  const outgoing = http.request(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    localAddress: from,
    agent: false,
  });
  outgoing.end(JSON.stringify(chat('m', { user, stream })));
  const answer = once(outgoing, 'response').then(async ([incoming]) => {
    const body = Buffer.concat(await Array.fromAsync(incoming));
    return { status: incoming.statusCode, headers: incoming.headers, body };
  });
  return Object.assign(answer, { leave: () => outgoing.destroy() });
}

const poolOf = async gateway => (await gateway.admin('/api/v1/pools')).json().pools[0];
const queued = (gateway, count) =>
  until(`${count} wait`, async () => (await poolOf(gateway)).queued === count, { everyMs: 5 });
const metric = async (gateway, line) => {
  const page = (await gateway.admin('/metrics')).text();
  const found = page.split('\n').find(one => one.startsWith(`${line} `));
  return found && Number(found.split(' ').at(-1));
};

describe('waiting', () => {
  test('a request waits while its worker is full, streaming or not, and is then served', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker));
    const first = ask(gateway, 'a');
    await until('the first is there', () => worker.held.length === 1);
    const second = ask(gateway, 'b');
    const third = ask(gateway, 'c', { stream: true });
    await queued(gateway, 2);
    assert.equal(await metric(gateway, 'heng_queue_depth{model="m"}'), 2);
    assert.equal(worker.requests.length, 1);
    for (const answer of [first, second, third]) {
      await until('one is there', () => worker.held.length === 1);
      worker.open(1);
      assert.equal((await answer).status, 200);
    }
    assert.deepEqual(worker.users(), ['a', 'b', 'c']);
    assert.equal(await metric(gateway, 'heng_queue_wait_seconds_count{model="m"}'), 2);
    assert.equal((await poolOf(gateway)).queued, 0);
  });

  test('the limit of a pool holds for all its workers together', async () => {
    const workers = [await startGatedUpstream(), await startGatedUpstream()];
    const config = pools(workers);
    Object.assign(config.pools[0], { max_in_flight: 3, worker_max_in_flight: 2 });
    const gateway = await startGateway(config);
    const answers = ['a', 'b', 'c', 'd', 'e'].map(user => ask(gateway, user));
    await queued(gateway, 2);
    assert.equal((await poolOf(gateway)).in_flight, 3);
    const opening = setInterval(() => workers.forEach(worker => worker.open(1)), 10);
    for (const answer of answers) assert.equal((await answer).status, 200);
    clearInterval(opening);
  });

  test('who leaves while waiting is forgotten at once', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker));
    const first = ask(gateway, 'a');
    await until('the first is there', () => worker.held.length === 1);
    const second = ask(gateway, 'b');
    second.catch(() => {});
    await queued(gateway, 1);
    second.leave();
    await queued(gateway, 0);
    const third = ask(gateway, 'c');
    await queued(gateway, 1);
    worker.open(1);
    await first;
    await until('the next is there', () => worker.held.length === 1);
    worker.open(1);
    assert.equal((await third).status, 200);
    assert.deepEqual(worker.users(), ['a', 'c']);
  });

  test('a reload with other limits loses nobody who waits', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker));
    const answers = ['a', 'b', 'c', 'd'].map(user => ask(gateway, user));
    await queued(gateway, 3);
    const wider = pools(worker, { queue: { length: 1 } });
    wider.pools[0].worker_max_in_flight = 2;
    gateway.write(wider);
    assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
    await queued(gateway, 2);
    const other = pools(worker);
    other.pools[0].policy = 'round_robin';
    gateway.write(other);
    assert.equal((await gateway.admin('/api/v1/reload', { method: 'POST' })).status, 200);
    const opening = setInterval(() => worker.open(1), 10);
    for (const answer of answers) assert.equal((await answer).status, 200);
    clearInterval(opening);
  });

  test('draining serves those who wait', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker));
    const answers = ['a', 'b', 'c'].map(user => ask(gateway, user));
    await queued(gateway, 2);
    gateway.program.signal('SIGTERM');
    const opening = setInterval(() => worker.open(1), 10);
    for (const answer of answers) assert.equal((await answer).status, 200);
    clearInterval(opening);
    assert.equal(await gateway.program.waitForEnd(), 0);
  });

  test('a request whose worker died waits for the others, before its like', async () => {
    const [dying, living] = [await startGatedUpstream(), await startGatedUpstream()];
    const gateway = await startGateway(pools([dying, living]));
    const first = ask(gateway, 'a');
    const second = ask(gateway, 'b');
    await until('both are busy', () => dying.held.length === 1 && living.held.length === 1);
    const orphan = dying.users()[0];
    const third = ask(gateway, 'c');
    await queued(gateway, 1);
    await dying.close();
    await queued(gateway, 2);
    const opening = setInterval(() => living.open(1), 10);
    for (const answer of [first, second, third]) assert.equal((await answer).status, 200);
    clearInterval(opening);
    assert.equal(living.users()[1], orphan);
  });
});

describe('who goes first', () => {
  test('the urgent, and nobody makes themselves more urgent', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker));
    const answers = [ask(gateway, 'now')];
    await until('the first is there', () => worker.held.length === 1);
    for (const [user, priority] of [['low', 1], ['lowest', 0], ['pushy', 9], ['plain', undefined]]) {
      const headers = priority === undefined ? {} : { 'x-heng-priority': String(priority) };
      answers.push(ask(gateway, user, { headers }));
      await queued(gateway, answers.length - 1);
    }
    const opening = setInterval(() => worker.open(1), 10);
    await Promise.all(answers);
    clearInterval(opening);
    assert.deepEqual(worker.users(), ['now', 'pushy', 'plain', 'low', 'lowest']);
    assert.equal(worker.requests[1].headers['x-heng-priority'], undefined);
    assertApiError(await ask(gateway, 'odd', { headers: { 'x-heng-priority': 'high' } }), 400);
  });

  test('a client that floods does not delay another', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker));
    const flood = Array.from({ length: 40 }, () => ask(gateway, 'flood', { from: '127.0.0.1' }));
    await queued(gateway, 39);
    const others = Array.from({ length: 3 }, () => ask(gateway, 'other', { from: '127.0.0.2' }));
    await queued(gateway, 42);
    const opening = setInterval(() => worker.open(1), 5);
    await Promise.all([...flood, ...others]);
    clearInterval(opening);
    const places = worker.users().flatMap((user, place) => (user === 'other' ? [place] : []));
    assert.ok(places.at(-1) <= 7, `the other client was served at places ${places}`);
  });
});

describe('turning away', () => {
  test('when too many wait: 429 that says when to come back', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker, { queue: { length: 1 } }));
    const served = [ask(gateway, 'a')];
    await until('the first is there', () => worker.held.length === 1);
    served.push(ask(gateway, 'b'));
    await queued(gateway, 1);
    const refused = await ask(gateway, 'c');
    const error = assertApiError(refused, 429);
    assert.equal(error.code, 'queue_full');
    assert.equal(error.type, 'rate_limit_error');
    const ms = Number(refused.headers['retry-after-ms']);
    assert.ok(ms >= 500 && ms <= 60_000, `retry-after-ms: ${ms}`);
    assert.equal(Number(refused.headers['retry-after']), Math.ceil(ms / 1000));
    assert.equal(await metric(gateway, 'heng_shed_total{model="m",reason="queue_full"}'), 1);
    const opening = setInterval(() => worker.open(1), 10);
    for (const answer of served) assert.equal((await answer).status, 200);
    clearInterval(opening);
  });

  test('the official client raises RateLimitError, or comes back when told', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker, { queue: { length: 0 } }));
    const first = ask(gateway, 'a');
    await until('the first is there', () => worker.held.length === 1);
    await assert.rejects(gateway.client().chat.completions.create(chat('m')), OpenAI.RateLimitError);
    const patient = gateway.client({ maxRetries: 3 }).chat.completions.create(chat('m', { user: 'patient' }));
    await sleep(100);
    const opening = setInterval(() => worker.open(1), 10);
    assert.equal((await patient).id, 'answer');
    clearInterval(opening);
    assert.equal((await first).status, 200);
  });

  test('who waits too long: 429, by the gateway’s patience or the client’s own', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker, { queue: { timeout: '2s' } }));
    const first = ask(gateway, 'a');
    await until('the first is there', () => worker.held.length === 1);
    const began = performance.now();
    const took = answer => answer.then(value => ({ ...value, ms: performance.now() - began }));
    const hasty = took(ask(gateway, 'b', { headers: { 'x-stainless-timeout': '1' } }));
    const python = took(ask(gateway, 'b', { headers: { 'x-stainless-read-timeout': '1.5' } }));
    const patient = took(ask(gateway, 'c'));
    for (const [answer, seconds] of [[await hasty, 1], [await python, 1.5], [await patient, 2]]) {
      assert.equal(assertApiError(answer, 429).code, 'queue_timeout');
      assert.ok(answer.ms > seconds * 1000 - 50 && answer.ms < seconds * 1000 + 900, `${answer.ms} ms`);
    }
    worker.open(1);
    assert.equal((await first).status, 200);
    assert.equal(worker.requests.length, 1);
  });

  test('a low request makes room for a normal one', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker, { queue: { length: 1 } }));
    const first = ask(gateway, 'a');
    await until('the first is there', () => worker.held.length === 1);
    const low = ask(gateway, 'low', { headers: { 'x-heng-priority': '0' } });
    await queued(gateway, 1);
    const normal = ask(gateway, 'normal');
    assert.equal(assertApiError(await low, 429).code, 'queue_full');
    const opening = setInterval(() => worker.open(1), 10);
    assert.equal((await normal).status, 200);
    clearInterval(opening);
    await first;
  });

  test('none healthy is not full: 503 at once', async () => {
    const worker = await startGatedUpstream();
    const gateway = await startGateway(pools(worker));
    await worker.close();
    await until('it is out', async () => (await poolOf(gateway)).eligible === 0);
    assert.equal(assertApiError(await ask(gateway, 'a'), 503).code, 'no_worker_available');
  });
});

describe('keys', () => {
  /// A gateway with one worker and these keys: {id: options of `heng key new`}.
  async function startWithKeys(worker, keys, extra = {}) {
    const file = path.join(scratch, `keys-${worker.port}.yaml`);
    const secrets = {};
    for (const [id, options] of Object.entries(keys)) {
      const made = await heng('key', 'new', id, '--file', file, ...options);
      assert.equal(made.code, 0, made.stderr);
      secrets[id] = made.stdout.trim();
    }
    const gateway = await startGateway(pools(worker, { keys_file: file, ...extra }));
    const headers = id => ({ headers: { authorization: `Bearer ${secrets[id]}` } });
    return { gateway, secrets, headers };
  }

  test('tokens and requests a minute: told, kept, and settled with what was used', async () => {
    const worker = await startUpstream((incoming, response) => {
      response.setHeader('content-type', 'application/json');
      response.setHeader('x-ratelimit-limit-requests', '1');
      response.end('{"id":"answer","usage":{"prompt_tokens":10,"completion_tokens":40,"total_tokens":50}}');
    });
    const { gateway, headers, secrets } = await startWithKeys(worker, {
      small: ['--requests-per-minute', '3', '--tokens-per-minute', '6000'],
      free: [],
    });
    const post = (id, extra) =>
      gateway.request('/v1/chat/completions', { body: chat('m', extra), ...headers(id) });
    const first = await post('small', { max_tokens: 5000 });
    assert.equal(first.status, 200);
    assert.equal(first.headers['x-ratelimit-limit-requests'], '3');
    assert.equal(first.headers['x-ratelimit-remaining-requests'], '2');
    assert.match(first.headers['x-ratelimit-reset-requests'], /^(19|20)s$/);
    assert.equal(first.headers['x-ratelimit-limit-tokens'], '6000');
    const reserved = Number(first.headers['x-ratelimit-remaining-tokens']);
    // 6000 less 5000, less the prompt, and 100 more for each second that a slow machine takes.
    assert.ok(reserved > 900 && reserved < 1500, `5000 are reserved: ${reserved}`);
    assert.match(first.headers['x-ratelimit-reset-tokens'], /^5\ds$/);

    const second = await post('small', { max_tokens: 900 });
    assert.equal(second.status, 200, 'what was not used is back');
    const third = await post('small', { max_tokens: 5950 });
    const error = assertApiError(third, 429);
    assert.equal(error.code, 'rate_limit_exceeded');
    assert.ok(Number(third.headers['retry-after-ms']) < 3000, third.headers['retry-after-ms']);
    assert.equal(third.headers['x-ratelimit-remaining-requests'], '1', 'a refused request costs nothing');

    const tooLarge = await post('small', { max_tokens: 7000 });
    assertApiError(tooLarge, 429);
    assert.equal(tooLarge.headers['x-should-retry'], 'false');

    assert.equal((await post('small', { max_tokens: 10 })).status, 200);
    const openai = gateway.client({ apiKey: secrets.small });
    const failure = await openai.chat.completions.create(chat('m')).catch(caught => caught);
    assert.ok(failure instanceof OpenAI.RateLimitError, String(failure));
    assert.equal(failure.code, 'rate_limit_exceeded');
    const wait = Number(failure.headers.get('retry-after'));
    assert.ok(wait >= 15 && wait <= 30, `${wait} s`);
    const free = await post('free');
    assert.equal(free.status, 200, 'keys do not share limits');
    assert.equal(free.headers['x-ratelimit-limit-requests'], '1', 'a worker of its own may tell its limits');
    assert.equal(await metric(gateway, 'heng_shed_total{model="m",reason="key_requests"}'), 1);
    assert.equal(await metric(gateway, 'heng_shed_total{model="m",reason="key_tokens"}'), 2);
    assert.equal(await metric(gateway, 'heng_key_limit{key="small",limit="requests_per_minute"}'), 3);
  });

  test('requests at a time, those that wait included, until they end or leave', async () => {
    const worker = await startGatedUpstream();
    const { gateway, headers } = await startWithKeys(worker, { two: ['--concurrent', '2'] });
    const first = ask(gateway, 'a', headers('two'));
    await until('the first is there', () => worker.held.length === 1);
    const second = ask(gateway, 'b', headers('two'));
    second.catch(() => {});
    await queued(gateway, 1);
    assert.match(assertApiError(await ask(gateway, 'c', headers('two')), 429).message, /2 requests/);
    second.leave();
    await queued(gateway, 0);
    const third = ask(gateway, 'd', headers('two'));
    await queued(gateway, 1);
    const opening = setInterval(() => worker.open(1), 10);
    assert.equal((await first).status, 200);
    assert.equal((await third).status, 200);
    clearInterval(opening);
  });

  test('a tenant with two keys has one share, and the urgent go first', async () => {
    const worker = await startGatedUpstream();
    const { gateway, headers } = await startWithKeys(worker, {
      flood: ['--tenant', 'one'],
      flood2: ['--tenant', 'one'],
      calm: ['--tenant', 'two'],
      boss: ['--priority', '9'],
    });
    const answers = [ask(gateway, 'first', headers('flood'))];
    await until('the first is there', () => worker.held.length === 1);
    for (let i = 0; i < 20; ++i) answers.push(ask(gateway, 'one', headers(i % 2 ? 'flood' : 'flood2')));
    await queued(gateway, 20);
    for (let i = 0; i < 5; ++i) answers.push(ask(gateway, 'two', headers('calm')));
    await queued(gateway, 25);
    answers.push(ask(gateway, 'boss', headers('boss')));
    await queued(gateway, 26);
    const opening = setInterval(() => worker.open(1), 5);
    await Promise.all(answers);
    clearInterval(opening);
    const order = worker.users().slice(1);
    assert.equal(order[0], 'boss');
    const firstTen = order.slice(1, 11).filter(user => user === 'two').length;
    assert.ok(firstTen >= 4, `half of the first ten are the other tenant's: ${order}`);
  });
});

/// Counts answers of `seconds` of open load: `perSecond` chat requests, each given up after `patienceMs`.
async function load(gateway, { perSecond, seconds, patienceMs = 60_000, sink }) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
  const body = JSON.stringify(chat('m', { max_tokens: 40 }));
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  const began = performance.now();
  const all = [];
  for (let sent = 0; sent < perSecond * seconds; ++sent) {
    const late = began + (sent * 1000) / perSecond - performance.now();
    if (late > 1) await sleep(late);
    const outgoing = http.request(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers, agent });
    const at = performance.now();
    const done = new Promise(resolve => {
      const patience = setTimeout(() => outgoing.destroy(), patienceMs);
      const end = status => {
        clearTimeout(patience);
        sink.push({ at, end: performance.now(), status });
        resolve();
      };
      outgoing.on('error', () => end('left'));
      outgoing.on('response', incoming => {
        incoming.resume();
        incoming.on('end', () => end(incoming.statusCode));
      });
    });
    outgoing.end(body);
    all.push(done);
  }
  return Promise.all(all).then(() => agent.destroy());
}

test('three times too much for a while: goodput holds, and is back within seconds', async () => {
  // About 8 requests at a time of 40 steps of 11 ms: some 18 requests/s each.
  const engines = await Promise.all(
    [1, 2].map(() => startEngine({ model: 'm', args: ['--max-num-seqs', '8'] })),
  );
  const config = pools(engines, { queue: { length: 60, timeout: '5s' } });
  config.pools[0].worker_max_in_flight = 8;
  const gateway = await startGateway(config);
  const answers = [];
  await load(gateway, { perSecond: 10, seconds: 2, sink: [] });
  const capacityFrom = performance.now();
  await load(gateway, { perSecond: 90, seconds: 8, patienceMs: 10_000, sink: answers });
  const served = answers.filter(one => one.status === 200);
  const seconds = (Math.max(...served.map(one => one.end)) - capacityFrom) / 1000;
  const goodput = served.length / seconds;
  const statuses = Object.groupBy(answers, one => one.status);
  assert.ok(served.length > 0 && (statuses[429]?.length ?? 0) > 0, JSON.stringify(Object.keys(statuses)));
  assert.deepEqual(Object.keys(statuses).sort(), ['200', '429'], 'served or told to come back, nothing else');
  const waits = served.map(one => one.end - one.at).sort((a, b) => a - b);
  assert.ok(waits.at(-1) < 6500, `nobody waits longer than the queue lets them: ${waits.at(-1)} ms`);

  const after = [];
  await load(gateway, { perSecond: Math.floor(goodput * 0.6), seconds: 6, sink: after });
  assert.ok(after.every(one => one.status === 200), 'everybody is served again');
  const late = after.slice(after.length / 2).map(one => one.end - one.at);
  assert.ok(Math.max(...late) < 2500, `and soon: ${Math.max(...late)} ms`);
  assert.equal((await poolOf(gateway)).queued, 0);
  assert.ok((await gateway.admin('/api/v1/workers')).json().workers.every(one => one.in_flight === 0));
});

test('a learned limit keeps the queue out of the engines', async () => {
  const engine = await startEngine({ model: 'm', args: ['--max-num-seqs', '12'] });
  const config = pools(engine, { queue: { length: 500, timeout: '20s' } });
  config.pools[0].worker_max_in_flight = 'adaptive';
  const gateway = await startGateway(config);
  const sink = [];
  const stop = performance.now() + 9000;
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
  const body = JSON.stringify(chat('m', { max_tokens: 20, stream: true }));
  const one = async () => {
    while (performance.now() < stop) {
      const outgoing = http.request(`${gateway.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        agent,
      });
      outgoing.end(body);
      const [incoming] = await once(outgoing, 'response');
      incoming.resume();
      await once(incoming, 'end');
      sink.push(incoming.statusCode);
    }
  };
  await Promise.all(Array.from({ length: 160 }, one));
  agent.destroy();
  assert.ok(sink.every(status => status === 200));
  const limit = await metric(gateway, `heng_worker_inflight_limit{model="m",worker="${engine.name}"}`);
  assert.ok(limit >= 6 && limit <= 80, `160 clients, a batch of 12: limit ${limit}`);
});
