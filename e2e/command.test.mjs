// The command line: checking a configuration, help, exit codes.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';

import { freePort, heng, Program, hengBinary, scratch, startUpstream } from './harness.mjs';

const good = `listen: 127.0.0.1:8080
admin: 127.0.0.1:8081
pools:
  - model: llama-3-8b
    policy: {name: dynamic_weight, alpha: 0.5, beta: 0.1}
    workers:
      - url: http://10.0.0.1:8000
      - {url: https://10.0.0.2/base, capacity: 200, weight: 2}
`;

function write(name, text) {
  const target = path.join(scratch, name);
  fs.writeFileSync(target, text);
  return target;
}

describe('heng check', () => {
  it('accepts a good file', async () => {
    const { code, stderr } = await heng('check', '-c', write('good.yaml', good));
    assert.equal(code, 0, stderr);
  });

  // What is replaced by what, where the mistake is then, and a word the message must contain.
  for (const [from, to, where, word] of [
    ['policy:', 'polcy:', '5:5', 'policy'],
    ['dynamic_weight', 'dynamic_weigth', '5:', 'dynamic_weight'],
    ['alpha: 0.5', 'alpha: lots', '5:', 'alpha'],
    ['beta: 0.1', 'beta: -1', '5:', 'beta'],
    ['weight: 2', 'weight: [2]', '8:', 'weight'],
    ['http://10.0.0.1:8000', 'ftp://10.0.0.1', '7:14', 'http'],
    ['listen: 127.0.0.1:8080', 'listen: here', '1:9', 'listen'],
    ['pools:\n', 'limits: {body_bytes: huge}\npools:\n', '3:', 'body_bytes'],
    ['pools:\n', 'timeouts: {connect: 5 parsecs}\npools:\n', '3:', 'connect'],
    ['- model: llama-3-8b\n', '- model: llama-3-8b\n    model: twice\n', '5:5', 'model'],
    ['    workers:\n', '    workers: ]\n', '6:', ''],
  ]) {
    it(`points at ${JSON.stringify(to.trim())}`, async () => {
      const file = write('bad.yaml', good.replace(from, to));
      const { code, stdout, stderr } = await heng('check', '-c', file);
      assert.equal(code, 3, stderr);
      assert.equal(stdout, '');
      assert.ok(
        stderr.split('\n').some(line => line.includes(`bad.yaml:${where}`) && line.includes(word)),
        stderr,
      );
    });
  }

  it('reports every mistake at once, in order', async () => {
    const { code, stderr } = await heng(
      'check',
      '-c',
      write('bad.yaml', good.replace('policy:', 'polcy:').replace('weight: 2', 'wieght: 2')),
    );
    assert.equal(code, 3);
    const lines = [...stderr.matchAll(/bad\.yaml:(\d+):\d+:/g)].map(match => Number(match[1]));
    assert.deepEqual(lines, [5, 8]);
  });

  it('says when there is no such file', async () => {
    const { code, stderr } = await heng('check', '-c', path.join(scratch, 'absent.yaml'));
    assert.equal(code, 3);
    assert.match(stderr, /absent\.yaml/);
  });
});

describe('heng', () => {
  it('serve refuses a wrong file as check does', async () => {
    const { code, stderr } = await heng('serve', '-c', write('bad.yaml', good.replace('policy:', 'polcy:')));
    assert.equal(code, 3);
    assert.match(stderr, /bad\.yaml:5:5: /);
  });

  it('serve says when its address is taken', async () => {
    const upstream = await startUpstream();
    const text = good
      .replace('127.0.0.1:8080', `127.0.0.1:${upstream.port}`)
      .replace('127.0.0.1:8081', `127.0.0.1:${await freePort()}`);
    const program = new Program('taken', hengBinary, ['serve', '-c', write('taken.yaml', text)]);
    assert.equal(await program.waitForEnd(), 1);
    assert.match(program.log(), new RegExp(`127\\.0\\.0\\.1:${upstream.port}`));
  });

  it('fails when its output is lost', async () => {
    const run = (line) => {
      const child = spawnSync('sh', ['-c', `exec "$0" ${line}`, hengBinary], { encoding: 'utf8' });
      return [child.status, child.stderr];
    };
    for (const args of ['--version', '--help', 'sim --help', 'docs policies', 'sim --requests 20 --json']) {
      const [full, words] = run(`${args} >/dev/full`);
      assert.equal(full, 1, args);
      assert.match(words, /^heng: cannot write /m);
      assert.equal(run(`${args} >&-`)[0], 1, args);
      assert.equal(run(`${args} >/dev/null`)[0], 0, args);
    }
  });

  it('has help and a version on stdout, and says what is wrong with a command on stderr', async () => {
    for (const args of [
      ['--help'],
      ['serve', '--help'],
      ['check', '--help'],
      ['engine', '--help'],
      ['workers', '--help'],
      ['--version'],
    ]) {
      const { code, stdout, stderr } = await heng(...args);
      assert.equal(code, 0, stderr);
      assert.ok(stdout.length > 4 && stderr === '', args.join(' '));
    }
    for (const args of [['nonsense'], ['serve', '--nonsense'], []]) {
      const { code, stdout, stderr } = await heng(...args);
      assert.equal(code, 2, args.join(' '));
      assert.equal(stdout, '');
      assert.ok(stderr.length > 0);
    }
  });
});
