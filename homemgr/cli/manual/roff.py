"""Putting a manual page together: headings, paragraphs, lists, with man(7)'s requests.

Text goes in as plain text, in which **double stars** stand around what is typed as it is
and `backquotes` around commands; nothing in it can become a request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_BOLD = re.compile(r"\*\*(.+?)\*\*|`(.+?)`")


class Page:
    """One page as it grows; `text` is all of it."""

    def __init__(self, name: str, section: int, summary: str) -> None:
        """``summary`` is half a sentence, for apropos(1)."""
        # No date: the same sources give the same page.
        self._lines = [f'.TH {name.upper()} {section} "" "homemgr" ""']
        self._is_fresh = True
        self.heading("NAME")
        self._lines.append(rf"{escaped(name)} \- {escaped(summary)}")

    @property
    def text(self) -> str:
        """The page."""
        return "\n".join(self._lines) + "\n"

    def heading(self, text: str) -> None:
        """A section."""
        self._lines.append(f'.SH "{escaped(text)}"')
        self._is_fresh = True

    def subheading(self, text: str) -> None:
        """A part of a section."""
        self._lines.append(f'.SS "{escaped(text)}"')
        self._is_fresh = True

    def paragraph(self, text: str) -> None:
        """Running text."""
        # Right behind a heading there is room already.
        if not self._is_fresh:
            self._lines.append(".PP")
        self._is_fresh = False
        self._lines += _running(text)

    def item(self, tags: Iterable[str], text: str) -> None:
        """One entry of a list: what it is about, in bold, and what is said of it."""
        self._is_fresh = False
        self._lines += [".TP", ", ".join(rf"\fB{escaped(tag)}\fR" for tag in tags)]
        self._lines += _running(text)

    def code(self, text: str) -> None:
        """Lines as they are."""
        lines = [_at_start(escaped(line)) for line in text.splitlines()]
        self._lines += [".PP"] * (not self._is_fresh)
        self._is_fresh = False
        self._lines += [".RS 4", ".nf", *lines, ".fi", ".RE"]


def escaped(text: str) -> str:
    """Plain text: hyphens stay hyphens when they are copied from the page."""
    return text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq").replace("'", r"\(aq")


def _running(text: str) -> list[str]:
    """Text in lines, one for each sentence, as roff wants them to space them well."""
    marked = _BOLD.sub(lambda found: f"\0{found[1] or found[2]}\1", " ".join(text.split()))
    shown = escaped(marked).replace("\0", r"\fB").replace("\1", r"\fR")
    return [_at_start(line) for line in re.split(r"(?<=[.:;?!]) (?=[A-Z\\])", shown)]


def _at_start(line: str) -> str:
    """A line that is none of roff's requests, whatever it begins with."""
    return rf"\&{line}" if line.startswith((".", "'")) else line
