"""The stream below a connection, on a pair of sockets whose other end is ours to misuse."""

from __future__ import annotations

import array
import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.codec import encode
from homemgr.wire.connection import Connection
from homemgr.wire.messages import BusError, Message
from homemgr.wire.transport import HIGH_WATER_BYTES, MESSAGES_PER_TURN, Transport

TARGET = ("a.b", "/", "a.b", "C")


@dataclass
class Ends:
    """A transport, the other end of its socket, and what it told."""

    transport: Transport
    other: socket.socket
    got: list[Message] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    async def until(self, claim: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not claim():
                await asyncio.sleep(0.001)


def play(scene: Callable[[Ends], Awaitable[None]]) -> None:
    """Run ``scene`` and see that it leaves no descriptor behind."""
    before = len(os.listdir("/proc/self/fd"))

    async def run() -> None:
        ours, other = socket.socketpair()
        got: list[Message] = []
        closed: list[str] = []
        ends = Ends(Transport(ours, got.append, closed.append), other, got, closed)
        await scene(ends)
        ends.transport.close()
        other.close()
        for message in got:
            message.close_fds()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


def frame(serial: int, *texts: str) -> bytes:
    return messages.call(serial, TARGET, "s" * len(texts), encode("s" * len(texts), texts))


@contextmanager
def opened(count: int) -> Iterator[list[Fd]]:
    fds = [Fd(os.open("/dev/null", os.O_RDONLY)) for _ in range(count)]
    yield fds
    for fd in fds:
        fd.close()


def with_fds(serial: int, fds: list[Fd]) -> bytes:
    indexes = list(range(len(fds)))
    return messages.call(serial, TARGET, "h" * len(fds), encode("h" * len(fds), indexes, fds))


def send(to: socket.socket, data: bytes, fds: list[Fd]) -> None:
    numbers = array.array("i", [fd.fileno() for fd in fds])
    to.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


# --- in ---------------------------------------------------------------------------------


def test_messages_in_any_pieces_arrive_whole_and_in_order() -> None:
    async def scene(ends: Ends) -> None:
        stream = b"".join(frame(serial, "x" * serial) for serial in range(1, 50))
        for at in range(0, len(stream), 37):
            ends.other.sendall(stream[at : at + 37])
            await asyncio.sleep(0)
        await ends.until(lambda: len(ends.got) == 49)
        assert [message.body() for message in ends.got] == [["x" * n] for n in range(1, 50)]

    play(scene)


def test_loop_has_its_turn_within_a_flood() -> None:
    async def scene(ends: Ends) -> None:
        ends.other.sendall(frame(1) * 500)
        most = before = 0
        while before < 500:
            await asyncio.sleep(0)
            most = max(most, len(ends.got) - before)
            before = len(ends.got)
        assert most == MESSAGES_PER_TURN

    play(scene)


def test_each_message_gets_its_own_descriptors() -> None:
    async def scene(ends: Ends) -> None:
        with opened(3) as fds:
            send(ends.other, with_fds(1, fds[:2]), fds[:2])
            ends.other.sendall(frame(2, "none"))
            send(ends.other, with_fds(3, fds), fds)
        await ends.until(lambda: len(ends.got) == 3)
        assert [len(message.fds) for message in ends.got] == [2, 0, 3]

    play(scene)


def test_descriptors_beyond_our_limit_are_lost_but_never_mixed_up() -> None:
    async def scene(ends: Ends) -> None:
        with opened(4) as fds:
            send(ends.other, with_fds(1, fds), fds)
            send(ends.other, with_fds(2, fds[:1]), fds[:1])
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, limits[1]))
        try:
            # Room for some of the first four; the rest is dropped by the kernel.
            fillers = fill_to_all_but(1)
            await ends.until(lambda: len(ends.got) == 2)
            for filler in fillers:
                os.close(filler)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [message.fds_lost for message in ends.got] == [True, False]
        assert [[fd.is_open for fd in message.fds] for message in ends.got] == [[False], [True]]

    play(scene)


def fill_to_all_but(free: int) -> list[int]:
    """Use up the descriptors this process may have, but for ``free``."""
    numbers = []
    while True:
        try:
            numbers.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    for _ in range(free):
        os.close(numbers.pop())
    return numbers


@pytest.mark.parametrize("sent", [0, 1])
def test_descriptors_that_do_not_match_end_the_connection(sent: int) -> None:
    async def scene(ends: Ends) -> None:
        with opened(2) as fds:
            if sent:
                send(ends.other, with_fds(1, fds), fds[:sent])
            else:
                ends.other.sendall(with_fds(1, fds))
        await ends.until(lambda: ends.closed)
        assert not ends.got

    play(scene)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"l\1\0\2" + bytes(12),
        b"l\1\0\1\xff\xff\xff\x7f" + bytes(8),
        b"l\1\0\1" + bytes(8) + b"\x08\0\0\0" + b"\1\1s\0\xff\0\0\0",
    ],
)
def test_garbage_ends_the_connection_with_a_reason(garbage: bytes) -> None:
    async def scene(ends: Ends) -> None:
        ends.other.sendall(garbage)
        await ends.until(lambda: ends.closed)
        assert "not D-Bus" in ends.closed[0]
        # What is sent afterwards goes nowhere, quietly.
        reader, writer = os.pipe()
        os.close(reader)
        ends.transport.send(frame(1), [Fd(writer)])
        await ends.transport.flush()

    play(scene)


