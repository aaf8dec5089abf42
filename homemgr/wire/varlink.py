"""A varlink server on the event loop: many clients, bounded each, answered from memory.

Knows framing, limits and who is asking; no interface but the standard ones. A blocked
user database delays every name look-up of the machine, so neither a flood nor a client
that stops reading may hold up the loop. See varlink.org and systemd's sd-varlink(3).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from socket import AF_UNIX, SOCK_STREAM, socket

from homemgr.wire.peer import Peer, of_socket
from homemgr.wire.varlink_service import Service, VarlinkError
from homemgr.wire.varlink_session import Limits, Session

__all__ = ["Limits", "Peer", "VarlinkError", "VarlinkServer"]

log = logging.getLogger(__name__)

#: ``handle(peer, method, parameters, more)``: encoded reply parameters, one per reply. What
#: takes memory is made as it is asked for: a client may take its time, and others as well.
Handle = Callable[[Peer, str, dict[str, object], bool], Iterable[bytes]]

#: A burst of logins connects faster than we accept.
BACKLOG = 4096
_ACCEPTED_PER_TURN = 64
#: How long to let go of accepting when the process has too many files open.
_PAUSE_S = 0.1
_LIMITS = Limits()


class VarlinkServer:
    """Serves interfaces on one socket; `listen`, and `close` at the end.

    ``handle`` answers at once and never blocks; it raises `VarlinkError` for errors.
    """

    def __init__(
        self, interfaces: dict[str, str], handle: Handle, limits: Limits = _LIMITS
    ) -> None:
        """``interfaces``: the descriptions by name, in the language of varlink.org."""
        self.limits = limits
        self._service = Service(interfaces)
        self._handle = handle
        self._listener: socket | None = None
        self._path = ""
        self._inode = 0
        # By user, each user's in the order of their last request.
        self._sessions: dict[int, dict[Session, None]] = {}
        self._count = 0
        #: Of unfinished requests, by user.
        self.buffered_bytes: Counter[int] = Counter()
        self._buffered = 0

    # --- the socket ---------------------------------------------------------------------

    async def listen(self, path: str, mode: int = 0o666) -> None:
        """Serve at ``path``, replacing a socket that is there without a gap."""
        directory, name = os.path.split(path)
        # Clients look at every socket in the directory, but for those with a dot.
        temporary = os.path.join(directory, f".#{name}{secrets.token_hex(4)}")
        listener = socket(AF_UNIX, SOCK_STREAM)
        try:
            listener.settimeout(0)
            listener.bind(temporary)
            try:
                # Not by umask(2), which is the whole process's.
                os.chmod(temporary, mode)
                listener.listen(BACKLOG)
                self._inode = os.stat(temporary).st_ino
                os.rename(temporary, path)
            except OSError:
                os.unlink(temporary)
                raise
        except OSError:
            listener.close()
            raise
        self._listener, self._path = listener, path
        asyncio.get_running_loop().add_reader(listener, self._on_connect)

    async def close(self) -> None:
        """Stop listening, remove the socket if it still is ours, end all connections."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        # A successor may have put its own socket there.
        try:
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except FileNotFoundError:
            log.debug("The socket %s was removed by somebody else.", self._path)
        for sessions in list(self._sessions.values()):
            for session in list(sessions):
                session.close()

    def _on_connect(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPTED_PER_TURN):
            try:
                connected, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as wrong:
                self._pause(self._listener, wrong)
                return
            connected.settimeout(0)
            self._admit(Session(self, connected, of_socket(connected)))

    def _pause(self, listener: socket, wrong: OSError) -> None:
        """Out of descriptors or memory: drop somebody idle, and try again a little later."""
        log.warning("Cannot accept a connection at %s: %s.", self._path, wrong)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        self._evict(self._largest())
        loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._on_connect)

    # --- who is connected ---------------------------------------------------------------

    def _admit(self, session: Session) -> None:
        uid = session.peer.uid
        # One user must not be able to shut the others out of the user database.
        if uid != 0 and len(self._sessions.get(uid, ())) >= self.limits.sessions_per_uid:
            self._evict(uid)
        if self._count >= self.limits.sessions:
            self._evict(self._largest())
        self._sessions.setdefault(uid, {})[session] = None
        self._count += 1
        session.start()

    def _largest(self) -> int:
        return max(self._sessions, key=lambda uid: len(self._sessions[uid]), default=-1)

    def _evict(self, uid: int) -> None:
        for session in self._sessions.get(uid, ()):
            session.close()
            return

    def is_active(self, session: Session) -> None:
        """``session`` asked something: it is the last of its user to be dropped."""
        sessions = self._sessions[session.peer.uid]
        del sessions[session]
        sessions[session] = None

    def has_left(self, session: Session) -> None:
        """``session`` is closed."""
        uid = session.peer.uid
        sessions = self._sessions.get(uid, {})
        if session in sessions:
            del sessions[session]
            self._count -= 1
            if not sessions:
                del self._sessions[uid]

    def buffer(self, peer: Peer, size: int) -> None:
        """A session of ``peer`` keeps so many more bytes of requests, or fewer if negative."""
        self._buffered += size
        self.buffered_bytes[peer.uid] += size
        if not self.buffered_bytes[peer.uid]:
            del self.buffered_bytes[peer.uid]

    def is_full(self, peer: Peer) -> bool:
        """Whether clients keep too many bytes already, all or those of this user."""
        limit = self.limits.buffered_bytes_per_uid if peer.uid else self.limits.buffered_bytes
        return self.buffered_bytes[peer.uid] > limit or self._buffered > self.limits.buffered_bytes

    # --- what is asked ------------------------------------------------------------------

    def replies(
        self, peer: Peer, method: str, parameters: dict[str, object], *, more: bool
    ) -> Iterator[bytes]:
        """Encoded parameters of all replies to one request; raises `VarlinkError`."""
        if self._service.is_standard(method):
            return iter((self._service.answer(peer, method, parameters),))
        found = iter(self._handle(peer, method, parameters, more))
        # Found here, so that what is wrong with the request shows before anything is sent.
        first = next(found, None)
        if first is None:
            # It would leave the client waiting; nothing found is an error of its own.
            raise LookupError(f"{method} gave no reply")
        return chain((first,), found if more else ())
