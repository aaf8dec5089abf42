"""The stream of two workers, written into a file in memory and read from it."""

from __future__ import annotations

import os
import random
import socket
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homemgr.errors import StreamError, TransferInterrupted
from homemgr.files import Fd
from homemgr.transfer.chunks import MAX_CHUNK, PLAIN, head
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.frames import MAX_DATA, Control, Data, Eof, File, Frame, Hole, Leave
from homemgr.work.stream import GREETING, Incoming, Outgoing

FILE = Entry(Kind.FILE, 0o644, 1, 1, 0, 0, 40_000, b"", ())


def noise(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


#: What compresses and what does not, in turns.
FRAMES: list[Frame] = [
    Control({"hello": 1}),
    File(b"packed", FILE, b"text and " * 4444 + b"more"),
    File(b"raw", FILE, noise(40_000, 1)),
    File(b"large", FILE, None),
    Data(0, noise(MAX_DATA, 2)),
    Data(MAX_DATA, noise(MAX_DATA, 3)),
    Data(MAX_DATA * 2, bytes(MAX_DATA)),
    Hole(MAX_DATA * 3, 5),
    Data(MAX_DATA * 4, noise(1000, 4)),
    Eof(bytes(32)),
    *[Leave()] * 50,
    Control({"failed": "nothing"}),
]


def patience() -> None:
    raise AssertionError("waited for what does not come")


def in_memory(data: bytes = b"") -> Fd:
    file = Fd(os.memfd_create("stream"))
    os.pwrite(file.fileno(), data, 0)
    return file


def wire(frames: list[Frame]) -> bytes:
    """All that leaves for ``frames``, to the end."""
    with in_memory() as file:
        outgoing = Outgoing(file, patience)
        for frame in frames:
            outgoing.send(frame)
            if isinstance(frame, Control):
                outgoing.flush()
        outgoing.end()
        data = os.pread(file.fileno(), 16 << 20, 0)
        assert outgoing.sent_bytes == len(data)
        return data


def received(data: bytes) -> tuple[list[Frame], Exception]:
    """The frames in ``data``, and what came of the rest."""
    frames: list[Frame] = []
    with in_memory(data) as file:
        incoming = Incoming(file, patience)
        try:
            while True:
                frames.append(incoming.receive())
        except (StreamError, TransferInterrupted) as error:
            return frames, error


WIRE = wire(FRAMES)


def test_frames_come_out_as_they_went_in() -> None:
    frames, error = received(WIRE)
    assert frames == FRAMES
    assert isinstance(error, TransferInterrupted)


@given(st.integers(0, len(WIRE) - 1))
@settings(max_examples=60)
def test_of_a_stream_that_is_cut_comes_what_was_whole(at: int) -> None:
    frames, error = received(WIRE[:at])
    assert isinstance(error, TransferInterrupted)
    assert frames == FRAMES[: len(frames)]


def test_all_but_the_last_chunk_comes_of_a_stream_cut_in_it() -> None:
    frames, _ = received(wire(FRAMES[:5])[: -MAX_DATA // 2])
    assert frames == FRAMES[:4]


@given(st.integers(len(GREETING), len(WIRE) - 1), st.integers(1, 255))
@settings(max_examples=60)
def test_a_damaged_stream_ends_in_a_refusal(at: int, flipped: int) -> None:
    damaged = bytearray(WIRE)
    damaged[at] ^= flipped
    frames, _ = received(bytes(damaged))
    assert len(frames) <= len(FRAMES)


@given(st.binary(max_size=200))
def test_noise_after_the_greeting_is_no_frame(data: bytes) -> None:
    frames, _ = received(GREETING + data)
    assert not [frame for frame in frames if isinstance(frame, Data)]


def test_another_version_is_refused() -> None:
    _, error = received(GREETING.replace(b"6", b"5"))
    assert isinstance(error, StreamError)
    assert "of another version" in str(error)


def test_what_a_login_prints_is_told() -> None:
    _, error = received(b"Welcome to this machine, dear guest!\n")
    assert "Welcome to this machine, dear guest!" in str(error)


def test_the_length_of_a_chunk_is_checked_before_memory_is_taken() -> None:
    tracemalloc.start()
    try:
        _, error = received(GREETING + head(PLAIN, 2**31))
        assert tracemalloc.get_traced_memory()[1] < MAX_CHUNK
    finally:
        tracemalloc.stop()
    assert isinstance(error, StreamError)


def test_chunks_of_one_byte_are_frames_as_well() -> None:
    body = b"".join(head(PLAIN, 1) + bytes([byte]) for byte in b"\x03\0\0\0\0" * 9)
    assert received(GREETING + body)[0] == [Leave()] * 9


def test_what_was_handed_over_already_is_flushed_as_well() -> None:
    here, there = socket.socketpair()
    with Fd(here.detach()) as near, Fd(there.detach()) as far:
        outgoing, incoming = Outgoing(near, patience), Incoming(far, patience)
        # The last of them is just what makes a batch full.
        batch = [Data(MAX_DATA * number, bytes(MAX_DATA)) for number in range(2)]
        for frame in batch:
            outgoing.send(frame)
        outgoing.flush()
        assert [incoming.receive(), incoming.receive()] == batch
        for frame in batch:
            outgoing.send(frame)
        # Nor are the last words kept back.
        outgoing.end()
        assert [incoming.receive(), incoming.receive()] == batch


@pytest.mark.parametrize("last", [FRAMES[4], FRAMES[1], FRAMES[9]])
def test_what_is_flushed_can_be_received_before_more_comes(last: Frame) -> None:
    here, there = socket.socketpair()
    with Fd(here.detach()) as near, Fd(there.detach()) as far:
        outgoing, incoming = Outgoing(near, lambda: None), Incoming(far, lambda: None)
        for _ in range(3):
            outgoing.send(last)
            outgoing.flush()
            assert incoming.receive() == last
            assert not incoming.has_come
        outgoing.end()
        with suppress(TransferInterrupted):
            incoming.receive()
