"""Kept rows, joined, are what encoding the whole list at once would give."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from homemgr.bus import listing
from homemgr.wire.codec import decode, encode

TEXT = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ROW = st.tuples(
    TEXT,
    st.integers(0, 2**32 - 1),
    TEXT,
    st.integers(0, 2**32 - 1),
    TEXT,
    TEXT,
    TEXT,
    st.just("/org/freedesktop/home1/home/x"),
)


@given(st.lists(ROW))
def test_joined_rows_decode_to_the_rows(rows: list[tuple[object, ...]]) -> None:
    encoded = [bytes(encode(listing.SIGNATURE, [[row]])[8:]) for row in rows]
    assert listing.join(encoded) == bytes(encode(listing.SIGNATURE, [rows]))
    assert decode(listing.SIGNATURE, listing.join(encoded)) == [[tuple(r) for r in rows]]
    assert struct.unpack_from("<I", listing.join(encoded))[0] <= sum(map(len, encoded)) + 7 * len(
        encoded
    )


@given(ROW)
def test_a_row_without_its_name_is_the_reply_about_one_home(row: tuple[object, ...]) -> None:
    encoded = bytes(encode(listing.SIGNATURE, [[row]])[8:])
    assert listing.without_name(encoded) == bytes(encode(listing.HOME_SIGNATURE, row[1:]))


@given(st.text(max_size=400))
def test_long_names_are_shortened_to_what_a_list_has_room_for(name: str) -> None:
    shown = listing.shortened(name)
    assert len(shown) <= 256
    assert shown == name or (shown[-1] == "…" and name.startswith(shown[:-1]))
    assert shown == name or len(name) > 256
