"""Carrying out a plan and taking it back, step by step, in words.

Every change goes through the journal first, so that a setup that was
interrupted can be completed or undone. Knows nothing of what the files mean.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.cli.setup import live, pam, plan
from homemgr.cli.setup.journal import Journal
from homemgr.errors import HomeBusy, NotSupported
from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.cli.setup.journal import Change
    from homemgr.cli.setup.plan import Plan, Step
    from homemgr.cli.setup.tree import Tree

    Say = Callable[[str], None]

_HOMED_RAN = "homed_was_running"


def setup(tree: Tree, programs: str, say: Say) -> None:
    """Put everything in place; run twice it completes or renews what is there."""
    with _alone(tree):
        journal = Journal(tree)
        if journal.exists and not journal.complete:
            say("remark:   an earlier setup was interrupted, completing it")
        # Everything that can be refused is refused before anything is changed.
        todo = plan.make(tree, journal, programs)
        is_first = not journal.exists
        if live.is_running(tree):
            # setdefault: at a second setup it is ours that runs.
            journal.facts.setdefault(_HOMED_RAN, live.is_active(live.HOMED))
        journal.complete = False
        journal.save()
        try:
            changed = _carry_out(tree, journal, todo, say)
        except BaseException:
            # Half way neither service runs, and nobody can log in. Of a later setup
            # the earlier one is still there, and works.
            if is_first:
                say("failed:   taking back what was done so far")
                _take_back(tree, journal, say)
            raise
        journal.complete = True
        journal.save()
        for remark in todo.remarks:
            say(f"remark:   {remark}")
        say(f"Set up: {sum(changed)} of {len(changed)} steps had something to change.")


def _carry_out(tree: Tree, journal: Journal, todo: Plan, say: Say) -> list[bool]:
    """Do every step; says of each whether there was something to change."""
    if live.is_running(tree):
        live.stop_homed(say)
    changed = [_apply(tree, journal, step, say) for step in todo.steps]
    _drop_obsolete(tree, journal, {step.path for step in todo.steps}, say)
    pam.enable(tree, journal, say)
    if live.is_running(tree):
        live.take_over(say)
    return changed


def unsetup(tree: Tree, say: Say) -> None:
    """Put back everything that setup changed."""
    with _alone(tree):
        journal = Journal(tree)
        if not journal.exists:
            say(f"Nothing to do: {tree.root} was not set up.")
            return
        journal.complete = False
        journal.save()
        _take_back(tree, journal, say)
        say("Everything that setup changed is as it was before.")


def _take_back(tree: Tree, journal: Journal, say: Say) -> None:
    # First, as it alone can refuse: a stack edited by hand is left to its editor.
    pam.disable(tree, journal, say)
    if live.is_running(tree):
        live.stop_ours(say)
    # Backwards, as it was made: links before the units they point to.
    for change in reversed(journal.changes):
        _restore(tree, change, say)
    if live.is_running(tree):
        live.give_back(tree, say, homed_ran=journal.facts.get(_HOMED_RAN, False))
    journal.erase()


def lock_path(tree: Tree) -> str:
    """A file of root's own for each tree: anybody may lock a directory he can read."""
    found = os.stat(tree.root)
    return f"/run/homemgr-setup-{found.st_dev}-{found.st_ino}.lock"


@contextmanager
def _alone(tree: Tree) -> Iterator[None]:
    """Two of these at once would each remember the other's work as the original."""
    path = lock_path(tree)
    with Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)) as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HomeBusy(f"Another setup or unsetup works on {tree.root} right now.") from error
        if os.fstat(lock.fileno()).st_nlink == 0:
            # Its owner finished between our two calls, and took the file away.
            raise HomeBusy(f"Another setup or unsetup of {tree.root} has ended just now.")
        try:
            yield
        finally:
            os.unlink(path)


def _apply(tree: Tree, journal: Journal, step: Step, say: Say) -> bool:
    before = tree.state(step.path)
    known = journal.find(step.path)
    if before == step.wanted and known:
        say(f"in place: {step.path}")
        return False
    if known and not known.accounts_for(before):
        raise NotSupported(
            f"{step.path} was changed after the earlier setup, by somebody else. "
            "Put it back or remove it, then run setup again."
        )
    # Noted one by one, so that unsetup removes exactly those that were not there.
    for directory in tree.missing_directories(step.path):
        journal.directories.append(directory)
        journal.save()
        tree.make_directory(directory)
    journal.note(step.path, before, step.wanted)
    journal.save()
    tree.make(step.path, step.wanted)
    say(f"{'replaced' if before else 'new':9} {step.describe()}")
    return True


def _drop_obsolete(tree: Tree, journal: Journal, wanted: set[str], say: Say) -> None:
    """Undo steps of an earlier setup that this one no longer has."""
    for change in [c for c in journal.changes if c.path not in wanted]:
        _restore(tree, change, say)
        journal.changes.remove(change)
        journal.save()


def _restore(tree: Tree, change: Change, say: Say) -> None:
    now = tree.state(change.path)
    if now == change.before:
        return
    if change.accounts_for(now):
        before = None if _is_of_removed_homed(tree, change) else change.before
        tree.make(change.path, before)
        say(f"{'restored' if before else 'removed':9} {change.path}")
    elif change.before is None and now is not None:
        # Ours, but edited since: out of effect, yet not lost.
        kept = f"{change.path}~"
        tree.make(kept, now)
        tree.make(change.path, None)
        say(f"removed   {change.path}, which was edited since setup; kept as {kept}")
    else:
        say(f"remark:   {change.path} was changed since setup and is left as it is")


def _is_of_removed_homed(tree: Tree, change: Change) -> bool:
    """Whether the original was a link to a unit of systemd-homed, which is not there any more."""
    target = change.before.target if change.before else None
    theirs = (live.HOMED, live.HOMED_ACTIVATE, live.HOMED_FIRSTBOOT)
    is_theirs = os.path.basename(target or "") in theirs
    return is_theirs and not live.is_homed_installed(tree)
