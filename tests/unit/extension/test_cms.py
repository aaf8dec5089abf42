"""Signatures of root hashes: who made them, over what, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st

from homemgr.extension import certificates, cms
from tests.signed_images import PLAIN, Maker

CONTENT = b"0f" * 32
WITH_ATTRIBUTES = (pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary)

RSA = Maker.new("rsa", rsa.generate_private_key(65537, 2048))
CURVE = Maker.new("curve")
SIGNATURE = CURVE.sign(CONTENT)


@pytest.mark.parametrize(
    "maker", [RSA, CURVE, Maker.new("384", ec.generate_private_key(ec.SECP384R1()))]
)
@pytest.mark.parametrize("options", [PLAIN, WITH_ATTRIBUTES])
@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_a_good_signature_is_good(
    maker: Maker, options: tuple[pkcs7.PKCS7Options, ...], digest: pkcs7.PKCS7HashTypes
) -> None:
    signature = maker.sign(CONTENT, options, digest)
    others = [RSA.trusted, CURVE.trusted, maker.trusted]
    certificates.require_signed(CONTENT, signature, others)
    (signer,) = cms.signers(signature, CONTENT)
    assert signer.serial == maker.certificate.serial_number
    assert signer.digest == digest.name


@pytest.mark.parametrize("maker", [RSA, CURVE])
@pytest.mark.parametrize("options", [PLAIN, WITH_ATTRIBUTES])
def test_a_signature_of_something_else_is_refused(
    maker: Maker, options: tuple[pkcs7.PKCS7Options, ...]
) -> None:
    signature = maker.sign(CONTENT, options)
    with pytest.raises(ValueError, match=r"it is wrong|over something else"):
        certificates.require_signed(CONTENT[::-1], signature, [maker.trusted])


def test_the_certificate_that_comes_along_is_nobodys_word() -> None:
    signature = CURVE.sign(CONTENT, WITH_ATTRIBUTES)
    number = f"{CURVE.certificate.serial_number:x}"
    with pytest.raises(ValueError, match=rf"nobody who is trusted .* {number}\); .*/etc/verity\.d"):
        certificates.require_signed(CONTENT, signature, [RSA.trusted])
    with pytest.raises(ValueError, match="nobody who is trusted"):
        certificates.require_signed(CONTENT, signature, [])


def test_another_key_under_the_same_number_is_refused() -> None:
    # The number is anybody's choice; the key is not.
    other = Maker.new("other", serial=CURVE.certificate.serial_number)
    with pytest.raises(ValueError, match="it is wrong"):
        certificates.require_signed(CONTENT, SIGNATURE, [other.trusted])
    # Who has the number as well does not stand in the way of who signed.
    certificates.require_signed(CONTENT, SIGNATURE, [other.trusted, CURVE.trusted])


@pytest.mark.parametrize("serial", [1, 127, 128, 255, 1 << 127])
def test_numbers_of_every_length_are_found(serial: int) -> None:
    maker = Maker.new("numbered", serial=serial)
    certificates.require_signed(CONTENT, maker.sign(CONTENT), [maker.trusted])


def test_content_of_its_own_is_refused() -> None:
    signature = CURVE.sign(CONTENT, (pkcs7.PKCS7Options.NoAttributes, pkcs7.PKCS7Options.Binary))
    with pytest.raises(ValueError, match="over something of its own"):
        cms.signers(signature, CONTENT)


@pytest.mark.parametrize(
    "raw", [b"", b"0", b"0\x80", b"0\x00", b"\x30\x84\xff\xff\xff\xff", b"\x1f\x01\x00", b"{}"]
)
def test_what_is_no_signature_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="it is"):
        cms.signers(raw, CONTENT)


@settings(max_examples=300)
@given(st.integers(0, len(SIGNATURE) - 1), st.binary(min_size=1, max_size=4))
def test_a_changed_signature_is_never_good_for_other_content(offset: int, new: bytes) -> None:
    changed = (SIGNATURE[:offset] + new + SIGNATURE[offset + len(new) :])[: len(SIGNATURE)]
    with pytest.raises(ValueError, match=r"."):
        certificates.require_signed(CONTENT[1:], changed, [CURVE.trusted])


@settings(max_examples=100)
@given(st.integers(0, len(SIGNATURE) - 1))
def test_a_cut_off_signature_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="it is"):
        cms.signers(SIGNATURE[:length], CONTENT)


def test_a_key_that_signs_otherwise_is_refused_in_order() -> None:
    # A certificate may hold any key, also one that makes no such signatures.
    other = CURVE.trusted._replace(key=ed25519.Ed25519PrivateKey.generate().public_key())
    with pytest.raises(ValueError, match="it is wrong"):
        certificates.require_signed(CONTENT, SIGNATURE, [other])


@pytest.mark.parametrize("maker", [RSA, CURVE, Maker.new("numbered", serial=255)])
def test_certificates_are_read_as_the_library_does(maker: Maker) -> None:
    found = certificates.parse(b"some words before\n" + maker.pem + RSA.pem)
    assert found.serial == maker.certificate.serial_number
    assert found.key == maker.certificate.public_key()


@settings(max_examples=200)
@given(st.integers(0, len(CURVE.pem) - 1), st.binary(max_size=4))
def test_a_changed_certificate_is_read_or_refused(offset: int, new: bytes) -> None:
    changed = CURVE.pem[:offset] + new + CURVE.pem[offset + len(new) + 1 :]
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        assert certificates.parse(changed).serial > -(1 << 168)


@pytest.mark.parametrize("extra", [["-noattr"], []])
def test_what_openssl_signs_is_taken(tmp_path: Path, extra: list[str]) -> None:
    (tmp_path / "key").write_bytes(CURVE.private_pem)
    (tmp_path / "certificate").write_bytes(CURVE.pem)
    (tmp_path / "content").write_bytes(CONTENT)
    argv = ["openssl", "smime", "-sign", "-nocerts", "-binary", *extra, "-in", "content"]
    argv += ["-inkey", "key", "-signer", "certificate", "-outform", "der"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=True)
    certificates.require_signed(CONTENT, done.stdout, [CURVE.trusted])
