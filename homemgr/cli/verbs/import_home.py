"""`homemgr import FILE|-`: make a home of what `homemgr export` wrote."""

from __future__ import annotations

import json
import os

from homemgr.cli import move, options, report_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import Reported, complain
from homemgr.cli.credentials import Credentials, ask_secret
from homemgr.cli.home1 import BusError, Homemgr1, with_agent
from homemgr.cli.jobs import Job
from homemgr.cli.output import json_format, print_json
from homemgr.cli.progress import ProgressLine
from homemgr.cli.trust import OPTION as TRUST
from homemgr.cli.trust import Trust, fingerprints, is_untrusted
from homemgr.errors import TransferInterrupted
from homemgr.files import Fd
from homemgr.record.storages import abilities_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.cli.jobs import Answer

OPTIONS = (
    TRUST,
    Option("name", "", "USER", "Take in the home of this user, and nobody else's"),
    options.STORAGE,
    options.QUIET,
)

_STDIN = "-"


def run(arguments: Arguments) -> int:
    """Have it read, and ask once whether the machine it comes from is trusted."""
    (path,) = arguments.words
    service = Homemgr1(arguments)
    trust = Trust(arguments)
    wanted = _options(arguments, trust)
    with _opened(path) as source:
        if os.isatty(source.fileno()):
            raise UsageError("A home does not come from a terminal: name a file.")
        with_agent(service)
        while True:
            try:
                answer = _import(service, source, wanted | {"trust": trust.accepted}, arguments)
                break
            except BusError as error:
                if not is_untrusted(error):
                    raise
                _require_second_reading(source, error, trust)
                trust.accept(error, "This machine", "the machine it was exported on")
    form = json_format(arguments)
    if form:
        print_json(answer, form)
    elif not arguments.has("quiet"):
        user = str(answer.get("user") or arguments.value("name") or "The home")
        report_text.say(report_text.sentence(f"{user} is here from here on", answer))
        report_text.notes(answer, legend=not arguments.has("no-legend"))
    return 0


def _opened(path: str) -> Fd:
    if path == _STDIN:
        return Fd(os.dup(0))
    return Fd.open(path, os.O_RDONLY | os.O_NOCTTY)


def _options(arguments: Arguments, trust: Trust) -> dict[str, object]:
    name = arguments.value("name")
    found: dict[str, object] = {"trust": trust.accepted} | ({"name": name} if name else {})
    if arguments.has("storage"):
        found["storage"] = arguments.value("storage")
        if abilities_of(arguments.value("storage")).has_key:
            found["secret"] = json.loads(_words(arguments, name or "the home").to_json())
    return found


def _words(arguments: Arguments, user: str) -> Credentials:
    """What is to unlock the new home; asked before, as a pipe can be read but once."""
    credentials = Credentials.from_environment()
    if not credentials.has_password:
        if arguments.has("no-ask-password"):
            raise UsageError("An encrypted home needs its password: set PASSWORD.")
        credentials.add_password(ask_secret(f"Please enter password for user {user}:"))
    return credentials


def _import(
    service: Homemgr1, source: Fd, wanted: dict[str, object], arguments: Arguments
) -> Answer:
    path = move.begin(service, "ImportHome", "", (), wanted, (source,))
    with ProgressLine(is_wanted=not arguments.has("quiet")) as line:
        try:
            return Job(service, path, line).wait()
        except TransferInterrupted as error:
            complain(f"Nothing was imported: {error.message}", "Run the same command again.")
            raise Reported from error


def _require_second_reading(source: Fd, error: BusError, trust: Trust) -> None:
    """Go back to the beginning; raises Reported where what was read is gone."""
    try:
        os.lseek(source.fileno(), 0, os.SEEK_SET)
    except OSError as gone:
        unknown = [one for one in fingerprints(error.message) if one not in trust.accepted]
        wanted = " ".join(f"--trust={one}" for one in unknown)
        complain(error.message, f"If that is right, run it again with {wanted}")
        raise Reported from gone
