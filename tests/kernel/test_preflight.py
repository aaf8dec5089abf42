"""What is found out before a home is sent: what it needs, and what the other file system can do."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.errors import StreamError
from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.storage import staging
from homemgr.storage.abilities import probe
from homemgr.transfer import acl, frames
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.needs import Ability, Need
from homemgr.work.allowance import Size
from homemgr.work.conversation import Conversation
from homemgr.work.glance import glance
from homemgr.work.survey import survey

from .. import homes, volumes
from . import test_transfer
from .test_transfer import RECEIVER, Pair, Side, export, import_
from .travels import opened

pair = test_transfer.pair

NOBODY = 65534
STAGE = ".#homemgr-in-alice.0123abcd"


@contextmanager
def mounted(target: Path, kind: str = "tmpfs", **options: str) -> Iterator[None]:
    """A file system of its own at ``target``, as long as the block runs."""
    volumes.mount_new(kind, kind, target, **options)
    target.chmod(0o700)
    try:
        yield
    finally:
        mounts.umount2(str(target), 0)


@contextmanager
def staged(parent: Path) -> Iterator[Fd]:
    with opened(parent) as base, staging.open_stage(base, STAGE) as stage:
        yield stage


# -- what a file system can do ---------------------------------------------------------------


def longest(most: int, attempt: Callable[[int], None]) -> int:
    """The largest number that works, tried from above."""
    for number in range(most, 0, -1):
        with suppress(OSError):
            attempt(number)
            return number
    return 0


def test_what_was_tried_is_what_can_be_stored(every_area: Path) -> None:
    with staged(every_area) as stage:
        before = os.fstat(stage.fileno())
        limits = probe(stage)
        assert os.listdir(stage.fileno()) == []
        assert os.fstat(stage.fileno()).st_mtime_ns == before.st_mtime_ns
    file = every_area / "file"
    file.touch()

    def symlink(length: int) -> None:
        (every_area / "link").symlink_to("x" * length)

    def xattr(length: int) -> None:
        os.setxattr(file, "user.homemgr-probe", b"x" * length)

    assert limits.pop(Ability.SYMLINK_LENGTH, 4095) == longest(4095, symlink)
    assert limits.pop(Ability.XATTR_VALUE, 65536) == longest(65536, xattr)
    most = limits.pop(Ability.FILE_SIZE, (1 << 63) - 1)
    if most < (1 << 63) - 1:
        os.truncate(file, most)
        with pytest.raises(OSError, match="too large"):
            os.truncate(file, most + 1)
    # Everything else can be done on all of them.
    assert limits == {}


def test_a_file_system_without_idmapped_mounts_can_hold_no_home(area: Path) -> None:
    with mounted(area, "ramfs"), staged(area) as stage:
        with pytest.raises(errors.NotSupported, match="other ids"):
            probe(stage)
        assert os.listdir(stage.fileno()) == []


# -- what a home needs ------------------------------------------------------------------------


def test_everything_that_a_home_needs_is_found(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / ("n" * 200)).write_bytes(b"x" * 4096)
    (tmp_path / "some/Alike").touch()
    (tmp_path / "some/alike").touch()
    # The same name elsewhere is another one.
    (tmp_path / "Some").mkdir()
    (tmp_path / "link").symlink_to("y" * 300)
    for number in range(3):
        (tmp_path / f"some/name{number}").hardlink_to(tmp_path / ("n" * 200))
    os.mkfifo(tmp_path / "pipe")
    os.setxattr(tmp_path / "some", "user.note", b"z" * 77)
    os.truncate(tmp_path / "some/alike", 1 << 30)
    subprocess.run(["setfacl", "-m", "u:1:r", tmp_path / "some/Alike"], check=True)
    (Path(os.fsdecode(bytes(tmp_path) + b"/odd\xff"))).touch()
    with opened(tmp_path) as top:
        totals, needs = survey(top, frozenset(), list(Ability))
        assert survey(top, frozenset(), ()) == (totals, {})
    assert needs.pop(Ability.TIMES).most == 1
    assert needs.pop(Ability.ALIKE_NAMES).path in (b"some", b"some/alike")
    assert needs == {
        Ability.FILE_SIZE: Need(1 << 30, b"some/alike"),
        Ability.NAME_LENGTH: Need(200, b"n" * 200),
        Ability.ODD_NAMES: Need(1, b"odd\xff"),
        Ability.SYMLINK_LENGTH: Need(300, b"link"),
        Ability.HARD_LINKS: Need(4, b"n" * 200),
        Ability.FIFOS: Need(1, b"pipe"),
        Ability.HOLES: Need(1, b"some/alike"),
        Ability.XATTR_VALUE: Need(77, b"some"),
        Ability.ACLS: Need(1, b"some/Alike"),
    }
    assert totals.files == len(list(tmp_path.rglob("*"))) + 1


class Asked(Exception):
    """The other side waits."""


def test_during_a_look_the_other_side_is_heard(tmp_path: Path) -> None:
    """A home has a hundred thousand names, and the other machine has things to do meanwhile."""

    def ask() -> None:
        raise Asked

    for number in range(600):
        (tmp_path / f"{number}").touch()
    turns: list[None] = []
    with opened(tmp_path) as top:
        seen = glance(top, frozenset(), has_copy=True, meanwhile=lambda: turns.append(None))
        assert seen.size.files == 601
        assert len(turns) == 1
        with pytest.raises(Asked):
            glance(top, frozenset(), has_copy=True, meanwhile=ask)


def test_a_file_with_many_names_takes_its_room_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    with opened(tmp_path) as top:
        (before, _) = survey(top, frozenset(), ())
        for number in range(10):
            (tmp_path / f"name-{number}").hardlink_to(file)
        (after, _) = survey(top, frozenset(), ())
    assert after.files == before.files + 10
    assert after.content == before.content
    assert after.bytes - before.bytes < 100_000


def test_a_plain_home_needs_no_more_than_its_sizes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 4096)
    for path in (tmp_path / "file", tmp_path):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with opened(tmp_path) as top:
        _, needs = survey(top, frozenset(), list(Ability))
    assert needs == {
        Ability.FILE_SIZE: Need(4096, b"file"),
        Ability.NAME_LENGTH: Need(4, b"file"),
        Ability.HARD_LINKS: Need(1, b"file"),
    }


@pytest.mark.parametrize("time_ns", [1, -1, 1 << 31, (1 << 31) * 10**9])
def test_times_that_are_no_whole_seconds_of_32_bits_are_needed(
    tmp_path: Path, time_ns: int
) -> None:
    os.utime(tmp_path, ns=(time_ns, time_ns))
    with opened(tmp_path) as top:
        _, needs = survey(top, frozenset(), [Ability.TIMES])
    assert needs == {Ability.TIMES: Need(1, b"")}


# -- the refusal -------------------------------------------------------------------------------


def assert_nothing_was_sent(pair: Pair) -> None:
    assert pair.here.exists()
    assert "freeze" not in pair.origin.questions
    assert pair.target.questions == ["hello"]
    stage = pair.there.parent / STAGE
    assert not stage.exists() or os.listdir(stage) == []


@pytest.fixture
def roomy(pair: Pair) -> Iterator[Pair]:
    """The home may have anything in it; over there is a small ext4."""
    with mounted(pair.here.parent):
        pair.here.mkdir(mode=0o700)
        (pair.here / ".identity").write_text("{}")
        yield pair


def too_long_link(home: Path) -> str:
    (home / "link").symlink_to("x" * 2000)
    return r"a symbolic link of 2000 bytes \('link'; at most 1023\)"


def too_long_attribute(home: Path) -> str:
    (home / "file").touch()
    os.setxattr(home / "file", "user.note", b"x" * 3000)
    return r"an extended attribute of 3000 bytes \('file'; at most 9\d\d\)"


def too_large_file(home: Path) -> str:
    (home / "file").touch()
    os.truncate(home / "file", 1 << 46)
    return r"a file of 70368744177664 bytes \('file'; at most \d+\)"


def over_the_wire(pair: Pair, _file: Path) -> None:
    pair.go()


def in_a_file(pair: Pair, file: Path) -> None:
    export(pair, file)
    import_(pair, file)


WAYS = {"wire": over_the_wire, "file": in_a_file}


@pytest.mark.parametrize("fill", [too_long_link, too_long_attribute, too_large_file])
@pytest.mark.parametrize("way", WAYS)
def test_a_home_that_cannot_be_stored_there_is_refused_before_it_is_sent(
    roomy: Pair, tmp_path: Path, fill: Callable[[Path], str], way: str
) -> None:
    expected = fill(roomy.here)
    homes.give_away(roomy.here)
    with pytest.raises(errors.NotSupported, match=expected):
        WAYS[way](roomy, tmp_path / "alice.tar")
    if way == "wire":
        assert_nothing_was_sent(roomy)
        assert roomy.receiver is not None
        # Who waits over there reads the same.
        assert isinstance(roomy.receiver.failure, errors.NotSupported)
    else:
        assert roomy.names()[1] == []


@pytest.mark.parametrize(
    ("options", "text"),
    [({"size": "9m"}, r"needs \d+ bytes"), ({"nr_inodes": "300"}, "new files and directories")],
)
def test_a_home_for_which_there_is_no_room_is_refused_before_it_is_sent(
    pair: Pair, options: dict[str, str], text: str
) -> None:
    for number in range(50):
        (pair.here / f"note{number}").write_text("note")
    homes.give_away(pair.here)
    with mounted(pair.there.parent, **options):
        with pytest.raises(errors.NoDiskSpace, match=text):
            pair.go()
        assert_nothing_was_sent(pair)


def test_holes_that_have_arrived_are_no_room_for_the_rest(pair: Pair) -> None:
    with (pair.here / "holes").open("wb") as file:
        file.truncate(1 << 30)
    homes.give_away(pair.here)
    with mounted(pair.there.parent, size="28m"):
        pair.go(keep=True)
        pair.target.phase = "receiving"
        (pair.here / "more").write_bytes(bytes(12 << 20))
        homes.give_away(pair.here)
        with pytest.raises(errors.NoDiskSpace, match=r"needs \d+ bytes"):
            pair.go(keep=True)


def test_a_file_system_of_whole_seconds_is_found_out(area: Path, tmp_path: Path) -> None:
    """As ext4 is with the inodes of ext3."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-I", "128", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, area], check=True)
    try:
        with staged(area) as stage:
            assert probe(stage)[Ability.TIMES] == 0
    finally:
        mounts.umount2(str(area), 0)


