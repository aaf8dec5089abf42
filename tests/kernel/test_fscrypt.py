"""Storage `fscrypt` on a real ext4: what is readable when, with which password, after any kill."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr import crypt, errors
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import fscrypt, mounts
from homemgr.kernel.fscrypt import KeyStatus
from homemgr.record.model import UserRecord
from homemgr.storage import accelerators, key_slots, mountpoint
from homemgr.storage.accelerators import Making
from tests import stretching, volumes
from tests.kernel.jobs import CHANGING, PASSWORD, KilledError, Worker

NOBODY, ALICE = 65534, 60456
NEW = "another horse battery"
RECOVERY = "-".join(["cbdefghi"] * 7 + ["jklnrtuv"])

#: A slot that systemd-homed 262 wrote, and what it opens to.
SLOT = (
    b"$v2:600000:RIdSQHFZa7vsCKa6uYwhUh6kdI8X069autLG2g2lkwE2OA4QDNP0pOC0TsFIQj+Z2J6XJhXGQgkjSbdKM"
    b"+PNcA==:PWla3nratztc81c8:RuZp+8GkFtkFjMCpOPfvWv2yHmysQT/yq+Onym5ex75+wwCMfuNz19phn64zN1OQNz1"
    b"xW3BSyFXpeh0QAslVUA==:PB2IlMD/HGr6XHyNt7dtvQ=="
)


@pytest.fixture(scope="module")
def encrypting(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ext4 that can encrypt directories."""
    target, image = ground / "encrypting", tmp_path_factory.mktemp("image") / "encrypting"
    make = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "encrypt"]
    volumes.mount_image(image, "ext4", target, make=make)
    yield target
    mounts.umount2(str(target), 0)
    target.rmdir()
    image.unlink()


@pytest.fixture
def alice(encrypting: Path) -> Iterator[Worker]:
    """A worker for alice, whose home is to be encrypted."""
    area = encrypting / "area"
    area.mkdir(mode=0o755)
    worker = Worker(area, extra={"storage": "fscrypt"})
    yield worker
    if mountpoint.is_active(str(area / "alice")):
        mountpoint.take_away(str(area / "alice"), force=True)
    subprocess.run(["rm", "-rf", str(area)], check=True)


def create(alice: Worker) -> None:
    alice.run("create", storage="fscrypt")


def image(alice: Worker) -> Path:
    return alice.area / ".homemgr" / "alice.homedir"


def home(alice: Worker) -> Path:
    return alice.area / "alice"


def status(alice: Worker) -> KeyStatus:
    """What the file system knows of the key of the home."""
    with Fd.open(str(image(alice)), DIRECTORY_FLAGS) as top:
        policy = fscrypt.get_policy(top.fileno())
        assert policy is not None
        return fscrypt.key_status(top.fileno(), policy)


def slots(alice: Worker) -> dict[int, bytes]:
    with Fd.open(str(image(alice)), DIRECTORY_FLAGS) as top:
        found = key_slots.numbers(top.fileno())
        return {n: os.getxattr(top.fileno(), key_slots.attribute(n)) for n in found}


def beside(alice: Worker) -> list[int]:
    """The numbers of all accelerators that are there, whatever they are of."""
    names = os.listxattr(image(alice))
    prefix = accelerators.PREFIX
    return sorted(int(name.removeprefix(prefix)) for name in names if name.startswith(prefix))


def take_accelerators(alice: Worker) -> None:
    """As a home of systemd-homed has none."""
    for number in beside(alice):
        os.removexattr(image(alice), f"{accelerators.PREFIX}{number}")


def accelerated(alice: Worker) -> list[int]:
    """The numbers of the slots that have one of their own; with one processor all count."""
    if not accelerators.is_useful():
        return sorted(slots(alice))
    with Fd.open(str(image(alice)), DIRECTORY_FLAGS) as top:
        found = key_slots.read(top.fileno())
        return [slot.number for slot in found if accelerators.read(top.fileno(), slot)]


def as_alice(*argv: str) -> bytes:
    done = subprocess.run(
        argv, check=True, user=ALICE, group=ALICE, extra_groups=[], capture_output=True
    )
    return done.stdout


