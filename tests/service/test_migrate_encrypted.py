"""Homes that only their password opens move, are exported and imported, and stay encrypted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import fscrypt
from homemgr.kernel.fscrypt import KeyStatus
from homemgr.kernel.identity import filesystem_identity
from homemgr.wire.messages import BusError
from tests.service.converting import (
    call,
    convert,
    diary,
    differences,
    kept,
    logged_in,
    settle,
    storage_of,
    write,
)
from tests.service.moving import (
    PROGRAM,
    Line,
    assert_idle,
    fingerprint,
    phases,
    stages,
)
from tests.service.moving import settle as settle_plain
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import ROOT, Service, short, wait_until

FIELDS = {"rateLimitBurst": 1000}


@pytest.fixture(autouse=True)
def nothing_kept(here: Service, there: Service) -> Iterator[None]:
    """The disk is small: what is kept of a home goes with the test."""
    yield
    for service in (here, there):
        for user, phase in phases(service).items():
            if phase in ("left", "committed"):
                call(service, "ForgetTransfer", "ss", user, '{"remove": true}')
        for user, state in service.states().items():
            if state == "inactive":
                service.call("RemoveHome", "s", user)
        for reference in service.site.home_root.glob("*.reference"):
            subprocess.run(["rm", "-rf", reference], check=True)


def run(
    line: Line,
    *words: str,
    password: str = PASSWORD,
    here: Service,
    more: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, str]:
    """The command line of one side, with a password, and ``more``, in its environment."""
    _, environment = line.command("nobody")
    environment |= {"PASSWORD": password, "DBUS_SYSTEM_BUS_ADDRESS": here.site.bus_address, **more}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], env=environment, cwd=ROOT, capture_output=True,
        text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def move(
    line: Line,
    here: Service,
    user: str,
    *words: str,
    password: str = PASSWORD,
    more: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, str]:
    """Move a home over ``line``, or another one that leads the other way."""
    argv, _ = line.command(user)
    return run(line, *argv[3:], *words, here=here, password=password, more=more)


@contextmanager
def moving(line: Line, user: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The same, while the test goes on."""
    argv, environment = line.command(user)
    with subprocess.Popen(
        [*argv, *words], env=environment | {"PASSWORD": PASSWORD}, cwd=ROOT, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as command:  # fmt: skip
        try:
            yield command
        finally:
            command.kill()


def said_by(command: subprocess.Popen[str]) -> tuple[int, str]:
    """How it ended."""
    said, _ = command.communicate(timeout=100)
    return command.returncode, said


def wait_for_some(there: Service, user: str, what: str = "file-*") -> None:
    """Files called ``what`` have begun to arrive."""
    room = f".#homemgr-inroom-{user}*/*/{what}"
    wait_until(lambda: any(there.site.base.glob(room)), "some of it", 30)


def is_encrypted(service: Service, user: str) -> bool:
    with Fd.open(str(service.site.base / f"{user}.homedir"), DIRECTORY_FLAGS) as top:
        return fscrypt.get_policy(top.fileno()) is not None


def has_key(service: Service, user: str) -> bool:
    """Whether the file system has the key of the home, or a part of it."""
    with Fd.open(str(service.site.base / f"{user}.homedir"), DIRECTORY_FLAGS) as top:
        policy = fscrypt.get_policy(top.fileno())
        assert policy is not None
        return fscrypt.key_status(top.fileno(), policy) is not KeyStatus.ABSENT


def use(service: Service, user: str, reference: Path) -> None:
    """Log in with the password, and with no other; all is there."""
    with pytest.raises(BusError) as refused:
        service.activate(user, WRONG_PASSWORD)
    assert short(refused.value.name) == "BadPassword"
    service.activate(user, PASSWORD)
    assert differences(reference, service.site.base / f"{user}.homedir") == []
    write(service, user, "used")
    service.deactivate(user)


def test_it_stays_encrypted_wherever_it_goes_unless_somebody_asks(
    here: Service, there: Service, line: Line, tmp_path: Path
) -> None:
    back = Line(there, here, tmp_path)
    settle(here, "anna", **FIELDS)
    convert(here, "anna", PASSWORD, storage="fscrypt")
    reference = kept(here, "anna")
    # A wrong word leaves nothing behind, not even what kind of home it was to be.
    for words in (["--storage=image"], ["--storage=directory"], []):
        code, said = move(line, here, "anna", "--no-ask-password", *words, password=WRONG_PASSWORD)
        assert code == 1
        assert "assword" in said
        assert "anna" not in there.states()
        assert "anna" not in phases(here) | phases(there)
        assert list(there.site.base.glob(".#homemgr-*anna*")) == []
    code, said = move(line, here, "anna")
    assert code == 0, said
    assert "fscrypt_slot" not in said
    assert (storage_of(there, "anna"), is_encrypted(there, "anna")) == ("fscrypt", True)
    assert here.state("anna") == "absent"
    # Nor are the names of its files on any disk.
    for service in (here, there):
        assert list(service.site.records.rglob("anna@*.sqlite")) == []
    use(there, "anna", reference)
    # Back, as what everybody with the disk can read: that has to be said.
    code, said = move(back, there, "anna", "--storage=directory")
    assert code == 0, said
    assert "fscrypt at the origin, directory here" in said
    assert (storage_of(here, "anna"), is_encrypted(here, "anna")) == ("directory", False)
    use(here, "anna", reference)
    # And again, encrypted only there, with what it needs for that.
    code, said = move(line, here, "anna", "--storage=fscrypt")
    assert code == 0, said
    assert is_encrypted(there, "anna")
    use(there, "anna", reference)
    for service in (here, there):
        assert PASSWORD not in service.site.log.read_text()


def settle_encrypted(here: Service, name: str) -> Path:
    """Make an encrypted home of which a slow line has enough to do; gives its plain copy."""
    settle_plain(here, name, 30, 200_000)
    convert(here, name, PASSWORD, storage="fscrypt")
    return kept(here, name)


def test_broken_off_it_is_here_and_the_same_command_goes_on(
    here: Service, there: Service, line: Line
) -> None:
    reference = settle_encrypted(here, "bert")
    line.slow_from(1_500_000)
    argv, environment = line.command("bert")
    with subprocess.Popen(
        argv, env=environment | {"PASSWORD": PASSWORD}, cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as command:  # fmt: skip
        wait_for_some(there, "bert")
        there.kill()
        command.wait(60)
    there.start()
    assert_idle(here)
    assert (phases(here)["bert"], phases(there)["bert"]) == ("sending", "receiving")
    assert stages(there, "bert") == []
    here.activate("bert", PASSWORD)
    here.deactivate("bert")
    line.speed_up()
    code, said = move(line, here, "bert")
    assert code == 0, said
    use(there, "bert", reference)
    assert list(there.site.base.glob(".#homemgr-*")) == []


def test_it_travels_while_its_user_works_and_ends_when_he_does(
    here: Service, there: Service, line: Line
) -> None:
    reference = settle_encrypted(here, "hugo")
    session = here.acquire("hugo")
    line.slow_from(1_500_000)
    with moving(line, "hugo", "--wait=60") as command:
        wait_for_some(there, "hugo")
        write(here, "hugo", "meanwhile")
        session.close()
        # Until the pass has ended the home stays open: what is read must not lose its key.
        assert short(here.failure_of_home("hugo", "Release").name) == "HomeBusy"
        time.sleep(0.5)
        assert (here.state("hugo"), command.poll()) == ("active", None)
        line.speed_up()
        code, said = said_by(command)
    assert code == 0, said
    assert here.state("hugo") == "absent"
    use(there, "hugo", reference)
    there.activate("hugo")
    assert diary(there, "hugo") == ["meanwhile", "used"]
    there.deactivate("hugo")
    assert PASSWORD not in here.site.log.read_text() + there.site.log.read_text()


def test_to_close_or_lock_it_ends_the_pass_that_reads_it(
    here: Service, there: Service, line: Line
) -> None:
    reference = settle_encrypted(here, "ines")
    line.slow_from(1_500_000)
    here.activate("ines")
    with moving(line, "ines", "--wait=60") as command:
        wait_for_some(there, "ines")
        here.call("LockHome", "s", "ines")
        line.speed_up()
        code, said = said_by(command)
    assert (code, here.state("ines")) == (1, "locked"), said
    assert "deactivated or locked" in said
    here.call("UnlockHome", "ss", "ines", secret(PASSWORD))
    # Enough of it that not all can be under way.
    home = here.path_of("ines")
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid):
        for number in range(30):
            (home / f"more-{number}").write_bytes(os.urandom(200_000))
    line.slow_from(2_000_000)
    with moving(line, "ines", "--keep") as command:
        wait_for_some(there, "ines", "more-*")
        here.deactivate("ines")
        line.speed_up()
        code, said = said_by(command)
    assert (code, here.state("ines")) == (1, "inactive"), said
    assert not has_key(here, "ines")
    code, said = move(line, here, "ines")
    assert code == 0, said
    with logged_in(there, "ines"):
        names = {path.name for path in there.path_of("ines").glob("*-*")}
    assert names >= {path.name for path in reference.glob("*-*")}
    assert len(names) == 60


def test_it_is_fetched_with_words_that_the_stream_carries(
    here: Service, there: Service, tmp_path: Path
) -> None:
    back = Line(there, here, tmp_path)
    settle_plain(here, "jule", 3, 1000)
    convert(here, "jule", PASSWORD, storage="fscrypt")
    reference = kept(here, "jule")

    def fetch(*words: str, password: str = PASSWORD) -> tuple[int, str]:
        argv, _ = back.command("jule")
        fetching = ["--from=elsewhere" if word == "elsewhere" else word for word in argv[3:]]
        return run(back, *fetching, *words, here=there, password=password)

    plain = "--storage=directory"
    code, said = fetch(plain, "--no-ask-password", password=WRONG_PASSWORD)
    assert (code, "jule" in there.states(), here.state("jule")) == (1, False, "inactive"), said
    assert "jule" not in phases(here) | phases(there)
    # Its user works meanwhile.
    here.activate("jule")
    code, said = fetch("--keep", plain)
    assert code == 0, said
    assert (here.state("jule"), "jule" in there.states()) == ("active", False)
    write(here, "jule", "worked")
    here.deactivate("jule")
    call(there, "ForgetTransfer", "ss", "jule", '{"remove": true}')
    code, said = fetch()
    assert code == 0, said
    assert is_encrypted(there, "jule")
    use(there, "jule", reference)
    seen = (tmp_path / "seen").read_text()
    assert "transfer send jule" in seen
    for text in (seen, here.site.log.read_text(), there.site.log.read_text()):
        assert PASSWORD not in text


def test_a_password_changed_between_copy_and_move_costs_no_file(
    here: Service, there: Service, line: Line
) -> None:
    """What was copied opens for the old password alone: it is made, and sent, anew."""
    settle_plain(here, "finn", 3, 1000)
    convert(here, "finn", PASSWORD, storage="fscrypt")
    reference = kept(here, "finn")
    code, said = move(line, here, "finn", "--keep")
    assert code == 0, said
    here.call("ChangePasswordHome", "sss", "finn", secret(OTHER_PASSWORD), secret(PASSWORD))
    code, said = move(line, here, "finn", "--remove", password=OTHER_PASSWORD)
    assert code == 0, said
    with pytest.raises(BusError) as refused:
        there.activate("finn", PASSWORD)
    assert short(refused.value.name) == "BadPassword"
    there.activate("finn", OTHER_PASSWORD)
    assert differences(reference, there.site.base / "finn.homedir") == []
    there.deactivate("finn")


def test_a_copy_that_a_recovery_key_still_opens_does_not_keep_the_old_password(
    here: Service, there: Service, line: Line, tmp_path: Path
) -> None:
    """What stays the same unlocks what was copied, but not for whom the record now names."""
    key = "-".join(["cbdefghi", "jklnrtuv"] * 4)
    (tmp_path / "home.recovery-key").write_text(key)
    with_key = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settle_plain(here, "gwen", 3, 1000)
    call(here, "AddSlot", "sssss", "gwen", "safe", "recovery-key", secret(key), secret(PASSWORD))
    convert(here, "gwen", PASSWORD, key, storage="fscrypt")
    reference = kept(here, "gwen")
    code, said = move(line, here, "gwen", "--keep", more=with_key)
    assert code == 0, said
    change = ("sss", "gwen", secret(OTHER_PASSWORD), secret(PASSWORD, key))
    here.call("ChangePasswordHome", *change)
    code, said = move(line, here, "gwen", "--remove", password=OTHER_PASSWORD, more=with_key)
    assert code == 0, said
    with pytest.raises(BusError) as refused:
        there.activate("gwen", PASSWORD)
    assert short(refused.value.name) == "BadPassword"
    for word in (OTHER_PASSWORD, key):
        there.activate("gwen", word)
        assert differences(reference, there.site.base / "gwen.homedir") == []
        there.deactivate("gwen")


def test_a_home_in_an_image_file_moves_for_its_user_only(
    here: Service, there: Service, line: Line
) -> None:
    settle(here, "emma", **FIELDS, luksDiscard=True, diskSize=96 << 20)
    convert(here, "emma", storage="image")
    reference = kept(here, "emma")
    code, said = move(line, here, "emma", "--no-ask-password", password=WRONG_PASSWORD)
    assert (code, "emma" in there.states()) == (1, False), said
    # Read through its use it is looked at beside its user, whose it stays.
    here.activate("emma", PASSWORD)
    code, said = move(line, here, "emma", "--keep")
    assert (code, here.state("emma")) == (0, "active"), said
    here.deactivate("emma")
    code, said = move(line, here, "emma")
    assert code == 0, said
    assert (there.site.base / "emma.homeimage").is_file()
    assert not (here.site.base / "emma.homeimage").exists()
    there.activate("emma", PASSWORD)
    write(there, "emma", "moved")
    there.deactivate("emma")
    convert(there, "emma", PASSWORD, storage="directory")
    assert differences(reference, there.site.base / "emma.homedir") == []


def test_undone_it_is_back_and_nothing_of_it_stays(
    here: Service, there: Service, line: Line
) -> None:
    settle_plain(here, "carl", 3, 1000)
    convert(here, "carl", PASSWORD, storage="fscrypt")
    reference = kept(here, "carl")
    assert move(line, here, "carl")[0] == 0
    code, said = move(line, here, "carl", "--undo")
    assert code == 0, said
    assert list(there.site.base.glob(".#homemgr-*carl*")) == []
    assert "carl" not in there.states()
    use(here, "carl", reference)


def test_a_file_is_plain_and_says_so_and_a_home_of_it_need_not_be(
    here: Service, there: Service, line: Line, tmp_path: Path
) -> None:
    settle(here, "dora", **FIELDS)
    convert(here, "dora", PASSWORD, storage="fscrypt")
    reference = kept(here, "dora")
    path = tmp_path / "dora.tar"
    code, said = run(line, "export", "dora", str(path), here=here)
    assert (code, path.exists()) == (1, False)
    assert "--plaintext" in said
    code, said = run(line, "export", "dora", str(path), "--plaintext", here=here)
    assert code == 0, said
    assert "not encrypted" in said
    assert b"small-001" in path.read_bytes()
    code, said = run(
        line, "import", str(path), "--storage=fscrypt", f"--trust={fingerprint(here)}", here=there,
        password=WRONG_PASSWORD,
    )  # fmt: skip
    assert code == 1
    assert "dora" not in there.states()
    assert list(there.site.base.glob(".#homemgr-*dora*")) == []
    code, said = run(
        line, "import", str(path), "--storage=fscrypt", f"--trust={fingerprint(here)}", here=there
    )
    assert code == 0, said
    assert is_encrypted(there, "dora")
    use(there, "dora", reference)


def test_however_many_files_come_an_image_has_room_for_them(
    here: Service, there: Service, line: Line, tmp_path: Path
) -> None:
    # More than there are inodes in an ext4 of this size.
    files, size, path = 12_000, 40 << 20, tmp_path / "finn.tar"
    here.create("finn", storage="directory", luksDiscard=True, diskSize=size)
    top = here.site.base / "finn.homedir"
    with filesystem_identity(65534, 65534):
        for number in range(files):
            (top / f"{number}").touch()
    code, said = run(line, "export", "finn", str(path), here=here)
    assert code == 0, said
    code, said = move(line, here, "finn", "--storage=image")
    assert code == 0, said
    for is_imported in (False, True):
        if is_imported:
            call(there, "ForgetTransfer", "ss", "finn", '{"remove": true}')
            there.call("RemoveHome", "s", "finn")
            trust = f"--trust={fingerprint(here)}"
            code, said = run(line, "import", str(path), "--storage=image", trust, here=there)
            assert code == 0, said
        with logged_in(there, "finn"):
            assert len(os.listdir(there.path_of("finn"))) >= files
