"""A home between two daemons: one of them has it, whoever is killed, and nobody is fooled."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

import pytest
from machines import Ask, Site, Told

from homemgr import errors
from homemgr.cli.trust import fingerprints
from homemgr.daemon import changes, registration
from homemgr.daemon.conversion_states import KEPT, Conversion, ConversionStore, Side
from homemgr.daemon.transfer_options import ForgetOptions, to_forget, to_receive, to_send
from homemgr.daemon.transfer_states import Direction, TransferState, TransferStore
from homemgr.record.jsontext import JsonObject
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret
from homemgr.record.signature import PrivateKey, Verdict, sign, verdict

NONCE = "ab" * 32
DIGEST = "12" * 32
TREE = "12:34"
UID = 60321


def run(root: Path, scenario: Callable[[Site, Site], Awaitable[None]]) -> None:
    """Two machines, and alice on the first."""

    async def both() -> None:
        alpha, beta = Site(root / "a", "alpha", "a" * 32), Site(root / "b", "beta", "b" * 32)
        await alpha.start()
        await beta.start()
        await alpha.add("alice", UID, realName="Alice")
        async with asyncio.timeout(20):
            await scenario(alpha, beta)
        for site in (alpha, beta):
            await site.manager.stop()

    asyncio.run(both())


async def introduced(ask: Ask, beta: Site, nonce: str = NONCE) -> Told:
    """What the first questions of a sender give."""
    introduction = await ask("introduce", {"nonce": nonce, "receiver": beta.receiver})
    await ask("peer", {"machine_id": beta.machine_id, "hostname": beta.name})
    return introduction


def arrived(identity: object, seal: object = "", digest: str = DIGEST) -> Told:
    """What a receiver's worker says when all has come."""
    return {"identity": identity, "digest": digest, "seal": seal, "tree": TREE}


class Pair:
    """Both workers in one script, stopped wherever a test likes."""

    def __init__(self, alpha: Site, beta: Site, until: str = "") -> None:
        self.alpha, self.beta = alpha, beta
        self.until = until
        #: What the receiver's worker finds where the home should be.
        self.found = TREE
        self.hello: Told = {}
        self.committed: Told = {}

    def _step(self, name: str) -> None:
        if name == self.until:
            raise errors.TransferInterrupted(name)

    async def run(self, user: str = "alice", *, undo: bool = False) -> None:
        """One run of the command, up to where it is cut."""

        async def send(ask: Ask, told: object) -> Told:
            assert isinstance(told, dict)
            introduction = await introduced(ask, self.beta)

            async def receive(theirs: Ask, _told: object) -> Told:
                about: Told = {"nonce": NONCE, "introduction": introduction}
                self.hello = await theirs("hello", about)
                self._step("hello")
                if undo:
                    await self._undo(ask, theirs, told)
                else:
                    await self._move(ask, theirs, told)
                return {}

            await self.beta.receive(receive, self.alpha.fingerprint).wait()
            return {}

        await self.alpha.send(user, send, undo=undo).wait()

    async def _move(self, ask: Ask, theirs: Ask, told: Told) -> None:
        image = Path(str(told["image_path"]))
        stage = self.beta.base / str(self.hello["stage_name"])
        target = self.beta.base / str(self.hello["file_name"])
        if self.hello["phase"] in ("new", "receiving", "prepared") and not target.exists():
            await ask("freeze", {"wait_s": 0.2})
            source = image if image.exists() else image.parent / str(told["left_name"])
            if not stage.exists():
                stage.mkdir()
                (stage / "note").write_text((source / "note").read_text())
            sealed = await ask("seal", {"digest": DIGEST})
            assert sealed["record"] == json.loads((source / ".identity").read_text())
            prepared = await theirs("prepare", arrived(sealed["record"], sealed["seal"]))
            (stage / ".identity").write_text(str(prepared["identity"]))
            self._step("prepared")
        left = await ask("leave", {"tree": TREE if image.exists() else ""})
        assert left["tree"] == TREE
        left_name = left["left_name"]
        self._step("leave")
        if image.exists():
            image.rename(image.parent / str(left_name))
        self._step("renamed")
        if stage.exists():
            stage.rename(target)
        self._step("arrived")
        self.committed = await theirs("commit", {})
        self._step("committed")
        await ask("left", {"remove": False})

    async def _undo(self, ask: Ask, theirs: Ask, told: Told) -> None:
        target = self.beta.base / str(self.hello["file_name"])
        names = await theirs("undo", {"tree": self.found if target.exists() else ""})
        self._step("undone")
        if target.exists():
            target.rename(self.beta.base / str(names["stage_name"]))
        self._step("withdrawn")
        image = Path(str(told["image_path"]))
        if not image.exists():
            (image.parent / str(told["left_name"])).rename(image)
        self._step("back")
        await ask("come-back", {})


async def usable(site: Site, user: str = "alice") -> bool:
    """Whether somebody gets as far here as to the question for his credentials."""
    await site.manager.discover()
    home = site.manager.registry.by_name(user)
    if home is None:
        return False
    try:
        await site.activate(user)
    except errors.HomeCantAuthenticate:
        return Path(home.image_path).exists()
    except (errors.HomeMoved, errors.HomeAbsent):
        return False
    raise AssertionError("activated without a worker")