def test_a_home_lives_from_creation_to_removal(alice: Worker) -> None:
    create(alice)
    assert status(alice) is KeyStatus.ABSENT
    assert ".identity" not in os.listdir(image(alice))
    alice.run("activate")
    assert status(alice) is KeyStatus.PRESENT
    as_alice("sh", "-c", f"echo secret >{home(alice)}/note")
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in image(alice).rglob("*")} == {
        (NOBODY, NOBODY)
    }
    assert alice.run("deactivate") == {"is_closed": True}
    assert status(alice) is KeyStatus.ABSENT
    assert "note" not in os.listdir(image(alice))
    alice.run("activate")
    assert as_alice("cat", f"{home(alice)}/note") == b"secret\n"
    alice.run("deactivate")
    alice.run("remove", step="set-aside")
    alice.run("remove", step="delete")
    assert os.listdir(alice.area / ".homemgr") == []


def test_without_the_password_there_is_nothing_to_see_and_no_key(alice: Worker) -> None:
    create(alice)
    for verb in ("activate", "authenticate"):
        alice.password = "wrong"
        with pytest.raises(errors.BadPassword):
            alice.run(verb)
        assert status(alice) is KeyStatus.ABSENT
        alice.password = PASSWORD
        if verb == "activate":
            assert not mountpoint.is_active(str(home(alice)))
            # The right one, with which nothing is mounted.
            alice.run("authenticate")
            assert status(alice) is KeyStatus.ABSENT
    # Somebody else's record in the place of the home's does not open it either.
    alice.record = alice.signed("wrong", 2_000_000)
    alice.password = "wrong"
    with pytest.raises(errors.BadPassword):
        alice.run("activate")


def test_the_key_of_a_home_in_use_stays_whoever_else_asks(alice: Worker) -> None:
    create(alice)
    alice.run("activate")
    alice.run("authenticate")
    assert alice.run("settle", secret={}) == {"is_closed": True, "is_locked": False}
    with pytest.raises(errors.HomeAlreadyActive):
        alice.run("activate")
    assert status(alice) is KeyStatus.PRESENT
    change_password(alice)
    assert status(alice) is KeyStatus.PRESENT
    assert list(slots(alice)) == accelerated(alice) == [1]
    assert beside(alice) in ([1], [])
    alice.run("deactivate")
    assert status(alice) is KeyStatus.ABSENT


def change_password(alice: Worker, **more: object) -> dict[str, object]:
    """Change it to NEW; the worker then knows record and password of now."""
    result = alice.run("passwd", **passwd_arguments(alice), **more)
    alice.record = UserRecord(result["record"])  # type: ignore[arg-type]
    alice.password = NEW
    return result


def passwd_arguments(alice: Worker) -> dict[str, object]:
    assert alice.keyring.signer is not None
    return {
        "new_secret": {"password": [NEW]},
        "private_key": alice.keyring.signer.to_pem().decode(),
        "former_hashes": [],
        "now_usec": 2_000_000,
    }


def test_lock_takes_the_key_and_unlock_brings_it_back(alice: Worker) -> None:
    create(alice)
    alice.run("activate")
    as_alice("sh", "-c", f"mkdir {home(alice)}/deep; echo secret >{home(alice)}/deep/note")
    assert alice.run("lock", secret={}) == {"users": ""}
    assert status(alice) is KeyStatus.INCOMPLETELY_REMOVED
    assert alice.run("settle", secret={})["is_locked"] is True
    with pytest.raises(subprocess.CalledProcessError):
        as_alice("cat", f"{home(alice)}/deep/note")
    alice.password = "wrong"
    with pytest.raises(errors.BadPassword):
        alice.run("unlock")
    assert status(alice) is KeyStatus.INCOMPLETELY_REMOVED
    alice.password = PASSWORD
    alice.run("unlock")
    assert status(alice) is KeyStatus.PRESENT
    assert as_alice("cat", f"{home(alice)}/deep/note") == b"secret\n"
    with (home(alice) / "deep" / "note").open():
        assert str(os.getpid()) in str(alice.run("lock", secret={})["users"])
    alice.run("unlock")
    alice.run("deactivate")
    assert status(alice) is KeyStatus.ABSENT


