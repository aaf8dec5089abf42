"""Conversions over the real bus, and how a home looks on disk whatever its storage is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from homemgr.kernel import mounts
from homemgr.kernel.identity import filesystem_identity
from homemgr.wire.messages import BusError
from tests import homes, volumes
from tests.service.people import PASSWORD, secret
from tests.service.site import Service

MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")
JOB = ("org.homemgr1.Job",)

#: The record, and what a test writes as the user.
APART = (b".identity", b"diary")


def call(service: Service, member: str, signature: str = "", *arguments: object) -> list[object]:
    """Call a member of our own manager object."""
    return service.client.call(*MANAGER, member, signature, arguments, timeout_s=60).body


def begin(service: Service, name: str, *words: str, **options: object) -> str:
    """Have a conversion begun; gives the path of the job."""
    arguments = (name, json.dumps(options), secret(*words))
    return str(call(service, "ConvertHome", "sss", *arguments)[0])


def wait(service: Service, job: str, within_s: float = 100) -> dict[str, object]:
    """The result of a job; raises BusError as it failed."""
    reply = service.client.call(MANAGER[0], job, *JOB, "Wait", "", (), timeout_s=within_s)
    result: dict[str, object] = json.loads(str(reply.body[0]))
    return result


def convert(service: Service, name: str, *words: str, **options: object) -> dict[str, object]:
    """Convert a home."""
    return wait(service, begin(service, name, *words, **options))


def refusal(service: Service, job: str) -> BusError:
    """Why a job failed."""
    try:
        result = wait(service, job)
    except BusError as error:
        return error
    raise AssertionError(f"it succeeded with {result}")


def undo(service: Service, name: str) -> None:
    """Have the old home again, whatever was done to the new one."""
    call(service, "UndoConversion", "ss", name, '{"force": true}')


def known(service: Service) -> dict[str, dict[str, object]]:
    """What the service lists, by user."""
    (text,) = call(service, "ListConversions")
    return {row["user"]: row for row in json.loads(str(text))}


def storage_of(service: Service, name: str) -> str:
    """What the record says here of the home."""
    bindings = service.user_record(name)["binding"]
    assert isinstance(bindings, dict)
    (binding,) = bindings.values()
    assert isinstance(binding, dict)
    return str(binding["storage"])


def rooms(directory: Path) -> list[Path]:
    """Rooms in a directory."""
    return sorted(directory.glob(".#homemgr-room-*"))


def settle(service: Service, name: str, *, many: int = homes.MANY, **fields: object) -> None:
    """Make a user with a home of all odd things, ``many`` of them, as a plain directory."""
    service.create(name, **{"storage": "directory", **fields})
    homes.make_odd_home(service.site.base / f"{name}.homedir", many=many)


def kept(service: Service, name: str) -> Path:
    """Have what is kept of a home confirmed away, but for the test: gives what it was."""
    (room,) = rooms(service.site.base)
    reference = service.site.home_root / f"{name}.reference"
    (room / f"{name}.homedir").rename(reference)
    call(service, "ConfirmConversion", "s", name)
    return reference


def differences(reference: Path, raw: Path) -> list[str]:
    """What is not as it was made, but for times and key slots of the top directory."""
    return unlike(homes.Seen.of(reference, APART), raw)


def unlike(reference: homes.Seen, raw: Path) -> list[str]:
    """The same, of what was seen before."""
    found = reference.differences(homes.Seen.of(raw, APART))
    return [words for words in found if not words.startswith(("b'': mtime", "b'': xattrs"))]


def write(service: Service, name: str, word: str) -> None:
    """Write a line in an active home, as its user."""
    home = service.path_of(name)
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid), (home / "diary").open("a") as file:
        file.write(f"{word}\n")


def diary(service: Service, name: str) -> list[str]:
    """The lines that were written."""
    return (service.path_of(name) / "diary").read_text().split()


@contextmanager
def logged_in(service: Service, name: str) -> Iterator[None]:
    """Use a home."""
    service.activate(name, PASSWORD)
    try:
        yield
    finally:
        os.sync()
        service.deactivate(name)


@contextmanager
def raw(service: Service, name: str, image: Path, scratch: Path, kind: str) -> Iterator[Path]:
    """An active home as it lies on its disk; one in an image has a file system of ``kind``."""
    if image.is_dir():
        yield image
        return
    argv = ["findmnt", "-nrvo", "SOURCE,FSTYPE", str(service.path_of(name))]
    found = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    # Of btrfs it says which directory of it is seen, too.
    assert found[1] == kind
    volumes.mount_new(kind, found[0].partition("[")[0], scratch)
    try:
        yield scratch / name
    finally:
        mounts.umount2(str(scratch), 0)
