"""The policy: nothing foreign, nothing with rights, and everything else as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_samples import DIRECTORY, FIFO, FILE, LINK, SYMLINK, attributes, entries

from homemgr.storage import idmapping
from homemgr.transfer import acl, flags
from homemgr.transfer.acl import NO_ID, AclEntry
from homemgr.transfer.codec import MAX_XATTRS, decode, encode
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.policy import AS_THEY_ARE, NOBODY, Policy, sanitise
from homemgr.transfer.report import Note

STRICT = Policy(NOBODY, NOBODY, is_wide=False)
WIDE = Policy(NOBODY, NOBODY, is_wide=True)
#: A home that lies on disk under a number of its own.
OWN = Policy(60111, 60222, is_wide=False)
OWN_WIDE = OWN._replace(is_wide=True)
CONTAINER = 524288

BASE = [
    AclEntry(acl.USER_OBJ, NO_ID, 7),
    AclEntry(acl.GROUP_OBJ, NO_ID, 5),
    AclEntry(acl.OTHER, NO_ID, 0),
]
MASK = AclEntry(acl.MASK, NO_ID, 6)


def acl_of(*more: AclEntry) -> bytes:
    return acl.build(sorted([*BASE, *more]))


def test_ranges_are_those_of_the_mapping() -> None:
    assert AS_THEY_ARE == idmapping._IDENTITY_RANGES


@pytest.mark.parametrize("entry", [FILE, DIRECTORY, SYMLINK, FIFO, LINK], ids=lambda e: e.kind.name)
@pytest.mark.parametrize("policy", [STRICT, WIDE])
def test_what_is_the_owners_travels_as_it_is(entry: Entry, policy: Policy) -> None:
    assert sanitise(b"a", entry, policy) == (entry, [])


@pytest.mark.parametrize("policy", [OWN, OWN_WIDE])
def test_owner_becomes_nobody(policy: Policy) -> None:
    for more in ({}, {"xattrs": ((b"user.a", b"1"),)}, {"mode": 0o6755}):
        entry = FILE._replace(uid=60111, gid=60222, **more)
        assert sanitise(b"a", entry, policy) == (entry._replace(uid=NOBODY, gid=NOBODY), [])


@pytest.mark.parametrize(
    ("kind", "target", "note"),
    [
        (Kind.SOCKET, b"", "socket-skipped"),
        (Kind.BLOCK, b"0:0", "device-skipped"),
        (Kind.CHARACTER, b"1:3", "device-skipped"),
        (Kind.CHARACTER, b"", "device-skipped"),
        (Kind.CHARACTER, b"0:0", "whiteout-skipped"),
    ],
)
def test_devices_and_sockets_stay_where_they_are(kind: Kind, target: bytes, note: str) -> None:
    entry = FILE._replace(kind=kind, size=0, target=target)
    assert sanitise(b"a", entry, STRICT) == (None, [Note(note, b"a", "")])


@pytest.mark.parametrize(
    ("policy", "number", "kept"),
    [
        (STRICT, 0, False),
        (STRICT, 1000, False),
        (STRICT, CONTAINER, False),
        (OWN, NOBODY, False),
        (OWN_WIDE, NOBODY, False),
        (WIDE, 0, True),
        (WIDE, 60000, True),
        (WIDE, 60001, False),
        (WIDE, 60513, False),
        (WIDE, 60514, True),
        (WIDE, 65533, True),
        (WIDE, 65535, False),
        (WIDE, CONTAINER - 1, False),
        (WIDE, CONTAINER, True),
        (WIDE, 2147483646, True),
        (WIDE, 2147483647, False),
    ],
)
def test_other_ids_travel_only_where_they_can_be_stored(
    policy: Policy, number: int, kept: bool
) -> None:
    for field, own in (("uid", policy.disk_uid), ("gid", policy.disk_gid)):
        ids = {"uid": policy.disk_uid, "gid": policy.disk_gid, field: number}
        assert own != number
        entry, notes = sanitise(b"a", FILE._replace(**ids), policy)
        assert entry is not None
        assert getattr(entry, field) == (number if kept else NOBODY)
        assert notes == ([] if kept else [Note("owner-changed", b"a", f"{field} {number}")])


@pytest.mark.parametrize(
    ("policy", "uid", "gid", "mode"),
    [
        (STRICT, NOBODY, NOBODY, 0o7755),
        (STRICT, 0, NOBODY, 0o3755),
        (STRICT, NOBODY, 0, 0o5755),
        (STRICT, 1000, 1000, 0o1755),
        (STRICT, CONTAINER, CONTAINER, 0o1755),
        (WIDE, 0, 0, 0o1755),
        (WIDE, 1000, NOBODY, 0o3755),
        (WIDE, NOBODY, 2, 0o5755),
        (WIDE, CONTAINER, CONTAINER, 0o7755),
        (OWN, NOBODY, NOBODY, 0o1755),
        (Policy(0, 0, is_wide=False), 0, 0, 0o1755),
    ],
)
def test_set_id_bits_stay_if_they_give_no_rights_of_others(
    policy: Policy, uid: int, gid: int, mode: int
) -> None:
    entry, notes = sanitise(b"a", FILE._replace(mode=0o7755, uid=uid, gid=gid), policy)
    assert entry is not None
    assert entry.mode == mode
    cleared = [note for note in notes if note.kind == "setid-cleared"]
    assert cleared == ([] if mode == 0o7755 else [Note("setid-cleared", b"a", "7755")])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"security.capability", "capability-dropped"),
        (b"security.selinux", "xattr-dropped"),
        (b"trusted.overlay.opaque", "xattr-dropped"),
        (b"trusted.other", "xattr-dropped"),
        (b"user.overlay.whiteout", "xattr-dropped"),
        (b"user.", "xattr-dropped"),
        (b"system.nfs4_acl", "xattr-dropped"),
        (b"btrfs.compression\xff", "xattr-dropped"),
    ],
)
def test_attribute_with_a_meaning_to_the_system_is_dropped(name: bytes, kind: str) -> None:
    kept = (b"user.kept", b"\0")
    entry = FILE._replace(xattrs=tuple(sorted([kept, (name, b"x")])))
    cleaned, (note,) = sanitise(b"a", entry, STRICT)
    assert cleaned == FILE._replace(xattrs=(kept,))
    assert note.kind == kind
    assert note.detail.isascii()


def test_attribute_that_a_kind_cannot_have_is_dropped() -> None:
    names = (b"system.posix_acl_access", b"system.posix_acl_default", b"user.a")
    full = acl_of(MASK)
    xattrs = tuple(zip(names, (full, full, b""), strict=True))
    for entry, kept in ((SYMLINK, ()), (FIFO, names[:1]), (FILE, names[::2]), (DIRECTORY, names)):
        cleaned, notes = sanitise(b"a", entry._replace(xattrs=xattrs), STRICT)
        assert cleaned is not None
        assert tuple(name for name, _ in cleaned.xattrs) == kept
        assert {note.kind for note in notes} <= {"xattr-dropped"}
        assert len(notes) == 3 - len(kept)


def test_what_a_storage_keeps_at_the_top_is_left_out_without_a_word() -> None:
    xattrs = ((b"trusted.fscrypt_slot0", b"sealed"), (b"user.a", b"1"))
    entry = DIRECTORY._replace(xattrs=xattrs)
    assert sanitise(b"", entry, STRICT) == (DIRECTORY._replace(xattrs=xattrs[1:]), [])
    _, (note,) = sanitise(b"a", entry, STRICT)
    assert (note.kind, note.detail) == ("xattr-dropped", "trusted.fscrypt_slot0")


def test_largest_of_too_many_attributes_go() -> None:
    small = (b"user.zz", b"small")
    large = tuple((b"user.%02d" % n, bytes(65000 + n)) for n in range(17))
    cleaned, notes = sanitise(b"a", FILE._replace(xattrs=(*large, small)), STRICT)
    assert cleaned is not None
    assert cleaned.xattrs == (*large[:-1], small)
    assert [note.kind for note in notes] == ["xattr-dropped"]
    assert notes[0].detail.startswith("user.16")
    assert len(encode(cleaned)) < MAX_XATTRS + 100


def test_ids_in_lists_are_translated_or_dropped() -> None:
    own, container = AclEntry(acl.USER, 60111, 6), AclEntry(acl.GROUP, CONTAINER, 4)
    foreign = [AclEntry(acl.USER, NOBODY, 7), AclEntry(acl.USER, 60222, 1)]
    value = acl_of(MASK, own, container, *foreign)
    for name in (acl.ACCESS, acl.DEFAULT):
        entry = DIRECTORY._replace(uid=60111, gid=60222, xattrs=((name, value),))
        for policy, kept in ((OWN, []), (OWN_WIDE, [container])):
            cleaned, notes = sanitise(b"a", entry, policy)
            assert cleaned is not None
            wanted = acl_of(MASK, own._replace(id=NOBODY), *kept)
            assert cleaned.xattrs == ((name, wanted),)
            dropped = {"user:65534:rwx", "user:60222:--x"}
            if policy is OWN:
                dropped.add(f"group:{CONTAINER}:r--")
            assert {note.detail for note in notes} == dropped
            assert {note.kind for note in notes} == {"acl-entry-dropped"}


def test_mask_stays_when_the_list_loses_its_entries() -> None:
    value = acl_of(MASK, AclEntry(acl.USER, 1000, 7))
    cleaned, _ = sanitise(b"a", FILE._replace(xattrs=((acl.ACCESS, value),)), STRICT)
    assert cleaned == FILE._replace(xattrs=((acl.ACCESS, acl_of(MASK)),))


def test_list_is_put_in_order() -> None:
    lines = [AclEntry(acl.USER, 7, 6), AclEntry(acl.USER, 5, 6)]
    value = acl.build([MASK, *lines, *BASE])
    cleaned, notes = sanitise(b"a", FILE._replace(xattrs=((acl.ACCESS, value),)), WIDE)
    assert cleaned == FILE._replace(xattrs=((acl.ACCESS, acl_of(MASK, *lines)),))
    assert notes == []


def test_malformed_list_is_dropped() -> None:
    cleaned, notes = sanitise(b"a", FILE._replace(xattrs=((acl.ACCESS, b"\2\0\0\0"),)), STRICT)
    assert cleaned == FILE
    assert [note.kind for note in notes] == ["xattr-dropped"]


def test_list_that_says_what_the_mode_says_is_left_out() -> None:
    xattrs = ((acl.ACCESS, acl_of()), (acl.DEFAULT, acl_of()))
    cleaned, notes = sanitise(b"a", DIRECTORY._replace(xattrs=xattrs), STRICT)
    assert cleaned == DIRECTORY._replace(xattrs=xattrs[1:])
    assert notes == []


some_ids = st.sampled_from([0, 7, 1000, 60111, 60222, NOBODY, CONTAINER, 0xFFFFFFFE])


@st.composite
def doubtful(draw: st.DrawFn) -> Entry:
    """Entries of which much cannot travel."""
    kinds = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO, Kind.LINK)
    entry = draw(entries(*kinds))
    if entry.kind is Kind.LINK:
        return entry
    lines = [
        AclEntry(tag, number, draw(st.integers(0, 7)))
        for tag in (acl.USER, acl.GROUP)
        for number in draw(st.sets(some_ids))
    ]
    xattrs = dict(draw(attributes))
    xattrs |= draw(
        st.dictionaries(
            st.sampled_from([b"user.x", b"user.overlay.x", acl.ACCESS, acl.DEFAULT, b"trusted.x"]),
            st.sampled_from([b"", acl_of(), acl_of(MASK), acl_of(MASK, *lines)]),
        )
    )
    return entry._replace(
        uid=draw(some_ids), gid=draw(some_ids), xattrs=tuple(sorted(xattrs.items()))
    )


def flagged(entry: Entry, words: bytes) -> Entry:
    return entry._replace(xattrs=((flags.NAME, words), (b"user.a", b"1")))


@pytest.mark.parametrize("policy", [STRICT, WIDE])
@pytest.mark.parametrize(
    ("entry", "before", "after", "lost"),
    [
        (FILE, b"compress,nocow", b"compress,nocow", []),
        (DIRECTORY, b"dirsync,nodump,topdir", b"dirsync,nodump,topdir", []),
        (FILE, b"nodump,noatime,nodump", b"noatime,nodump", []),
        (FILE, b"append,immutable,noatime", b"noatime", ["append", "immutable"]),
        (FILE, b"dirsync,sync,topdir", b"sync", ["dirsync", "topdir"]),
        (FIFO, b"sync", b"", ["sync"]),
        (FILE, b"", b"", [""]),
        (FILE, b"\xff", b"", [r"\xff"]),
    ],
)
def test_flags_that_users_may_give_are_kept(
    policy: Policy, entry: Entry, before: bytes, after: bytes, lost: list[str]
) -> None:
    kept = flagged(entry, after) if after else entry._replace(xattrs=((b"user.a", b"1"),))
    if entry.kind == Kind.FIFO:
        kept = kept._replace(xattrs=())
    cleaned, notes = sanitise(b"a", flagged(entry, before), policy)
    assert cleaned == kept
    assert [n.detail for n in notes if n.kind == "flag-dropped"] == lost
    assert sanitise(b"a", kept, policy) == (kept, [])


def test_flags_that_the_receiver_does_not_store_are_left_behind() -> None:
    policy = STRICT._replace(flags=frozenset({b"nodump"}))
    cleaned, notes = sanitise(b"a", flagged(FILE, b"nocow,nodump"), policy)
    assert cleaned == flagged(FILE, b"nodump")
    assert notes == [Note("flag-dropped", b"a", "nocow")]


def test_flags_are_words_and_numbers() -> None:
    everything = {**flags.CARRIED, **flags.LEFT_BEHIND}
    for word, bit in everything.items():
        assert flags.attribute(bit) == ((flags.NAME, word),)
        entry = FILE._replace(xattrs=flags.attribute(bit))
        assert flags.bits_of(entry) == flags.CARRIED.get(word, 0)
    # Extents, encryption and what else a file system says of itself.
    assert flags.attribute(0x00080000 | 0x00000800) == ()
    assert flags.attribute(0xC0) == ((flags.NAME, b"noatime,nodump"),)
    assert flags.bits_of(FILE) == 0
    assert len(set(everything.values())) == len(everything)


@given(doubtful(), st.sampled_from([STRICT, WIDE, OWN, OWN_WIDE]))
def test_other_side_has_nothing_to_object(entry: Entry, policy: Policy) -> None:
    cleaned, notes = sanitise(b"a/b", entry, policy)
    assert cleaned is not None
    arrival = Policy(NOBODY, NOBODY, policy.is_wide)
    assert sanitise(b"a/b", decode(encode(cleaned)), arrival) == (cleaned, [])
    assert all(note.path == b"a/b" for note in notes)
    if not policy.is_wide and entry.kind is not Kind.LINK:
        assert (cleaned.uid, cleaned.gid) == (NOBODY, NOBODY)


@given(doubtful(), st.sampled_from([STRICT, OWN]))
def test_nothing_is_lost_without_a_note(entry: Entry, policy: Policy) -> None:
    cleaned, notes = sanitise(b"a", entry, policy)
    assert cleaned is not None
    kinds = {note.kind for note in notes}
    assert (cleaned.mode != entry.mode) == ("setid-cleared" in kinds)
    gone = {name for name, _ in entry.xattrs} - {name for name, _ in cleaned.xattrs}
    silent = gone if kinds & {"xattr-dropped", "capability-dropped"} else set()
    assert gone - silent <= {acl.ACCESS}
    assert cleaned._replace(mode=0, uid=0, gid=0, xattrs=()) == entry._replace(
        mode=0, uid=0, gid=0, xattrs=()
    )