def test_what_is_open_elsewhere_is_told_and_gone_when_it_is_closed(alice: Worker) -> None:
    create(alice)
    alice.run("activate")
    as_alice("touch", f"{home(alice)}/note")
    with Fd.open(str(image(alice) / ".identity"), os.O_RDONLY) as held:
        assert alice.run("deactivate") == {"is_closed": False}
        assert not mountpoint.is_active(str(home(alice)))
        assert os.read(held.fileno(), 1) == b"{"
        with pytest.raises(OSError) as refused:
            Fd.open(str(image(alice) / "note"), os.O_RDONLY)
        assert refused.value.errno in (errno.ENOKEY, errno.ENOENT)
        assert alice.run("settle", secret={})["is_closed"] is False
    assert alice.run("settle", secret={})["is_closed"] is True
    assert status(alice) is KeyStatus.ABSENT


def test_every_password_and_recovery_key_has_a_slot(alice: Worker) -> None:
    hashes = [crypt.hash_password(word, "$6$") for word in (PASSWORD, "second password")]
    recovery = {"type": "modhex64", "hashedPassword": crypt.hash_password(RECOVERY, "$6$")}
    alice.extra["privileged"] = {"hashedPassword": hashes, "recoveryKey": [recovery]}
    alice.record = alice.signed(PASSWORD, 1_000_000)
    words = [PASSWORD, "second password", RECOVERY]
    with pytest.raises(errors.BadRecoveryKey):
        alice.run("create", storage="fscrypt", secret={"password": words[:2]})
    alice.run("create", storage="fscrypt", secret={"password": words})
    assert sorted(slots(alice)) == accelerated(alice) == [0, 1, 2]
    for word in ("second password", RECOVERY, RECOVERY.replace("-", "").upper()):
        alice.run("authenticate", secret={"password": [word]})
    # Room for twice as many slots there is not: nothing is changed, and that is said.
    take_accelerators(alice)
    os.setxattr(image(alice), "trusted.filler", bytes(3200))
    arguments = passwd_arguments(alice)
    with pytest.raises(errors.NoDiskSpace, match="key slots"):
        alice.run("passwd", **arguments, secret={"password": words})
    assert sorted(slots(alice)) == [0, 1, 2]
    os.removexattr(image(alice), "trusted.filler")
    # With one of two old passwords nobody knows which slot the other has: all that stay have
    # to be there. With both, what stays stays in its slot.
    with pytest.raises(errors.BadRecoveryKey):
        alice.run("passwd", **arguments, secret={"password": words[:1]})
    assert sorted(slots(alice)) == [0, 1, 2]
    result = alice.run("passwd", **arguments, secret={"password": words[:2]})
    assert sorted(slots(alice)) == [2, 3]
    assert beside(alice) in ([3], [])
    alice.record = UserRecord(result["record"])  # type: ignore[arg-type]
    result = alice.run(
        "slot", do="add", name="spare", kind="password",
        **{**arguments, "new_secret": {"password": ["a spare word"]}, "now_usec": 3_000_000},
        secret={"password": [NEW]},
    )  # fmt: skip
    alice.record = UserRecord(result["record"])  # type: ignore[arg-type]
    result = alice.run(
        "slot", do="remove", name="password", **{**arguments, "now_usec": 4_000_000},
        secret={"password": ["a spare word", NEW]},
    )  # fmt: skip
    alice.record = UserRecord(result["record"])  # type: ignore[arg-type]
    assert sorted(slots(alice)) == [0, 2]
    tries = (("a spare word", True), (RECOVERY, True), (PASSWORD, False), (NEW, False))
    for word, works in tries:
        if works:
            alice.run("authenticate", secret={"password": [word]})
        else:
            with pytest.raises(errors.BadPassword):
                alice.run("authenticate", secret={"password": [word]})


