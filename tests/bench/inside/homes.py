"""Home areas made from nothing: signed records and directories, the same for both services.

Written directly instead of asking a service to create them: quick, and neither
service's own way of making homes colours what the other is measured with.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from homemgr import crypt
from homemgr.record import signature
from homemgr.record.model import UserRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

PASSWORD = "correct horse battery staple"
RECORDS = Path("/var/lib/systemd/home")
BLOBS = Path("/var/cache/systemd/home")
#: Closed to everybody but root, so that both services can keep homes of nobody in it.
IMAGES = Path("/home/.homemgr")
#: Records lie on the file system of the homes, as on most machines, not on the box's tmpfs.
RECORDS_ON_DISK = Path("/home/.records")
NOBODY = 65534
FIRST_UID = 60001
#: Outside the range that nobody but systemd-homed uses, where there is room for thousands.
FIRST_UID_OF_MANY = 100_000
FILES_PER_DIRECTORY = 1000
#: People log in less often than a measurement.
NO_LIMIT: JsonObject = {"rateLimitIntervalUSec": 1_000_000, "rateLimitBurst": 1_000_000}


class Homes:
    """The home areas of one phase; made while no service runs."""

    def __init__(self) -> None:
        """Make the key pair that signs every record; both services find it as their own."""
        self.password = PASSWORD
        self.password_hash = crypt.hash_password(PASSWORD)
        self._pems = signature.generate_key_pair()
        self._key = signature.PrivateKey.from_pem(self._pems[0])
        self._machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()

    @property
    def secret(self) -> JsonObject:
        """What opens each of them."""
        return {"password": [self.password]}

    def new_record(self, name: str) -> JsonObject:
        """What a client sends to have a home created."""
        return {
            "userName": name,
            "disposition": "regular",
            "storage": "directory",
            "enforcePasswordPolicy": False,
            "lastChangeUSec": 1_700_000_000_000_000,
            "privileged": {"hashedPassword": [self.password_hash]},
            **NO_LIMIT,
        }

    def wipe(self) -> None:
        """Start a phase: no records, no homes, the keys in place."""
        for directory in (RECORDS, BLOBS):
            directory.mkdir(parents=True, exist_ok=True)
            _empty(directory)
        for image in Path("/home").glob("*.homedir"):
            shutil.rmtree(image)
        shutil.rmtree(IMAGES, ignore_errors=True)
        IMAGES.mkdir(mode=0o700)
        for name, pem, mode in zip(
            ("local.private", "local.public"), self._pems, (0o400, 0o444), strict=True
        ):
            (RECORDS / name).write_bytes(pem)
            (RECORDS / name).chmod(mode)

    def add(self, name: str, uid: int, *, files: int = 10) -> None:
        """A home that can be activated."""
        record = self._register(name, uid)
        top = IMAGES / f"{name}.homedir"
        top.mkdir(mode=0o700)
        _fill(top, files)
        identity = top / ".identity"
        identity.write_bytes(record.embedded().pretty())
        identity.chmod(0o600)
        for path in (top, identity):
            os.chown(path, NOBODY, NOBODY)

    def add_listed(self, count: int, first_uid: int) -> None:
        """Homes that are there to be listed: a record and an empty directory."""
        for number in range(count):
            self._register(f"user{number}", first_uid + number)
            (IMAGES / f"user{number}.homedir").mkdir(mode=0o700)

    def _register(self, name: str, uid: int) -> UserRecord:
        record = UserRecord({**self.new_record(name), "realName": f"The Person {name}"})
        signed = signature.sign(record, self._key).with_binding(
            self._machine,
            {
                "uid": uid,
                "gid": uid,
                "storage": "directory",
                "imagePath": str(IMAGES / f"{name}.homedir"),
                "homeDirectory": f"/home/{name}",
                "blobDirectory": str(BLOBS / name),
            },
        )
        (BLOBS / name).mkdir()
        path = RECORDS / f"{name}.identity"
        path.write_bytes(signed.pretty())
        path.chmod(0o600)
        return signed


def _fill(top: Path, count: int) -> None:
    for first in range(0, count, FILES_PER_DIRECTORY):
        directory = top / f"d{first // FILES_PER_DIRECTORY}"
        directory.mkdir()
        os.chown(directory, NOBODY, NOBODY)
        for number in range(min(FILES_PER_DIRECTORY, count - first)):
            # Without an object per path: there may be a hundred thousand.
            fd = os.open(f"{directory}/f{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.fchown(fd, NOBODY, NOBODY)
            os.close(fd)


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
