"""D-Bus messages: header to bytes and back, framing, error replies as exceptions.

Knows the message format of the D-Bus specification; no sockets, no names of
services. Shared by the service's connection and the synchronous client of the
command line, so it imports nothing slow. Bodies stay encoded until asked for.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from struct import Struct

from homemgr.wire.codec import Body, Handle, Variant, decode, decoder
from homemgr.wire.signature import CodecError, TooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.files import Fd

    #: Header fields 1 to 9 of the specification; empty or 0 where a message has none.
    _Fields = tuple[str, str, str, str, int, str, str, str, int]

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY, INTERACTIVE = 1, 4

#: What a system bus lets through; it disconnects whoever sends more.
MAX_MESSAGE_BYTES = 32 << 20
MAX_FDS = 16
#: What the specification allows: beyond it the stream is not D-Bus.
MAX_FRAME_BYTES = 128 << 20
#: Smallest message: the fixed header with an empty field array.
HEADER_BYTES = 16

_PREFIX = "org.freedesktop.DBus.Error."
NO_REPLY_ERROR = _PREFIX + "NoReply"
DISCONNECTED = _PREFIX + "Disconnected"
LIMITS_EXCEEDED = _PREFIX + "LimitsExceeded"
UNKNOWN_OBJECT = _PREFIX + "UnknownObject"
UNKNOWN_INTERFACE = _PREFIX + "UnknownInterface"
UNKNOWN_METHOD = _PREFIX + "UnknownMethod"
UNKNOWN_PROPERTY = _PREFIX + "UnknownProperty"
PROPERTY_READ_ONLY = _PREFIX + "PropertyReadOnly"
INVALID_ARGS = _PREFIX + "InvalidArgs"

#: The bus driver itself.
BUS_NAME = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"

# Header fields by number: name, and the one type each may have.
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL = 1, 2, 3, 4, 5
_DESTINATION, _SENDER, _SIGNATURE, _UNIX_FDS = 6, 7, 8, 9
_FIELD_TYPES = dict(enumerate(b"\0osssussgu"))
_UINT32, _TYPE_CODE = ord("u"), ord("g")

_ORDERS = {0x6C: "<", 0x42: ">"}
_FIXED = {order: Struct(order + "4B3I") for order in "<>"}
_PAD = tuple(bytes(n) for n in range(8))
_U32_FIELD = Struct("<BB2sI").pack
_WORD = {order: Struct(order + "I") for order in "<>"}
_LENGTH = _WORD["<"].pack


class BusError(Exception):
    """An error reply from a peer, or the bus failing us, under the D-Bus name for that."""

    def __init__(self, name: str, message: str) -> None:
        """``name`` is what programs act on, ``message`` what people read."""
        super().__init__(message)
        self.name = name
        self.message = message

    def __str__(self) -> str:
        """Both parts."""
        return f"{self.name}: {self.message}"


class ProtocolError(Exception):
    """The peer does not speak D-Bus: the connection cannot go on."""


class Message:
    """One received message; owns the descriptors in ``fds`` until somebody takes them over."""

    __slots__ = (
        "_data",
        "_order",
        "_start",
        "destination",
        "error_name",
        "fd_count",
        "fds",
        "fds_lost",
        "flags",
        "interface",
        "kind",
        "member",
        "path",
        "reply_serial",
        "sender",
        "serial",
        "signature",
    )

    def __init__(
        self, data: bytes, order: str, start: int, fixed: tuple[int, ...], fields: _Fields
    ) -> None:
        """Hold the frame ``data`` whose body begins at ``start``, and its header as read."""
        _, self.kind, self.flags, _, _, self.serial, _ = fixed
        self._data, self._order, self._start = data, order, start
        self.fds: list[Fd] = []
        #: True if descriptors were sent but our process could not take them all.
        self.fds_lost = False
        (
            self.path,
            self.interface,
            self.member,
            self.error_name,
            self.reply_serial,
            self.destination,
            self.sender,
            self.signature,
            self.fd_count,
        ) = fields

    @property
    def expects_reply(self) -> bool:
        """Whether the sender waits for an answer."""
        return self.kind == CALL and not self.flags & NO_REPLY

    @property
    def body_bytes(self) -> int:
        """Length of the encoded arguments."""
        return len(self._data) - self._start

    def body(self) -> list[object]:
        """The decoded arguments; `CodecError` if they do not follow the signature."""
        return decode(self.signature, self._data, self._start, self._order)

    def arguments(self) -> tuple[list[object], list[Fd]]:
        """The decoded arguments with `Fd` objects in the place of ``h``, and the other `Fd`."""
        left = dict(enumerate(self.fds))
        values = [_with_fds(value, left) for value in self.body()]
        return values, list(left.values())

    def error(self) -> BusError:
        """An error reply as the exception to raise."""
        # By convention the first argument is the text, yet an error may have none.
        text = ""
        if self.signature.startswith("s"):
            text = str(self.body()[0])
        return BusError(self.error_name, text)

    def close_fds(self) -> None:
        """Close whatever descriptors nobody took."""
        for fd in self.fds:
            fd.close()


def _with_fds(value: object, fds: dict[int, Fd]) -> object:
    """``value`` with the descriptors themselves where it holds indexes of them."""
    if isinstance(value, Handle):
        if value not in fds:
            # Named twice it would have two owners.
            raise CodecError("a message names a descriptor that it lacks, or names it twice")
        return fds.pop(value)
    if isinstance(value, Variant):
        return Variant(value.signature, _with_fds(value.value, fds))
    if isinstance(value, dict):
        return {key: _with_fds(item, fds) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_fds(item, fds) for item in value)
    return value


# --- received ---------------------------------------------------------------------------


def frame_size(data: bytes | bytearray, at: int = 0) -> int:
    """Length of the message that starts at ``at``; 0 if its fixed header is not there yet."""
    if len(data) - at < HEADER_BYTES:
        return 0
    order = _ORDERS.get(data[at])
    if order is None:
        raise ProtocolError("a message begins with neither 'l' nor 'B'")
    _, _, _, version, body, _, fields = _FIXED[order].unpack_from(data, at)
    size = HEADER_BYTES + ((fields + 7) & -8) + body
    # The length is believed only within bounds: it decides how much is waited for.
    if version != 1 or size > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message has version {version} and {size} bytes")
    return int(size)


def parse(data: bytes) -> Message:
    """The message in ``data``, one whole frame; `CodecError` if its header is malformed."""
    order = _ORDERS[data[0]]
    fixed = _FIXED[order].unpack_from(data)
    end = HEADER_BYTES + fixed[6]
    try:
        # What one caller asks again has the same header but for the serial number before it.
        is_usual = fixed[1] == CALL and end <= _USUAL_BYTES
        read = _known_fields if is_usual else _fields
        fields = read(data[HEADER_BYTES:end], order)
    except (IndexError, struct.error, UnicodeError, RecursionError) as wrong:
        raise CodecError("a message header is malformed") from wrong
    return Message(data, order, (end + 7) & -8, fixed, fields)


def _fields(data: bytes, order: str) -> _Fields:
    """The header fields in the order of their numbers; they begin on a multiple of 8."""
    texts: dict[int, str] = {}
    numbers: dict[int, int] = {}
    word = _WORD[order].unpack_from
    at, end = 0, len(data)
    while at < end:
        at = (at + 7) & -8
        number = data[at]
        letter = _FIELD_TYPES.get(number, 0)
        if data[at + 1] != 1 or data[at + 2] != letter:
            # A field of a later edition of the specification: step over its variant.
            at = decoder("v", order)(data, at + 1)[1]
            continue
        at += 4
        if letter == _UINT32:
            numbers[number] = word(data, at)[0]
            at += 4
            continue
        size = data[at] if letter == _TYPE_CODE else word(data, at)[0]
        at += 1 if letter == _TYPE_CODE else 4
        texts[number] = str(data[at : at + size], "utf-8")
        at += size + 1
    if at != end:
        raise CodecError("the header fields of a message are cut off")
    return (
        texts.get(_PATH, ""),
        texts.get(_INTERFACE, ""),
        texts.get(_MEMBER, ""),
        texts.get(_ERROR_NAME, ""),
        numbers.get(_REPLY_SERIAL, 0),
        texts.get(_DESTINATION, ""),
        texts.get(_SENDER, ""),
        texts.get(_SIGNATURE, ""),
        numbers.get(_UNIX_FDS, 0),
    )


#: Headers longer than this are not kept.
_USUAL_BYTES = 512

#: For reading only: callers share what they get.
_known_fields = lru_cache(maxsize=64)(_fields)


# --- sent -------------------------------------------------------------------------------


def call(
    serial: int,
    target: tuple[str, str, str, str],
    signature: str = "",
    body: Body | None = None,
    flags: int = 0,
) -> bytes:
    """A method call to ``target``: destination, path, interface, member."""
    destination, path, interface, member = target
    fields = [_text(_PATH, path), _text(_MEMBER, member), _text(_DESTINATION, destination)]
    if interface:
        fields.append(_text(_INTERFACE, interface))
    return _assemble(CALL, flags, serial, fields, signature, body)


def answer(serial: int, request: Message, signature: str, body: Body | bytes | None) -> bytes:
    """The method return for ``request``."""
    fields = [_u32(_REPLY_SERIAL, request.serial), _text(_DESTINATION, request.sender)]
    return _assemble(RETURN, NO_REPLY, serial, fields, signature, body)


def error(serial: int, request: Message, name: str, body: Body) -> bytes:
    """The error reply for ``request``; ``body`` is one encoded string."""
    fields = [
        _u32(_REPLY_SERIAL, request.serial),
        _text(_ERROR_NAME, name),
        _text(_DESTINATION, request.sender),
    ]
    return _assemble(ERROR, NO_REPLY, serial, fields, "s", body)


def signal(
    serial: int,
    source: tuple[str, str, str],
    signature: str,
    body: Body | bytes,
    destination: str = "",
) -> bytes:
    """A signal from ``source``: path, interface, member; to everybody unless ``destination``."""
    path, interface, member = source
    fields = [_text(_PATH, path), _text(_INTERFACE, interface), _text(_MEMBER, member)]
    if destination:
        fields.append(_text(_DESTINATION, destination))
    return _assemble(SIGNAL, NO_REPLY, serial, fields, signature, body)


def _assemble(
    kind: int,
    flags: int,
    serial: int,
    fields: list[bytes],
    signature: str,
    body: Body | bytes | None,
) -> bytes:
    if signature:
        fields.append(_text(_SIGNATURE, signature))
    fd_count = len(body.fds) if isinstance(body, Body) else 0
    if fd_count:
        fields.append(_u32(_UNIX_FDS, fd_count))
    size = len(body) if body else 0
    packed = bytearray()
    for field in fields:
        packed += _PAD[-len(packed) & 7]
        packed += field
    # The length leaves out the padding behind the last field, but not that in between.
    fixed = _FIXED["<"].pack(0x6C, kind, flags, 1, size, serial, len(packed))
    packed += _PAD[-len(packed) & 7]
    if HEADER_BYTES + len(packed) + size > MAX_MESSAGE_BYTES or fd_count > MAX_FDS:
        raise TooLarge(f"a message of {size} bytes and {fd_count} descriptors is too large")
    return b"".join((fixed, packed, body or b""))


@lru_cache(maxsize=1024)
def _text(number: int, value: str) -> bytes:
    """One header field; destinations and members repeat, hence the cache."""
    data = value.encode()
    if 0 in data:
        raise CodecError("a name on the bus cannot hold a NUL character")
    letter = _FIELD_TYPES[number]
    size = bytes((len(data),)) if letter == _TYPE_CODE else _LENGTH(len(data))
    return bytes((number, 1, letter, 0)) + size + data + b"\0"


def _u32(number: int, value: int) -> bytes:
    return _U32_FIELD(number, 1, b"u", value)
