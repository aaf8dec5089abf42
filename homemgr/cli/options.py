"""Options that several verbs share: of transfers, and the JSON object they make for the service."""

from __future__ import annotations

from homemgr.cli.arguments import Option, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

WAIT = Option(
    "wait", "", "SECONDS", "Wait for the user's logout that long, in the place of not at all"
)
SENDING = (
    Option("keep", "", "", "Only refresh a copy on the other machine; the home stays here"),
    Option("remove", "", "", "Delete the files here once the other machine has the home"),
    Option("undo", "", "", "Have the home back, unless somebody has used it there"),
    WAIT,
)
STORAGE = Option(
    "storage", "", "STORAGE", "What it is to be where it arrives, in the place of what it is"
)
QUIET = Option("quiet", "q", "", "Show no progress and no report, failures only")


def is_on(arguments: Arguments, name: str, *, by_default: bool) -> bool:
    """Whether the option ``name`` says yes; UsageError if it says neither yes nor no."""
    from homemgr.cli import convert

    text = arguments.value(name, "yes" if by_default else "no")
    try:
        return bool(convert.boolean(text))
    except ValueError as error:
        raise UsageError(f"--{name}={text}: expected {error}.") from error


def sending(arguments: Arguments) -> dict[str, object]:
    """The options of SendHome, except the host; UsageError if they contradict each other."""
    given = [name for name in ("keep", "remove", "undo") if arguments.has(name)]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} exclude each other.")
    return {**dict.fromkeys(given, True), **waiting(arguments)}


def waiting(arguments: Arguments) -> dict[str, object]:
    """How long the service waits for a logout; UsageError if that is no number."""
    return {"wait_s": _seconds(arguments.value("wait", "0"))}


def sending_words(arguments: Arguments) -> list[str]:
    """The same for the command line of the other machine."""
    words = [f"--{name}" for name in ("keep", "remove", "undo") if arguments.has(name)]
    return words + ([f"--wait={arguments.value('wait')}"] if arguments.has("wait") else [])


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"--wait={text}: expected a number of seconds.")
    return int(text)
