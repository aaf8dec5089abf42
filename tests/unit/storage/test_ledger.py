"""The ledger: it knows what it was told, in order, across restarts, kills and damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from homemgr.errors import NoDiskSpace, NotSupported, StreamError, SystemFailure, TransferBusy
from homemgr.storage import ledger_file, ledger_table
from homemgr.storage.ledger import Known, Ledger, Row, proof
from homemgr.transfer.codec import signature
from homemgr.transfer.entry import Entry, Kind, join, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ENTRY = Entry(Kind.FILE, 0o644, 65534, 65534, -5, 7, 11, b"", ((b"user.a", b"\0"),))
FOLDER = Entry(Kind.DIRECTORY, 0o755, 65534, 65534, 1, 2, 0, b"", ())
ROW = Row(ENTRY, b"d" * 32, b"", bytes(7) + b"\x05" + bytes(36))
FOLDER_ROW = Row(FOLDER, b"", b"", b"")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


@contextmanager
def scratch() -> Iterator[Ledger]:
    """A new ledger that is gone afterwards."""
    with TemporaryDirectory() as directory, Ledger(f"{directory}/ledger") as ledger:
        yield ledger


def fill(ledger: Ledger, names: Iterable[bytes], row: Row = ROW) -> None:
    for name in names:
        ledger.put(name, row)


def test_paths_that_are_repeated_too_often_do_not_fill_the_disk(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred names are little, and their paths may be a lot."""
    monkeypatch.setattr(ledger_table, "_BASE_BYTES", 8 << 20)
    deep = b"/".join([b"d" * 255] * 4000)
    with Ledger(path) as ledger:
        ledger.limit(100, 0)
        with pytest.raises(NotSupported, match="too long paths"):
            fill(ledger, (join(deep, b"%d" % number) for number in range(100)))
        assert Path(path).stat().st_size < 16 << 20


