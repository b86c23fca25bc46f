// The simulator from the command line: determinism, the report, the log that feeds back in, mistakes.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';

import { heng, scratch } from './harness.mjs';

function write(name, text) {
  const target = path.join(scratch, name);
  fs.writeFileSync(target, text);
  return target;
}

async function results(...args) {
  const { code, stdout, stderr } = await heng('sim', '--json', ...args);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).results;
}

describe('heng sim', () => {
  it('gives the same bytes for the same seed, and others for another', async () => {
    const run = async (seed) => (await heng('sim', '--requests', '500', '--seed', seed, '--json')).stdout;
    assert.equal(await run('4'), await run('4'));
    assert.notEqual(await run('4'), await run('5'));
  });

  it('compares every policy there is', async () => {
    const all = await results('--requests', '300', '--speeds', '1,1,0.5', '--compare');
    const { stdout } = await heng('docs', 'policies');
    const documented = [...stdout.matchAll(/^\| \[`(\w+)`\]/gm)].map((match) => match[1]);
    assert.deepEqual(all.map((one) => one.policy).sort(), documented.sort());
    for (const one of all) assert.equal(one.completed, 300);
  });

  it('prints a table, and a page that needs nothing else', async () => {
    const page = path.join(scratch, 'sim.html');
    const { code, stdout } = await heng(
      ...['sim', '--requests', '300', '--policy', 'hash,round_robin', '--report', page],
    );
    assert.equal(code, 0);
    assert.match(stdout, /^POLICY .*TTFT p50.*\nhash .*\nround_robin .*\n$/);
    const html = fs.readFileSync(page, 'utf8');
    assert.ok(html.split('<svg').length > 10);
    assert.doesNotMatch(html, /<script|https?:|src=|nan|inf\b/i);
  });

  it('tells more workers apart than there are colours, and says what the traffic was', async () => {
    const page = path.join(scratch, 'many.html');
    const { code, stderr } = await heng(
      ...['sim', '--requests', '300', '--rate', '20', '--start', '10s', '--workers', '20', '--report', page],
    );
    assert.equal(code, 0, stderr);
    const html = fs.readFileSync(page, 'utf8');
    const keys = [...html.matchAll(/class="key">.*?(stroke=.*?)stroke-width/g)].map((one) => one[1]);
    assert.equal(keys.length, 21);
    assert.equal(new Set(keys.slice(1)).size, 20);
    assert.match(html, /made-up traffic, rate 20\/s, start 10 s, requests at most 300; 20 workers/);
  });

  it('leaves gaps where nothing was completed', async () => {
    const trace = [0, 300].map((at) => `{"arrival_s": ${at}, "prompt_tokens": 9, "output_tokens": 2}`);
    const page = path.join(scratch, 'gaps.html');
    const file = write('gaps.jsonl', trace.join('\n'));
    assert.equal((await heng('sim', '--trace', file, '--report', page)).code, 0);
    const html = fs.readFileSync(page, 'utf8');
    const [, line] = /Mean time to first token, s.*? d="(M[^"]*)"/s.exec(html);
    assert.equal(line.split('M').length - 1, 2, line);
  });

  it('reads its own log of requests as a trace', async () => {
    const log = path.join(scratch, 'sim-log.jsonl');
    await results('--requests', '200', '--log', log);
    const lines = fs.readFileSync(log, 'utf8').trim().split('\n').map(JSON.parse);
    assert.equal(lines.length, 200);
    const trace = lines
      .sort((a, b) => a.id - b.id)
      .map((line) => JSON.stringify(line, ['arrival_s', 'prompt_tokens', 'output_tokens']));
    const [again] = await results('--trace', write('again.jsonl', trace.join('\n')));
    assert.equal(again.completed, 200);
  });

  it('knows answers without stream, by share or by line', async () => {
    const [some] = await results('--requests', '300', '--streamed', '0.5');
    assert.equal(some.completed, 300);
    const lines = [true, false].map(
      (stream, at) =>
        `{"arrival_s": ${at}, "prompt_tokens": 9, "output_tokens": 20, "stream": ${stream}}`,
    );
    const log = path.join(scratch, 'plain.jsonl');
    await results('--trace', write('streams.jsonl', lines.join('\n')), '--log', log);
    const [streamed, plain] = fs.readFileSync(log, 'utf8').trim().split('\n').map(JSON.parse);
    assert.ok(streamed.stream && streamed.ttft_ms < streamed.duration_ms);
    assert.ok(!plain.stream && plain.ttft_ms === plain.duration_ms);
  });

  it('makes requests wait in the gateway where the scenario limits it', async () => {
    const scenario = write(
      'limits.yaml',
      'traffic: {requests: 400, rate: 40}\nworkers: 2\npolicies: [least_connections]\n' +
        'gateway: {worker_max_in_flight: 8, queue: {length: 20, timeout: 3s}}\n',
    );
    const page = path.join(scratch, 'limits.html');
    const { code, stdout } = await heng('sim', '-c', scenario, '--report', page);
    assert.equal(code, 0);
    assert.match(stdout, /QUEUED p50/);
    assert.match(fs.readFileSync(page, 'utf8'), /Requests waiting in the gateways/);
    const [one] = await results('-c', scenario);
    assert.equal(one.refused, one.queue_full + one.queue_timeout);
    assert.ok(one.queue_full > 0, JSON.stringify(one));
    assert.ok(one.queued_p99_ms > 1000 && one.queued_p99_ms <= 3100, JSON.stringify(one));
    assert.equal(one.requests, one.completed + one.refused);
  });

  it('warns once of unknown keys and of answers that were cut', async () => {
    const lines = [0, 1].map(
      (at) => `{"arrival_s": ${at}, "prompt_tokens": 9, "output_tokens": 20, "sesion": 1}`,
    );
    const scenario = write('cut.yaml', 'engine: {max_model_len: 25}\npolicies: [hash, round_robin]\n');
    const odd = write('odd.jsonl', lines.join('\n'));
    const { code, stderr } = await heng('sim', '-c', scenario, '--trace', odd);
    assert.equal(code, 0);
    assert.equal(stderr.match(/odd\.jsonl:1: a request has no key 'sesion'/g).length, 1, stderr);
    assert.match(stderr, /hash: 2 of 2 answers were cut.*\n.*round_robin: 2 of 2 answers were cut/);
    const both = { arrival_s: 0, prompt_tokens: 9, output_tokens: 2, prefix: [['a', 1]], hash_ids: [1] };
    const twice = await heng('sim', '--trace', write('both.jsonl', JSON.stringify(both)));
    assert.equal(twice.code, 1);
    assert.match(twice.stderr, /both\.jsonl:1: both `prefix` and `hash_ids`/);
  });

  it('says before it runs what it cannot read or write', async () => {
    const folder = await heng('sim', '-c', '.');
    assert.equal(folder.code, 3);
    assert.match(folder.stderr, /^\.: cannot read the file: Is a directory/);
    for (const flag of ['--log', '--report']) {
      const file = path.join(scratch, 'no', 'such');
      const { code, stdout, stderr } = await heng('sim', '--requests', '9', flag, file);
      assert.equal(code, 1, flag);
      assert.equal(stdout, '', flag);
      assert.match(stderr, /^heng: cannot write .*no\/such: No such file or directory\n$/);
    }
  });

  it('names the place of a mistake', async () => {
    const bad = await heng('sim', '-c', write('bad.yaml', 'seed: 1\nworkrs: 2\n'));
    assert.equal(bad.code, 3);
    assert.match(bad.stderr, /bad\.yaml:2:1: .*workrs.*`workers`/);
    const trace = await heng('sim', '--trace', write('bad.jsonl', '{"arrival_s":1,"prompt_tokens":1}\n'));
    assert.equal(trace.code, 1);
    assert.match(trace.stderr, /bad\.jsonl:1: `output_tokens` is missing/);
    const policy = await heng('sim', '--policy', 'hsh');
    assert.equal(policy.code, 2);
    assert.match(policy.stderr, /Did you mean `hash`/);
  });

  it('refuses flags that are out of range or against each other', async () => {
    for (const [wrong, words] of [
      ['--requests -5', /--requests.*-5/],
      ['--requests 0', /--requests.*0/],
      ['--seed -1', /--seed.*-1/],
      ['--workers 0', /--workers.*0/],
      ['--gateways -18446744073709551615', /--gateways/],
      ['--rate 0', /--rate must be above 0/],
      ['--rate nan', /--rate must be above 0/],
      ['--streamed 1.1', /--streamed lies between 0 and 1/],
      ['--rate 5 --scale 2', /--rate.*--scale|--scale.*--rate/],
      ['--workers 3 --speeds 1,1', /--speeds names 2 workers, --workers 3/],
      ['--network 11s', /--network is at most 10 s/],
    ]) {
      const { code, stdout, stderr } = await heng('sim', ...wrong.split(' '));
      assert.equal(code, 2, wrong);
      assert.equal(stdout, '', wrong);
      assert.match(stderr, words);
    }
    for (const wrong of ['key new x --tokens-per-minute -5', 'replay x --differences -5', 'engine --seed -1'])
      assert.equal((await heng(...wrong.split(' '))).code, 2, wrong);
    assert.equal((await heng('sim', '--requests', '9', '--workers', '2', '--speeds', '1,2')).code, 0);
  });

  it('fails when a bound is not kept', async () => {
    const scenario = 'traffic: {requests: 20}\nexpect:\n  - {measure: completed, max: 19}\n';
    const { code, stderr } = await heng('sim', '-c', write('bound.yaml', scenario));
    assert.equal(code, 1);
    assert.match(stderr, /line 3: completed of least_time is 20, expected at most 19/);
  });

  it('fails when a bound is on a policy that is not run', async () => {
    const scenario = 'traffic: {requests: 20}\nexpect:\n  - {measure: completed, max: 99, policy: hash}\n';
    const { code, stderr } = await heng('sim', '-c', write('unrun.yaml', scenario));
    assert.equal(code, 1);
    assert.match(stderr, /unrun\.yaml: line 3: a bound on completed of hash, which is not run/);
  });
});
