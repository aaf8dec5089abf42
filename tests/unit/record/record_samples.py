"""Records the tests share: a real one signed by systemd-homed 262, and ways to make others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from homemgr.record.jsontext import MAX_INTEGER, MIN_INTEGER

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json, JsonObject

MACHINE_ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = "f" * 32

RECORD: JsonObject = {
    "userName": "alice",
    "disposition": "regular",
    "realName": "Alice",
    "lastChangeUSec": 1000,
    "lastPasswordChangeUSec": 900,
    "com.example.extension": {"kept": [1, None, "x"]},
    "privileged": {"hashedPassword": ["hash-of-secret"], "com.example.more": True},
    "perMachine": [
        {"matchMachineId": MACHINE_ID, "storage": "directory", "com.example.deep": {"a": []}},
        {"matchMachineId": OTHER_ID, "storage": "luks"},
    ],
}

# Written and signed by systemd-homed 262 when the record was registered there.
VECTOR_TEXT = (
    r"""{"userName":"vec","disposition":"regular","storage":"directory","""
    r""""realName":"Zo\u00eb \ud83c\udfe0 /x","""
    r""""zz.example.note":"tab\there \"q\" back\\slash nl\nbell\u0007 slash\/ """
    r"""nbsp\u00a0 ls\u2028","""
    r""""zz.example.num":[0,-0,-5,18446744073709551615,9223372036854775807,"""
    r"""-9223372036854775808,true,null],"""
    r""""zz.example.arr":[{"b":1,"a":{"d":[],"c":{}}},{"z":"","y":null}],"""
    r""""Aupper":1,"_under":2,"\u00e9key":3,"a":4,"uid":60111,"""
    r""""lastChangeUSec":1795221000000001,"privileged":{"hashedPassword":["$6$abcdefgh$x"],"""
    r""""passwordHint":"h\u00efnt"},"perMachine":[{"matchMachineId":"""
    r""""00000000000000000000000000000001","diskSize":12345},"""
    r"""{"storage":"luks","matchHostname":["b","a"]}]}"""
)
VECTOR_PEM = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEAJMV4PMNNT/2ZoTWO9RHFWRLce96fKMe+al4gWz0ag00=\n"
    "-----END PUBLIC KEY-----\n"
)
VECTOR_SIGNATURE = (
    "MW7ipirrrwWi9Uh7B/3drXC1lBiEjdXJPLFrzZEaw5NyRBSLrKCHmPgGf/9tZhaI1Zw4qdI4Nd/iy/V3dZinCA=="
)
VECTOR_SHA256 = "8565a56e60bdf2be3b391fd04448d48c8149eb0f72821ac4b91757172f8e1ced"

# Texts a record may hold: no NUL, no DEL, no surrogates.
texts = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x00\x7f"), max_size=20
)
scalars: st.SearchStrategy[Json] = st.one_of(
    st.none(), st.booleans(), st.integers(MIN_INTEGER, MAX_INTEGER), texts
)
values: st.SearchStrategy[Json] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
# Members no table knows: the prefix keeps them clear of fields and sections.
unknown_members = st.dictionaries(texts.map("org.example.".__add__), values, max_size=4)


@st.composite
def records(draw: st.DrawFn) -> JsonObject:
    """A record whose every signed section carries members nobody knows."""
    made: JsonObject = {"userName": "alice", **draw(unknown_members)}
    made["privileged"] = draw(unknown_members)
    entries = draw(st.lists(unknown_members, max_size=3))
    made["perMachine"] = [{"matchMachineId": MACHINE_ID, **entry} for entry in entries]
    return made
