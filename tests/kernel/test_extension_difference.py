"""What differs from an extension is listed, and dropped when the user says so."""

from __future__ import annotations

from pathlib import Path

from homemgr.extension.difference import Difference, Kind, differences, discard
from homemgr.extension.refresh import plain_view, refresh
from homemgr.extension.stack import Options
from tests.kernel import overlays
from tests.kernel.overlays import BIN, SHARE, Extension, Home, cleaned, marks_on, merged

FILES = {
    f"{BIN}/a": "a", f"{BIN}/b": "b", f"{BIN}/c": "c", f"{BIN}/dir/x": "x", f"{BIN}/rep/x": "x",
}  # fmt: skip
CHANGES = (
    "cd .local/bin; rm a dir/x; echo mine > b; rm -r rep; mkdir rep; touch rep/own new; mkdir made"
)

DELETED = Difference(BIN, "a", Kind.DELETED, "x")
DEEP = Difference(BIN, "dir/x", Kind.DELETED, "x")
REPLACED = Difference(BIN, "rep", Kind.REPLACED, "x")
CHANGED = Difference(BIN, "b", Kind.CHANGED, "x")
ALL = [DELETED, DEEP, REPLACED, CHANGED]


def listed(home: Home, extension: Extension) -> list[Difference]:
    with overlays.layers([extension], BIN) as found, home.disk() as disk:
        return differences(disk, {BIN: found})


def test_differences_are_listed_during_a_session_and_after(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "x", FILES) as x:
        with merged(home, [x], hierarchies=[BIN]):
            overlays.sh(CHANGES, home.seen)
            assert listed(home, x) == ALL
        with overlays.layers([x], BIN) as found:
            cleaned(home, {BIN: found})
        assert listed(home, x) == ALL
        # Of an extension that is not here now it is still known what was deleted.
        with home.disk() as disk:
            assert [d.path for d in differences(disk, {})] == ["a", "dir/x", "rep"]


def test_discarding_brings_the_extensions_files_back(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "x", FILES) as x:
        with merged(home, [x], hierarchies=[BIN]):
            overlays.sh(CHANGES, home.seen)
        with overlays.layers([x], BIN) as found:
            cleaned(home, {BIN: found})
            with home.disk() as disk:
                assert discard(disk, {BIN: found}, {(BIN, "a"), (BIN, "b")}) == [DELETED]
        assert listed(home, x) == [DEEP, REPLACED, CHANGED]
        with merged(home, [x], hierarchies=[BIN]):
            assert (home.seen / BIN / "a").read_text() == "a"
            assert (home.seen / BIN / "b").read_text() == "mine\n"
            assert not (home.seen / BIN / "rep/x").exists()
        cleaned(home)
        with overlays.layers([x], BIN) as found, home.disk() as disk:
            assert discard(disk, {BIN: found}, has_changed=True) == [DEEP, REPLACED, CHANGED]
        assert listed(home, x) == []
        assert not (home.stored / ".homemgr").exists()
        with merged(home, [x], hierarchies=[BIN]):
            assert (home.seen / BIN / "b").read_text() == "b"
            assert (home.seen / BIN / "rep/x").read_text() == "x"
            assert (home.seen / BIN / "new").exists()
        cleaned(home)
        assert marks_on(home) == []


def test_discarding_in_a_session_shows_after_a_refresh(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "x", FILES) as x:
        with merged(home, [x], hierarchies=[BIN]):
            overlays.sh(CHANGES, home.seen)
            with home.root() as root, overlays.wanted([x], hierarchies=[BIN]) as wanted:
                with plain_view(root) as plain:
                    assert discard(plain, {BIN: wanted[0].layers}, has_changed=True) == ALL
                refresh(root, wanted, Options())
            assert {p.name for p in (home.seen / BIN).iterdir()} == {
                "a", "b", "c", "dir", "rep", "new", "made",
            }  # fmt: skip
            assert (home.seen / BIN / "rep/x").exists()
            assert (home.seen / BIN / "dir/x").exists()
        cleaned(home)


def test_what_somebody_made_of_the_paths_meanwhile_is_not_followed(area: Path) -> None:
    victim = area / "victim"
    victim.mkdir()
    (victim / "x").write_text("precious")
    with overlays.home(area) as home, overlays.extension(area, "x", FILES) as x:
        with merged(home, [x], hierarchies=[BIN]):
            overlays.sh("rm .local/bin/dir/x; echo mine > .local/bin/b", home.seen)
        cleaned(home)
        (home.stored / BIN / "dir").symlink_to(victim)
        with overlays.layers([x], BIN) as found, home.disk() as disk:
            dropped = discard(disk, {BIN: found}, has_changed=True)
        # The link hides the extension's directory, and is the user's own change.
        assert {d.path for d in dropped} == {"dir/x", "b", "dir"}
        assert (victim / "x").read_text() == "precious"
        assert SHARE not in {d.hierarchy for d in dropped}
