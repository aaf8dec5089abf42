"""Changing what is merged while the user is logged in: no gap, no incoherence, no leftovers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.extension import home_side
from homemgr.extension.attach import Mode
from homemgr.extension.refresh import Outcome, State, mounted_overlays, refresh
from homemgr.extension.stack import Options
from homemgr.kernel import mounts
from homemgr.kernel.syscall import AT_FDCWD
from tests.kernel import overlays
from tests.kernel.overlays import BIN, SHARE, Extension, Home, cleaned, marks_on, merged

Start = Callable[..., subprocess.Popen[bytes]]

ONE = {f"{BIN}/tool": "one", f"{BIN}/only-one": "", f"{BIN}/sub/deep": "one"}
TWO = {f"{BIN}/tool": "two", f"{BIN}/only-two": ""}

#: Works in the directory for as long as it lives.
HOLD = "import os, sys, time\nos.chdir(sys.argv[1])\nprint('ready', flush=True)\ntime.sleep(60)\n"

#: Opens a file over and over; says how often it could and could not when told to end.
PROBE = """
import os, signal, sys
os.setgid(60001)
os.setuid(60001)
done = []
signal.signal(signal.SIGTERM, lambda *_: done.append(1))
good, bad, seen = 0, [], set()
print("ready", flush=True)
while not done:
    try:
        with open(sys.argv[1]) as file:
            seen.add(file.read())
        good += 1
    except OSError as error:
        bad.append(error.errno)
