"""`homemgr extension COMMAND`: what is merged into homes, and the user's say in it.

The commands and what they send; how answers look is in `homemgr.cli.extension_text`.
Speaks to our own interface org.homemgr1.Manager.
"""

from __future__ import annotations

import json
from pwd import getpwnam

from homemgr.cli import extension_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import complain
from homemgr.cli.home1 import Homemgr1, own_name, with_agent
from homemgr.cli.output import json_format, print_json
from homemgr.cli.progress import ProgressLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from homemgr.cli.arguments import Arguments
    from homemgr.cli.extension_text import Answer

OPTIONS = (
    Option("user", "", "USER", "Whose home, if not your own"),
    Option("force", "", "", "refresh: also what programs use; they keep the files they hold"),
    Option("changed", "", "", "discard: also take back what was changed, not only deleted"),
)

_ALL = 1
_MANY = 1 << 20


def run(arguments: Arguments) -> int:
    """Find the command and run it."""
    name, *words = arguments.words
    if name not in _COMMANDS:
        raise UsageError(f"Unknown command {name}: expected one of {', '.join(_COMMANDS)}.")
    command = _COMMANDS[name]
    if not command.fewest <= len(words) <= command.most:
        usage = f"homemgr extension {name} {command.usage}".rstrip()
        raise UsageError(f"Expected `{usage}`.")
    for option in ("force", "changed"):
        if arguments.has(option) and option != command.option:
            raise UsageError(f"--{option} means nothing to `homemgr extension {name}`.")
    return command.run(Request(arguments, words))


class Request:
    """One command line, and the connection that answers it."""

    def __init__(self, arguments: Arguments, words: Sequence[str]) -> None:
        """``words`` are those after the command."""
        self.arguments = arguments
        self.words = words
        self.form = json_format(arguments)
        self.legend = not arguments.has("no-legend")
        self._service = Homemgr1(arguments)

    def user(self, word: str = "") -> str:
        """Whose home is meant: --user=, else ``word``, else the caller's own."""
        given = self.arguments.value("user")
        if given and word:
            raise UsageError(f"--user={given} and {word}: only one user can be meant.")
        return given or word or own_name()

    def only_user(self) -> str:
        """The same for commands that take nothing but the user's name."""
        return self.user(self.words[0] if self.words else "")

    def allow_asking(self) -> None:
        """Let polkit ask on this terminal."""
        with_agent(self._service)

    def follow(self, user: str, line: ProgressLine) -> None:
        """Show in ``line`` how far a refresh of the user's home is, once it is asked for."""

        def hear(told: list[object]) -> None:
            whose, *step = told
            if whose == user:
                line.show(extension_text.step(*step))

        if line.is_seen:
            self._service.listen("ExtensionProgress", hear)

    def ask(self, member: str, signature: str = "", *body: object) -> Answer:
        """The answer to one call."""
        (text,) = self._service.call(member, signature, *body).body
        answer: Answer = json.loads(str(text))
        return answer

    def tell(self, member: str, signature: str, *body: object) -> None:
        """A call without an answer."""
        self._service.call(member, signature, *body)

    def show(self, answer: Answer, as_text: Callable[..., None]) -> None:
        """Print an answer as JSON if that is wanted, as text otherwise."""
        if self.form:
            print_json(answer, self.form)
        else:
            as_text(answer, legend=self.legend)


def _list(request: Request) -> int:
    request.show(request.ask("ListExtensions"), extension_text.inventory)
    return 0


def _status(request: Request) -> int:
    answer = request.ask("GetExtensionStatus", "s", request.only_user())
    request.show(answer, extension_text.status)
    return 0


def _enable(request: Request) -> int:
    return _choose(request, "EnableExtension")


def _disable(request: Request) -> int:
    return _choose(request, "DisableExtension")


def _choose(request: Request, member: str) -> int:
    user = request.user()
    request.allow_asking()
    for name in request.words:
        request.tell(member, "ss", user, name)
    return 0


def _refresh(request: Request) -> int:
    user = request.only_user()
    request.allow_asking()
    flags = _ALL if request.arguments.has("force") else 0
    with ProgressLine() as line:
        request.follow(user, line)
        answer = request.ask("RefreshExtensions", "st", user, flags)
    request.show(answer, extension_text.changes)
    for reason in extension_text.skipped(answer):
        complain(reason)
    return int(extension_text.has_failed(answer))


def _diff(request: Request) -> int:
    answer = request.ask("GetExtensionDifferences", "s", request.only_user())
    request.show(answer, extension_text.differences)
    return 0


def _discard(request: Request) -> int:
    user = request.user()
    request.allow_asking()
    paths = [_in_home(path, user) for path in request.words]
    flags = _ALL if request.arguments.has("changed") else 0
    answer = request.ask("DiscardExtensionChanges", "sast", user, paths, flags)
    request.show(answer, extension_text.discarded)
    gone = extension_text.texts(answer, "discarded")
    missing = [path for path in paths if path not in gone]
    for path in missing:
        complain(f"~/{path}: nothing to discard.", "See `homemgr extension diff`.")
    return int(bool(missing))


def _in_home(path: str, user: str) -> str:
    """``path`` relative to the home: a shell makes an absolute one of ~/PATH."""
    if not path.startswith("/"):
        return path.removeprefix("./").rstrip("/")
    try:
        home = getpwnam(user).pw_dir
    except KeyError as error:
        raise UsageError(f"{path}: expected a path relative to the home of {user}.") from error
    if not path.startswith(f"{home}/"):
        raise UsageError(f"{path}: expected a path below {home}.")
    return path.removeprefix(f"{home}/").rstrip("/")


def _trust(request: Request) -> int:
    request.allow_asking()
    request.show(request.ask("TrustExtension", "s", request.words[0]), extension_text.trusted)
    return 0


def _distrust(request: Request) -> int:
    request.allow_asking()
    request.show(request.ask("DistrustExtension", "s", request.words[0]), extension_text.distrusted)
    return 0


class Command:
    """One row of the table of commands: what runs it, how many words it takes, its own option."""

    __slots__ = ("fewest", "most", "option", "run", "usage")

    def __init__(
        self, run: Callable[[Request], int], words: tuple[int, int], usage: str, option: str = ""
    ) -> None:
        """``words`` is how few and how many words may follow the command."""
        self.run = run
        self.fewest, self.most = words
        self.usage = usage
        self.option = option


_COMMANDS = {
    "list": Command(_list, (0, 0), ""),
    "status": Command(_status, (0, 1), "[USER]"),
    "enable": Command(_enable, (1, _MANY), "NAME..."),
    "disable": Command(_disable, (1, _MANY), "NAME..."),
    "refresh": Command(_refresh, (0, 1), "[USER]", "force"),
    "diff": Command(_diff, (0, 1), "[USER]"),
    "discard": Command(_discard, (0, _MANY), "[PATH...]", "changed"),
    "trust": Command(_trust, (1, 1), "NAME"),
    "distrust": Command(_distrust, (1, 1), "NAME"),
}
