"""Text files of the kernel are decoded as documented: escapes, padding, odd bytes."""

from __future__ import annotations

import os
import struct

from homemgr.kernel import inotify, mountinfo

LINES = r"""25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
60 25 0:40 / /home/a\040b\134c\011\012d rw - tmpfs none rw
61 60 0:41 / /home/gr\303\274n rw - tmpfs none rw
"""


def test_mount_points_are_unescaped() -> None:
    found = mountinfo.parse_mountinfo(LINES)
    assert [m.mount_point for m in found] == ["/", "/home/a b\\c\t\nd", "/home/grün"]
    assert [(m.mount_id, m.parent_id) for m in found] == [(25, 1), (60, 25), (61, 60)]


def test_bytes_that_are_no_text_survive() -> None:
    raw = os.fsdecode(b"/home/\xff")
    assert mountinfo.unescape(raw) == raw
    assert os.fsencode(mountinfo.unescape("/home/\\377")) == b"/home/\xff"


def test_events_are_decoded_with_padding_removed() -> None:
    raw = struct.pack("=iIII", 1, inotify.IN_CREATE, 0, 16) + b"alice.homedir\0\0\0"
    raw += struct.pack("=iIII", 1, inotify.IN_DELETE_SELF, 7, 0)
    assert inotify.decode_events(raw) == [
        inotify.Event(1, inotify.IN_CREATE, 0, "alice.homedir"),
        inotify.Event(1, inotify.IN_DELETE_SELF, 7, ""),
    ]
