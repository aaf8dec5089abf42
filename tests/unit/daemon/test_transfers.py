"""A home between two daemons: one of them has it, whoever is killed, and nobody is fooled."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from machines import Ask, Site, Told

from homemgr import errors
from homemgr.daemon import changes, registration
from homemgr.daemon.transfer_options import ForgetOptions, to_forget, to_receive, to_send
from homemgr.daemon.transfer_states import Direction, TransferState
from homemgr.record.jsontext import JsonObject
from homemgr.record.model import UserRecord
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


def test_what_was_changed_on_the_wire_is_refused_whoever_vouches(tmp_path: Path) -> None:
    async def scenario(alpha: Site, beta: Site) -> None:
        introduction, sealed = await sealed_by(alpha, beta.receiver, "send")
        changed = arrived(sealed["record"], sealed["seal"], "13" * 32)
        trust = (alpha.fingerprint, "13" * 32)
        with pytest.raises(errors.AlteredContent):
            await take(beta, "receive", introduction, changed, *trust)

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
