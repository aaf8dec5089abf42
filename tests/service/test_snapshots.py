"""Snapshots with the real service and the real command line: whose they are, and what they cost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.storage import snapshot_shelf
from homemgr.wire.messages import BusError
from tests import homes, volumes
from tests.service import people
from tests.service.authority import Authority
from tests.service.bus import Bus
from tests.service.converting import call, convert
from tests.service.holders import Stranger, sitting_in, stranger, write_as
from tests.service.moving import PROGRAM
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.site import ROOT, Service, Site, short, wait_until

NAME, PATH, MANAGER = "org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager"
OWNER, BACKUP = 60114, 34


@pytest.fixture(scope="module")
def sharing(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An xfs, where files can share blocks."""
    image, target = tmp_path_factory.mktemp("sharing") / "image", ground / "sharing"
    volumes.mount_image(image, "xfs", target, 512 * volumes.MIB)
    yield target
    mounts.umount2(str(target), 0)
    target.rmdir()
    image.unlink()


@pytest.fixture(scope="module")
def service(sharing: Path, ground: Path) -> Iterator[Service]:
    """A daemon whose homes lie there."""
    yield from _running(sharing / "home", ground / "state-sharing")


@pytest.fixture(scope="module")
def plain(new_site: Callable[..., Site]) -> Iterator[Service]:
    """A daemon whose homes can be encrypted, and share nothing."""
    running = Service(new_site())
    yield running
    running.close()


@pytest.fixture
def mortal(sharing: Path, ground: Path) -> Iterator[Service]:
    """The same for one test, which may kill it."""
    yield from _running(sharing / "mortal", ground / "state-mortal")


def _running(root: Path, state: Path) -> Iterator[Service]:
    root.mkdir(0o755)
    bus = Bus(state)
    running = Service(Site(root, state, bus.address))
    yield running
    running.call("DeactivateAllHomes")
    running.close()
    bus.close()


@pytest.fixture(scope="module", autouse=True)
def authority(service: Service) -> Iterator[Authority]:
    """What the policy gives to users: their own snapshots."""
    with Authority(only="org.homemgr1.manage-snapshots-own").on(service.site.bus_address) as one:
        one.granting.set()
        yield one


