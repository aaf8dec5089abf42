"""A connection under load and in trouble: floods, many calls, timeouts, the bus going away."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from wire_sample import FACE, NAME, ROOT, Running

from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.client import Client
from homemgr.wire.codec import encode
from homemgr.wire.connection import Connection, Peer
from homemgr.wire.dispatch import MAX_RUNNING_PER_SENDER
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import PrivateBus

ERROR = "org.freedesktop.DBus.Error."
PEER = "org.freedesktop.DBus.Peer"


@pytest.fixture
def service(private_bus: PrivateBus) -> Iterator[Running]:
    running = Running(private_bus.address)
    yield running
    running.stop()


# --- load -------------------------------------------------------------------------------


def flood(address: str, stop: threading.Event) -> None:
    """Ping as fast as the bus takes it, asking for no reply, so that nothing slows us."""
    with Client(address) as client:
        client.call(NAME, ROOT, PEER, "Ping")
        target = (NAME, ROOT, PEER, "Ping")
        frames = messages.call(1, target, "", None, messages.NO_REPLY) * 200
        while not stop.is_set():
            try:
                client._send(frames, [], time.monotonic() + 5)
            except TimeoutError:
                return


async def worst_stall(seconds: float) -> float:
    """The longest time the loop took between two timers of 5 ms."""
    worst, until = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < until:
        await asyncio.sleep(0.005)
        worst = max(worst, time.monotonic() - before)
    return worst


def test_flood_neither_stalls_the_loop_nor_costs_descriptors(
    private_bus: PrivateBus, service: Running
) -> None:
    stop = threading.Event()
    flooders = [threading.Thread(target=flood, args=(private_bus.address, stop)) for _ in range(2)]
    before = len(os.listdir("/proc/self/fd"))
    for flooder in flooders:
        flooder.start()
    time.sleep(0.2)
    stall = service.run(worst_stall(1.5))
    stop.set()
    for flooder in flooders:
        flooder.join()
    with Client(private_bus.address) as client:
        # Behind everything the flood left in the queue of the bus.
        answer = client.call(NAME, ROOT, FACE, "Greet", "s", ("x",), timeout_s=60)
    assert answer.body == ["Hello x"]
    # Two flooding threads share this process and its interpreter lock with the service.
    assert stall < 0.5
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_thousand_calls_at_once_are_all_answered(
    private_bus: PrivateBus, service: Running
) -> None:
    async def one_client() -> list[list[object]]:
        connection = await Connection.open(private_bus.address)
        calls = [
            connection.call(NAME, ROOT, FACE, "Slow", "u", (300 + index,)) for index in range(63)
        ]
        answers = await asyncio.gather(*calls)
        await connection.close()
        return answers

    async def all_clients() -> list[list[list[object]]]:
        return await asyncio.gather(*[one_client() for _ in range(16)])

    started = time.monotonic()
    answers = asyncio.run(all_clients())
    assert answers == [[[300 + index] for index in range(63)]] * 16
    assert time.monotonic() - started < 10


def test_more_calls_than_the_bus_allows_wait_for_their_turn(
    private_bus: PrivateBus, service: Running
) -> None:
    async def talk() -> list[list[object]]:
        connection = await Connection.open(private_bus.address)
        calls = [connection.call(NAME, ROOT, FACE, "Slow", "u", (20,)) for _ in range(300)]
        answers = await asyncio.gather(*calls)
        await connection.close()
        return answers

    assert asyncio.run(talk()) == [[20]] * 300


def test_calls_without_reply_are_limited_per_caller(
    private_bus: PrivateBus, service: Running
) -> None:
    async def talk() -> int:
        connection = await Connection.open(private_bus.address)
        for _ in range(MAX_RUNNING_PER_SENDER + 50):
            connection.tell((NAME, ROOT, FACE, "Slow"), "u", (3_000,))
        with pytest.raises(BusError) as refusal:
            await connection.call(NAME, ROOT, FACE, "Slow", "u", (1,))
        assert refusal.value.name == ERROR + "LimitsExceeded"
        # Somebody else is served.
        other = await Connection.open(private_bus.address)
        assert await other.call(NAME, ROOT, FACE, "Slow", "u", (1,)) == [1]
        running = len(service.dispatcher._tasks)
        await connection.close()
        await other.close()
        return running

    assert asyncio.run(talk()) == MAX_RUNNING_PER_SENDER


def test_answers_beyond_the_socket_buffer_arrive(private_bus: PrivateBus, service: Running) -> None:
    async def talk() -> None:
        connection = await Connection.open(private_bus.address)
        data = os.urandom(2 << 20)
        calls = [connection.call(NAME, ROOT, FACE, "Echo", "ay", (data,)) for _ in range(12)]
        for answer in await asyncio.gather(*calls):
            assert answer == [data]
        await connection.close()

    asyncio.run(talk())


# --- trouble ----------------------------------------------------------------------------


def test_pending_and_later_calls_fail_when_the_bus_goes(private_bus: PrivateBus) -> None:
    async def talk() -> list[str]:
        connection = await Connection.open(private_bus.address)
        silent = await Connection.open(private_bus.address)
        # Takes calls and never answers them.
        silent.serve(_Mute())
        pending = asyncio.ensure_future(
            connection.call(silent.unique_name, ROOT, FACE, "X", timeout_s=None)
        )
        await asyncio.sleep(0.05)
        await asyncio.to_thread(private_bus.kill)
        names = []
        await asyncio.wait_for(connection.wait_closed(), 5)
        for doing in (pending, connection.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetId")):
            with pytest.raises(BusError) as caught:
                await asyncio.wait_for(doing, 5)
            names.append(caught.value.name)
        connection.emit(ROOT, FACE, "Happened")
        await connection.close()
        await silent.close()
        return names

    assert asyncio.run(talk()) == [ERROR + "Disconnected"] * 2


class _Mute:
    """A dispatcher that answers nothing."""

    def dispatch(self, _connection: Connection, message: messages.Message) -> None:
        message.close_fds()


def test_silence_ends_in_no_reply_and_late_answers_are_dropped(
    private_bus: PrivateBus, service: Running
) -> None:
    async def talk() -> None:
        connection = await Connection.open(private_bus.address)
        with pytest.raises(BusError) as caught:
            await connection.call(NAME, ROOT, FACE, "Slow", "u", (100,), timeout_s=0.02)
        assert caught.value.name == ERROR + "NoReply"
        await asyncio.sleep(0.15)
        assert await connection.call(NAME, ROOT, FACE, "Greet", "s", ("x",)) == ["Hello x"]
        await connection.close()

    asyncio.run(talk())


def test_cancelled_call_leaves_nothing_behind(private_bus: PrivateBus, service: Running) -> None:
    async def talk() -> None:
        connection = await Connection.open(private_bus.address)
        for delay in (0.0, 0.001, 0.002, 0.003, 0.005):
            # An answer with a descriptor may arrive in the very moment of the cancellation.
            call = asyncio.ensure_future(connection.call(NAME, ROOT, FACE, "MakePipe"))
            await asyncio.sleep(delay)
            call.cancel()
            (result,) = await asyncio.gather(call, return_exceptions=True)
            if isinstance(result, list):
                result[0].close()
        assert not connection._pending
        await connection.call(NAME, ROOT, PEER, "Ping")
        await connection.close()

    asyncio.run(talk())


def test_name_that_is_taken_is_refused_in_words(private_bus: PrivateBus, service: Running) -> None:
    async def talk() -> BusError:
        connection = await Connection.open(private_bus.address)
        with pytest.raises(BusError) as caught:
            await connection.request_name(NAME)
        await connection.close()
        return caught.value

    error = asyncio.run(talk())
    assert error.name == ERROR + "AddressInUse"
    assert NAME in error.message


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("unix:path=/no/such/bus", "NoServer"),
        ("tcp:host=localhost,port=1", "BadAddress"),
        ("unix:path=/%zz", "BadAddress"),
    ],
)
def test_unreachable_bus_is_said_so(address: str, name: str) -> None:
    with pytest.raises(BusError) as caught:
        asyncio.run(Connection.open(address))
    assert caught.value.name == ERROR + name


def test_values_that_cannot_be_sent_fail_the_call_only(
    private_bus: PrivateBus, service: Running
) -> None:
    async def talk() -> None:
        connection = await Connection.open(private_bus.address)
        with pytest.raises(BusError):
            await connection.call(NAME, ROOT, FACE, "Greet", "s", ("nul\0",))
        reader, writer = os.pipe()
        os.close(reader)
        with pytest.raises(BusError):
            await connection.call(NAME, ROOT, FACE, "X", "hay", (Fd(writer), bytes(33 << 20)))
        assert await connection.call(NAME, ROOT, FACE, "Greet", "s", ("x",)) == ["Hello x"]
        await connection.close()

    asyncio.run(talk())


def test_nothing_is_served_before_serve(private_bus: PrivateBus) -> None:
    async def talk() -> str:
        early = await Connection.open(private_bus.address)
        caller = await Connection.open(private_bus.address)
        with pytest.raises(BusError) as caught:
            await caller.call(early.unique_name, ROOT, FACE, "Greet")
        await early.close()
        await caller.close()
        return caught.value.name

    assert asyncio.run(talk()) == ERROR + "UnknownObject"


# --- identities and signals -------------------------------------------------------------


def test_identity_is_asked_once(private_bus: PrivateBus) -> None:
    async def talk() -> None:
        connection = await Connection.open(private_bus.address)
        serial = connection._serial
        expected = Peer(os.getuid(), os.getpid())
        for _ in range(5):
            assert await connection.credentials(connection.unique_name) == expected
        assert connection._serial == serial + 1
        with pytest.raises(BusError):
            await connection.credentials(":1.99999")
        await connection.close()

    asyncio.run(talk())


def test_signals_reach_subscribers_and_only_from_the_owner(
    private_bus: PrivateBus, service: Running
) -> None:
    async def talk() -> list[object]:
        connection = await Connection.open(private_bus.address)
        heard: list[object] = []
        await connection.subscribe(
            NAME, FACE, "Happened", lambda path, body: heard.append((path, *body))
        )
        forger = await Connection.open(private_bus.address)
        forger.emit(ROOT, FACE, "Happened", "s", ("forged",), destination=connection.unique_name)
        await forger.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetId")
        service.emit("real")
        await asyncio.sleep(0.1)
        await forger.close()
        await connection.close()
        return heard

    assert asyncio.run(talk()) == [(ROOT, "real")]


def test_subscription_survives_a_restart_of_the_service(private_bus: PrivateBus) -> None:
    async def talk() -> list[object]:
        connection = await Connection.open(private_bus.address)
        heard: list[object] = []
        await connection.subscribe(NAME, FACE, "Happened", lambda _path, body: heard.extend(body))
        for turn in ("first", "second"):
            service = await Connection.open(private_bus.address)
            await service.request_name(NAME)
            service.emit(ROOT, FACE, "Happened", "s", (turn,))
            await asyncio.sleep(0.05)
            await service.close()
        await connection.close()
        return heard

    assert asyncio.run(talk()) == ["first", "second"]


def test_broken_subscriber_does_not_hurt_the_connection(private_bus: PrivateBus) -> None:
    async def talk() -> list[object]:
        connection = await Connection.open(private_bus.address)
        raised: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: raised.append(context["exception"])
        )

        def broken(_path: str, _body: list[object]) -> None:
            raise RuntimeError("subscriber")

        await connection.subscribe(BUS_NAME, BUS_NAME, "NameAcquired", broken)
        await connection.request_name(NAME)
        await asyncio.sleep(0.05)
        await connection.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetId")
        await connection.close()
        return [type(error) for error in raised]

    assert asyncio.run(talk()) == [RuntimeError]


def test_vanishing_peer_is_told_once_and_not_when_given_up(private_bus: PrivateBus) -> None:
    async def talk() -> list[str]:
        connection = await Connection.open(private_bus.address)
        leaving = await Connection.open(private_bus.address)
        told: list[str] = []
        connection.watch(leaving.unique_name, lambda: told.append("one"))
        connection.watch(leaving.unique_name, lambda: told.append("two"))
        connection.watch(leaving.unique_name, lambda: told.append("never"))()
        await connection.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetId")
        await leaving.close()
        await asyncio.sleep(0.1)
        await connection.close()
        return told

    assert asyncio.run(talk()) == ["one", "two"]


def test_malformed_arguments_are_refused_not_fatal(
    private_bus: PrivateBus, service: Running
) -> None:
    # dbus-daemon validates bodies, so this is what a lax bus would deliver.
    frame = messages.call(5, (NAME, ROOT, FACE, "Greet"), "s", encode("u", (1000,)))

    async def deliver() -> None:
        request = messages.parse(frame)
        request.sender = service.connection.unique_name
        service.connection._on_message(request)

    service.run(deliver())
    with Client(private_bus.address) as client:
        assert client.call(NAME, ROOT, FACE, "Greet", "s", ("x",)).body == ["Hello x"]
