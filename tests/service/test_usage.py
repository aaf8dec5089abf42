"""What homes take of their disks: counted by files, by quota, and of images."""

from __future__ import annotations

import json
import os

import pytest

from homemgr.wire.messages import BusError
from tests.service.bus import STRANGERS
from tests.service.holders import stranger
from tests.service.site import Service
from tests.service.sizes import MIB, take
from tests.service.test_plain_images import create as create_image
from tests.service.test_plain_images import running as running
from tests.service.test_sizes import on_btrfs as on_btrfs

MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")
FILES = 1


def usage(service: Service, name: str, flags: int = 0) -> dict[str, object]:
    (text,) = service.client.call(*MANAGER, "GetHomeUsage", "st", (name, flags)).body
    found: dict[str, object] = json.loads(str(text))
    return found


def test_files_are_counted_once_and_holes_only_as_what_they_hold(service: Service) -> None:
    service.create("anna")
    image = service.site.base / "anna.homedir"
    before = usage(service, "anna")
    assert (before["user"], before["storage"], before["counted_by"]) == (
        "anna",
        "directory",
        "files",
    )
    (image / "deep").mkdir()
    (image / "deep" / "file").write_bytes(os.urandom(MIB))
    os.link(image / "deep" / "file", image / "again")
    with (image / "hole").open("wb") as file:
        file.truncate(5 * MIB)
    # Somebody was killed while he made the same home.
    left = service.site.base / ".#homemgr-new-anna.homedir.12345678"
    left.mkdir()
    (left / "half").write_bytes(os.urandom(2 * MIB))
    after = usage(service, "anna")
    assert int(str(after["logical"])) - int(str(before["logical"])) == 6 * MIB
    physical = int(str(after["physical"])) - int(str(before["physical"]))
    assert MIB <= physical < 2 * MIB
    assert before["reclaimable"] == 0
    assert 2 * MIB <= int(str(after["reclaimable"])) < 3 * MIB


def test_of_an_encrypted_home_it_is_known_without_its_key(service: Service) -> None:
    service.create("dora", storage="fscrypt")
    before = usage(service, "dora")
    assert (before["storage"], before["counted_by"]) == ("fscrypt", "files")
    service.activate("dora")
    assert take(service, "dora", 3 * MIB) == 0
    used = usage(service, "dora")
    service.deactivate("dora")
    after = usage(service, "dora")
    for name in ("logical", "physical"):
        assert 3 * MIB <= int(str(after[name])) - int(str(before[name])) < 4 * MIB, name
        assert int(str(used[name])) == int(str(after[name]))
    assert after["reclaimable"] == 0


def test_quota_is_asked_where_there_is_one(on_btrfs: Service) -> None:
    on_btrfs.create("bert", storage="subvolume", diskSize=32 * MIB)
    on_btrfs.activate("bert")
    assert take(on_btrfs, "bert", 3 * MIB) == 0
    found = usage(on_btrfs, "bert")
    assert (found["counted_by"], found["logical"]) == ("quota", None)
    assert int(str(found["physical"])) >= 3 * MIB
    counted = usage(on_btrfs, "bert", FILES)
    # btrfs may write something down meanwhile.
    assert counted["physical"] in (found["physical"], usage(on_btrfs, "bert")["physical"])
    assert 3 * MIB <= int(str(counted["logical"])) < 4 * MIB


def test_an_image_takes_what_its_file_has(running: Service) -> None:
    image = create_image(running, "carl", luksDiscard=False)
    taken = image.stat().st_blocks * 512
    assert usage(running, "carl") == {
        "user": "carl",
        "storage": "image",
        "logical": None,
        "physical": taken,
        "reclaimable": None,
        "counted_by": "image",
    }
    running.activate("carl")
    assert take(running, "carl", 8 * MIB) == 0
    found = usage(running, "carl")
    # The file has the room for what could be written, too.
    assert 8 * MIB <= int(str(found["logical"])) < 12 * MIB
    assert int(str(found["physical"])) == taken >= 36 * MIB
    assert int(str(found["reclaimable"])) >= 16 * MIB


def test_only_who_may_look_is_told(service: Service) -> None:
    owner, other = STRANGERS[:2]
    service.create("owned", uid=owner)
    for uid, may_ask in ((owner, True), (other, False)):
        with stranger(uid, service.site.bus_address) as client:
            target = (*MANAGER, "GetHomeUsage")
            if may_ask:
                client.call_at(target, "st", "owned", 0)
                continue
            with pytest.raises(BusError) as refused:
                client.call_at(target, "st", "owned", 0)
            assert refused.value.name.endswith(".AccessDenied")
    service.call("RemoveHome", "s", "owned")