def homemgr(service: Service, *words: str, code: int = 0) -> str:
    """Run the command as root; gives what it printed, and complained."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "snapshot", *words],
        env={**service.site.environment(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout + done.stderr


def listed(service: Service, user: str) -> dict[str, dict[str, object]]:
    rows = json.loads(homemgr(service, "list", user, "--json=short"))
    return {row["name"]: row for row in rows}


def make(service: Service, user: str, **fields: object) -> Path:
    """A home with something in it."""
    service.create(user, **fields)
    top = service.site.base / f"{user}.homedir"
    (top / "note").write_text("before")
    homes.give_away(top)
    return top


def job(client: Stranger, member: str, *body: str) -> dict[str, object]:
    """Have a job done as its client; gives the result."""
    (path,) = client.call_at((NAME, PATH, MANAGER, member), "s" * len(body), *body)
    (text,) = client.call_at((NAME, str(path), "org.homemgr1.Job", "Wait"))
    return cast("dict[str, object]", json.loads(str(text) or "{}"))


def test_a_home_is_restored_with_the_password_of_now(service: Service) -> None:
    top = make(service, "anna")
    homemgr(service, "create", "anna", "first", "--reason=before the journey")
    service.call("ChangePasswordHome", "sss", "anna", secret(OTHER_PASSWORD), secret(PASSWORD))
    service.activate("anna", OTHER_PASSWORD)
    (owner,) = (
        row[1]
        for row in cast("list[list[object]]", service.call("ListHomes")[0])
        if row[0] == "anna"
    )
    write_as(owner, service.path_of("anna") / "note", "after")
    write_as(owner, service.path_of("anna") / "new", "new")
    assert homemgr(service, "diff", "anna", "first").splitlines() == [
        "CHANGE\tKIND\tPATH",
        "changed\tfile\t.identity",
        "added\tfile\tnew",
        "changed\tfile\tnote",
    ]
    assert "it is in use" in homemgr(service, "restore", "anna", "first", code=1)
    service.deactivate("anna")
    told = json.loads(homemgr(service, "restore", "anna", "first", "--json=short"))
    assert (top / "note").read_text() == "before"
    assert service.error("AuthenticateHome", "ss", "anna", secret(PASSWORD)) == "BadPassword"
    service.activate("anna", OTHER_PASSWORD)
    service.deactivate("anna")
    assert homemgr(service, "restore", "anna", told["snapshot"]["name"]).startswith("What it was")
    assert (top / "new").read_text() == "new"
    rows = listed(service, "anna")
    assert len(rows) == 3
    assert rows["first"]["reason"] == "before the journey"
    assert not rows["first"]["automatic"]
    assert "privileged" not in json.dumps(rows)
    shutil.rmtree(top)
    service.wait_for("anna", "absent")
    homemgr(service, "restore", "anna", "first")
    assert service.state("anna") == "inactive"
    service.call("AuthenticateHome", "ss", "anna", secret(OTHER_PASSWORD))
    service.call("RemoveHome", "s", "anna")
    assert not (service.site.base / snapshot_shelf.DIRECTORY).exists()


def test_users_have_their_own_files_again_and_nobody_elses(service: Service) -> None:
    top = make(service, "bert", uid=OWNER)
    make(service, "carl", uid=OWNER + 1)
    homemgr(service, "create", "bert", "roots")
    homemgr(service, "create", "carl", "his")
    service.activate("bert")
    with stranger(OWNER, service.site.bus_address) as bert:
        note = job(bert, "CreateSnapshot", "bert", '{"name": "mine"}')["snapshot"]
        assert cast("dict[str, object]", note)["by_uid"] == OWNER
        write_as(OWNER, service.path_of("bert") / "note", "after")
        asked = json.dumps({"paths": ["note"]})
        with pytest.raises(BusError, match="exists already"):
            job(bert, "RestoreSnapshot", "bert", "mine", asked)
        asked = json.dumps({"paths": ["note"], "force": True})
        assert job(bert, "RestoreSnapshot", "bert", "mine", asked)["restored"] == 1
        assert (top / "note").read_text() == "before"
        assert (top / "note").stat().st_uid == 65534
        for refused in (
            ("RestoreSnapshot", "carl", "his", asked),
            ("RestoreSnapshot", "bert", "mine", "{}"),
            ("CreateSnapshot", "carl", "{}"),
            ("CompareSnapshot", "carl", "his", ""),
            ("ListSnapshots", "carl"),
            ("RemoveSnapshot", "bert", "roots"),
            ("RemoveSnapshot", "carl", "his"),
            ("MountSnapshot", "bert", "mine", json.dumps({"path": "/mnt", "uid": OWNER})),
            ("UnmountSnapshot", "/mnt"),
        ):
            with pytest.raises(BusError) as caught:
                job(bert, *refused)
            assert short(caught.value.name) == "AccessDenied", refused
        for paths in (["../x"], ["/etc/passwd"], [""], ["note/../../x"]):
            with pytest.raises(BusError, match="no path below the home"):
                job(bert, "RestoreSnapshot", "bert", "mine", json.dumps({"paths": paths}))
        bert.call_at((NAME, PATH, MANAGER, "RemoveSnapshot"), "ss", "bert", "mine")
    assert list(listed(service, "bert")) == ["roots"]
    service.deactivate("bert")


def test_whatever_lies_in_the_place_of_record_and_blobs_a_home_is_restored(
    service: Service, tmp_path: Path
) -> None:
    top = service.site.base / "lutz.homedir"
    (tmp_path / "avatar").write_bytes(b"png")
    with Fd.open(str(tmp_path / "avatar"), os.O_RDONLY) as avatar:
        record, blobs = people.text(people.record("lutz")), {"avatar": 0}
        service.call("CreateHomeEx", "sa{sh}t", record, blobs, 0, fds=[avatar])
    (top / ".identity").rename(top / "taken away")
    (top / ".identity").mkdir()
    (top / ".identity/mine").write_text("mine")
    homes.give_away(top)
    homemgr(service, "create", "lutz", "one")
    shutil.rmtree(top / ".identity")
    (top / "taken away").rename(top / ".identity")
    shutil.rmtree(top / ".identity-blob")
    (top / ".identity-blob").symlink_to("/etc")
    homes.give_away(top)
    homemgr(service, "restore", "lutz", "one")
    assert [path.read_text() for path in top.glob(".identity.kept-*/mine")] == ["mine"]
    service.activate("lutz")
    service.deactivate("lutz")


def test_one_that_is_called_off_is_whole_or_none(service: Service) -> None:
    top = make(service, "gert")
    for number in range(3000):
        (top / f"{number}").write_text("x")
    homes.give_away(top)
    target = (NAME, PATH, MANAGER, "CreateSnapshot", "ss", ("gert", '{"name": "one"}'))
    (path,) = service.client.call(*target).body
    service.client.call(NAME, str(path), "org.homemgr1.Job", "Cancel")
    ended = ""
    try:
        service.client.call(NAME, str(path), "org.homemgr1.Job", "Wait")
    except BusError as error:
        ended = error.name
    assert ended in ("", "org.homemgr1.Cancelled")
    assert list(listed(service, "gert")) == ([] if ended else ["one"])
    shelf = service.site.base / snapshot_shelf.DIRECTORY / "gert"
    assert os.listdir(shelf) == list(listed(service, "gert"))


def test_what_becomes_encrypted_is_not_left_readable_beside_it(plain: Service) -> None:
    make(plain, "hans")
    homemgr(plain, "create", "hans", "one", "--full-copy")
    convert(plain, "hans", PASSWORD, storage="fscrypt")
    assert list(listed(plain, "hans")) == ["one"]
    call(plain, "ConfirmConversion", "s", "hans")
    assert listed(plain, "hans") == {}
    assert not (plain.site.base / snapshot_shelf.DIRECTORY).exists()
    assert "copy would lie there readable" in homemgr(plain, "create", "hans", code=1)


def test_before_something_risky_there_is_a_snapshot(service: Service, ground: Path) -> None:
    top = make(service, "dora")
    service.client.call(NAME, PATH, MANAGER, "RepairHomes", "s", ("dora",))
    assert listed(service, "dora") == {}
    (top / ".identity").chmod(0o644)
    service.client.call(NAME, PATH, MANAGER, "RepairHomes", "s", ("dora",))
    ((name, row),) = listed(service, "dora").items()
    assert name.startswith("before-repair-")
    assert (row["automatic"], row["reason"]) == (True, "before repair")
    shelf = service.site.base / snapshot_shelf.DIRECTORY / "dora"
    assert (shelf / name / "home/.identity").stat().st_mode & 0o777 == 0o644
    discard = (NAME, PATH, MANAGER, "DiscardExtensionChanges", "sast")
    service.client.call(*discard, ("dora", [], 0))
    (first, second) = sorted(listed(service, "dora"))
    assert first.startswith("before-extension-discard-")
    assert second == name


def test_an_image_that_shrinks_is_kept_and_had_again(service: Service) -> None:
    fields = {"storage": "directory", "org.homemgr.storage": "image", "fileSystemType": "ext4"}
    service.create("ines", **fields, diskSize=64 * volumes.MIB, luksDiscard=True)
    service.activate("ines")
    refused = homemgr(service, "create", "ines", code=1)
    assert "while its user is logged out" in refused
    service.deactivate("ines")
    service.call("ResizeHome", "sts", "ines", 48 * volumes.MIB, secret(PASSWORD))
    ((name, row),) = listed(service, "ines").items()
    assert name.startswith("before-resize-")
    assert row["how"] == "image"
    # One that grows is in no danger, whether this machine lets it grow or not.
    with suppress(BusError):
        service.call("ResizeHome", "sts", "ines", 64 * volumes.MIB, secret(PASSWORD))
    assert len(listed(service, "ines")) == 1
    service.call("ChangePasswordHome", "sss", "ines", secret(OTHER_PASSWORD), secret(PASSWORD))
    bound = service.user_record("ines")["binding"]
    assert "fileSystemUuid" in str(bound)
    # What is refused changes nothing, nor does the record forget which image is its.
    assert "no snapshot" in homemgr(service, "restore", "ines", "first", code=1)
    assert service.user_record("ines")["binding"] == bound
    homemgr(service, "restore", "ines", name)
    assert "fileSystemUuid" not in str(service.user_record("ines")["binding"])
    assert service.error("ActivateHome", "ss", "ines", secret(PASSWORD)) == "BadPassword"
    service.activate("ines", OTHER_PASSWORD)
    service.deactivate("ines")


def test_an_image_of_before_a_conversion_there_and_back_is_had_again(service: Service) -> None:
    fields = {"storage": "directory", "org.homemgr.storage": "image", "fileSystemType": "ext4"}
    service.create("kuno", **fields, diskSize=48 * volumes.MIB, luksDiscard=True)
    homemgr(service, "create", "kuno", "first")
    for storage in ("directory", "image"):
        convert(service, "kuno", PASSWORD, storage=storage)
        call(service, "ConfirmConversion", "s", "kuno")
    service.activate("kuno")
    service.deactivate("kuno")
    # It is another file system than the one that the record came to name.
    homemgr(service, "restore", "kuno", "first")
    for _ in range(2):
        service.activate("kuno")
        service.deactivate("kuno")


def test_what_was_restored_or_shrunk_after_a_conversion_is_not_undone_unasked(
    service: Service,
) -> None:
    top = make(service, "jana", fileSystemType="ext4", luksDiscard=True, uid=OWNER + 2)
    kept = top.stat().st_ino
    convert(service, "jana", storage="image", disk_size=64 * volumes.MIB)
    service.call("ResizeHome", "sts", "jana", 48 * volumes.MIB, secret(PASSWORD))
    with pytest.raises(BusError, match="has been used since"):
        call(service, "UndoConversion", "ss", "jana", "{}")
    # Another file than was put there goes away just so.
    call(service, "UndoConversion", "ss", "jana", '{"force": true}')
    assert top.stat().st_ino == kept
    service.call("RemoveHome", "s", "jana")


def test_what_outlives_the_service(mortal: Service, ground: Path) -> None:
    top = make(mortal, "emil")
    homemgr(mortal, "create", "emil", "one")
    view = ground / "view"
    view.mkdir(0o755)
    homemgr(mortal, "mount", "emil", "one", str(view), f"--uid={BACKUP}")
    for number in range(2000):
        (top / f"{number}").write_text("x")
    homes.give_away(top)
    shelf = mortal.site.base / snapshot_shelf.DIRECTORY / "emil"
    target = (NAME, PATH, MANAGER, "CreateSnapshot", "ss", ("emil", '{"name": "two"}'))
    mortal.client.call(*target)
    wait_until(lambda: len(os.listdir(shelf)) > 1, "a snapshot to begin")
    mortal.kill()
    mortal.start()
    try:
        assert (view / "note").stat().st_uid == BACKUP
        assert listed(mortal, "emil")["one"]["mounted"] == [str(view)]
        with sitting_in(view, BACKUP):
            assert "in use" in homemgr(mortal, "unmount", str(view), code=1)
    finally:
        homemgr(mortal, "unmount", str(view))
    for path in (view, mortal.site.home_root):
        assert "No snapshot is mounted" in homemgr(mortal, "unmount", str(path), code=1)
    view.rmdir()
    # The worker of the killed service ends by itself; who comes next cleans up after it.
    homemgr(mortal, "create", "emil", "three")
    assert {"one", "three"} <= set(os.listdir(shelf)) <= {"one", "two", "three"}
    for name in {"two", "three"} & set(os.listdir(shelf)):
        assert len(os.listdir(shelf / name / "home")) == len(os.listdir(top))
