"""The area with the record beside a home: replaced as a whole, torn or damaged places."""

from __future__ import annotations

import pytest

from homemgr.volume import record_area

SIZE = 4096


class Disk:
    """Bytes that are read and written as an image is."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, text: bytes, share: float = 1.0) -> None:
        """Replace the text; with a smaller ``share`` the power goes in between."""
        offset, data = record_area.replaced(self.read, SIZE, text)
        data = data[: int(len(data) * share)]
        self.data[offset : offset + len(data)] = data

    def text(self) -> bytes | None:
        return record_area.read(self.read, SIZE)


def test_what_was_written_last_is_read() -> None:
    disk = Disk()
    assert disk.text() is None
    for number in range(5):
        text = b"x" * (number * 300)
        disk.write(text)
        assert disk.text() == text


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.99])
def test_what_was_torn_does_not_count(share: float) -> None:
    disk = Disk()
    disk.write(b"first" * 99)
    for _ in range(3):
        disk.write(b"second" * 99, share)
        assert disk.text() == b"first" * 99
    disk.write(b"third")
    assert disk.text() == b"third"


def test_any_flipped_byte_of_the_newer_place_gives_the_older_one() -> None:
    disk = Disk()
    disk.write(b"old")
    disk.write(b"new")
    for offset in (*range(28), *range(32, 67)):
        disk.data[SIZE // 2 + offset] ^= 0xFF
        assert disk.text() == b"old"
        disk.data[SIZE // 2 + offset] ^= 0xFF
    assert disk.text() == b"new"


def test_what_is_too_long_is_refused_and_nothing_changes() -> None:
    disk = Disk()
    fits = b"y" * (SIZE // 2 - 64)
    disk.write(fits)
    with pytest.raises(ValueError, match=f"{len(fits) + 1} bytes are more than the {len(fits)}"):
        disk.write(fits + b"y")
    assert disk.text() == fits


def test_an_area_that_ends_too_early_holds_nothing() -> None:
    disk = Disk()
    disk.write(b"text")
    del disk.data[40:]
    assert disk.text() is None
