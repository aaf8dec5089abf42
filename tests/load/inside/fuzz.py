"""Malformed messages on the bus and on the user database socket, from root and from strangers.

Each fuzzer is a process of its own. Nothing is expected of the answers: only that the service is
the same process afterwards.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from contextlib import suppress
from random import Random

from homemgr.wire import messages
from homemgr.wire.codec import Variant, encode
from homemgr.wire.signature import CodecError

from . import mutate, people
from .service import MANAGER, NAME, PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BUS = "/run/dbus/system_bus_socket"
USERDB = "/run/systemd/userdb/io.systemd.Home"
TIMEOUT_S = 30.0
BATCH = 32
#: Batches over one connection: what is still unanswered counts against its limit.
BATCHES_PER_CONNECTION = 3
#: Of the connections, those that end with a message whose bytes are damaged: for most of them the
#: bus itself ends the connection.
RAW_SHARE = 0.3
NOBODY = 65534
#: Nobody of the crowd: root's calls would take homes away from under their users.
FUZZ_NAMES = tuple(f"fuzz{number}" for number in range(4))

MEMBERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "GetHomeByName": ("s", ("name",)),
    "GetHomeByUID": ("u", ("uid",)),
    "GetUserRecordByName": ("s", ("name",)),
    "GetUserRecordByUID": ("u", ("uid",)),
    "ListHomes": ("", ()),
    "ActivateHome": ("ss", ("name", "secret")),
    "ActivateHomeIfReferenced": ("ss", ("name", "secret")),
    "DeactivateHome": ("s", ("name",)),
    "RegisterHome": ("s", ("record",)),
    "AdoptHome": ("st", ("path", "number")),
    "UnregisterHome": ("s", ("name",)),
    "CreateHome": ("s", ("record",)),
    "CreateHomeEx": ("sa{sh}t", ("record", "blobs", "number")),
    "RealizeHome": ("ss", ("name", "secret")),
    "RemoveHome": ("s", ("name",)),
    "FixateHome": ("ss", ("name", "secret")),
    "AuthenticateHome": ("ss", ("name", "secret")),
    "UpdateHome": ("s", ("record",)),
    "UpdateHomeEx": ("sa{sh}t", ("record", "blobs", "number")),
    "ResizeHome": ("sts", ("name", "number", "secret")),
    "ChangePasswordHome": ("sss", ("name", "secret", "secret")),
    "LockHome": ("s", ("name",)),
    "UnlockHome": ("ss", ("name", "secret")),
    "AcquireHome": ("ssb", ("name", "secret", "flag")),
    "RefHome": ("sb", ("name", "flag")),
    "RefHomeUnrestricted": ("sb", ("name", "flag")),
    "ReleaseHome": ("s", ("name",)),
    "GetSigningKey": ("s", ("text",)),
    "AddSigningKey": ("sst", ("text", "text", "number")),
    "RemoveSigningKey": ("st", ("text", "number")),
    "Rebalance": ("", ()),
}


#: The same on the objects of homes, which take no name.
AT_HOME = {
    **{
        member.replace("Home", ""): (signature[1:], kinds[1:])
        for member, (signature, kinds) in MEMBERS.items()
        if kinds[:1] == ("name",) and not member.startswith("Get")
    },
    "Update": ("s", ("record",)),
    "UpdateEx": ("sa{sh}t", ("record", "blobs", "number")),
}
PROPERTIES = "org.freedesktop.DBus.Properties"
OF_PROPERTIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Get": ("ss", ("text", "text")),
    "GetAll": ("s", ("text",)),
    "Set": ("ssv", ("text", "text", "variant")),
}
AT_HOME_SHARE, PROPERTY_SHARE = 0.15, 0.05


def fuzz_bus(seed: int, uid: int, names: list[str], count: int, until: float) -> Counter[str]:
    """So many messages as one user, or as many as there is time for; how they were answered."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    rng = Random(seed)
    answers: Counter[str] = Counter()
    sent = 0
    while sent < count and time.monotonic() < until:
        with suppress(OSError), _Connection(uid) as connection:
            for _ in range(BATCHES_PER_CONNECTION):
                sent += BATCH
                serials = [connection.next_serial() for _ in range(BATCH)]
                connection.send(b"".join(_frame(rng, names, serial) for serial in serials))
                answers += connection.drain()
            if rng.random() < RAW_SHARE:
                sent += 1
                connection.send(
                    mutate.damaged_bytes(rng, _frame(rng, names, connection.next_serial()))
                )
                answers["damaged"] += 1
                answers += connection.drain()
    answers["sent"] = sent
    return answers


