"""Signed disk images, made from the specifications of dm-verity and of UAPI.3 for the tests."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import struct
import uuid
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from homemgr.extension import certificates
from tests.disk_images import (
    ROOT_SIGNATURE_X86_64,
    ROOT_VERITY_X86_64,
    ROOT_X86_64,
    USR_SIGNATURE_X86_64,
    USR_VERITY_X86_64,
    USR_X86_64,
    Part,
    gpt_image,
)

BLOCK = 4096

#: Where the first partition of these images begins.
DATA_START = 34 * 512

TYPES = {
    "root": (ROOT_X86_64, ROOT_VERITY_X86_64, ROOT_SIGNATURE_X86_64),
    "usr": (USR_X86_64, USR_VERITY_X86_64, USR_SIGNATURE_X86_64),
}

#: As systemd-repart and kernel build tools sign: over these bytes, with nothing else in it.
PLAIN = (
    pkcs7.PKCS7Options.DetachedSignature,
    pkcs7.PKCS7Options.Binary,
    pkcs7.PKCS7Options.NoAttributes,
    pkcs7.PKCS7Options.NoCerts,
)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Maker(NamedTuple):
    """Somebody who signs images."""

    key: Key
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str, key: Key | None = None, serial: int = 0) -> Maker:
        """Somebody new, with a certificate that only he himself vouches for."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(who)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @property
    def pem(self) -> bytes:
        """What is put into verity.d."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def trusted(self) -> certificates.Certificate:
        """What is found in there."""
        return certificates.parse(self.pem)

    @property
    def private_pem(self) -> bytes:
        """The key, for tools that sign by themselves."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(
        self,
        content: bytes,
        options: tuple[pkcs7.PKCS7Options, ...] = PLAIN,
        digest: pkcs7.PKCS7HashTypes | None = None,
    ) -> bytes:
        """A PKCS#7 signature in DER."""
        builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
        builder = builder.add_signer(self.certificate, self.key, digest or hashes.SHA256())
        return builder.sign(serialization.Encoding.DER, list(options))


class Tree(NamedTuple):
    """What lies in the partition of hashes, and what signs for all of it."""

    content: bytes
    root_hash: bytes


def hash_tree(
    data: bytes, algorithm: str = "sha256", salt: bytes = b"\x17" * 32, block: int = BLOCK
) -> Tree:
    """Digests of all blocks, digests of blocks of these, and so on, the last ones first."""
    levels: list[bytes] = []
    level = data
    while len(level) > block or not levels:
        found = [
            hashlib.new(algorithm, salt + level[at : at + block]).digest()
            for at in range(0, len(level), block)
        ]
        level = b"".join(found)
        level += bytes(-len(level) % block)
        levels.append(level)
    head = struct.pack(
        "<8sII16s32sIIQH6x256s168x",
        b"verity\0\0",
        1,
        1,
        uuid.UUID(int=7).bytes,
        algorithm.encode(),
        block,
        block,
        len(data) // block,
        len(salt),
        salt,
    )
    root_hash = hashlib.new(algorithm, salt + levels[-1]).digest()
    return Tree(head.ljust(block, b"\0") + b"".join(reversed(levels)), root_hash)


def signature_part(root_hash: bytes, maker: Maker, signature: bytes | None = None) -> bytes:
    """The JSON text in the third partition."""
    fingerprint = maker.certificate.fingerprint(hashes.SHA256()).hex()
    text = json.dumps(
        {
            "rootHash": root_hash.hex(),
            "certificateFingerprint": fingerprint,
            "signature": base64.b64encode(
                signature or maker.sign(root_hash.hex().encode())
            ).decode(),
        }
    )
    return text.encode().ljust(16384, b"\0")


def signed_image(
    data: bytes,
    maker: Maker,
    *,
    kind: str = "root",
    algorithm: str = "sha256",
    block: int = BLOCK,
    root_hash: bytes = b"",
    signature: bytes | None = None,
) -> bytes:
    """A whole disk; ``root_hash`` or ``signature`` stand there in place of the right ones."""
    data += bytes(-len(data) % block)
    tree = hash_tree(data, algorithm, block=block)
    signed = root_hash or tree.root_hash
    data_type, hashes_type, signature_type = TYPES[kind]
    return gpt_image(
        [
            Part(data_type, data, "data", str(uuid.UUID(bytes=signed[:16]))),
            Part(hashes_type, tree.content, "hashes", str(uuid.UUID(bytes=signed[-16:]))),
            Part(signature_type, signature_part(signed, maker, signature), "signature"),
        ]
    )
