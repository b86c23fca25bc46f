// The clients of bench/overload: tenants that ask through the official library, with its retries as they are.
//
// One argument, JSON: {port, keys: {tenant: key}, phases: [{name, seconds, rates: {tenant: per second}} or
// {name, seconds, concurrent}]}. Prints JSON: {phases: [{name, start, end}], requests: [...]}, in seconds
// of the monotonic clock.
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

import { Random } from '../test/soak/random.mjs';

const OpenAI = createRequire(new URL('../e2e/', import.meta.url))('openai');
const { port, keys, phases } = JSON.parse(process.argv[2]);
const random = new Random(1);
const now = () => Number(process.hrtime.bigint()) / 1e9;
const requests = [];

/// Asks once, as often as the library tries: never throws, how it went is in `requests`.
async function ask(tenant, phase, options = {}) {
  const one = { tenant, phase, begun: now(), attempts: 0 };
  requests.push(one);
  const counting = (...call) => (++one.attempts, fetch(...call));
  const client = new OpenAI({
    baseURL: `http://127.0.0.1:${port}/v1`,
    apiKey: keys[tenant],
    timeout: 10_000,
    fetch: counting,
    ...options,
  });
  try {
    const stream = await client.chat.completions.create({
      model: 'heng-8b',
      stream: true,
      max_tokens: 20,
      messages: [{ role: 'user', content: `Question ${requests.length}: why is the sky blue?` }],
    });
    one.end = 'broken';
    for await (const chunk of stream) if (chunk.choices[0]?.finish_reason) one.end = 'ok';
  } catch (error) {
    one.end = String(error.status ?? error.constructor.name);
  }
  one.ended = now();
}

/// Arrivals of a tenant, independent of what becomes of them.
async function arrive(tenant, phase, rate, until, asked) {
  for (let at = now(); ;) {
    at -= Math.log(1 - random.next()) / rate;
    if (at > until) return;
    if (at > now()) await sleep((at - now()) * 1000);
    asked.push(ask(tenant, phase));
  }
}

const played = [];
const asked = [];
for (const { name, seconds, rates, concurrent } of phases) {
  const start = now();
  const end = start + seconds;
  if (rates) {
    await Promise.all(Object.entries(rates).map(([tenant, rate]) => arrive(tenant, name, rate, end, asked)));
    await sleep(Math.max(0, end - now()) * 1000);
  } else {
    const tenants = Object.keys(keys);
    const loop = async i => {
      while (now() < end) await ask(tenants[i % tenants.length], name, { maxRetries: 0 });
    };
    await Promise.all(Array.from({ length: concurrent }, (_, i) => loop(i)));
  }
  played.push({ name, start, end });
}
await Promise.all(asked);
process.stdout.write(JSON.stringify({ phases: played, requests }));
