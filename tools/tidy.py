#!/usr/bin/env python3
"""Checks the house's rules on names, sizes and layout that compilers and formatters do not know."""
import ast
import pathlib
import re
import subprocess
import sys
import tempfile

from cxx_source import ROOT, code_only, line_of

COLUMNS_MAX, FILE_LINES_MAX, TEST_LINES_MAX, FUNCTION_LINES_MAX, VIRTUALS_MAX = 110, 600, 1200, 70, 5
CXX = {'.h', '.cc'}
SCRIPT = {'.mjs', '.js', '.ts', '.tsx'}
HASH_COMMENT = {'.py', '.sh', '.cmake'}
IGNORED = {'build', 'node_modules', '.git', '.cache', '__pycache__'}

# Split, so that this file keeps the rules it checks.
UNFINISHED = re.compile(r'\b(TO' r'DO|FIX' r'ME|XX' r'X)\b')
VAGUE = 'Manager|Helper|Utils?|Impl'
VAGUE_NAME = re.compile(rf'\b\w*(?:{VAGUE})(?![a-z])\w*|\b(?:\w*_)?(?:{VAGUE.lower()})(?:_\w*)?\b')
SCOPE = re.compile(
    r'^(?:template\s*<.*>\s*)?(?:inline\s+|typedef\s+)*(namespace|class|struct|union|enum|extern)\b',
    re.DOTALL)
CALL_END = re.compile(
    r'\)\s*(?:(?:const|noexcept|override|final|mutable|try|&&?)\s*|noexcept\s*\(.*\)|requires\b.*|->[^;]*)*$',
    re.DOTALL)


def scopes(code):
    """Yields (kind, head, start, end) of each brace pair that is not inside a function."""
    stack, head_start, in_function = [], 0, 0
    for match in re.finditer(r'[{};]', code):
        at, mark = match.start(), match.group()
        head = code[head_start:at]
        if mark == '{':
            kind = classify(head)
            stack.append((kind, head, head_start))
            in_function += kind == 'function'
            if kind != 'initialiser':
                head_start = at + 1
        elif mark == '}' and stack:
            kind, head, start = stack.pop()
            in_function -= kind == 'function'
            if kind == 'initialiser':
                continue
            if not in_function:
                start += len(head) - len(head.lstrip())
                yield kind, ' '.join(head.split()), start, at
            head_start = at + 1
        elif mark == ';' and (not stack or stack[-1][0] != 'initialiser'):
            head_start = at + 1


def classify(head):
    head = re.sub(r'^\s*#.*$', '', head, flags=re.MULTILINE).strip()
    head = re.sub(r'^(?:(?:public|private|protected)\s*:\s*)+', '', head)
    scope = SCOPE.match(head)
    if scope and not CALL_END.search(head):
        return 'class' if scope.group(1) in ('class', 'struct') else 'other'
    # `Name() : member_{...}` and `= Type{...}`: the function's own brace, or none, comes later.
    members = re.search(r'\)\s*(?:noexcept\s*)?:[^:]', head)
    if members and re.search(r'[\w>]$', head) and not CALL_END.search(head):
        return 'initialiser'
    if CALL_END.search(head) or (members and head.endswith('}')):
        return 'function'
    return 'initialiser' if re.search(r'[\w>=,(]$', head) and not head.startswith('do') else 'other'


