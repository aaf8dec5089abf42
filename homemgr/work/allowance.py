"""How much may come: what the sender has announced, and never the last of the room.

The sender says beforehand how many names there are, how many bytes their contents have, and
how many of these are stored and no holes. In one pass no more is told than that. A home in use
grows meanwhile, and what the origin stores compressed is more here: then the sender announces
more first, and the receiver looks again whether there is room for it.

What is copied here from what has come counts with its content only: holes in it are not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import StreamError
from homemgr.transfer.frames import Control, Copy, Data, Enter, File, Node, Patch, Same

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.transfer.entry import Entry
    from homemgr.transfer.frames import Frame

#: What is announced beyond what is just needed, so that it is not said for every file.
_MORE_FILES = 1000
_MORE_BYTES = 64 << 20
#: For what is stored there has to be room: beyond it so much is announced, or a share of all. Of a
#: file that was just written the file system may count no blocks yet, so that it is no rare thing.
_MORE_STORED = 1 << 20
_MORE_STORED_SHARE = 64


#: Frames that bring content with them or after them, and others that store a name.
_WITH_CONTENT = (File, Patch, Copy)
_WITH_ENTRY = (Node, Same, Enter)


class Size(NamedTuple):
    """How large a home is: names, bytes that they take on disk, and bytes that can be read."""

    files: int
    bytes: int
    content: int = 0


class Allowance:
    """What may still come in this pass."""

    def __init__(self, size: Size) -> None:
        """Allow what was announced."""
        self.size = size
        self.begin()

    def begin(self) -> None:
        """A pass begins: everything may be told once more."""
        self._files = self._content = self._stored = 0

    def beyond(self, frame: Frame) -> Size | None:
        """Count a frame; if it is not covered do not, and give what would have to be announced."""
        files, content, stored = self._files, self._content, self._stored
        if isinstance(frame, Data):
            stored += len(frame.data)
        elif isinstance(frame, _WITH_CONTENT):
            files += 1
            content += frame.entry.size
            stored += _beside(frame.entry)
            if isinstance(frame, File) and frame.data is not None:
                stored += len(frame.data)
        elif isinstance(frame, _WITH_ENTRY) and frame.entry is not None:
            files += 1
            stored += _beside(frame.entry)
        else:
            return None
        size = self.size
        if files <= size.files and content <= size.content and stored <= size.bytes:
            self._files, self._content, self._stored = files, content, stored
            return None
        more = max(0, content - size.content)
        taken = size.bytes + more
        if stored > taken:
            taken = stored + max(_MORE_STORED, stored // _MORE_STORED_SHARE)
        return Size(
            max(size.files, files) + _MORE_FILES,
            # For this there has to be room: what is allowed beyond may never come.
            taken,
            size.content + more + _MORE_BYTES,
        )

    def take(self, frame: Frame) -> None:
        """Count a frame that came; raises StreamError if it was not announced."""
        if self.beyond(frame) is not None:
            raise StreamError(
                f"The sender announced {self.size.files} files and directories of"
                f" {self.size.content} bytes, {self.size.bytes} of them stored, and sends more."
            )


def _beside(entry: Entry) -> int:
    """What an entry takes beside its content: of most it is nothing."""
    return len(entry.target) + sum(len(value) for _, value in entry.xattrs)


class Announcing:
    """Sends frames, and announces more whenever what was announced does not cover them."""

    def __init__(self, allowance: Allowance, send: Callable[[Frame], None]) -> None:
        """Send with ``send``; a pass begins."""
        self._allowance = allowance
        self._send = send
        allowance.begin()

    def __call__(self, frame: Frame) -> None:
        """Send one frame."""
        if (more := self._allowance.beyond(frame)) is not None:
            self._allowance.size = more
            self._send(Control({"more": more._asdict()}))
            self._allowance.take(frame)
        self._send(frame)
