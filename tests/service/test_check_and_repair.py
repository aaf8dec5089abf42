"""Everything that can be wrong with a home: made for real, found, mended, and nothing lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.record.findings import CODES
from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign
from homemgr.wire.messages import BusError
from tests import volumes
from tests.service import people
from tests.service.authority import Authority
from tests.service.bus import STRANGERS
from tests.service.holders import stranger
from tests.service.people import PASSWORD, secret
from tests.service.site import ROOT, Service

NOBODY = 65534
MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")


def call(service: Service, member: str, user: str = "") -> list[dict[str, object]]:
    """The findings that a member of org.homemgr1.Manager gives."""
    (text,) = service.client.call(*MANAGER, member, "s", (user,), timeout_s=60).body
    found: list[dict[str, object]] = json.loads(str(text))
    return found


def codes(service: Service, user: str = "", member: str = "CheckHomes") -> list[str]:
    """Only their codes."""
    return [str(one["code"]) for one in call(service, member, user)]


def image(service: Service, name: str) -> Path:
    """Where a home lies."""
    return service.site.base / f"{name}.homedir"


def identity(service: Service, name: str) -> Path:
    """The record in a home."""
    return image(service, name) / ".identity"


def host(service: Service, name: str) -> Path:
    """The host copy of a record."""
    return service.site.records / f"{name}.identity"


def put(path: Path, content: bytes) -> None:
    """Write a file of nobody."""
    path.write_bytes(content)
    os.chown(path, NOBODY, NOBODY)


def change(path: Path, how: Callable[[bytes], bytes]) -> None:
    """Change what is in a file."""
    path.write_bytes(how(path.read_bytes()))


def stamped(service: Service, name: str, by: int, **fields: object) -> bytes:
    """The record in a home, signed again with another time."""
    record = json.loads(identity(service, name).read_bytes())
    record |= {"lastChangeUSec": record["lastChangeUSec"] + by, **fields}
    return service.site.signed(record).embedded().pretty()


def foreign(service: Service, name: str) -> bytes:
    """A newer record that another machine signed."""
    record = UserRecord.parse(stamped(service, name, 1))
    return sign(record, PrivateKey.generate()).pretty()


def with_picture(service: Service, name: str) -> None:
    """Make a home with a public file."""
    with Fd(os.memfd_create("picture")) as picture:
        os.write(picture.fileno(), b"picture")
        record = people.record(name)
        target = ("org.freedesktop.home1", "/org/freedesktop/home1")
        interface = "org.freedesktop.home1.Manager"
        arguments = (people.text(record), {"avatar": picture}, 0)
        service.client.call(*target, interface, "CreateHomeEx", "sa{sh}t", arguments, timeout_s=60)


def mount_over(service: Service, name: str) -> None:
    """Mount something else where a home is shown."""
    service.path_of(name).mkdir(exist_ok=True)
    volumes.mount_new("tmpfs", "tmpfs", service.path_of(name))


def block(service: Service, name: str) -> None:
    """Store something where a home is shown, while it is away."""
    service.path_of(name).mkdir(exist_ok=True)
    (service.path_of(name) / "precious").write_text("work")


def link(service: Service, name: str) -> None:
    """Have a link in the place of the record."""
    identity(service, name).unlink()
    identity(service, name).symlink_to("/etc/passwd")
    os.lchown(identity(service, name), NOBODY, NOBODY)


def overlay_marks(service: Service, name: str) -> None:
    """What a session with extensions leaves when the power goes."""
    for directory in (".homemgr", ".homemgr/work"):
        (image(service, name) / directory).mkdir()
        os.chown(image(service, name) / directory, NOBODY, NOBODY)


def picture_gone(service: Service, name: str) -> None:
    """Lose what is in the home of the public files."""
    for path in (image(service, name) / ".identity-blob").iterdir():
        path.unlink()
    (image(service, name) / ".identity-blob").rmdir()


class Case(NamedTuple):
    """One thing that is wrong."""

    code: str
    make: Callable[[Service, str], object]
    is_mended: bool
    has_picture: bool = False
    undo: Callable[[Service, str], object] = lambda service, name: None


CASES = (
    Case("record-missing", lambda s, n: host(s, n).unlink(), is_mended=True),
    Case("record-unreadable", lambda s, n: change(host(s, n), lambda t: t[:99]), is_mended=True),
    Case("record-unreadable", lambda s, n: host(s, n).write_bytes(b""), is_mended=True),
    Case(
        "record-signature",
        lambda s, n: change(host(s, n), lambda t: t.replace(b'"regular"', b'"regular2"')),
        is_mended=True,
    ),
    Case("record-mode", lambda s, n: host(s, n).chmod(0o644), is_mended=True),
    Case("inside-missing", lambda s, n: identity(s, n).unlink(), is_mended=True),
    Case("inside-hostile", link, is_mended=True),
    Case("inside-unreadable", lambda s, n: put(identity(s, n), b"{"), is_mended=True),
    Case(
        "inside-signature",
        lambda s, n: change(
            identity(s, n), lambda t: t.replace(b'"userName"', b'"x":1,"userName"')
        ),
        is_mended=True,
    ),
    Case("inside-signature", lambda s, n: put(identity(s, n), foreign(s, n)), is_mended=False),
    Case(
        "inside-other-user",
        lambda s, n: put(identity(s, n), stamped(s, n, 1, userName="other")),
        is_mended=False,
    ),
    Case("inside-older", lambda s, n: put(identity(s, n), stamped(s, n, -1)), is_mended=True),
    Case("inside-newer", lambda s, n: put(identity(s, n), stamped(s, n, 1)), is_mended=False),
    Case("inside-mode", lambda s, n: identity(s, n).chmod(0o644), is_mended=True),
    Case("image-owner", lambda s, n: os.chown(image(s, n), 0, 0), is_mended=True),
    Case("image-owner", lambda s, n: os.chown(image(s, n), 1234, 1234), is_mended=False),
    Case("mountpoint-blocked", block, is_mended=True),
    Case(
        "marker-stale",
        lambda s, n: os.mkfifo(s.site.runtime / "home" / f"{n}.dont-suspend"),
        is_mended=True,
    ),
    Case("files-owner", lambda s, n: (image(s, n) / "alien").touch(), is_mended=False),
    Case("extension-traces", overlay_marks, is_mended=True),
    Case("blobs-missing", lambda s, n: (s.site.blobs / n).rmdir(), is_mended=True),
    Case(
        "blobs-public",
        lambda s, n: (s.site.blobs / n / "avatar").unlink(),
        is_mended=True,
        has_picture=True,
    ),
    Case("blobs-inside", picture_gone, is_mended=True, has_picture=True),
)


def digest(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(service: Service) -> set[str]:
    """The digests of all files there are, but for host copies: their counters change."""
    return {
        digest(path)
        for top in (service.site.home_root, service.site.records, service.site.blobs)
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink()
        if path.name == ".identity" or path.suffix != ".identity"
    }


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.code for case in CASES])
def test_it_is_found_and_mended_and_nothing_is_lost(service: Service, number: int) -> None:
    case, name = CASES[number], f"user{number}"
    if case.has_picture:
        with_picture(service, name)
    else:
        service.create(name)
    assert codes(service, name) == []
    case.make(service, name)
    before = contents(service)
    if case.code in ("record-unreadable", "record-signature"):
        before.add(digest(host(service, name)))
    (found,) = [one for one in call(service, "CheckHomes", name) if one["code"] == case.code]
    assert found["user"] == name
    assert str(found["object"]).startswith("/")
    assert found["can_repair"] is case.is_mended
    assert case.code in codes(service)
    assert contents(service) <= before
    (mended,) = [one for one in call(service, "RepairHomes", name) if one["code"] == case.code]
    assert mended["failed"] == ""
    assert bool(mended["done"]) is case.is_mended
    assert (case.code in codes(service, name)) is not case.is_mended
    if case.is_mended:
        assert codes(service, name) == []
        service.activate(name)
        service.deactivate(name)
    assert before <= contents(service)
    service.call("RemoveHome", "s", name)


def test_image_that_is_gone_or_no_directory_is_told(service: Service) -> None:
    service.create("gone")
    image(service, "gone").rename(service.site.base / "away")
    assert codes(service, "gone", "RepairHomes") == ["image-missing"]
    image(service, "gone").write_text("no home")
    assert codes(service, "gone", "RepairHomes") == ["image-type"]
    image(service, "gone").unlink()
    (service.site.base / "away").rename(image(service, "gone"))
    assert codes(service, "gone") == []


def test_encrypted_home_is_looked_into_while_it_is_used_and_its_slots_always(
    service: Service,
) -> None:
    service.create("hidden", storage="fscrypt")
    assert codes(service, "hidden") == []
    service.activate("hidden")
    (image(service, "hidden") / "alien").touch()
    assert codes(service, "hidden") == ["files-owner"]
    service.deactivate("hidden")
    assert codes(service, "hidden") == []
    os.setxattr(image(service, "hidden"), "trusted.fscrypt_slot0", b"no slot")
    assert codes(service, "hidden", "RepairHomes") == ["image-key"]
    service.call("RemoveHome", "s", "hidden")


def test_place_that_others_can_change_is_told_and_not_touched(service: Service) -> None:
    service.create("place")
    service.site.home_root.chmod(0o777)
    assert codes(service, "place", "RepairHomes") == ["base-unsafe"]
    assert service.site.home_root.stat().st_mode & 0o777 == 0o777
    service.site.home_root.chmod(0o755)
    service.site.base.chmod(0o755)
    assert codes(service, "place") == ["base-mode"]
    (done,) = call(service, "RepairHomes", "place")
    assert done["done"]
    assert service.site.base.stat().st_mode & 0o777 == 0o700
    assert codes(service, "place") == []


def test_foreign_mount_is_told_and_the_home_in_use_is_not(service: Service) -> None:
    service.create("mount")
    mount_over(service, "mount")
    assert codes(service, "mount", "RepairHomes") == ["mount-foreign"]
    mounts.umount2(str(service.path_of("mount")), 0)
    assert codes(service, "mount") == []
    service.activate("mount")
    assert codes(service, "mount") == []
    service.deactivate("mount")


def test_files_that_cannot_be_walked_are_told(service: Service) -> None:
    service.create("walk")
    inner = image(service, "walk") / "inner"
    inner.mkdir()
    os.chown(inner, NOBODY, NOBODY)
    volumes.mount_new("tmpfs", "tmpfs", inner)
    assert codes(service, "walk") == ["files-unread"]
    mounts.umount2(str(inner), 0)
    assert codes(service, "walk") == []


def test_home_that_is_not_what_its_record_says_is_told_among_others(own_service: Service) -> None:
    own_service.create("alice")
    own_service.create("bob")
    own_service.stop()
    path = host(own_service, "alice")
    text = path.read_text()
    assert '"storage" : "directory"' in text
    path.write_text(text.replace('"storage" : "directory"', '"storage" : "luks"'))
    own_service.start()
    identity(own_service, "bob").unlink()
    assert codes(own_service) == ["image-type", "inside-missing"]
    assert codes(own_service, member="RepairHomes") == ["image-type", "inside-missing"]
    assert codes(own_service) == ["image-type"]


def is_within(pid: int, path: Path) -> bool:
    """Whether a process has something of that directory open."""
    try:
        opened = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(one.startswith(str(path)) for one in opened)


def kill(pid: int) -> None:
    """Kill a process, unless it has ended since it was looked at."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_home_whose_check_was_killed_is_told_among_others(own_service: Service) -> None:
    own_service.create("bob")
    own_service.create("huge")
    inside = image(own_service, "huge") / "many"
    inside.mkdir()
    os.chown(inside, NOBODY, NOBODY)
    for number in range(20_000):
        put(inside / str(number), b"")
    identity(own_service, "bob").unlink()
    with ThreadPoolExecutor(1) as threads:
        check = threads.submit(codes, own_service)
        while not check.done():
            for pid in own_service.workers():
                if is_within(pid, inside.parent):
                    kill(pid)
    assert check.result() == ["inside-missing", "unchecked"]
    assert codes(own_service) == ["inside-missing"]
    # The same of what lies beside homes.
    for number in range(5000):
        (own_service.site.base / f".#homemgr-gone-old.homedir.{number:08x}").mkdir()
    with ThreadPoolExecutor(1) as threads:
        check = threads.submit(call, own_service, "CheckHomes")
        while not check.done():
            for pid in own_service.workers():
                if is_within(pid, own_service.site.base / ".#homemgr-gone-"):
                    kill(pid)
    assert {one["code"]: one["user"] for one in check.result()} == {
        "unchecked": "",
        "inside-missing": "bob",
    }


