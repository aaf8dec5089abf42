"""Selections: what was named is in them, and nothing else but what lies below a whole tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import StreamError
from homemgr.transfer import selection
from homemgr.transfer.selection import ALL, Selecting, Selection

PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4).map(b"/".join)


def has(selected: Selection, path: bytes) -> bool:
    here: Selection | None = selected
    for name in path.split(b"/"):
        if here is ALL:
            return True
        if name not in here:
            return False
        here = here[name]
    return True


@given(st.lists(st.tuples(PATHS, st.booleans())), PATHS.filter(bool))
def test_a_path_is_selected_if_it_was_named_or_leads_to_one_or_is_in_a_tree(
    named: list[tuple[bytes, bool]], path: bytes
) -> None:
    selecting = Selecting()
    for name, is_tree in named:
        (selecting.tree if is_tree else selecting.name)(name)
    expected = any(
        name == path
        or name.startswith(path + b"/")
        or (is_tree and name and path.startswith(name + b"/"))
        for name, is_tree in named
    )
    assert has(selecting.selection, path) == expected


@pytest.mark.parametrize("path", [b"/", b"a//b", b"../a", b"a/.", b"a\0", b"n" * 256])
def test_what_is_no_path_is_refused(path: bytes) -> None:
    with pytest.raises(StreamError):
        Selecting().name(path)


def test_too_many_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MOST", 3)
    selecting = Selecting()
    selecting.name(b"a/b/c")
    selecting.name(b"a/b")
    with pytest.raises(StreamError, match="3 names"):
        selecting.name(b"a/d")
