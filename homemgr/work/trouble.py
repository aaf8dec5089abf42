"""A finding and what mends it; carried out by verb repair, told of by verb check."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.record.findings import CODES, Finding

if TYPE_CHECKING:
    from collections.abc import Callable


class Trouble(NamedTuple):
    """Something that is wrong, and how to mend it if that is safe."""

    code: str
    subject: str
    detail: str = ""
    mend: Callable[[], None] | None = None

    def told(self) -> Finding:
        """As a finding; nothing is changed."""
        return Finding(self.code, self.subject, self.detail, self.mend is not None)

    def mended(self) -> Finding:
        """As a finding, after it was mended if it can be."""
        finding = self.told()
        if self.mend is None:
            return finding
        try:
            self.mend()
        except errors.HomeError as error:
            return finding._replace(failed=error.message)
        except OSError as error:
            return finding._replace(failed=errors.from_os_error(error, "Repair").message)
        return finding._replace(done=CODES[self.code].repair)
