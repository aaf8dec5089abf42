"""PKCS#11 as its modules speak it: structures, numbers, and sessions on one token.

One method for each call that is needed, no policy. Structures, function numbers and
constants are those of OASIS PKCS #11 (Cryptographic Token Interface Base Specification 2.40
and the Current Mechanisms beside it), in their layout for Unix.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char, c_ubyte, c_ulong, c_void_p
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

OK: Final = 0x00
PIN_INCORRECT, PIN_INVALID, PIN_LEN_RANGE, PIN_LOCKED = 0xA0, 0xA1, 0xA2, 0xA4

#: Flags of a token.
LOGIN_REQUIRED, PROTECTED_PATH, INITIALIZED = 1 << 2, 1 << 8, 1 << 10
PIN_COUNT_LOW, PIN_FINAL_TRY, PIN_IS_LOCKED = 1 << 16, 1 << 17, 1 << 18

#: Classes of objects, and their attributes.
CERTIFICATE, PUBLIC_KEY, PRIVATE_KEY, SECRET_KEY = 1, 2, 3, 4
CLASS, TOKEN, VALUE, KEY_TYPE, SENSITIVE = 0x00, 0x01, 0x11, 0x100, 0x103
ENCRYPT, DECRYPT, DERIVE, VALUE_LEN, EXTRACTABLE = 0x104, 0x105, 0x10C, 0x161, 0x162
ID, MODULUS, PUBLIC_EXPONENT, EC_PARAMS, EC_POINT = 0x102, 0x120, 0x122, 0x180, 0x181
RSA, EC, GENERIC_SECRET = 0x00, 0x03, 0x10

RSA_PKCS, RSA_PKCS_OAEP, ECDH1_DERIVE = 0x01, 0x09, 0x1050
SHA_1, SHA256, MGF1_SHA1, MGF1_SHA256 = 0x220, 0x250, 1, 2
_DATA_SPECIFIED, _KDF_NULL = 1, 1

_SERIAL_SESSION, _USER = 1 << 2, 1
_UNAVAILABLE = c_ulong(-1).value

#: Places of the functions in a module's list, which the standard fixes.
_PLACES = {
    "C_GetSlotList": 4, "C_GetTokenInfo": 6, "C_OpenSession": 12, "C_CloseSession": 13,
    "C_Login": 18, "C_DestroyObject": 22, "C_GetAttributeValue": 24,
    "C_FindObjectsInit": 26, "C_FindObjects": 27, "C_FindObjectsFinal": 28,
    "C_DecryptInit": 33, "C_Decrypt": 34, "C_DeriveKey": 62,
}  # fmt: skip
_COUNT = 68


class CryptokiError(Exception):
    """A module refused a call; ``code`` is its CKR_ number."""

    def __init__(self, call: str, code: int) -> None:
        """Name the call."""
        super().__init__(f"{call}: error {code:#x} of the token's driver")
        self.code = code


class _Structure(ctypes.Structure):
    pass


class FunctionList(_Structure):
    """A module: its version, and one pointer for each function."""

    _fields_: ClassVar = [("version", c_ubyte * 2), ("functions", c_void_p * _COUNT)]


class TokenInfo(_Structure):
    """What a token says about itself; texts are padded with blanks."""

    _fields_: ClassVar = [
        ("label", c_char * 32),
        ("manufacturer", c_char * 32),
        ("model", c_char * 16),
        ("serial", c_char * 16),
        ("flags", c_ulong),
        ("counts", c_ulong * 10),
        ("versions", c_ubyte * 4),
        ("time", c_char * 16),
    ]

    def text(self, name: str) -> str:
        """One of its texts, without the padding."""
        value: bytes = getattr(self, name)
        return value.decode("utf-8", "replace").rstrip()


class Attribute(_Structure):
    """One attribute of an object, or of objects looked for."""

    _fields_: ClassVar = [("type", c_ulong), ("value", c_void_p), ("length", c_ulong)]


class Mechanism(_Structure):
    """How a key is used."""

    _fields_: ClassVar = [("mechanism", c_ulong), ("parameter", c_void_p), ("length", c_ulong)]


class _OaepParameters(_Structure):
    _fields_: ClassVar = [
        ("hash", c_ulong),
        ("mask", c_ulong),
        ("source", c_ulong),
        ("source_data", c_void_p),
        ("source_length", c_ulong),
    ]


class _EcdhParameters(_Structure):
    _fields_: ClassVar = [
        ("kdf", c_ulong),
        ("shared_length", c_ulong),
        ("shared_data", c_void_p),
        ("public_length", c_ulong),
        ("public_data", c_void_p),
    ]


class Module:
    """One loaded module, borrowed from who loaded it."""

    def __init__(self, address: int) -> None:
        """Take the module whose function list is at ``address``."""
        self._list = FunctionList.from_address(address)

    def call(self, name: str, *arguments: object) -> None:
        """Call a function; raises CryptokiError if it refuses. Integers are CK_ULONGs."""
        code = self.result(name, *arguments)
        if code != OK:
            raise CryptokiError(name, code)

    def result(self, name: str, *arguments: object) -> int:
        """Call a function and return what it says."""
        address = self._list.functions[_PLACES[name]]
        if not address:
            raise CryptokiError(name, 0x54)  # function not supported
        function = ctypes.CFUNCTYPE(c_ulong)(address)
        passed = [c_ulong(each) if isinstance(each, int) else each for each in arguments]
        return int(function(*passed))

    def slots(self) -> list[int]:
        """Slots with a token in them."""
        count = c_ulong(0)
        self.call("C_GetSlotList", c_ubyte(1), None, byref(count))
        if not count.value:
            return []
        # A token that is plugged in right now is seen the next time.
        found = (c_ulong * count.value)()
        self.call("C_GetSlotList", c_ubyte(1), found, byref(count))
        return list(found[: count.value])

    def token(self, slot: int) -> TokenInfo:
        """What the token in ``slot`` says about itself now."""
        info = TokenInfo()
        self.call("C_GetTokenInfo", slot, byref(info))
        return info


class Session:
    """A session on the token in one slot; ends, and with it a login, when it is closed."""

    def __init__(self, module: Module, slot: int) -> None:
        """Open it; raises CryptokiError."""
        self._module = module
        self._handle = c_ulong(0)
        module.call("C_OpenSession", slot, _SERIAL_SESSION, None, None, byref(self._handle))

    def close(self) -> None:
        """End the session; a driver that cannot is of no interest any more."""
        self._module.result("C_CloseSession", self._handle)

    def login(self, pin: bytes | None) -> int:
        """Log in, without a PIN where the token asks for it itself; returns the CKR_ number."""
        return self._module.result("C_Login", self._handle, _USER, pin, len(pin or b""))

    def find(self, wanted: Iterable[tuple[int, bytes]], limit: int = 2) -> list[int]:
        """Handles of the objects with all of these attributes, no more than ``limit``."""
        template, count = _template(wanted)
        self._module.call("C_FindObjectsInit", self._handle, template, count)
        found, number = (c_ulong * limit)(), c_ulong(0)
        try:
            self._module.call("C_FindObjects", self._handle, found, limit, byref(number))
        finally:
            self._module.result("C_FindObjectsFinal", self._handle)
        return list(found[: number.value])

    def attribute(self, handle: int, kind: int) -> bytes:
        """The value of an attribute; raises CryptokiError if the object does not give it away."""
        asked = Attribute(kind, None, 0)
        self._module.call("C_GetAttributeValue", self._handle, handle, byref(asked), 1)
        if asked.length in (0, _UNAVAILABLE):
            return b""
        buffer = ctypes.create_string_buffer(asked.length)
        asked.value = ctypes.addressof(buffer)
        self._module.call("C_GetAttributeValue", self._handle, handle, byref(asked), 1)
        return buffer.raw[: asked.length]

    def decrypt(self, handle: int, mechanism: Mechanism, data: bytes) -> bytes:
        """Decrypt ``data`` with a private key."""
        self._module.call("C_DecryptInit", self._handle, byref(mechanism), handle)
        # What is encrypted is never longer than the key, and so than its ciphertext.
        buffer, length = ctypes.create_string_buffer(len(data)), c_ulong(len(data))
        try:
            self._module.call("C_Decrypt", self._handle, data, len(data), buffer, byref(length))
            return buffer.raw[: length.value]
        finally:
            ctypes.memset(buffer, 0, len(buffer))

    def derive(self, handle: int, point: bytes, length: int) -> bytes:
        """The secret of ``length`` bytes that a private key shares with the public ``point``."""
        public = ctypes.create_string_buffer(point, len(point))
        parameters = _EcdhParameters(_KDF_NULL, 0, None, len(point), ctypes.addressof(public))
        yes, no = b"\1", b"\0"
        template, count = _template([
            (TOKEN, no), (CLASS, number(SECRET_KEY)), (KEY_TYPE, number(GENERIC_SECRET)),
            (VALUE_LEN, number(length)), (SENSITIVE, no), (EXTRACTABLE, yes),
            (ENCRYPT, yes), (DECRYPT, yes),
        ])  # fmt: skip
        made = c_ulong(0)
        mechanism = _mechanism(ECDH1_DERIVE, parameters)
        self._module.call(
            "C_DeriveKey", self._handle, byref(mechanism), handle, template, count, byref(made)
        )
        try:
            return self.attribute(made.value, VALUE)
        finally:
            self._module.result("C_DestroyObject", self._handle, made)


def number(value: int) -> bytes:
    """A CK_ULONG as the value of an attribute."""
    return bytes(c_ulong(value))


def rsa_mechanism(padding: str) -> Mechanism | None:
    """The mechanism for a ``padding`` as records name it; None if there is no such."""
    match padding:
        case "" | "pkcs1":
            return Mechanism(RSA_PKCS, None, 0)
        case "oaep-sha1":
            return _oaep(SHA_1, MGF1_SHA1)
        case "oaep-sha256":
            return _oaep(SHA256, MGF1_SHA256)
    return None


def _oaep(digest: int, mask: int) -> Mechanism:
    return _mechanism(RSA_PKCS_OAEP, _OaepParameters(digest, mask, _DATA_SPECIFIED, None, 0))


def _mechanism(kind: int, parameters: _Structure) -> Mechanism:
    made = Mechanism(kind, ctypes.addressof(parameters), ctypes.sizeof(parameters))
    made.kept = parameters  # the pointer alone does not keep it
    return made


def _template(
    attributes: Iterable[tuple[int, bytes]],
) -> tuple[ctypes.Array[Attribute], int]:
    listed = list(attributes)
    made = (Attribute * max(len(listed), 1))()
    buffers = [ctypes.create_string_buffer(value, len(value)) for _, value in listed]
    for place, ((kind, value), buffer) in enumerate(zip(listed, buffers, strict=True)):
        made[place] = Attribute(kind, ctypes.addressof(buffer), len(value))
    made.kept = buffers  # type: ignore[attr-defined] # the pointers alone do not keep them
    return made, len(listed)
