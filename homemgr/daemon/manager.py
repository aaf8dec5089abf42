"""The daemon's whole: starts from what is on disk, registers and finds home areas.

Strings registry, store, jobs and accounts together; the faces on the bus and
on the user database socket call it and know nothing of the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import accounts, changes, closing, discovery, login
from homemgr.daemon.activity import Activities
from homemgr.daemon.balance import Balance
from homemgr.daemon.classic import Classic
from homemgr.daemon.conversions import Conversions
from homemgr.daemon.former_uid import former_uid
from homemgr.daemon.home import Home, Services, image_is_there
from homemgr.daemon.inspection import Inspection
from homemgr.daemon.leftovers import Leftovers
from homemgr.daemon.offers import Offers
from homemgr.daemon.registry import Registry
from homemgr.daemon.states import Operation
from homemgr.daemon.transfers import Transfers
from homemgr.record import storages
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret
from homemgr.record.signature import require_accepted, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.files import Fd
    from homemgr.record.jsontext import JsonObject

log = logging.getLogger(__name__)


class Manager:
    """Owner of every home of this daemon, from its start to its end."""

    def __init__(self, services: Services) -> None:
        """Know no home yet."""
        self.services = services
        self.registry = Registry(services.config.uid_range)
        self.leftovers = Leftovers(services, self.registry)
        self._discovering = asyncio.Lock()
        self.offers = Offers(self)
        self.activities = Activities()
        self.transfers = Transfers(self)
        self.classic = Classic(self)
        self.conversions = Conversions(self)
        self.inspection = Inspection(self)
        self.balance = Balance(self.registry, services.config)
        self._reloading: set[asyncio.Task[None]] = set()
        services.changed = self.registry.note_change
        services.activated = self.balance.activated
        services.vanished = self.registry.remove
        services.removing = self.conversions.removing
        services.writing = self.conversions.writing
        services.former_hashes = self.conversions.former_hashes
        services.reserving_names = self.registry.reserving_names
        services.keys.changed.append(self._keys_changed)

    # -- start and end ------------------------------------------------------------------

    async def start(self) -> None:
        """Load every record, finish what a killed daemon left half done, find unknown homes."""
        await asyncio.to_thread(self.services.store.prepare)
        await self.leftovers.forget_unfinished()
        for record in await asyncio.to_thread(lambda: list(self.services.store.load())):
            self._load(record)
        await self.transfers.recover()
        await self.classic.recover()
        await self.conversions.recover()
        await self.leftovers.sweep()
        await asyncio.to_thread(self._make_blob_directories)
        await self.leftovers.look_for_images()
        for home in self.registry:
            home.observe()
        await self.discover()
        await self.leftovers.close_homes()
        for home in self.registry:
            # Also of a home at rest: a session may be about to ask for the password.
            if home.references.recover():
                login.abandoned(home)
        self.balance.start()

    async def stop(self) -> None:
        """Write what is pending; homes stay as they are."""
        self.leftovers.close()
        self.offers.close()
        await self.balance.stop()
        await self.activities.stop()
        await self.classic.stop()
        await self.transfers.register.settle()
        await asyncio.gather(*self._reloading)
        await asyncio.gather(*(home.flush() for home in self.registry))
        for home in self.registry:
            home.close()

    def _keys_changed(self) -> None:
        """Look again at everything that signatures decide."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reload(self) -> None:
        """List homes whose stored record was not accepted before."""
        for record in await asyncio.to_thread(lambda: list(self.services.store.load())):
            home = self.registry.by_name(record.name)
            if home is not None and not home.is_fixated and not home.is_mounted:
                if not verdict(record, self.services.keyring).is_accepted:
                    continue
                async with home.undisturbed() as is_quiet:
                    # Found on disk so far, because its record did not count.
                    if not is_quiet or home.is_fixated:
                        continue
                    home.forget()
                home = None
            if home is None:
                await self._load_again(record)
        for home in list(self.registry):
            self.registry.note_change(home)

    async def _load_again(self, record: UserRecord) -> None:
        """List the home of ``record``, unless it was deleted since, or the name is taken by now."""
        try:
            with self.registry.reserving_names((record.name,)):
                if await asyncio.to_thread(self.services.store.has_record, record.name):
                    self._load(record)
        except errors.UserNameExists as error:
            log.warning("%s", error)
        listed = self.registry.by_name(record.name)
        if listed is not None and listed.is_fixated:
            listed.is_present = await asyncio.to_thread(image_is_there, listed.image_path)
            listed.observe()

    def _load(self, record: UserRecord) -> None:
        """List the home of a stored record, if a key we accept signed it."""
        try:
            require_accepted(record, self.services.keyring)
        except errors.BadSignature as error:
            self.services.keys.note_refused(error)
            log.error("Ignoring the record of user %s: %s", record.name, error)
            return
        if record.on(self.services.machine).uid is None:
            log.error("Ignoring the record of user %s: it has no uid on this machine.", record.name)
            return
        home = Home(self.services, record, is_fixated=True)
        if self._has_uid_alone(home):
            self.enlist(home)

    def _has_uid_alone(self, home: Home) -> bool:
        """Whether no other home has the uid, so that none shows its files to another's user.

        Who has it in use keeps it, else who had it first. The other's record stays on
        disk; its files are found there, and used with a uid of their own.
        """
        other = self.registry.by_uid(home.uid)
        if other is None:
            return True
        home.observe()
        other.observe()
        wins = home.is_mounted and not other.is_mounted
        loser = other if wins else home
        log.error(
            "Ignoring the record of user %s: its uid %d is that of user %s. The home gets"
            " another uid when it is used next; to undo that, move one of the records away.",
            loser.name,
            home.uid,
            (home if wins else other).name,
        )
        if wins:
            other.forget()
        return wins

    def enlist(self, home: Home) -> None:
        """Know ``home`` from now on."""
        home.on_abandoned = login.abandoned
        home.on_worker_died = closing.see_to
        self.registry.add(home)

    def _make_blob_directories(self) -> None:
        try:
            for home in list(self.registry):
                self.services.store.make_blob_directory(home.name)
            self.services.store.forget_blobs_of_nobody()
        except (errors.HomeError, OSError) as error:
            # A full disk must not keep users out.
            log.warning("Public files are not in order: %s", error)

    # -- homes that lie on disk ---------------------------------------------------------

    async def discover(self) -> None:
        """Look which images are there, and list those that no record describes."""
        # One at a time: two would both find what is new.
        async with self._discovering:
            await self._discover()
            await self.offers.look()

    async def discover_partitions(self) -> None:
        """See which homes on partitions came and went, by what is known of those."""
        async with self._discovering:
            await self.offers.look()

    async def _discover(self) -> None:
        found = await asyncio.to_thread(discovery.scan, self.services.config.usual_directories)
        images = [image for in_one in found.values() for image in in_one]
        for image in images:
            await self._notice(image)
        paths = {image.path for image in images}
        for home in list(self.registry):
            is_present = home.image_path in paths
            if is_present != home.is_present and os.path.dirname(home.image_path) in found:
                await self.look_again(home)
        log.debug("%d home areas are known.", len(self.registry))

    async def look_again(self, home: Home, *, is_welcome: bool = True) -> bool:
        """See whether the image is there: much may have happened since the directory was read.

        What is there and not ``is_welcome`` counts for nothing. False if something goes on with
        the home, and it was not looked at.
        """
        async with home.undisturbed() as is_quiet:
            if not is_quiet:
                # Who changes the home sees himself whether its files are there.
                return False
            is_there = await asyncio.to_thread(image_is_there, home.image_path)
            is_present = is_welcome and is_there
            if not is_present and not home.is_fixated and not home.is_mounted:
                home.forget()
            elif is_present != home.is_present:
                home.is_present = is_present
                self.registry.note_change(home)
        return True

    async def _notice(self, image: discovery.Image) -> None:
        """List an image as unfixated unless its name is known or taken."""
        if self.transfers.register.hides(image.path):
            return
        home = self.registry.by_name(image.user)
        if home is not None and home.name != image.user:
            log.warning("Ignoring %s: its name is an alias of %s.", image.path, home.name)
        elif home is not None and home.is_fixated and not home.image_path:
            await self._bind(home, image)
        if self.registry.by_name(image.user) or await accounts.name_taken(image.user):
            return
        try:
            await self.admit_image(image)
        except errors.HomeError as error:
            log.warning("Ignoring %s: %s", image.path, error)

    async def _bind(self, home: Home, image: discovery.Image) -> None:
        """The files of a user who was registered without: from now on these are his."""
        members: JsonObject = {"imagePath": image.path, **storages.members(image.storage)}
        try:
            async with home.exclusively(Operation.ADOPT):
                # Not the files of a creation that had not told yet where they are.
                if home.image_path or home.record.realm != image.realm:
                    return
                machine_id = self.services.machine.id
                await home.store_record(home.record.with_binding(machine_id, members))
        except errors.HomeError as error:
            log.warning("%s is not taken for home area %s: %s", image.path, home.name, error)

    async def admit_image(self, image: discovery.Image) -> None:
        """List an image as unfixated; raises UserNameExists, TooManyHomes."""
        await accounts.require_free((image.user,))
        with self.registry.reserving_names((image.user,)):
            record = discovery.synthetic_record(
                image, self.services.machine.id, self.services.config.home_root
            )
            former = await former_uid(self.services, image, record)
            uid = await self.registry.reserve_uid(image.user, None, former, accounts.id_taken)
            try:
                # Removed meanwhile, perhaps by us: nobody must see it come back.
                if not await asyncio.to_thread(image_is_there, image.path):
                    raise errors.HomeAbsent(f"{image.path} has just disappeared.")
                known = record.with_binding(self.services.machine.id, {"uid": uid, "gid": uid})
                self.enlist(Home(self.services, known, is_fixated=False))
            finally:
                self.registry.release_uid(uid)

    # -- operations without a home to begin with -------------------------------------------

    async def create(
        self, text: str, blobs: Mapping[str, Fd] | None = None, *, by_hash: bool = False
    ) -> None:
        """Register and make the home area a client's record describes.

        ``by_hash``: without the passwords behind its hashes, for whoever answers for them.
        """
        offered = UserRecord.parse(text)
        secret = Secret.of_record(offered)
        record = await changes.admit_new(self.services, offered, blobs)
        home = await self.admit(record)
        with ExitStack() as on_failure:
            on_failure.callback(home.forget)
            # Of a new home there is nothing to leave as it was.
            await changes.create(home, secret, blobs or {}, by_hash=by_hash)
            on_failure.pop_all()

    async def admit(self, record: UserRecord) -> Home:
        """List the home of a new record under a name and uid that nobody has; stores nothing.

        Raises UserNameExists, UIDInUse, UIDNotAllowed, TooManyHomes.
        """
        effective = record.on(self.services.machine)
        with self.registry.reserving_names(effective.lookup_names):
            if await asyncio.to_thread(self.services.store.has_record, record.name):
                raise errors.UserNameExists(
                    f"A record of {record.name} exists that this service could not accept; "
                    "see the log, and move it away if it is not needed."
                )
            await accounts.require_free((record.name, *effective.aliases))
            # Of who had the name before, if a kill left any.
            await self.services.extensions.forget(record.name)
            wanted = effective.uid
            uid = await self.registry.reserve_uid(record.name, wanted, None, accounts.id_taken)
            return self._provisional(record, uid)

    def _provisional(self, record: UserRecord, uid: int) -> Home:
        """List a home that is about to be created, so that name and uid are seen as taken."""
        blob_directory = self.services.store.blob_directory(record.name)
        binding: JsonObject = {"uid": uid, "gid": uid, "blobDirectory": blob_directory}
        bound = record.with_binding(self.services.machine.id, binding)
        home = Home(self.services, bound, is_fixated=True)
        home.is_present = False
        try:
            self.enlist(home)
        finally:
            self.registry.release_uid(uid)
        return home

    async def deactivate_all(self) -> None:
        """Deactivate every active home; raises the first failure after trying all."""
        active = [home for home in self.registry if home.resting.is_active or home.is_yielding]
        results = await asyncio.gather(
            *(login.release_by_force(home) for home in active), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
