"""Signing keys on disk: which are loaded, which signs, and what may be added and removed."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.daemon import keys
from homemgr.daemon.keys import Keys
from homemgr.record import signature
from homemgr.record.model import UserRecord
from homemgr.record.signature import Keyring, PrivateKey, Verdict, sign, verdict

LOCAL, CORPORATE, FRIEND = (PrivateKey.generate() for _ in range(3))
RECORD = UserRecord({"userName": "alice"})


def ring() -> Keyring:
    """Two private keys, the name of the second before that of the first."""
    return Keyring({}, {"corporate.private": CORPORATE, "local.private": LOCAL})


def test_every_private_key_counts_as_ours_and_local_signs_first() -> None:
    both = ring()
    assert verdict(sign(RECORD, CORPORATE), both) is Verdict.EXCLUSIVE
    assert both.signer is LOCAL
    assert set(both.public) == {"corporate.public", "local.public"}


def test_a_changed_record_is_signed_by_the_key_that_signed_it_before() -> None:
    both = ring()
    before = sign(RECORD, CORPORATE)
    changed = signature.signed_here(
        before.replaced(realName="A").without("signature"), both, like=before
    )
    assert verdict(changed, Keyring({}, {"corporate.private": CORPORATE})) is Verdict.EXCLUSIVE
    fresh = signature.signed_here(RECORD, both)
    assert verdict(fresh, Keyring({}, {"local.private": LOCAL})) is Verdict.EXCLUSIVE


def test_own_keys_without_their_private_half_are_still_own() -> None:
    public = ring().public
    worker = Keyring(public, own=("corporate.public",))
    assert verdict(sign(RECORD, CORPORATE), worker) is Verdict.EXCLUSIVE
    assert verdict(sign(RECORD, CORPORATE), Keyring(public)) is Verdict.FOREIGN


def test_the_refusal_of_an_unknown_key_names_it_and_what_accepts_it() -> None:
    with pytest.raises(errors.BadSignature) as refused:
        signature.require_accepted(sign(RECORD, FRIEND), ring())
    print_of = FRIEND.public.fingerprint
    assert f"homemgr origins trust {print_of}" in refused.value.message
    assert refused.value.public_key == FRIEND.public.pem


def test_a_signature_that_names_another_key_than_made_it_gives_no_fingerprint() -> None:
    record = sign(RECORD, FRIEND)
    (entry,) = record.data["signature"]  # type: ignore[misc]
    forged = record.replaced(signature=[{**entry, "key": CORPORATE.public.pem}])  # type: ignore[dict-item]
    with pytest.raises(errors.BadSignature) as refused:
        signature.require_accepted(forged, Keyring({}, {"local.private": LOCAL}))
    assert CORPORATE.public.fingerprint not in refused.value.message
    assert not refused.value.public_key


# --- on disk --------------------------------------------------------------------------


def write(path: Path, content: bytes, mode: int) -> None:
    """A key file."""
    path.write_bytes(content)
    path.chmod(mode)


def loaded(*directories: Path) -> Keys:
    """The keys of directories, the first of them the one of state."""
    return keys.load([str(d) for d in directories], str(directories[0]))


@pytest.mark.root
def test_private_keys_are_loaded_from_every_directory(tmp_path: Path) -> None:
    state, vendor = tmp_path / "state", tmp_path / "vendor"
    state.mkdir()
    vendor.mkdir()
    write(vendor / "corporate.private", CORPORATE.to_pem(), 0o400)
    write(vendor / "open.private", FRIEND.to_pem(), 0o440)
    write(vendor / "broken.private", b"x", 0o400)
    write(vendor / "broken.public", b"x", 0o444)
    found = loaded(state, vendor).keyring
    assert list(found.private) == ["local.private", "corporate.private"]
    assert stat.S_IMODE((state / "local.private").stat().st_mode) == 0o400


@pytest.mark.root
def test_a_private_key_beside_a_public_one_of_another_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "corporate.private", CORPORATE.to_pem(), 0o400)
    write(tmp_path / "corporate.public", FRIEND.public.pem.encode(), 0o444)
    found = loaded(tmp_path).keyring
    assert list(found.private) == ["local.private"]
    assert verdict(sign(RECORD, FRIEND), found) is Verdict.FOREIGN


def test_keys_are_added_and_removed_while_running(tmp_path: Path) -> None:
    kept = Keys(ring(), str(tmp_path))
    told: list[set[str]] = []
    kept.changed.append(lambda: told.append(set(kept.keyring.public)))

    async def run() -> None:
        await kept.add("friend.public", FRIEND.public.pem)
        assert stat.S_IMODE((tmp_path / "friend.public").stat().st_mode) == 0o444
        assert verdict(sign(RECORD, FRIEND), kept.keyring) is Verdict.FOREIGN
        with pytest.raises(errors.PathExists, match=r"friend\.public"):
            await kept.add("friend.public", PrivateKey.generate().public.pem)
        with pytest.raises(errors.PathExists, match=r"as friend\.public"):
            await kept.add("again.public", FRIEND.public.pem)
        await kept.remove("friend.public")
        assert not (tmp_path / "friend.public").exists()
        with pytest.raises(errors.NoSuchKey):
            await kept.remove("friend.public")
        with pytest.raises(errors.NoSuchKey):
            kept.pem("friend.public")

    asyncio.run(run())
    assert ["friend.public" in names for names in told] == [True, False]


@pytest.mark.parametrize(
    "name", ["local.public", "x", "../x.public", ".x.public", "x.private", "a\n.public"]
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    kept = Keys(ring(), str(tmp_path))
    with pytest.raises(errors.InvalidArgs, match="name"):
        asyncio.run(kept.add(name, FRIEND.public.pem))
    with pytest.raises(errors.InvalidArgs, match="name"):
        asyncio.run(kept.remove(name))
    assert list(tmp_path.iterdir()) == []


def test_our_own_keys_are_not_removed(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgs, match="private key of this machine"):
        asyncio.run(Keys(ring(), str(tmp_path)).remove("corporate.public"))


def test_a_refused_signer_is_accepted_by_fingerprint(tmp_path: Path) -> None:
    kept = Keys(ring(), str(tmp_path))
    record = sign(RECORD, FRIEND)

    async def run() -> None:
        assert not await kept.accept_seen(FRIEND.public.fingerprint)
        with pytest.raises(errors.BadSignature) as refused:
            signature.require_accepted(record, kept.keyring)
        kept.note_refused(refused.value)
        assert await kept.accept_seen(FRIEND.public.fingerprint)
        assert await kept.accept_seen(FRIEND.public.fingerprint)

    asyncio.run(run())
    assert verdict(record, kept.keyring) is Verdict.FOREIGN
