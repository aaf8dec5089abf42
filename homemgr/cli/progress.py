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

    def __init__(self) -> None:
        """Nothing is shown yet."""
        terminal = sys.stderr
        is_terminal = terminal is not None and terminal.isatty()
        self._terminal = terminal if is_terminal and os.environ.get("TERM") != "dumb" else None
        self._is_shown = False

    @property
    def is_seen(self) -> bool:
        """Whether anybody reads it."""
        return self._terminal is not None

    def show(self, text: str) -> None:
        """Put ``text`` in the place of what is there, shortened to one line."""
        if self._terminal is None:
            return
        # One less: some terminals begin a new line with the last character.
        room = self._width() - 1
        clean = "".join(c if c.isprintable() else " " for c in text)[:room]
        self._terminal.write(f"{_CLEAR}{clean}")
        self._terminal.flush()
        self._is_shown = True

    def _width(self) -> int:
        try:
            return os.get_terminal_size(sys.stderr.fileno()).columns or _DEFAULT_WIDTH
        except OSError:
            return _DEFAULT_WIDTH

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
        if self._terminal is not None and self._is_shown:
            self._terminal.write(_CLEAR)
            self._terminal.flush()