def test_owner_of_a_home_leads_nobody_out_of_it(service: Service) -> None:
    with_picture(service, "owner")
    picture_gone(service, "owner")
    for name in (".identity-blob", ".homemgr", "elsewhere"):
        (image(service, "owner") / name).symlink_to("/etc")
        os.lchown(image(service, "owner") / name, NOBODY, NOBODY)
    os.mkfifo(image(service, "owner") / "fifo")
    os.chown(image(service, "owner") / "fifo", NOBODY, NOBODY)
    found = call(service, "RepairHomes", "owner")
    assert {one["code"]: one["can_repair"] for one in found} == {
        "blobs-inside": False,
        "extension-traces": False,
    }
    service.call("RemoveHome", "s", "owner")


def test_keys_of_the_machine_come_back_as_they_were(own_service: Service) -> None:
    own_service.create("alice")
    private, public = (own_service.site.records / f"local.{half}" for half in ("private", "public"))
    good = private.read_bytes(), public.read_bytes()
    assert codes(own_service) == []
    private.unlink()
    public.write_text(PrivateKey.generate().public.pem)
    assert sorted(codes(own_service)) == ["key-missing", "key-unreadable"]
    assert sorted(codes(own_service, member="RepairHomes")) == ["key-missing", "key-unreadable"]
    assert (private.read_bytes(), public.read_bytes()) == good
    private.chmod(0o644)
    assert codes(own_service, member="RepairHomes") == ["key-mode"]
    assert private.stat().st_mode & 0o777 == 0o600
    assert codes(own_service) == []
    own_service.restart()
    own_service.activate("alice")


