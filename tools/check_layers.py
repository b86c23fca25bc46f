#!/usr/bin/env python3
"""Checks that sources include only lower layers and their own, and that decisions stay deterministic."""
import pathlib
import re
import sys
import tempfile

from cxx_source import ROOT, code_only, line_of

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)

# What makes a decision differ from one run to the next.
IMPURE_HEADERS = re.compile(
    r'(random|thread|mutex|shared_mutex|atomic|condition_variable|future|semaphore|barrier|latch|stop_token'
    r'|ctime|time\.h|sys/.*|netinet/.*|arpa/.*|netdb\.h|poll\.h|unistd\.h|pthread\.h|signal\.h|csignal'
    r'|event2/.*|event\.h|openssl/.*|curl/.*|spdlog/.*)$')
IMPURE_CODE = re.compile(
    r'\b(system_clock|steady_clock|high_resolution_clock|utc_clock|file_clock'
    r'|clock_gettime|gettimeofday|localtime\w*|gmtime\w*|s?rand(?=\s*\()|drand48|random_device|mt19937\w*'
    r'|j?thread(?=\s*[({\w])|sleep_for|sleep_until|getenv|secure_getenv|setenv|getpid)\b'
    r'|\bstd::(time|clock)\s*\(')
# Tests may read files and print; decisions may not.
IO_HEADERS = re.compile(r'(iostream|ostream|istream|fstream|cstdio|stdio\.h|filesystem|syslog\.h)$')
IO_CODE = re.compile(r'\b(std::(cout|cerr|clog)|f?printf\s*\(|fmt::print|puts\s*\(|fopen\s*\()')

OUT_OF_PLACE = 'has no place in a decision; pass in what it would give'


class Layers:
    """The rules of src/layers.txt."""

    def __init__(self, text):
        self.level = {}
        self.apart, self.excepted, self.pure = [], set(), set()
        for line in text.splitlines():
            line = line.split('#')[0].strip()
            key, colon, names = line.partition(':')
            if colon and key == 'apart':
                self.apart.append(names.split())
            elif colon and key == 'except':
                self.excepted.update(names.split())
            elif colon and key == 'pure':
                self.pure.update(names.split())
            elif colon:
                raise SystemExit(f'src/layers.txt: unknown rule {key!r}')
            else:
                depth = len(set(self.level.values()))
                self.level.update({name: depth for name in line.split()})


def check_includes(folder, text, src, layers, worlds):
    """Yields (line, message). `worlds` gathers which of the folders kept apart `folder` has included."""
    for match in INCLUDE.finditer(code_only(text, keep_strings=True)):
        bracket, path = match.groups()
        line = line_of(text, match.start(1))
        target = path.split('/')[0]
        if bracket == '<':
            if target in layers.level and (src / path).is_file():
                yield line, f'write "{path}": it is ours'
            continue
        if not (src / path).is_file():
            yield line, f'"{path}" is no file below src/; paths start there, and libraries are written <...>'
        elif target not in layers.level:
            yield line, f'folder {target}/ is not in src/layers.txt'
        elif target != folder and layers.level[target] >= layers.level[folder]:
            yield line, f'{folder}/ may include lower layers only, and {target}/ is none'
        for group in layers.apart:
            if target in group and folder not in layers.excepted:
                worlds.setdefault(folder, set()).add(target)
                if worlds[folder] >= set(group):
                    allowed = ' '.join(sorted(layers.excepted))
                    yield line, f'{folder}/ includes both {" and ".join(group)}, which only {allowed} may'


def check_purity(path, text):
    is_test = path.name.endswith('_test.cc')
    for match in INCLUDE.finditer(code_only(text, keep_strings=True)):
        name = match.group(2)
        if IMPURE_HEADERS.match(name) or (not is_test and IO_HEADERS.match(name)):
            yield line_of(text, match.start(1)), f'<{name}> {OUT_OF_PLACE}'
    code = code_only(text)
    for pattern in (IMPURE_CODE,) if is_test else (IMPURE_CODE, IO_CODE):
        for match in pattern.finditer(code):
            name = match.group().rstrip(' (')
            yield line_of(code, match.start()), f'{name} {OUT_OF_PLACE}'


