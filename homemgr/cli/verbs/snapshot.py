"""`homemgr snapshot COMMAND USER [NAME]`: states of a home that can be had again.

The commands and what they send; how answers look is in `homemgr.cli.snapshot_text`. Speaks
to our own interface org.homemgr1.Manager.
"""

from __future__ import annotations

import json
import os

from homemgr.cli import snapshot_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import complain
from homemgr.cli.home1 import Homemgr1, own_name, with_agent
from homemgr.cli.jobs import Job
from homemgr.cli.options import QUIET
from homemgr.cli.output import json_format, print_json
from homemgr.cli.progress import ProgressLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.cli.arguments import Arguments
    from homemgr.cli.jobs import Answer

OPTIONS = (
    Option("reason", "", "TEXT", "create: why, shown by list"),
    Option("full-copy", "", "", "create: also where it shares nothing with the home"),
    Option("path", "", "PATH", "restore: only this file or directory; may be repeated"),
    Option("force", "", "", "restore: replace files that are there"),
    Option("uid", "", "UID", "mount: whose the files are shown to be"),
    Option("user", "", "USER", "mount: the same by name, with his group"),
    QUIET,
)

_MANY = 1 << 20


def run(arguments: Arguments) -> int:
    """Find the command and run it."""
    name, *words = arguments.words
    if name not in _COMMANDS:
        raise UsageError(f"Unknown command {name}: expected one of {', '.join(_COMMANDS)}.")
    command = _COMMANDS[name]
    if not command.fewest <= len(words) <= command.most:
        raise UsageError(f"Expected `homemgr snapshot {name} {command.usage}`.")
    for option in OPTIONS[:-1]:
        if arguments.has(option.name) and option.name not in command.options:
            raise UsageError(f"--{option.name} means nothing to `homemgr snapshot {name}`.")
    service = Homemgr1(arguments)
    with_agent(service)
    return command.run(Request(service, arguments), *words)


class Request:
    """One command line, and the connection that answers it."""

    def __init__(self, service: Homemgr1, arguments: Arguments) -> None:
        """Ask ``service``."""
        self.service = service
        self.arguments = arguments
        self.form = json_format(arguments)
        self.legend = not arguments.has("no-legend")

    def do(self, member: str, *body: str) -> Answer:
        """Have a job done and wait for it; gives its result."""
        (path,) = self.service.call(member, "s" * len(body), *body).body
        with ProgressLine(is_wanted=not self.arguments.has("quiet")) as line:
            return Job(self.service, str(path), line).wait()

    def show(self, answer: Answer, as_text: Callable[..., None]) -> None:
        """Print an answer as JSON if that is wanted, as text unless nothing is."""
        if self.form:
            print_json(answer, self.form)
        elif not self.arguments.has("quiet"):
            as_text(answer, legend=self.legend)


def _create(request: Request, user: str, name: str = "") -> int:
    wanted = {
        "name": name,
        "reason": request.arguments.value("reason"),
        "full_copy": request.arguments.has("full-copy"),
    }
    answer = request.do("CreateSnapshot", user, json.dumps(wanted))
    request.show(answer, snapshot_text.taken)
    return 0


def _list(request: Request, user: str = "") -> int:
    (text,) = request.service.call("ListSnapshots", "s", user or own_name()).body
    rows = json.loads(str(text))
    if request.form:
        print_json(rows, request.form)
    else:
        snapshot_text.listing(rows, legend=request.legend)
    return 0


def _diff(request: Request, user: str, name: str, other: str = "") -> int:
    answer = request.do("CompareSnapshot", user, name, other)
    request.show(answer, snapshot_text.differences)
    return 0


def _restore(request: Request, user: str, name: str) -> int:
    arguments = request.arguments
    paths = [_in_home(value, user) for option, value in arguments.given if option.name == "path"]
    if arguments.has("force") and not paths:
        raise UsageError("--force is for single files, see --path=.")
    wanted = {"paths": paths, "force": arguments.has("force")}
    answer = request.do("RestoreSnapshot", user, name, json.dumps(wanted))
    if not paths:
        request.show(answer, snapshot_text.restored)
        return 0
    request.show(answer, snapshot_text.restored_files)
    for text in snapshot_text.kept(answer):
        complain(text)
    return int(bool(answer.get("counts")))


def _in_home(path: str, user: str) -> str:
    """``path`` relative to the home: a shell makes an absolute one of ~/PATH."""
    from pwd import getpwnam

    if path.startswith("/"):
        try:
            home = getpwnam(user).pw_dir
        except KeyError as error:
            raise UsageError(f"{path}: expected a path relative to the home of {user}.") from error
        if not path.startswith(f"{home}/"):
            raise UsageError(f"{path}: expected a path below {home}.")
        path = path.removeprefix(f"{home}/")
    # What leads out of the home is for the service to refuse, not for us to make sense of.
    return path.removeprefix("./").rstrip("/")


def _remove(request: Request, user: str, *names: str) -> int:
    for name in names:
        request.service.call("RemoveSnapshot", "ss", user, name)
    return 0


def _mount(request: Request, user: str, name: str, path: str) -> int:
    wanted = {"path": os.path.abspath(path), **_owner(request.arguments)}
    request.service.call("MountSnapshot", "sss", user, name, json.dumps(wanted))
    return 0


def _owner(arguments: Arguments) -> dict[str, int]:
    """Whose the files are to be."""
    from pwd import getpwnam

    uid, user = arguments.value("uid"), arguments.value("user")
    if bool(uid) == bool(user):
        raise UsageError("Expected either --uid= or --user=, whose the files are shown to be.")
    if uid:
        if not (uid.isascii() and uid.isdigit() and len(uid) < 11):
            raise UsageError(f"--uid={uid}: expected a number.")
        return {"uid": int(uid)}
    try:
        found = getpwnam(user)
    except KeyError as error:
        raise UsageError(f"--user={user}: there is no such user.") from error
    return {"uid": found.pw_uid, "gid": found.pw_gid}


def _unmount(request: Request, path: str) -> int:
    request.service.call("UnmountSnapshot", "s", os.path.abspath(path))
    return 0


class Command:
    """One row of the table of commands: what runs it, how many words it takes, its options."""

    __slots__ = ("fewest", "most", "options", "run", "usage")

    def __init__(
        self, run: Callable[..., int], words: tuple[int, int], usage: str, *options: str
    ) -> None:
        """``words`` is how few and how many words may follow the command."""
        self.run = run
        self.fewest, self.most = words
        self.usage = usage
        self.options = options


_COMMANDS = {
    "create": Command(_create, (1, 2), "USER [NAME]", "reason", "full-copy"),
    "list": Command(_list, (0, 1), "[USER]"),
    "diff": Command(_diff, (2, 3), "USER NAME [NAME]"),
    "restore": Command(_restore, (2, 2), "USER NAME [--path=PATH...]", "path", "force"),
    "remove": Command(_remove, (2, _MANY), "USER NAME..."),
    "mount": Command(_mount, (3, 3), "USER NAME DIR --uid=UID|--user=USER", "uid", "user"),
    "unmount": Command(_unmount, (1, 1), "DIR"),
}
