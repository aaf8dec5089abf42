"""A FIDO2 token that is a program: CTAP 2.0 with hmac-secret and PINs, on the end of a terminal.

libfido2 opens any character device and talks to it in reports of 64 bytes, for want of a
report descriptor: so the far end of a pseudo terminal in raw mode is a token to it, on every
kernel. Run as `authenticator.py [OPTIONS]`: prints the path of that terminal and serves until
it is ended. See the Client to Authenticator Protocol (CTAP), 2.1.

It runs in boxes too, so it imports nothing but Python and `cryptography`.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import secrets
import signal
import struct
import sys
import termios
import tty
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

REPORT, FRAME = 64, 65  # a report that is written has its number before it
INIT, CBOR, ERROR = 0x86, 0x90, 0xBF
HAS_CBOR = 0x04

OK, INVALID_COMMAND, UNSUPPORTED_OPTION, NO_CREDENTIALS = 0x00, 0x01, 0x2B, 0x2E
UNSUPPORTED_ALGORITHM, ES256 = 0x26, -7
PIN_INVALID, PIN_BLOCKED, PIN_AUTH_INVALID, PIN_AUTH_BLOCKED = 0x31, 0x32, 0x33, 0x34
PIN_REQUIRED, USER_ACTION_TIMEOUT, UP_REQUIRED = 0x36, 0x2F, 0x3B

#: CTAPHID, "HID report descriptor": usage page and usage of FIDO, and the two reports.
DESCRIPTOR = bytes.fromhex("06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0")

#: CTAP: wrong PINs in a row before the token wants to be plugged in again, and in all.
TRIES_AT_ONCE, TRIES = 3, 8

Value = "int | bool | bytes | str | list[Value] | dict[object, Value]"


def encode(value: object) -> bytes:
    """CBOR in the form that CTAP wants."""
    match value:
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            return _head(3, len(value.encode())) + value.encode()
        case list():
            return _head(4, len(value)) + b"".join(map(encode, value))
        case dict():
            pairs = sorted((encode(key), encode(item)) for key, item in value.items())
            pairs.sort(key=lambda pair: (pair[0][0] >> 5, len(pair[0]), pair[0]))
            return _head(5, len(value)) + b"".join(key + item for key, item in pairs)
    raise TypeError(type(value).__name__)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for extra, size in ((24, 1), (25, 2), (26, 4)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
    raise ValueError(number)


def decode(data: bytes) -> object:
    """The value in ``data``."""
    return _decode(memoryview(data), 0)[0]


def _decode(data: memoryview, place: int) -> tuple[object, int]:
    major, number = data[place] >> 5, data[place] & 31
    place += 1
    if major == 7:
        return number == 21, place
    if number >= 24:
        size = 1 << (number - 24)
        number, place = int.from_bytes(data[place : place + size], "big"), place + size
    if major < 2:
        return (number if major == 0 else -1 - number), place
    if major < 4:
        raw = bytes(data[place : place + number])
        return (raw if major == 2 else raw.decode()), place + number
    items: list[object] = []
    for _ in range(number * (major - 3)):
        item, place = _decode(data, place)
        items.append(item)
    return (items if major == 4 else dict(zip(items[::2], items[1::2], strict=True))), place


class Refused(Exception):
    """The status that answers a command."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:#x}")
        self.status = status


