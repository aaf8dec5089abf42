"""The first names of files with several: as a dict would have them, in a fifth of its memory."""

from __future__ import annotations

import os
import random
import tracemalloc

from homemgr.storage.first_names import FirstNames


def stat_of(inode: int, device: int) -> os.stat_result:
    return os.stat_result((0o100600, inode, device, 2, 0, 0, 0, 0, 0, 0))


def test_it_has_what_a_dict_has() -> None:
    chosen = random.Random(1)
    table, expected = FirstNames(), dict[tuple[int, int], bytes]()
    # Inodes in a row, far apart, and the same ones on two file systems.
    inodes = [*range(1500), *(1 << bit for bit in range(64)), *(n << 32 for n in range(500))]
    for _ in range(10_000):
        key = chosen.choice(inodes), chosen.choice((0x801, 0x801 << 20))
        directory = b"/".join([b"d" * chosen.randrange(1, 90)] * chosen.randrange(4))
        path = (directory + b"/" if directory else b"") + b"name-%d" % chosen.randrange(99)
        assert table.get(stat_of(*key)) == expected.get(key)
        if chosen.random() < 0.1:
            table.put(stat_of(*key), path)
            expected[key] = path
        else:
            assert table.meet(stat_of(*key), path) == expected.setdefault(key, path)
    assert len(table) == len(expected)
    for key, path in expected.items():
        assert table.get(stat_of(*key)) == path


def test_a_million_files_with_several_names_take_less_than_a_hundred_megabytes() -> None:
    count = 20_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table = FirstNames()
        for number in range(count):
            path = b"projects/something/modules/package-%d/lib/file-%d.js" % (number // 20, number)
            table.meet(stat_of(10_000_000 + number, 66305), path)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(table) == count
    assert taken * 1_000_000 / count < 100_000_000
