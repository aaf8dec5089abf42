"""Help texts, put together from the tables of verbs and options. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.verb_table import options_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homemgr.cli.arguments import Option
    from homemgr.cli.verb_table import Verb

_COLUMN = 31


def overview(verbs: Mapping[str, Verb], common: Iterable[Option]) -> str:
    """All verbs and the options they share."""
    lines = ["homemgr [OPTIONS...] VERB ...", "", "Home areas that nobody owns on disk."]
    lines += ["", "Verbs:"]
    lines += [_row(f"  {name} {verb.usage}", verb.help) for name, verb in verbs.items()]
    lines += ["", "Options:", *map(option_row, common)]
    lines += ["", "Options of a verb: `homemgr VERB --help`."]
    return "\n".join(lines)


def verb_help(name: str, verb: Verb, common: Iterable[Option]) -> str:
    """One verb with all its options."""
    lines = [f"homemgr {name} [OPTIONS...] {verb.usage}".rstrip(), "", f"{verb.help}.", ""]
    own = list(options_of(verb))
    if own:
        lines += ["Options:", *map(option_row, own), ""]
    return "\n".join([*lines, "Options of every verb:", *map(option_row, common)])


def option_row(option: Option) -> str:
    """One option with its help."""
    letter = f"-{option.short[0]}" if option.short else "  "
    long = f" --{option.name}" if option.name else ""
    if option.may_lack_value:
        return _row(f"  {letter}{long}{option.value}", option.help)
    value = (f"={option.value}" if option.name else f" {option.value}") if option.value else ""
    return _row(f"  {letter}{long}{value}", option.help)


def _row(left: str, right: str) -> str:
    left = left.rstrip()
    if len(left) >= _COLUMN - 1:
        return f"{left}\n{'':{_COLUMN}}{right}"
    return f"{left:{_COLUMN}}{right}"
