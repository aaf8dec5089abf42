"""Signatures: homed's own vector, every verdict, and what each allows."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from record_samples import (
    MACHINE_ID,
    RECORD,
    VECTOR_PEM,
    VECTOR_SIGNATURE,
    VECTOR_TEXT,
    records,
)

from homemgr.errors import BadSignature, InvalidArgs, NoPrivateKey, RecordSigned
from homemgr.record import signature
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.model import UserRecord
from homemgr.record.signature import (
    LOCAL_KEY,
    LOCAL_PRIVATE,
    Keyring,
    PrivateKey,
    PublicKey,
    Verdict,
    sign,
    verdict,
)

OURS, FRIEND, STRANGER = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
RING = Keyring({"friend.public": FRIEND.public}, {LOCAL_PRIVATE: OURS})


def signed_by(*keys: PrivateKey) -> UserRecord:
    """The sample record with one signature of each key."""
    record = UserRecord(dict(RECORD))
    entries: list[Json] = []
    for key in keys:
        made = sign(record, key).data["signature"]
        assert isinstance(made, list)
        entries += made
    return record.replaced(signature=entries)


def test_the_signature_homed_wrote_verifies() -> None:
    record = UserRecord.parse(VECTOR_TEXT).replaced(
        signature=[{"data": VECTOR_SIGNATURE, "key": VECTOR_PEM}]
    )
    homed = Keyring.from_pem({"homed.public": VECTOR_PEM.encode()})
    assert verdict(record, homed) is Verdict.FOREIGN
    assert verdict(record, Keyring.from_pem({LOCAL_KEY: VECTOR_PEM.encode()})) is Verdict.EXCLUSIVE
    assert verdict(record, RING) is Verdict.UNKNOWN
    assert verdict(UserRecord.parse(record.pretty()), homed) is Verdict.FOREIGN


@pytest.mark.parametrize("member", ["uid", "zz.example.num", "privileged", "perMachine"])
def test_a_change_in_any_signed_part_breaks_it(member: str) -> None:
    record = UserRecord.parse(VECTOR_TEXT).replaced(
        signature=[{"data": VECTOR_SIGNATURE, "key": VECTOR_PEM}]
    )
    homed = Keyring.from_pem({"homed.public": VECTOR_PEM.encode()})
    assert verdict(record.without(member), homed) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("keys", "judged"),
    [
        ((), Verdict.UNSIGNED),
        ((OURS,), Verdict.EXCLUSIVE),
        ((OURS, OURS), Verdict.EXCLUSIVE),
        ((OURS, FRIEND), Verdict.OURS_AND_OTHERS),
        ((STRANGER, OURS), Verdict.OURS_AND_OTHERS),
        ((FRIEND,), Verdict.FOREIGN),
        ((STRANGER, FRIEND), Verdict.FOREIGN),
        ((STRANGER,), Verdict.UNKNOWN),
    ],
)
def test_verdict_over_all_signatures(keys: tuple[PrivateKey, ...], judged: Verdict) -> None:
    assert verdict(signed_by(*keys), RING) is judged


def test_a_missing_signature_section_is_unsigned() -> None:
    assert verdict(UserRecord(dict(RECORD)), RING) is Verdict.UNSIGNED


def test_the_key_a_signature_names_is_not_believed() -> None:
    record = signed_by(STRANGER)
    entry = dict(record.data["signature"][0])
    entry["key"] = OURS.public.pem
    assert verdict(record.replaced(signature=[entry]), RING) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"data": None},
        {"data": 5},
        {"data": ""},
        {"data": "!!"},
        {"data": "é"},
        {"data": base64.b64encode(b"x" * 63).decode()},
        {"data": base64.b64encode(b"x" * 65).decode()},
        {"data": base64.b64encode(b"\0" * 64).decode()},
        {"data": base64.b64encode(b"\xff" * 64).decode()},
    ],
)
def test_broken_signatures_are_those_of_nobody(entry: JsonObject) -> None:
    record = UserRecord({**RECORD, "signature": [entry]})
    assert verdict(record, RING) is Verdict.UNKNOWN
    mixed = signed_by(OURS)
    good = mixed.data["signature"]
    assert isinstance(good, list)
    assert verdict(mixed.replaced(signature=[*good, entry]), RING) is Verdict.OURS_AND_OTHERS


def test_signing_replaces_the_signatures_there_were() -> None:
    record = sign(signed_by(STRANGER, FRIEND), OURS)
    assert verdict(record, RING) is Verdict.EXCLUSIVE
    entries = record.data["signature"]
    assert isinstance(entries, list)
    assert len(entries) == 1
    assert entries[0]["key"] == OURS.public.pem


def test_unsigned_sections_do_not_matter() -> None:
    record = sign(UserRecord(dict(RECORD)), OURS)
    changed = record.with_binding(MACHINE_ID, {"uid": 1}).with_status(MACHINE_ID, {"state": "x"})
    assert verdict(changed.replaced(secret={"password": "x"}), RING) is Verdict.EXCLUSIVE


@given(records())
def test_signature_survives_every_written_form(data: JsonObject) -> None:
    record = sign(UserRecord(data), OURS)
    for text in (record.pretty(), record.compact(), record.embedded().pretty()):
        assert verdict(UserRecord.parse(text), RING) is Verdict.EXCLUSIVE


@pytest.mark.parametrize(
    ("keys", "accepted"),
    [((OURS,), True), ((OURS, STRANGER), True), ((FRIEND,), True), ((STRANGER,), False),
     ((), False)],
)  # fmt: skip
def test_require_accepted(keys: tuple[PrivateKey, ...], accepted: bool) -> None:
    if accepted:
        assert signature.require_accepted(signed_by(*keys), RING).is_accepted
    else:
        with pytest.raises(BadSignature, match="alice"):
            signature.require_accepted(signed_by(*keys), RING)


@pytest.mark.parametrize("keys", [(OURS, FRIEND), (FRIEND,), (STRANGER,), ()])
def test_only_our_own_records_are_changed_here(keys: tuple[PrivateKey, ...]) -> None:
    signature.require_ours(signed_by(OURS), RING)
    with pytest.raises(RecordSigned, match="alice"):
        signature.require_ours(signed_by(*keys), RING)


def test_unsigned_records_are_signed_and_others_kept() -> None:
    made = signature.accepted_or_signed(signed_by(), RING)
    assert verdict(made, RING) is Verdict.EXCLUSIVE
    foreign = signed_by(FRIEND)
    assert signature.accepted_or_signed(foreign, RING) is foreign
    with pytest.raises(BadSignature):
        signature.accepted_or_signed(signed_by(STRANGER), RING)


def test_without_private_key_nothing_is_signed() -> None:
    with pytest.raises(NoPrivateKey, match="alice"):
        signature.accepted_or_signed(signed_by(), Keyring({}))


# --- keys ---------------------------------------------------------------------


def test_a_generated_pair_fits_together() -> None:
    private, public = signature.generate_key_pair()
    ring = Keyring.from_pem({LOCAL_KEY: public}, {LOCAL_PRIVATE: private})
    assert ring.public[LOCAL_KEY] == PrivateKey.from_pem(private).public
    assert public.decode().startswith("-----BEGIN PUBLIC KEY-----\n")
    assert public.endswith(b"-----END PUBLIC KEY-----\n")
    assert private.startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_our_pem_is_what_the_library_reads() -> None:
    assert load_pem_private_key(OURS.to_pem(), None)
    assert PublicKey.from_pem(VECTOR_PEM.encode()).pem == VECTOR_PEM


def test_a_pair_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgs, match=r"local\.public does not belong"):
        Keyring({LOCAL_KEY: FRIEND.public}, {LOCAL_PRIVATE: OURS})


@pytest.mark.parametrize("pem", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_what_is_no_key_is_named(pem: bytes) -> None:
    with pytest.raises(InvalidArgs, match=r"bad\.public is no public key"):
        Keyring.from_pem({"bad.public": pem})
    with pytest.raises(InvalidArgs, match=r"local\.private is no private key"):
        Keyring.from_pem({}, {LOCAL_PRIVATE: pem})


def test_other_kinds_of_keys_are_refused() -> None:
    other = generate_private_key(SECP256R1())
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InvalidArgs, match="ed25519"):
        PublicKey.from_pem(public)
    with pytest.raises(InvalidArgs, match="ed25519"):
        PrivateKey.from_pem(private)


def test_a_private_key_with_passphrase_is_refused() -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    with pytest.raises(InvalidArgs, match="without passphrase"):
        PrivateKey.from_pem(pem)


def test_keyrings_change_by_copying() -> None:
    more = RING.with_key("new.public", STRANGER.public)
    assert verdict(signed_by(STRANGER), more) is Verdict.FOREIGN
    assert verdict(signed_by(STRANGER), RING) is Verdict.UNKNOWN
    assert more.name_of(STRANGER.public) == "new.public"
    assert more.name_of(OURS.public) == LOCAL_KEY
    assert RING.name_of(STRANGER.public) is None
    assert verdict(signed_by(STRANGER), more.without_key("new.public")) is Verdict.UNKNOWN


def test_keys_compare_by_value_and_show_no_secret() -> None:
    again = PublicKey.from_pem(OURS.public.pem.encode())
    assert again == OURS.public
    assert again != FRIEND.public
    assert again != "x"
    assert len({again, OURS.public}) == 1
    assert OURS.public.fingerprint[:16] in repr(OURS)
    assert len(OURS.public.fingerprint) == 64
