"""Operations on the extensions of a home: status, refresh, differences, the user's choice.

What a home has merged is known from the worker that merged it, and kept in the
runtime directory so that a new daemon knows it too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors, files
from homemgr.daemon import extensions, snapshots
from homemgr.daemon.states import Job, Operation
from homemgr.record.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from homemgr.daemon.extensions import Choices, Rules
    from homemgr.daemon.home import Home
    from homemgr.daemon.jobs import JobRunner
    from homemgr.job import Message

log = logging.getLogger(__name__)

_MAX_STATUS_BYTES = 1 << 20


class Progress(NamedTuple):
    """The step of a refresh that begins: ``open`` an extension, or ``merge`` a directory."""

    step: str
    subject: str
    done: int
    total: int


class Extensions:
    """The extensions of every home of one daemon."""

    def __init__(
        self, rules: Rules, choices: Choices, runner: JobRunner, runtime_directory: str
    ) -> None:
        """Give out by ``rules`` and ``choices``; what is merged is noted in the directory."""
        self.rules = rules
        self._runner = runner
        #: Everybody may ask for the list, and it opens every extension: one at a time.
        self._choosing = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._listed: dict[str, object] | None = None
        self._listed_at = 0.0
        self._choices = choices
        self._directory = os.path.join(runtime_directory, "homemgr")
        #: Names of the homes that have a note: for most there is nothing to read or forget.
        self._noted = _notes_in(self._directory)
        #: Whether workers may have left mounts of images for others.
        self._are_mounts_kept = False
        #: Told of a home whose merged extensions changed.
        self.changed: list[Callable[[Home], None]] = []
        #: Told how far a refresh is, before each of its steps.
        self.progressed: list[Callable[[Home, Progress], None]] = []

    async def reload(self, environment: Mapping[str, str]) -> None:
        """Read the administrator's rules again; if they are wrong, the old ones stay.

        InvalidArgs names what is wrong. Homes in use change with a refresh or a login.
        """
        self.rules = await asyncio.to_thread(extensions.load, environment)

    # -- what a user gets --------------------------------------------------------------

    def order(self, home: Home) -> dict[str, object] | None:
        """What a worker is told to merge; None if the user has no extensions."""
        # Nobody can have chosen where the administrator offers nothing: no file to read.
        chosen = self._choices.of(home.name) if self.rules.extensions else ()
        wanted = extensions.wanted(self.rules, home.effective, chosen)
        if not wanted:
            return None
        self._are_mounts_kept = True
        return {
            "names": [one.name for one in wanted],
            "required": [one.name for one in wanted if one.is_required],
            "mutability": extensions.mutability(self.rules, home.effective),
            **self._where(),
        }

    def merged(self, home: Home) -> dict[str, object] | None:
        """What a worker is told to have been merged last; None if nobody knows."""
        if home.name not in self._noted:
            return None
        found = self._note_of(home).get("extensions")
        entries = found if isinstance(found, list) else []
        return {"names": [str(entry["name"]) for entry in entries], **self._where()}

    def _where(self) -> dict[str, object]:
        """Where extensions are, and what is allowed of them."""
        return {
            "directories": list(self.rules.directories),
            "maps_root": self.rules.maps_root,
            "needs_signature": self.rules.needs_signature,
        }

    def chosen(self, user: str) -> tuple[str, ...]:
        """The user's own extensions."""
        return self._choices.of(user)

    async def choose(self, home: Home, name: str, *, is_chosen: bool) -> None:
        """Add ``name`` to the user's own extensions or take it away; applies at the next login.

        Raises AccessDenied if the administrator does not let this user choose it.
        """
        # One at a time, or of two choices the later one would undo the earlier.
        async with self._choosing:
            chosen = set(self._choices.of(home.name))
            if is_chosen:
                if not extensions.may_choose(self.rules, home.effective, name):
                    raise errors.AccessDenied(
                        f"Extension {name} is not offered to {home.name} by the administrator."
                    )
                chosen.add(name)
            else:
                chosen.discard(name)
            await asyncio.to_thread(self._choices.store, home.name, chosen)

    async def forget(self, user: str) -> None:
        """Know nothing of ``user``: the name is for somebody else from now on."""
        async with self._choosing:
            try:
                await asyncio.to_thread(self._choices.forget, user)
            except OSError as error:
                log.warning("The extensions %s chose stay chosen: %s", user, error)

    def offered(self, home: Home) -> list[str]:
        """The extensions this user may choose."""
        names = sorted(self.rules.extensions)
        return [n for n in names if extensions.may_choose(self.rules, home.effective, n)]

    # -- what there is -----------------------------------------------------------------

    async def inventory(self, *, max_age_s: float = 0.0) -> dict[str, object]:
        """All extensions of this machine, and why some cannot be used.

        As they were when asked or later, or up to ``max_age_s`` before.
        """
        clock = asyncio.get_running_loop().time
        asked = clock()
        async with self._listing:
            # Whoever waited meanwhile has the same answer: a flood costs one look at a time.
            if self._listed is None or self._listed_at < asked - max_age_s:
                self._listed_at = clock()
                self._listed = None
                told = {"extensions": self._where()}
                self._listed = await self._runner.run("inventory", told)
            return self._listed

    async def trust(self, name: str, *, is_trusted: bool) -> dict[str, object]:
        """Store the digests of an extension's images as they are now, or forget them."""
        verb = "trust" if is_trusted else "distrust"
        return await self._runner.run(verb, {"name": name, "extensions": self._where()})

    # -- what is merged -------------------------------------------------------------------

    async def note(self, home: Home, report: object) -> None:
        """Keep what a worker told; None forgets it."""
        if report is not None or home.name in self._noted:
            try:
                await asyncio.to_thread(self._store_report, home, report)
            except OSError as error:
                # Of use to who asks; the home is what it is without it.
                log.warning("What is merged into home area %s is not noted: %s", home.name, error)
            for listener in self.changed:
                listener(home)
        self.settle()

    def settle(self) -> None:
        """Let go of what is kept mounted for the next user, once there is none left."""
        if self._are_mounts_kept and not self._noted:
            self._are_mounts_kept = False
            self._runner.forget_mounts()

    def _store_report(self, home: Home, report: object) -> None:
        if isinstance(report, dict):
            for entry in report.get("extensions", []):
                for reason in entry.get("reasons", []):
                    log.warning("Home area %s: %s", home.name, reason)
            self._keep_report(home.name, json.dumps(report).encode())
        else:
            self._noted.discard(home.name)
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, f"{home.name}.json"))

    def _keep_report(self, user: str, text: bytes) -> None:
        # For `status` alone: the home is in use already, and a full disk must not take it away.
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            files.write_atomically(self._directory, f"{user}.json", text, 0o600)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            log.warning("What is merged into home area %s cannot be noted: %s", user, reason)
        else:
            self._noted.add(user)

    def status(self, home: Home) -> dict[str, object]:
        """What is merged now, what is wanted, and what the user may choose."""
        order = self.order(home) or {}
        return {
            "user": home.name,
            "active": home.is_active,
            "wanted": order.get("names", []),
            "required": order.get("required", []),
            "chosen": list(self._choices.of(home.name)),
            "offered": self.offered(home),
            "mutability": extensions.mutability(self.rules, home.effective),
            "home_mode": home.effective.home_mode,
            **(self._note_of(home) if home.is_active else {}),
        }

    def _note_of(self, home: Home) -> dict[str, object]:
        try:
            text = files.read_bounded(self._directory, f"{home.name}.json", _MAX_STATUS_BYTES)
            noted = json.loads(text)
        except (OSError, ValueError):
            # Too long as well: a home that ends must not stay for that.
            return {}
        return noted if isinstance(noted, dict) else {}

    # -- changes to a home ------------------------------------------------------------------

    async def refresh(self, home: Home, *, is_forced: bool) -> dict[str, object]:
        """Merge what is wanted now into the home in use; tells what waits for the next login."""
        async with home.exclusively(Operation.DEACTIVATE):
            result = await home.work(
                Job.REFRESH,
                Secret(),
                on_progress=lambda told: self._tell(home, told),
                extensions=self.order(home),
                merged=self.merged(home),
                is_forced=is_forced,
            )
        if "extensions" in result:
            await self.note(home, result["extensions"])
        return result

    def _tell(self, home: Home, told: Message) -> None:
        step, subject = str(told["step"]), str(told["subject"])
        done, total = told["done"], told["total"]
        assert isinstance(done, int)
        assert isinstance(total, int)
        for listener in self.progressed:
            listener(home, Progress(step, subject, done, total))

    async def differences(self, home: Home) -> dict[str, object]:
        """What the user deleted or changed of what extensions bring."""
        async with home.exclusively(Operation.UPDATE_OFFLINE):
            return await home.work(Job.DIFFERENCE, Secret(), extensions=self.order(home))

    async def discard(
        self, home: Home, paths: Sequence[str], *, has_changed: bool
    ) -> dict[str, object]:
        """Drop differences: of ``paths``, or all if there are none."""
        async with home.exclusively(Operation.UPDATE_OFFLINE):
            await snapshots.before(home, "extension discard")
            return await home.work(
                Job.DISCARD,
                Secret(),
                extensions=self.order(home),
                chosen=list(paths) or None,
                has_changed=has_changed,
            )


def _notes_in(directory: str) -> set[str]:
    """Whose notes an earlier daemon left."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return set()
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}
