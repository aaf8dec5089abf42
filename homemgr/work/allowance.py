"""How much may come: what the sender has announced, and never the last of the room.

The sender says beforehand how many names there are and how many bytes their contents have.
In one pass no more is told than that. A home in use grows meanwhile: then the sender
announces more first, and the receiver looks again whether there is room for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import StreamError
from homemgr.transfer.frames import Control, Copy, Enter, File, Node, Patch, Same

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.transfer.frames import Frame

#: What is announced beyond what is just needed, so that it is not said for every file.
_MORE_FILES = 1000
_MORE_BYTES = 64 << 20


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
        self._files = self._content = 0

    def begin(self) -> None:
        """A pass begins: everything may be told once more."""
        self._files = self._content = 0

    def beyond(self, frame: Frame) -> Size | None:
        """Count a frame; if it is not covered do not, and give what would have to be announced."""
        if isinstance(frame, _WITH_CONTENT):
            content = self._content + frame.entry.size
        elif isinstance(frame, _WITH_ENTRY) and frame.entry is not None:
            content = self._content
        else:
            return None
        files = self._files + 1
        if files <= self.size.files and content <= self.size.content:
            self._files, self._content = files, content
            return None
        more = max(0, content - self.size.content)
        return Size(
            max(self.size.files, files) + _MORE_FILES,
            # For this there has to be room: what is allowed beyond may never come.
            self.size.bytes + more,
            self.size.content + more + _MORE_BYTES,
        )

    def take(self, frame: Frame) -> None:
        """Count a frame that came; raises StreamError if it was not announced."""
        if self.beyond(frame) is not None:
            raise StreamError(
                f"The sender announced {self.size.files} files and directories of"
                f" {self.size.content} bytes, and sends more."
            )


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
