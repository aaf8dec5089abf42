"""Killed at any step, a login, refresh or logout leaves nothing that the next one does not mend."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from homemgr.extension import attach
from homemgr.extension.attach import Mode
from homemgr.extension.refresh import State, refresh
from homemgr.extension.stack import Options
from homemgr.kernel import mounts
from homemgr.storage import mountpoint
from tests.kernel import forks, kills, overlays
from tests.kernel.kills import Step
from tests.kernel.overlays import BIN, NOBODY, SHARE, Home, cleaned, marks_on

#: System calls after which the home or the tree of mounts is another one.
CHANGING = (
    *("mkdir", "mkdirat", "mknodat", "symlinkat", "rename", "renameat", "renameat2"),
    *("unlink", "unlinkat", "rmdir", "fsync", "removexattr", "lremovexattr"),
    *("fsmount", "open_tree", "mount_setattr", "move_mount", "umount2"),
)

ONE = {f"{BIN}/tool": "one", f"{BIN}/other": "one", f"{SHARE}/app/a": "a", f"{SHARE}/app/b": "b"}
TWO = {f"{BIN}/tool": "two", f"{BIN}/new": "two", f"{SHARE}/app/a": "two"}


def run(strace: Sequence[str], step: str, area: Path, *trees: str) -> bytes:
    """Run ``step``; what it said at its end."""
    return forks.start("tests.kernel.one_merge", step, str(area), *trees, strace=strace).wait()


def recorded(trace: Path, step: str, area: Path, *trees: str) -> list[Step]:
    """Run ``step`` to its end; the calls it made, in their order."""
    assert run(kills.recording(trace, CHANGING), step, area, *trees) == forks.DONE
    return kills.recorded(trace, CHANGING)


def run_killed(at: Step, step: str, area: Path, *trees: str) -> None:
    """Run ``step`` and kill it on entry to the call ``at``."""
    assert run(kills.killing(at), step, area, *trees) == b"", at


@contextmanager
def place(area: Path) -> Iterator[Home]:
    """A home, and the trees of two extensions that others open."""
    with (
        overlays.home(area) as home,
        overlays.extension(area, "one", ONE),
        overlays.extension(area, "two", TWO),
    ):
        yield home


def log_out(home: Home) -> None:
    """What the next worker does, whatever the killed one left."""
    if mountpoint.is_active(str(home.seen)):
        # Everything in it too, and each only if nothing holds it.
        subprocess.run(["umount", "-R", str(home.seen)], check=True)
    assert cleaned(home).problems == []
    assert marks_on(home) == []
    assert home.owners() == {(NOBODY, NOBODY)}


def test_a_killed_login_leaves_nothing(area: Path, tmp_path: Path) -> None:
    with place(area) as home:
        before = overlays.picture(home.stored)
        for at in recorded(tmp_path / "trace", "login", area, "one.tree"):
            log_out(home)
            assert overlays.picture(home.stored) == before
            run_killed(at, "login", area, "one.tree")
            # All of it or nothing can be seen.
            if mountpoint.is_active(str(home.seen)):
                assert (home.seen / BIN / "tool").read_text() == "one"
                assert (home.seen / SHARE / "app/a").read_text() == "a"
        log_out(home)
        assert overlays.picture(home.stored) == before


def test_a_killed_logout_forgets_nothing(area: Path, tmp_path: Path) -> None:
    with place(area) as home:
        use_it(home)
        for at in recorded(tmp_path / "trace", "logout", area):
            use_it(home)
            run_killed(at, "logout", area)
            log_out(home)
            log_in(home)
            assert os.listdir(home.seen / BIN) == ["tool"]
            assert os.listdir(home.seen / SHARE) == ["own"]
            log_out(home)
            assert (home.stored / BIN / "tool").read_text() == "mine\n"


def use_it(home: Home) -> None:
    """A session in a home that knows of no other, with something to remember in it."""
    for name in (".local", ".homemgr"):
        shutil.rmtree(home.stored / name, ignore_errors=True)
    log_in(home)
    overlays.sh(
        "rm .local/bin/other; echo mine > .local/bin/tool; rm -r .local/share/app;"
        " mkdir .local/share/own; echo x > .local/share/own/x",
        home.seen,
    )


def log_in(home: Home) -> None:
    with opened(home, "one") as wanted:
        view = home.view()
        assert attach.merge(view, wanted, Options()).skipped == {}
        home.publish(view)


@contextmanager
def opened(home: Home, name: str) -> Iterator[list[attach.Wanted]]:
    """The extension ``name`` for both directories."""
    tree = home.stored.parent / f"{name}.tree"
    with (
        overlays.idmapped(tree, read_only=True) as mount,
        overlays.wanted([overlays.Extension(name, mount)]) as wanted,
    ):
        yield wanted


def test_a_killed_refresh_shows_the_old_or_the_new(area: Path, tmp_path: Path) -> None:
    with place(area) as home:
        use_it(home)
        for at in recorded(tmp_path / "trace", "refresh", area, "two.tree"):
            log_out(home)
            use_it(home)
            run_killed(at, "refresh", area, "two.tree")
            # Nothing that was deleted comes back, nothing that was written goes.
            assert (home.seen / BIN / "tool").read_text() == "mine\n"
            assert os.listdir(home.seen / BIN) in (["tool"], ["tool", "new"], ["new", "tool"])
            assert os.listdir(home.seen / SHARE) == ["own"]
            change(home, "two")
            assert sorted(os.listdir(home.seen / BIN)) == ["new", "tool"]
            assert os.listdir(home.seen / SHARE) == ["own"]
        log_out(home)


def change(home: Home, name: str) -> None:
    with opened(home, name) as wanted, home.root() as root:
        outcomes = refresh(root, wanted, Options())
    assert {outcome.state for outcome in outcomes} == {State.APPLIED}, outcomes


def test_a_thousand_sessions_leave_nothing(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "one", ONE, "erofs") as one:
        before = overlays.picture(home.stored)
        for number in range(1000):
            view = home.view()
            with overlays.wanted([one], list(Mode)[number % 3], [BIN]) as wanted:
                assert attach.merge(view, wanted, Options()).merged == [BIN]
            home.publish(view)
            # Without a look at every process of the machine, which is tested elsewhere.
            mounts.umount2(str(home.seen / BIN), 0)
            mounts.umount2(str(home.seen), 0)
            cleaned(home)
        assert overlays.picture(home.stored) == before
