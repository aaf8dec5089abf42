"""The home areas this daemon knows, by name, alias, realm and uid.

Gives out uids so that none is ever given twice, not even to two creations at
once. Tells listeners what appeared, changed and vanished. No I/O here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.home import Home
from homemgr.record import uids
from homemgr.record.rules import INVALID_UIDS

if TYPE_CHECKING:
    from homemgr.record.uids import UidRange

log = logging.getLogger(__name__)

Listener = Callable[[Home], None]


class Registry:
    """All homes of one daemon. Owned by the manager, read by every face."""

    def __init__(self, uid_range: UidRange) -> None:
        """Know nothing yet."""
        self.uid_range = uid_range
        self._by_name: dict[str, Home] = {}
        self._by_uid: dict[int, Home] = {}
        #: Aliases and the forms with realm; the primary name is in _by_name.
        self._by_other_name: dict[str, Home] = {}
        self._keys: dict[str, tuple[int, tuple[str, ...]]] = {}
        #: By home, the names it claims that are another's.
        self._disputed: dict[str, set[str]] = {}
        self._reserved_names: set[str] = set()
        self._reserved_uids: set[int] = set()
        #: Of homes that are arriving: their names and uids are reserved for long.
        self._held: dict[str, int] = {}
        self.appeared: list[Listener] = []
        self.changed: list[Listener] = []
        self.vanished: list[Listener] = []

    def __iter__(self) -> Iterator[Home]:
        """All homes, in the order in which they became known."""
        return iter(self._by_name.values())

    def __len__(self) -> int:
        """How many homes there are."""
        return len(self._by_name)

    # -- look-ups -----------------------------------------------------------------

    def by_name(self, name: str) -> Home | None:
        """The home with this primary name, alias, or either with ``@realm``."""
        return self._by_name.get(name) or self._by_other_name.get(name)

    def by_uid(self, uid: int) -> Home | None:
        """The home whose local uid this is."""
        return self._by_uid.get(uid)

    def require(self, name: str) -> Home:
        """The home of this name; raises NoSuchHome."""
        home = self.by_name(name)
        if home is None:
            raise errors.NoSuchHome(f"No home area for user {name} is known.")
        return home

    def require_uid(self, uid: int) -> Home:
        """The home of this uid; raises NoSuchHome, InvalidArgs for what is the uid of nobody."""
        if uid in INVALID_UIDS:
            raise errors.InvalidArgs(f"{uid} cannot be the uid of anybody.")
        home = self.by_uid(uid)
        if home is None:
            raise errors.NoSuchHome(f"No home area with uid {uid} is known.")
        return home

    # -- registration ----------------------------------------------------------------

    def add(self, home: Home) -> None:
        """List ``home`` from now on."""
        assert home.name not in self._by_name
        self._by_name[home.name] = home
        self._index(home)
        self._tell(self.appeared, home)

    def note_change(self, home: Home) -> None:
        """Look-ups may give other answers for ``home`` now."""
        if self._by_name.get(home.name) is home:
            self._unindex(home)
            self._index(home)
            self._tell(self.changed, home)

    def remove(self, home: Home) -> None:
        """Stop listing ``home``."""
        if self._by_name.get(home.name) is home:
            del self._by_name[home.name]
            self._unindex(home)
            self._disputed.pop(home.name, None)
            # What it had of others' names is theirs again.
            for name in list(self._disputed):
                self._unindex(self._by_name[name])
                self._index(self._by_name[name])
            self._tell(self.vanished, home)

    @contextmanager
    def reserving_names(self, names: Iterable[str], owner: Home | None = None) -> Iterator[None]:
        """Keep ``names`` from everybody but ``owner``; raises UserNameExists."""
        mine = set(names)
        for name in sorted(mine):
            if name in self._held:
                raise errors.UserNameExists(
                    f"User name {name} is kept for a home that is arriving from another machine."
                )
            home = self.by_name(name)
            if (home is not None and home is not owner) or name in self._reserved_names:
                raise errors.UserNameExists(f"The name {name} is already taken by a home area.")
        self._reserved_names |= mine
        try:
            yield
        finally:
            self._reserved_names -= mine

    def hold(self, name: str, uid: int) -> None:
        """Keep name and uid for a home that is arriving, until `release`."""
        self._reserved_names.add(name)
        self._reserved_uids.add(uid)
        self._held[name] = uid

    def release(self, name: str) -> None:
        """End what `hold` began, if it did."""
        uid = self._held.pop(name, None)
        if uid is not None:
            self._reserved_names.discard(name)
            self._reserved_uids.discard(uid)

    def release_uid(self, uid: int) -> None:
        """End a reservation: the home is listed, or will never be."""
        self._reserved_uids.discard(uid)

    async def reserve_uid(
        self,
        user: str,
        wanted: int | None,
        owner: int | None,
        is_taken: Callable[[int], Awaitable[bool]],
    ) -> int:
        """A uid that no home has and ``is_taken`` does not know; the caller releases it.

        Raises UIDInUse if ``wanted`` is not free, UIDNotAllowed if it must not be
        used, TooManyHomes if the range is full.
        """
        if wanted is not None:
            uids.check_allowed(wanted)
            if not await self._try_uid(wanted, is_taken):
                raise errors.UIDInUse(f"The uid {wanted} for {user} is already in use.")
            return wanted
        for candidate in uids.candidates(user, self.uid_range, owner):
            if await self._try_uid(candidate, is_taken):
                return candidate
        low, high = self.uid_range
        raise errors.TooManyHomes(f"No free uid is left between {low} and {high} for {user}.")

    async def _try_uid(self, uid: int, is_taken: Callable[[int], Awaitable[bool]]) -> bool:
        if uid in self._by_uid or uid in self._reserved_uids:
            return False
        # Reserved before the question, which takes time: nobody else gets it meanwhile.
        self._reserved_uids.add(uid)
        try:
            taken = await is_taken(uid)
        # Also when the caller is cancelled: nobody else would give the uid back.
        except BaseException:
            self._reserved_uids.discard(uid)
            raise
        if taken:
            self._reserved_uids.discard(uid)
        return not taken

    # -- indexes -----------------------------------------------------------------------

    def _index(self, home: Home) -> None:
        _, *names = home.effective.lookup_names
        # A name is looked up as what it was first: nobody takes over another's by alias.
        # Once each: an alias may be the very form with the realm.
        each = dict.fromkeys(names)
        mine = tuple(n for n in each if self._by_other_name.setdefault(n, home) is home)
        self._by_uid.setdefault(home.uid, home)
        self._keys[home.name] = (home.uid, mine)
        self._tell_of_disputes(home, each)

    def _tell_of_disputes(self, home: Home, names: Iterable[str]) -> None:
        """Log, once, which names of ``home`` are another's: what lies on a disk may claim any."""
        lost = {name for name in names if self.by_name(name) is not home}
        for name in sorted(lost - self._disputed.get(home.name, set())):
            log.warning(
                "The alias %s of user %s is a name of user %s and stays with that one.",
                name,
                home.name,
                self.require(name).name,
            )
        if lost:
            self._disputed[home.name] = lost
        else:
            self._disputed.pop(home.name, None)

    def _unindex(self, home: Home) -> None:
        uid, names = self._keys.pop(home.name)
        if self._by_uid.get(uid) is home:
            del self._by_uid[uid]
        for name in names:
            del self._by_other_name[name]

    def _tell(self, listeners: list[Listener], home: Home) -> None:
        for listener in listeners:
            listener(home)
