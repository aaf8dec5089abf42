"""Where a record to be sent comes from and what goes with it: identity file, blobs, stamps.

The files and the clock of the command line; what options do to a record is in
`record_edit`, what the service does with it is not known here.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import time
from typing import TYPE_CHECKING

from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.setup.tree import Tree
from homemgr.crypt import hash_password
from homemgr.errors import InvalidRecord
from homemgr.files import Fd
from homemgr.record import jsontext
from homemgr.record.model import UserRecord
from homemgr.record.names import is_blob_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.cli.arguments import Arguments
    from homemgr.record.jsontext import Json, JsonObject

#: Also asked for by SYSTEMD_HOME_DRY_RUN=1, which homectl knows.
DRY_RUN = Option("dry-run", "", "", "Show the record that would be sent, and send nothing")

_ANYBODY = "anybody"
_BLOB_DIRECTORY = "/var/cache/systemd/home"
_NAMED_BLOBS = {"avatar": "avatar", "login-background": "login-background"}
_MODHEX = "cbdefghijklnrtuv"
_RECOVERY_KEY_BYTES = 32
_RECOVERY_KEY_GROUP = 8


def now_usec() -> int:
    """The time stamps are made with."""
    return time.time_ns() // 1000


def machine_id(arguments: Arguments) -> str:
    """What perMachine entries for this machine, or for that of the image, are marked with."""
    with open(on_machine(arguments, "/etc/machine-id"), encoding="ascii") as file:
        return file.read().strip()


def on_machine(arguments: Arguments, path: str) -> str:
    """Where a path of the machine is: in the image, if there is one, wherever links in it lead."""
    root = arguments.value("root")
    return Tree(os.path.realpath(root)).real(path) if root else path


def read_text(path: str) -> str:
    """A file named on the command line; ValueError if it is no text."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError("a file in UTF-8") from error


def is_dry_run(arguments: Arguments) -> bool:
    """Whether nothing is to be sent."""
    return arguments.has("dry-run") or os.environ.get("SYSTEMD_HOME_DRY_RUN") == "1"


def show(record: JsonObject) -> None:
    """Print the record of a dry run: without the section that holds passwords as they are."""
    shown: JsonObject = {name: value for name, value in record.items() if name != "secret"}
    print(jsontext.pretty(shown), end="", file=sys.stderr)


def read_identity(path: str, option: str = "--identity=") -> JsonObject:
    """The record in the file ``path``, or on standard input for ``-``; InvalidRecord if none.

    ``option`` is how the path was given.
    """
    if path == "-":
        data = sys.stdin.buffer.read(jsontext.MAX_RECORD_BYTES + 1)
    else:
        with open(path, "rb") as file:
            data = file.read(jsontext.MAX_RECORD_BYTES + 1)
    try:
        record = jsontext.parse(data)
        # Its shape only, so that no option meets a section that is none; the name may
        # still come from the command line.
        UserRecord({"userName": _ANYBODY, **record})
        return record
    except InvalidRecord as error:
        raise InvalidRecord(f"{option}{path}: {error.message}") from error


def stamp(record: JsonObject, *, with_password: bool, override: bool) -> None:
    """Set the change stamps to now; without ``override`` those that are there stay."""
    now = now_usec()
    fields = ["lastChangeUSec", *(["lastPasswordChangeUSec"] if with_password else [])]
    for field in fields:
        known = record.get(field)
        if known is not None and not override:
            continue
        # Records are compared by this stamp: going back in time would lose the change.
        if isinstance(known, int) and known >= now:
            raise InvalidRecord(f".{field}: is in the future, so it cannot be set to now.")
        record[field] = now


def hashed(password: str) -> str:
    """The hash of a new password, with the method that systemd's variable asks for."""
    try:
        return hash_password(password, os.environ.get("SYSTEMD_CRYPT_PREFIX"))
    except ValueError as error:
        raise UsageError(f"This password cannot be used: {error}.") from error


def set_password(record: JsonObject, password: str) -> None:
    """Make ``password`` the only one of the record: its hash, and itself for the service."""
    privileged = dict(_object(record.get("privileged")))
    # Replaced, not appended: a second try after a weak password must not leave the first.
    privileged["hashedPassword"] = [hashed(password)]
    record["privileged"] = privileged
    add_secret(record, password)


def take_password(record: JsonObject) -> None:
    """Forget the first password of the secret section: recovery keys and PINs come after it."""
    secret = dict(_object(record.get("secret")))
    known = secret.pop("password", None)
    if isinstance(known, list) and known[1:]:
        secret["password"] = known[1:]
    record["secret"] = secret


def add_secret(record: JsonObject, password: str, *, first: bool = True) -> None:
    """Put a password into the secret section, which the service reads and drops."""
    secret = dict(_object(record.get("secret")))
    known = secret.get("password")
    others = [known] if isinstance(known, str) else known if isinstance(known, list) else []
    secret["password"] = [password, *others] if first else [*others, password]
    record["secret"] = secret