def test_what_killed_operations_left_is_found(own_service: Service) -> None:
    service = own_service
    service.site.base.mkdir(0o700, exist_ok=True)
    swept = service.site.base / ".#homemgr-gone-old.homedir.01234567"
    moved = service.site.base / ".#homemgr-left-old.homedir.01234567"
    room = service.site.base / ".#homemgr-room-old.homedir.01234567"
    for path in (swept, moved, room):
        path.mkdir()
    kept = ["leftover-room", "leftover-transfer"]
    assert sorted(codes(service)) == [*kept, "leftover-tree"]
    call(service, "RepairHomes")
    assert not swept.exists()
    assert moved.exists()
    assert room.exists()
    assert sorted(codes(service)) == kept
    moved.rmdir()
    room.rmdir()


def test_record_that_does_not_count_is_told_without_a_home(own_service: Service) -> None:
    own_service.site.records.joinpath("ghost.identity").write_text("{")
    own_service.site.records.joinpath("ghost.identity").chmod(0o600)
    assert codes(own_service, "ghost", "RepairHomes") == ["record-unreadable"]
    assert codes(own_service) == ["record-unreadable"]
    assert host(own_service, "ghost").read_text() == "{"
    own_service.site.records.joinpath("ghost.identity").unlink()


def test_others_than_root_need_the_consent_of_polkit(service: Service) -> None:
    owner, other = STRANGERS[:2]
    service.create("owned", uid=owner)
    put(identity(service, "owned"), b"{")
    address = service.site.bus_address
    for uid in (owner, other):
        with stranger(uid, address) as client:
            for member in ("CheckHomes", "RepairHomes"):
                for user in ("owned", ""):
                    with pytest.raises(BusError) as refused:
                        client.call_at((*MANAGER, member), "s", user)
                    assert refused.value.name.endswith(".AccessDenied")
            authority = Authority()
            authority.granting.set()
            with authority.on(address):
                client.call_at((*MANAGER, "CheckHomes"), "s", "owned")
            assert authority.actions == ["org.homemgr1.repair-home"]
    assert identity(service, "owned").read_bytes() == b"{"
    service.call("RemoveHome", "s", "owned")


