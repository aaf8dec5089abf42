"""`homemgr export USER FILE|-`: a home with all that belongs to it as one file.

The file is written beside its name and renamed once it is complete: under its name
there is never half a home.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.cli import move, options, report_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import Reported, complain
from homemgr.cli.credentials import Credentials, can_be_answered, unlock
from homemgr.cli.home1 import BusError, Homemgr1, with_agent
from homemgr.cli.jobs import Job
from homemgr.cli.output import json_format, print_json
from homemgr.cli.progress import ProgressLine
from homemgr.errors import TransferInterrupted
from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.cli.arguments import Arguments
    from homemgr.cli.jobs import Answer

OPTIONS = (
    options.WAIT,
    Option("plaintext", "", "", "Also if the home is encrypted: the file will not be"),
    options.QUIET,
)

_STDOUT = "-"
#: Whoever reads the file has the whole home.
_MODE = 0o600


def run(arguments: Arguments) -> int:
    """Have it written, then give it its name."""
    user, path = arguments.words
    is_aside = path == _STDOUT
    form = json_format(arguments)
    if is_aside and form:
        raise UsageError("--json= and a home cannot both go to standard output.")
    if is_aside and os.isatty(1):
        raise UsageError("A home is not for a terminal: name a file, or lead the output elsewhere.")
    wanted = options.waiting(arguments)
    service = Homemgr1(arguments)
    with_agent(service)
    if arguments.has("plaintext"):
        wanted["plaintext"] = True
    credentials = Credentials.from_environment()
    with _stdout() if is_aside else _replaced(path) as target:

        def call() -> Answer:
            # Nothing was written as long as the service misses something.
            asked = dict(wanted)
            if not credentials.is_empty:
                asked["secret"] = json.loads(credentials.to_json())
            begun = move.begin(service, "ExportHome", "s", (user,), asked, (target,))
            return _wait(service, begun, user, is_wanted=not arguments.has("quiet"))

        try:
            answer = call()
        except BusError as error:
            if not can_be_answered(error):
                raise
            doing = f"Cannot export home {user}"
            answer = unlock(user, credentials, call, doing, may_ask=service.may_ask)
    if form:
        print_json(answer, form)
    elif not (arguments.has("quiet") or is_aside):
        report_text.say(report_text.sentence(f"{user} is in {path}", answer))
        report_text.notes(answer, legend=not arguments.has("no-legend"))
        if arguments.has("plaintext"):
            report_text.say("It is not encrypted: whoever reads it has all that is in the home.")
    return 0


def _wait(service: Homemgr1, path: str, user: str, *, is_wanted: bool) -> Answer:
    with ProgressLine(is_wanted=is_wanted) as line:
        try:
            return Job(service, path, line).wait()
        except TransferInterrupted as error:
            complain(f"{user} was not exported: {error.message}", "Run the same command again.")
            raise Reported from error


@contextmanager
def _stdout() -> Iterator[Fd]:
    with Fd(os.dup(1)) as target:
        yield target


@contextmanager
def _replaced(path: str) -> Iterator[Fd]:
    """A new file that takes the place of ``path`` at the end, if nothing went wrong."""
    if _is_special(path):
        # A pipe or a device is written as it is; to rename something over it would take it away.
        with Fd.open(path, os.O_WRONLY | os.O_NOCTTY) as target:
            _refuse_terminal(target, path)
            yield target
        return
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.homemgr")
    with Fd.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE) as target:
        try:
            yield target
            os.fsync(target.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    with Fd.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY) as parent:
        os.fsync(parent.fileno())


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _refuse_terminal(target: Fd, path: str) -> None:
    if os.isatty(target.fileno()):
        raise UsageError(f"{path}: a home is not for a terminal.")