print(good, len(bad), sorted(seen), bad[:5], flush=True)
"""


def change(
    home: Home,
    extensions: Sequence[Extension],
    mode: Mode = Mode.WRITABLE,
    hierarchies: Sequence[str] = (BIN,),
    *,
    forced: bool = False,
) -> list[Outcome]:
    with home.root() as root, overlays.wanted(extensions, mode, hierarchies) as wanted:
        return refresh(root, wanted, Options(), is_forced=forced)


def states(outcomes: Sequence[Outcome]) -> dict[str, State]:
    return {outcome.hierarchy: outcome.state for outcome in outcomes}


APPLIED = {BIN: State.APPLIED}


@pytest.fixture
def home(area: Path) -> Iterator[Home]:
    with overlays.home(area, {f"{BIN}/mine": "mine"}) as made:
        yield made


@pytest.fixture
def one(area: Path) -> Iterator[Extension]:
    with overlays.extension(area, "one", ONE) as made:
        yield made


@pytest.fixture
def two(area: Path) -> Iterator[Extension]:
    with overlays.extension(area, "two", TWO, "erofs") as made:
        yield made


@contextmanager
def shared_propagation(area: Path) -> Iterator[None]:
    """As systemd sets up the root directory: what is mounted here is copied elsewhere."""
    subprocess.run(["mount", "--bind", str(area), str(area)], check=True)
    mounts.mount_setattr(AT_FDCWD, str(area), 0, propagation=mounts.MS_SHARED)
    yield
    mounts.umount2(str(area), mounts.MNT_DETACH)


def listed(home: Home, path: str = BIN) -> list[str]:
    return sorted(os.listdir(home.seen / path))


def test_a_writable_overlay_that_nobody_holds_is_swapped(
    one: Extension, two: Extension, home: Home
) -> None:
    before = overlays.picture(home.stored)
    with merged(home, [one], hierarchies=[BIN]):
        overlays.sh("cd .local/bin; rm -r only-one sub; echo x > new", home.seen)
        assert states(change(home, [two])) == APPLIED
        assert listed(home) == ["mine", "new", "only-two", "tool"]
        assert (home.seen / BIN / "tool").read_text() == "two"
        overlays.sh("rm .local/bin/only-two; echo y >> .local/bin/tool", home.seen)
        with home.disk() as disk:
            assert len(home_side.generations(disk)) == 1
        assert states(change(home, [one, two])) == APPLIED
        # What was deleted of both stays so.
        assert listed(home) == ["mine", "new", "tool"]
        assert (home.seen / BIN / "tool").read_text() == "twoy\n"
    assert cleaned(home).problems == []
    assert marks_on(home) == []
    assert home.owners() == {(overlays.NOBODY, overlays.NOBODY)}
    after = overlays.picture(home.stored)
    assert set(after) - set(before) == {
        ".homemgr", ".homemgr/extensions.json", f"{BIN}/new", f"{BIN}/tool",
    }  # fmt: skip


def test_it_is_swapped_where_mounts_are_shared(area: Path) -> None:
    inner = area / "inner"
    inner.mkdir()
    with (
        shared_propagation(inner),
        overlays.home(inner, {f"{BIN}/mine": "mine"}) as home,
        overlays.extension(inner, "one", ONE) as one,
        overlays.extension(inner, "two", TWO) as two,
    ):
        for mode in (Mode.WRITABLE, Mode.READ_ONLY):
            with merged(home, [one], mode, [BIN]):
                assert states(change(home, [two], mode)) == APPLIED
                assert (home.seen / BIN / "tool").read_text() == "two"
                assert len(mounted_overlays_of(home)) == 1
            cleaned(home)


def mounted_overlays_of(home: Home) -> list[str]:
    with home.root() as root:
        return sorted(mounted_overlays(root))


def test_a_held_writable_overlay_is_left_and_its_holder_named(
    home: Home, one: Extension, two: Extension, other_process: Start
) -> None:
    with merged(home, [one], hierarchies=[BIN]):
        overlays.sh("rm .local/bin/only-one", home.seen)
        holder = other_process(HOLD, str(home.seen / BIN))
        (outcome,) = change(home, [two])
        assert outcome.state is State.DEFERRED
        assert [found.pid for found in outcome.holders] == [holder.pid]
        # All as before, also for new look-ups, and on disk no work directory more.
        assert listed(home) == ["mine", "sub", "tool"]
        assert (home.seen / BIN / "tool").read_text() == "one"
        overlays.sh("cd .local/bin; echo x >> tool; mkdir d; rm -r sub", home.seen)
        with home.disk() as disk:
            assert len(home_side.generations(disk)) == 1
        holder.kill()
        holder.wait()
        assert states(change(home, [two])) == APPLIED
        assert listed(home) == ["d", "mine", "only-two", "tool"]
        assert (home.seen / BIN / "tool").read_text() == "onex\n"
    cleaned(home)
    assert marks_on(home) == []


def test_a_held_writable_overlay_can_be_forced_off(
    home: Home, one: Extension, two: Extension, other_process: Start
) -> None:
    with merged(home, [one], hierarchies=[BIN]):
        holder = other_process(HOLD, str(home.seen / BIN))
        assert states(change(home, [two], forced=True)) == APPLIED
        assert (home.seen / BIN / "tool").read_text() == "two"
        assert "only-one" in os.listdir(f"/proc/{holder.pid}/cwd")
        holder.kill()
        holder.wait()
    cleaned(home)
    assert marks_on(home) == []


def test_a_held_read_only_overlay_is_swapped_at_once(
    home: Home, one: Extension, two: Extension, other_process: Start
) -> None:
    with merged(home, [one], Mode.READ_ONLY, [BIN]):
        holder = other_process(HOLD, str(home.seen / BIN))
        assert states(change(home, [two], Mode.READ_ONLY)) == APPLIED
        assert (home.seen / BIN / "tool").read_text() == "two"
        assert Path(f"/proc/{holder.pid}/cwd/tool").read_text() == "one"
        holder.kill()
        holder.wait()
    cleaned(home)


def test_what_is_in_memory_is_not_thrown_away_by_a_refresh(home: Home, one: Extension) -> None:
    with merged(home, [one], Mode.EPHEMERAL, [BIN]):
        overlays.sh("echo x > .local/bin/new", home.seen)
        (outcome,) = change(home, [one], Mode.EPHEMERAL)
        assert outcome.state is State.DEFERRED
        assert "lost" in outcome.reason
        assert "new" in listed(home)
        assert states(change(home, [one], Mode.EPHEMERAL, forced=True)) == APPLIED
        assert "new" not in listed(home)
    cleaned(home)


def test_what_an_extension_took_with_it_is_not_listed_as_deleted(
    home: Home, area: Path, two: Extension
) -> None:
    """The user's own directory, with a whiteout in it that is of no use any more."""
    with overlays.extension(area, "sub", {f"{BIN}/own/a": "a", f"{BIN}/own/b": "b"}) as sub:
        (home.stored / BIN / "own").mkdir()
        overlays.chown_all(home.stored)
        with merged(home, [sub], hierarchies=[BIN]):
            overlays.sh("rm .local/bin/own/a", home.seen)
            assert states(change(home, [two])) == APPLIED
            assert listed(home, f"{BIN}/own") == []
            overlays.sh("test ! -e .local/bin/own/a; echo x > .local/bin/own/a", home.seen)
            assert listed(home, f"{BIN}/own") == ["a"]
            overlays.sh("rm .local/bin/own/a", home.seen)
            assert states(change(home, [sub])) == APPLIED
            assert listed(home, f"{BIN}/own") == ["b"]
        cleaned(home)
        assert marks_on(home) == []
        # Empty, but the user's own.
        assert (home.stored / BIN / "own").is_dir()


def test_directories_come_and_go(home: Home, area: Path, two: Extension) -> None:
    files = {f"{SHARE}/a/x": "x", f"{BIN}/tool": "one"}
    with overlays.extension(area, "both", files) as both:
        before = overlays.picture(home.stored)
        with merged(home, [two], hierarchies=[BIN]):
            outcomes = change(home, [both], hierarchies=[BIN, SHARE])
            assert states(outcomes) == {BIN: State.APPLIED, SHARE: State.APPLIED}
            assert listed(home, SHARE) == ["a"]
            assert states(change(home, [both], hierarchies=[SHARE])) == {
                BIN: State.APPLIED, SHARE: State.APPLIED,
            }  # fmt: skip
            assert listed(home) == ["mine"]
            assert states(change(home, [], hierarchies=[])) == {SHARE: State.APPLIED}
            assert mounted_overlays_of(home) == []
            assert not (home.seen / SHARE).exists()
        cleaned(home)
        assert overlays.picture(home.stored) == before


