// Plays every conversation of test/faults (or those of HENG_FAULTS) against the built program, two at a time.
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';

import { Scene } from './scene.mjs';
import { parseScript } from './script.mjs';

const folder = path.join(import.meta.dirname, 'faults');
const paths = process.env.HENG_FAULTS
  ? process.env.HENG_FAULTS.split('\n')
  : fs
      .readdirSync(folder)
      .filter(name => name.endsWith('.fault'))
      .sort()
      .map(name => path.join(folder, name));

const scripts = paths.map(file =>
  parseScript(path.relative(process.cwd(), file), fs.readFileSync(file, 'latin1')),
);
const shown = text => JSON.stringify(text.length > 50 ? `${text.slice(0, 40)}...` : text);

describe('faults', { concurrency: 2, timeout: 600_000 }, () => {
  for (const script of scripts) {
    const name = path.basename(script.path, '.fault');
    // A case may wait for what is still being built.
    describe(name, { concurrency: 1, skip: script.fields.awaits ?? false }, () => {
      const scene = new Scene(script);
      before(() => scene.start());
      after(() => scene.stop());
      for (const row of script.rows) {
        it([name, ...row.map(shown)].join(' '), { timeout: 30_000 }, () => scene.play(row));
      }
    });
  }
});
