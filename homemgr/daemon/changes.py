"""Operations that change a home area or its record: create, update, remove.

Decides what may be changed and in which order copies are written, so that a
kill between any two steps leaves a home that is usable or cleanly absent.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import accounts
from homemgr.daemon import blobs as manifests
from homemgr.daemon.attempts import attempt
from homemgr.daemon.home import Home, image_is_there, now_usec
from homemgr.daemon.states import Job, Operation
from homemgr.files import Fd
from homemgr.record import changes as edits
from homemgr.record import selfservice, signature, storages, unasked
from homemgr.record.fields import IDMAP_POLICY
from homemgr.record.model import UserRecord
from homemgr.record.quality import check_quality
from homemgr.record.secret import Secret
from homemgr.record.settled import check_settled
from homemgr.record.signature import Verdict
from homemgr.record.validate import Purpose, validate

if TYPE_CHECKING:
    from homemgr.daemon.home import Services
    from homemgr.record.jsontext import JsonObject

log = logging.getLogger(__name__)

#: How far the clock of who made a record may be ahead of ours.
_CLOCK_USEC = 60_000_000

#: Files that go with a record, by name; None: leave what there is.
Blobs = Mapping[str, Fd] | None


async def admit_new(services: Services, record: UserRecord, blobs: Blobs) -> UserRecord:
    """A record a client wants a home for, checked and signed; without binding and secret.

    Raises InvalidRecord, BadSignature, NoPrivateKey.
    """
    validate(record, Purpose.CREATE, services.machine)
    unasked.check(record.on(services.machine), services.config.default_storage)
    record = record.without("secret")
    if blobs is not None:
        record = await asyncio.to_thread(manifests.with_manifest, record, blobs)
    return accepted_or_signed(services, record)


def accepted_or_signed(services: Services, record: UserRecord) -> UserRecord:
    """A record that is new here: as it is if a key we accept signed it, signed if it is not."""
    if signature.verdict(record, services.keyring) is Verdict.UNSIGNED and not record.data.get(
        IDMAP_POLICY
    ):
        # Written into the signed part: it travels with the home.
        record = record.replaced({IDMAP_POLICY: "strict"})
    with services.keys.noting_refusals():
        return signature.accepted_or_signed(record, services.keyring)


async def create(
    home: Home,
    secret: Secret,
    blobs: Blobs = None,
    *,
    realize: bool = False,
    by_hash: bool = False,
) -> None:
    """Make the files of a home whose record has just been admitted, then store its record.

    The files appear under their final name in one step, the record after that:
    killed in between, the home is found on disk and usable with its password.
    """
    services = home.services
    effective = home.effective
    storage = effective.storage or services.config.default_storage
    if effective.enforce_password_policy:
        for word in secret.passwords:
            check_quality(word, (), effective)
    operation = Operation.REALIZE if realize else Operation.CREATE
    async with home.exclusively(operation):
        try:
            binding = await _make_files(home, secret, blobs, storage, by_hash=by_hash)
        except errors.HomeError:
            await _sweep_up(home)
            raise
        home.is_present = True
        unbound = home.record
        bound = unbound.with_binding(services.machine.id, binding)
        try:
            await _store_blobs(home, blobs)
            await home.store_record(bound)
        except errors.HomeError:
            # Files without a record would be a home nobody asked to keep. Where they are, the
            # record alone need not say.
            home.replace_record(bound)
            await _delete_files(home)
            home.replace_record(unbound)
            home.is_present = False
            if not realize:
                await asyncio.to_thread(services.store.delete, home.name)
            raise
        services.changed(home)
    log.info("Home area %s is created with storage %s.", home.name, storage)


async def _make_files(
    home: Home, secret: Secret, blobs: Blobs, storage: str, *, by_hash: bool
) -> JsonObject:
    """Have a worker make the files; gives what belongs into the binding.

    A worker that died may have been done with it: then the home is on the disk, opens
    with its password and holds this very record, and nobody may hear of a failure.
    """
    try:
        result = await home.work(
            Job.CREATE,
            secret,
            fds=_numbers(blobs),
            storage=storage,
            blobs=sorted(blobs or {}),
            by_hash=by_hash,
            is_elsewhere=home.services.is_elsewhere,
        )
    except errors.WorkerDied as death:
        try:
            result = await home.work(Job.AUTHENTICATE, secret)
        except errors.HomeError as reason:
            log.info("There is no home area %s after that: %s", home.name, reason)
            raise death from None
        if result.get("record") is not None:
            # Other files that were there before; they stay as they are.
            raise
    binding = result.get("binding")
    assert isinstance(binding, dict)
    return {**binding, **storages.members(storage)}


async def update(
    home: Home,
    record: UserRecord,
    secret: Secret,
    blobs: Blobs = None,
    *,
    offline: bool = False,
    by_owner: bool = False,
) -> None:
    """Replace the record, in the home first and then on the host; offline on the host alone.

    Raises RecordMismatch, RecordDowngrade, RecordSigned, BadSignature; NotSupported if it
    asks for another storage, place or uid than the home has here; AccessDenied if nobody
    but the owner stands behind it (``by_owner``) and it is not his to change.
    """
    operation = Operation.UPDATE_OFFLINE if offline else Operation.UPDATE
    async with home.exclusively(operation):
        new = await _admit_change(home, record, blobs)
        if by_owner:
            _check_own(home, new, offline=offline)
        added = set(new.on(home.services.machine).lookup_names) - set(home.effective.lookup_names)
        with home.services.reserving_names(added, home):
            if not offline:
                new = await _update_inside(home, new, secret, blobs)
            await _store_blobs(home, blobs)
            await home.store_record(new.with_local_sections_of(home.record))


async def _update_inside(home: Home, new: UserRecord, secret: Secret, blobs: Blobs) -> UserRecord:
    """Have a worker put the record into the home; gives it as it is there."""
    async with attempt(home, secret):
        names = None if blobs is None else sorted(blobs)
        result = await home.work(
            Job.UPDATE, secret, fds=_numbers(blobs), new_record=new.data, blobs=names
        )
    return record_in(result)


def _check_own(home: Home, new: UserRecord, *, offline: bool) -> None:
    """Raise unless ``new`` changes the record of now only where its owner may.

    Asked again in the end: while polkit asked a person, an administrator may have taken
    away what the new record brings back; and now the blobs stand in it.
    """
    machine = home.services.machine
    if not selfservice.may_update(home.record, new, machine, is_proven=not offline):
        raise errors.AccessDenied(
            f"The new record of {home.name} changes what only an administrator may change."
        )
    latest = now_usec() + _CLOCK_USEC
    for name, stamp in (
        ("lastChangeUSec", new.last_change_usec),
        ("lastPasswordChangeUSec", new.last_password_change_usec),
    ):
        if stamp is not None and stamp > latest:
            # No later change could be newer: neither an administrator's nor a new password.
            raise errors.InvalidRecord(
                f".{name}: expected at most the present time, {latest}, found {stamp}."
            )


async def _admit_change(home: Home, record: UserRecord, blobs: Blobs) -> UserRecord:
    """The record that shall replace the home's: checked against it, signed if ours to sign."""
    validate(record, Purpose.UPDATE, home.services.machine)
    new = record.without("secret", "binding", "status")
    if blobs is not None:
        new = await asyncio.to_thread(manifests.with_manifest, new, blobs)
    if not new.data.get("signature"):
        new = _keeping(home.record, new, () if blobs is not None else ("blobManifest",))
    edits.check_update(home.record, new)
    check_settled(home.record, new, home.services.machine)
    unasked.check(new.with_local_sections_of(home.record).on(home.services.machine))
    aliases = new.on(home.services.machine).aliases
    await accounts.require_free(name for name in aliases if name not in home.effective.aliases)
    if signature.verdict(new, home.services.keyring) is Verdict.UNSIGNED:
        signature.require_ours(home.record, home.services.keyring)
    with home.services.keys.noting_refusals():
        return signature.accepted_or_signed(new, home.services.keyring, like=home.record)


