"""Reads C++ sources for the checks: finds the files and blanks what is not code."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent

_NOT_CODE = re.compile(
    r'//[^\n]*'
    r'|/\*.*?\*/'
    r'|R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9A-Za-z_])(?:u8|[uUL])?'(?:\\.|[^'\\\n])+'",
    re.DOTALL)


def code_only(text, keep_strings=False):
    """The text with comments and literals replaced by spaces: lines and columns stay where they were."""

    def blank(match):
        found = match.group()
        if keep_strings and not found.startswith('/'):
            return found
        return re.sub(r'[^\n]', ' ', found)

    return _NOT_CODE.sub(blank, text)


def line_of(text, offset):
    return text.count('\n', 0, offset) + 1
