// Requests that belong together stay together: hash on a header, user or prompt, and session headers.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import { chat, startGateway, startUpstream, until } from './harness.mjs';

describe('affinity', () => {
  let upstreams, gateway;

  before(async () => {
    upstreams = await Promise.all([0, 1, 2].map(() => startUpstream()));
    const workers = upstreams.map(upstream => upstream.url);
    gateway = await startGateway({
      pools: [
        { model: 'by-header', policy: 'hash', hash_on: 'header:x-key', workers },
        { model: 'by-user', policy: 'hash', hash_on: 'user', workers },
        { model: 'by-prompt', policy: 'hash', hash_on: 'prompt', workers },
        { model: 'by-session', policy: 'round_robin', session_header: 'x-session', workers },
      ],
    });
  });

  const ask = async (body, headers = {}) => {
    const answer = await gateway.request('/v1/chat/completions', { body, headers });
    assert.equal(answer.status, 200, answer.text());
    return answer.worker;
  };
  const keys = Array.from({ length: 24 }, (_, i) => `key-${i}`);

  /// Every key has one worker in three rounds, and all three workers have keys. Returns key -> worker.
  async function assertSticky(askFor) {
    const home = new Map();
    for (let round = 0; round < 3; ++round) {
      for (const key of keys) {
        const worker = await askFor(key, round);
        assert.equal(worker, home.get(key) ?? worker, `${key} moved in round ${round}`);
        home.set(key, worker);
      }
    }
    assert.equal(new Set(home.values()).size, upstreams.length, 'every worker is used');
    return home;
  }

  it('by a header', () => assertSticky(key => ask(chat('by-header'), { 'x-key': key })));
  it('by the user', () => assertSticky(key => ask(chat('by-user', { user: key }))));
  it('by the start of the prompt: all turns of a conversation', () =>
    assertSticky((key, round) => {
      const content = 'answer '.repeat(round);
      const later =
        round === 0
          ? []
          : [
              { role: 'assistant', content },
              { role: 'user', content },
            ];
      return ask(chat('by-prompt', { messages: [{ role: 'user', content: `${key} ` }, ...later] }));
    }));
  it('by a session header, with any policy', () =>
    assertSticky(key => ask(chat('by-session'), { 'x-session': key })));

  it('requests without a key are spread', async () => {
    const used = new Set();
    for (let i = 0; i < 12; ++i) used.add(await ask(chat('by-session')));
    assert.equal(used.size, upstreams.length);
  });

  it('only the keys of a dead worker move', async () => {
    const home = await assertSticky(key => ask(chat('by-header'), { 'x-key': key }));
    const dead = upstreams.at(-1);
    await dead.close();
    await until('the dead worker is left out', async () => {
      const lost = keys.find(key => home.get(key) === dead.name);
      return (await ask(chat('by-header'), { 'x-key': lost })) !== dead.name;
    });
    for (const key of keys) {
      const worker = await ask(chat('by-header'), { 'x-key': key });
      if (home.get(key) !== dead.name) assert.equal(worker, home.get(key), `${key} moved without need`);
      else assert.notEqual(worker, dead.name);
    }
  });
});