def test_a_usual_home_is_far_from_the_largest_ledger(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is said where the limit is set: even a quarter of it would do."""
    count = 30_000
    monkeypatch.setattr(ledger_table, "_BASE_BYTES", 1 << 20)
    usual = b"/".join([b"directory"] * 10)
    with Ledger(path) as ledger:
        ledger.limit(count // 4, 0)
        fill(ledger, (join(usual, b"a name of a file %d" % number) for number in range(count)))


def test_digests_of_blocks_have_room_too(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_table, "_BASE_BYTES", 1 << 20)
    size, count = 1 << 30, 100
    row = ROW._replace(entry=ENTRY._replace(size=size), blocks=bytes(32 * (size >> 17)))
    with Ledger(path) as ledger:
        ledger.limit(count, count * size)
        fill(ledger, (b"%d" % number for number in range(count)), row)
        ledger.limit(count, 0)
        with pytest.raises(NotSupported):
            fill(ledger, (b"%d more" % number for number in range(count)), row)


def test_ledger_is_for_its_owner_alone(path: str) -> None:
    old = os.umask(0)
    try:
        with Ledger(path):
            assert Path(path).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)


def test_only_what_is_committed_stays(path: str) -> None:
    with Ledger(path) as ledger:
        ledger.put(b"a", ROW)
        ledger.set_meta("peer", "b")
        ledger.commit()
        ledger.put(b"b", ROW)
        ledger.set_meta("peer", "c")
        assert ledger.meta("peer") == "c"
    with Ledger(path) as ledger:
        assert ledger.get(b"a") == ROW
        assert ledger.get(b"b") is None
        assert ledger.meta("peer") == "b"
        assert ledger.meta("other") is None
    assert os.listdir(Path(path).parent) == ["ledger.sqlite"]


@pytest.mark.parametrize(("size", "kept"), [(1 << 20, b""), ((1 << 20) + 1, b"b" * 288)])
def test_blocks_of_large_files_alone_are_kept(path: str, size: int, kept: bytes) -> None:
    row = Row(ENTRY._replace(size=size), b"d" * 32, b"b" * 288, b"")
    with Ledger(path) as ledger:
        ledger.put(b"a", row)
        assert ledger.get(b"a") == row._replace(blocks=kept)


def test_entry_that_cannot_travel_is_not_known(path: str) -> None:
    with Ledger(path) as ledger, pytest.raises(StreamError):
        ledger.put(b"a", ROW._replace(entry=ENTRY._replace(kind=Kind.SOCKET)))


@pytest.mark.parametrize("inode", [0, 5, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_names_of_an_inode_are_found(path: str, inode: int) -> None:
    mark = inode.to_bytes(8, "big") + bytes(36)
    with Ledger(path) as ledger:
        ledger.put(b"z", ROW._replace(proof=mark))
        ledger.put(b"a/z", ROW._replace(proof=mark))
        ledger.put(b"b", ROW._replace(proof=bytes(6) + b"\x09" + bytes(37)))
        ledger.put(b"c", FOLDER_ROW)
        assert [found for found, _ in ledger.by_inode(inode)] == [b"z", b"a/z"]
        ledger.touch(b"z", bytes(6) + b"\x09" + bytes(37))
        assert ledger.by_inode(inode) == [(b"a/z", ROW._replace(proof=mark))]


def test_large_content_is_found_by_its_digest(path: str) -> None:
    large = ROW._replace(entry=ENTRY._replace(size=(64 << 10) + 1))
    with Ledger(path) as ledger:
        ledger.put(b"", FOLDER_ROW)
        ledger.put(b"a/small", ROW)
        ledger.put(b"b", large)
        ledger.put(b"a/b", large)
        assert ledger.by_digest(ROW.digest) == b"b"
        assert ledger.by_digest(b"e" * 32) is None
        assert ledger.by_digest(b"") is None


def test_proof_changes_with_all_that_the_kernel_tells(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    seen = [proof(file.stat())]
    file.chmod(0o600)
    seen.append(proof(file.stat()))
    os.link(file, tmp_path / "link")
    seen.append(proof(file.stat()))
    file.write_bytes(b"other")
    seen.append(proof(file.stat()))
    os.utime(file, ns=(1, -(1 << 62)))
    seen.append(proof(file.stat()))
    other = tmp_path / "other"
    other.touch()
    seen.append(proof(other.stat()))
    assert len(set(seen)) == len(seen)
    assert proof(other.stat()) == seen[-1]
    assert seen[-1][:8] == other.stat().st_ino.to_bytes(8, "big")


@pytest.mark.parametrize("time_ns", [5, -5, (1 << 63) - 1, -(1 << 63), 1 << 63, (1 << 64) + 5])
def test_proof_has_its_form_for_times_of_any_age(time_ns: int) -> None:
    """Whatever file systems store: nanoseconds in 64 bits end in the year 2262."""
    found = SimpleNamespace(
        st_ino=(1 << 64) - 1, st_ctime_ns=time_ns, st_mtime_ns=time_ns, st_size=3, st_mode=0o100644,
        st_nlink=2,
    )  # fmt: skip
    one_time = (time_ns % (1 << 64)).to_bytes(8, "big")
    sizes = (3).to_bytes(8, "big") + (0o100644).to_bytes(4, "big") + (2).to_bytes(8, "big")
    assert proof(cast("os.stat_result", found)) == b"\xff" * 8 + one_time * 2 + sizes


# --- pairs --------------------------------------------------------------------------------

PATHS = [b"", b"a", b"a\n", b"a.", b"a/b", b"a/b/c", b"a0", b"b", b"\xff", b"a/\x01", b"a/b/c/d"]
marks = st.dictionaries(st.sampled_from(PATHS), st.integers(0, 3), max_size=len(PATHS))


def row_of(number: int) -> Row:
    return ROW._replace(entry=ENTRY._replace(mtime_ns=number))


def pairs_of(some: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    rows = {path: row_of(number) for path, number in some.items()}
    return [
        (path, signature(rows[path].entry, rows[path].digest)) for path in sorted(rows, key=split)
    ]


@given(marks, marks)
def test_what_the_peer_has_is_kept_if_it_is_the_same_and_strange_if_not(
    ours: dict[bytes, int], theirs: dict[bytes, int]
) -> None:
    with scratch() as ledger:
        for path, number in ours.items():
            ledger.put(path, row_of(number))
        assert list(ledger.pairs()) == pairs_of(ours)
        left = dict(ours.items() & theirs.items())
        assert ledger.agree(iter(pairs_of(theirs))) == len(ours) - len(left)
        strange = [(path, b"") for path in sorted(theirs, key=split) if path not in left]
        known = sorted(pairs_of(left) + strange, key=lambda pair: split(pair[0]))
        assert list(ledger.pairs()) == known
        for path, _ in strange:
            found = ledger.known(path)
            assert found is not None
            is_directory = bool(ledger.children(path))
            assert (found.proof, found.kind == Kind.DIRECTORY) == (b"", is_directory)


@given(marks, marks)
def test_digest_is_equal_if_and_only_if_all_pairs_are(
    one: dict[bytes, int], other: dict[bytes, int]
) -> None:
    digests = []
    for some in (one, other):
        with scratch() as ledger:
            for path, number in some.items():
                ledger.put(path, row_of(number))
            digests.append(ledger.digest())
    assert (digests[0] == digests[1]) == (one == other)


def test_digest_is_that_of_the_documentation(path: str) -> None:
    with Ledger(path) as ledger:
        assert ledger.digest() == sha256().digest()
        ledger.put(b"a/b", ROW)
        ledger.put(b"", FOLDER_ROW)
        text = bytes(4) + signature(FOLDER, b"")
        text += b"\0\0\0\3a/b" + signature(ENTRY, ROW.digest)
        assert ledger.digest() == sha256(text).digest()


ALTERATIONS: dict[str, Callable[[Ledger], object]] = {
    "put": lambda ledger: ledger.put(b"b", ROW),
    "put again": lambda ledger: ledger.put(b"a", FOLDER_ROW),
    "drop": lambda ledger: ledger.drop(b"a"),
    "drop all": lambda ledger: ledger.drop(b""),
    "agree": lambda ledger: ledger.agree([]),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_what_is_remembered_of_all_names_is_forgotten_with_the_first_that_changes(
    path: str, name: str
) -> None:
    with Ledger(path) as ledger:
        ledger.put(b"a", ROW)
        before = ledger.digest()
        ledger.remember("seen", "this")
        ledger.set_meta("peer", "b")
        ledger.commit()
    with Ledger(path) as ledger:
        assert (ledger.digest(), ledger.remembered("seen")) == (before, "this")
        ledger.touch(b"a", bytes(44))
        assert ledger.remembered("seen") == "this"
        ALTERATIONS[name](ledger)
        assert ledger.remembered("seen") is None
        assert ledger.digest() != before
        ledger.commit()
    with Ledger(path) as ledger:
        assert ledger.remembered("seen") is None
        assert ledger.meta("peer") == "b"
        after = ledger.digest()
        ledger.put(b"c", ROW)
        assert ledger.digest() != after


@pytest.mark.parametrize("wrong", [[b"a/b", b"b"], [b"b", b"a"], [b"a", b"a"], [b"a", b""]])
def test_pairs_out_of_order_are_refused(path: str, wrong: list[bytes]) -> None:
    with Ledger(path) as ledger:
        ledger.put(b"a", ROW)
        with pytest.raises(StreamError):
            ledger.agree((name, bytes(20)) for name in wrong)


def test_more_than_a_page_is_read_once_and_in_order(path: str) -> None:
    names = [b"%03x/%x" % (number % 997, number) for number in range(7000)]
    with Ledger(path) as ledger:
        for name in names:
            ledger.put(name, ROW)
        assert [name for name, _ in ledger.pairs()] == sorted(names, key=split)
        some = [pair for number, pair in enumerate(ledger.pairs()) if number % 3]
        assert ledger.agree(some) == 7000 - len(some)
        assert list(ledger.pairs()) == some


def test_memory_is_bounded_whatever_the_size(path: str) -> None:
    with Ledger(path) as ledger:
        tracemalloc.start()
        try:
            for number in range(20_000):
                ledger.put(b"some/directory/%d" % number, ROW)
            ledger.agree(ledger.pairs())
            ledger.digest()
            assert tracemalloc.get_traced_memory()[1] < 2 << 20
        finally:
            tracemalloc.stop()
        assert ledger.totals() == (20_000, 20_000 * ENTRY.size)


def test_totals_of_absurd_sizes_are_no_failure(path: str) -> None:
    largest = ROW._replace(entry=ENTRY._replace(size=(1 << 63) - 1))
    with Ledger(path) as ledger:
        assert ledger.totals() == (0, 0)
        for name in (b"a", b"b", b"c"):
            ledger.put(name, largest)
        assert ledger.totals() == (3, pytest.approx(3 << 63))


def test_totals_are_found_out_with_the_digest(path: str) -> None:
    with Ledger(path) as ledger:
        fill(ledger, [b"a", b"b"])
        found = ledger.totals()
        ledger.digest()
        assert ledger.remembered("totals") is not None
        assert ledger.totals() == found == (2, 2 * ENTRY.size)
        ledger.put(b"c", ROW)
        assert ledger.totals() == (3, 3 * ENTRY.size)


# --- against a model ----------------------------------------------------------------------

some_paths = st.sampled_from(PATHS)


class AgainstModel(RuleBasedStateMachine):
    """A ledger and a dictionary are told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.ledger = self.closing.enter_context(scratch())
        self.model: dict[bytes, Row] = {}

    def teardown(self) -> None:
        self.closing.close()

    @rule(path=some_paths, number=st.integers(0, 3))
    def put(self, path: bytes, number: int) -> None:
        self.model[path] = row_of(number)
        self.ledger.put(path, self.model[path])

    @rule(path=some_paths, mark=st.binary(min_size=44, max_size=44) | st.just(b""))
    def touch(self, path: bytes, mark: bytes) -> None:
        if path in self.model:
            self.model[path] = self.model[path]._replace(proof=mark)
        self.ledger.touch(path, mark)

    @rule(path=some_paths)
    def drop(self, path: bytes) -> None:
        for known in list(self.model):
            if not path or known == path or known.startswith(path + b"/"):
                del self.model[known]
        self.ledger.drop(path)

    @rule()
    def commit(self) -> None:
        self.ledger.digest()
        self.ledger.commit()

    @invariant()
    def both_know_the_same(self) -> None:
        assert {path: self.ledger.get(path) for path in PATHS} == {
            path: self.model.get(path) for path in PATHS
        }
        for directory in PATHS:
            known = self.ledger.children(directory)
            assert known == {
                split(path)[1]: Known(row.proof, signature(row.entry, row.digest), Kind.FILE)
                for path, row in self.model.items()
                if path and split(path)[0] == directory
            }
            assert all(join(directory, name) in self.model for name in known)
        sizes = [row.entry.size for row in self.model.values()]
        assert self.ledger.totals() == (len(sizes), sum(sizes))


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


# --- the file -----------------------------------------------------------------------------


@pytest.fixture
def filled(path: str) -> str:
    with Ledger(path) as ledger:
        for number in range(500):
            ledger.put(b"%d" % number, ROW)
        ledger.commit()
    # What is written to it from here on gets another time, however coarse that is.
    time.sleep(0.01)
    return path


def damage_unseen(path: str) -> None:
    """Damage a ledger, with the time that it was written as before."""
    before = os.stat(path)
    raw = bytearray(Path(path).read_bytes())
    raw[9 * 4096 + 8 : 9 * 4096 + 608] = b"\xa5" * 600
    Path(path).write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def assert_begun_anew(path: str) -> None:
    with Ledger(path) as ledger:
        assert ledger.totals() == (0, 0)
        ledger.put(b"a", ROW)
        ledger.commit()
    with Ledger(path) as ledger:
        assert ledger.get(b"a") == ROW


@pytest.mark.parametrize("noise", [b"no ledger at all", b"no ledger at all" * 500])
def test_what_is_no_ledger_is_put_aside(path: str, noise: bytes) -> None:
    Path(path).write_bytes(noise)
    assert_begun_anew(path)
    assert Path(path + ".corrupt").read_bytes() == noise


@pytest.mark.parametrize("offset", [0, 18, 4096 + 3, 3 * 4096, 9 * 4096 + 8])
def test_damaged_ledger_is_put_aside(filled: str, offset: int) -> None:
    raw = bytearray(Path(filled).read_bytes())
    raw[offset : offset + 600] = b"\xa5" * 600
    Path(filled).write_bytes(raw)
    assert_begun_anew(filled)
    assert Path(filled + ".corrupt").read_bytes() == raw


@pytest.mark.root
def test_ledger_that_a_run_left_in_order_is_not_looked_through_again(filled: str) -> None:
    """Which would take as long as all else where nothing is to be sent."""
    damage_unseen(filled)
    with pytest.raises(SystemFailure), Ledger(filled) as ledger:
        list(ledger.pairs())
    # What is met all the same is not met twice.
    assert_begun_anew(filled)


def test_ledger_that_was_left_before_this_boot_is_looked_through(
    filled: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damage_unseen(filled)
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(ledger_file, "_BOOT", str(tmp_path / "boot"))
    assert_begun_anew(filled)


def test_ledger_of_a_run_that_broke_is_looked_through(filled: str) -> None:
    def run(ledger: Ledger) -> None:
        ledger.put(b"more", ROW)
        ledger.commit()
        raise StreamError("The stream broke.")

    with pytest.raises(StreamError), Ledger(filled) as ledger:
        run(ledger)
    damage_unseen(filled)
    assert_begun_anew(filled)


def test_ledger_cut_short_is_put_aside(filled: str) -> None:
    os.truncate(filled, 10_000)
    assert_begun_anew(filled)


def test_empty_file_becomes_a_ledger(path: str) -> None:
    Path(path).touch()
    assert_begun_anew(path)
    assert not Path(path + ".corrupt").exists()


@pytest.mark.parametrize("statement", [f"PRAGMA user_version = {version}" for version in (0, 2, 4)])
def test_ledger_of_another_version_is_put_aside(filled: str, statement: str) -> None:
    database = sqlite3.connect(filled)
    database.execute(statement)
    database.close()
    assert_begun_anew(filled)
    assert Path(filled + ".corrupt").exists()


def test_journal_of_a_damaged_ledger_is_not_applied_to_the_new_one(filled: str) -> None:
    Path(filled).write_bytes(b"noise" * 1000)
    Path(filled + "-journal").write_bytes(b"old")
    assert_begun_anew(filled)
    assert sorted(os.listdir(Path(filled).parent)) == ["ledger.sqlite", "ledger.sqlite.corrupt"]


WRITER = """
import os, signal, sys
from homemgr.storage import ledger_file
ledger_file._USE = (*ledger_file._USE, "PRAGMA cache_size = 5")
from homemgr.storage.ledger import Ledger
with Ledger(sys.argv[1]) as ledger:
    row = ledger.get(b"1")
    ledger.drop(b"")
    for number in range(3000):
        ledger.put(b"other %d" % number, row)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writer_leaves_the_last_commit(filled: str) -> None:
    before = Path(filled).read_bytes()
    done = subprocess.run([sys.executable, "-c", WRITER, filled], check=False)
    assert done.returncode == -signal.SIGKILL
    # So much was written that it did not fit in the cache.
    assert Path(filled).read_bytes() != before
    with Ledger(filled) as ledger:
        assert ledger.totals()[0] == 500
        assert ledger.get(b"499") == ROW


HOLDER = """
import sys
from homemgr.storage.ledger import Ledger
with Ledger(sys.argv[1]):
    print(flush=True)
    sys.stdin.read()
"""


def test_ledger_in_use_is_busy(filled: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, filled], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(TransferBusy):
            Ledger(filled)
        holder.communicate(b"")
    with Ledger(filled) as ledger:
        assert ledger.totals()[0] == 500


def test_full_disk_is_no_disk_space(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = (*ledger_file._USE, "PRAGMA max_page_count = 10")
    monkeypatch.setattr(ledger_file, "_USE", limit)
    large = ROW._replace(entry=ENTRY._replace(xattrs=((b"user.a", bytes(1 << 16)),)))
    with Ledger(path) as ledger:
        ledger.put(b"small", ROW)
        with pytest.raises(NoDiskSpace, match="ledger"):
            ledger.put(b"large", large)


def test_ledger_that_cannot_be_had_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemFailure, match="missing"):
        Ledger(str(tmp_path / "missing" / "ledger"))
    with pytest.raises(SystemFailure):
        Ledger(str(tmp_path))


def test_damage_that_shows_later_is_a_failure_not_a_crash(path: str) -> None:
    with Ledger(path) as ledger:
        ledger._database.execute("DROP TABLE meta")
        with pytest.raises(SystemFailure):
            ledger.meta("a")
        with pytest.raises(SystemFailure):
            ledger.set_meta("a", "b")
