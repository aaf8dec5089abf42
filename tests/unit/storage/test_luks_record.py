"""The record in the header of a volume: what is written is read, also as systemd-homed has it."""

from __future__ import annotations

import base64
import json
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.storage import luks_record
from homemgr.volume.luks import Volume

KEY = bytearray(range(32))


class Header:
    """As much of a volume as records need."""

    def __init__(self, mode: str = "xts-plain64", tokens: tuple[str, ...] = ()) -> None:
        self.cipher = ("aes", mode)
        self.key_size = len(KEY)
        self.held = dict(enumerate(tokens))

    def tokens(self) -> dict[int, str]:
        return dict(self.held)

    def set_token(self, text: str | None, number: int = -1) -> None:
        if text is None:
            del self.held[number]
        else:
            self.held[len(self.held) if number < 0 else number] = text


def of(header: Header) -> Volume:
    return cast("Volume", header)


@given(st.binary(min_size=16, max_size=3000), st.binary(min_size=16, max_size=100))
def test_a_record_is_read_back_and_replaced(first: bytes, second: bytes) -> None:
    other = '{"type":"somebody-elses"}'
    header = Header(tokens=(other,))
    for text in (first, second):
        luks_record.write(of(header), KEY, text)
        assert luks_record.read(of(header), KEY) == text
    assert header.held[0] == other
    assert len(header.held) == 2
    token = json.loads(header.held[1])
    assert token["type"] == "systemd-homed"
    assert token["keyslots"] == []
    assert len(base64.b64decode(token["record"])) == len(second)


def test_further_records_are_deleted() -> None:
    old = '{"type":"systemd-homed","keyslots":[],"record":"","iv":""}'
    header = Header(tokens=(old, old, old))
    luks_record.write(of(header), KEY, b"0123456789abcdef")
    assert list(header.held) == [0]


@pytest.mark.parametrize(
    "token",
    [
        "{}",
        "no json",
        "[]",
        '{"type":"systemd-homed"}',
        '{"type":"systemd-homed","record":7,"iv":"AAAA"}',
        '{"type":"systemd-homed","record":"!","iv":"!"}',
        '{"type":"systemd-homed","record":"AAAA","iv":"AAAA"}',
    ],
)
def test_what_cannot_be_read_counts_as_lost(token: str) -> None:
    assert luks_record.read(of(Header(tokens=(token,))), KEY) is None


def test_another_cipher_has_no_record() -> None:
    header = Header("cbc-essiv:sha256")
    luks_record.write(of(header), KEY, b"0123456789abcdef")
    assert header.held == {}
