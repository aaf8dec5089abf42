"""From each storage to each other: a way that a test goes, or a refusal that says why."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from machines import Site

from homemgr.daemon.conversion_options import ConvertOptions
from homemgr.daemon.conversion_plan import planned
from homemgr.daemon.conversion_states import Conversion
from homemgr.daemon.home import Home
from homemgr.errors import InvalidArgs, NotSupported
from homemgr.record.names import FILE_SUFFIXES
from homemgr.record.storages import ABILITIES, bound_to
from homemgr.storage.kinds import STORAGES
from tests import walks

#: Of the product, and one that is kept in another place.
KINDS = (*ABILITIES, walks.DEVICE)
SHARE = "//server/share/alice"
STICK = "/dev/disk/by-uuid/0b9f0c0a-3f4e-4d68-9d2b-2f3d5c1f7a11"

#: What no home can become, and words of the reason.
REFUSED = {(old, "cifs"): "keeps neither modes of files nor exact times" for old in KINDS}
REFUSED["cifs", "cifs"] = "copy it to another share there, then .* --cifs-service="


def test_every_way_is_gone_by_a_test_or_refused() -> None:
    assert set(ABILITIES) == set(STORAGES)
    gone = walks.pairs()
    assert gone & REFUSED.keys() == set()
    assert gone | REFUSED.keys() == set(itertools.product(KINDS, KINDS))


def test_every_file_system_in_an_image_is_come_to_and_left() -> None:
    inside = {"ext4", "xfs", "btrfs"}
    stops = {stop for stop in walks.ENCRYPTED if stop.file_system}
    # Of images that are not encrypted, ext4 is what all other walks make.
    wanted = {walks.Stop(kind, of) for kind in ("luks", walks.DEVICE) for of in inside}
    assert stops == wanted | {walks.Stop("image", of) for of in inside - {"ext4"}}


def storage_of(kind: str) -> str:
    return "luks" if kind == walks.DEVICE else kind


def path_of(kind: str, directory: str) -> str:
    if kind == walks.DEVICE:
        return STICK
    return SHARE if kind == "cifs" else f"{directory}/alice{FILE_SUFFIXES.get(kind, '.homedir')}"


def with_home(root: Path, kind: str, look: Callable[[Home], None]) -> None:
    """Look at a home of this kind."""

    async def whole() -> None:
        site = Site(root, "alpha", "a" * 32)
        await site.start()
        home = await site.add("alice", 60321, cifsService=SHARE)
        binding = bound_to(storage_of(kind), path_of(kind, str(site.base)))
        home.replace_record(home.record.with_binding(site.machine_id, dict(binding)))
        look(home)
        await site.manager.stop()

    asyncio.run(whole())


@pytest.mark.parametrize("old", KINDS)
def test_what_is_refused_is_refused_with_the_reason_and_nothing_else_is(
    tmp_path: Path, old: str
) -> None:
    def look(home: Home) -> None:
        for new in KINDS:
            # A share is named in the record.
            to = "" if new == "cifs" else path_of(new, "/srv/homes").replace("0b9f", "1c8e")
            options = ConvertOptions(storage_of(new), to)
            if (old, new) in REFUSED:
                with pytest.raises(NotSupported, match=REFUSED[old, new]):
                    planned(home, options)
            else:
                check(planned(home, options), old, new)

    def check(plan: Conversion, old: str, new: str) -> None:
        sides = ((plan.old, old), (plan.new, new))
        assert [side.storage for side, _ in sides] == [storage_of(kind) for _, kind in sides]
        # What lies on a device or a server is neither moved nor kept anywhere else.
        for side, kind in sides:
            assert side.stays is (kind in (walks.DEVICE, "cifs"))
            assert (side.room == "", side.place == side.image_path) == (side.stays, side.stays)
        moved = {path for move in plan.moves for path in move[:2]}
        assert moved.isdisjoint({STICK, SHARE, plan.new.image_path if plan.new.stays else ""})
        assert all(plan.rooms)
        # Known before it is made, so that what a kill leaves of it is told from all else.
        assert bool(plan.new.image) is (new == walks.DEVICE)

    with_home(tmp_path, old, look)


@pytest.mark.parametrize("kind", [walks.DEVICE, "cifs"])
def test_what_comes_from_elsewhere_lies_where_all_homes_do(tmp_path: Path, kind: str) -> None:
    def look(home: Home) -> None:
        base = home.services.config.base_directory
        for storage, suffix in (("directory", ".homedir"), ("image", ".homeimage")):
            plan = planned(home, ConvertOptions(storage))
            assert plan.new.image_path == f"{base}/alice{suffix}"

    with_home(tmp_path, kind, look)


@pytest.mark.parametrize(
    ("storage", "to", "reason"),
    [
        ("directory", STICK, "only a home with storage luks can lie on a device"),
        ("image", STICK, "only a home with storage luks can lie on a device"),
        ("subvolume", SHARE, "is no plain absolute path"),
        ("directory", "/srv/../dev/sdb", "is no plain absolute path"),
        ("image", "/srv/alice.home", r"has to end in \.homeimage"),
        ("floppy", "", "is none of cifs, directory"),
    ],
)
def test_no_home_is_made_where_it_cannot_lie(
    tmp_path: Path, storage: str, to: str, reason: str
) -> None:
    def look(home: Home) -> None:
        with pytest.raises(InvalidArgs, match=reason):
            planned(home, ConvertOptions(storage, to))

    with_home(tmp_path, "subvolume", look)
