"""Records as clients send them, and the homes that sections of the scenario share."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from homemgr import crypt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .recorder import Recorder

PASSWORD, OTHER, WRONG = "correct horse battery", "staple of nine lives", "never was the one"
MACHINE = Path("/etc/machine-id").read_text(encoding="ascii").strip()
RECORDS = Path("/var/lib/systemd/home")
#: Logins of a scenario are more frequent than those of people.
PATIENT = {"rateLimitIntervalUSec": 600_000_000, "rateLimitBurst": 1000}
SECRET = json.dumps({"password": [PASSWORD]})
BAD_SECRET = json.dumps({"password": [WRONG]})


@lru_cache
def hashed(password: str = PASSWORD) -> str:
    """A hash that is quick to check."""
    return crypt.hash_password(password, "$6$")


def now_usec() -> int:
    """The time as records have it."""
    return time.time_ns() // 1000


def record(name: str, **fields: object) -> dict[str, object]:
    """What homectl would send to create a home; a field of None is left out."""
    now = now_usec()
    made: dict[str, object] = {
        "userName": name,
        "disposition": "regular",
        "storage": "directory",
        "lastChangeUSec": now,
        "lastPasswordChangeUSec": now - 1,
        "enforcePasswordPolicy": False,
        "privileged": {"hashedPassword": [hashed()]},
        "secret": {"password": [PASSWORD]},
        **PATIENT,
        **fields,
    }
    return {key: value for key, value in made.items() if value is not None}


def text(name: str, **fields: object) -> str:
    """The same as it travels."""
    return json.dumps(record(name, **fields))


def create(to: Recorder, name: str, **fields: object) -> None:
    """Make a home without keeping it as a step."""
    if to.quietly("CreateHome", "s", text(name, **fields)) is None:
        raise RuntimeError(f"cannot create {name}")


def remove(to: Recorder, *names: str) -> None:
    """Clean up, whatever state they are in."""
    for name in names:
        to.quietly("DeactivateHome", "s", name)
        to.wait(name, "inactive", "absent", "unfixated", "dirty", "")
        to.quietly("RemoveHome", "s", name)


@contextmanager
def home(to: Recorder, name: str, **fields: object) -> Iterator[str]:
    """A home for the length of a block."""
    create(to, name, **fields)
    try:
        yield name
    finally:
        remove(to, name)


def register(to: Recorder, name: str) -> None:
    """A user without files, quickly."""
    to.quietly("RegisterHome", "s", text(name, storage=None, secret=None))


def current(to: Recorder, name: str) -> dict[str, object]:
    """The record that an update begins with: without what the service adds."""
    body = to.quietly("GetUserRecordByName", "s", name)
    if body is None:
        return {"userName": name}
    found: dict[str, object] = json.loads(str(body[0]))
    for section in ("binding", "status", "signature", "blobManifest"):
        found.pop(section, None)
    found["lastChangeUSec"] = now_usec()
    found["secret"] = {"password": [PASSWORD]}
    return found


def host_copy(name: str) -> object:
    """The stored record, its mode and owner."""
    return _file(RECORDS / f"{name}.identity")


def inside_copy(to: Recorder, name: str) -> object:
    """The record in the home, as it lies on the disk."""
    body = to.quietly("GetUserRecordByName", "s", name)
    if body is None:
        return None
    image = json.loads(str(body[0]))["binding"][MACHINE]["imagePath"]
    return _file(Path(image) / ".identity")


def _file(path: Path) -> object:
    try:
        status = os.lstat(path)
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return {"mode": oct(status.st_mode), "uid": status.st_uid, "record": content}