def add_token_pin(record: JsonObject, pin: str) -> None:
    """Put the PIN of a security token into the secret section."""
    secret = dict(_object(record.get("secret")))
    known = secret.get("tokenPin")
    others: list[Json] = known if isinstance(known, list) else [known] if known else []
    secret["tokenPin"] = others if pin in others else [*others, pin]
    record["secret"] = secret


def new_recovery_key() -> str:
    """A fresh recovery key, in the spelling that is hashed."""
    raw = secrets.token_bytes(_RECOVERY_KEY_BYTES)
    # Modhex: letters that lie in the same place on most keyboards.
    letters = "".join(_MODHEX[byte >> 4] + _MODHEX[byte & 15] for byte in raw)
    starts = range(0, len(letters), _RECOVERY_KEY_GROUP)
    return "-".join(letters[i : i + _RECOVERY_KEY_GROUP] for i in starts)


def add_recovery_key(record: JsonObject) -> str:
    """Make a recovery key, enrol it, and return it to be shown once."""
    key = new_recovery_key()
    privileged = dict(_object(record.get("privileged")))
    known = privileged.get("recoveryKey")
    entry: JsonObject = {"type": "modhex64", "hashedPassword": hashed(key)}
    privileged["recoveryKey"] = [*(known if isinstance(known, list) else []), entry]
    record["privileged"] = privileged
    record["recoveryKeyType"] = ["modhex64"]
    add_secret(record, key, first=False)
    return key


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


# --- blobs ----------------------------------------------------------------------------


class Blobs:
    """Blob files for one call: name to open file. The call duplicates them, we close them."""

    def __init__(self) -> None:
        """None yet."""
        self._files: dict[str, Fd] = {}

    def arguments(self) -> tuple[dict[str, int], list[Fd]]:
        """The map for the signature a{sh}, and the descriptors it points into."""
        names = list(self._files)
        return {name: index for index, name in enumerate(names)}, list(self._files.values())

    def close(self) -> None:
        """Close all."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def add(self, name: str, path: str) -> None:
        """Open ``path`` as the blob ``name``; it has to be a regular file."""
        self.drop(name)
        # Not blocking: a fifo is refused below, not waited for.
        file = Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise UsageError(f"{path} cannot be a blob: it is no regular file.")
        self._files[name] = file

    def add_directory(self, path: str, *, overwrite: bool = True) -> None:
        """Add every file of a directory that may be a blob."""
        for name in sorted(os.listdir(path)):
            fine = is_blob_name(name) and os.path.isfile(os.path.join(path, name))
            if fine and (overwrite or name not in self._files):
                self.add(name, os.path.join(path, name))

    def drop(self, name: str | None = None) -> None:
        """Forget one blob, or all."""
        if name is None:
            self.close()
        elif name in self._files:
            self._files.pop(name).close()


def blobs_of(arguments: Arguments, existing: str | None = None) -> Blobs:
    """The blobs after the options of the command line; ``existing`` is the directory to start from.

    Options in order: an empty ``--blob=`` removes all, a directory replaces all, a
    file one; an empty path removes one.
    """
    blobs = Blobs()
    if existing:
        blobs.add_directory(existing)
    for option, text in arguments.given:
        if option.name == "blob":
            _take_blob(blobs, text)
        elif option.name in _NAMED_BLOBS:
            _take_file(blobs, _NAMED_BLOBS[option.name], text)
    return blobs


def _take_blob(blobs: Blobs, text: str) -> None:
    name, equals, path = text.rpartition("=")
    if equals:
        if not is_blob_name(name):
            raise UsageError(f"--blob={text}: {name!r} is no name for a blob.")
        _take_file(blobs, name, path)
        return
    blobs.drop()
    if text:
        blobs.add_directory(text)


def _take_file(blobs: Blobs, name: str, path: str) -> None:
    if path:
        blobs.add(name, path)
    else:
        blobs.drop(name)


def has_blob_options(arguments: Arguments) -> bool:
    """Whether the command line says anything about blobs."""
    return any(arguments.has(name) for name in ("blob", *_NAMED_BLOBS))


def blob_directory(record: Mapping[str, Json], user: str, machine: str) -> str:
    """Where the host copy of a home's blobs is."""
    binding = _object(_object(record.get("binding")).get(machine))
    # The binding is this machine's; a path from elsewhere in the record may be another's.
    known = binding.get("blobDirectory") or record.get("blobDirectory")
    root = os.environ.get("SYSTEMD_HOME_SYSTEM_BLOB_DIR", _BLOB_DIRECTORY)
    return known if isinstance(known, str) else os.path.join(root, user)