def check(root):
    src = root / 'src'
    layers = Layers((src / 'layers.txt').read_text())
    worlds, problems = {}, []
    for path in sorted(src.rglob('*')):
        if path.suffix not in ('.h', '.cc'):
            continue
        folder = path.relative_to(src).parts[0]
        where = path.relative_to(root)
        text = path.read_text()
        if folder not in layers.level:
            problems.append(f'{where}:1: folder {folder} is not in src/layers.txt')
            continue
        found = list(check_includes(folder, text, src, layers, worlds))
        if folder in layers.pure:
            found += check_purity(path, text)
        problems += [f'{where}:{line}: {message}' for line, message in sorted(found)]
    return problems


def self_test():
    """Plants one violation at a time in a clean tree; exactly that one must be found, on its line."""
    rules = (ROOT / 'src/layers.txt').read_text()
    clean = {
        'base/time.h': '#pragma once\n',
        'policy/pick.cc': '#include "base/time.h"\n#include <vector>\n// std::thread in a comment\n',
        'policy/pick_test.cc': '#include <fstream>\n#include "policy/pick.h"\n',
        'policy/pick.h': 'const char* name = "steady_clock";\nint operand(int);\n',
        'flow/life.h': '#include "policy/pick.h"\n',
        'live/loop.h': '#include <thread>\n#include "base/time.h"\n',
        'sim/world.h': '#include "policy/pick.h"\n',
        'app/main.cc': '#include "live/loop.h"\n#include "sim/world.h"\n',
    }
    planted = {
        'base/up.h': ('#include "policy/pick.h"', 'lower layers only'),
        'sim/meet.cc': ('#include "live/loop.h"', 'lower layers only'),
        'control/side.cc': ('#include "flow/life.h"', 'lower layers only'),
        'gateway/both.cc': ('#include "live/loop.h" // one\n#include "sim/world.h"', 'includes both'),
        'policy/relative.cc': ('#include "pick.h"', 'no file below src/'),
        'policy/angle.cc': ('#include <base/time.h>', 'it is ours'),
        'policy/clock.cc': ('auto now = std::chrono::steady_clock::now();', 'steady_clock has no place'),
        'policy/dice.cc': ('#include <random>', '<random> has no place'),
        'policy/roll_test.cc': ('int x = rand();', 'rand has no place'),
        'flow/worker.cc': ('std::thread worker(run);', 'thread has no place'),
        'flow/environment.cc': ('auto home = std::getenv("HOME");', 'getenv has no place'),
        'control/log.cc': ('#include <spdlog/spdlog.h>', '<spdlog/spdlog.h> has no place'),
        'control/print.cc': ('void f() { std::printf("x"); }', 'printf has no place'),
        'control/socket.cc': ('#include <sys/socket.h>', '<sys/socket.h> has no place'),
        'control/lock.cc': ('#include <mutex>', '<mutex> has no place'),
        'attic/old.cc': ('', 'not in src/layers.txt'),
    }
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)

        def write(path, text):
            (root / 'src' / path).parent.mkdir(parents=True, exist_ok=True)
            (root / 'src' / path).write_text(text)

        write('layers.txt', rules)
        for path, text in clean.items():
            write(path, text)
        failures += [f'clean tree: {problem}' for problem in check(root)]
        for path, (text, message) in planted.items():
            write(path, '// planted\n' + text + '\n')
            line = 1 + len(text.splitlines())
            found = check(root)
            place = f'src/{path}:{line}: '
            if len(found) != 1 or not found[0].startswith(place) or message not in found[0]:
                failures.append(f'planted {path}, found {found}')
            (root / 'src' / path).unlink()
    return failures


if __name__ == '__main__':
    result = self_test() if sys.argv[1:] == ['--self-test'] else check(ROOT)
    print('\n'.join(result), file=sys.stderr, end='\n' if result else '')
    sys.exit(1 if result else 0)
