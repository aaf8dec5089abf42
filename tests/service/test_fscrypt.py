"""Encrypted homes through the real service: their key is in memory while they are in use only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr import crypt
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import fscrypt
from homemgr.kernel.fscrypt import KeyStatus
from tests.pages import is_resident
from tests.service import people
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import Service, wait_until
from tests.service.sizes import MIB, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.site import Site

RECOVERY = "-".join(["cbdefghi"] * 7 + ["jklnrtuv"])
_NO_LIMIT = {"rateLimitIntervalUSec": 1_000_000, "rateLimitBurst": 1000}


@pytest.fixture
def site(new_site: Callable[..., Site]) -> Site:
    return new_site()


@pytest.fixture
def own(site: Site) -> Iterator[Service]:
    """A daemon that may be killed."""
    running = Service(site)
    yield running
    if running.is_running:
        running.call("DeactivateAllHomes")
    running.close()


def create(service: Service, name: str, **fields: object) -> None:
    service.create(name, storage="fscrypt", **_NO_LIMIT, **fields)


def image(service: Service, name: str) -> Path:
    return service.site.base / f"{name}.homedir"


def status(service: Service, name: str) -> KeyStatus:
    """What the file system knows of the key of a home."""
    with Fd.open(str(image(service, name)), DIRECTORY_FLAGS) as top:
        policy = fscrypt.get_policy(top.fileno())
        assert policy is not None
        return fscrypt.key_status(top.fileno(), policy)


def test_a_home_is_readable_while_somebody_uses_it(service: Service) -> None:
    create(service, "anna")
    assert status(service, "anna") is KeyStatus.ABSENT
    with service.acquire("anna"):
        assert status(service, "anna") is KeyStatus.PRESENT
        (service.path_of("anna") / ".identity").stat()
        service.call("AuthenticateHome", "ss", "anna", secret(PASSWORD))
    service.wait_for("anna", "inactive")
    assert status(service, "anna") is KeyStatus.ABSENT
    assert service.error("ActivateHome", "ss", "anna", secret(WRONG_PASSWORD)) == "BadPassword"
    service.call("ChangePasswordHome", "sss", "anna", secret(OTHER_PASSWORD), secret(PASSWORD))
    assert service.error("ActivateHome", "ss", "anna", secret(PASSWORD)) == "BadPassword"
    service.activate("anna", OTHER_PASSWORD)
    service.deactivate("anna")
    assert status(service, "anna") is KeyStatus.ABSENT
    service.call("RemoveHome", "s", "anna")
    assert not image(service, "anna").exists()
    for word in (PASSWORD, OTHER_PASSWORD, WRONG_PASSWORD):
        assert word not in service.site.log.read_text()


def test_a_home_in_use_is_locked_and_an_acquire_unlocks_it(own: Service) -> None:
    create(own, "bert")
    assert own.error("LockHome", "s", "bert") == "HomeNotActive"
    session = own.acquire("bert", please_suspend=True)
    own.call("LockAllHomes")
    assert own.state("bert") == "locked"
    assert status(own, "bert") is KeyStatus.INCOMPLETELY_REMOVED
    for member in ("LockHome", "DeactivateHome"):
        assert own.error(member, "s", "bert") == "HomeLocked"
    assert own.error("RefHome", "sb", "bert", False) == "HomeLocked"
    # A new service finds it as it is.
    own.kill()
    own.start()
    assert own.state("bert") == "locked"
    assert own.error("UnlockHome", "ss", "bert", secret(WRONG_PASSWORD)) == "BadPassword"
    own.acquire("bert").close()
    assert own.state("bert") == "active"
    assert status(own, "bert") is KeyStatus.PRESENT
    own.call("LockHome", "s", "bert")
    own.call("UnlockHome", "ss", "bert", secret(PASSWORD))
    assert own.error("UnlockHome", "ss", "bert", secret(PASSWORD)) == "HomeNotLocked"
    # Abandoned while it is locked, it goes once it is unlocked.
    own.call("LockHome", "s", "bert")
    session.close()
    own.call("UnlockHome", "ss", "bert", secret(PASSWORD))
    own.wait_for("bert", "inactive", within_s=20)
    assert status(own, "bert") is KeyStatus.ABSENT


def test_what_others_have_in_memory_stays_there_when_a_key_goes(own: Service) -> None:
    create(own, "gina")
    content = os.urandom(MIB)
    with (own.site.home_root / "elsewhere").open("w+b", buffering=0) as file:
        file.write(content)
        # Only what is on disk as well could be dropped.
        os.fsync(file.fileno())
        for _ in range(10):
            before = times_dropped()
            assert os.pread(file.fileno(), MIB, 0) == content
            own.activate("gina")
            assert take(own, "gina", MIB) == 0
            own.call("LockHome", "s", "gina")
            assert status(own, "gina") is KeyStatus.INCOMPLETELY_REMOVED
            locked = is_resident(file.fileno(), MIB)
            own.call("UnlockHome", "ss", "gina", secret(PASSWORD))
            own.deactivate("gina")
            wait_until(
                lambda: status(own, "gina") is KeyStatus.ABSENT, "the key to go", within_s=30
            )
            kept = (locked, is_resident(file.fileno(), MIB), times_dropped() == before)
            # Others on this machine may need the room or have all dropped, but not each time.
            if all(kept):
                break
    assert kept == (True, True, True)
    assert not {".identity", "ballast"} & set(os.listdir(image(own, "gina")))


def times_dropped() -> list[str]:
    """How often the machine was told to drop its caches: of files, of names and inodes."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return [line for line in lines if line.startswith(("drop_pagecache", "drop_slab"))]