@dataclass
class Protocol:
    """PIN/UV auth protocol one or two, with the key of this token for both."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def cose(self) -> dict[object, object]:
        numbers = self.key.public_key().public_numbers()
        x, y = (n.to_bytes(32, "big") for n in (numbers.x, numbers.y))
        return {1: 2, 3: -25, -1: 1, -2: x, -3: y}

    def agree(self, number: int, theirs: dict[int, bytes]) -> tuple[bytes, bytes]:
        """The keys for HMAC and AES that both sides share."""
        point = b"\x04" + theirs[-2] + theirs[-3]
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        shared = self.key.exchange(ec.ECDH(), public)
        if number == 1:
            key = hashlib.sha256(shared).digest()
            return key, key
        derived = [
            HKDF(hashes.SHA256(), 32, bytes(32), info).derive(shared)
            for info in (b"CTAP2 HMAC key", b"CTAP2 AES key")
        ]
        return derived[0], derived[1]


def crypt(number: int, key: bytes, data: bytes, *, encrypts: bool) -> bytes:
    """AES in CBC; protocol two puts a random initial vector before it."""
    vector = bytes(16)
    if number == 2:
        vector = secrets.token_bytes(16) if encrypts else data[:16]
        data = data if encrypts else data[16:]
    cipher = Cipher(algorithms.AES(key), modes.CBC(vector))
    run = cipher.encryptor() if encrypts else cipher.decryptor()
    done = run.update(data) + run.finalize()
    return vector + done if number == 2 and encrypts else done


def fits(number: int, key: bytes, message: bytes, proof: bytes) -> bool:
    whole = hmac.digest(key, message, "sha256")
    return hmac.compare_digest(whole[: len(proof)], proof) and len(proof) == (16, 32)[number - 1]


class Token:
    """What the token keeps, and its answers to commands."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._protocol = Protocol()
        self._master = options.master.encode()
        self._pin_token = secrets.token_bytes(32)
        self._tries, self._tries_now = options.tries, TRIES_AT_ONCE

    def answer(self, command: int, parameters: dict) -> dict:
        match command:
            case 0x01:
                return self._make(parameters)
            case 0x02:
                return self._assert(parameters)
            case 0x04:
                return self._info()
            case 0x06:
                return self._pin(parameters)
        raise Refused(INVALID_COMMAND)

    def _info(self) -> dict:
        options = {"rk": False, "up": True}
        if self._options.pin:
            options["clientPin"] = True
        if self._options.recognises:
            options["uv"] = True
        return {
            1: ["FIDO_2_0"],
            2: ["hmac-secret"] if not self._options.plain else ["credProtect"],
            3: bytes(16),
            4: options,
            6: [self._options.protocol],
        }

    def _make(self, told: dict) -> dict:
        with_pin = self._has_pin(told, 8, 9, told[1])
        if self._options.pin and not with_pin:
            raise Refused(PIN_REQUIRED)
        if all(each["alg"] != ES256 for each in told[4]):
            raise Refused(UNSUPPORTED_ALGORITHM)
        self._touch()
        identity = secrets.token_bytes(32)
        identity += hmac.digest(self._master, identity, "sha256")[:16]
        numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
        x, y = (n.to_bytes(32, "big") for n in (numbers.x, numbers.y))
        attested = bytes(16) + struct.pack(">H", len(identity)) + identity
        attested += encode({1: 2, 3: ES256, -1: 1, -2: x, -3: y})
        data = self._data(told[2]["id"], 0xC1 | with_pin << 2, attested)
        return {1: "none", 2: data + encode({"hmac-secret": True}), 3: {}}

    def _assert(self, told: dict) -> dict:
        options = told.get(5, {})
        with_pin = self._has_pin(told, 6, 7, told[2])
        if options.get("uv") and not self._options.recognises:
            raise Refused(UNSUPPORTED_OPTION)
        credential = next((each for each in told[3] if self._is_ours(each["id"])), None)
        if credential is None:
            raise Refused(NO_CREDENTIALS)
        wants_touch = options.get("up", True)
        extension = told.get(4, {}).get("hmac-secret")
        if wants_touch:
            self._touch()
        elif extension and self._options.insists:
            raise Refused(UP_REQUIRED)
        verified = with_pin or bool(options.get("uv"))
        flags = int(wants_touch) | verified << 2
        tail = b""
        if extension:
            flags |= 0x80
            secret = self._hmac(credential["id"], extension, verified=verified)
            tail = encode({"hmac-secret": secret})
        return {
            1: {"id": credential["id"], "type": "public-key"},
            2: self._data(told[1], flags) + tail,
            3: bytes(64),
        }

    def _hmac(self, identity: bytes, told: dict, *, verified: bool) -> bytes:
        number = told.get(4, 1)
        mac, aes = self._protocol.agree(number, told[1])
        if not fits(number, mac, told[2], told[3]):
            raise Refused(PIN_AUTH_INVALID)
        salt = crypt(number, aes, told[2], encrypts=False)
        # As the standard has it: another secret for whoever was recognised.
        key = hmac.digest(self._master, identity + bytes([verified]), "sha256")
        return crypt(number, aes, hmac.digest(key, salt, "sha256"), encrypts=True)

    def _pin(self, told: dict) -> dict:
        match told[2]:
            case 1:
                return {3: self._tries}
            case 2:
                return {1: self._protocol.cose()}
            case 5:
                return {2: self._pin_token_for(told)}
        raise Refused(INVALID_COMMAND)

    def _pin_token_for(self, told: dict) -> bytes:
        if not self._tries:
            raise Refused(PIN_BLOCKED)
        if not self._tries_now:
            raise Refused(PIN_AUTH_BLOCKED)
        number = told[1]
        _, aes = self._protocol.agree(number, told[3])
        self._tries -= 1
        self._tries_now -= 1
        wanted = hashlib.sha256(self._options.pin.encode()).digest()[:16]
        if crypt(number, aes, told[6], encrypts=False) != wanted:
            if not self._tries:
                raise Refused(PIN_BLOCKED)
            raise Refused(PIN_INVALID if self._tries_now else PIN_AUTH_BLOCKED)
        self._tries, self._tries_now = TRIES, TRIES_AT_ONCE
        return crypt(number, aes, self._pin_token, encrypts=True)

    def _has_pin(self, told: dict, proof: int, number: int, message: bytes) -> bool:
        if proof not in told:
            return False
        if not fits(told[number], self._pin_token, message, told[proof]):
            raise Refused(PIN_AUTH_INVALID)
        return True

    def _is_ours(self, identity: bytes) -> bool:
        return identity[32:] == hmac.digest(self._master, identity[:32], "sha256")[:16]

    def _touch(self) -> None:
        if self._options.untouched:
            raise Refused(USER_ACTION_TIMEOUT)

    def _data(self, relying_party: str, flags: int, tail: bytes = b"") -> bytes:
        return hashlib.sha256(relying_party.encode()).digest() + struct.pack(">BI", flags, 1) + tail


