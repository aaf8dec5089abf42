"""A daemon without bus and workers: what its workers would do is a script of the test."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from homemgr.daemon import keys, login
from homemgr.daemon.activity import Activity
from homemgr.daemon.config import Config
from homemgr.daemon.extensions import Choices, Rules
from homemgr.daemon.home import Home, Services
from homemgr.daemon.introductions import receiver_of
from homemgr.daemon.jobs import JobRunner
from homemgr.daemon.manager import Manager
from homemgr.daemon.merging import Extensions
from homemgr.daemon.store import Store
from homemgr.daemon.transfer_options import ReceiveOptions, SendOptions
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret
from homemgr.record.signature import sign

Told = dict[str, object]
Ask = Callable[[str, Told], Awaitable[Told]]
Script = Callable[[Ask, Mapping[str, object]], Awaitable[Told]]


class Runner:
    """Stands in for the workers: each verb is a script, some are given."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.cancelled: asyncio.Event | None = None
        self.is_busy = False
        self.tells_progress = True

    async def run(
        self,
        verb: str,
        arguments: Mapping[str, object],
        _fds: Sequence[int] = (),
        *,
        on_progress: Callable[[Told], None] | None = None,
        on_question: Ask | None = None,
        cancelled: asyncio.Event | None = None,
        **_more: object,
    ) -> Told:
        """Do what the script says."""
        self.cancelled = cancelled
        if verb == "sweep":
            return {"removed": []}
        if verb == "former-uid":
            return {}
        if verb == "abandon":
            path = Path(str(arguments["directory"]), str(arguments["name"]))
            shutil.rmtree(path, ignore_errors=True)
            return {}
        if on_progress is not None and self.tells_progress:
            on_progress({"phase": "copy", "bytes": 7})

        async def ask(question: str, about: Told) -> Told:
            assert on_question is not None
            return await on_question(question, about)

        return await self.scripts[verb](ask, arguments)


@dataclass
class Site:
    """One machine: its directories stay, its daemon comes and goes."""

    root: Path
    name: str
    machine_id: str
    mounted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        (self.home_root / ".homemgr").mkdir(parents=True)
        self.start_new()

    @property
    def home_root(self) -> Path:
        return self.root / "home"

    @property
    def base(self) -> Path:
        return self.home_root / ".homemgr"

    def start_new(self) -> None:
        """A daemon that knows nothing yet; `start` it."""
        config = Config(
            home_root=str(self.home_root),
            record_directory=str(self.root / "records"),
            blob_root=str(self.root / "blobs"),
            runtime_directory=str(self.root / "run"),
        )
        os.makedirs(config.record_directory, exist_ok=True)
        self.runner = Runner()
        runner = cast("JobRunner", self.runner)
        extensions = Extensions(
            Rules({}), Choices(str(self.root / "choices")), runner, config.runtime_directory
        )
        self.services = Services(
            config=config,
            store=Store(config.record_directory, config.blob_root, config.stamp_directory),
            runner=runner,
            keys=keys.load([config.record_directory], config.record_directory),
            machine=Machine(self.machine_id, self.name, str(self.home_root)),
            extensions=extensions,
            is_mounted=lambda path: path in self.mounted,
        )
        self.manager = Manager(self.services)

    async def start(self) -> None:
        await self.manager.start()

    async def restart(self) -> None:
        """As after a kill: what was only in memory is gone."""
        for home in self.manager.registry:
            home.close()
        self.start_new()
        await self.start()

    @property
    def fingerprint(self) -> str:
        signer = self.services.keyring.signer
        assert signer is not None
        return signer.public.fingerprint

    @property
    def receiver(self) -> str:
        """As its worker tells senders."""
        return receiver_of(self.services)

    def home(self, user: str) -> Home:
        return self.manager.registry.require(user)

    async def add(self, user: str, uid: int, **fields: object) -> Home:
        """A home with a file in it."""
        image = self.base / f"{user}.homedir"
        image.mkdir(0o700)
        (image / "note").write_text(f"of {user}")
        signer = self.services.keyring.signer
        assert signer is not None
        data = {"userName": user, "disposition": "regular", "lastChangeUSec": 5, **fields}
        record = sign(UserRecord(data), signer).with_binding(  # type: ignore[arg-type]
            self.machine_id,
            {"imagePath": str(image), "storage": "directory", "uid": uid, "gid": uid},
        )
        self.services.store.save(user, record)
        (image / ".identity").write_bytes(record.embedded().pretty())
        home = Home(self.services, record, is_fixated=True)
        self.manager.enlist(home)
        return home

    async def activate(self, user: str) -> None:
        await login.activate(self.home(user), Secret())

    def send(self, user: str, script: Script, **options: object) -> Activity:
        """Begin to send."""
        self.runner.scripts["send"] = script
        asked = SendOptions(host="beta", **options)  # type: ignore[arg-type]
        home = self.home(user)
        return self.manager.activities.begin(
            "send", user, ":1.1", 0, lambda a: self.manager.transfers.send(a, home, asked, ())
        )

    def export(self, user: str, script: Script) -> Activity:
        """Begin to export."""
        self.runner.scripts["export"] = script
        home = self.home(user)
        return self.manager.activities.begin(
            "export",
            user,
            ":1.1",
            0,
            lambda a: self.manager.transfers.export(a, home, SendOptions(), ()),
        )

    def receive(
        self, script: Script, *trust: str, host: str = "", verb: str = "receive"
    ) -> Activity:
        """Begin to receive, or to import."""
        self.runner.scripts[verb] = script
        asked = ReceiveOptions(trust, host)

        async def work(activity: Activity) -> Told:
            return await self.manager.transfers.receive(verb, activity, asked, (), by_uid=0)

        return self.manager.activities.begin("receive", "", ":1.2", 0, work)
