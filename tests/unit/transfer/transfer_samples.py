"""Entries as they occur and as they could: examples and hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from homemgr.transfer.entry import Entry, Kind

FILE = Entry(Kind.FILE, 0o644, 65534, 65534, 1_700_000_000_123_456_789, -1, 5, b"", ())
DIRECTORY = FILE._replace(kind=Kind.DIRECTORY, mode=0o755, size=0)
SYMLINK = FILE._replace(kind=Kind.SYMLINK, mode=0o777, size=0, target=b"../else\xff")
FIFO = FILE._replace(kind=Kind.FIFO, size=0)
LINK = Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, b"a/first", ())
TAGGED = FILE._replace(xattrs=((b"user.a", b""), (b"user.b", b"\0value")))

ALL = (FILE, DIRECTORY, SYMLINK, FIFO, LINK, TAGGED)


def _is_name(name: bytes) -> bool:
    return name not in (b".", b"..") and b"/" not in name and b"\0" not in name


names = st.binary(min_size=1, max_size=255).filter(_is_name)
paths = st.lists(names, min_size=1, max_size=5).map(b"/".join)
texts = st.binary(min_size=1, max_size=100).map(lambda b: b.replace(b"\0", b"/"))
ids = st.integers(0, 0xFFFFFFFE)
#: All seconds the kernel can store, in nanoseconds.
times = st.integers(-(1 << 63) * 10**9, (1 << 63) * 10**9 - 1)
sizes = st.integers(0, (1 << 63) - 1)
digests = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=20, max_size=20)
_attribute_names = st.binary(min_size=1, max_size=255).filter(lambda b: b"\0" not in b)
attributes = st.dictionaries(_attribute_names, st.binary(max_size=300), max_size=4).map(
    lambda found: tuple(sorted(found.items()))
)


def entries(*kinds: Kind) -> st.SearchStrategy[Entry]:
    """Entries that can travel, of one of ``kinds``."""
    return st.sampled_from(kinds).flatmap(_entries_of)


def _entries_of(kind: Kind) -> st.SearchStrategy[Entry]:
    if kind is Kind.LINK:
        return paths.map(lambda path: LINK._replace(target=path))
    return st.builds(
        Entry,
        kind=st.just(kind),
        mode=st.integers(0, 0o7777),
        uid=ids,
        gid=ids,
        mtime_ns=times,
        atime_ns=times,
        size=sizes if kind is Kind.FILE else st.just(0),
        target=texts if kind is Kind.SYMLINK else st.just(b""),
        xattrs=attributes,
    )


travelling = entries(Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.FIFO, Kind.LINK)