class Line:
    """CTAPHID: messages in reports, over a descriptor that never mixes them up."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def serve(self, token: Token) -> None:
        """Until the descriptor is closed."""
        while True:
            channel, command, data = self._receive()
            match command:
                case 0x86:
                    fresh = struct.pack(">IBBBBB", 0x11223344, 2, 1, 0, 0, HAS_CBOR)
                    self._send(channel, INIT, data[:8] + fresh)
                case 0x90:
                    self._send(channel, CBOR, self._answered(token, data))
                case 0x91:
                    pass
                case _:
                    self._send(channel, ERROR, bytes([INVALID_COMMAND]))

    @staticmethod
    def _answered(token: Token, data: bytes) -> bytes:
        try:
            told = decode(data[1:]) if data[1:] else {}
            return bytes([OK]) + encode(token.answer(data[0], told))
        except Refused as refused:
            return bytes([refused.status])

    def _receive(self) -> tuple[int, int, bytes]:
        channel, command, length = struct.unpack(">IBH", (report := self._report())[:7])
        data = report[7:]
        while len(data) < length:
            data += self._report()[5:]
        return channel, command, data[:length]

    def _report(self) -> bytes:
        data = b""
        while len(data) < FRAME:
            data += os.read(self._fd, FRAME - len(data))
        return data[1:]

    def _send(self, channel: int, command: int, data: bytes) -> None:
        head = struct.pack(">IBH", channel, command, len(data))
        reports, rest = [head + data[:57]], data[57:]
        for place in range(0, len(rest), 59):
            reports.append(struct.pack(">IB", channel, place // 59) + rest[place : place + 59])
        for report in reports:
            os.write(self._fd, report.ljust(REPORT, b"\0"))


def terminal() -> tuple[int, str]:
    """Our end of a terminal, and the device that is its far end."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    settings = termios.tcgetattr(theirs)
    # A whole report or nothing, as a HID device has it. The far end stays open here: else it
    # would be hung up whenever nobody else has it.
    settings[6][termios.VMIN] = REPORT
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    return ours, os.ttyname(theirs)


def plug_in(place: Path, device: str) -> None:
    """What sysfs would say of it; the name appears last, and whole."""
    hid = place / ".new" / "device"
    hid.mkdir(parents=True)
    (hid / "report_descriptor").write_bytes(DESCRIPTOR)
    (hid / "uevent").write_text("HID_NAME=Virtual Token\n")
    (hid.parent / "uevent").write_text(f"DEVNAME={device.removeprefix('/dev/')}\n")
    hid.parent.rename(place / f"hidraw{os.getpid()}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sys", type=Path, help="directory in the place of /sys/class/hidraw")
    parser.add_argument("--master", default="master", help="all that tells tokens apart")
    parser.add_argument("--pin", default="")
    parser.add_argument("--tries", type=int, default=TRIES, help="PINs until it is locked")
    parser.add_argument("--protocol", type=int, default=1, help="PIN/UV auth protocol")
    parser.add_argument("--untouched", action="store_true", help="nobody touches it")
    parser.add_argument("--insists", action="store_true", help="on being touched")
    parser.add_argument("--recognises", action="store_true", help="its user, by itself")
    parser.add_argument("--plain", action="store_true", help="it lacks hmac-secret")
    parser.add_argument("--mute", action="store_true", help="it never answers")
    options = parser.parse_args()
    ours, device = terminal()
    if options.sys:
        plug_in(options.sys, device)
    print(device, flush=True)
    if options.mute:
        signal.pause()
    Line(ours).serve(Token(options))


if __name__ == "__main__":
    sys.exit(main())
