"""A home leaves its file server for every storage that there is here, and nothing is lost there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.kernel.identity import filesystem_identity
from homemgr.wire.messages import BusError
from tests import homes, walks
from tests.service.cifs.test_cifs import SETTINGS
from tests.service.converting import (
    APART,
    call,
    convert,
    diary,
    known,
    logged_in,
    rooms,
    undo,
    write,
)
from tests.service.luks import test_devices as devices
from tests.service.luks.test_convert_crypt import FIELDS, IS_SLOW, SIZE, SUFFIXES, btrfs_homes
from tests.service.people import PASSWORD, WRONG_PASSWORD
from tests.service.site import Service
from tests.smb import Server

#: Where names and times come from that a server has as well.
NAMES = ("plain", "with space", "caf\u00e9", "\u65e5\u672c\u8a9e", "UPPER.TXT")
KINDS = walks.SLOW_FROM_A_SERVER if IS_SLOW else walks.FROM_A_SERVER
TIME_NS = 1_234_567_890_987_654_300


@pytest.fixture
def places(ground: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where a home goes that is to become something, unless it is the usual place."""
    if IS_SLOW:
        yield {}
        return
    with btrfs_homes(ground, tmp_path) as homes_there, devices.device(SIZE) as stick:
        yield {"subvolume": str(homes_there / "nora.homedir"), walks.DEVICE: stick}


def fill(home: Path) -> None:
    """Write, as the user, what a file server takes."""
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid):
        for name in NAMES:
            (home / name).mkdir()
            (home / name / "file").write_text(name * 1000)
        (home / "large").write_bytes(os.urandom(3_000_001))
        os.link(home / "large", home / "plain/again")
        os.setxattr(home / "large", "user.colour", b"blue")


def give_times(home: Path) -> None:
    """Make all of it old. While what was written is not closed yet a server gives it times."""
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid):
        for path in [*home.rglob("*")][::-1]:
            os.utime(path, ns=(TIME_NS, TIME_NS))


def seen(home: Path) -> homes.Seen:
    """What the user has but for what is written at each login, and the top of it all."""
    found = homes.Seen.of(home, APART)
    del found.entries[b""]
    return found


def test_a_home_leaves_its_server_and_could_go_back(
    own_service: Service, server: Server, places: dict[str, str]
) -> None:
    service, base = own_service, own_service.site.base
    share = "//localhost/homes-of-all/nora"
    service.create("nora", **{**FIELDS, **SETTINGS, "cifsService": share})
    with logged_in(service, "nora"):
        fill(service.path_of("nora"))
        write(service, "nora", "server")
    with logged_in(service, "nora"):
        give_times(service.path_of("nora"))
    with logged_in(service, "nora"):
        reference = seen(service.path_of("nora"))
    old = reference.entries[b"plain/again"]
    assert (old["mtime"], old["xattrs"]) == (TIME_NS, {"user.colour": b"blue"})
    # Which names are of one file, a mount may not know before each of them was opened.
    stored = homes.Seen.of(server.share / "nora", APART)
    reference.groups = stored.groups
    assert [*stored.groups.values()] == [[b"large", b"plain/again"]]
    with pytest.raises(BusError, match="assword"):
        convert(service, "nora", WRONG_PASSWORD, storage="directory")
    lines = ["server"]
    for kind in KINDS:
        storage = "luks" if kind == walks.DEVICE else kind
        path = places.get(kind, str(base / f"nora{SUFFIXES.get(kind, '.homedir')}"))
        size = None if kind == walks.DEVICE else SIZE
        options = {"storage": storage, "to": path} | ({"disk_size": size} if size else {})
        result = convert(service, "nora", PASSWORD, **options)
        assert (result["storage"], result["phase"]) == (storage, "kept")
        assert (result["stays_at"], rooms(base)) == (share, [])
        assert result["report"] == {"counts": {}, "notes": []}
        if kind == "fscrypt":
            assert "plain" not in os.listdir(path)
        with logged_in(service, "nora"):
            assert reference.differences(seen(service.path_of("nora"))) == []
            assert diary(service, "nora") == lines
            write(service, "nora", kind)
            assert len(diary(service, "nora")) == len(lines) + 1
        assert (server.share / "nora/diary").read_text().split() == lines
        assert stored.differences(homes.Seen.of(server.share / "nora", APART)) == []
        undo(service, "nora")
        assert (rooms(base), known(service), list(base.iterdir())) == ([], {}, [])
        # On its server it is what it was, and goes on to be used there.
        with logged_in(service, "nora"):
            assert diary(service, "nora") == lines
            write(service, "nora", f"after-{kind}")
        lines.append(f"after-{kind}")
    if IS_SLOW:
        return
    # A device of somebody who has gone back is as empty as before.
    assert devices.homes_on(places[walks.DEVICE]) == []
    convert(service, "nora", PASSWORD, storage="directory")
    call(service, "ConfirmConversion", "s", "nora")
    assert known(service) == {}
    service.call("RemoveHome", "s", "nora")
    assert (server.share / "nora/diary").read_text().split() == lines
