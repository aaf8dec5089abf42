"""Checks homes and repairs them: what workers find on disk, and what the service itself keeps.

A repair first puts the host copy in order, as what is in the home is judged by it. Codes
and words are those of ``record.findings``.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import host_inspection, key_inspection, snapshots
from homemgr.daemon.receiving import ARRIVING_PREFIX, ARRIVING_ROOM_PREFIX
from homemgr.daemon.sending import LEFT_PREFIX
from homemgr.daemon.states import Job, Operation
from homemgr.record.findings import CODES, Finding
from homemgr.record.names import is_remote
from homemgr.record.secret import Secret

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.daemon.manager import Manager
    from homemgr.record.jsontext import JsonObject

Findings = list["JsonObject"]


_OF_TRANSFERS = (ARRIVING_PREFIX, ARRIVING_ROOM_PREFIX, LEFT_PREFIX)


class Inspection:
    """Looks after the homes of one manager."""

    def __init__(self, manager: Manager) -> None:
        """Look at nothing yet."""
        self._manager = manager
        self._services = manager.services

    async def check(self, user: str, *, mends: bool = False) -> Findings:
        """What is wrong with the home of ``user``; empty: with the machine and all homes.

        With ``mends`` it is mended where that is safe. Raises NoSuchHome.
        """
        if user:
            return await self._check_user(user, mends=mends)
        found = await self._check_machine(mends=mends)
        names = {home.name for home in self._manager.registry}
        names |= set(await asyncio.to_thread(self._services.store.names))
        for name in sorted(names):
            try:
                found += await self._check_user(name, mends=mends)
            except (errors.HomeMoved, errors.NoSuchHome):
                # Another machine's by now, or removed meanwhile.
                continue
            except errors.HomeError as error:
                found.append(Finding("unchecked", name, error.message).to_json(name))
        return found

    # -- one home ----------------------------------------------------------------------

    async def _check_user(self, user: str, *, mends: bool) -> Findings:
        home = self._manager.registry.by_name(user)
        if home is None:
            return await self._check_record_alone(user)
        # In the background: a login waits for the end, and does not fail.
        async with home.exclusively(Operation.INSPECT, queued=True, background=True):
            own = await self._host_copy(home, mends=mends) + self._markers(home, mends=mends)
            told = [finding.to_json(home.name) for finding in own]
            result = await self._look(home, Job.CHECK)
            # A snapshot of what is whole would take the place of one that is needed.
            if mends and any(one["can_repair"] for one in _of(result, home.name)):
                await snapshots.before(home, "repair")
                result = await self._look(home, Job.REPAIR)
        return told + _of(result, home.name)

    async def _look(self, home: Home, job: Job) -> dict[str, object]:
        return await home.work(
            job,
            Secret(),
            merged=self._services.extensions.merged(home),
        )

    async def _check_record_alone(self, user: str) -> Findings:
        """Of a user whose record does not count, and whose home was not found."""
        store = self._services.store
        if not await asyncio.to_thread(store.has_record, user):
            raise errors.NoSuchHome(f"No home area for user {user} is known.")
        found = await asyncio.to_thread(
            host_inspection.look, store, user, self._services.keyring, is_known=False
        )
        return [finding.to_json(user) for finding in found]

    async def _host_copy(self, home: Home, *, mends: bool) -> list[Finding]:
        services = self._services
        found = await asyncio.to_thread(
            host_inspection.look,
            services.store,
            home.name,
            services.keyring,
            is_known=home.is_fixated and home.verdict.is_accepted,
        )
        if not mends:
            return found
        return [await self._mend_host_copy(home, one) if one.can_repair else one for one in found]

    async def _mend_host_copy(self, home: Home, finding: Finding) -> Finding:
        store = self._services.store
        try:
            if finding.code == "record-mode":
                await asyncio.to_thread(store.protect, home.name)
            else:
                if finding.code != "record-missing":
                    await asyncio.to_thread(store.keep_aside, home.name)
                await home.store_record(home.record)
        except errors.HomeError as error:
            return finding._replace(failed=error.message)
        return _done(finding)

    def _markers(self, home: Home, *, mends: bool) -> list[Finding]:
        """Reference files of sessions that are over: none of a home at rest is to be there."""
        if home.resting.is_active or home.references.held:
            return []
        stale = home.references.files()
        if not stale:
            return []
        finding = Finding("marker-stale", stale[0], can_repair=True)
        if mends:
            home.references.forget()
            finding = _done(finding)
        return [finding]

    # -- the machine -------------------------------------------------------------------

    async def _check_machine(self, *, mends: bool) -> Findings:
        services = self._services
        directories = {os.path.dirname(home.image_path) for home in self._manager.registry}
        directories = {"", *services.config.usual_directories} | {
            directory for directory in directories if not is_remote(directory)
        }
        look = key_inspection.mend if mends else key_inspection.look
        found = await asyncio.to_thread(look, services.config, services.keyring)
        found += await asyncio.to_thread(self._transfers)
        told = [finding.to_json() for finding in found]
        verb = "repair-places" if mends else "check-places"
        places = sorted(directories - {""})
        rooms = self._manager.conversions.rooms()
        try:
            result = await services.runner.run(verb, {"directories": places})
        except errors.HomeError as error:
            return [*told, Finding("unchecked", ", ".join(places), error.message).to_json()]
        # Those that came meanwhile, and those that went.
        rooms |= self._manager.conversions.rooms()
        return told + [
            one
            for one in _of(result, "")
            if one["code"] != "leftover-room" or one["object"] not in rooms
        ]

    def _transfers(self) -> list[Finding]:
        """Trees of transfers that no transfer tells of; blocks."""
        directory = self._services.config.base_directory
        known = self._manager.transfers.register.aside_names()
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            return []
        return [
            Finding("leftover-transfer", os.path.join(directory, name))
            for name in names
            if name.startswith(_OF_TRANSFERS) and name not in known
        ]


def _done(finding: Finding) -> Finding:
    return finding._replace(done=CODES[finding.code].repair)


def _of(result: dict[str, object], user: str) -> Findings:
    """The findings of a worker, with whose home they are about."""
    found = result.get("findings")
    assert isinstance(found, list)
    return [{**one, "user": user} for one in found]
