"""Homes in encrypted image files: made, used, locked, their passwords changed, nothing left."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel.identity import filesystem_identity
from homemgr.volume import luks, probe
from homemgr.wire.messages import BusError
from tests import verifying
from tests.service import people
from tests.service.site import Service, short, wait_until
from tests.service.test_usage import usage

SETTINGS = {
    "storage": "luks",
    "diskSize": 48 << 20,
    "luksDiscard": True,
    "luksPbkdfType": "pbkdf2",
    "luksPbkdfForceIterations": 1000,
}


def image_of(service: Service, name: str) -> Path:
    return service.site.base / f"{name}.home"


def opens(service: Service, name: str, word: str) -> bool:
    """Whether the home can be activated with ``word``; it is inactive afterwards."""
    try:
        service.activate(name, word)
    except BusError as refused:
        if short(refused.name) != "BadPassword":
            raise
        return False
    service.deactivate(name)
    return True


def create(service: Service, name: str, **fields: object) -> None:
    service.create(name, **{**SETTINGS, **fields})


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs"])
def test_a_home_is_made_used_and_gone(running: Service, kind: str) -> None:
    size = 48 << 20 if kind == "ext4" else 400 << 20
    create(running, "anna", fileSystemType=kind, diskSize=size)
    image = image_of(running, "anna")
    assert image.stat().st_mode == 0o100600
    assert verifying.devices() == []
    for _ in range(2):
        running.activate("anna")
        assert verifying.devices() == ["home-anna"]
        home = running.path_of("anna")
        uid = home.stat().st_uid
        assert uid == running.call("GetHomeByName", "s", "anna")[0]
        with filesystem_identity(uid, uid), (home / "file").open("a") as file:
            file.write("words\n")
        running.deactivate("anna")
        verifying.wait_until_gone()
    running.activate("anna")
    assert (running.path_of("anna") / "file").read_text() == "words\n" * 2
    os.sync()
    used = usage(running, "anna")
    taken = image.stat().st_blocks * 512
    assert (used["storage"], used["counted_by"], used["physical"]) == ("luks", "image", taken)
    assert 0 < int(str(used["logical"])) < taken < size
    assert 0 <= int(str(used["reclaimable"])) < taken
    running.deactivate("anna")
    closed = usage(running, "anna")
    assert (closed["logical"], closed["reclaimable"]) == (None, None)
    running.call("RemoveHome", "s", "anna")
    assert not image.exists()


def test_the_wrong_password_opens_nothing(running: Service) -> None:
    create(running, "bert")
    with pytest.raises(BusError) as refused:
        running.activate("bert", people.WRONG_PASSWORD)
    assert short(refused.value.name) == "BadPassword"
    verifying.wait_until_gone()
    assert running.state("bert") == "inactive"


def test_a_new_password_replaces_the_old_one(running: Service) -> None:
    # With all its room from the start.
    create(running, "carl", luksDiscard=False)
    old, new = people.secret(people.PASSWORD), people.secret(people.OTHER_PASSWORD)
    running.call("ChangePasswordHome", "sss", "carl", new, old)
    with pytest.raises(BusError) as refused:
        running.activate("carl", people.PASSWORD)
    assert short(refused.value.name) == "BadPassword"
    running.activate("carl", people.OTHER_PASSWORD)
    running.call("ChangePasswordHome", "sss", "carl", old, new)
    running.deactivate("carl")
    running.activate("carl")
    running.deactivate("carl")


def test_words_may_be_stretched_for_long(running: Service) -> None:
    """To find out how, the library takes several times as long."""
    stretched = {"luksPbkdfType": "argon2id", "luksPbkdfTimeCostUSec": 300_000}
    usual = {name: SETTINGS[name] for name in ("storage", "diskSize", "luksDiscard")}
    running.create("rosa", **usual, **stretched)
    old, new = people.secret(people.PASSWORD), people.secret(people.OTHER_PASSWORD)
    running.call("ChangePasswordHome", "sss", "rosa", new, old)
    assert not opens(running, "rosa", people.PASSWORD)
    assert opens(running, "rosa", people.OTHER_PASSWORD)


def test_killed_while_a_password_changes_one_of_both_works(running: Service) -> None:
    create(running, "paul", rateLimitBurst=1000)
    words = [people.PASSWORD, people.OTHER_PASSWORD]
    for delay_s in (0.0, 0.05, 0.1, 0.4):
        old, new = map(people.secret, words)
        changing = running.begin("ChangePasswordHome", "sss", "paul", new, old)
        time.sleep(delay_s)
        running.kill()
        changing.failure()
        running.start()
        verifying.wait_until_gone()
        (now,) = [word for word in words if opens(running, "paul", word)]
        words = [now, *(word for word in words if word != now)]
    running.activate("paul", words[0])
    with luks.Volume.of_active("home-paul") as volume:
        assert len(volume.slots()) == 1
    running.deactivate("paul")


def test_a_locked_home_waits_for_its_password(running: Service) -> None:
    create(running, "dora")
    running.activate("dora")
    uid = running.path_of("dora").stat().st_uid
    with filesystem_identity(uid, uid):
        (running.path_of("dora") / "file").write_text("words")
    running.call("LockHome", "s", "dora")
    assert running.state("dora") == "locked"
    assert running.error("UnlockHome", "ss", "dora", people.secret(people.WRONG_PASSWORD)) == (
        "BadPassword"
    )
    running.restart()
    wait_until(lambda: running.state("dora") == "locked", "the lock to be seen again")
    running.call("UnlockHome", "ss", "dora", people.secret(people.PASSWORD))
    assert (running.path_of("dora") / "file").read_text() == "words"
    running.deactivate("dora")


def test_a_home_found_on_disk_is_used_with_its_password(running: Service) -> None:
    create(running, "emil")
    running.stop()
    (running.site.records / "emil.identity").unlink()
    running.start()
    assert running.state("emil") == "unfixated"
    running.activate("emil")
    running.deactivate("emil")
    assert running.user_record("emil")["storage"] == "luks"


def test_killed_while_homes_are_made_nothing_stays(running: Service) -> None:
    for delay_s in (0.05, 0.3, 0.8, 1.5):
        making = running.begin("CreateHome", "s", people.text(people.record("fred", **SETTINGS)))
        time.sleep(delay_s)
        running.kill()
        making.failure()
        running.start()
        verifying.wait_until_gone()
        if "fred" in running.states():
            running.activate("fred")
            running.deactivate("fred")
            running.call("RemoveHome", "s", "fred")
    left = [entry for entry in os.listdir(running.site.base) if entry.startswith(".#")]
    assert left == []


def test_a_volume_that_nobody_here_signed_is_not_mounted(running: Service) -> None:
    create(running, "greta")
    running.stop()
    for name in ("greta.identity", "local.private", "local.public"):
        (running.site.records / name).unlink()
    running.start()
    with pytest.raises(BusError) as refused:
        running.activate("greta")
    assert short(refused.value.name) == "BadSignature"
    verifying.wait_until_gone()
    # A file system was never asked for: the kernel does not know of one.
    assert "home-greta" not in Path("/proc/mounts").read_text()


def test_what_is_no_home_is_refused_with_the_reason(running: Service) -> None:
    create(running, "hugo")
    image = image_of(running, "hugo")
    whole = image.read_bytes()
    without_header = whole[: 1 << 20] + bytes(len(whole) - (1 << 20) - 17408) + whole[-17408:]
    for damaged in (b"", whole[: len(whole) // 2], without_header):
        image.write_bytes(damaged)
        refused = running.error("ActivateHome", "ss", "hugo", people.secret(people.PASSWORD))
        assert refused == "UnrecognizedHomeFormat"
        verifying.wait_until_gone()
    image.write_bytes(whole)
    running.activate("hugo")
    running.deactivate("hugo")


RECOVERY_KEY = "-".join(["cbdefghi", "jklnrtuv"] * 4)


def stretchings(image: Path) -> list[int]:
    """How often each slot of a volume stretches its word."""
    with Fd.open(str(image), os.O_RDONLY) as device:
        (home,) = probe.user_homes(device.fileno())
        area = os.pread(device.fileno(), 64 << 10, home.offset + 4096).partition(b"\0")[0]
    slots = json.loads(area)["keyslots"].values()
    return sorted(slot["kdf"]["iterations"] for slot in slots)


def test_what_nobody_guesses_is_not_stretched_for_long(running: Service) -> None:
    recovery = [{"type": "modhex64", "hashedPassword": people.hashed(RECOVERY_KEY)}]
    create(
        running,
        "ines",
        luksPbkdfForceIterations=2000,
        privileged={"hashedPassword": [people.hashed()], "recoveryKey": recovery},
        secret={"password": [people.PASSWORD, RECOVERY_KEY]},
    )
    assert stretchings(image_of(running, "ines")) == [1000, 2000]
    for word in (people.PASSWORD, RECOVERY_KEY):
        assert opens(running, "ines", word)


def kept_keys() -> int:
    """How many keys the kernel keeps for devices that may get another size."""
    lines = Path("/proc/keys").read_text(encoding="ascii", errors="replace").splitlines()
    return sum(" homemgr:home-" in line for line in lines)


def test_a_home_gets_its_share_of_the_disk_with_the_key_that_is_kept(running: Service) -> None:
    size = 320 << 20
    create(running, "olga", fileSystemType="btrfs", diskSize=size, rebalanceWeight=100)
    image = image_of(running, "olga")
    running.activate("olga")
    home = running.path_of("olga")
    uid, before = home.stat().st_uid, os.statvfs(home).f_blocks
    with filesystem_identity(uid, uid):
        (home / "file").write_bytes(b"words" * 100_000)
    running.call("Rebalance")
    assert image.stat().st_size > size * 3 // 2
    assert os.statvfs(home).f_blocks > before * 3 // 2
    # It is gone when the home is locked, and there again after that; and by the end of its use.
    assert kept_keys() == 1
    running.call("LockHome", "s", "olga")
    wait_until(lambda: kept_keys() == 0, "the key to go")
    assert running.error("Rebalance") == "RebalanceNotNeeded"
    running.call("UnlockHome", "ss", "olga", people.secret(people.PASSWORD))
    assert kept_keys() == 1
    # Others need room: what it gives back is theirs.
    large = image.stat().st_size
    with (running.site.home_root / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, 400 << 20)
    running.call("Rebalance")
    assert image.stat().st_size < large * 9 // 10
    running.restart()
    # A new service has no such key, and nobody is asked for one.
    assert running.error("Rebalance") == "RebalanceNotNeeded"
    running.deactivate("olga")
    verifying.wait_until_gone()
    wait_until(lambda: kept_keys() == 0, "the key to go")
    running.activate("olga")
    assert (home / "file").read_bytes() == b"words" * 100_000
    running.deactivate("olga")


def test_a_home_grows_to_its_size_after_a_login(running: Service) -> None:
    create(running, "otto")
    large = 64 << 20
    changed = people.record("otto", secret=None, **{**SETTINGS, "diskSize": large})
    running.call("UpdateHomeEx", "sa{sh}t", people.text(changed), {}, 1)
    running.activate("otto")
    before = os.statvfs(running.path_of("otto")).f_blocks
    image = image_of(running, "otto")
    wait_until(lambda: image.stat().st_size == large, "the home to grow", 30)
    wait_until(lambda: os.statvfs(running.path_of("otto")).f_blocks > before, "all of it", 10)
    running.deactivate("otto")
