"""One line on a terminal that says what is being done, and is gone when it is done."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_DEFAULT_WIDTH = 80
#: To the beginning of the line, and empty to its end.
_CLEAR = "\r\x1b[K"


class ProgressLine:
    """The line, on standard error; says nothing where that is no terminal."""

    def __init__(self, *, is_wanted: bool = True) -> None:
        """Nothing is shown yet, and nothing ever if it is not wanted."""
        terminal = sys.stderr
        is_terminal = terminal is not None and terminal.isatty()
        is_able = is_wanted and is_terminal and os.environ.get("TERM") != "dumb"
        self._terminal = terminal if is_able else None
        self._shown = ""

    @property
    def is_seen(self) -> bool:
        """Whether anybody reads it."""
        return self._terminal is not None

    def show(self, text: str) -> None:
        """Put ``text`` in the place of what is there, shortened to one line."""
        if self._terminal is None:
            return
        clean = "".join(c if c.isprintable() else " " for c in text)[: self.room]
        if clean != self._shown:
            self._terminal.write(f"{_CLEAR}{clean}")
            self._terminal.flush()
            self._shown = clean

    def clear(self) -> None:
        """Make room for something else; the next `show` is below it."""
        if self._terminal is not None and self._shown:
            self._terminal.write(_CLEAR)
            self._terminal.flush()
            self._shown = ""

    @property
    def room(self) -> int:
        """How many characters the line has; another number when the terminal was resized."""
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or _DEFAULT_WIDTH
        except OSError:
            columns = _DEFAULT_WIDTH
        # One less: some terminals begin a new line with the last character.
        return columns - 1

    def __enter__(self) -> ProgressLine:
        """Show it until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take it away, whatever happened."""
        self.clear()
