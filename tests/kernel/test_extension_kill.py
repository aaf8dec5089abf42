"""Killed at any step, a login, refresh or logout leaves nothing that the next one does not mend."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.extension import attach
from homemgr.extension.attach import Mode
from homemgr.kernel import mounts
from homemgr.storage import mountpoint
from tests.kernel import jobs, overlays
from tests.kernel.overlays import BIN, NOBODY, SHARE, Home, cleaned, marks_on

#: System calls after which the home or the tree of mounts is another one.
CHANGING = (
    "mkdir,mkdirat,mknodat,symlinkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,"
    "removexattr,lremovexattr,fsconfig,fsmount,open_tree,mount_setattr,move_mount,umount2"
)

#: More of them than any step here makes.
MANY = 150

ONE = {f"{BIN}/tool": "one", f"{BIN}/other": "one", f"{SHARE}/app/a": "a", f"{SHARE}/app/b": "b"}
TWO = {f"{BIN}/tool": "two", f"{SHARE}/app/a": "two"}


def run_killed(step: str, at: int, area: Path, *trees: str) -> bool:
    """Run ``step`` and kill it at its ``at``-th changing call; whether it came to that."""
    argv = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={CHANGING}"]
    argv += ["-e", f"inject={CHANGING}:error=EINTR:signal=SIGKILL:when={at}", "--"]
    argv += [sys.executable, "-B", "-m", "tests.kernel.one_merge", step, str(area), *trees]
    done = subprocess.run(argv, cwd=jobs.ROOT, check=False)
    assert done.returncode in (0, -9, 137)
    return done.returncode != 0


def run(step: str, area: Path, *trees: str) -> None:
    argv = [sys.executable, "-B", "-m", "tests.kernel.one_merge", step, str(area), *trees]
    subprocess.run(argv, cwd=jobs.ROOT, check=True)


@contextmanager
def place(area: Path) -> Iterator[Home]:
    """A home, and the trees of two extensions that others open."""
    with (
        overlays.home(area) as home,
        overlays.extension(area, "one", ONE),
        overlays.extension(area, "two", TWO),
    ):
        yield home


def steps(first: int, every: int) -> Iterator[int]:
    yield from range(first, MANY, every)
    pytest.fail(f"it has more than {MANY} steps")


def log_out(home: Home) -> None:
    """What the next worker does, whatever the killed one left."""
    if mountpoint.is_active(str(home.seen)):
        mountpoint.take_away(str(home.seen))
    assert cleaned(home).problems == []
    assert marks_on(home) == []
    assert home.owners() == {(NOBODY, NOBODY)}


def test_a_killed_login_leaves_nothing(area: Path) -> None:
    with place(area) as home:
        before = overlays.picture(home.stored)
        for at in steps(1, 1):
            if not run_killed("login", at, area, "one.tree"):
                break
            # All of it or nothing can be seen.
            if mountpoint.is_active(str(home.seen)):
                assert (home.seen / BIN / "tool").read_text() == "one"
                assert (home.seen / SHARE / "app/a").read_text() == "a"
            log_out(home)
            assert overlays.picture(home.stored) == before
        log_out(home)
        assert overlays.picture(home.stored) == before


def test_a_killed_logout_forgets_nothing(area: Path) -> None:
    with place(area) as home:
        for at in steps(1, 2):
            log_in(home)
            overlays.sh(
                "rm .local/bin/other; echo mine > .local/bin/tool; rm -r .local/share/app;"
                " mkdir -p .local/share/own; rm -f .local/share/own/x; echo x > .local/share/own/x",
                home.seen,
            )
            was_killed = run_killed("logout", at, area)
            log_out(home)
            log_in(home)
            assert os.listdir(home.seen / BIN) == ["tool"]
            assert os.listdir(home.seen / SHARE) == ["own"]
            log_out(home)
            assert (home.stored / BIN / "tool").read_text() == "mine\n"
            # The same again from the start.
            subprocess.run(
                ["rm", "-rf", str(home.stored / ".local"), str(home.stored / ".homemgr")],
                check=True,
            )
            if not was_killed:
                break


def log_in(home: Home) -> None:
    area = home.stored.parent
    with overlays.idmapped(area / "one.tree", read_only=True) as mount:
        view = home.view()
        with overlays.wanted([overlays.Extension("one", mount)]) as wanted:
            assert attach.merge(view, wanted, attach.Options()).skipped == {}
        home.publish(view)


def test_a_killed_refresh_shows_the_old_or_the_new(area: Path) -> None:
    with place(area) as home:
        log_in(home)
        overlays.sh("rm .local/bin/other; echo mine > .local/bin/mine", home.seen)
        for at in steps(1, 2):
            was_killed = run_killed("refresh", at, area, "two.tree")
            assert (home.seen / BIN / "tool").read_text() in ("one", "two")
            assert (home.seen / SHARE / "app/a").read_text() in ("a", "two")
            # Nothing that was deleted comes back, nothing that was written goes.
            assert sorted(os.listdir(home.seen / BIN)) == ["mine", "tool"]
            run("refresh", area, "two.tree")
            assert (home.seen / BIN / "tool").read_text() == "two"
            run("refresh", area, "one.tree")
            assert sorted(os.listdir(home.seen / BIN)) == ["mine", "tool"]
            if not was_killed:
                break
        log_out(home)


def test_a_thousand_sessions_leave_nothing(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "one", ONE, "erofs") as one:
        before = overlays.picture(home.stored)
        for number in range(1000):
            view = home.view()
            with overlays.wanted([one], list(Mode)[number % 3], [BIN]) as wanted:
                assert attach.merge(view, wanted, attach.Options()).merged == [BIN]
            home.publish(view)
            # Without a look at every process of the machine, which is tested elsewhere.
            mounts.umount2(str(home.seen / BIN), 0)
            mounts.umount2(str(home.seen), 0)
            cleaned(home)
        assert overlays.picture(home.stored) == before
