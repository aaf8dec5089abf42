"""Malformed messages and records fed straight into the parsers, as fast as they take them."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from homemgr.errors import HomeError
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret
from homemgr.record.validate import Purpose, validate
from homemgr.wire import messages
from homemgr.wire.codec import encode
from homemgr.wire.messages import ProtocolError
from homemgr.wire.signature import CodecError

from .inside import mutate
from .inside.people import record

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = ("org.freedesktop.home1", "/org/freedesktop/home1", "org.freedesktop.home1.Manager")
#: Of the kinds that have to be refused, and how: anything else that is raised is a fault.
REFUSED = (ProtocolError, CodecError, HomeError)
MACHINE = Machine("5" * 32, "box")
PURPOSES = tuple(Purpose)


def feed(count: int, seed: int) -> Counter[str]:
    """Parse so many damaged inputs; how each kind ended. Raises what no parser may raise."""
    rng = Random(seed)
    text = json.dumps(record("anna"))
    frames = [
        messages.call(2, (*TARGET, "ListHomes")),
        messages.call(3, (*TARGET, "ActivateHome"), "ss", encode("ss", ("anna", "{}"))),
        messages.call(4, (*TARGET, "CreateHome"), "s", encode("s", (text,))),
        messages.call(5, (*TARGET, "CreateHomeEx"), "sa{sh}t", encode("sa{sh}t", (text, {}, 0))),
        messages.call(6, (*TARGET, "Odd"), "a(sv)d", encode("a(sv)d", ([], 1.5))),
    ]
    ended: Counter[str] = Counter()
    for number in range(count):
        kind = number % 3
        if kind == 0:
            frame = mutate.damaged_bytes(rng, rng.choice(frames))
            ended[_end("message", lambda frame=frame: _message(frame))] += 1
        elif kind == 1:
            damaged = mutate.damaged_json(rng, record("anna"))
            ended[_end("record", lambda damaged=damaged: _record(rng, json.dumps(damaged)))] += 1
        else:
            raw = mutate.damaged_bytes(rng, text.encode())
            ended[_end("text", lambda raw=raw: _record(rng, raw))] += 1
    return ended


def _end(kind: str, parse: Callable[[], object]) -> str:
    try:
        parse()
    except REFUSED:
        return f"{kind} refused"
    return f"{kind} taken"


def _message(frame: bytes) -> None:
    size = messages.frame_size(frame)
    if size and size <= len(frame):
        messages.parse(frame[:size]).body()


def _record(rng: Random, text: str | bytes) -> None:
    made = UserRecord.parse(text)
    Secret.of_record(made)
    checked = validate(made, rng.choice(PURPOSES), MACHINE)
    checked.on(MACHINE).uid  # noqa: B018 -- reading is what is tried
    checked.pretty()