def _keeping(current: UserRecord, new: UserRecord, more: tuple[str, ...]) -> UserRecord:
    """``new`` with what a client left out that does not know of it or did not mean to change it.

    The mapping must not become wider by that, and whoever gives no blobs keeps those there are.
    """
    left_out = [name for name in (IDMAP_POLICY, *more) if not new.data.get(name)]
    return new.replaced({name: current.data[name] for name in left_out if name in current.data})


async def remove(home: Home) -> None:
    """Delete the home area: out of sight in one step, then the record, then the files."""
    services = home.services
    async with home.exclusively(Operation.REMOVE):
        await services.removing(home.name)
        # Both steps are one operation to clients, whichever of them a kill interrupts.
        await _set_aside(home)
        await services.extensions.forget(home.name)
        # Where nobody would look for leftovers, the record tells of them after a kill.
        kept = await home.drop_record(aside=not services.config.is_usual(home.image_path))
        await _delete_aside(home)
        if kept:
            await asyncio.to_thread(services.store.finish_removal, kept)
    log.info("Home area %s is removed.", home.name)


async def _set_aside(home: Home) -> None:
    """Rename the image away, if there is one: from then on the home does not exist."""
    try:
        await home.work(Job.REMOVE, Secret(), step="set-aside")
    except errors.HomeAbsent:
        return
    except errors.HomeError:
        # A worker that died may have got that far; then there is no way back.
        if await asyncio.to_thread(image_is_there, home.image_path):
            raise


async def _delete_aside(home: Home) -> None:
    """Delete what was set aside; a second time if a worker died of it."""
    try:
        await home.work(Job.REMOVE, Secret(), step="delete")
    except errors.HomeError as error:
        log.warning("Deleting home area %s again: %s", home.name, error)
        await home.work(Job.REMOVE, Secret(), step="delete")


async def _delete_files(home: Home) -> None:
    """Take back a creation."""
    await _set_aside(home)
    await _delete_aside(home)


async def _sweep_up(home: Home) -> None:
    """Delete what a worker that died left half done; if that fails, the next start does it."""
    services = home.services
    if home.abilities.is_remote:
        return
    directory = os.path.dirname(home.image_path) or services.config.base_directory
    try:
        await services.runner.run("sweep", {"directories": [directory]})
    except errors.HomeError as error:
        log.warning("Leftovers of home area %s stay in %s: %s", home.name, directory, error)


def record_in(result: Mapping[str, object]) -> UserRecord:
    """The record a job wrote into the home."""
    found = result.get("record")
    assert isinstance(found, dict)
    return UserRecord(found)


def _numbers(blobs: Blobs) -> tuple[int, ...]:
    """Descriptors to send to a worker, in the order of the names."""
    return tuple((blobs or {})[name].fileno() for name in sorted(blobs or {}))


async def _store_blobs(home: Home, blobs: Blobs) -> None:
    """Make ``blobs`` the public files of the user on this machine, if any were given."""
    if blobs is None:
        return
    services = home.services
    await asyncio.to_thread(services.store.make_blob_directory, home.name)
    if not blobs and not await asyncio.to_thread(services.store.has_blobs, home.name):
        return
    arguments = {"user": home.name, "blob_root": services.config.blob_root, "names": sorted(blobs)}
    await services.runner.run("publish", arguments, _numbers(blobs), about=home.name)