def test_a_login_stretches_its_word_once_and_checks_it_meanwhile(alice: Worker) -> None:
    recovery = {"type": "modhex64", "hashedPassword": crypt.hash_password(RECOVERY, "$6$")}
    hashes = [crypt.hash_password(PASSWORD, "$6$")]
    alice.extra["privileged"] = {"hashedPassword": hashes, "recoveryKey": [recovery]}
    alice.record = alice.signed(PASSWORD, 1_000_000)
    alice.run("create", storage="fscrypt", secret={"password": [PASSWORD, RECOVERY]})
    assert processors_for(alice, PASSWORD) == 1
    result = alice.run("passwd", **passwd_arguments(alice))
    alice.record = UserRecord(result["record"])  # type: ignore[arg-type]
    assert sorted(slots(alice)) == [1, 2]
    # The slot of the recovery key is the first by now, and is tried first, but once only.
    assert [processors_for(alice, NEW) for _ in range(3)] == [2, 1, 1]
    # What is remembered is a hint: whatever it says, the right word opens, and no other.
    for hint in (b"1", b"77", b"x"):
        os.setxattr(image(alice), "trusted.homemgr.slot", hint)
        alice.run("authenticate", secret={"password": [NEW]})
    with pytest.raises(errors.BadPassword):
        alice.run("authenticate")


def processors_for(alice: Worker, word: str) -> int:
    """How often a login has to wait for a processor."""
    before = alice.granted
    alice.run("authenticate", secret={"password": [word]})
    return alice.granted - before


def test_every_slot_gets_an_accelerator_by_a_login_with_its_word(alice: Worker) -> None:
    recovery = {"type": "modhex64", "hashedPassword": crypt.hash_password(RECOVERY, "$6$")}
    hashes = [crypt.hash_password(word, "$6$") for word in (PASSWORD, NEW)]
    alice.extra["privileged"] = {"hashedPassword": hashes, "recoveryKey": [recovery]}
    alice.record = alice.signed(PASSWORD, 1_000_000)
    words = (PASSWORD, NEW, RECOVERY)
    alice.run("create", storage="fscrypt", secret={"password": list(words)})
    take_accelerators(alice)
    with pytest.raises(errors.BadPassword):
        alice.run("authenticate", secret={"password": ["wrong"]})
    for word in words:
        alice.run("authenticate", secret={"password": [word]})
    assert accelerated(alice) == [0, 1, 2]
    for word in words:
        alice.run("authenticate", secret={"password": [word]})


def test_an_accelerator_that_lies_keeps_nobody_out(alice: Worker) -> None:
    create(alice)
    if not accelerators.is_useful():
        pytest.skip("with one processor they are not asked")
    slot = key_slots.parse(0, slots(alice)[0])
    with Making("wrong", slot.salt, slot.iterations) as making:
        pass
    lie = making.sealed(bytes(64), slot)
    for is_fixated, is_mended in ((False, False), (True, True)):
        os.setxattr(image(alice), f"{accelerators.PREFIX}0", lie)
        with pytest.raises(errors.BadPassword):
            alice.run("authenticate", is_fixated=is_fixated, secret={"password": ["wrong"]})
        alice.run("authenticate", is_fixated=is_fixated)
        assert (os.getxattr(image(alice), f"{accelerators.PREFIX}0") != lie) == is_mended


def test_slots_that_are_none_are_passed_over(alice: Worker) -> None:
    create(alice)
    (good,) = slots(alice).values()
    bad = [b"", b"x", b"$v2:0:QQ==:QQ==:QQ==:QQ==", b"$v2:9:::::", b"!:!", b"$v2:1:a:b:c", SLOT]
    for number, text in enumerate(bad):
        os.setxattr(image(alice), key_slots.attribute(number), text)
    os.setxattr(image(alice), key_slots.attribute(77), good)
    os.setxattr(image(alice), f"{key_slots.PREFIX}x", good)
    alice.run("authenticate")
    # One that opens with the password, to the key of another home.
    alien = key_slots.seal(os.urandom(64), PASSWORD, bytes(64), is_old=False)
    os.setxattr(image(alice), key_slots.attribute(5), alien)
    alice.run("authenticate")
    os.removexattr(image(alice), key_slots.attribute(77))
    with pytest.raises(errors.BadPassword):
        alice.run("authenticate")
    for number in slots(alice):
        os.setxattr(image(alice), key_slots.attribute(number), b"\xff:\0")
    with pytest.raises(errors.HostileHome, match="no key slot"):
        alice.run("activate")
    assert status(alice) is KeyStatus.ABSENT


