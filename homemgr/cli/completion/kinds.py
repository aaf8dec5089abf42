"""What may stand in the place of a value or a word, read from how the tables call it.

A placeholder of lower-case words with bars between them lists all there are; one in
capitals names a kind of thing. Knows no shell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from homemgr.cli.verb_table import COMMON, VERBS, options_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.cli.arguments import Option
    from homemgr.cli.verb_table import Verb

NOTHING, WORDS, FILE, DIRECTORY, HOME, GROUP, HOST, KEY = (
    "nothing", "words", "file", "directory", "home", "group", "host", "key"
)  # fmt: skip

_BY_PLACEHOLDER = {
    "DIR": DIRECTORY,
    "FILE": FILE,
    "FILE|-": FILE,
    "PATH": FILE,
    "[NAME=]PATH": FILE,
    "USER": HOME,
    "GROUPS": GROUP,
    "HOST": HOST,
    "[LOGIN@]HOST": HOST,
    "[[LOGIN@]HOST]": HOST,
    "[USER@]HOST": HOST,
    "NAME": KEY,
}
#: A word list: two or more words without capitals.
_CHOICE = re.compile(r"[a-z0-9-]+(?:\|[a-z0-9-]+)+")


class Kind(NamedTuple):
    """What is offered: one of the names above, and for WORDS which."""

    name: str
    words: tuple[str, ...] = ()


class Row(NamedTuple):
    """One verb as a shell has to know it."""

    name: str
    help: str
    options: tuple[Option, ...]
    #: What each word after the verb is; the last one also what follows it, if it may be repeated.
    places: tuple[Kind, ...]
    repeats: bool


def rows() -> Iterator[Row]:
    """Every verb."""
    for name, verb in VERBS.items():
        options = (*options_of(verb), *COMMON)
        yield Row(name, verb.help, options, _places(verb), verb.usage.endswith(("...", "...]")))


def of_option(option: Option) -> Kind:
    """What the value of an option may be."""
    value = option.value.removeprefix("[=").removesuffix("]") if option.may_lack_value else ""
    value = value or option.value
    if value == "BOOL":
        return Kind(WORDS, ("yes", "no"))
    if _CHOICE.fullmatch(value):
        return Kind(WORDS, tuple(value.split("|")))
    kind = _BY_PLACEHOLDER.get(value, NOTHING)
    # Of words after a verb a name is that of a signing key; the value of an option is any text.
    return Kind(NOTHING if kind == KEY else kind)


def _places(verb: Verb) -> tuple[Kind, ...]:
    return tuple(map(_of_word, verb.usage.split()))


def _of_word(text: str) -> Kind:
    word = text.removesuffix("...]").removesuffix("...").replace("...", "")
    bare = word.strip("[]") if word.strip("[]") in _BY_PLACEHOLDER else word
    if bare in _BY_PLACEHOLDER:
        return Kind(_BY_PLACEHOLDER[bare])
    if _CHOICE.fullmatch(word.strip("[]")):
        return Kind(WORDS, tuple(word.strip("[]").split("|")))
    return Kind(NOTHING)
