// Reads a `.fault` file: a conversation between clients, the gateway and its workers, one step a line.
// test/README.md explains the language.

/// What is wrong with a file, with where.
export class ScriptError extends Error {
  constructor(path, line, message) {
    super(`${path}:${line}: ${message}`);
  }
}

const dollar = '\ue000'; // no byte of a file can be this: they are read as latin1
const escapes = { r: '\r', n: '\n', t: '\t', 0: '\0', '"': '"', '\\': '\\', $: dollar };

/// "GET / HTTP/1.1\r\n" -> its characters (latin1: \xHH is a byte). A `\$` stays a plain dollar sign.
function unescape(text) {
  return text.replace(/\\(x([0-9a-fA-F]{2})|.)/g, (all, letter, hex) =>
    hex ? String.fromCharCode(parseInt(hex, 16)) : (escapes[letter] ?? all),
  );
}

/// Words and "quoted texts" of a line. A text may be repeated ("a"*1000); `|` separates columns.
export function tokens(text) {
  const found = [];
  const pattern = /\s*(?:"((?:\\.|[^"\\])*)"(?:\*(\d+))?|([^\s"]+))/y;
  while (pattern.lastIndex < text.trimEnd().length) {
    const match = pattern.exec(text);
    if (!match) throw new Error(`cannot read: ${text}`);
    const [, quoted, times, word] = match;
    found.push(
      word === undefined
        ? { text: unescape(quoted), times: Number(times ?? 1), quoted: true }
        : { text: word, times: 1, quoted: false },
    );
  }
  return found;
}

export const bytesOf = token => token.text.repeat(token.times);

/// `$name` or `${name}` of `values`; `$w1.address` is a name too.
export function fill(text, values) {
  return text
    .replace(/\$(?:\{(\w+)\}|(\w+)(\.\w+)?)/g, (all, braced, plain, more = '') => {
      const name = braced ?? plain;
      if (name + more in values) return values[name + more];
      if (name in values) return values[name] + more;
      throw new Error(`nothing is called ${all}; write \\$ for a dollar sign`);
    })
    .replaceAll(dollar, '$');
}

function columns(line) {
  const rows = [[]];
  for (const token of tokens(line)) {
    if (!token.quoted && token.text === '|') rows.push([]);
    else rows.at(-1).push(token);
  }
  return rows.map(row => row.map(bytesOf).join(row.some(token => token.quoted) ? '' : ' '));
}

/// What a file says: its head, configuration, files, API keys, variants and steps.
export function parseScript(path, source) {
  const script = { path, fields: {}, files: {}, keys: [], names: [], rows: [], steps: [] };
  const lines = source.split('\n');
  for (let at = 0; at < lines.length; ++at) {
    const line = lines[at];
    const fail = message => {
      throw new ScriptError(path, at + 1, message);
    };
    const block = () => {
      const inside = [];
      while (at + 1 < lines.length && /^(\s{2}|\s*$)/.test(lines[at + 1])) inside.push(lines[++at].slice(2));
      while (inside.at(-1)?.trim() === '') inside.pop();
      return inside;
    };
    if (/^\s*(#.*)?$/.test(line)) continue;
    const match = /^([\w-]+)(?: ([^:]*))?:(?: (.*))?$/.exec(line);
    if (!match) fail(`a line reads "WHO: WHAT": ${line}`);
    const [, name, more, rest = ''] = match;
    if (
      ['input', 'sent', 'heng', 'needs', 'limit', 'awaits'].includes(name) &&
      script.steps.length === 0 &&
      rest &&
      !more
    ) {
      script.fields[name] = rest.trim();
    } else if (name === 'config' && !rest) {
      script.config = block().join('\n');
    } else if (name === 'keys' && !rest) {
      script.keys = block();
    } else if (name === 'file' && more) {
      script.files[more] = block().join('\n') + '\n';
    } else if (name === 'each' && more) {
      script.names = more.split(' ');
      script.rows = rest ? tokens(rest).map(token => [bytesOf(token)]) : block().map(columns);
      for (const row of script.rows) {
        if (row.length !== script.names.length)
          fail(`${row.length} columns for ${script.names.length} names`);
      }
    } else if (!more && rest) {
      try {
        script.steps.push({ line: at + 1, actor: name, words: tokens(rest) });
      } catch (error) {
        fail(error.message);
      }
    } else {
      fail(`not understood: ${line}`);
    }
  }
  for (const field of ['input', 'sent', 'heng']) {
    if (!script.fields[field]) throw new ScriptError(path, 1, `the file does not say "${field}: ..."`);
  }
  script.numbers = script.fields.input.split(/[ ,]+/).map(Number);
  if (script.steps.length === 0) throw new ScriptError(path, lines.length, 'no steps');
  if (script.rows.length === 0) script.rows = [[]];
  return script;
}
