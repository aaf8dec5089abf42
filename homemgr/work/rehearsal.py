"""What a worker does while it waits for a job: go through the motions of one.

A forked process gets a copy of its own of each page that it writes to, and to use
an object in Python is to write to its reference count. Several hundred such copies
are half of what a short job takes; here they are made before anybody waits.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors, job
from homemgr.record import signature
from homemgr.record.model import UserRecord
from homemgr.record.reconcile import reconcile
from homemgr.record.validate import parse_embedded
from homemgr.storage import mountpoint
from homemgr.work.task import Task

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

_MACHINE: JsonObject = {"id": "0" * 31 + "1", "hostname": "nowhere", "home_root": "/nonexistent"}
#: A hash that is quickly compared and matches nothing.
_HASH = "$6$rounds=1000$rehearsal$" + "." * 86


class Rehearsal:
    """A login to no home; made once by the job server, run by each worker that waits."""

    def __init__(self) -> None:
        """Make a record, a key and the request that a daemon would send."""
        private, public = signature.generate_key_pair()
        record = signature.sign(
            UserRecord(
                {
                    "userName": "rehearsal",
                    "disposition": "regular",
                    "lastChangeUSec": 1,
                    "privileged": {"hashedPassword": [_HASH]},
                }
            ),
            signature.PrivateKey.from_pem(private),
        )
        arguments: dict[str, object] = {
            "record": record.with_binding(str(_MACHINE["id"]), {"uid": 60513}).data,
            "is_fixated": True,
            "secret": {"password": ["rehearsal"]},
            "machine": _MACHINE,
            "public_keys": {signature.LOCAL_KEY: public.decode()},
            "own_keys": [signature.LOCAL_KEY],
            "base_directory": "/nonexistent/.homemgr",
        }
        request = job.Request("authenticate", arguments).message()
        self._talk = job.pack(request) + job.pack({"granted": "processor"})
        self._embedded = record.embedded().pretty()

    def run(self) -> None:
        """Go through it, from the request to the answer; nothing outside is touched."""
        daemon, worker = socket.socketpair()
        with daemon, worker:
            daemon.sendall(self._talk)
            channel = job.Channel(worker)
            request, fds = channel.receive()
            task = Task(request, fds, channel)
            found = parse_embedded(self._embedded)
            signature.require_accepted(found, task.keyring)
            settled = reconcile(task.record, found)
            with suppress(errors.BadPassword):
                task.check_credentials(settled.record)
            with suppress(errors.HomeNotActive):
                mountpoint.take_away(settled.record.on(task.machine).home_directory)
            channel.send({"result": {"image": task.image_path, "uid": task.local_uid}})