def test_what_is_still_open_after_deactivation_is_told_and_ended(own: Service) -> None:
    create(own, "cleo")
    own.activate("cleo")
    with Fd.open(str(image(own, "cleo") / ".identity"), os.O_RDONLY):
        own.deactivate("cleo")
        assert own.state("cleo") == "inactive"
        assert status(own, "cleo") is KeyStatus.INCOMPLETELY_REMOVED
        told = own.site.log.read_text()
        assert "cleo is deactivated, but some of its files are open" in told
    wait_until(lambda: status(own, "cleo") is KeyStatus.ABSENT, "the key to go", within_s=30)
    # Used again meanwhile it stays readable.
    own.activate("cleo")
    assert status(own, "cleo") is KeyStatus.PRESENT


def test_a_key_that_was_left_is_taken_at_the_next_start(own: Service) -> None:
    create(own, "dora")
    own.activate("dora")
    own.kill()
    os.system(f"umount {own.path_of('dora')}")  # noqa: S605 -- as a machine that goes wrong
    assert status(own, "dora") is KeyStatus.PRESENT
    own.start()
    assert own.state("dora") == "inactive"
    assert status(own, "dora") is KeyStatus.ABSENT


def test_a_home_without_a_record_is_found_as_what_it_is(own: Service) -> None:
    create(own, "emil")
    own.kill()
    (own.site.records / "emil.identity").unlink()
    own.start()
    assert own.state("emil") == "unfixated"
    assert own.error("ActivateHome", "ss", "emil", secret(WRONG_PASSWORD)) == "BadPassword"
    assert own.error("ActivateHome", "ss", "emil", secret()) == "BadPassword"
    own.activate("emil")
    (binding,) = own.user_record("emil")["binding"].values()  # type: ignore[union-attr]
    assert binding["storage"] == "fscrypt"  # type: ignore[index, call-overload]
    own.deactivate("emil")
    assert status(own, "emil") is KeyStatus.ABSENT


def test_a_new_recovery_key_gets_its_slot_with_the_record(service: Service) -> None:
    create(service, "fred")
    hashed = {"type": "modhex64", "hashedPassword": crypt.hash_password(RECOVERY, "$6$")}
    record = people.record(
        "fred",
        storage="fscrypt",
        recoveryKeyType=["modhex64"],
        privileged={"hashedPassword": [people.hashed()], "recoveryKey": [hashed]},
        secret={"password": [PASSWORD, RECOVERY]},
        **_NO_LIMIT,
    )
    service.call("UpdateHome", "s", people.text(record))
    for word in (RECOVERY, PASSWORD):
        service.activate("fred", word)
        service.deactivate("fred")
    # One whose plaintext is not given, as by homectl, leaves the others their slots.
    privileged = {"hashedPassword": [people.hashed(), people.hashed(OTHER_PASSWORD)]}
    stamp = record["lastChangeUSec"]
    assert isinstance(stamp, int)
    more = {"lastChangeUSec": stamp + 1, "privileged": privileged}
    text = people.text({**record, **more, "secret": {"password": [PASSWORD]}})  # type: ignore[dict-item]
    service.call("UpdateHome", "s", text)
    assert service.error("ActivateHome", "ss", "fred", secret(OTHER_PASSWORD)) == "BadPassword"
    both = (secret(PASSWORD, OTHER_PASSWORD), secret(PASSWORD))
    service.call("ChangePasswordHome", "sss", "fred", *both)
    service.activate("fred", OTHER_PASSWORD)
    service.deactivate("fred")