def test_what_was_found_to_fit_once_is_not_tried_again(pair: Pair) -> None:
    pair.go(keep=True)
    # It would be refused now, and is not looked for.
    (pair.here / "other").write_text("other")
    os.setxattr(pair.here / "other", acl.ACCESS, acl.build(ACL))
    homes.give_away(pair.here)
    pair.target.phase = "receiving"
    pair.go()
    assert homes.compare(pair.left, pair.there, leave_out=(b".identity",)) == []


ACL = [
    acl.AclEntry(acl.USER_OBJ, acl.NO_ID, 6),
    acl.AclEntry(acl.USER, NOBODY, 4),
    acl.AclEntry(acl.GROUP_OBJ, acl.NO_ID, 0),
    acl.AclEntry(acl.MASK, acl.NO_ID, 4),
    acl.AclEntry(acl.OTHER, acl.NO_ID, 0),
]


# -- what comes then ---------------------------------------------------------------------------


def test_a_home_that_grows_on_the_way_announces_it(pair: Pair) -> None:
    def grow(question: str) -> None:
        if question != "freeze" or (pair.here / "grown").exists():
            return
        (pair.here / "grown").write_bytes(random.Random(5).randbytes(4_000_000))
        for number in range(50):
            (pair.here / f"new-{number}").touch()
        homes.give_away(pair.here)

    pair.origin.before = grow
    pair.go()
    assert homes.compare(pair.left, pair.there, leave_out=(b".identity",)) == []