def fuzz_userdb(seed: int, names: list[str], count: int, until: float) -> Counter[str]:
    """The same for the user database: damaged questions and plain garbage."""
    rng = Random(seed)
    answers: Counter[str] = Counter()
    while answers["sent"] < count and time.monotonic() < until:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(USERDB)
            for _ in range(BATCH):
                answers["sent"] += 1
                connection.sendall(_question(rng, names) + b"\0")
                if not connection.recv(1 << 16):
                    # It was no question at all.
                    answers["closed"] += 1
                    break
                answers["answered"] += 1
    return answers


def _question(rng: Random, names: list[str]) -> bytes:
    method = rng.choice(("GetUserRecord", "GetGroupRecord", "GetMemberships", "Nothing"))
    parameters = {"userName": rng.choice(names), "uid": 60111, "service": "io.systemd.Home"}
    whole = {"method": f"io.systemd.UserDatabase.{method}", "parameters": parameters}
    text = json.dumps(mutate.damaged_json(rng, whole)).encode()
    return mutate.damaged_bytes(rng, text).replace(b"\0", b"") if rng.random() < 0.3 else text


def _frame(rng: Random, names: list[str], serial: int) -> bytes:
    path, interface, members = PATH, MANAGER, MEMBERS
    kind = rng.random()
    if kind < AT_HOME_SHARE:
        path, interface, members = f"{PATH}/home/{rng.choice(names)}", f"{NAME}.Home", AT_HOME
    elif kind < AT_HOME_SHARE + PROPERTY_SHARE:
        path, interface, members = f"{PATH}/home/{rng.choice(names)}", PROPERTIES, OF_PROPERTIES
    member = rng.choice(list(members))
    signature, kinds = members[member]
    target = (NAME, path, interface, member)
    while True:
        # Some values cannot travel, such as a text with NUL in it.
        with suppress(CodecError):
            values = [_VALUES[kind](rng, names) for kind in kinds]
            return messages.call(serial, target, signature, encode(signature, values))


def _name(rng: Random, names: list[str]) -> object:
    return rng.choice(mutate.TEXTS) if rng.random() < 0.2 else rng.choice(names)


def _secret(rng: Random, _names: list[str]) -> object:
    return json.dumps(mutate.damaged_json(rng, {"password": ["wrong"], "tokenPin": ["1"]}))


def _record(rng: Random, names: list[str]) -> object:
    text = json.dumps(mutate.damaged_json(rng, people.record(rng.choice(names))))
    if rng.random() < 0.2:
        return mutate.damaged_bytes(rng, text.encode()).decode(errors="replace")
    return text


def _path(rng: Random, names: list[str]) -> object:
    return rng.choice((*mutate.TEXTS, f"/home/{rng.choice(names)}.homedir", "/home/x.home"))


_VALUES: dict[str, Callable[[Random, list[str]], object]] = {
    "name": _name,
    "secret": _secret,
    "record": _record,
    "path": _path,
    "text": lambda rng, _: rng.choice(mutate.TEXTS),
    "uid": lambda rng, _: rng.choice((0, 60111, 65534, 2**32 - 1)),
    "number": lambda rng, _: rng.choice((0, 1, 2, 1 << 40, 2**64 - 1)),
    "flag": lambda rng, _: rng.random() < 0.5,
    "blobs": lambda *_: {},
    "variant": lambda rng, _: Variant("s", rng.choice(mutate.TEXTS)),
}


class _Connection:
    """A connection to the bus that sends whatever it is given."""

    def __init__(self, uid: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(BUS)
        hello = (messages.BUS_NAME, messages.BUS_PATH, messages.BUS_NAME, "Hello")
        greeting = f"\0AUTH EXTERNAL {str(uid).encode().hex()}\r\nBEGIN\r\n".encode()
        self._socket.sendall(greeting + messages.call(1, hello))
        self._received = bytearray()
        self._serial = 1
        while b"\r\n" not in self._received:
            self._receive()
        del self._received[: self._received.find(b"\r\n") + 2]

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next_serial(self) -> int:
        """A number that no call of this connection has had."""
        self._serial += 1
        return self._serial

    def send(self, frames: bytes) -> None:
        """All of them at once, and after them a call that has an answer."""
        ping = (NAME, PATH, "org.freedesktop.DBus.Peer", "Ping")
        self._socket.sendall(frames + messages.call(self.next_serial(), ping))

    def drain(self) -> Counter[str]:
        """The answers that came before that to the last call; OSError if the bus has enough."""
        answers: Counter[str] = Counter()
        while True:
            size = messages.frame_size(self._received)
            if not size or len(self._received) < size:
                self._receive()
                continue
            message = messages.parse(bytes(self._received[:size]))
            del self._received[:size]
            if message.reply_serial == self._serial:
                return answers
            if message.kind in (messages.RETURN, messages.ERROR):
                answers[message.error_name.rpartition(".")[2] or "success"] += 1

    def _receive(self) -> None:
        chunk = self._socket.recv(1 << 16)
        if not chunk:
            raise ConnectionResetError
        self._received += chunk
