"""What btrfs sends: the names it speaks of, however the bytes come; nonsense is refused."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import StreamError
from homemgr.transfer.btrfs_stream import MAGIC, MAX_BODY, Attribute, ChangedNames
from homemgr.transfer.selection import ALL, Selection

#: Commands of linux/fs/btrfs/send.h.
SNAPSHOT, MKFILE, MKDIR, SYMLINK, RENAME, LINK, UNLINK = 2, 3, 4, 8, 9, 10, 11
UTIMES, END, UPDATE_EXTENT = 20, 21, 22
PATH, TO, TARGET, UUID = Attribute.PATH, Attribute.PATH_TO, Attribute.PATH_LINK, 1

BEGIN = MAGIC + struct.pack("<I", 1)


def command(number: int, **attributes: bytes) -> bytes:
    names = {"path": PATH, "to": TO, "link": TARGET, "uuid": UUID}
    body = b"".join(
        struct.pack("<HH", names[name], len(value)) + value for name, value in attributes.items()
    )
    return struct.pack("<IHI", len(body), number, 0xDEAD) + body


FIRST = command(SNAPSHOT, path=b"snapshot", uuid=bytes(16))
LAST = command(END)


def read(*commands: bytes, piece: int = 1 << 20) -> Selection:
    names = ChangedNames()
    stream = BEGIN + FIRST + b"".join(commands)
    for at in range(0, len(stream), piece):
        names.feed(stream[at : at + piece])
    return names.finish()


def test_a_stream_without_changes_selects_nothing() -> None:
    assert read(LAST) == {}


def test_what_a_real_btrfs_said() -> None:
    """A file is made, one removed, one written to, and a directory renamed (Linux 6.18)."""
    assert read(
        command(RENAME, path=b"work/03", to=b"moved"),
        command(UNLINK, path=b"work/05/05/f5"),
        command(UPDATE_EXTENT, path=b"work/07/07/f7"),
        command(UTIMES, path=b"work/07/07/f7"),
        command(MKFILE, path=b"o60616-8-0"),
        command(RENAME, path=b"o60616-8-0", to=b"new"),
        command(UTIMES, path=b"new"),
        command(UTIMES, path=b""),
        command(UTIMES, path=b"work/05/05"),
        LAST,
    ) == {
        b"work": {b"03": {}, b"05": {b"05": {b"f5": {}}}, b"07": {b"07": {b"f7": {}}}},
        b"moved": ALL,
        b"o60616-8-0": {},
        b"new": ALL,
    }


def test_both_names_of_a_link_are_selected() -> None:
    assert read(command(LINK, path=b"a", link=b"b/c"), LAST) == {b"a": {}, b"b": {b"c": {}}}


def test_all_below_a_directory_that_was_made_is_selected() -> None:
    assert read(command(MKDIR, path=b"a"), command(UTIMES, path=b"a/b"), LAST) == {b"a": ALL}


@given(piece=st.integers(1, 60))
def test_how_the_bytes_come_does_not_matter(piece: int) -> None:
    changed = [command(UTIMES, path=b"%d/%d" % (n % 3, n)) for n in range(20)]
    assert read(*changed, LAST, piece=piece) == read(*changed, LAST)


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([], id="no end"),
        pytest.param([LAST, LAST], id="two ends"),
        pytest.param([LAST, b"x"], id="more than the end"),
        pytest.param([command(UTIMES), LAST], id="no path"),
        pytest.param([command(RENAME, path=b"a"), LAST], id="renamed to nothing"),
        pytest.param([command(LINK, path=b"a"), LAST], id="linked to nothing"),
        pytest.param([command(UTIMES, path=b"../a"), LAST], id="outside"),
        pytest.param([command(UTIMES, path=b"/a"), LAST], id="absolute"),
        pytest.param([command(1, path=b"a"), LAST], id="a whole subvolume"),
        pytest.param([command(23, path=b"a"), LAST], id="of version 2"),
        pytest.param([struct.pack("<IHI", MAX_BODY + 1, UTIMES, 0)], id="too long"),
        pytest.param([struct.pack("<IHIHH", 4, UTIMES, 0, PATH, 1), LAST], id="value cut"),
        pytest.param([struct.pack("<IHIH", 2, UTIMES, 0, PATH), LAST], id="attribute cut"),
    ],
)
def test_what_makes_no_sense_is_refused(commands: list[bytes]) -> None:
    with pytest.raises(StreamError):
        read(*commands)


@pytest.mark.parametrize("begin", [b"x" * 17, MAGIC + struct.pack("<I", 2), b""])
def test_something_else_than_a_stream_is_refused(begin: bytes) -> None:
    names = ChangedNames()
    with pytest.raises(StreamError):  # noqa: PT012 -- which of both is all the same
        names.feed(begin)
        names.finish()


@given(st.data())
def test_damage_gives_another_selection_or_is_refused(data: st.DataObject) -> None:
    stream = bytearray(BEGIN + FIRST + command(RENAME, path=b"a/b", to=b"c") + LAST)
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    names = ChangedNames()
    with suppress(StreamError):
        names.feed(bytes(stream))
        assert isinstance(names.finish(), dict)