def test_end_of_stream_is_told_once() -> None:
    async def scene(ends: Ends) -> None:
        ends.other.close()
        await ends.until(lambda: ends.closed)
        ends.transport.close()
        await asyncio.sleep(0.01)
        assert ends.closed == ["the bus closed the connection"]

    play(scene)


# --- out --------------------------------------------------------------------------------


def received(from_: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += from_.recv(1 << 20)
    return data


def test_full_buffer_delays_messages_and_loses_none() -> None:
    async def scene(ends: Ends) -> None:
        frames = [frame(serial, "x" * 5000) for serial in range(1, 1001)]
        for one in frames:
            ends.transport.send(one)
        everything = b"".join(frames)
        data = await asyncio.to_thread(received, ends.other, len(everything))
        assert data == everything
        await ends.transport.flush()

    play(scene)


def test_descriptors_wait_with_their_message_and_are_closed_after_it() -> None:
    async def scene(ends: Ends) -> None:
        filler = frame(1, "x" * (1 << 20))
        reader, writer = os.pipe()
        ends.transport.send(filler)
        ends.transport.send(frame(2), [Fd(writer)])
        assert len(received(ends.other, 1)) > 0
        with Fd(reader) as end:
            assert not is_closed(end)
            for _ in range(200):
                await asyncio.sleep(0.001)
                ends.other.settimeout(0)
                try:
                    ends.other.recv(1 << 20)
                except BlockingIOError:
                    continue
            # recv(2) without room for descriptors closed them: nobody has the end now.
            assert is_closed(end)

    play(scene)


def is_closed(reader: Fd) -> bool:
    os.set_blocking(reader.fileno(), False)
    try:
        return os.read(reader.fileno(), 1) == b""
    except BlockingIOError:
        return False


def test_who_does_not_take_answers_is_not_read() -> None:
    async def scene(ends: Ends) -> None:
        ends.transport.send(bytes(HIGH_WATER_BYTES + (1 << 20)))
        ends.other.sendall(frame(1))
        await asyncio.sleep(0.05)
        assert not ends.got
        data = asyncio.to_thread(received, ends.other, HIGH_WATER_BYTES + (1 << 20))
        await data
        await ends.until(lambda: ends.got)

    play(scene)


def test_closing_lets_go_of_what_was_not_sent() -> None:
    async def scene(ends: Ends) -> None:
        reader, writer = os.pipe()
        ends.transport.send(bytes(4 << 20))
        ends.transport.send(frame(2), [Fd(writer)])
        flushing = asyncio.ensure_future(ends.transport.flush())
        await asyncio.sleep(0)
        ends.transport.close()
        await flushing
        with Fd(reader) as end:
            assert is_closed(end)

    play(scene)


def test_broken_pipe_is_told_and_does_not_raise() -> None:
    async def scene(ends: Ends) -> None:
        ends.other.close()
        for _ in range(3):
            ends.transport.send(frame(1))
        await ends.until(lambda: ends.closed)

    play(scene)


# --- before the first message -----------------------------------------------------------

LATER_PYTHON = """
import sys, typing, warnings
warnings.simplefilter("error")
vars(typing).pop("no_type_check_decorator", None)
from homemgr.wire import handshake
print("gi" in sys.modules)
"""


def test_library_loads_on_later_pythons_and_without_its_glib_side() -> None:
    # typing.no_type_check_decorator is deprecated since Python 3.13 and gone in 3.15.
    shown = subprocess.run(
        [sys.executable, "-c", LATER_PYTHON], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "False\n"


def against(path: Path, answer: bytes, last: bytes = b"AUTH") -> BusError:
    """How opening fails when the server says ``answer`` and leaves on seeing ``last``."""

    async def run() -> BusError:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await reader.readuntil(last)
            writer.close()

        server = await asyncio.start_unix_server(serve, str(path))
        with pytest.raises(BusError) as caught:
            await asyncio.wait_for(Connection.open(f"unix:path={path}"), 5)
        server.close()
        await server.wait_closed()
        return caught.value

    return asyncio.run(run())


@pytest.mark.parametrize(
    "answer", [b"", b"OK 0123\r\n", b"REJECTED EXTERNAL\r\n", b"HTTP/1.0 400\r\n", b"x" * 20_000]
)
def test_failed_authentication_ends_with_a_reason(tmp_path: Path, answer: bytes) -> None:
    error = against(tmp_path / "bus", answer)
    assert error.name == "org.freedesktop.DBus.Error.AuthFailed"
    assert str(tmp_path) in error.message


def test_bus_that_leaves_before_hello_is_answered(tmp_path: Path) -> None:
    error = against(tmp_path / "bus", b"OK 0123\r\nAGREE_UNIX_FD\r\n", b"Hello")
    assert error.name == "org.freedesktop.DBus.Error.Disconnected"