def test_login_waits_for_the_end_of_a_check(service: Service) -> None:
    service.create("busy")
    with service.new_client() as client, ThreadPoolExecutor(1) as pool:
        with service.paused():
            target = (*MANAGER, "CheckHomes")
            checking = pool.submit(client.call, *target, "s", ("busy",), timeout_s=60)
            # A check is no state that clients see.
            time.sleep(0.3)
            activating = service.begin("ActivateHome", "ss", "busy", secret(PASSWORD))
            time.sleep(0.3)
        assert activating.failure() == ""
        assert checking.result().body == ["[]"]
    service.deactivate("busy")


def run(service: Service, *argv: str) -> subprocess.CompletedProcess[str]:
    """The command line, as root."""
    program = "import sys; from homemgr.entry import homemgr; sys.exit(homemgr())"
    return subprocess.run(
        [sys.executable, "-c", program, *argv],
        cwd=ROOT,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": service.site.bus_address},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_line_tells_what_is_wrong_and_mends_it(service: Service) -> None:
    service.create("line")
    assert run(service, "check", "line").returncode == 0
    put(identity(service, "line"), b"{")
    checked = run(service, "check", "line")
    assert checked.returncode == 1
    assert checked.stdout.startswith(f"line: inside-unreadable: {identity(service, 'line')}\n")
    dry = run(service, "repair", "--dry-run", "line")
    assert (dry.returncode, dry.stdout) == (1, checked.stdout)
    assert identity(service, "line").read_bytes() == b"{"
    (told,) = json.loads(run(service, "check", "line", "--json=short").stdout)
    assert (told["code"], told["user"], told["can_repair"]) == ("inside-unreadable", "line", True)
    mended = run(service, "repair", "line")
    assert mended.returncode == 0
    assert "Repaired: keeps it aside and writes the host copy there." in mended.stdout
    done = run(service, "check")
    assert (done.returncode, done.stdout) == (0, "")
    service.call("AuthenticateHome", "ss", "line", secret(PASSWORD))


def test_an_image_that_is_cut_off(service: Service) -> None:
    own = {"storage": "directory", "org.homemgr.storage": "image", "diskSize": 40 << 20}
    service.create("cutoff", **own, luksDiscard=True)
    path = service.site.base / "cutoff.homeimage"
    assert codes(service, "cutoff") == []
    os.truncate(path, 20 << 20)
    assert codes(service, "cutoff") == ["image-format"]
    service.call("RemoveHome", "s", "cutoff")


def test_every_code_is_made_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [code for code in CODES if f'"{code}"' not in text] == []
