"""`homemgr`: find the verb, run it, word what went wrong. See homectl(1).

The one place of the command line where failures become text and exit codes.
Imports only what the given verb needs: start-up time is what people notice.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

from homemgr.cli.arguments import Option, UnknownOption, UsageError, is_utf8, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType, TracebackType

    from homemgr.cli.arguments import Arguments

#: Understood with every verb, wherever they stand.
COMMON = (
    Option("help", "h", "", "Show this help"),
    Option("version", "", "", "Show the version"),
    Option("no-pager", "", "", "Accepted for compatibility: output is never paged"),
    Option("no-legend", "", "", "Show no header and footer"),
    Option("no-ask-password", "", "", "Ask for nothing, neither passwords nor authorization"),
    Option("json", "", "FORMAT", "Print JSON: pretty, short or off"),
    Option("", "j", "", "Same as --json=pretty on a terminal, --json=short otherwise"),
    Option("host", "H", "[USER@]HOST", "Not built: run homemgr through ssh instead"),
    Option("machine", "M", "CONTAINER", "Not built: run homemgr inside the container instead"),
)


#: Modules of verbs that homectl does not have.
_OUR_OWN = frozenset(
    {"setup", "unsetup", "demo", "extension", "migrate", "export", "import_home"}
    | {"transfers", "origins", "transfer", "check", "repair"}
)


class Verb:
    """One row of the table of verbs: its module, its words, what it does."""

    __slots__ = ("exit_code", "fewest", "help", "module", "most", "usage")

    def __init__(self, module: str, words: tuple[int, int], usage: str, text: str) -> None:
        """``words`` is how few and how many words may follow the verb."""
        self.module = module
        self.fewest, self.most = words
        self.usage = usage
        self.help = text
        # homectl answers a wrong command line with 1; verbs of our own follow the custom.
        self.exit_code = 2 if module in _OUR_OWN else 1


_MANY = 1 << 20

VERBS = {
    "list": Verb("list", (0, 0), "", "List home areas"),
    "activate": Verb("activate", (1, _MANY), "USER...", "Activate a home area"),
    "deactivate": Verb("deactivate", (1, _MANY), "USER...", "Deactivate a home area"),
    "deactivate-all": Verb("deactivate_all", (0, 0), "", "Deactivate all active home areas"),
    "with": Verb("with_home", (1, _MANY), "USER [COMMAND...]", "Run a command with a home area"),
    "authenticate": Verb("authenticate", (0, _MANY), "[USER...]", "Check credentials"),
    "inspect": Verb("inspect", (0, _MANY), "[USER...]", "Show a home area"),
    "create": Verb("create", (0, 1), "USER", "Create a home area"),
    "update": Verb("update", (0, 1), "[USER]", "Change a home area's user record"),
    "passwd": Verb("passwd", (0, 1), "[USER]", "Change the password of a home area"),
    "resize": Verb("resize", (1, 2), "USER [SIZE]", "Give a home area another size"),
    "rebalance": Verb("rebalance", (0, 0), "", "Share free space out among home areas"),
    "lock": Verb("lock", (1, _MANY), "USER...", "Make an active home area unreadable"),
    "unlock": Verb("unlock", (1, _MANY), "USER...", "Make a locked home area readable again"),
    "lock-all": Verb("lock_all", (0, 0), "", "Lock all home areas that can be locked"),
    "remove": Verb("remove", (1, _MANY), "USER...", "Remove a home area and its files"),
    "migrate": Verb(
        "migrate", (1, 2), "USER [[LOGIN@]HOST]", "Move a home area to another machine, or from one"
    ),
    "export": Verb("export", (2, 2), "USER FILE|-", "Write a home area to a file"),
    "import": Verb("import_home", (1, 1), "FILE|-", "Make a home area of an exported file"),
    "transfers": Verb(
        "transfers", (0, 2), "[list|forget USER]", "Home areas on their way, or gone"
    ),
    "origins": Verb(
        "origins", (0, 2), "[list|trust|forget FINGERPRINT]", "Machines that may send home areas"
    ),
    "transfer": Verb(
        "transfer", (2, 2), "receive|send USER", "The other end of migrate, run through ssh"
    ),
    "register": Verb("register", (0, _MANY), "[FILE...]", "Register users by their records alone"),
    "unregister": Verb(
        "unregister", (1, _MANY), "USER...", "Forget users, leave their files alone"
    ),
    "adopt": Verb("adopt", (1, _MANY), "PATH...", "Take in home areas that lie on disk"),
    "list-signing-keys": Verb("list_signing_keys", (0, 0), "", "List keys that records count by"),
    "get-signing-key": Verb(
        "get_signing_key", (0, _MANY), "[NAME...]", "Print public signing keys"
    ),
    "add-signing-key": Verb("add_signing_key", (0, _MANY), "[FILE...]", "Accept a signing key"),
    "remove-signing-key": Verb(
        "remove_signing_key", (1, _MANY), "NAME...", "Accept a signing key no longer"
    ),
    "check": Verb("check", (0, _MANY), "[USER...]", "Look what is wrong with home areas"),
    "repair": Verb("repair", (0, _MANY), "[USER...]", "Mend what is wrong with home areas"),
    "extension": Verb(
        "extension",
        (1, _MANY),
        "list|status|enable|disable|refresh|diff|discard|trust|distrust [ARGUMENT...]",
        "Extensions merged into home areas",
    ),
    "setup": Verb("setup", (0, 0), "", "Put units and policy in place, displace systemd-homed"),
    "unsetup": Verb("unsetup", (0, 0), "", "Take units and policy away, give systemd-homed back"),
    "demo": Verb("demo", (0, 0), "", "Show it all on a private bus, leave nothing behind"),
}


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
    arguments = parse(argv, (*COMMON, *module.OPTIONS), getattr(module, "WORDS", _MANY))
    if arguments.has("help"):
        return _help(name)
    if arguments.has("version"):
        return _version()
    _refuse_remote(arguments)
    if not verb.fewest <= len(arguments.words) <= verb.most:
        raise UsageError(f"Expected `homemgr {name} {verb.usage}`.".replace(" `.", "`."))
    # Words are names, up to where a command of somebody else begins.
    for word in arguments.words[: getattr(module, "WORDS", _MANY)]:
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


def load(name: str) -> ModuleType:
    """The module of a verb: it has OPTIONS and run(arguments)."""
    # importlib would be one more module to load; the name comes from our own table.
    return __import__(f"homemgr.cli.verbs.{name}", fromlist=["run"])


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
        for option in (*COMMON, *load(verb.module).OPTIONS):
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
