"""One attempt to move a home: the service here, the homemgr there, a stream between them.

The service gets one end of a socket pair, ssh the other one. Both services then talk to
each other; what is left to do here is to wait, and to find out what went wrong where.
"""

from __future__ import annotations

import json
from _socket import socketpair

from homemgr.cli.home1 import BusError
from homemgr.errors import StreamError, TransferInterrupted
from homemgr.files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homemgr.cli.home1 import Homemgr1
    from homemgr.cli.jobs import Answer
    from homemgr.cli.progress import ProgressLine
    from homemgr.cli.ssh import Host, Remote

#: Failures of this side that may only follow from one of the other side.
_CONSEQUENCES = (TransferInterrupted.bus_name, StreamError.bus_name)


def push(
    service: Homemgr1,
    host: Host,
    user: str,
    options: Mapping[str, object],
    words: Sequence[str],
    line: ProgressLine,
) -> Answer:
    """Send the home of ``user`` to ``host``, where homemgr runs with ``words``."""
    return _run(service, "SendHome", "s", (user,), options, (host, words, line))


def pull(
    service: Homemgr1,
    host: Host,
    options: Mapping[str, object],
    words: Sequence[str],
    line: ProgressLine,
) -> Answer:
    """Receive the home that homemgr with ``words`` sends from ``host``."""
    return _run(service, "ReceiveHome", "", (), options, (host, words, line))


def begin(
    service: Homemgr1,
    member: str,
    signature: str,
    body: Sequence[object],
    options: Mapping[str, object],
    stream: Sequence[Fd],
) -> str:
    """Have a job begun over ``stream``, which stays the caller's; gives the job's path."""
    kinds = f"{signature}s{'h' * len(stream)}"
    text = json.dumps(options, ensure_ascii=False)
    reply = service.call(member, kinds, *body, text, *range(len(stream)), fds=stream)
    return str(reply.body[0])


def _run(
    service: Homemgr1,
    member: str,
    signature: str,
    body: Sequence[object],
    options: Mapping[str, object],
    other: tuple[Host, Sequence[str], ProgressLine],
) -> Answer:
    """Begin here, then there: what the service asks for is asked before ssh asks anything."""
    host, words, line = other
    ours, theirs = (Fd(end.detach()) for end in socketpair())
    # Both ends are closed here as soon as others hold them: the end of either is seen then.
    with theirs:
        with ours, ours.duplicate() as output:
            path = begin(service, member, signature, body, options, (ours, output))
        remote = host.run(words, theirs, line)
    # While ssh gets there.
    from homemgr.cli.jobs import Job

    job = Job(service, path, line)
    try:
        answer = job.wait(remote.relay)
    except (BusError, TransferInterrupted) as failure:
        remote.end()
        raise _reason(failure, remote, has_begun=job.has_progress) from failure
    except BaseException:
        remote.leave()
        raise
    remote.end()
    return answer


def _reason(failure: Exception, remote: Remote, *, has_begun: bool) -> Exception:
    """The failure that came first."""
    if not (isinstance(failure, BusError) and failure.name in _CONSEQUENCES):
        return failure
    return remote.failure(has_begun=has_begun) or failure