def test_what_only_looks_like_an_encrypted_home_is_refused(alice: Worker, area: Path) -> None:
    create(alice)
    (good,) = slots(alice).values()
    os.rename(image(alice), alice.area / "kept")
    image(alice).mkdir()
    os.chown(image(alice), NOBODY, NOBODY)
    os.setxattr(image(alice), key_slots.attribute(0), good)
    with pytest.raises(errors.HostileHome, match="not encrypted"):
        alice.run("activate")
    # A file system without encryption says what is missing.
    elsewhere = Worker(area, extra={"storage": "fscrypt"})
    with pytest.raises(errors.NotSupported, match="tune2fs"):
        create(elsewhere)
    assert os.listdir(elsewhere.area / ".homemgr") == []


def make_foreign(alice: Worker) -> None:
    """The home as systemd-homed 252 makes them: policy version 1, slots of the old format."""
    create(alice)
    key = bytearray(os.urandom(64))
    identity = alice.record.embedded().pretty()
    subprocess.run(["rm", "-rf", str(image(alice))], check=True)
    image(alice).mkdir(0o700)
    with Fd.open(str(image(alice)), DIRECTORY_FLAGS) as top:
        fscrypt.add_key(top.fileno(), key, 1)
        fscrypt.set_policy(top.fileno(), fscrypt.key_name(key, 1))
        sealed = key_slots.seal(key, PASSWORD, bytes(64), is_old=True)
        os.setxattr(top.fileno(), key_slots.attribute(0), sealed)
    (image(alice) / ".identity").write_bytes(identity)
    for path in (image(alice), image(alice) / ".identity"):
        os.chown(path, ALICE, ALICE)
    with Fd.open(str(image(alice).parent), DIRECTORY_FLAGS) as parent:
        assert fscrypt.remove_key(parent.fileno(), fscrypt.key_name(key, 1))


def test_a_home_of_an_older_systemd_homed_stays_one(alice: Worker) -> None:
    make_foreign(alice)
    assert status(alice) is KeyStatus.ABSENT
    alice.run("activate")
    assert b"userName" in as_alice("cat", f"{home(alice)}/.identity")
    alice.run("deactivate")
    assert status(alice) is KeyStatus.ABSENT
    change_password(alice)
    (slot,) = slots(alice).values()
    assert not slot.startswith(b"$v2")
    alice.run("authenticate")


def works(alice: Worker, password: str, record: UserRecord) -> bool:
    alice.password, before, alice.record = password, alice.record, record
    try:
        alice.run("authenticate")
    except errors.BadPassword:
        return False
    finally:
        alice.password, alice.record = PASSWORD, before
    return True


#: Calls between which a kill leaves other slots.
SLOT_CALLS = ("fsetxattr", "fremovexattr", "rename", "renameat", "fsync")


def test_a_killed_change_of_passwords_leaves_one_that_works(alice: Worker, tmp_path: Path) -> None:
    create(alice)
    fresh = slots(alice)
    record = alice.record
    arguments = passwd_arguments(alice)
    text = record.embedded().pretty()
    restore(alice, fresh, text)
    steps = alice.steps(tmp_path / "trace", "passwd", SLOT_CALLS, **arguments)
    assert len(steps) > 6
    seen = []
    for step in steps:
        restore(alice, fresh, text)
        with pytest.raises(KilledError):
            alice.run_killed(step, "passwd", **arguments)
        assert set(beside(alice)) <= set(accelerated(alice)), step
        new, old = works(alice, NEW, record), works(alice, PASSWORD, record)
        assert new != old, step
        # Whoever opened it has removed what the other password had.
        assert len(slots(alice)) == 1, step
        assert set(beside(alice)) <= set(accelerated(alice)), step
        seen.append(new)
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


def restore(alice: Worker, known: dict[int, bytes], identity: bytes) -> None:
    """Slots and record as they were."""
    for name in os.listxattr(image(alice)):
        if name.startswith("trusted."):
            os.removexattr(image(alice), name)
    for number, text in known.items():
        os.setxattr(image(alice), key_slots.attribute(number), text)
    alice.run("activate", secret={"password": [PASSWORD, NEW]})
    (image(alice) / ".identity").write_bytes(identity)
    alice.run("deactivate")