TOP = Entry(Kind.DIRECTORY, 0o700, NOBODY, NOBODY, 1, 1, 0, b"", ())


def a_file(size: int) -> frames.File:
    data = b"x" * size
    entry = TOP._replace(kind=Kind.FILE, size=size)
    return frames.File(b"file", entry, data)


@pytest.mark.parametrize(
    ("announced", "failure"),
    [
        ((2, 1000, 1000), None),
        ((2, 1000, 999), "announced 2 files and directories of 999 bytes"),
        ((2, 999, 1000), "999 of them stored"),
        ((1, 1000, 1000), "announced 1 files"),
    ],
)
def test_who_sends_more_than_he_announced_is_refused(
    pair: Pair, announced: tuple[int, int, int], failure: str | None
) -> None:
    ours, theirs = socket.socketpair()
    side = Side(pair.target, "receive", theirs, options={}, receiver=RECEIVER)
    with Fd(ours.detach()) as stream, Conversation(stream, stream, lambda: None) as talk:
        challenge = talk.hear_message("challenge")
        about = {"nonce": challenge["challenge"], "receiver": challenge["receiver"]}
        talk.tell(introduction={"record": {"userName": "alice"}, "about": about})
        talk.hear("hello")
        size = Size(*announced)._asdict()
        talk.tell(go="passes", size=size, needs={})
        talk.hear("fits")
        talk.send(frames.Enter(b"", TOP))
        talk.send(a_file(1000))
        talk.send(frames.Leave())
        talk.tell(compare="")
        if failure is None:
            assert talk.hear("has")
        else:
            with pytest.raises(StreamError, match=failure):
                talk.receive()
    side.join(60)
    stage = pair.there.parent / STAGE
    assert (stage / "file").exists() == (failure is None)


def test_an_archive_that_holds_more_than_it_says_is_refused(pair: Pair, tmp_path: Path) -> None:
    archive = tmp_path / "alice.tar"
    export(pair, archive)
    data = archive.read_bytes()
    (told,) = re.findall(rb'"content": (\d+)', data)
    assert int(told) == 3_000_000 + len("content")
    archive.write_bytes(data.replace(told, b"%d" % (int(told) - 1)))
    with pytest.raises(StreamError, match="more than it says"):
        import_(pair, archive)
    assert pair.names()[1] == []


# -- what is left out --------------------------------------------------------------------------


def test_what_is_mounted_in_a_home_in_use_is_in_the_report(pair: Pair) -> None:
    visible = pair.origin.area / "alice"
    visible.mkdir()
    with mounted(visible):
        (visible / "usb").mkdir()
        with mounted(visible / "usb"):
            result = pair.go(keep=True)
    assert result["report"] == {
        "counts": {"mount-skipped": 1},
        "notes": [{"kind": "mount-skipped", "path": "usb", "detail": "tmpfs"}],
    }
