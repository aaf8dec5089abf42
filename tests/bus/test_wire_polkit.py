"""Asking polkit, with an authority of our own on the bus that answers as we tell it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from homemgr.errors import (
    AccessDenied,
    HomeError,
    InteractiveAuthorizationRequired,
    TooManyOperations,
)
from homemgr.wire import messages, polkit
from homemgr.wire.connection import Connection, Peer
from homemgr.wire.dispatch import Call, Dispatcher, Interface, Method, Node
from homemgr.wire.polkit import Polkit

if TYPE_CHECKING:
    from conftest import PrivateBus

AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
PATH = "/org/freedesktop/PolicyKit1/Authority"
ACTION = "org.example.do"


@dataclass
class Authority:
    """Stands in for polkitd; ``verdict`` None means that a person is still typing."""

    verdict: tuple[bool, bool] | None = (True, False)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    async def check(self, _call: Call, *question: object) -> tuple[object]:
        self.asked.append(question)
        while self.verdict is None:
            await asyncio.sleep(0.01)
        return ((*self.verdict, {}),)


async def check(target: Authority, call: Call, *question: object) -> tuple[object]:
    return await target.check(call, *question)


def cancel(target: Authority, _call: Call, cancellation: str) -> None:
    target.withdrawn.append(cancellation)


INTERFACE = Interface(
    AUTHORITY,
    (
        Method(
            "CheckAuthorization",
            (
                ("subject", "(sa{sv})"),
                ("action_id", "s"),
                ("details", "a{ss}"),
                ("flags", "u"),
                ("cancellation_id", "s"),
            ),
            (("result", "(bba{ss})"),),
            check,
        ),
        Method("CancelCheckAuthorization", (("cancellation_id", "s"),), (), cancel),
    ),
)


@dataclass
class Tree:
    """One object."""

    authority: Authority

    def resolve(self, path: str) -> Node | None:
        return Node(self.authority, (INTERFACE,)) if path == PATH else None

    def children(self, _path: str) -> list[str]:
        return []


@dataclass
class World:
    """A service that asks, somebody who calls it, and the authority."""

    service: Connection
    caller: Connection
    authority: Authority
    polkit: Polkit

    def call(self, *, interactive: bool = False) -> Call:
        flags = messages.INTERACTIVE if interactive else messages.NO_REPLY
        frame = messages.call(1, ("a.b", "/", "a.b", "Member"), "", None, flags)
        request = messages.parse(frame)
        request.sender = self.caller.unique_name
        return Call(self.service, request)

    async def failure(self, *, interactive: bool = False) -> HomeError | None:
        try:
            await self.polkit.check(self.call(interactive=interactive), ACTION, {"k": "v"})
        except HomeError as refusal:
            return refusal
        return None


def play(
    bus: PrivateBus, authority: Authority | None, scene: Callable[[World], Awaitable[None]]
) -> None:
    """Run ``scene``; with no authority polkit is not on the bus."""

    async def run() -> None:
        service = await Connection.open(bus.address)
        caller = await Connection.open(bus.address)
        polkitd = await Connection.open(bus.address)
        dispatcher = Dispatcher(Tree(authority or Authority()))
        if authority is not None:
            polkitd.serve(dispatcher)
            await polkitd.request_name("org.freedesktop.PolicyKit1")
        await scene(World(service, caller, authority or Authority(), Polkit(service)))
        await dispatcher.drain(timeout_s=0.1)
        for connection in (service, caller, polkitd):
            await connection.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("verdict", "interactive", "expected"),
    [
        ((True, False), False, type(None)),
        ((True, False), True, type(None)),
        ((False, False), False, AccessDenied),
        ((False, False), True, AccessDenied),
        ((False, True), False, InteractiveAuthorizationRequired),
        ((False, True), True, AccessDenied),
    ],
)
def test_every_verdict_has_its_meaning(
    private_bus: PrivateBus, verdict: tuple[bool, bool], interactive: bool, expected: type
) -> None:
    async def scene(world: World) -> None:
        failure = await world.failure(interactive=interactive)
        assert type(failure) is expected
        subject, action, details, flags, cancellation = world.authority.asked[0]
        assert subject[0] == "system-bus-name"
        assert subject[1]["name"].value == world.caller.unique_name
        assert (action, details, flags) == (ACTION, {"k": "v"}, int(interactive))
        assert world.service.unique_name in cancellation

    play(private_bus, Authority(verdict), scene)


def test_without_polkit_root_passes_and_nobody_else(private_bus: PrivateBus) -> None:
    async def scene(world: World) -> None:
        # The bus says who calls; here it is told to say otherwise.
        for uid, expected in ((0, type(None)), (1000, AccessDenied)):
            world.service._identities[world.caller.unique_name] = Peer(uid, 1)
            assert type(await world.failure()) is expected

    play(private_bus, None, scene)


def test_question_is_withdrawn_when_the_caller_leaves(private_bus: PrivateBus) -> None:
    async def scene(world: World) -> None:
        asking = asyncio.ensure_future(world.failure(interactive=True))
        while not world.authority.asked:
            await asyncio.sleep(0.01)
        await world.caller.close()
        assert isinstance(await asyncio.wait_for(asking, 5), AccessDenied)
        await asyncio.sleep(0.1)
        assert world.authority.withdrawn == [world.authority.asked[0][4]]
        world.authority.verdict = (False, False)

    play(private_bus, Authority(None), scene)


def test_question_is_withdrawn_when_the_handler_is_cancelled(private_bus: PrivateBus) -> None:
    async def scene(world: World) -> None:
        asking = asyncio.ensure_future(world.failure(interactive=True))
        while not world.authority.asked:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.1)
        assert world.authority.withdrawn == [world.authority.asked[0][4]]
        world.authority.verdict = (False, False)

    play(private_bus, Authority(None), scene)


def test_caller_that_has_left_already_is_refused(private_bus: PrivateBus) -> None:
    async def scene(world: World) -> None:
        call = world.call()
        await world.caller.close()
        await asyncio.sleep(0.05)
        with pytest.raises(AccessDenied):
            await world.polkit.check(call, ACTION, {})

    play(private_bus, Authority(), scene)


def test_one_user_cannot_use_up_all_questions(private_bus: PrivateBus) -> None:
    async def scene(world: World) -> None:
        waiting = [
            asyncio.ensure_future(world.failure(interactive=True))
            for _ in range(polkit.MAX_QUESTIONS_PER_UID)
        ]
        while len(world.authority.asked) < polkit.MAX_QUESTIONS_PER_UID:
            await asyncio.sleep(0.01)
        assert isinstance(await world.failure(), TooManyOperations)
        world.service._identities[world.caller.unique_name] = Peer(os.getuid() + 1, 1)
        other = asyncio.ensure_future(world.failure())
        while len(world.authority.asked) <= polkit.MAX_QUESTIONS_PER_UID:
            await asyncio.sleep(0.01)
        world.authority.verdict = (True, False)
        assert await asyncio.gather(*waiting, other) == [None] * (len(waiting) + 1)

    play(private_bus, Authority(None), scene)
