// Policy least_time: prompts go where their beginning is cached, others where there is the least to do.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { chat, startEngine, startGateway } from './harness.mjs';

const ask = (gateway, content) =>
  gateway.request('/v1/chat/completions', {
    body: chat('m', { messages: [{ role: 'user', content }], max_tokens: 4 }),
  });

describe('least_time', () => {
  it('sends a prompt to the worker that has its beginning cached', async () => {
    const engines = await Promise.all([1, 2, 3].map(() => startEngine({ model: 'm' })));
    const gateway = await startGateway({
      pools: [{ model: 'm', policy: 'least_time', workers: engines.map(({ url }) => url) }],
    });
    const documents = Array.from({ length: 6 }, (_, i) => `document ${i}: `.padEnd(8000, `text of ${i} `));
    const homes = [];
    for (const document of documents) homes.push((await ask(gateway, document)).worker);
    assert.ok(new Set(homes).size > 1, 'documents are spread');
    for (let turn = 0; turn < 3; ++turn) {
      for (const [i, document] of documents.entries()) {
        const answer = await ask(gateway, `${document} question ${turn}`);
        assert.equal(answer.status, 200, answer.text());
        assert.equal(answer.worker, homes[i]);
        assert.ok(JSON.parse(answer.text()).usage.prompt_tokens_details.cached_tokens > 1900);
      }
    }
  });

  it('spreads prompts that have nothing in common', async () => {
    const engines = await Promise.all([1, 2].map(() => startEngine({ model: 'm' })));
    const gateway = await startGateway({
      pools: [{ model: 'm', policy: 'least_time', workers: engines.map(({ url }) => url) }],
    });
    const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => ask(gateway, `${i} is short`)));
    for (const { name } of engines)
      assert.ok(answers.filter(({ worker }) => worker === name).length >= 12, `${name} takes part`);
  });
});
