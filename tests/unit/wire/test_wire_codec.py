"""The codec against dbus-next's: same bytes, same values, for generated signatures and values."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from dbus_next._private.marshaller import Marshaller
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.signature import Variant as TheirVariant
from hypothesis import given, settings
from hypothesis import strategies as st

from homemgr.wire import messages
from homemgr.wire.codec import Encoded, Handle, Variant, decode, encode
from homemgr.wire.signature import CodecError, is_object_path, single, split

INTEGERS = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PATHS = st.lists(st.from_regex(r"[A-Za-z0-9_]{1,5}", fullmatch=True), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)

basic_types = st.sampled_from("ybnqiuxtdsog")
types = st.recursive(
    basic_types | st.just("v"),
    lambda inner: (
        inner.map("a".__add__)
        | st.lists(inner, min_size=1, max_size=3).map(lambda kinds: f"({''.join(kinds)})")
        | st.tuples(basic_types.filter("d".__ne__), inner).map(lambda kv: "a{" + "".join(kv) + "}")
    ),
    max_leaves=6,
)


def values(kind: str) -> st.SearchStrategy[Any]:
    """Values of one complete type, as our codec takes and gives them."""
    if kind in INTEGERS:
        return st.integers(*INTEGERS[kind])
    if kind == "b":
        return st.booleans()
    if kind == "d":
        return st.floats(allow_nan=False)
    if kind == "s":
        return TEXT
    if kind == "o":
        return PATHS
    if kind == "g":
        return types
    if kind == "v":
        return basic_types.flatmap(lambda k: st.builds(Variant, st.just(k), values(k)))
    if kind == "ay":
        return st.binary(max_size=20)
    if kind.startswith("a{"):
        return st.dictionaries(values(kind[2]), values(kind[3:-1]), max_size=3)
    if kind[0] == "a":
        return st.lists(values(kind[1:]), max_size=3)
    return st.tuples(*map(values, split(kind[1:-1])))


def theirs(value: Any) -> Any:
    """Our value as dbus-next represents it."""
    if isinstance(value, Variant):
        return TheirVariant(value.signature, theirs(value.value))
    if isinstance(value, (tuple, list)):
        return [theirs(item) for item in value]
    if isinstance(value, dict):
        return {key: theirs(item) for key, item in value.items()}
    return value


bodies = st.lists(types, min_size=1, max_size=4).flatmap(
    lambda kinds: st.tuples(st.just("".join(kinds)), st.tuples(*map(values, kinds)))
)


@given(bodies)
@settings(max_examples=300, deadline=None)
def test_our_bytes_are_those_of_dbus_next(body: tuple[str, tuple[Any, ...]]) -> None:
    signature, given_values = body
    ours = encode(signature, given_values)
    assert bytes(ours) == bytes(Marshaller(signature, theirs(given_values)).marshall())


@given(bodies)
@settings(max_examples=300, deadline=None)
def test_what_was_encoded_is_decoded_unchanged(body: tuple[str, tuple[Any, ...]]) -> None:
    signature, given_values = body
    assert decode(signature, bytes(encode(signature, given_values))) == list(given_values)


@given(bodies)
@settings(max_examples=200, deadline=None)
def test_dbus_next_reads_our_messages(body: tuple[str, tuple[Any, ...]]) -> None:
    signature, given_values = body
    target = ("org.example.Name", "/some/path", "org.example.Face", "Member")
    frame = messages.call(77, target, signature, encode(signature, given_values), 4)
    reader = Unmarshaller(io.BytesIO(frame))
    reader.unmarshall()
    read = reader.message
    assert (read.destination, read.path, read.interface, read.member) == target
    assert (read.serial, read.flags.value, read.signature) == (77, 4, signature)
    assert [same(item) for item in read.body] == [same(theirs(item)) for item in given_values]


def same(value: Any) -> Any:
    """A dbus-next value in a form that compares by content."""
    if isinstance(value, TheirVariant):
        return ("variant", value.signature, same(value.value))
    if isinstance(value, (list, tuple)):
        return [same(item) for item in value]
    if isinstance(value, dict):
        return {key: same(item) for key, item in value.items()}
    return value


@given(bodies, st.binary(min_size=1, max_size=4), st.integers(min_value=0))
@settings(max_examples=300, deadline=None)
def test_damaged_bodies_raise_nothing_but_codec_error(
    body: tuple[str, tuple[Any, ...]], damage: bytes, where: int
) -> None:
    signature, given_values = body
    data = bytearray(encode(signature, given_values))
    at = where % (len(data) + 1)
    data[at : at + len(damage)] = damage
    try:
        decode(signature, bytes(data))
    except CodecError:
        return


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_damaged_headers_raise_nothing_but_codec_error(fields: bytes) -> None:
    fixed = struct.pack("<4B3I", 0x6C, 1, 0, 1, 0, 9, len(fields))
    frame = fixed + fields + bytes(-len(fields) % 8)
    assert messages.frame_size(frame) == len(frame)
    try:
        messages.parse(frame)
    except CodecError:
        return


@pytest.mark.parametrize("cut", [1, 3, 8])
def test_cut_off_body_is_refused(cut: int) -> None:
    data = bytes(encode("sa{sv}", ("name", {"key": Variant("as", ["one", "two"])})))
    with pytest.raises(CodecError):
        decode("sa{sv}", data[:-cut])


def test_big_endian_messages_are_read() -> None:
    text = b"\0\0\0\5alice\0\0\0\0\0\0\7"
    assert decode("su", text, 0, ">") == ["alice", 7]


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("s", 3),
        ("s", "nul\0inside"),
        ("s", "lone surrogate \udc80"),
        ("u", -1),
        ("u", 2**32),
        ("u", "7"),
        ("b", 1),
        ("o", "relative"),
        ("o", "/trailing/"),
        ("o", "/dou//ble"),
        ("o", "/dash-ed"),
        ("g", "a"),
        ("v", "bare"),
        ("v", Variant("ss", "two types")),
        ("as", "text"),
        ("ay", [1, 2]),
        ("a{sv}", [("k", "v")]),
        ("(ss)", ("only one",)),
        ("h", 0),
        ("d", 10**400),
    ],
)
def test_values_that_do_not_fit_are_refused(signature: str, value: Any) -> None:
    with pytest.raises(CodecError):
        encode(signature, (value,))


@pytest.mark.parametrize("bad", ["a", "(", "()", "(s", "a{s}", "a{vs}", "a{ss", "z", "{ss}", "s)"])
def test_bad_signatures_are_refused(bad: str) -> None:
    with pytest.raises(CodecError):
        split(bad)


def test_nesting_beyond_the_limit_is_refused_not_recursed() -> None:
    with pytest.raises(CodecError):
        split("a" * 250 + "s")


def test_deeply_nested_variants_are_refused_not_recursed() -> None:
    depth = 5000
    with pytest.raises(CodecError):
        decode("v", b"\1v\0" * depth + b"\1y\0\7")


def test_variant_holds_exactly_one_type() -> None:
    assert single("a{sv}") == "a{sv}"
    with pytest.raises(CodecError):
        single("")


def test_paths_are_told_from_other_text() -> None:
    assert is_object_path("/")
    assert is_object_path("/org/freedesktop/home1/home/alice_40example_2ecom")
    assert not is_object_path("")
    assert not is_object_path("/ä")


def test_oversized_messages_are_not_sent() -> None:
    target = ("a.b", "/", "a.b", "C")
    body = encode("ay", (bytes(messages.MAX_MESSAGE_BYTES),))
    with pytest.raises(CodecError):
        messages.call(1, target, "ay", body)


def test_kept_body_is_reused_as_it_is() -> None:
    kept = Encoded("as", bytes(encode("as", (["one", "two"],))))
    frame = messages.signal(3, ("/p", "a.b", "C"), kept.signature, kept.data)
    assert messages.parse(frame).body() == [["one", "two"]]


def test_received_handles_are_marked_as_such() -> None:
    data = struct.pack("<I", 3)
    (handle,) = decode("h", data)
    assert isinstance(handle, Handle)
    assert handle == 3


def test_variants_compare_by_content() -> None:
    assert Variant("s", "x") == Variant("s", "x")
    assert Variant("s", "x") != Variant("o", "x")
    assert len({Variant("u", 1), Variant("u", 1)}) == 1
    assert repr(Variant("u", 1)) == "Variant('u', 1)"
