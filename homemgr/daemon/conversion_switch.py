"""The old and the new home of a conversion change places, or change back: done to the end.

What is about to happen is on disk before; so each step may be repeated, after a failure by
the same command and after a kill at the next start. What is out of place then is deleted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from homemgr import errors
from homemgr.daemon import leases, snapshots
from homemgr.daemon.conversion_plan import passwords_of
from homemgr.daemon.conversion_states import DROPPING, KEPT, MAKING, RETURNING, SWITCHING
from homemgr.daemon.home import now_usec
from homemgr.daemon.registration import OF_THE_IMAGE
from homemgr.record import storages
from homemgr.record.secret import Secret
from homemgr.record.storages import abilities_of

if TYPE_CHECKING:
    from homemgr.daemon.config import Config
    from homemgr.daemon.conversion_register import ConversionRegister
    from homemgr.daemon.conversion_states import Conversion, Side
    from homemgr.daemon.home import Home, Services
    from homemgr.record.jsontext import Json, JsonObject

log = logging.getLogger(__name__)

#: Of the old home and of the new one, see ``work.conversion``.
_SCRATCH = ("here", "there")


class Switch:
    """What changes places, for all conversions of one daemon; the caller has the user's turn."""

    def __init__(self, services: Services, register: ConversionRegister) -> None:
        """Go by what is in ``register``, and note there what is done."""
        self._services = services
        self._register = register

    async def go_on(self, home: Home, state: Conversion) -> None:
        """Do a switch to its end, in one direction or the other; may be repeated.

        What cannot become the home does not: the old one is it again, if that can be.
        """
        if state.phase == MAKING:
            await self.drop_new(state)
            return
        if state.phase == DROPPING:
            await self.drop_old(state)
            return
        is_back = state.phase == RETURNING
        side = state.old if is_back else state.new
        try:
            if is_back:
                await self._move(home, state.moves_back, state)
            else:
                await self._put_in_place(home, state)
            members: dict[str, object] = dict.fromkeys(OF_THE_IMAGE)
            members |= {**side.binding, **storages.bound_to(side.storage, side.image_path)}
            machine_id = self._services.machine.id
            bound = home.record.with_binding(machine_id, cast("dict[str, Json]", members))
            await home.store_record(bound)
            home.is_present = True
            if is_back:
                # It is the home again: what could not be deleted keeps nobody from using it.
                await self.drop_new(await self._register.save(state.at(MAKING)))
            elif state.is_renamed:
                await self._register.forget(state.user)
            else:
                await self._register.save(state.at(KEPT, is_used=False, switched=now_usec()))
        except BaseException:
            home.lease = _interrupted(state)
            if is_back:
                with suppress(errors.HomeError):
                    await self._keep_again(home, state)
            self.release(home)
            raise
        self.release(home)
        log.info("Home area %s has storage %s now.", home.name, side.storage)

    def release(self, home: Home) -> None:
        """Let the home be used again, unless it is between two places."""
        if self._register.phase(home.name) not in (SWITCHING, RETURNING):
            home.lease = None
            self._services.changed(home)

    async def _put_in_place(self, home: Home, state: Conversion) -> None:
        """Have the new home where it is to be; or else the old one where it was, for good.

        What fails may do so each time, and nobody could use either of them until then.
        """
        try:
            await self._move(home, state.moves, state)
        except errors.HomeError as error:
            log.warning("Home area %s is not converted: %s", home.name, error)
            try:
                await self.go_on(home, await self._register.save(state.at(RETURNING)))
            except errors.HomeError as other:
                log.warning("The conversion of %s is not taken back yet: %s", home.name, other)
            raise

    async def _move(self, home: Home, moves: list[tuple[str, str, str]], state: Conversion) -> None:
        arguments: JsonObject = {
            "moves": [list(move) for move in moves],
            "rooms": list(state.rooms),
            "takes_snapshots": state.is_renamed and state.has_moved,
        }
        request = {**home.job_arguments(Secret()), **arguments}
        await self._services.runner.run("switch", request, about=home.name)

    # -- back -------------------------------------------------------------------------------

    async def returning(self, home: Home, state: Conversion, *, force: bool) -> Conversion:
        """The state in which both change back; raises HomeExists and NotSupported.

        With ``force`` also if the new one is gone.
        """
        image = await self._image_of_now(home, state, may_be_gone=force)
        # As systemd-homed notes it too, if that had the home meanwhile.
        last_login = home.effective.last_good_authentication_usec or 0
        is_used = state.is_used or last_login > state.switched > 0
        if (is_used or image != state.new.image) and not force:
            raise errors.HomeExists(
                f"Home area {home.name} has been used since it was converted: what was"
                " changed in it would be lost. Confirm the conversion, or use --force."
            )
        if abilities_of(state.old.storage).has_key and state.hashes != passwords_of(home):
            raise errors.NotSupported(
                f"The passwords of {home.name} were changed since: they do not unlock the"
                " home area that was kept. Set the old ones again first."
            )
        # An earlier version has not noted the switch.
        switched = state.switched or state.when
        return state.at(RETURNING, new=state.new.found_with(image), switched=switched)

    async def back(self, home: Home, state: Conversion) -> None:
        """Have both change back, as `returning` says."""
        kept = self._register.state(home.name)
        if kept.phase == KEPT:
            try:
                await self._register.save(state)
            except errors.HomeError:
                # It may be on disk all the same, and would be done at the next start.
                await self._register.save(kept)
                raise
        await self.go_on(home, state)

    async def _image_of_now(
        self, home: Home, state: Conversion, *, may_be_gone: bool = False
    ) -> str:
        """What lies in the place of the new home; raises HomeError if there is no way back."""
        request = {
            **home.job_arguments(Secret()),
            "image_path": state.new.image_path,
            "kept": state.old.place,
            "kept_image": state.old.image,
            "free": state.free_to_return,
            "may_be_gone": may_be_gone,
        }
        told = await self._services.runner.run("returnable", request, about=home.name)
        return str(told["image"])

    async def _keep_again(self, home: Home, state: Conversion) -> None:
        """Have the new home be used again if nothing was moved yet; raises HomeError if it was."""
        image = await self._image_of_now(home, state)
        is_used = state.is_used or image != state.new.image
        await self._register.save(state.at(KEPT, new=state.new.found_with(image), is_used=is_used))

    # -- the end of what is not needed -----------------------------------------------------------

    async def confirm(self, state: Conversion) -> None:
        """Keep nothing of the old home any more."""
        await self.drop_old(await self._register.save(state.at(DROPPING)))

    async def drop_old(self, state: Conversion) -> None:
        """Delete the old home, and snapshots of it that are out of place with the new one.

        What is encrypted now must not lie beside it readable; and those in another directory
        nobody would find. Those that were taken of the new one stay.
        """
        old, new = state.old, state.new
        if old.stays:
            # As of a home that is removed: it may be somebody's only copy.
            await self._register.forget(state.user)
            return
        if abilities_of(new.storage).has_key:
            await snapshots.forget_readable(self._services, state.user, old.image_path)
        if state.has_moved:
            # An earlier version has not noted the switch.
            until = state.switched or state.when
            await snapshots.forget(self._services, state.user, old.image_path, before_usec=until)
        await self._drop(state, old)

    async def drop_new(self, state: Conversion) -> None:
        """Delete a new home that is none, and snapshots of it that are out of place with the old.

        As with `drop_old`, the other way round. One that never was the home has none.
        """
        old, new = state.old, state.new
        has_snapshots = state.switched and not new.stays
        if has_snapshots and abilities_of(old.storage).has_key:
            await snapshots.forget_readable(self._services, state.user, new.image_path)
        if has_snapshots and state.has_moved:
            await snapshots.forget(
                self._services,
                state.user,
                new.image_path,
                since_usec=state.switched,
                # Repeated later it takes none of those that were taken after the return.
                before_usec=state.when,
            )
        await asyncio.to_thread(_forget_scratch, scratch_of(self._services.config, state.user))
        await self._drop(state, new)

    async def _drop(self, state: Conversion, side: Side) -> None:
        """Delete a room, or what is on a device, and forget the conversion.

        What cannot be deleted is tried again.
        """
        what = {"room": side.room, "path": side.image_path, "image": side.image}
        try:
            await self._services.runner.run("clear", what, about=state.user)
        except (errors.UnsafePath, errors.InvalidArgs):
            if state.phase != MAKING:
                raise
            # There nothing was made.
        await self._register.forget(state.user)


def scratch_of(config: Config, user: str) -> str:
    """What the files begin with in which a worker notes what it has copied."""
    return os.path.join(config.reference_directory, f"convert-{user}")


def _forget_scratch(scratch: str) -> None:
    """Delete what a worker that was killed has left: it names all files of a home."""
    for name, more in itertools.product(_SCRATCH, ("", "-journal")):
        with suppress(OSError):
            os.unlink(f"{scratch}.{name}{more}")


def _interrupted(state: Conversion) -> leases.Lease:
    return leases.while_converted(
        f"The conversion of home area {state.user} was interrupted; run the same command again."
    )
