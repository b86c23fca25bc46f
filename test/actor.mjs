// What every actor of a `.fault` file is: somebody who does the steps that name it. Each `do_VERB` is one
// thing it can do; test/README.md lists them.
import assert from 'node:assert/strict';

import { sleep } from '../e2e/harness.mjs';
import { bytesOf, fill } from './script.mjs';

const patience = '3s';

/// "200ms" -> 200
export function milliseconds(text) {
  const [, number, unit] = /^(\d+)(ms|s)$/.exec(text) ?? assert.fail(`'${text}' is no time: 200ms, 5s`);
  return Number(number) * (unit === 's' ? 1000 : 1);
}

export const latin1 = text => Buffer.from(text, 'latin1');

/// The words of a step after its verb, taken from the front.
export class Words {
  constructor(words, values) {
    this.left = words.map(word => ({ ...word, text: fill(word.text, values) }));
    const within = this.left.findIndex(word => !word.quoted && word.text === 'within');
    this.timeoutMs = milliseconds(within < 0 ? patience : this.left.splice(within, 2)[1].text);
  }
  /// The next one, if it is a word (of that text), not a quoted text.
  word(wanted) {
    const next = this.left[0];
    if (!next || next.quoted || (wanted !== undefined && next.text !== wanted)) return undefined;
    return this.left.shift().text;
  }
  /// All quoted texts that come now, as one; undefined without any.
  text() {
    let all;
    while (this.left[0]?.quoted) all = (all ?? '') + bytesOf(this.left.shift());
    return all;
  }
  duration() {
    return milliseconds(this.word() ?? '');
  }
  number() {
    return Number(this.word());
  }
  /// `with "name: value"...` as an object.
  headers() {
    const headers = {};
    if (!this.word('with')) return headers;
    while (this.left[0]?.quoted) {
      const field = bytesOf(this.left.shift());
      headers[field.slice(0, field.indexOf(':')).toLowerCase()] = field.slice(field.indexOf(':') + 1).trim();
    }
    return headers;
  }
  end() {
    assert.equal(this.left.length, 0, `not understood: ${this.left.map(word => word.text).join(' ')}`);
  }
}

/// Calls `do_VERB` of an actor; `expect` and its like are spelt `do_expect_...`.
export async function perform(actor, step, values) {
  const words = new Words(step.words, values);
  let verb = words.word();
  if (words.left[0] && !words.left[0].quoted && actor[`do_${verb}_${words.left[0].text}`]) {
    verb += `_${words.word()}`;
  }
  const action = actor[`do_${verb}`];
  assert.ok(action, `there is no '${verb}' for ${step.actor}`);
  await action.call(actor, words);
  words.end();
}

export class Actor {
  do_wait(words) {
    return sleep(words.duration());
  }
}
