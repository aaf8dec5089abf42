"""Which extensions there are: first directory wins, masks hide, versions are ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homemgr.extension.find import Candidate, Found, Kind, Refused, candidates, pick
from homemgr.extension.release import Host

if TYPE_CHECKING:
    from pathlib import Path

HOST = Host("debian", "12", "", "x86-64")


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in ("etc", "run", "usr")]
    for path in found:
        path.mkdir()
    return found


def names(places: list[Path]) -> list[tuple[str, str]]:
    return [(c.name, c.path.split("/")[-2]) for c in candidates(map(str, places))]


def test_all_ways_of_storing_are_found(places: list[Path]) -> None:
    (places[0] / "tree").mkdir()
    (places[0] / "image.raw").touch()
    (places[0] / "pair.composefs").mkdir()
    found = candidates(map(str, places))
    assert [(c.name, c.kind) for c in found] == [
        ("image", Kind.IMAGE),
        ("pair", Kind.COMPOSEFS),
        ("tree", Kind.DIRECTORY),
    ]


def test_what_is_no_extension_is_passed_over(places: list[Path]) -> None:
    for name in ("image.raw.sha256", "README", ".hidden.raw", "a b.raw", "ä.raw", ".raw"):
        (places[0] / name).touch()
    for name in ("directory.raw", ".#unfinished", "empty.v", "empty.raw.v"):
        (places[0] / name).mkdir()
    (places[0] / "dangling.raw").symlink_to("nowhere")
    (places[0] / "loop.raw").symlink_to("loop.raw")
    (places[0] / "loop.v").symlink_to("loop.v")
    assert candidates(map(str, places)) == []


def test_missing_directories_are_empty_ones(tmp_path: Path) -> None:
    assert candidates([str(tmp_path / "missing")]) == []


def test_an_earlier_directory_hides_a_later_one(places: list[Path]) -> None:
    for place in places:
        (place / "tools.raw").touch()
    (places[2] / "more").mkdir()
    assert names(places) == [("tools", "etc"), ("more", "usr")]


def test_a_tree_hides_an_image_of_the_same_name(places: list[Path]) -> None:
    (places[0] / "tools").mkdir()
    (places[1] / "tools.raw").touch()
    assert names(places) == [("tools", "etc")]


@pytest.mark.parametrize("mask", ["tools", "tools.raw", "tools.composefs", "tools.raw.v"])
def test_a_mask_takes_an_extension_away(places: list[Path], mask: str) -> None:
    (places[1] / mask).symlink_to("/dev/null")
    (places[2] / "tools.raw").touch()
    (places[2] / "other.raw").touch()
    assert names(places) == [("other", "usr")]


def test_a_mask_comes_too_late_for_what_is_earlier(places: list[Path]) -> None:
    (places[0] / "tools.raw").touch()
    (places[1] / "tools.raw").symlink_to("/dev/null")
    assert names(places) == [("tools", "etc")]


def versioned(place: Path, *entries: str) -> None:
    directory = place / "tools.raw.v"
    directory.mkdir()
    for entry in entries:
        (directory / entry).touch()


def test_versions_are_tried_newest_first(places: list[Path]) -> None:
    versioned(places[0], "tools_1.9.raw", "tools_1.10.raw", "tools_1.10~rc1.raw", "tools_2~a.raw")
    (found,) = pick(candidates(map(str, places)), HOST)
    assert isinstance(found, Found)
    assert [c.version for c in found.choices] == ["2~a", "1.10", "1.10~rc1", "1.9"]
    assert found.candidate.path.endswith("/tools.raw.v/tools_2~a.raw")


def test_a_version_for_another_architecture_is_not_tried(places: list[Path]) -> None:
    versioned(places[0], "tools_3_arm64.raw", "tools_2_x86-64.raw", "tools_2.raw", "tools_1.raw")
    (found,) = pick(candidates(map(str, places)), HOST)
    assert isinstance(found, Found)
    tried = [(c.version, c.architecture) for c in found.choices]
    assert tried == [("2", "x86-64"), ("2", ""), ("1", "")]


def test_nothing_for_this_architecture_is_said(places: list[Path]) -> None:
    versioned(places[0], "tools_3_arm64.raw")
    assert pick(candidates(map(str, places)), HOST) == [
        Refused("tools", "No version of extension tools is for x86-64.")
    ]


def test_other_names_in_a_versioned_directory_do_not_count(places: list[Path]) -> None:
    versioned(places[0], "other_1.raw", "tools.raw", "tools_.raw", "tools_1.img", "tools_1.raw")
    (found,) = pick(candidates(map(str, places)), HOST)
    assert isinstance(found, Found)
    assert [c.version for c in found.choices] == ["1"]


def test_versioned_trees(places: list[Path]) -> None:
    for version in ("1", "2"):
        (places[0] / "tools.v" / f"tools_{version}").mkdir(parents=True)
    (found,) = pick(candidates(map(str, places)), HOST)
    assert found == Found(
        "tools",
        tuple(
            Candidate("tools", Kind.DIRECTORY, f"{places[0]}/tools.v/tools_{v}", v)
            for v in ("2", "1")
        ),
    )


def test_two_forms_in_one_directory_are_refused(places: list[Path]) -> None:
    (places[0] / "tools").mkdir()
    versioned(places[0], "tools_1.raw", "tools_2.raw")
    (refused,) = pick(candidates(map(str, places)), HOST)
    assert refused == Refused(
        "tools",
        f"Extension tools is there more than once: {places[0]}/tools, {places[0]}/tools.raw.v.",
    )


def test_extensions_come_in_the_order_of_their_names(places: list[Path]) -> None:
    for name in ("tools10", "tools9", "base"):
        (places[0] / name).mkdir()
    assert [found.name for found in pick(candidates(map(str, places)), HOST)] == [
        "base",
        "tools9",
        "tools10",
    ]
