"""`homemgr`: find the verb, run it, word what went wrong. See homectl(1).

The one place of the command line where failures become text and exit codes.
Imports only what the given verb needs: start-up time is what people notice.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

from homemgr.cli.arguments import Option, UnknownOption, UsageError, is_utf8, parse
from homemgr.cli.verb_table import COMMON, MANY, VERBS, load, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from homemgr.cli.arguments import Arguments


def main(argv: list[str]) -> int:
    """Run the command line ``argv`` (without the program's name) and return the exit code."""
    sys.excepthook = _last_words
    _accept_any_text()
    verb = None
    try:
        verb, rest = _find_verb(argv)
        code = _run(verb, rest)
        # Here, where a full disk or a reader that left can still be answered.
        # Without a standard output (>&-) print does nothing, and there is nothing to flush.
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UsageError as error:
        from homemgr.cli.complain import complain

        complain(str(error), f"See `homemgr {verb or ''} --help`.".replace("  ", " "))
        return VERBS[verb].exit_code if verb else 1
    except KeyboardInterrupt:
        # What a shell makes of a program that SIGINT ended.
        return 130
    except BrokenPipeError:
        # The reader has seen enough: end as SIGPIPE would have ended us.
        return 141
    except OSError as error:
        # A file named on the command line, mostly; the service's failures are BusErrors.
        from homemgr.cli.complain import complain

        what = f"{error.filename}: " if error.filename else ""
        complain(f"{what}{error.strerror or error}")
        return 1
    finally:
        _let_go_of_output()


def _run(name: str | None, argv: list[str]) -> int:
    if name is None:
        return _without_verb(argv)
    verb = VERBS[name]
    module = load(verb.module)
    arguments = parse(argv, (*COMMON, *options_of(verb)), getattr(module, "WORDS", MANY))
    if arguments.has("help"):
        return _help(name)
    if arguments.has("version"):
        return _version()
    _refuse_remote(arguments)
    if not verb.fewest <= len(arguments.words) <= verb.most:
        raise UsageError(f"Expected `homemgr {name} {verb.usage}`.".replace(" `.", "`."))
    # Words are names, up to where a command of somebody else begins.
    for word in arguments.words[: getattr(module, "WORDS", MANY)]:
        if not is_utf8(word):
            raise UsageError(f"{word!a} is not UTF-8.")
    # Only now: help and wrong command lines need none of these.
    from homemgr.cli.complain import Reported, complain
    from homemgr.errors import HomeError
    from homemgr.wire.messages import BusError

    try:
        return int(module.run(arguments))
    except Reported:
        return 1
    except BusError as error:
        complain(error.message or error.name, bus_name=error.name)
    except HomeError as error:
        complain(error.message, error.hint)
    return 1


def _find_verb(argv: list[str]) -> tuple[str | None, list[str]]:
    """The first word and everything else; `list` is what homectl does without a word."""
    index = _first_word(argv)
    if index is None:
        # `homemgr --json=short` is a list too, as long as nobody asks for help.
        wants_text = any(text in ("-h", "--help", "--version") for text in argv)
        return (None if wants_text else "list"), argv
    name = argv[index]
    if name == "help" and index == len(argv) - 1:
        return None, ["--help"]
    if name not in VERBS:
        raise UsageError(f"Unknown verb {name}.")
    return name, argv[:index] + argv[index + 1 :]


def _first_word(argv: list[str]) -> int | None:
    options: tuple[Option, ...] = COMMON
    index = 0
    while index < len(argv):
        text = argv[index]
        if text == "--" or not text.startswith("-") or text == "-":
            return index + (text == "--") if index + (text == "--") < len(argv) else None
        try:
            # One option alone: it complains if its value is in the next argument.
            parse([text], options)
        except UnknownOption:
            if options is not COMMON:
                raise
            # Options of a verb that stand before it: only all the tables can tell.
            options = _all_options()
            continue
        except UsageError:
            index += 1
        index += 1
    return None


def _all_options() -> tuple[Option, ...]:
    rows: dict[tuple[str, str], Option] = {}
    for verb in VERBS.values():
        for option in (*COMMON, *options_of(verb)):
            rows.setdefault((option.name, option.short), option)
    return tuple(rows.values())


def _refuse_remote(arguments: Arguments) -> None:
    for name, advice in (("host", "ssh HOST homemgr ..."), ("machine", "a shell in it")):
        if arguments.has(name):
            raise UsageError(f"--{name}= is not supported: use {advice} instead.")


def _without_verb(argv: list[str]) -> int:
    arguments = parse(argv, COMMON)
    return _version() if arguments.has("version") else _help(None)


def _version() -> int:
    # Written in one place only, the metadata of the installed package.
    from importlib.metadata import PackageNotFoundError, version

    try:
        print("homemgr", version("homemgr"))
    except PackageNotFoundError:
        print("homemgr (not installed)")
    return 0


def _help(name: str | None) -> int:
    from homemgr.cli.help import overview, verb_help

    print(overview(VERBS, COMMON) if name is None else verb_help(name, VERBS[name], COMMON))
    return 0


def _accept_any_text() -> None:
    """A name that the locale cannot write is shown with question marks, not as a failure."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _let_go_of_output() -> None:
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        # Said already; at exit Python would complain once more.
        sys.stdout = None


def _last_words(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A bug of ours, in one line; HOMEMGR_DEBUG=1 shows where."""
    from os import environ

    if environ.get("HOMEMGR_DEBUG") == "1":
        sys.__excepthook__(kind, error, trace)
    elif not issubclass(kind, KeyboardInterrupt):
        text = f"homemgr: internal error: {kind.__name__}: {error}"
        print("".join(c if c.isprintable() else " " for c in text), file=sys.stderr)
        print("         Set HOMEMGR_DEBUG=1 to see where, and report it.", file=sys.stderr)
