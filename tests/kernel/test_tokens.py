"""Asking security tokens in a process apart: what they say, hang on, and die of."""

from __future__ import annotations

import base64
import itertools
import os
import signal
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from homemgr import errors
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret
from homemgr.work.tokens import TokenWords, apart
from tests.soft_tokens import MODULE, PIN, SoftHsm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.record.jsontext import JsonObject

KEY = b"a key of a home"


@pytest.fixture(scope="module")
def hsm(private_mounts: None, tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return SoftHsm(tmp_path_factory.mktemp("softhsm"))


def words(key: bytes) -> str:
    return base64.b64encode(key).decode()


def entry(uri: str, data: bytes, key: bytes = KEY, **more: str) -> JsonObject:
    """An entry of a record, whose hash can be read."""
    return {"uri": uri, "data": words(data), "hashedPassword": f"h:{words(key)}", **more}


def failure(secret: Secret, *entries: JsonObject) -> errors.HomeError | None:
    """Why no token unlocks a record with ``entries``; None if one does."""
    record = UserRecord({"userName": "anna", "privileged": {"pkcs11EncryptedKey": [*entries]}})
    tokens = TokenWords(lambda word, hashed: hashed == f"h:{word}")
    found = tokens.unlock(record.on(Machine("0" * 32)), secret)
    assert (found is None) == bool(tokens.words)
    return found


def public_key(label: str, identity: str = "01") -> object:
    """As pkcs11-tool(1) reads it from a token."""
    argv = ["pkcs11-tool", "--module", MODULE, "--token-label", label, "--id", identity]
    read = [*argv, "--read-object", "--type", "pubkey"]
    return load_der_public_key(subprocess.run(read, capture_output=True, check=True).stdout)


def test_rsa_is_decrypted_in_every_padding_of_systemd_homed(hsm: SoftHsm) -> None:
    uri, given = hsm.add("rsa", "rsa:2048"), Secret(token_pins=[PIN])
    key = public_key("rsa")
    assert isinstance(key, rsa.RSAPublicKey)
    old = key.encrypt(KEY, padding.PKCS1v15())
    assert failure(given, entry(uri, old)) is None
    assert failure(given, entry(uri, old, padding="pkcs1")) is None
    mask = padding.MGF1(hashes.SHA1())
    oaep = key.encrypt(KEY, padding.OAEP(mask, hashes.SHA1(), None))
    assert failure(given, entry(uri, oaep, padding="oaep-sha1")) is None
    # SoftHSM has no OAEP with SHA-256: it says so, and the entry counts as one of no token.
    for wrong in ("oaep-sha256", "none"):
        found = failure(given, entry(uri, old, padding=wrong))
        assert isinstance(found, errors.BadPasswordAndNoToken)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_a_key_on_a_curve_shares_what_is_the_key(hsm: SoftHsm, curve: ec.EllipticCurve) -> None:
    uri = hsm.add(curve.name, f"EC:{curve.name}")
    theirs, ours = public_key(curve.name), ec.generate_private_key(curve)
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    shared = ours.exchange(ec.ECDH(), theirs)
    half = ours.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # The URI may name the object as well.
    whole = entry(f"{uri};object=home;type=private", half, shared)
    assert failure(Secret(token_pins=[PIN]), whole) is None
    for data in (half[:-1], b"", half + half):
        found = failure(Secret(token_pins=[PIN]), entry(uri, data, shared))
        assert isinstance(found, errors.BadPasswordAndNoToken)


def test_uris_that_mean_nothing_here_are_no_token(hsm: SoftHsm) -> None:
    for uri in ("pkcs11:token=nobody", "http://example.com", "pkcs11:", "\0"):
        found = failure(Secret(), entry(uri, b"x"))
        assert isinstance(found, errors.BadPasswordAndNoToken | errors.TokenPinNeeded)
    # Which drivers are loaded is not for a record to say.
    found = failure(Secret(), entry("pkcs11:token=x?module-path=/nonexistent.so", b"x"))
    assert isinstance(found, errors.BadPasswordAndNoToken)


def test_what_hangs_is_ended_and_what_it_said_before_counts() -> None:
    def ask() -> Iterator[str | errors.HomeError]:
        yield "first"
        signal.pause()

    with closing(apart(ask, 3, 0.2)) as answers:
        first, *others = answers
    assert first == "first"
    assert [type(other) for other in others] == [errors.TokenActionTimeout] * 2


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, 0], ids=str)
def test_a_driver_that_dies_takes_nobody_along(number: int) -> None:
    def ask() -> Iterator[str | errors.HomeError]:
        yield errors.BadPin("Wrong.")
        if not number:
            raise ValueError("a bug")
        os.kill(os.getpid(), number)

    with closing(apart(ask, 2, 60)) as answers:
        first, second = answers
    assert isinstance(first, errors.BadPin)
    assert isinstance(second, errors.NotSupported)


def test_the_process_has_no_descriptor_of_ours() -> None:
    def ask() -> Iterator[str | errors.HomeError]:
        for number in itertools.count(3):
            try:
                os.fstat(number)
            except OSError:
                yield str(number)

    kept, other = os.pipe()
    try:
        with closing(apart(ask, 2, 60)) as answers:
            # Its pipe to us is number 3; all above is closed.
            assert list(answers) == ["4", "5"]
    finally:
        os.close(kept)
        os.close(other)
