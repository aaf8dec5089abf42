"""A service with one object of every kind, run in a thread, for tests of room wire."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from homemgr.errors import HomeBusy, NoSuchHome
from homemgr.files import Fd
from homemgr.wire.codec import Encoded, Variant, encode
from homemgr.wire.connection import Connection
from homemgr.wire.dispatch import Call, Dispatcher, Interface, Method, Node, Property, Signal

NAME = "org.example.Service"
ROOT = "/org/example/Service"
ITEMS = ROOT + "/item"
FACE = "org.example.Service.Face"

T = TypeVar("T")


@dataclass
class Sample:
    """State the handlers work on, and what they noticed."""

    items: list[str] = field(default_factory=lambda: ["alice", "bob"])
    level: str = "info"
    seen: list[object] = field(default_factory=list)
    kept_fds: list[Fd] = field(default_factory=list)
    cancelled: int = 0


def greet(_target: Sample, _call: Call, name: str) -> tuple[str]:
    if name == "nobody":
        raise NoSuchHome("There is no home nobody.")
    return (f"Hello {name}",)


async def slow(target: Sample, _call: Call, milliseconds: int) -> tuple[int]:
    try:
        await asyncio.sleep(milliseconds / 1000)
    except asyncio.CancelledError:
        target.cancelled += 1
        raise
    return (milliseconds,)


async def busy_later(_target: Sample, _call: Call) -> None:
    await asyncio.sleep(0)
    raise HomeBusy("Still busy.")


async def who_am_i(target: Sample, call: Call) -> tuple[int, int, bool]:
    peer = await call.caller()
    target.seen.append(call.sender)
    return (peer.uid, peer.pid, call.interactive)


def stumble(_target: Sample, _call: Call, text: str) -> None:
    raise ValueError(f"quoting {text}")


async def stumble_later(_target: Sample, _call: Call, text: str) -> None:
    await asyncio.sleep(0)
    raise ValueError(f"quoting {text}")


def misfit(_target: Sample, _call: Call) -> tuple[int]:
    return (7,)


def bare(_target: Sample, _call: Call) -> str:
    return "x"


def huge(_target: Sample, _call: Call) -> tuple[bytes]:
    return (bytes(33 << 20),)


def huge_pipe(_target: Sample, _call: Call) -> tuple[bytes, Fd]:
    reader, writer = os.pipe()
    os.close(reader)
    return (bytes(33 << 20), Fd(writer))


def make_pipe(target: Sample, _call: Call) -> tuple[Fd]:
    reader, writer = os.pipe()
    target.kept_fds.append(Fd(reader))
    return (Fd(writer),)


async def read_all(_target: Sample, _call: Call, files: dict[str, Fd]) -> tuple[dict[str, str]]:
    # Later than the dispatch: the descriptors have to be there still.
    await asyncio.sleep(0.005)
    return ({name: os.pread(fd.fileno(), 100, 0).decode() for name, fd in files.items()},)


def keep(target: Sample, _call: Call, fd: Fd) -> None:
    target.kept_fds.append(Fd(fd.take()))


def echo(_target: Sample, _call: Call, data: bytes) -> tuple[bytes]:
    return (data,)


def prepared(target: Sample, _call: Call) -> Encoded:
    return Encoded("as", bytes(encode("as", (target.items,))))


def unprepared(_target: Sample, _call: Call) -> Encoded:
    return Encoded("s", bytes(encode("s", ("x",))))


def set_level(target: Sample, _call: Call, level: str) -> None:
    target.level = level


async def get_items(target: Sample, _call: Call) -> list[str]:
    await asyncio.sleep(0)
    return target.items


def get_broken(_target: Sample, _call: Call) -> str:
    raise HomeBusy("No value now.")


_TEXT = (("text", "s"),)
SERVICE = Interface(
    FACE,
    (
        Method("Greet", (("name", "s"),), (("greeting", "s"),), greet),
        Method(
            "Slow",
            (("milliseconds", "u"),),
            (("milliseconds", "u"),),
            slow,
            (("org.freedesktop.systemd1.Privileged", "true"),),
        ),
        Method("BusyLater", (), (), busy_later),
        Method("WhoAmI", (), (("uid", "u"), ("pid", "u"), ("interactive", "b")), who_am_i),
        Method("Stumble", _TEXT, (), stumble),
        Method("StumbleLater", _TEXT, (), stumble_later),
        Method("Misfit", (), _TEXT, misfit),
        Method("Bare", (), _TEXT, bare),
        Method("Huge", (), (("data", "ay"),), huge),
        Method("HugePipe", (), (("data", "ay"), ("fd", "h")), huge_pipe),
        Method("MakePipe", (), (("fd", "h"),), make_pipe),
        Method("ReadAll", (("files", "a{sh}"),), (("texts", "a{ss}"),), read_all),
        Method("Keep", (("fd", "h"),), (), keep),
        Method("Echo", (("data", "ay"),), (("data", "ay"),), echo),
        Method("Prepared", (), (("items", "as"),), prepared),
        Method("Unprepared", (), (("items", "as"),), unprepared),
    ),
    (
        Property("Items", "as", get_items, "true"),
        Property("Level", "s", lambda target, _call: target.level, "const", set=set_level),
    ),
    (Signal("Happened", (("what", "s"),)),),
)

ITEM = Interface(
    FACE + ".Item",
    (),
    (Property("Name", "s", lambda target, _call: target, "invalidates"),),
)

BROKEN = Interface(FACE + ".Broken", (), (Property("Broken", "s", get_broken),))


@dataclass
class Tree:
    """The object tree of the sample."""

    sample: Sample

    def resolve(self, path: str) -> Node | None:
        if path == ROOT:
            return Node(self.sample, (SERVICE,))
        if path == ITEMS:
            return Node(manages=True)
        if path in ("/", "/org", "/org/example"):
            return Node()
        if path == ROOT + "/broken":
            return Node(self.sample, (BROKEN,))
        parent, _, name = path.rpartition("/")
        if parent == ITEMS and name in self.sample.items:
            return Node(name, (ITEM,))
        return None

    def children(self, path: str) -> list[str]:
        if path == ITEMS:
            return self.sample.items
        return {
            "/": ["org"],
            "/org": ["example"],
            "/org/example": ["Service"],
            ROOT: ["broken", "item"],
        }.get(path, [])


class Running:
    """The sample on a bus, on an event loop in a thread of its own."""

    def __init__(self, address: str) -> None:
        """Start and own the name before this returns."""
        self.sample = Sample()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.dispatcher = Dispatcher(Tree(self.sample))
        self.connection = self.run(self._start(address))

    async def _start(self, address: str) -> Connection:
        connection = await Connection.open(address)
        connection.serve(self.dispatcher)
        await connection.request_name(NAME)
        return connection

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        """Run something on the service's loop."""
        return asyncio.run_coroutine_threadsafe(doing, self.loop).result(30)

    def emit(self, what: str) -> None:
        self.loop.call_soon_threadsafe(
            lambda: self.connection.emit(ROOT, FACE, "Happened", "s", (what,))
        )

    def stop(self) -> None:
        self.run(self.dispatcher.drain(timeout_s=1))
        self.run(self.connection.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        for fd in self.sample.kept_fds:
            fd.close()


def text_of(value: object) -> object:
    """A variant's value, for short comparisons."""
    assert isinstance(value, Variant)
    return value.value
