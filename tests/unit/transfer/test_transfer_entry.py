"""Names and paths: which ones can be in a home."""

from __future__ import annotations

import pytest
from hypothesis import given
from transfer_samples import names, paths

from homemgr.errors import StreamError
from homemgr.transfer.entry import MAX_PATH, check_name, check_path, join, split


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0", b"\0", b"x" * 256])
def test_name_that_none_can_be_is_refused(name: bytes) -> None:
    with pytest.raises(StreamError):
        check_name(name)


@pytest.mark.parametrize("name", [b"...", b"\n", b"\xff", b" ", b"-", b"x" * 255, b"..a", b"a\\b"])
def test_odd_name_is_a_name(name: bytes) -> None:
    check_name(name)
    check_path(name)


@pytest.mark.parametrize(
    "path",
    [
        *(b"", b"/", b"/a", b"a/", b"a//b", b"./a", b"a/.", b"..", b"a/../b", b"a/b\0c"),
        b"a/" + b"x" * 256,
        b"a/" * (MAX_PATH // 2) + b"bc",
    ],
)
def test_path_that_leads_elsewhere_or_nowhere_is_refused(path: bytes) -> None:
    with pytest.raises(StreamError):
        check_path(path)


def test_long_path_is_a_path() -> None:
    check_path((b"a/" * (MAX_PATH // 2))[:-1])


@given(paths, names)
def test_path_is_split_as_it_was_joined(directory: bytes, name: bytes) -> None:
    check_path(join(directory, name))
    assert split(join(directory, name)) == (directory, name)
    assert split(join(b"", name)) == (b"", name)


def test_top_is_in_nothing() -> None:
    assert split(b"") == (b"", b"")
