"""Ids: kept when free, never given twice, never taken from somebody else; and thousands of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from homemgr.kernel import mounts
from homemgr.record.uids import candidates
from homemgr.wire.messages import BusError
from tests import volumes
from tests.service import crowd, people
from tests.service.site import Service, Site, at_once, short
from tests.service.userdb import UserDatabase

KIB = 1024


def uid_of(service: Service, name: str) -> int:
    uid = service.call("GetHomeByName", "s", name)[0]
    assert isinstance(uid, int)
    return uid


def create_on_own_connection(service: Service, name: str, **fields: object) -> None:
    service.begin("CreateHome", "s", people.text(people.record(name, **fields))).result()


def test_uid_is_the_one_systemd_homed_would_choose(service: Service) -> None:
    known = {"alice": 60456, "a-bc": 60101, "bob": 60076, "fred": 60001, "sue": 60127}
    for name in known:
        service.create(name)
    assert {name: uid_of(service, name) for name in known} == known


def test_uid_of_the_record_is_kept_when_it_is_free(service: Service) -> None:
    for name, uid in (("anna", 60222), ("bert", 5000), ("cleo", 70000)):
        service.create(name, uid=uid)
        assert uid_of(service, name) == uid


def test_a_home_found_on_disk_keeps_the_uid_of_its_record_while_it_is_free(
    service: Service,
) -> None:
    """In the range alone, as with systemd-homed, which goes by the owner of the files."""
    wanted = {"ada": 60321, "ben": 60322, "cora": 5001}
    service.create("taker", uid=60322)
    for name, uid in wanted.items():
        service.site.plant(name, uid=uid)
        service.wait_for(name, "unfixated")
    unsigned = service.site.signed(people.record("dan", secret=None)).data
    service.site.plant_text("dan", json.dumps({**unsigned, "uid": 60323}).encode())
    service.wait_for("dan", "unfixated")
    chosen = {name: next(candidates(name)) for name in ("ben", "cora", "dan")}
    assert uid_of(service, "ada") == 60321
    assert {name: uid_of(service, name) for name in chosen} == chosen
    service.activate("ada")
    assert uid_of(service, "ada") == service.path_of("ada").stat().st_uid == 60321
    service.deactivate("ada")


def test_uid_of_another_home_is_refused(service: Service) -> None:
    service.create("dirk", uid=60333)
    before = service.site.digest()
    record = people.text(people.record("dora", uid=60333))
    assert service.error("CreateHome", "s", record) == "UIDInUse"
    assert service.site.digest() == before


def test_chosen_uid_steps_aside_for_one_that_was_asked_for(service: Service) -> None:
    service.create("elsa", uid=60091)
    # Their own hash says 60091.
    service.create("gina")
    assert uid_of(service, "gina") not in (60091, uid_of(service, "elsa"))


def test_name_of_another_home_is_refused(service: Service) -> None:
    service.create("falk", aliases=["falko"], realm="example.com")
    for name in ("falk", "falko"):
        record = people.text(people.record(name))
        assert service.error("CreateHome", "s", record) == "UserNameExists"


def test_sixty_four_creations_at_once_get_as_many_uids(service: Service) -> None:
    names = [f"many{number}" for number in range(64)]
    results = at_once(partial(create_on_own_connection, service, name) for name in names)
    assert results == [None] * 64
    assert len({uid_of(service, name) for name in names}) == 64


def test_one_of_many_creations_for_one_uid_wins(service: Service) -> None:
    names = [f"same{number}" for number in range(16)]
    results = at_once(partial(create_on_own_connection, service, n, uid=60444) for n in names)
    refused = [short(one.name) for one in results if isinstance(one, BusError)]
    assert refused == ["UIDInUse"] * 15
    assert sum(name in service.states() for name in names) == 1


def test_one_of_many_creations_of_one_name_wins(service: Service) -> None:
    results = at_once([partial(create_on_own_connection, service, "only")] * 16)
    refused = [short(one.name) for one in results if isinstance(one, BusError)]
    assert refused == ["UserNameExists"] * 15
    service.activate("only")
    service.deactivate("only")


def test_uid_is_free_again_after_a_failed_creation_and_a_removal(service: Service) -> None:
    wrong = people.record("gerd", uid=60345, secret={"password": ["something else"]})
    assert service.error("CreateHome", "s", people.text(wrong)) == "BadPassword"
    service.create("gerd", uid=60345)
    service.call("RemoveHome", "s", "gerd")
    service.create("hugo", uid=60345)


@pytest.fixture
def other_accounts(ground: Path) -> Iterator[None]:
    """Users and groups of other origin in the files NSS reads."""
    for table, line in (
        ("passwd", "taken:x:60401:60402::/:/bin/false"),
        ("group", "crowd:x:60403:"),
    ):
        copy = ground / f"etc-{table}"
        copy.write_text("\n".join([Path(f"/etc/{table}").read_text().rstrip(), line, ""]))
        volumes.show_file(copy, Path(f"/etc/{table}"))
    yield
    for table in ("passwd", "group"):
        mounts.umount2(f"/etc/{table}", 0)


def test_names_and_ids_of_other_accounts_are_refused(
    other_accounts: None, service: Service
) -> None:
    for name in ("taken", "crowd", "daemon"):
        record = people.text(people.record(name))
        assert service.error("CreateHome", "s", record) == "UserNameExists"
    for uid in (60401, 60403):
        record = people.text(people.record("lea", uid=uid))
        assert service.error("CreateHome", "s", record) == "UIDInUse"


def test_id_that_owns_shared_memory_is_refused(service: Service) -> None:
    made = subprocess.run(
        ["ipcmk", "-M", "4096"], user=60404, check=True, capture_output=True, text=True
    )
    number = made.stdout.split()[-1]
    try:
        record = people.text(people.record("kim", uid=60404))
        assert service.error("CreateHome", "s", record) == "UIDInUse"
    finally:
        subprocess.run(["ipcrm", "-m", number], check=True)
    service.create("kim", uid=60404)


def test_range_is_configurable_and_its_end_is_said(new_site: Callable[..., Site]) -> None:
    service = Service(new_site(UIDRange="200000-200003"))
    for number in range(4):
        service.create(f"user{number}")
    assert {uid_of(service, f"user{n}") for n in range(4)} == set(range(200000, 200004))
    failure = service.failure("CreateHome", "s", people.text(people.record("late")))
    assert short(failure.name) == "System.Error.ENOSPC"
    assert "200000" in failure.message
    # What the record asks for is not bound to the range.
    service.create("late", uid=60050)
    service.close()


# --- thousands --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thousands(new_site: Callable[..., Site]) -> Iterator[Service]:
    """A service that starts with more homes than systemd-homed can hold."""
    site = new_site(UIDRange=f"{crowd.RANGE[0]}-{crowd.RANGE[1]}")
    volumes.mount_new("tmpfs", "tmpfs", site.home_root, mode="0755")
    crowd.settle(site)
    service = Service(site)
    yield service
    service.close()
    mounts.umount2(str(site.home_root), 0)


def best_of(times: int, task: Callable[[], object]) -> float:
    """Seconds the fastest of several runs took."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        task()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def private_kib(pid: int) -> int:
    """Memory that belongs to one process alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))


def test_five_thousand_homes_are_listed(thousands: Service) -> None:
    (rows,) = thousands.call("ListHomes")
    assert isinstance(rows, list)
    assert len(rows) == crowd.COUNT
    assert {row[2] for row in rows} == {"inactive"}
    # Generous: it is a tenth of this on a quiet machine.
    assert best_of(5, lambda: thousands.call("ListHomes")) < 1.0


def test_each_of_five_thousand_is_found_by_name_uid_and_alias(thousands: Service) -> None:
    for number in range(0, crowd.COUNT, 97):
        name, uid = crowd.name_of(number), crowd.RANGE[0] + number
        assert uid_of(thousands, name) == uid_of(thousands, f"alias{number:04}") == uid
        assert thousands.call("GetHomeByUID", "u", uid)[0] == name
        assert thousands.user_record(name)["userName"] == name


def test_five_thousand_users_groups_and_memberships_are_enumerated(thousands: Service) -> None:
    with UserDatabase(thousands.site.userdb_socket) as database:
        users = database.all("GetUserRecord")
        names = {one["record"]["userName"] for one in users}
        assert names == {crowd.name_of(number) for number in range(crowd.COUNT)}
        assert len(database.all("GetGroupRecord")) == crowd.COUNT
        assert len(database.all("GetMemberships", groupName="crowd")) == crowd.COUNT
        assert len(database.all("GetMemberships")) == 2 * crowd.COUNT
        record = database.ask("GetUserRecord", userName="alias4999")["record"]
        assert record["userName"] == "user4999"


def test_look_up_does_not_wait_for_an_enumeration(thousands: Service) -> None:
    with (
        UserDatabase(thousands.site.userdb_socket) as slow,
        UserDatabase(thousands.site.userdb_socket) as quick,
    ):
        # Asked for and not read: the answers have to wait in the service.
        slow.send("GetUserRecord", {}, more=True)
        for _ in range(20):
            assert quick.ask("GetUserRecord", uid=crowd.RANGE[1])["record"]["userName"]
        assert best_of(5, lambda: quick.ask("GetUserRecord", uid=crowd.RANGE[1])) < 0.25


def test_five_thousand_homes_cost_no_descriptors_and_little_memory(thousands: Service) -> None:
    for _ in range(3):
        thousands.call("ListHomes")
    assert len(os.listdir(f"/proc/{thousands.pid}/fd")) < 32
    assert private_kib(thousands.pid) < 160 * KIB


def test_full_range_is_said_so(thousands: Service) -> None:
    failure = thousands.failure("CreateHome", "s", people.text(people.record("late")))
    assert short(failure.name) == "System.Error.ENOSPC"