@pytest.mark.parametrize("verb", ["activate", "deactivate", "authenticate"])
def test_a_kill_leaves_no_key_that_settling_does_not_take(
    alice: Worker, tmp_path: Path, verb: str
) -> None:
    create(alice)
    before = "deactivate" if verb == "activate" else "activate"

    def begin() -> None:
        is_active = mountpoint.is_active(str(home(alice)))
        if verb == "authenticate" and is_active:
            alice.run("deactivate")
        elif verb != "authenticate" and is_active != (before == "activate"):
            alice.run(before)

    begin()
    calls = (*CHANGING, "ioctl")
    steps = alice.steps(tmp_path / "trace", verb, calls)
    for step in steps:
        begin()
        try:
            alice.run_killed(step, verb)
        except KilledError:
            assert alice.run("settle", secret={})["is_closed"] is True
        is_active = mountpoint.is_active(str(home(alice)))
        assert (status(alice) is KeyStatus.PRESENT) == is_active, step


def test_a_killed_creation_is_swept_with_its_key(alice: Worker, tmp_path: Path) -> None:
    steps = alice.steps(tmp_path / "trace", "create", storage="fscrypt")
    remove(alice)
    chosen = [step for step in steps if step.name != "fsync"]
    for step in chosen:
        try:
            alice.run_killed(step, "create", storage="fscrypt")
        except KilledError:
            left = keys_of(alice)
            alice.run("sweep", directories=[str(alice.area / ".homemgr")])
            assert all(key_is_absent(alice, name) for name in left), step
        names = os.listdir(alice.area / ".homemgr") if (alice.area / ".homemgr").exists() else []
        assert [name for name in names if name.startswith(".#")] == [], step
        if names:
            alice.run("settle", secret={})
            assert status(alice) is KeyStatus.ABSENT
            alice.run("authenticate")
            remove(alice)


def test_a_full_disk_leaves_neither_home_nor_key(alice: Worker) -> None:
    (alice.area / ".homemgr").mkdir(0o700)
    filler = fill_up(alice)
    with pytest.raises(errors.NoDiskSpace):
        create(alice)
    assert os.listdir(alice.area / ".homemgr") == []
    filler.unlink()
    create(alice)
    # A change of passwords that finds no room for the record changes nothing.
    known = slots(alice)
    fill_up(alice)
    with pytest.raises(errors.NoDiskSpace):
        alice.run("passwd", **passwd_arguments(alice))
    assert slots(alice) == known
    alice.run("authenticate")


def fill_up(alice: Worker) -> Path:
    """Leave no room for a block of content."""
    filler = alice.area / "filler"
    with Fd.open(str(filler), os.O_WRONLY | os.O_CREAT) as file:
        for size in (1 << 20, 4096):
            with pytest.raises(OSError, match="No space"):
                _write_on(file.fileno(), bytes(size))
    return filler


def _write_on(fd: int, data: bytes) -> None:
    while True:
        os.write(fd, data)
        os.fsync(fd)


def keys_of(alice: Worker) -> list[fscrypt.KeyName]:
    """The keys of everything that lies where homes lie."""
    found = []
    for path in (alice.area / ".homemgr").glob("*"):
        with Fd.open(str(path), DIRECTORY_FLAGS) as top:
            policy = fscrypt.get_policy(top.fileno())
        if policy is not None and not path.name.endswith(".homedir"):
            found.append(policy)
    return found


def key_is_absent(alice: Worker, name: fscrypt.KeyName) -> bool:
    with Fd.open(str(alice.area), DIRECTORY_FLAGS) as directory:
        return fscrypt.key_status(directory.fileno(), name) is KeyStatus.ABSENT


def remove(alice: Worker) -> None:
    alice.run("remove", step="set-aside")
    alice.run("remove", step="delete")


def test_slots_of_systemd_homed_are_read_as_it_writes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_slots, "ITERATIONS", stretching.USUAL)
    slot = key_slots.parse(3, SLOT)
    assert not slot.is_old
    key = slot.unseal("fredsPasswort11")
    assert key is not None
    assert fscrypt.key_name(key, 2).name.hex() == "1fce4397ece7b85ba183cc9616194a2c"
    assert slot.unseal("wrong") is None
    assert key_slots.seal(key, "word", bytes(64), is_old=False).startswith(b"$v2:600000:")
    assert (
        key_slots.parse(0, key_slots.seal(key, "word", bytes(64), is_old=True)).unseal("word")
        == key
    )
