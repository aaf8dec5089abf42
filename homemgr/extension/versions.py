"""Which of two versions is newer: the UAPI.10 version format specification, as systemd reads it.

Pure. No version is malformed; every two strings can be compared.
"""

from __future__ import annotations

import re
from functools import cmp_to_key
from typing import TypeVar

_Ordered = TypeVar("_Ordered", str, int)

_DIGITS = re.compile(r"[0-9]*")
_LETTERS = re.compile(r"[A-Za-z]*")
#: What means nothing but that something new begins.
_SEPARATORS = re.compile(r"[^A-Za-z0-9.~^-]*")

#: Marks in the order they are looked at; the version that has one is the older. The tilde
#: comes before all, even the end: a pre-release is older than nothing. Where the text of the
#: specification says otherwise (caret, a number against a word) this is what systemd does.
_MARKS = ("-", "^", ".")


def compare(a: str, b: str) -> int:
    """Negative if ``a`` is older than ``b``, positive if it is newer, 0 if they are equal."""
    while True:
        a, b = a[_end(_SEPARATORS, a) :], b[_end(_SEPARATORS, b) :]
        if order := _order(b.startswith("~"), a.startswith("~")):
            return order
        if a.startswith("~"):
            a, b = a[1:], b[1:]
        if not a or not b:
            return _order(bool(a), bool(b))
        for mark in _MARKS:
            if order := _order(b.startswith(mark), a.startswith(mark)):
                return order
            if a.startswith(mark):
                a, b = a[1:], b[1:]
        pattern = _DIGITS if a[:1].isdecimal() or b[:1].isdecimal() else _LETTERS
        order, a, b = _compare_prefixes(pattern, a, b)
        if order:
            return order


#: For `sorted`: oldest first.
sort_key = cmp_to_key(compare)


def _compare_prefixes(pattern: re.Pattern[str], a: str, b: str) -> tuple[int, str, str]:
    end_a, end_b = _end(pattern, a), _end(pattern, b)
    start_a, start_b = a[:end_a], b[:end_b]
    if pattern is _DIGITS:
        # A number, be it 0, is newer than none.
        order = _order(bool(start_a), bool(start_b))
        # As text, so that a long number costs no more than its length.
        start_a, start_b = start_a.lstrip("0"), start_b.lstrip("0")
        order = order or _order(len(start_a), len(start_b)) or _order(start_a, start_b)
    else:
        order = _order(start_a, start_b)
    return order, a[end_a:], b[end_b:]


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _order(a: _Ordered, b: _Ordered) -> int:
    return (a > b) - (a < b)
