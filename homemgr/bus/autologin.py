"""The manager's AutoLogin property: which homes a display manager opens without asking.

Kept up to date change by change, so that neither a question nor a change has to
look at every home. Format as systemd-homed 262 (org.freedesktop.home1(5)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.bus import labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.daemon.home import Home
    from homemgr.daemon.registry import Registry

SIGNATURE = "a(sso)"

#: Where there is no record of a device: the seat every machine has.
_SEAT = "seat0"


class AutoLogins:
    """Homes whose record has ``autoLogin`` and whose files are there."""

    def __init__(self, registry: Registry) -> None:
        """Follow ``registry`` from now on."""
        self._names = {home.name for home in registry if _is_wanted(home)}
        #: Called whenever ``rows`` would give something else than before.
        self.changed: list[Callable[[], None]] = []
        registry.appeared.append(self._look)
        registry.changed.append(self._look)
        registry.vanished.append(lambda home: self._note(home, is_wanted=False))

    def rows(self) -> list[tuple[str, str, str]]:
        """User name, seat, object path; in the order of the names."""
        return [(name, _SEAT, labels.path_of(name)) for name in sorted(self._names)]

    def _look(self, home: Home) -> None:
        self._note(home, is_wanted=_is_wanted(home))

    def _note(self, home: Home, *, is_wanted: bool) -> None:
        if is_wanted == (home.name in self._names):
            return
        self._names.symmetric_difference_update({home.name})
        for listener in self.changed:
            listener()


def _is_wanted(home: Home) -> bool:
    return home.is_present and home.effective.auto_login
