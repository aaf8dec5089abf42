"""Real workers on real homes: what they do, what they refuse, what is left when they are killed."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.record.model import UserRecord
from homemgr.storage import mountpoint
from tests.kernel.jobs import PASSWORD, KilledError, Worker
from tests.kernel.kills import Step

NOBODY = 65534


@pytest.fixture
def alice(area: Path) -> Iterator[Worker]:
    """A worker for alice, whose home does not exist yet; unmounted at the end."""
    worker = Worker(area)
    yield worker
    if mountpoint.is_active(str(area / "alice")):
        mountpoint.take_away(str(area / "alice"))


def owners(top: Path) -> set[tuple[int, int]]:
    """Who owns what below ``top``, itself included."""
    found = {(os.lstat(top).st_uid, os.lstat(top).st_gid)}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            status = os.lstat(os.path.join(directory, name))
            found.add((status.st_uid, status.st_gid))
    return found


def image(worker: Worker) -> Path:
    """Where the home of alice lies on disk."""
    return worker.area / ".homemgr" / "alice.homedir"


def mounted(worker: Worker) -> bool:
    """True if the home of alice is there to be used."""
    return mountpoint.is_active(str(worker.area / "alice"))


def leftovers(worker: Worker) -> list[str]:
    """Names of unfinished things in the base directory."""
    base = worker.area / ".homemgr"
    return [n for n in os.listdir(base) if n.startswith(".#")] if base.exists() else []


def test_a_home_lives_from_creation_to_removal(alice: Worker) -> None:
    alice.run("create")
    assert owners(image(alice)) == {(NOBODY, NOBODY)}
    result = alice.run("activate")
    assert result["is_mounted"] is True
    assert owners(alice.area / "alice") == {(60456, 60456)}
    note = alice.area / "alice" / "note"
    with pytest.raises(OSError, match="Value too large") as refused:
        note.touch()  # as root, who has no id in there to store
    assert refused.value.errno == errno.EOVERFLOW
    subprocess.run(["/bin/touch", str(note)], check=True, user=60456, group=60456, extra_groups=[])
    assert owners(image(alice)) == {(NOBODY, NOBODY)}
    alice.run("deactivate")
    assert not mounted(alice)
    alice.run("remove", step="set-aside")
    alice.run("remove", step="delete")
    assert os.listdir(alice.area / ".homemgr") == []
    assert not (alice.area / "alice").exists()


def test_a_wrong_password_mounts_nothing(alice: Worker) -> None:
    alice.run("create")
    alice.password = "wrong"
    with pytest.raises(errors.BadPassword):
        alice.run("activate")
    assert not mounted(alice)


def test_empty_password_protects_nothing_and_is_refused(alice: Worker) -> None:
    with pytest.raises(errors.InvalidArgs, match="empty password"):
        alice.run("create", secret={"password": [PASSWORD, ""]})
    alice.run("create")
    before = (image(alice) / ".identity").read_bytes()
    with pytest.raises(errors.InvalidArgs, match="empty password"):
        alice.run("passwd", new_secret={"password": [""]})
    assert (image(alice) / ".identity").read_bytes() == before


def test_a_record_of_an_unknown_signer_is_not_mounted(alice: Worker) -> None:
    alice.run("create")
    stranger = Worker(alice.area)
    stranger.record = alice.record
    # systemd-homed 262 mounts first and then complains (its defect 5).
    with pytest.raises(errors.BadSignature):
        stranger.run("activate")
    assert not mounted(alice)


def test_a_deleted_embedded_record_is_written_back(alice: Worker) -> None:
    alice.run("create")
    (image(alice) / ".identity").unlink()
    alice.run("activate")
    assert (image(alice) / ".identity").read_bytes() == alice.record.embedded().pretty()
    assert owners(image(alice)) == {(NOBODY, NOBODY)}


def test_a_newer_embedded_record_wins_with_its_password(alice: Worker) -> None:
    alice.run("create")
    newer = alice.signed("another password", 2_000_000)
    with (image(alice) / ".identity").open("wb") as file:
        file.write(newer.embedded().pretty())
    with pytest.raises(errors.BadPassword):
        alice.run("authenticate")
    alice.password = "another password"
    result = alice.run("activate")
    assert result["record"] == newer.data


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "device", "hardlink", "huge"])
def test_what_is_no_file_of_the_home_is_put_aside_and_never_read(alice: Worker, kind: str) -> None:
    alice.run("create")
    path = image(alice) / ".identity"
    path.unlink()
    secret = alice.area / "secret"
    secret.write_text("{}", encoding="utf-8")
    match kind:
        case "symlink":
            path.symlink_to(secret)
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            os.mknod(path, 0o20600, os.makedev(1, 5))
        case "hardlink":
            os.link(secret, path)
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 30)
    before = path.lstat()
    alice.run("activate")
    assert path.read_bytes() == alice.record.embedded().pretty()
    assert (path.lstat().st_mode, path.lstat().st_nlink) == (0o100600, 1)
    (kept,) = image(alice).glob(".identity.kept-*")
    assert (kept.lstat().st_ino, kept.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert secret.read_text(encoding="utf-8") == "{}"


def test_without_a_host_copy_that_counts_it_is_refused(alice: Worker) -> None:
    alice.run("create")
    path = image(alice) / ".identity"
    path.rename(path.with_name("record"))
    path.symlink_to("record")
    stranger = Worker(alice.area)
    stranger.record = alice.record
    with pytest.raises(errors.HostileHome, match=r"\.identity"):
        stranger.run("activate")
    assert not mounted(alice)
    assert path.is_symlink()


def usable_or_absent(alice: Worker, passwords: tuple[str, ...]) -> str:
    """What a killed operation left: sweeps, then logs in with each password in turn."""
    alice.run("sweep", directories=[str(alice.area / ".homemgr"), str(alice.area)])
    assert leftovers(alice) == []
    if not image(alice).exists():
        return "absent"
    assert owners(image(alice)) == {(NOBODY, NOBODY)}
    if mounted(alice):
        alice.run("deactivate")
    for password in passwords:
        alice.password = password
        try:
            alice.run("activate")
        except errors.BadPassword:
            continue
        alice.run("deactivate")
        return password
    raise AssertionError("no password opens the home")


def remove(alice: Worker) -> None:
    """Remove the home of alice as the daemon does."""
    alice.run("remove", step="set-aside")
    alice.run("remove", step="delete")


def kill_at(alice: Worker, at: Step, verb: str, **more: object) -> None:
    """Run ``verb`` and see it die at one of its system calls."""
    with pytest.raises(KilledError):
        alice.run_killed(at, verb, **more)


@pytest.mark.timeout(300)
def test_create_killed_anywhere_leaves_a_home_or_nothing(alice: Worker, tmp_path: Path) -> None:
    password = alice.password
    # The base directory is there from the first home on.
    alice.run("create")
    remove(alice)
    steps = alice.steps(tmp_path / "trace", "create")
    assert {"mkdir", "renameat2", "fsync"} <= {
        step.name.replace("mkdirat", "mkdir") for step in steps
    }
    for step in steps:
        if image(alice).exists():
            remove(alice)
        kill_at(alice, step, "create")
        usable_or_absent(alice, (password,))


@pytest.mark.timeout(300)
def test_activate_killed_anywhere_leaves_a_home(alice: Worker, tmp_path: Path) -> None:
    alice.run("create")

    def prepare() -> None:
        if mounted(alice):
            alice.run("deactivate")
        # The copy inside is lost, so that all steps have something to do.
        (image(alice) / ".identity").unlink(missing_ok=True)

    prepare()
    steps = alice.steps(tmp_path / "trace", "activate")
    assert {"open_tree", "mount_setattr", "move_mount"} <= {step.name for step in steps}
    for step in steps:
        prepare()
        kill_at(alice, step, "activate")
        assert usable_or_absent(alice, (alice.password,)) == alice.password


@pytest.mark.timeout(300)
def test_activate_whose_service_died_meanwhile_shows_no_home(alice: Worker) -> None:
    alice.run("create")
    # The next service looks which homes are active when it starts; this one would come later.
    alice.run_deserted(Step("open_tree", 1), "activate")
    assert not mounted(alice)
    alice.run("activate")
    assert mounted(alice)


def test_deactivate_killed_anywhere_leaves_a_home(alice: Worker, tmp_path: Path) -> None:
    alice.run("create")
    alice.run("activate")
    steps = alice.steps(tmp_path / "trace", "deactivate")
    assert "umount2" in {step.name for step in steps}
    for step in steps:
        if not mounted(alice):
            alice.run("activate")
        kill_at(alice, step, "deactivate")
        assert usable_or_absent(alice, (alice.password,)) == alice.password


@pytest.mark.timeout(300)
@pytest.mark.parametrize("verb", ["passwd", "slot"])
def test_passwd_killed_anywhere_leaves_one_password_that_works(
    alice: Worker, tmp_path: Path, verb: str
) -> None:
    assert alice.keyring.signer is not None
    alice.run("create")
    old, new = alice.password, "new correct horse"
    original = (image(alice) / ".identity").read_bytes()
    more = {
        "new_secret": {"password": [new]},
        "private_key": alice.keyring.signer.to_pem().decode(),
        "former_hashes": [],
        "now_usec": 5_000_000,
    }
    if verb == "slot":
        more |= {"do": "replace", "name": "password"}

    def prepare() -> None:
        alice.password = old
        (image(alice) / ".identity").write_bytes(original)
        os.chown(image(alice) / ".identity", NOBODY, NOBODY)

    found = set()
    for step in alice.steps(tmp_path / "trace", verb, **more):
        prepare()
        kill_at(alice, step, verb, **more)
        found.add(usable_or_absent(alice, (old, new)))
    # Before the rename the old one, after it the new one.
    assert found == {old, new}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["set-aside", "delete"])
def test_remove_killed_anywhere_leaves_a_home_or_nothing(
    alice: Worker, tmp_path: Path, stage: str
) -> None:
    password = alice.password

    def prepare() -> None:
        if not image(alice).exists():
            alice.run("create")
        if stage == "delete":
            alice.run("remove", step="set-aside")

    prepare()
    for step in alice.steps(tmp_path / "trace", "remove", step=stage):
        prepare()
        kill_at(alice, step, "remove", step=stage)
        usable_or_absent(alice, (password,))


def test_update_that_meets_a_newer_record_is_refused(alice: Worker) -> None:
    alice.run("create")
    newer = alice.signed(alice.password, 3_000_000)
    (image(alice) / ".identity").write_bytes(newer.embedded().pretty())
    os.chown(image(alice) / ".identity", NOBODY, NOBODY)
    update = alice.signed(alice.password, 2_000_000)
    # systemd-homed 262 reports success and keeps the newer one (its defect 8).
    with pytest.raises(errors.RecordDowngrade):
        alice.run("update", new_record=update.embedded().data)


def test_update_changes_both_copies(alice: Worker) -> None:
    alice.run("create")
    alice.extra = {"realName": "Alice in Chains"}
    update = alice.signed(alice.password, 2_000_000)
    result = alice.run("update", new_record=update.embedded().data)
    assert result["record"] == update.data
    inside = UserRecord.parse((image(alice) / ".identity").read_bytes())
    assert inside.data["realName"] == "Alice in Chains"


def test_update_cannot_replace_a_password_its_sender_does_not_know(alice: Worker) -> None:
    alice.run("create")
    update = alice.signed("the finder's password", 2_000_000)
    with pytest.raises(errors.BadPassword):
        alice.run(
            "update",
            new_record=update.embedded().data,
            secret={"password": ["the finder's password"]},
        )
    alice.run("activate")


def test_update_needs_the_password_of_the_new_record_too(alice: Worker) -> None:
    alice.run("create")
    update = alice.signed("a new password", 2_000_000)
    with pytest.raises(errors.BadPassword):
        alice.run("update", new_record=update.embedded().data)
    both = {"password": [alice.password, "a new password"]}
    assert alice.run("update", new_record=update.embedded().data, secret=both)["record"]


def test_passwd_leaves_a_newer_record_of_another_signer_alone(alice: Worker) -> None:
    assert alice.keyring.signer is not None
    alice.run("create")
    other = Worker(alice.area)
    newer = other.signed(alice.password, 3_000_000)
    (image(alice) / ".identity").write_bytes(newer.embedded().pretty())
    keys = {n: k.pem for n, k in alice.keyring.public.items()}
    keys["other.public"] = other.keyring.public["local.public"].pem
    with pytest.raises(errors.RecordSigned):
        alice.run(
            "passwd",
            public_keys=keys,
            new_secret={"password": ["new correct horse"]},
            private_key=alice.keyring.signer.to_pem().decode(),
            former_hashes=[],
            now_usec=5_000_000,
        )
