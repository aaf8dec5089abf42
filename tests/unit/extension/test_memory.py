"""The home's file about extensions: what is written is read back, what is forged is refused."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homemgr.errors import HomeError, HostileHome, InvalidArgs
from homemgr.extension import home_side, memory
from homemgr.extension.memory import Remembered
from homemgr.files import DIRECTORY_FLAGS, Fd

#: File names as the kernel has them: any bytes but two.
NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b"..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: os.fsdecode(b"/".join(names)))


@given(PATHS)
@example("..a")
@example("..a/...")
def test_every_path_of_a_home_can_be_remembered(path: str) -> None:
    assert home_side.check_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/", "/etc", "a/..", "../a", "a/../b", "a//b", "a/", "./a", "a\0b", "a/" * 3000,
     "x" * 256, "..a/../.."],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgs):
        home_side.check_path(path)


@given(st.dictionaries(PATHS, st.tuples(st.frozensets(PATHS), st.frozensets(PATHS)), max_size=4))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, tuple[frozenset[str], frozenset[str]]],
) -> None:
    wanted = {path: Remembered(*lists) for path, lists in content.items()}
    with Fd.open(str(tmp_path_factory.mktemp("home")), DIRECTORY_FLAGS) as home:
        memory.write(home, wanted)
        assert memory.read(home) == {path: entry for path, entry in wanted.items() if entry.hidden}


def test_nothing_to_remember_leaves_no_file(tmp_path: Path) -> None:
    with Fd.open(str(tmp_path), DIRECTORY_FLAGS) as home:
        memory.write(home, {"a": Remembered(frozenset({"b"}))})
        assert (tmp_path / ".homemgr" / memory.NAME).exists()
        memory.write(home, {"a": Remembered()})
    assert list(tmp_path.iterdir()) == []


def test_more_than_fits_is_cut_to_what_hides_most(tmp_path: Path) -> None:
    many = frozenset({"top", *(f"deep/{number:06}" for number in range(20_000))})
    with Fd.open(str(tmp_path), DIRECTORY_FLAGS) as home:
        memory.write(home, {"a": Remembered(many)})
        found = memory.read(home)["a"].deleted
    assert "top" in found
    assert 5_000 <= len(found) <= 10_000


@given(st.binary(max_size=200))
def test_any_bytes_are_memory_or_refused(raw: bytes) -> None:
    # Hardly ever is it anything but refused, and never another failure.
    with suppress(HostileHome):
        memory.parse(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_memory_or_refused(value: object) -> None:
    for content in (
        value,
        {"version": 1, "hierarchies": value},
        {"version": 1, "hierarchies": {"a": value}},
    ):
        try:
            found = memory.parse(json.dumps(content).encode())
        except HomeError:
            continue
        for path, entry in found.items():
            assert {path, *entry.hidden} == {home_side.check_path(p) for p in (path, *entry.hidden)}
