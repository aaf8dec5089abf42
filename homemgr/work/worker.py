"""One job in a worker process: read the request, run its verb, tell the result.

The third and last place where failures are translated: what is not a HomeError
becomes one that tells strangers nothing.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from homemgr import errors, job
from homemgr.extension.image import NO_SHELF
from homemgr.kernel import address_space, process
from homemgr.work import (
    abandon,
    activate,
    authenticate,
    blobs,
    create,
    deactivate,
    inventory,
    locking,
    passwd,
    refresh,
    remove,
    slots,
    sweep,
    update,
)
from homemgr.work.exclusion import alone_with_home
from homemgr.work.task import Task

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from homemgr.extension.shelf import Shelf

log = logging.getLogger(__name__)

#: Address space of a worker, a few times what any job needs: a home's owner decides how
#: much memory it takes to check his hashes, and how large the directories are.
_MEMORY_BYTES = 512 << 20


def _when_needed(module: str, name: str = "run") -> Callable[[Task], dict[str, object]]:
    """A verb that only the worker that needs it loads, for the memory it takes.

    Homes travel seldom, and slowly beside the time that takes.
    """

    def run(task: Task) -> dict[str, object]:
        verb = getattr(import_module(f"homemgr.work.{module}"), name)
        result: dict[str, object] = verb(task)
        return result

    return run


#: One entry for each verb; the daemon names them in its requests.
VERBS: dict[str, Callable[[Task], dict[str, object]]] = {
    "abandon": abandon.run,
    "activate": activate.run,
    "authenticate": authenticate.run,
    "check": _when_needed("check"),
    "check-places": _when_needed("check_places"),
    "classic-give-back": _when_needed("classic", "give_back"),
    "classic-put-back": _when_needed("classic_account", "put_back"),
    "classic-survey": _when_needed("classic_survey"),
    "classic-take": _when_needed("classic", "take"),
    "classic-take-out": _when_needed("classic_account", "take_out"),
    "clear": _when_needed("switching", "clear"),
    "convert": _when_needed("conversion"),
    "copy": blobs.copy,
    "create": create.run,
    "deactivate": deactivate.run,
    "export": _when_needed("export"),
    "fit": _when_needed("fitting", "fit"),
    "fixate": authenticate.run,
    "former-uid": _when_needed("former_uid"),
    "import": _when_needed("importing"),
    "lock": locking.lock,
    "passwd": passwd.run,
    "receive": _when_needed("receive"),
    "repair": _when_needed("check", "repair"),
    "repair-places": _when_needed("check_places", "repair"),
    "restore": _when_needed("snapshot_restore", "whole"),
    "returnable": _when_needed("returning"),
    "refresh": refresh.run,
    "difference": refresh.differences,
    "discard": refresh.discard,
    "inventory": inventory.run,
    "trust": inventory.trust,
    "distrust": inventory.distrust,
    "publish": blobs.publish,
    "remove": remove.run,
    "resize": _when_needed("resize"),
    "send": _when_needed("send"),
    "settle": locking.settle,
    "slot": slots.run,
    "snapshot": _when_needed("snapshots", "take"),
    "snapshot-diff": _when_needed("snapshot_diff"),
    "snapshot-files": _when_needed("snapshot_restore", "files"),
    "snapshot-forget": _when_needed("snapshots", "forget"),
    "snapshot-list": _when_needed("snapshots", "show"),
    "snapshot-mount": _when_needed("snapshot_mount"),
    "snapshot-prune": _when_needed("snapshots", "prune"),
    "snapshot-remove": _when_needed("snapshots", "remove"),
    "snapshot-unmount": _when_needed("snapshot_mount", "end"),
    "sweep": sweep.run,
    "switch": _when_needed("switching"),
    "unlock": locking.unlock,
    "update": update.run,
    "usage": _when_needed("usage"),
    "weigh": _when_needed("fitting", "weigh"),
}

#: Verbs that work while the home may be in use; they see to it themselves that they are alone.
BESIDE_OTHERS = frozenset(
    {"export", "import", "receive", "send", "snapshot", "snapshot-diff", "snapshot-files"}
    | {"snapshot-list", "snapshot-mount", "snapshot-remove", "snapshot-unmount"}
)


#: Verbs after which a process is as it was before, if they succeed with a home that is itself:
#: they keep nothing open, and take up no identity for good. Every other job is its process's last.
REPEATABLE = {"activate", "authenticate", "create", "deactivate", "former-uid"}


def run(sock: socket.socket, shelf: Shelf = NO_SHELF) -> bool:
    """Carry out the job that comes over ``sock``; ``shelf`` has what others mounted.

    Returns whether this process may do another one.
    """
    # Passwords pass through this memory: no core dumps, no ptrace by the user.
    process.set_dumpable(dumpable=False)
    address_space.limit(_MEMORY_BYTES)
    channel = job.Channel(sock)
    try:
        request, fds = channel.receive()
        channel.begin()
    except (EOFError, BrokenPipeError):
        # Nobody wants it any more, and nothing was done of it.
        return False
    _log_from(request.arguments.get(job.LOG_LEVEL))
    try:
        answer = _answer(Task(request, fds, channel, shelf))
    finally:
        for fd in fds:
            fd.close()
    try:
        channel.send(answer)
    except BrokenPipeError:
        log.warning("The daemon is gone before the result of %s.", request.verb)
        return False
    return request.verb in REPEATABLE and _is_plain(request, answer)


def _log_from(level: object) -> None:
    if isinstance(level, int):
        logging.getLogger().setLevel(level)


def _is_plain(request: job.Request, answer: job.Message) -> bool:
    """Whether all went well, and nothing was merged into the home, nor looked for in it."""
    result = answer.get("result")
    if not isinstance(result, dict) or result.get("extensions"):
        return False
    return not (request.arguments.get("extensions") or request.arguments.get("merged"))


def _answer(task: Task) -> job.Message:
    """The result or the failure, as a message."""
    try:
        with nullcontext() if task.verb in BESIDE_OTHERS else alone_with_home(task):
            return {"result": VERBS[task.verb](task)}
    except errors.HomeError as error:
        return job.failure(error)
    except OSError as error:
        return job.failure(errors.from_os_error(error, f"{task.verb} failed"))
    except EOFError:
        # The daemon died while we waited for it; nobody reads this.
        return job.failure(errors.HomeError("The daemon is gone."))
    except Exception as error:  # noqa: BLE001 -- a bug: the log gets where, the client a sentence
        # Not its text, which may quote an argument: arguments hold passwords.
        log.error("Bug in the worker for %s: %s", task.verb, type(error).__name__)
        for place in traceback.extract_tb(error.__traceback__):
            log.error("  at %s:%s in %s", place.filename, place.lineno, place.name)
        return job.failure(errors.HomeError(f"Internal error in {task.verb}; the log has more."))