def test_a_home_moves_with_its_uid_and_can_be_changed_where_it_arrives(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        pair = Pair(alpha, beta)
        await pair.run()
        assert pair.hello["phase"] == "new"
        assert pair.committed["uid"] == UID
        assert pair.committed["report"] == {"counts": {}, "notes": []}
        home = beta.home("alice")
        assert home.uid == UID
        assert home.verdict is Verdict.EXCLUSIVE
        stored = UserRecord.parse((tmp_path / "b/records/alice.identity").read_bytes())
        assert stored.binding(beta.machine_id)["imagePath"] == str(beta.base / "alice.homedir")
        inside = UserRecord.parse((beta.base / "alice.homedir/.identity").read_bytes())
        assert verdict(inside, beta.services.keyring) is Verdict.EXCLUSIVE
        assert inside.data["realName"] == "Alice"
        with pytest.raises(errors.HomeMoved, match=r"moved to beta on \d{4}-\d\d-\d\d"):
            await alpha.activate("alice")
        assert not (tmp_path / "a/records/alice.identity").exists()
        assert alpha.home("alice").state == "absent"
        assert await usable(beta)
        (row,) = alpha.manager.transfers.register.listed()
        assert (row["direction"], row["phase"], row["host"]) == ("out", "left", "beta")
        assert row["bytes"] == 7
        (origin,) = beta.manager.transfers.origins.listed()
        assert origin["fingerprint"] == alpha.fingerprint
        assert origin["host"] == "alpha"

    run(tmp_path, scenario)


CUTS = ("hello", "prepared", "leave", "renamed", "arrived", "committed")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("killed", ["", "alpha", "beta", "both"])
def test_cut_anywhere_it_is_usable_once_at_most_and_goes_on(
    tmp_path: Path, cut: str, killed: str
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        with pytest.raises(errors.TransferInterrupted, match=cut):
            await Pair(alpha, beta, cut).run()
        if killed in ("alpha", "both"):
            await alpha.restart()
        if killed in ("beta", "both"):
            await beta.restart()
        places = [await usable(alpha), await usable(beta)]
        assert places == {
            "hello": [True, False],
            "prepared": [True, False],
            "committed": [False, True],
        }.get(cut, [False, False])
        await Pair(alpha, beta).run()
        assert [await usable(alpha), await usable(beta)] == [False, True]
        assert beta.home("alice").uid == UID

    run(tmp_path, scenario)


@pytest.mark.parametrize("cut", ["undone", "withdrawn", "back"])
@pytest.mark.parametrize("killed", [False, True])
def test_undo_cut_anywhere_goes_on(tmp_path: Path, cut: str, killed: bool) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, cut).run(undo=True)
        if killed:
            await alpha.restart()
            await beta.restart()
        assert [await usable(alpha), await usable(beta)] == [False, False]
        await Pair(alpha, beta).run(undo=True)
        assert [await usable(alpha), await usable(beta)] == [True, False]
        assert alpha.home("alice").uid == UID
        assert (
            alpha.manager.transfers.register.listed()
            == beta.manager.transfers.register.listed()
            == []
        )
        await beta.restart()
        assert not await usable(beta)
        assert (tmp_path / "a/records/alice.identity").exists()

    run(tmp_path, scenario)


def test_undo_is_refused_once_the_home_was_used_there(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        beta.home("alice").update_status({"goodAuthenticationCounter": 1})
        with pytest.raises(errors.HomeExists, match="has been used"):
            await Pair(alpha, beta).run(undo=True)
        assert [await usable(alpha), await usable(beta)] == [False, True]

    run(tmp_path, scenario)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("is_listed", [False, True])
def test_undo_is_refused_once_the_home_was_used_without_a_secret(
    tmp_path: Path, killed: bool, is_listed: bool
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        home = beta.home("alice")
        for mounted in ({home.effective.home_directory}, set[str]()):
            beta.mounted = mounted
            beta.services.is_mounted = mounted.__contains__
            home.observe()
        await beta.manager.transfers.register.settle()
        if not is_listed:
            (tmp_path / "b/records/alice.identity").write_text("{")
            (beta.base / "alice.homedir").rename(beta.base / "elsewhere")
        if killed or not is_listed:
            await beta.restart()
        if not is_listed:
            (beta.base / "elsewhere").rename(beta.base / "alice.homedir")
        with pytest.raises(errors.HomeExists, match="has been used"):
            await Pair(alpha, beta).run(undo=True)
        assert not await usable(alpha)

    run(tmp_path, scenario)


@pytest.mark.parametrize("phase", ["leaving", "gone"])
def test_what_the_disk_took_and_did_not_confirm_does_not_count_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """Meanwhile somebody goes on with the home: it must not be given up afterwards."""

    async def scenario(alpha: Site, beta: Site) -> None:
        owner = alpha
        if phase == "gone":
            owner = beta
            await Pair(alpha, beta).run()
        break_once(monkeypatch, owner, phase)
        with pytest.raises(errors.SystemFailure):
            await Pair(alpha, beta).run(undo=phase == "gone")
        monkeypatch.undo()
        for _ in range(2):
            assert [await usable(alpha), await usable(beta)] == [owner is alpha, owner is beta]
            await owner.restart()
        assert (owner.base / "alice.homedir").is_dir()

    run(tmp_path, scenario)


def break_once(monkeypatch: pytest.MonkeyPatch, site: Site, phase: str) -> None:
    """Have the disk fail when the state of that phase has its name, but not for sure yet."""
    store = site.manager.transfers.store
    save, fsync = store.save, os.fsync
    failed: list[str] = []

    def flush(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            failed.append(phase)
            raise OSError(errno.EIO, "the disk is broken")
        fsync(fd)

    def saving(direction: Direction, state: TransferState) -> None:
        with monkeypatch.context() as patched:
            if state.phase == phase and not failed:
                patched.setattr(os, "fsync", flush)
            save(direction, state)

    monkeypatch.setattr(store, "save", saving)


def test_a_home_comes_back_to_where_it_was(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        (beta.base / "alice.homedir/note").write_text("of beta")
        await Pair(beta, alpha).run()
        assert [await usable(alpha), await usable(beta)] == [True, False]
        assert alpha.home("alice").uid == UID
        assert (alpha.base / "alice.homedir/note").read_text() == "of beta"
        assert sorted(p.name for p in alpha.base.iterdir()) == ["alice.homedir"]
        await alpha.restart()
        await beta.restart()
        assert [await usable(alpha), await usable(beta)] == [True, False]
        await Pair(alpha, beta).run()
        assert [await usable(alpha), await usable(beta)] == [False, True]

    run(tmp_path, scenario)


@pytest.mark.parametrize("at", ["delete_left", "delete"])
def test_of_what_came_back_no_older_copy_stays_whatever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        (beta.base / "alice.homedir/note").write_text("of beta")

        def killed(*_: object) -> None:
            raise errors.NoDiskSpace("full")

        monkeypatch.setattr(alpha.manager.transfers.store, at, killed)
        with pytest.raises(errors.NoDiskSpace):
            await Pair(beta, alpha).run()
        await alpha.restart()
        assert sorted(p.name for p in alpha.base.iterdir()) == ["alice.homedir"]
        await Pair(beta, alpha).run()
        assert [await usable(alpha), await usable(beta)] == [True, False]
        assert (alpha.base / "alice.homedir/note").read_text() == "of beta"

    run(tmp_path, scenario)


def test_record_of_who_left_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    store = TransferStore(str(tmp_path), str(tmp_path / "volatile"))
    store.load()
    # What lies there is none.
    (tmp_path / "left/alice.identity").mkdir()
    with pytest.raises(errors.SystemFailure, match="user record of alice"):
        store.delete_left("alice")


@pytest.mark.parametrize("cut", ["leave", "renamed", "arrived", "committed"])
def test_coming_back_cut_and_killed_anywhere_goes_on(tmp_path: Path, cut: str) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        (beta.base / "alice.homedir/note").write_text("of beta")
        with pytest.raises(errors.TransferInterrupted):
            await Pair(beta, alpha, cut).run()
        await beta.restart()
        assert not await usable(beta)
        await Pair(beta, alpha).run()
        assert [await usable(alpha), await usable(beta)] == [True, False]
        assert (alpha.base / "alice.homedir/note").read_text() == "of beta"

    run(tmp_path, scenario)


@pytest.mark.parametrize("is_noted", [False, True])
@pytest.mark.parametrize("remove", [False, True])
def test_what_went_on_to_a_third_machine_does_not_come_back_from_the_second(
    tmp_path: Path, is_noted: bool, remove: bool
) -> None:
    """The first still has a copy, and may not even know that the second has taken it."""

    async def scenario(alpha: Site, beta: Site) -> None:
        gamma = Site(tmp_path / "c", "gamma", "c" * 32)
        await gamma.start()
        if is_noted:
            await Pair(alpha, beta).run()
        else:
            with pytest.raises(errors.TransferInterrupted):
                await Pair(alpha, beta, "committed").run()
        await Pair(beta, gamma).run()
        if remove:
            await beta.manager.transfers.places.forget("alice", ForgetOptions(remove=True))
        for _ in range(2):
            # In either case this is what the worker of alpha is told.
            assert (await greet(beta, await introduction_of(alpha, beta)))["went_on"] == "beta"
            with pytest.raises(errors.HomeMoved, match="went on"):
                await Pair(alpha, beta).run(undo=True)
            assert [await usable(s) for s in (alpha, beta, gamma)] == [False, False, True]
            assert [p.name for p in beta.base.glob(".#homemgr-in-*")] == []
            await beta.restart()
        await gamma.manager.stop()

    run(tmp_path, scenario)


def test_what_went_on_and_came_back_to_its_origin_is_sent_again(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        gamma = Site(tmp_path / "c", "gamma", "c" * 32)
        await gamma.start()
        await Pair(alpha, beta).run()
        await Pair(beta, gamma).run()
        await Pair(gamma, alpha).run()
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "renamed").run()
        await Pair(alpha, beta).run(undo=True)
        assert [await usable(s) for s in (alpha, beta, gamma)] == [True, False, False]
        await Pair(alpha, beta).run()
        assert [await usable(s) for s in (alpha, beta, gamma)] == [False, True, False]
        await gamma.manager.stop()

    run(tmp_path, scenario)


@pytest.mark.parametrize("taking", ["receive", "import"])
def test_nothing_takes_the_place_of_what_is_on_its_way(tmp_path: Path, taking: str) -> None:
    """As long as it may be needed: an older copy of the home would have it deleted."""

    async def scenario(alpha: Site, beta: Site) -> None:
        gamma = Site(tmp_path / "c", "gamma", "c" * 32)
        await gamma.start()
        await gamma.add("alice", UID)
        sending = "send" if taking == "receive" else "export"
        introduction, _ = await sealed_by(gamma, alpha.receiver, sending)
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "renamed").run()

        async def receive(ask: Ask, _told: object) -> Told:
            return await ask("hello", {"nonce": NONCE, "introduction": introduction})

        with pytest.raises(errors.TransferBusy, match="on its way to beta"):
            await alpha.receive(receive, gamma.fingerprint, verb=taking).wait()
        await Pair(alpha, beta).run()
        assert await usable(beta)
        await gamma.manager.stop()

    run(tmp_path, scenario)


@pytest.mark.parametrize("killed", [False, True])
def test_undo_asks_a_home_whose_arrival_was_not_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        register = beta.manager.transfers.register
        save = register.save

        async def full(direction: Direction, state: TransferState) -> None:
            if state.phase == "committed":
                raise errors.NoDiskSpace("full")
            await save(direction, state)

        monkeypatch.setattr(register, "save", full)
        with pytest.raises(errors.NoDiskSpace):
            await Pair(alpha, beta).run()
        monkeypatch.undo()
        if killed:
            await beta.restart()
        beta.home("alice").update_status({"goodAuthenticationCounter": 1})
        with pytest.raises(errors.HomeExists, match="has been used"):
            await Pair(alpha, beta).run(undo=True)
        beta.home("alice").update_status({"goodAuthenticationCounter": 0})
        await Pair(alpha, beta).run(undo=True)
        assert beta.manager.registry.by_name("alice") is None
        assert not (tmp_path / "b/records/alice.identity").exists()
        assert await usable(alpha)

    run(tmp_path, scenario)


def test_what_was_given_back_and_not_undone_arrives_again(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "undone").run(undo=True)
        await beta.restart()
        introduction = await introduction_of(alpha, beta)

        async def receive(ask: Ask, _told: object) -> Told:
            hello = await ask("hello", {"nonce": NONCE, "introduction": introduction})
            await ask("restart", {})
            return hello

        assert (await beta.receive(receive).wait())["phase"] == "gone"
        with pytest.raises(errors.StreamError):
            await beta.receive(receive).wait()
        assert not await usable(beta)
        assert (await greet(beta, introduction))["phase"] == "receiving"
        registry = beta.manager.registry
        with pytest.raises(errors.UserNameExists), registry.reserving_names(["alice"]):
            pass

    run(tmp_path, scenario)


def test_undo_leaves_alone_what_else_is_the_users_home_by_now(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        undo = Pair(alpha, beta)
        undo.found = "56:78"
        with pytest.raises(errors.PathExists, match="another one"):
            await undo.run(undo=True)
        assert [await usable(alpha), await usable(beta)] == [False, True]
        # Adopted somewhere else.
        home = beta.home("alice")
        elsewhere = str(tmp_path / "alice.homedir")
        await home.store_record(
            home.record.with_binding(beta.machine_id, {"imagePath": elsewhere, "uid": UID})
        )
        assert home.image_path == elsewhere
        with pytest.raises(errors.PathExists, match="another one"):
            await Pair(alpha, beta).run(undo=True)
        assert beta.home("alice") is home

    run(tmp_path, scenario)


def test_what_was_given_back_stays_given_back_and_what_came_later_stays(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "undone").run(undo=True)
        # It still lies there, but it is not to be had.
        path = str(beta.base / "alice.homedir")
        assert os.path.isdir(path)
        with pytest.raises(errors.TransferBusy, match="forget"):
            await registration.adopt(beta.manager, path)
        # Another home of that name, somewhere else, is nobody else's.
        beta.manager.registry.release("alice")
        other = beta.home_root / "alice.homedir"
        other.mkdir(0o700)
        await registration.adopt(beta.manager, str(other))
        signer = beta.services.keyring.signer
        assert signer is not None
        data = UserRecord({"userName": "alice", "disposition": "regular", "lastChangeUSec": 5})
        binding: JsonObject = {"imagePath": str(other), "storage": "directory", "uid": UID}
        record = sign(data, signer).with_binding(beta.machine_id, binding)
        await beta.home("alice").store_record(record)
        await beta.restart()
        assert beta.home("alice").image_path == str(other)

    run(tmp_path, scenario)


def test_a_home_that_is_not_where_it_was_does_not_leave(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        async def send(ask: Ask, _told: object) -> Told:
            await introduced(ask, beta)
            await ask("freeze", {"wait_s": 0.2})
            return await ask("leave", {"tree": ""})

        with pytest.raises(errors.HomeAbsent):
            await alpha.send("alice", send).wait()
        assert await usable(alpha)

    run(tmp_path, scenario)


# --- trust ----------------------------------------------------------------------------


async def introduction_of(alpha: Site, beta: Site, nonce: str = NONCE) -> Told:
    found: Told = {}

    async def send(ask: Ask, _told: object) -> Told:
        found.update(await introduced(ask, beta, nonce))
        return {}

    await alpha.send("alice", send).wait()
    return found


async def greet(beta: Site, introduction: Told, *trust: str, nonce: str = NONCE) -> Told:
    """Only the first question of a receiver."""
    answers: list[Told] = []

    async def receive(ask: Ask, _told: object) -> Told:
        answers.append(await ask("hello", {"nonce": nonce, "introduction": introduction}))
        return {}

    await beta.receive(receive, *trust).wait()
    return answers[0]


def test_an_unknown_origin_is_named_and_accepted_by_fingerprint(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction = await introduction_of(alpha, beta)
        with pytest.raises(errors.UntrustedOrigin, match=alpha.fingerprint):
            await greet(beta, introduction)
        assert beta.manager.transfers.register.listed() == []
        with pytest.raises(errors.UntrustedOrigin):
            await greet(beta, introduction, "0" * 64)
        transfers = beta.manager.transfers
        await transfers.trust_by_fingerprint(alpha.fingerprint, "", by_uid=1)
        (row,) = transfers.origins.listed()
        assert (row["host"], row["by_uid"]) == ("alpha", 1)
        assert (await greet(beta, introduction))["phase"] == "new"
        assert (await greet(beta, introduction))["phase"] == "receiving"
        await beta.restart()
        assert (await greet(beta, introduction))["phase"] == "receiving"
        await beta.manager.transfers.origins.forget(alpha.fingerprint)
        with pytest.raises(errors.UntrustedOrigin):
            await greet(beta, introduction)

    run(tmp_path, scenario)


def test_what_failed_before_anything_travelled_is_forgotten(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        alpha.runner.tells_progress = False
        registers = alpha.manager.transfers.register, beta.manager.transfers.register
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "hello").run()
        assert [register.listed() for register in registers] == [[], []]
        # Where it was sent before is known as it was.
        before = TransferState("alice", "sending", host="gamma", machine_id="c" * 32)
        await registers[0].save("out", before)
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "hello").run()
        assert registers[0].state("out", "alice") == before
        # What has come stays.
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "prepared").run()
        assert registers[1].state("in", "alice").phase == "prepared"
        await Pair(alpha, beta).run()
        assert [await usable(alpha), await usable(beta)] == [False, True]

    run(tmp_path, scenario)


def test_a_signer_who_is_not_the_origin_is_named_too(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        signer = PrivateKey.generate()
        await alpha.services.keys.add("corporate.public", signer.public.pem)
        home = alpha.home("alice")
        await home.store_record(sign(home.record.without("signature"), signer))
        introduction = await introduction_of(alpha, beta)
        theirs = signer.public.fingerprint
        with pytest.raises(errors.UntrustedOrigin) as refused:
            await greet(beta, introduction)
        text = refused.value.message
        assert text.index(alpha.fingerprint) < text.index(theirs)
        with pytest.raises(errors.UntrustedOrigin, match=theirs):
            await greet(beta, introduction, alpha.fingerprint)
        assert await greet(beta, introduction, alpha.fingerprint, theirs)

    run(tmp_path, scenario)


def test_introductions_cannot_be_made_up_or_used_again(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        good = await introduction_of(alpha, beta)
        trust = alpha.fingerprint
        record = cast("Told", good["record"])
        origin = cast("Told", good["origin"])
        other = PrivateKey.generate().public.pem
        forged: list[tuple[Told, type[errors.HomeError]]] = [
            ({**good, "record": {**record, "memberOf": ["wheel"]}}, errors.BadSignature),
            ({**good, "uid": UID + 1}, errors.BadSignature),
            ({**good, "uid": None}, errors.BadSignature),
            ({**good, "extensions": ["tools"]}, errors.BadSignature),
            ({**good, "signature": "00" * 64}, errors.BadSignature),
            ({**good, "origin": {**origin, "public_key": other}}, errors.BadSignature),
            ({**good, "origin": {**origin, "public_key": "no"}}, errors.StreamError),
            ({**good, "signature": "zz"}, errors.StreamError),
            ({"record": record}, errors.StreamError),
        ]
        for introduction, failure in forged:
            with pytest.raises(failure):
                await greet(beta, introduction, trust)
        with pytest.raises(errors.BadSignature):
            await greet(beta, good, trust, nonce="cd" * 32)
        with pytest.raises(errors.StreamError):
            await greet(beta, good, trust, nonce="ab")
        assert beta.manager.transfers.register.listed() == []
        assert beta.manager.transfers.origins.listed() == []

    run(tmp_path, scenario)


def test_an_introduction_is_for_the_machine_it_was_made_for(tmp_path: Path) -> None:
    """Who received it cannot pass it on to a third machine that trusts the same origin."""

    async def scenario(alpha: Site, beta: Site) -> None:
        gamma = Site(tmp_path / "c", "gamma", "c" * 32)
        await gamma.start()
        for_gamma = await introduction_of(alpha, gamma)
        with pytest.raises(errors.WrongReceiver, match=f"machine {'c' * 32}.*machine {'b' * 32}"):
            await greet(beta, for_gamma, alpha.fingerprint)
        with pytest.raises(errors.BadSignature):
            await greet(beta, {**for_gamma, "receiver": beta.receiver}, alpha.fingerprint)
        # Of version 1.
        with pytest.raises(errors.WrongReceiver, match="nobody"):
            await greet(beta, {k: v for k, v in for_gamma.items() if k != "receiver"})
        assert beta.manager.transfers.register.listed() == []
        assert (await greet(gamma, for_gamma, alpha.fingerprint))["phase"] == "new"
        # Nor by the same machine id alone.
        twin = Site(tmp_path / "d", "twin", "c" * 32)
        await twin.start()
        with pytest.raises(errors.WrongReceiver):
            await greet(twin, for_gamma, alpha.fingerprint)
        for site in (gamma, twin):
            await site.manager.stop()

    run(tmp_path, scenario)


@pytest.mark.parametrize("receiver", ["", "file", "/" + "0" * 64, "a b/", "a/" + "0" * 63, None, 7])
def test_nobody_is_sent_anything_who_does_not_say_who_he_is(
    tmp_path: Path, receiver: object
) -> None:
    async def scenario(alpha: Site, _beta: Site) -> None:
        async def send(ask: Ask, _told: object) -> Told:
            return await ask("introduce", {"nonce": NONCE, "receiver": receiver})

        with pytest.raises(errors.StreamError, match="did not say"):
            await alpha.send("alice", send).wait()

    run(tmp_path, scenario)


def test_who_says_he_is_one_and_then_another_is_sent_nothing(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        async def send(ask: Ask, _told: object) -> Told:
            await ask("introduce", {"nonce": NONCE, "receiver": beta.receiver})
            return await ask("peer", {"machine_id": "c" * 32, "hostname": "gamma"})

        with pytest.raises(errors.WrongReceiver):
            await alpha.send("alice", send).wait()

    run(tmp_path, scenario)


# --- what was sealed --------------------------------------------------------------------


async def sealed_by(alpha: Site, receiver: str, verb: str) -> tuple[Told, Told]:
    """An introduction and a seal of `DIGEST`."""
    found: list[Told] = []

    async def send(ask: Ask, _told: object) -> Told:
        found.append(await ask("introduce", {"nonce": NONCE, "receiver": receiver}))
        found.append(await ask("seal", {"digest": DIGEST}))
        return {}

    if verb == "send":
        await alpha.send("alice", send).wait()
    else:
        await alpha.export("alice", send).wait()
    introduction, seal = found
    return introduction, seal


async def take(beta: Site, verb: str, introduction: Told, about: Told, *trust: str) -> str:
    """All that a receiver asks before the home is one; gives the phase."""

    async def receive(ask: Ask, _told: object) -> Told:
        await ask("hello", {"nonce": NONCE, "introduction": introduction})
        await ask("prepare", about)
        return {"phase": beta.manager.transfers.register.state("in", "alice").phase}

    result = await beta.receive(receive, *trust, verb=verb).wait()
    return str(result["phase"])


@pytest.mark.parametrize("verb", ["send", "export"])
def test_only_what_the_origin_sealed_becomes_a_home(tmp_path: Path, verb: str) -> None:
    taking = {"send": "receive", "export": "import"}[verb]

    async def scenario(alpha: Site, beta: Site) -> None:
        introduction, good = await sealed_by(alpha, beta.receiver, verb)
        trust = alpha.fingerprint
        key = alpha.services.keyring.signer
        assert key is not None
        newer = sign(UserRecord({"userName": "alice", "lastChangeUSec": 9}), key)
        bad = [
            arrived(good["record"], good["seal"], digest="13" * 32),
            arrived(good["record"], "00" * 64),
            arrived(good["record"]),
            arrived(good["record"], None),
            arrived(good["record"], introduction["signature"]),
            arrived(newer.pretty().decode(), good["seal"]),
        ]
        for about in bad:
            with pytest.raises(errors.AlteredContent):
                await take(beta, taking, introduction, about, trust)
        for about in (arrived(good["record"], "zz"), arrived(good["record"], digest="12")):
            with pytest.raises(errors.StreamError):
                await take(beta, taking, introduction, about, trust)
        about = arrived(good["record"], good["seal"])
        assert await take(beta, taking, introduction, about, trust) == "prepared"

    run(tmp_path, scenario)


def test_who_changed_an_export_vouches_for_what_it_holds(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction, sealed = await sealed_by(alpha, "", "export")
        trust, digest = alpha.fingerprint, "13" * 32
        changed = arrived(sealed["record"], sealed["seal"], digest)
        with pytest.raises(errors.AlteredContent, match=f"was changed after.*--trust={digest}"):
            await take(beta, "import", introduction, changed, trust)
        with pytest.raises(errors.AlteredContent, match="no seal"):
            await take(beta, "import", introduction, {**changed, "seal": None}, trust)
        with pytest.raises(errors.AlteredContent):
            await take(beta, "import", introduction, changed, trust, DIGEST)
        assert await take(beta, "import", introduction, changed, trust, digest) == "prepared"

    run(tmp_path, scenario)


def test_who_accepts_a_machine_accepts_no_content_that_it_is_called_after(tmp_path: Path) -> None:
    """Nobody has signed what an export says its origin is called."""

    async def scenario(alpha: Site, beta: Site) -> None:
        introduction, sealed = await sealed_by(alpha, "", "export")
        digest = "13" * 32
        changed = arrived(sealed["record"], sealed["seal"], digest)
        origin = cast("Told", introduction["origin"])
        for name in (digest, f"a.{digest}", f"host {digest}", f"a-{digest}", digest * 4):
            for member in ("hostname", "machine_id"):
                forged = {**introduction, "origin": {**origin, member: name}}
                with pytest.raises(errors.UntrustedOrigin) as refused:
                    await take(beta, "import", forged, changed)
                # What the command line takes for that which --trust, or a yes, accepts.
                found = fingerprints(refused.value.message)
                assert found == [alpha.fingerprint]
                with pytest.raises(errors.AlteredContent):
                    await take(beta, "import", forged, changed, *found)
                await beta.manager.transfers.origins.forget(alpha.fingerprint)

    run(tmp_path, scenario)


def test_what_was_changed_on_the_wire_is_refused_whoever_vouches(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction, sealed = await sealed_by(alpha, beta.receiver, "send")
        changed = arrived(sealed["record"], sealed["seal"], "13" * 32)
        trust = (alpha.fingerprint, "13" * 32)
        with pytest.raises(errors.AlteredContent):
            await take(beta, "receive", introduction, changed, *trust)

    run(tmp_path, scenario)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("is_home", [False, True])
def test_an_import_that_failed_before_its_end_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool, is_home: bool
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction, sealed = await sealed_by(alpha, "", "export")
        about = arrived(sealed["record"], sealed["seal"])
        kill = asyncio.Event()

        async def receive(ask: Ask, _told: object) -> Told:
            hello = await ask("hello", {"nonce": NONCE, "introduction": introduction})
            stage = beta.base / str(hello["stage_name"])
            stage.mkdir()
            prepared = await ask("prepare", about)
            (stage / ".identity").write_text(str(prepared["identity"]))
            if is_home:
                stage.rename(beta.base / str(hello["file_name"]))
                await ask("commit", {})
            if killed:
                kill.set()
                await asyncio.sleep(60)
            raise errors.NoDiskSpace("full")

        register = beta.manager.transfers.register
        save = register.save

        async def full(direction: Direction, state: TransferState) -> None:
            if state.phase == "committed":
                if killed:
                    kill.set()
                    await asyncio.sleep(60)
                raise errors.NoDiskSpace("full")
            await save(direction, state)

        monkeypatch.setattr(register, "save", full)
        run = beta.receive(receive, alpha.fingerprint, verb="import")
        if killed:
            await kill.wait()
            await beta.restart()
        else:
            with pytest.raises(errors.NoDiskSpace):
                await run.wait()
        assert beta.manager.transfers.register.listed() == []
        assert list(beta.base.glob(".#homemgr-in-*")) == []
        assert await usable(beta) is is_home
        if not is_home:
            assert await take(beta, "import", introduction, about) == "prepared"

    run(tmp_path, scenario)


def test_a_file_is_no_stream_and_a_stream_no_file(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        for verb, taking in (("send", "import"), ("export", "receive")):
            introduction, sealed = await sealed_by(alpha, beta.receiver, verb)
            about = arrived(sealed["record"], sealed["seal"])
            with pytest.raises(errors.WrongReceiver, match="a file"):
                await take(beta, taking, introduction, about, alpha.fingerprint)

    run(tmp_path, scenario)


def test_nothing_is_sealed_for_nobody(tmp_path: Path) -> None:
    async def scenario(alpha: Site, _beta: Site) -> None:
        async def send(ask: Ask, _told: object) -> Told:
            return await ask("seal", {"digest": DIGEST})

        with pytest.raises(errors.StreamError, match="before an introduction"):
            await alpha.send("alice", send).wait()

    run(tmp_path, scenario)


#: Signed by the origin, but nothing that may be registered here.
UNFIT: tuple[JsonObject, ...] = ({"uid": 0}, {"blobDirectory": "/etc"}, {"gid": 4, "uid": UID})


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_record_that_became_unfit_on_the_way_is_not_prepared(
    tmp_path: Path, unfit: JsonObject
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction = await introduction_of(alpha, beta)
        signer = alpha.services.keyring.signer
        assert signer is not None
        record = sign(UserRecord({"userName": "alice", **unfit}), signer)

        async def receive(ask: Ask, _told: object) -> Told:
            await ask("hello", {"nonce": NONCE, "introduction": introduction})
            return await ask("prepare", arrived(record.pretty().decode()))

        with pytest.raises(errors.HomeError, match="(?i)" + next(iter(unfit))):
            await beta.receive(receive, alpha.fingerprint).wait()

    run(tmp_path, scenario)


def test_a_record_that_changed_hands_on_the_way_is_not_prepared(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction = await introduction_of(alpha, beta)
        stranger = sign(UserRecord({"userName": "alice"}), PrivateKey.generate())
        bob = sign(UserRecord({"userName": "bob"}), PrivateKey.generate())

        async def receive(ask: Ask, _told: object) -> Told:
            await ask("hello", {"nonce": NONCE, "introduction": introduction})
            with pytest.raises(errors.BadSignature):
                await ask("prepare", arrived(stranger.pretty().decode()))
            with pytest.raises(errors.RecordMismatch):
                await ask("prepare", arrived(bob.pretty().decode()))
            with pytest.raises(errors.HostileHome):
                await ask("prepare", {"identity": "{}"})
            with pytest.raises(errors.StreamError):
                await ask("commit", {})
            return {}

        await beta.receive(receive, alpha.fingerprint).wait()
        assert not await usable(beta)

    run(tmp_path, scenario)


# --- leases and names -------------------------------------------------------------------


def test_names_and_uids_of_arriving_homes_are_kept(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction = await introduction_of(alpha, beta)
        await greet(beta, introduction, alpha.fingerprint)
        for _ in range(2):
            text = json.dumps({"userName": "alice", "disposition": "regular"})
            with pytest.raises(errors.UserNameExists, match="arriving"):
                await registration.register(beta.manager, text)
            taken = json.dumps({"userName": "zoe", "disposition": "regular", "uid": UID})
            with pytest.raises(errors.UIDInUse):
                await registration.register(beta.manager, taken)
            await beta.restart()
        await beta.manager.transfers.places.forget("alice", ForgetOptions())
        await registration.register(beta.manager, taken)

    run(tmp_path, scenario)


@pytest.mark.parametrize("killed", [False, True])
def test_names_of_homes_that_come_back_are_kept_when_it_is_forgotten_that_they_left(
    tmp_path: Path, killed: bool
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        with pytest.raises(errors.TransferInterrupted):
            await Pair(beta, alpha, "arrived").run()
        await alpha.manager.transfers.places.forget("alice", ForgetOptions())
        if killed:
            await alpha.restart()
        for taken in ({"userName": "alice"}, {"userName": "zoe", "uid": UID}):
            with pytest.raises((errors.UserNameExists, errors.UIDInUse)):
                await registration.register(alpha.manager, json.dumps(taken))
        await Pair(beta, alpha).run()
        assert [await usable(alpha), await usable(beta)] == [True, False]
        assert alpha.home("alice").uid == UID

    run(tmp_path, scenario)


def test_a_uid_in_use_is_replaced_and_reported(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await beta.add("zoe", UID)
        home = alpha.home("alice")
        signer = alpha.services.keyring.signer
        assert signer is not None
        record = home.record.replaced({"memberOf": ["no-such-group"], "shell": "/no/shell"})
        record = sign(record.without("signature"), signer)
        await home.store_record(record)
        (alpha.base / "alice.homedir/.identity").write_bytes(record.embedded().pretty())
        pair = Pair(alpha, beta)
        await pair.run()
        assert beta.home("alice").uid not in (UID, 0)
        report = cast("dict[str, dict[str, int]]", pair.committed["report"])
        assert report["counts"] == {"uid-changed": 1, "group-missing": 1, "shell-missing": 1}

    run(tmp_path, scenario)


def test_an_origin_is_listed_under_the_name_by_which_it_is_reached(tmp_path: Path) -> None:
    """What it calls itself may lead somewhere else."""

    async def scenario(alpha: Site, beta: Site) -> None:
        introduction = await introduction_of(alpha, beta)

        async def receive(ask: Ask, _told: object) -> Told:
            return await ask("hello", {"nonce": NONCE, "introduction": introduction})

        await beta.receive(receive, alpha.fingerprint, host="root@alpha.example").wait()
        (row,) = beta.manager.transfers.register.listed()
        assert row["host"] == "root@alpha.example"
        (origin,) = beta.manager.transfers.origins.listed()
        assert origin["host"] == "alpha"

    run(tmp_path, scenario)


def test_collisions_are_refused_before_anything_is_kept(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction = await introduction_of(alpha, beta)
        await beta.add("alice", 60400)
        with pytest.raises(errors.UserNameExists):
            await greet(beta, introduction, alpha.fingerprint)
        assert beta.manager.transfers.register.listed() == []

    run(tmp_path, scenario)


def test_a_home_being_sent_can_be_used_but_not_removed(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        async def send(_ask: Ask, _told: object) -> Told:
            for taken_away in (
                changes.remove(alpha.home("alice")),
                registration.unregister(alpha.manager, alpha.home("alice")),
            ):
                with pytest.raises(errors.TransferBusy):
                    await taken_away
            assert await usable(alpha)
            return {}

        first = alpha.send("alice", send)
        await asyncio.sleep(0)
        with pytest.raises(errors.TransferBusy):
            await alpha.send("alice", send).wait()
        await first.wait()
        await registration.unregister(alpha.manager, alpha.home("alice"))

    run(tmp_path, scenario)


def test_freeze_waits_for_the_logout_and_keeps_everybody_out(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        home = alpha.home("alice")
        alpha.mounted.add(home.effective.home_directory)
        home.observe()
        entered: list[str] = []

        async def log_in() -> None:
            await usable(alpha)
            entered.append("in")

        async def send(ask: Ask, _told: object) -> Told:
            with pytest.raises(errors.HomeBusy, match="still in use"):
                await ask("freeze", {"wait_s": 0.05})
            with pytest.raises(errors.HomeBusy):
                await ask("leave", {"tree": TREE})
            waiting = asyncio.ensure_future(ask("freeze", {}))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            alpha.mounted.clear()
            home.observe()
            await waiting
            login = asyncio.ensure_future(log_in())
            await asyncio.sleep(0.05)
            assert entered == []
            return {"login": login}

        result = await alpha.send("alice", send).wait()
        await cast("asyncio.Future[None]", result["login"])
        assert entered == ["in"]

    run(tmp_path, scenario)


def test_called_off_while_it_leaves_it_is_held_until_that_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who waits at the door comes in, and goes on with files that are given up."""

    async def scenario(alpha: Site, beta: Site) -> None:
        register = alpha.manager.transfers.register
        save = register.save
        has_begun = asyncio.Event()
        logins: list[asyncio.Future[None]] = []

        async def slow(direction: Direction, state: TransferState) -> None:
            if state.phase == "leaving":
                has_begun.set()
                await asyncio.sleep(0.2)
            await save(direction, state)

        monkeypatch.setattr(register, "save", slow)

        async def send(ask: Ask, _told: object) -> Told:
            await introduced(ask, beta)
            await ask("freeze", {"wait_s": 1})
            logins.append(asyncio.ensure_future(alpha.activate("alice")))
            await called_off(ask("leave", {"tree": TREE}), has_begun)
            raise errors.Cancelled

        with pytest.raises(errors.Cancelled):
            await alpha.send("alice", send).wait()
        with pytest.raises(errors.HomeMoved, match="on its way"):
            await logins[0]
        assert register.state("out", "alice").phase == "leaving"

    run(tmp_path, scenario)


def test_called_off_while_it_is_introduced_it_can_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction = await introduction_of(alpha, beta)
        has_begun = asyncio.Event()

        async def slow(*_: object, **__: object) -> None:
            has_begun.set()
            await asyncio.sleep(0.1)

        monkeypatch.setattr(beta.manager.transfers, "trust", slow)

        async def receive(ask: Ask, _told: object) -> Told:
            hello = ask("hello", {"nonce": NONCE, "introduction": introduction})
            await called_off(hello, has_begun)
            raise errors.Cancelled

        with pytest.raises(errors.Cancelled):
            await beta.receive(receive, alpha.fingerprint).wait()
        # Origin and signer are one, and accepted one after the other.
        await asyncio.sleep(0.4)
        monkeypatch.undo()
        assert await greet(beta, introduction, alpha.fingerprint)

    run(tmp_path, scenario)


async def called_off(question: Awaitable[Told], has_begun: asyncio.Event) -> None:
    """What becomes of a question whose worker ends, once the answer has begun: see `JobRunner`."""
    answering = asyncio.ensure_future(question)
    await has_begun.wait()
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)


def test_who_waited_at_the_door_is_told_where_the_home_went(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        logins: list[asyncio.Future[None]] = []

        async def send(ask: Ask, _told: object) -> Told:
            await introduced(ask, beta)
            await ask("freeze", {"wait_s": 1})
            logins.append(asyncio.ensure_future(alpha.activate("alice")))
            await asyncio.sleep(0.02)
            await ask("leave", {"tree": TREE})
            await ask("left", {"remove": False})
            return {}

        await alpha.send("alice", send).wait()
        with pytest.raises(errors.HomeMoved, match="beta"):
            await logins[0]

    run(tmp_path, scenario)


def test_leaving_twice_to_different_machines_is_refused(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "renamed").run()
        gamma = Site(tmp_path / "c", "gamma", "c" * 32)
        await gamma.start()
        with pytest.raises(errors.TransferBusy, match="beta"):
            await Pair(alpha, gamma).run()
        await gamma.manager.stop()

    run(tmp_path, scenario)


def test_another_origin_does_not_take_over_what_arrives(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        gamma = Site(tmp_path / "c", "gamma", "c" * 32)
        await gamma.start()
        await gamma.add("alice", UID)
        await greet(beta, await introduction_of(alpha, beta), alpha.fingerprint)
        with pytest.raises(errors.TransferBusy, match="alpha"):
            await greet(beta, await introduction_of(gamma, beta), gamma.fingerprint)
        await gamma.manager.stop()

    run(tmp_path, scenario)


# --- forgetting -------------------------------------------------------------------------


@pytest.mark.parametrize("remove", [False, True])
def test_what_left_is_forgotten_with_or_without_its_data(tmp_path: Path, remove: bool) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        await Pair(alpha, beta).run()
        transfers = alpha.manager.transfers
        await transfers.places.forget("alice", ForgetOptions(remove=remove))
        assert alpha.manager.registry.by_name("alice") is None
        assert len(list(alpha.base.iterdir())) == (0 if remove else 1)
        with pytest.raises(errors.NoSuchHome):
            await transfers.places.forget("alice", ForgetOptions())
        await alpha.restart()
        assert alpha.manager.transfers.register.listed() == []

    run(tmp_path, scenario)


def test_what_left_takes_along_what_a_conversion_kept_of_it(tmp_path: Path) -> None:
    """It may be the readable copy of a home that is encrypted by now."""

    async def scenario(alpha: Site, beta: Site) -> None:
        room = alpha.base / ".#homemgr-room-alice.homedir.01234567"
        room.mkdir()
        (room / "note").write_text("of alice")
        side = Side("directory", str(alpha.base / "alice.homedir"), str(room))
        store = ConversionStore(alpha.services.config.transfer_directory)
        store.save(Conversion("alice", KEPT, side, side))
        await alpha.restart()

        async def clear(_ask: Ask, told: Mapping[str, object]) -> Told:
            shutil.rmtree(str(told["room"]))
            return {}

        alpha.runner.scripts["clear"] = clear
        await Pair(alpha, beta).run()
        assert room.exists()
        await alpha.manager.transfers.places.forget("alice", ForgetOptions(remove=True))
        assert list(alpha.base.iterdir()) == []
        assert alpha.manager.conversions.listed() == []

    run(tmp_path, scenario)


def test_a_home_on_a_device_does_not_leave_it(tmp_path: Path) -> None:
    """Nobody sends all of it before that is found out; a copy may go."""

    async def scenario(alpha: Site, beta: Site) -> None:
        home = alpha.home("alice")
        path = "/dev/disk/by-uuid/00000000-0000-4000-8000-000000000000"
        binding: JsonObject = {"imagePath": path, "storage": "luks", "uid": UID}
        await home.store_record(home.record.with_binding(alpha.machine_id, binding))

        async def send(_ask: Ask, told: Mapping[str, object]) -> Told:
            return {"image_path": told["image_path"]}

        with pytest.raises(errors.NotSupported, match="--keep"):
            await alpha.send("alice", send).wait()
        assert alpha.manager.transfers.register.listed() == []
        secret = Secret(passwords=("a password",))
        assert await alpha.send("alice", send, keep=True, secret=secret).wait()

    run(tmp_path, scenario)


def test_a_transfer_that_may_be_anywhere_is_forgotten_by_force_only(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "renamed").run()
        for site in (alpha, beta):
            with pytest.raises(errors.TransferBusy, match="either end"):
                await site.manager.transfers.places.forget("alice", ForgetOptions())
        await beta.manager.transfers.places.forget("alice", ForgetOptions(force=True))
        assert list(beta.base.iterdir()) == []

    run(tmp_path, scenario)


def test_a_home_that_was_not_taken_comes_back_and_leaves_again_in_one_run(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "renamed").run()

        async def send(ask: Ask, told: object) -> Told:
            assert isinstance(told, dict)
            await introduced(ask, beta)
            image = Path(str(told["image_path"]))
            (image.parent / str(told["left_name"])).rename(image)
            await ask("come-back", {})
            assert await usable(alpha)
            with pytest.raises(errors.TransferBusy):
                await changes.remove(alpha.home("alice"))
            await ask("freeze", {"wait_s": 1})
            return await ask("leave", {"tree": TREE})

        assert (await alpha.send("alice", send).wait())["left_name"]
        assert not await usable(alpha)

    run(tmp_path, scenario)


def test_what_was_sent_with_remove_leaves_no_trace(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        async def send(ask: Ask, told: object) -> Told:
            assert isinstance(told, dict)
            await introduced(ask, beta)
            await ask("freeze", {"wait_s": 1})
            left = (await ask("leave", {"tree": TREE}))["left_name"]
            os.rename(str(told["image_path"]), alpha.base / str(left))
            await ask("left", {"remove": True})
            return {}

        await alpha.send("alice", send, remove=True).wait()
        assert list(alpha.base.iterdir()) == []
        assert alpha.manager.registry.by_name("alice") is None
        assert alpha.manager.transfers.register.listed() == []

    run(tmp_path, scenario)


def test_damaged_state_files_are_left_alone(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        directory = Path(alpha.manager.transfers.store.directory)
        for name, text in (("out-alice.json", "{"), ("in-bob.json", '{"user": "eve"}')):
            (directory / name).write_text(text)
        (directory / "out-carl.json").write_text(
            json.dumps({"user": "carl", "phase": "left", "image_path": 5})
        )
        await alpha.restart()
        assert alpha.manager.transfers.register.listed() == []
        assert await usable(alpha)
        assert (directory / "out-alice.json").read_text() == "{"

    run(tmp_path, scenario)


# --- options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"hots": "x"}',
        '{"host": 5}',
        '{"host": "a\\nb"}',
        '{"keep": 1}',
        '{"wait_s": true}',
        '{"wait_s": -1}',
        '{"wait_s": "5"}',
        '{"keep": true, "remove": true}',
        pytest.param("{}" + " " * (1 << 20), id="endless"),
    ],
)
def test_options_of_a_sender_are_checked(text: str) -> None:
    with pytest.raises(errors.InvalidArgs, match="options"):
        to_send(text)


def test_options_are_read() -> None:
    assert to_send("").told()["wait_s"] is None
    assert to_send('{"host": "b", "wait_s": 3, "remove": true}').wait_s == 3
    assert to_receive(json.dumps({"trust": ["0" * 64]})).trust == ("0" * 64,)
    assert to_forget('{"force": true}').force
    for text in ('{"trust": ["x"]}', '{"trust": [5]}', '{"trust": "x"}'):
        with pytest.raises(errors.InvalidArgs):
            to_receive(text)


def test_only_arrivals_that_nothing_tells_of_are_deleted_at_a_start(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        with pytest.raises(errors.TransferInterrupted):
            await Pair(alpha, beta, "prepared").run()
        (arriving,) = beta.base.glob(".#homemgr-in-alice.*")
        dead = beta.base / ".#homemgr-in-ghost.homedir.01234567"
        unread = beta.base / ".#homemgr-in-bob@example.com.homedir.01234567"
        left = beta.base / ".#homemgr-left-carol.homedir.01234567"
        strange = beta.base / ".#homemgr-in-what is this"
        for tree in (dead, unread, left, strange):
            tree.mkdir()
        (Path(beta.manager.transfers.store.directory) / "in-bob.json").write_text("no state")
        await beta.restart()
        assert not dead.exists()
        assert all(tree.exists() for tree in (arriving, unread, left, strange))
        await Pair(alpha, beta).run()
        assert await usable(beta)

    run(tmp_path, scenario)


def test_only_a_newer_record_of_a_known_signer_found_in_the_home_counts(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        home = alpha.home("alice")
        own = alpha.services.keyring.signer
        assert own is not None
        known = home.record.embedded().without("signature")

        def text(signer: PrivateKey | None, **changes: object) -> str:
            record = known.replaced(changes)  # type: ignore[arg-type]
            return (sign(record, signer) if signer else record).pretty().decode()

        newer = text(own, lastChangeUSec=6, realName="Newer")
        refused = (
            "no record",
            text(None, lastChangeUSec=6),
            text(PrivateKey.generate(), lastChangeUSec=6),
            text(own, lastChangeUSec=6, userName="bob"),
            text(own, lastChangeUSec=4),
        )

        async def send(ask: Ask, _told: object) -> Told:
            await introduced(ask, beta)
            # As long as it may be in use it is not asked for.
            assert await ask("found", {"record": newer}) == {}
            await ask("freeze", {"wait_s": 0})
            for found in refused:
                await ask("found", {"record": found})
            assert home.record.data["realName"] == "Alice"
            await ask("found", {"record": newer})
            return {}

        await alpha.send("alice", send).wait()
        assert home.record.data["realName"] == "Newer"
        stored = UserRecord.parse((tmp_path / "a/records/alice.identity").read_bytes())
        assert stored.data["realName"] == "Newer"

    run(tmp_path, scenario)
