"""`homemgr transfer receive|send USER`: the other end of `homemgr migrate`, run through ssh.

Standard input and output are the stream and go to the service; words go to standard
error. For other programs that have a stream of their own between two machines as well.
"""

from __future__ import annotations

import os

from homemgr.cli import move, options
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.home1 import BusError, Homemgr1
from homemgr.cli.trust import OPTION as TRUST
from homemgr.cli.trust import Trust
from homemgr.errors import TransferInterrupted
from homemgr.files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (
    *options.SENDING,
    TRUST,
    options.STORAGE,
    Option("awaits-secret", "", "", "What opens the home comes through the stream, from who asks"),
    Option("peer", "", "HOST", "How the other machine is called in `homemgr transfers`"),
    Option("outcome", "", "", "Say in JSON, on standard error, how it ended"),
)


def run(arguments: Arguments) -> int:
    """Hand the stream to the service and wait until it is done with it."""
    direction, user = arguments.words
    if direction not in ("receive", "send"):
        raise UsageError(f"{direction}: expected receive or send.")
    wanted = _options(arguments, direction, user)
    if os.isatty(0) or os.isatty(1):
        raise UsageError("Standard input and output must lead to another homemgr, not a terminal.")
    failure: BusError | None = None
    try:
        _transfer(Homemgr1(arguments), direction, user, wanted)
    except BusError as error:
        if not arguments.has("outcome"):
            raise
        failure = error
    if arguments.has("outcome"):
        from homemgr.cli import outcome

        outcome.tell(failure)
    return 0 if failure is None else 1


def _options(arguments: Arguments, direction: str, user: str) -> dict[str, object]:
    peer = arguments.value("peer")
    found: dict[str, object] = {"host": peer} if peer else {}
    if direction == "send":
        if arguments.has("awaits-secret"):
            found["awaits_secret"] = True
        return found | options.sending(arguments)
    # The name is told so that a sender can send no other home than the one that was asked for.
    if arguments.has("storage"):
        found["storage"] = arguments.value("storage")
    return found | {"name": user, "trust": Trust(arguments).accepted}


def _transfer(service: Homemgr1, direction: str, user: str, wanted: dict[str, object]) -> None:
    with _taken(0, os.O_RDONLY) as incoming, _taken(1, os.O_WRONLY) as outgoing:
        stream = (incoming, outgoing)
        if direction == "send":
            path = move.begin(service, "SendHome", "s", (user,), wanted, stream)
        else:
            path = move.begin(service, "ReceiveHome", "", (), wanted, stream)
    # While the service begins, for which somebody waits on the other machine.
    from homemgr.cli.jobs import Job
    from homemgr.cli.progress import ProgressLine

    try:
        Job(service, path, ProgressLine()).wait()
    except TransferInterrupted as error:
        raise BusError(error.bus_name, error.message) from error


def _taken(number: int, flags: int) -> Fd:
    """The stream's descriptor, with nothing in its place: no stray word can get into it."""
    taken = Fd(os.dup(number))
    with Fd.open(os.devnull, flags) as nothing:
        os.dup2(nothing.fileno(), number)
    return taken