def test_one_inside_another_waits_for_its_place(
    home: Home, area: Path, two: Extension, other_process: Start
) -> None:
    with overlays.extension(area, "wide", {".local/x": "", ".local/bin/tool": "wide"}) as wide:
        with merged(home, [two], hierarchies=[BIN]):
            holder = other_process(HOLD, str(home.seen / BIN))
            found = states(change(home, [wide], hierarchies=[".local"]))
            assert found == {BIN: State.DEFERRED, ".local": State.DEFERRED}
            assert (home.seen / BIN / "tool").read_text() == "two"
            holder.kill()
            holder.wait()
            found = states(change(home, [wide], hierarchies=[".local"]))
            assert found == {BIN: State.APPLIED, ".local": State.APPLIED}
            assert (home.seen / BIN / "tool").read_text() == "wide"
        cleaned(home)
        assert marks_on(home) == []


@pytest.mark.parametrize("mode", [Mode.WRITABLE, Mode.READ_ONLY])
def test_a_mount_of_somebody_else_on_top_is_left_alone(
    home: Home, one: Extension, two: Extension, mode: Mode
) -> None:
    with merged(home, [one], mode, [BIN]):
        subprocess.run(["mount", "-t", "tmpfs", "none", str(home.seen / BIN)], check=True)
        for wanted in ([two], []):
            (outcome,) = change(home, wanted, mode, [BIN] if wanted else [])
            assert outcome.state is State.DEFERRED
            assert listed(home) == []
        mounts.umount2(str(home.seen / BIN), 0)
        assert (home.seen / BIN / "tool").read_text() == "one"
    cleaned(home)


def test_a_failure_keeps_the_old_overlay(home: Home, one: Extension, two: Extension) -> None:
    with merged(home, [one], hierarchies=[BIN]):
        (outcome,) = change(home, [two] * 500)
        assert outcome.state is State.FAILED
        assert "the limit is" in outcome.reason
        overlays.sh("mv .homemgr .gone; ln -s /etc .homemgr", home.seen)
        (outcome,) = change(home, [two])
        assert outcome.state is State.FAILED
        overlays.sh("rm .homemgr; mv .gone .homemgr", home.seen)
        assert (home.seen / BIN / "tool").read_text() == "one"
        overlays.sh("rm .local/bin/tool; echo x > .local/bin/tool", home.seen)
    cleaned(home)
    assert marks_on(home) == []


def test_a_thousand_swaps_under_load_fail_no_open(
    home: Home, one: Extension, two: Extension
) -> None:
    with merged(home, [one], Mode.READ_ONLY, [BIN]):
        argv = [sys.executable, "-c", PROBE, str(home.seen / BIN / "tool")]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as probe:
            assert probe.stdout is not None
            assert probe.stdout.readline() == "ready\n"
            for number in range(1000):
                assert states(change(home, [(two, one)[number % 2]], Mode.READ_ONLY)) == APPLIED
            probe.terminate()
            good, bad, rest = probe.stdout.read().split(" ", 2)
        assert (bad, rest.strip()) == ("0", "['one', 'two'] []")
        assert int(good) > 1000
        with home.root() as root:
            assert list(mounted_overlays(root)) == [BIN]
    cleaned(home)
    assert not (home.stored / ".homemgr").exists()


def test_swaps_while_files_are_written_lose_nothing(
    home: Home, one: Extension, two: Extension
) -> None:
    """Each swap waits its turn or is put off; what was written is always all there."""
    done = threading.Event()
    written: list[int] = []

    def write() -> None:
        number = 0
        while not done.is_set():
            script = f"echo {number} > {number}; rm -f tool; echo mine > tool"
            subprocess.run(
                ["sh", "-euc", script], cwd=home.seen / BIN, check=True,
                user=overlays.USER, group=overlays.USER, extra_groups=[],
            )  # fmt: skip
            written.append(number)
            number += 1
            time.sleep(0.005)

    with merged(home, [one], hierarchies=[BIN]):
        writer = threading.Thread(target=write)
        writer.start()
        found = set()
        for number in range(30):
            found.add(change(home, [(two, one)[number % 2]])[0].state)
            time.sleep(0.01)
        done.set()
        writer.join()
        assert found <= {State.APPLIED, State.DEFERRED}
        assert written
        for number in written:
            assert (home.seen / BIN / str(number)).read_text() == f"{number}\n"
        assert (home.seen / BIN / "tool").read_text() == "mine\n"
    cleaned(home)
    assert marks_on(home) == []
    assert home.owners() == {(overlays.NOBODY, overlays.NOBODY)}
