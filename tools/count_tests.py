#!/usr/bin/env python3
"""Prints "PASSED FAILED" for a JUnit report of ctest, counting the single cases of GoogleTest programs."""
import re
import sys
import xml.etree.ElementTree as ElementTree


def count(report):
    passed = failed = 0
    for program in ElementTree.parse(report).iter('testcase'):
        output = program.findtext('system-out') or ''
        good = sum(map(int, re.findall(r'\[  PASSED  \] (\d+) test', output)))
        bad = sum(map(int, re.findall(r'\[  FAILED  \] (\d+) tests?, listed below', output)))
        if program.get('status') == 'run':
            passed += good or 1
        else:
            # A program that crashed counts once and loses its cases: nobody knows which would have passed.
            passed += good
            failed += bad or 1
    return passed, failed


if __name__ == '__main__':
    print(*count(sys.argv[1]))
