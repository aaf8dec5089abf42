"""The state machine: every operation in every state that lasts, references, busy homes, signals."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from . import people
from .accounts import is_old
from .people import MACHINE, OTHER, PASSWORD, SECRET
from .recorder import HOME, PATH, Recorder

OPERATIONS: dict[str, tuple[object, ...]] = {
    "AuthenticateHome": ("ss", "NAME", SECRET),
    "RefHome": ("sb", "NAME", False),
    "LockHome": ("s", "NAME"),
    "UnlockHome": ("ss", "NAME", SECRET),
    "ResizeHome": ("sts", "NAME", 1 << 30, SECRET),
    "RealizeHome": ("ss", "NAME", SECRET),
    "ActivateHomeIfReferenced": ("ss", "NAME", SECRET),
    "ChangePasswordHome": ("sss", "NAME", SECRET, SECRET),
    "FixateHome": ("ss", "NAME", SECRET),
    "DeactivateHome": ("s", "NAME"),
    "ActivateHome": ("ss", "NAME", SECRET),
    "ReleaseHome": ("s", "NAME"),
    "RefHomeUnrestricted": ("sb", "NAME", False),
    "AcquireHome": ("ssb", "NAME", SECRET, False),
    "UnregisterHome": ("s", "NAME"),
    "RemoveHome": ("s", "NAME"),
}


def image_of(to: Recorder, name: str) -> Path:
    """Where the files of a home lie."""
    body = to.quietly("GetUserRecordByName", "s", name)
    assert body is not None
    return Path(json.loads(str(body[0]))["binding"][MACHINE]["imagePath"])


def _inactive(to: Recorder, name: str) -> None:
    people.create(to, name, uid=60111)


def _active(to: Recorder, name: str) -> None:
    _inactive(to, name)
    to.quietly("ActivateHome", "ss", name, SECRET)


def _absent(to: Recorder, name: str) -> None:
    _inactive(to, name)
    shutil.rmtree(image_of(to, name))
    to.wait(name, "absent")


def _registered(to: Recorder, name: str) -> None:
    to.quietly("RegisterHome", "s", people.text(name, uid=60111, secret=None))


def _unset(to: Recorder, name: str) -> None:
    to.quietly("RegisterHome", "s", people.text(name, uid=60111, secret=None, storage=None))


def _unfixated(to: Recorder, name: str) -> None:
    _inactive(to, name)
    to.quietly("UnregisterHome", "s", name)
    to.wait(name, "unfixated")


def _none(_to: Recorder, _name: str) -> None:
    """No such home."""


STATES = {
    "inactive": _inactive,
    "active": _active,
    "absent": _absent,
    "registered": _registered,
    "without storage": _unset,
    "unfixated": _unfixated,
    "nobody": _none,
}


def operations(to: Recorder) -> None:
    """Every operation in every state; each finds a fresh home."""
    for state, prepare in STATES.items():
        for member, (signature, *arguments) in OPERATIONS.items():
            prepare(to, "anna")
            words = ["anna" if word == "NAME" else word for word in arguments]
            step = f"{member} of {state}"
            # A lost reference deactivates soon after, at a moment of its own.
            fds = member.startswith(("Acquire", "Ref"))
            fd = to.reference(step, member, str(signature), *words) if fds else None
            if not fds:
                to.call(step, member, str(signature), *words)
            # What is forgotten is found again a moment later.
            rests = ("unfixated",) if (member, state) in _FOUND_AGAIN else _RESTING
            to.keep(f"{step}: then", to.wait("anna", *rests))
            if fd is not None:
                fd.close()
                follows = member == "AcquireHome" or state == "active"
                rests = ("inactive",) if follows else _RESTING
                to.keep(f"{step}: without", to.wait("anna", *rests))
            people.remove(to, "anna")
            to.quietly("UnregisterHome", "s", "anna")


_FOUND_AGAIN = {("UnregisterHome", "inactive")}
_RESTING = ("inactive", "active", "absent", "unfixated", "dirty", "locked", "")


def references(to: Recorder) -> None:
    """Who holds a home keeps it, in both kinds."""
    people.create(to, "anna", uid=60111)
    first = to.reference("acquire", "AcquireHome", "ssb", "anna", SECRET, False)
    second = to.reference("acquire to suspend", "AcquireHome", "ssb", "anna", SECRET, True)
    third = to.reference("ref", "RefHome", "sb", "anna", False)
    to.call("release while held", "ReleaseHome", "s", "anna")
    to.call("lock all", "LockAllHomes")
    for fd in (first, third):
        if fd is not None:
            fd.close()
    to.call("lock all, willing", "LockAllHomes")
    to.keep("held by the second", to.state("anna"))
    to.call("activate again", "ActivateHome", "ss", "anna", SECRET)
    if second is not None:
        second.close()
    to.keep("held by nobody", to.wait("anna", "inactive"))
    fd = to.reference("unrestricted", "RefHomeUnrestricted", "sb", "anna", True)
    to.keep("not active by it", to.state("anna"))
    to.call("if referenced", "ActivateHomeIfReferenced", "ss", "anna", SECRET)
    to.keep("active by it", to.state("anna"))
    if fd is not None:
        fd.close()
    to.keep("after it", to.wait("anna", "inactive"))
    to.call("not referenced", "ActivateHomeIfReferenced", "ss", "anna", SECRET)
    fd = to.reference("held", "AcquireHome", "ssb", "anna", SECRET, False)
    to.call("deactivate while held", "DeactivateHome", "s", "anna")
    to.keep("deactivated", to.state("anna"))
    if fd is not None:
        fd.close()
    to.call("activate", "ActivateHome", "ss", "anna", SECRET)
    to.call("release without any", "ReleaseHome", "s", "anna")
    to.keep("released", to.wait("anna", "inactive"))
    words = ("homectl", "with", "anna", "--", "sh", "-c", "pwd; id -u; stat -c %u .; exit 7")
    to.run("with", *words, env={"PASSWORD": PASSWORD})
    to.keep("after with", to.wait("anna", "inactive"))
    where = {"path": f"{PATH}/home/anna", "interface": HOME}
    to.call("Acquire", "Acquire", "sb", SECRET, False, **where)  # type: ignore[arg-type]
    to.keep("after Acquire", to.wait("anna", "inactive"))
    for number in range(3):
        people.create(to, f"all{number}", uid=60300 + number)
        to.quietly("ActivateHome", "ss", f"all{number}", SECRET)
    to.call("deactivate all", "DeactivateAllHomes")
    # Whoever looks into a home in that moment makes it linger, until the service tries again.
    to.keep("all then", [to.wait(f"all{number}", "inactive") for number in range(3)])
    to.run("homectl lock-all", "homectl", "lock-all")
    to.run("homectl deactivate-all", "homectl", "deactivate-all")


def busy(to: Recorder) -> None:
    """Somebody works in a home that is to go."""
    people.create(to, "anna", uid=60111)
    to.call("activate", "ActivateHome", "ss", "anna", SECRET)
    with subprocess.Popen(["sleep", "300"], cwd="/home/anna", stdin=subprocess.DEVNULL) as worker:
        to.call("deactivate", "DeactivateHome", "s", "anna")
        to.keep("state", to.state("anna"))
        to.call("record", "GetUserRecordByName", "s", "anna")
        to.run("getent", "getent", "passwd", "anna")
        to.call("authenticate", "AuthenticateHome", "ss", "anna", SECRET)
        to.call("release", "ReleaseHome", "s", "anna")
        to.call("remove", "RemoveHome", "s", "anna")
        to.call("unregister", "UnregisterHome", "s", "anna")
        to.call("deactivate all", "DeactivateAllHomes")
        worker.kill()
    # Not kept: the next attempt of the service itself may have come before it.
    to.quietly("DeactivateHome", "s", "anna")
    to.keep("state at last", to.wait("anna", "inactive"))


def sizes_and_locks(to: Recorder) -> None:
    """What a directory has no means for."""
    people.create(to, "anna", uid=60111)
    for active in (False, True):
        when = "active" if active else "inactive"
        if active:
            to.quietly("ActivateHome", "ss", "anna", SECRET)
        for size in (0, 1, 1 << 20, 1 << 30, 1 << 62, (1 << 64) - 1, (1 << 64) - 2):
            to.call(f"resize {size} ({when})", "ResizeHome", "sts", "anna", size, SECRET)
        to.call(f"rebalance ({when})", "Rebalance")
        for words in (
            ("lock", "anna"),
            ("unlock", "anna"),
            ("resize", "anna", "1G"),
            ("resize", "anna", "max"),
            ("resize", "anna", "min"),
            ("resize", "anna", "50%"),
            ("rebalance",),
            ("lock-all",),
        ):
            if is_old() and words[-1] in ("max", "min"):
                continue
            step = f"homectl {' '.join(words)} ({when})"
            to.run(step, "homectl", *words, env={"PASSWORD": PASSWORD}, shown=False)
        to.call(f"record ({when})", "GetUserRecordByName", "s", "anna")


def signals(to: Recorder) -> None:
    """What others hear of each operation."""

    def sentinel(name: str) -> None:
        people.register(to, name)

    # That the home of before is removed is told once it is gone, after the answer to who did it.
    to.wait("anna", "")
    for member, (signature, *arguments) in {
        "CreateHome": ("s", people.text("anna", uid=60111)),
        "AuthenticateHome": ("ss", "anna", SECRET),
        "ActivateHome": ("ss", "anna", SECRET),
        "DeactivateHome": ("s", "anna"),
        "ChangePasswordHome": ("sss", "anna", json.dumps({"password": [OTHER]}), SECRET),
        "RemoveHome": ("s", "anna"),
    }.items():
        with to.signals(f"of {member}", sentinel):
            to.call(member, member, signature, *arguments)
    people.create(to, "anna", uid=60111)
    record = json.dumps(people.current(to, "anna") | {"realName": "Heard", "autoLogin": True})
    with to.signals("of UpdateHome", sentinel):
        to.call("UpdateHome", "UpdateHome", "s", record)
    with to.signals("of UnregisterHome", sentinel):
        to.call("UnregisterHome", "UnregisterHome", "s", "anna")
        to.wait("anna", "unfixated")
    with to.signals("of FixateHome", sentinel):
        to.call("FixateHome", "FixateHome", "ss", "anna", SECRET)
    with to.signals("of nothing", sentinel):
        to.call("ListHomes", "GetHomeByName", "s", "anna")


SECTIONS = (operations, references, busy, sizes_and_locks, signals)
