"""What is known of a home at the last look: entries and digests, in a file of SQLite.

One for each user and peer, and both sides use this class: the sender knows by it what
changed since, the receiver what its unfinished copy holds. It is a memory, not a truth:
what was known counts for a file whose `proof` is still the same, and a ledger that cannot
be read is put aside as ``.corrupt`` and begun anew.

Keys are (directory, name), both bytes, and all orders are those of the bytes; the top is
(``b""``, ``b""``). Nothing is kept in memory but one page of rows and SQLite's cache.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import StreamError
from homemgr.storage.ledger_table import Table
from homemgr.transfer.codec import decode, encode, signature_of_encoded
from homemgr.transfer.entry import Entry, Kind, check_path, join, split

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

#: Files beyond this have the digests of their blocks kept.
BLOCKS_FROM = 1 << 20

#: What is remembered of all names.
_DIGEST, _TOTALS = "digest", "totals"

#: Rows of one page of `Ledger.pairs`.
_PAGE = 2000

#: Names that the other side may have and we do not know: it must not fill our disk.
_MAX_STRANGE = 1_000_000
#: Stands for what they are: of nothing that can be patched, copied or proven.
_STRANGE = Entry(Kind.FIFO, 0, 0, 0, 0, 0, 0, b"", ())

#: All but the inode and the links may be negative in what C has; see `proof`.
_PROOF = struct.Struct(">QqqqIQ")
_PROOF_OF_ANY = struct.Struct(">QQQQIQ")
_INODE = struct.Struct(">q")
#: How much of a proof is the inode, at its beginning.
INODE_BYTES = _INODE.size
_U32 = struct.Struct(">I")
_U64 = (1 << 64) - 1


def proof(stat: os.stat_result) -> bytes:
    """What says that a file is as it was: inode, both times in ns, size, mode and links.

    The kernel sets the change time at every change, and nobody can set it back but by
    setting the clock.
    """
    try:
        return _PROOF.pack(
            stat.st_ino,
            stat.st_ctime_ns,
            stat.st_mtime_ns,
            stat.st_size,
            stat.st_mode,
            stat.st_nlink,
        )
    except struct.error:
        return _proof_of_any(stat)


def _proof_of_any(stat: os.stat_result) -> bytes:
    """The same, also of times beyond what nanoseconds in 64 bits can tell (1677 to 2262)."""
    return _PROOF_OF_ANY.pack(
        stat.st_ino & _U64,
        stat.st_ctime_ns & _U64,
        stat.st_mtime_ns & _U64,
        stat.st_size & _U64,
        stat.st_mode,
        stat.st_nlink & _U64,
    )


class Known(NamedTuple):
    """What decides whether a name is looked at again."""

    proof: bytes
    signature: bytes
    kind: int


class Row(NamedTuple):
    """All that is known of a name; ``digest`` and ``blocks`` are as of `content.ContentDigest`.

    ``digest`` is empty for all but files; ``blocks`` are kept for files beyond `BLOCKS_FROM`,
    and ``proof`` where there is nothing on disk to prove it.
    """

    entry: Entry
    digest: bytes
    blocks: bytes
    proof: bytes


class Ledger(Table):
    """The open ledger; only `commit` keeps what was changed, leaving the block drops the rest.

    Commit after the file system was synchronised: what the ledger has of the other side's
    files has to be true after a power failure as well.
    """

    def __enter__(self) -> Ledger:
        """Open until the end of the block."""
        return self

    # --- names --------------------------------------------------------------------------

    def children(self, directory: bytes) -> dict[bytes, Known]:
        """What is known of the names in ``directory``, itself left out if it is the top."""
        rows = self._all(
            "SELECT name, proof, signature, kind FROM entry WHERE directory = ? AND name <> x''",
            directory,
        )
        return {name: Known(mark, sign, kind) for name, mark, sign, kind in rows}

    def known(self, path: bytes) -> Known | None:
        """What decides whether ``path`` is looked at again."""
        rows = self._all(
            "SELECT proof, signature, kind FROM entry WHERE directory = ? AND name = ?",
            *split(path),
        )
        return Known(*rows[0]) if rows else None

    def get(self, path: bytes) -> Row | None:
        """All that is known of ``path``."""
        rows = self._all(
            "SELECT entry, digest, blocks, proof FROM entry WHERE directory = ? AND name = ?",
            *split(path),
        )
        return _row(*rows[0]) if rows else None

    def put(self, path: bytes, row: Row) -> None:
        """Know ``row`` of ``path``, whatever was known of it; `StreamError` if it cannot travel."""
        entry, digest, blocks, mark = row
        encoded = encode(entry)
        length = len(path) + len(encoded) + len(blocks)
        self._wait(
            (
                *split(path),
                signature_of_encoded(encoded, digest),
                int(entry.kind),
                entry.size,
                _inode(mark),
                mark,
                encoded,
                digest,
                blocks if entry.size > BLOCKS_FROM else b"",
            ),
            length,
        )

    def touch(self, path: bytes, mark: bytes) -> None:
        """What is known of ``path`` is proven by ``mark`` as well as before."""
        self._change(
            "UPDATE entry SET proof = ?, inode = ? WHERE directory = ? AND name = ?",
            mark,
            _inode(mark),
            *split(path),
        )

    def drop(self, path: bytes) -> None:
        """Know nothing of ``path`` and of all below it."""
        if not path:
            self._alter("DELETE FROM entry")
            return
        self._alter("DELETE FROM entry WHERE directory = ? AND name = ?", *split(path))
        # All that begins with the path and "/": "0" is the byte after "/".
        self._alter(
            "DELETE FROM entry WHERE directory = ? OR (directory > ? AND directory < ?)",
            path,
            path + b"/",
            path + b"0",
        )

    def by_inode(self, inode: int) -> list[tuple[bytes, Row]]:
        """What is known of the names of an inode, in order."""
        rows = self._all(
            "SELECT directory, name, entry, digest, blocks, proof FROM entry"
            " WHERE inode = ? ORDER BY directory, name",
            _INODE.unpack((inode & _U64).to_bytes(8, "big"))[0],
        )
        return [(join(directory, name), _row(*rest)) for directory, name, *rest in rows]

    def by_digest(self, digest: bytes) -> bytes | None:
        """The first path of a file of more than 64 KiB whose content has ``digest``."""
        # The size is that of the index, to the letter: see "Partial Indexes" of SQLite.
        rows = self._all(
            "SELECT directory, name FROM entry WHERE digest = ? AND size > 65536"
            " ORDER BY directory, name LIMIT 1",
            digest,
        )
        return join(*rows[0]) if rows else None

    def links(self) -> Iterator[tuple[bytes, Row]]:
        """All further names of files, in order; read in pages."""
        query = (
            "SELECT directory, name, entry, digest, blocks, proof FROM entry"
            " WHERE kind = ? AND (directory, name) > (?, ?)"
            " ORDER BY directory, name LIMIT ?"
        )
        last: tuple[bytes, bytes] = (b"", b"")
        while page := self._all(query, int(Kind.LINK), *last, _PAGE):
            for directory, name, *rest in page:
                yield join(directory, name), _row(*rest)
            last = page[-1][:2]

    # --- all of them --------------------------------------------------------------------

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Path and signature of all names, in order of directory and name."""
        for directory, name, mark, _ in self._keys():
            yield join(directory, name), mark

    def digest(self) -> bytes:
        """SHA-256 over length u32 and path, and signature, of all `pairs`.

        Of names that do not change it is made once, however often and in how many runs it is
        asked for, if it is followed by a `commit`.
        """
        if known := self.remembered(_DIGEST):
            return bytes.fromhex(known)
        whole = sha256()
        count = total = 0
        for directory, name, mark, size in self._keys():
            path = join(directory, name)
            whole.update(_U32.pack(len(path)) + path + mark)
            count += 1
            total += size
        self.remember(_DIGEST, whole.hexdigest())
        self.remember(_TOTALS, f"{count} {total}")
        return whole.digest()

    def agree(self, pairs: Iterable[tuple[bytes, bytes]]) -> int:
        """Have the names of ``pairs`` and no others; how many names had to be forgotten.

        Of a name that was not known with the same signature nothing is known from now on
        but that it is there, and whether it is a directory that is not empty: no `proof`,
        and a signature that is nobody's. ``pairs`` are in the order of `Ledger.pairs`:
        `StreamError` if not, and if too many of them are strange.
        """
        peer = _ordered(pairs)
        theirs = next(peer, None)
        forgotten = strange = 0
        for directory, name, mark, _ in self._keys():
            key = (directory, name)
            while theirs and theirs[0] < key:
                strange += self._note_strange(theirs[0], strange)
                theirs = next(peer, None)
            if theirs == (key, mark):
                theirs = next(peer, None)
                continue
            self._alter("DELETE FROM entry WHERE directory = ? AND name = ?", *key)
            forgotten += 1
        while theirs:
            strange += self._note_strange(theirs[0], strange)
            theirs = next(peer, None)
        if strange:
            self._find_directories()
        return forgotten

    def _note_strange(self, key: tuple[bytes, bytes], count: int) -> int:
        """Know of one more name that it is there; gives 1."""
        if count == _MAX_STRANGE:
            raise StreamError(
                f"The other machine has more than {_MAX_STRANGE} names that are unknown here;"
                " have it forget the transfer."
            )
        if key != (b"", b""):
            check_path(join(*key))
        self._grow(len(key[0]))
        row = (*key, b"", int(_STRANGE.kind), 0, None, b"", encode(_STRANGE), b"", b"")
        self._alter("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
        return 1

    def _find_directories(self) -> None:
        """Know of strange names with others below that they are directories."""
        for directory, name, mark, _ in self._keys():
            if mark:
                continue
            path = join(directory, name)
            if self._all("SELECT 1 FROM entry WHERE directory = ? AND name <> x'' LIMIT 1", path):
                self._change(
                    "UPDATE entry SET kind = ? WHERE directory = ? AND name = ?",
                    int(Kind.DIRECTORY),
                    directory,
                    name,
                )

    def is_empty(self) -> bool:
        """Whether nothing is known at all."""
        return not self._all("SELECT 1 FROM entry LIMIT 1")

    def totals(self) -> tuple[int, int]:
        """How many names are known, and how many bytes their files have, holes included.

        Found out with every `digest`, which remembers it.
        """
        if known := self.remembered(_TOTALS):
            names, content = known.split()
            return int(names), int(content)
        ((count, size),) = self._all("SELECT count(*), total(size) FROM entry")
        return count, int(size)

    def _keys(self) -> Iterator[tuple[bytes, bytes, bytes, int]]:
        """Directory, name, signature and size of all, in pages: they may be changed meanwhile."""
        start = "SELECT directory, name, signature, size FROM entry "
        order = f" ORDER BY directory, name LIMIT {_PAGE}"
        page = self._all(start + order)
        while page:
            yield from page
            page = self._all(start + "WHERE (directory, name) > (?, ?)" + order, *page[-1][:2])


def _row(entry: bytes, digest: bytes, blocks: bytes, mark: bytes) -> Row:
    return Row(decode(entry), digest, blocks, mark)


def _inode(mark: bytes) -> int | None:
    if not mark:
        return None
    # SQLite's integers have a sign.
    (number,) = _INODE.unpack_from(mark)
    return int(number)


def _ordered(
    pairs: Iterable[tuple[bytes, bytes]],
) -> Iterator[tuple[tuple[bytes, bytes], bytes]]:
    """Key and signature of each pair; `StreamError` as soon as one is not after the one before."""
    previous = None
    for path, mark in pairs:
        key = split(path)
        if previous is not None and key <= previous:
            raise StreamError("What the other side has comes out of order.")
        yield key, mark
        previous = key