def check_cxx(path, text):
    code = code_only(text)
    for kind, head, start, end in scopes(code):
        lines = code.count('\n', start, end) + 1
        name = head[:60]
        if kind == 'function' and lines > FUNCTION_LINES_MAX:
            yield line_of(code, start), f'function of {lines} lines, at most {FUNCTION_LINES_MAX}: {name}'
        if kind == 'class':
            virtuals = len(re.findall(r'\bvirtual\b(?!\s*~)', code[start:end]))
            if virtuals > VIRTUALS_MAX:
                yield line_of(code, start), f'{virtuals} virtual functions, at most {VIRTUALS_MAX}: {name}'
    if path.suffix == '.h' and not re.search(r'^#pragma once$', text, re.MULTILINE):
        yield 1, 'header without #pragma once'
    for match in VAGUE_NAME.finditer(re.sub(r'#include.*', '', code)):
        yield line_of(code, match.start()), f'say what {match.group()} does instead of {VAGUE}'
    if path.name.endswith('_test.cc'):
        for match in re.finditer(r'\b(sleep_for|sleep_until|usleep|nanosleep|sleep)\s*\(', code):
            yield line_of(code, match.start()), 'a unit test never sleeps: inject the clock'


def check_python(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.lineno, f'function of {lines} lines, at most {FUNCTION_LINES_MAX}: {node.name}'


def check_opening(path, lines):
    """The first comment says in a sentence what the file is for."""
    first = 1 if lines and lines[0].startswith('#!') else 0
    if path.suffix in CXX | SCRIPT:
        pattern, opening = r'// \S', '//'
    elif lines[first:] and lines[first].startswith('"""'):
        pattern, opening = r'"""[A-Z]', ''
    else:
        pattern, opening = r'# \S', '#'
    block = []
    for line in lines[first:]:
        if opening and not line.startswith(opening):
            break
        block.append(line)
        if not opening and len(block) > 5:
            break
    if not block or not re.match(pattern, block[0]) or not re.search(r'\.(\s|"|$)', '\n'.join(block)):
        yield first + 1, 'the file does not open with a sentence on its job'


def check_file(path, text):
    lines = text.split('\n')
    limit = TEST_LINES_MAX if re.search(r'_test\.cc$|\.test\.\w+$', path.name) else FILE_LINES_MAX
    if len(lines) - 1 > limit:
        yield limit, f'file of {len(lines) - 1} lines, at most {limit}'
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            yield number, f'line of {len(line)} columns, at most {COLUMNS_MAX}'
        if '\t' in line or '\r' in line:
            yield number, 'tab or carriage return'
        if line != line.rstrip():
            yield number, 'white space at the end of the line'
        if UNFINISHED.search(line):
            yield number, 'unfinished: do it, or open an issue'
    if text and not text.endswith('\n'):
        yield len(lines), 'no newline at the end of the file'
    if re.search(rf'(^|[_.-])({VAGUE.lower()})([_.-]|$)', path.name):
        yield 1, f'file name says {VAGUE.lower()} instead of what is inside'
    yield from check_opening(path, lines)
    if path.suffix in CXX:
        if not re.fullmatch(r'[a-z0-9_]+', path.stem):
            yield 1, 'C++ files have snake_case names'
        yield from check_cxx(path, text)
    elif path.suffix == '.py' or lines[0].endswith('python3'):
        yield from check_python(text)


def is_ours(path):
    if IGNORED & set(path.parts) or path.is_symlink():
        return False
    if path.suffix in CXX | SCRIPT | HASH_COMMENT or path.name == 'CMakeLists.txt':
        return True
    if path.suffix:
        return False
    with path.open('rb') as file:
        return file.read(2) == b'#!'


def check(root, paths):
    problems = []
    for path in sorted(paths):
        if (root / path).is_file() and is_ours(root / path):
            found = check_file(path, (root / path).read_text())
            problems += [f'{path}:{line}: {message}' for line, message in sorted(found)]
    return problems


def tracked(root):
    """All files that are, or would be, under version control; all files where there is no git."""
    command = ['git', '-c', 'safe.directory=*', '-C', root, 'ls-files', '-co', '--exclude-standard']
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return [pathlib.Path(name) for name in listing.stdout.splitlines()]
    return [path.relative_to(root) for path in root.rglob('*') if path.is_file() and not path.is_symlink()]


CLEAN = {
    'src/good.h': '''// Says what it is for.
#pragma once
class Utilization final : public Base {
 public:
  explicit Utilization(int a) noexcept : a_{a}, b_{1} { run(); }
''' + '  virtual void f() const;\n' * 5 + '''  virtual ~Utilization();
};
constexpr int kTable[] = {
''' + '  1,\n' * 80 + '};\n',
    'src/good_test.cc': '// Tests what is good.\nTEST(Good, Works) {\n' + '  f();\n' * 68 + '}\n',
    'run.sh': '#!/bin/sh\n# Runs.\n',
    'tools/a.py': '#!/usr/bin/env python3\n"""Does a thing."""\n',
}


def planted():
    """(file, text, line, part of the message): one violation each."""
    long_body = '  f();\n' * FUNCTION_LINES_MAX
    head = '// A file.\n'
    yield 'src/a.cc', 'int x;\n', 1, 'does not open'
    yield 'src/a.cc', '// no sentence\nint x;\n', 1, 'does not open'
    yield 'src/a.cc', head + 'int x;  //' + ' x' * 55 + '\n', 2, 'columns'
    yield 'src/a.cc', head + 'int x;\n' * FILE_LINES_MAX, FILE_LINES_MAX, 'file of'
    yield 'src/a_test.cc', head + 'int x;\n' * TEST_LINES_MAX, TEST_LINES_MAX, 'file of'
    yield 'src/a.cc', head + '\tint x;\n', 2, 'tab'
    yield 'src/a.cc', head + 'int x; \n', 2, 'white space'
    yield 'src/a.cc', head + 'int x;', 2, 'no newline'
    yield 'src/a.cc', head + '// TO' + 'DO more\n', 2, 'unfinished'
    yield 'src/a.h', head + 'int x;\n', 1, 'pragma once'
    yield 'src/BadName.cc', head, 1, 'snake_case'
    yield 'src/string_util.cc', head, 1, 'file name'
    yield 'src/a.cc', head + 'class WorkerManager {};\n', 2, 'WorkerManager'
    yield 'src/a.cc', head + 'int f() { return impl_->x; }\n', 2, 'impl_'
    yield 'src/a.cc', head + 'class Reader {\n' + '  virtual void f() = 0;\n' * 6 + '};\n', 2, '6 virtual'
    yield 'src/a.cc', head + 'void f() {\n' + long_body + '}\n', 2, 'function of'
    members = 'A::A(int x) : x_{x}, y_{\n1} {\n'
    yield 'src/a.cc', head + 'namespace a {\n' + members + long_body + '}\n}\n', 3, 'function of'
    yield 'src/a.cc', head + 'auto f(int a = {}) const -> X {\n' + long_body + '}\n', 2, 'function of'
    method = 'struct A {\n int x = 1;\n\n int f() {\n'
    yield 'src/a.cc', head + method + long_body + ' }\n};\n', 5, 'function of'
    yield 'src/a_test.cc', head + 'void f() { std::this_thread::sleep_for(1s); }\n', 2, 'never sleeps'
    yield 'tools/b.py', '"""A tool."""\ndef f():\n' + '  x = 1\n' * FUNCTION_LINES_MAX, 2, 'function of'
    yield 'go', '#!/bin/sh\ntrue\n', 2, 'does not open'


def self_test():
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, text in CLEAN.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(text)
        failures += [f'clean file: {problem}' for problem in check(root, tracked(root))]
        for path, text, line, message in planted():
            (root / path).write_text(text)
            found = check(root, tracked(root))
            if len(found) != 1 or not found[0].startswith(f'{path}:{line}: ') or message not in found[0]:
                failures.append(f'planted "{message}" in {path}, found {found}')
            (root / path).unlink()
    return failures


if __name__ == '__main__':
    result = self_test() if sys.argv[1:] == ['--self-test'] else check(ROOT, tracked(ROOT))
    print('\n'.join(result), file=sys.stderr, end='\n' if result else '')
    sys.exit(1 if result else 0)
