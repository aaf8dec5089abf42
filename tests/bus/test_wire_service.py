"""Dispatch over a real bus: answers, error names, descriptors, introspection, identities."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import xml.etree.ElementTree as ET
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from wire_sample import FACE, ITEMS, NAME, ROOT, Running, text_of

from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.client import Client, Reply
from homemgr.wire.codec import Variant, encode
from homemgr.wire.connection import Connection
from homemgr.wire.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import PrivateBus

ERROR = "org.freedesktop.DBus.Error."
PROPERTIES = "org.freedesktop.DBus.Properties"
PEER = "org.freedesktop.DBus.Peer"


@pytest.fixture
def service(private_bus: PrivateBus) -> Iterator[Running]:
    running = Running(private_bus.address)
    yield running
    running.stop()


@pytest.fixture
def client(private_bus: PrivateBus, service: Running) -> Iterator[Client]:
    with Client(private_bus.address) as connected:
        # Connected from the start, so that tests can count descriptors.
        connected.call(NAME, ROOT, PEER, "Ping")
        yield connected


def face(client: Client, member: str, signature: str = "", *body: object, **more: object) -> Reply:
    return client.call(NAME, ROOT, FACE, member, signature, body, **more)  # type: ignore[arg-type]


def refused(client: Client, path: str, interface: str, member: str, *rest: object) -> BusError:
    signature, *body = rest or ("",)
    with pytest.raises(BusError) as caught:
        client.call(NAME, path, interface, member, str(signature), body)
    return caught.value


# --- answers ----------------------------------------------------------------------------


def test_plain_handler_answers(client: Client) -> None:
    assert face(client, "Greet", "s", "alice").body == ["Hello alice"]


def test_coroutine_handler_answers(client: Client) -> None:
    assert face(client, "Slow", "u", 3).body == [3]


def test_call_without_interface_is_resolved_by_member(client: Client) -> None:
    assert client.call(NAME, ROOT, "", "Greet", "s", ("bob",)).body == ["Hello bob"]


def test_kept_body_is_sent_as_it_is(client: Client) -> None:
    assert face(client, "Prepared").body == [["alice", "bob"]]


def test_large_bodies_pass_both_ways(client: Client) -> None:
    data = os.urandom(1 << 20) * 30
    assert face(client, "Echo", "ay", data, timeout_s=60).body == [data]


def test_caller_and_its_wish_to_interact_are_known(client: Client) -> None:
    assert face(client, "WhoAmI").body == [os.getuid(), os.getpid(), True]
    assert face(client, "WhoAmI", interactive=False).body == [os.getuid(), os.getpid(), False]


def test_calls_that_want_no_reply_get_none(private_bus: PrivateBus, service: Running) -> None:
    async def talk() -> list[object]:
        connection = await Connection.open(private_bus.address)
        for member in ("Greet", "Stumble", "NoSuchMember"):
            connection.tell((NAME, ROOT, FACE, member), "s", ("x",))
        answer = await connection.call(NAME, ROOT, FACE, "Greet", "s", ("alice",))
        await connection.close()
        return answer

    # A reply too many would be an answer to a serial number nobody waits for: harmless
    # here, so look at the service: everything it was asked has been let go of.
    assert asyncio.run(talk()) == ["Hello alice"]


# --- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "interface", "member", "name"),
    [
        (ROOT + "/no/such", FACE, "Greet", "UnknownObject"),
        (ROOT + "/no/such", "", "Greet", "UnknownObject"),
        (ROOT + "/no/such", PROPERTIES, "GetAll", "UnknownObject"),
        ("/org/example", FACE, "Greet", "UnknownInterface"),
        (ROOT, "org.example.Other", "Greet", "UnknownInterface"),
        (ROOT, FACE, "Other", "UnknownMethod"),
        (ROOT, "", "Other", "UnknownMethod"),
        (ROOT, PEER, "Other", "UnknownMethod"),
        (ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "UnknownInterface"),
        (ROOT, FACE, "Greet", "InvalidArgs"),
        (ROOT, FACE, "BusyLater", "InvalidArgs"),
    ],
)
def test_unknown_things_are_refused_by_the_right_name(
    client: Client, path: str, interface: str, member: str, name: str
) -> None:
    assert refused(client, path, interface, member, "uu", 1, 2).name == ERROR + name


def test_failures_travel_under_their_own_name(client: Client) -> None:
    error = refused(client, ROOT, FACE, "Greet", "s", "nobody")
    assert (error.name, error.message) == (
        "org.freedesktop.home1.NoSuchHome",
        "There is no home nobody.",
    )
    assert refused(client, ROOT, FACE, "BusyLater").name == "org.freedesktop.home1.HomeBusy"


@pytest.mark.parametrize("member", ["Stumble", "StumbleLater"])
def test_unexpected_failures_reveal_nothing(
    client: Client, caplog: pytest.LogCaptureFixture, member: str
) -> None:
    with caplog.at_level(logging.ERROR):
        error = refused(client, ROOT, FACE, member, "s", "hunter2")
    assert error.name == "System.Error.EIO"
    assert "hunter2" not in error.message
    assert "Traceback" not in error.message
    assert "ValueError" in caplog.text
    assert "wire_sample.py" in caplog.text
    # The secret may be in the text of the exception, so that is not logged either.
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("member", ["Misfit", "Bare", "Unprepared"])
def test_results_that_do_not_fit_become_an_error(client: Client, member: str) -> None:
    assert refused(client, ROOT, FACE, member).name == "System.Error.EIO"


@pytest.mark.parametrize("member", ["Huge", "HugePipe"])
def test_answers_too_large_for_the_bus_are_refused_not_fatal(client: Client, member: str) -> None:
    assert refused(client, ROOT, FACE, member).name == ERROR + "LimitsExceeded"
    assert face(client, "Greet", "s", "still here").body == ["Hello still here"]


def test_cancelled_handler_answers(client: Client, service: Running) -> None:
    async def cancel_soon() -> None:
        await asyncio.sleep(0.05)
        for task in list(service.dispatcher._tasks):
            task.cancel()

    pending = asyncio.run_coroutine_threadsafe(cancel_soon(), service.loop)
    assert refused(client, ROOT, FACE, "Slow", "u", 60_000).name == "System.Error.ECANCELED"
    pending.result()
    assert service.sample.cancelled == 1


def test_drain_waits_for_handlers_and_refuses_new_calls(
    private_bus: PrivateBus, service: Running
) -> None:
    async def talk() -> tuple[list[object], str]:
        connection = await Connection.open(private_bus.address)
        running = asyncio.ensure_future(connection.call(NAME, ROOT, FACE, "Slow", "u", (200,)))
        await asyncio.sleep(0.05)
        draining = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(service.dispatcher.drain(), service.loop)
        )
        await asyncio.sleep(0.05)
        with pytest.raises(BusError) as refusal:
            await connection.call(NAME, ROOT, FACE, "Greet", "s", ("late",))
        assert not draining.done()
        answer = await running
        await draining
        await connection.close()
        return answer, refusal.value.name

    assert asyncio.run(talk()) == ([200], ERROR + "NoReply")


def test_malformed_text_in_an_error_does_not_cost_the_connection(
    client: Client, service: Running
) -> None:
    service.sample.items.append("never asked for")

    async def spoil() -> None:
        request = messages.parse(messages.call(1, (NAME, ROOT, FACE, "X"), "", None))
        request.sender = service.connection.unique_name
        service.connection.reply_error(request, "a.b.C", "lone \udc80 and \0 inside")

    service.run(spoil())
    assert face(client, "Greet", "s", "alice").body == ["Hello alice"]


# --- descriptors ------------------------------------------------------------------------


def written(path: Path, text: str) -> Fd:
    path.write_text(text)
    return Fd(os.open(path, os.O_RDONLY))


def test_descriptors_stand_in_the_arguments_and_are_closed(client: Client, tmp_path: Path) -> None:
    with written(tmp_path / "a", "one") as first, written(tmp_path / "b", "two") as second:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            reply = face(client, "ReadAll", "a{sh}", {"x": 0, "y": 1}, fds=(first, second))
            assert reply.body == [{"x": "one", "y": "two"}]
        assert len(os.listdir("/proc/self/fd")) == before


def test_taken_descriptor_outlives_the_call(
    client: Client, service: Running, tmp_path: Path
) -> None:
    with written(tmp_path / "a", "kept") as file:
        face(client, "Keep", "h", 0, fds=(file,))
    assert os.pread(service.sample.kept_fds[0].fileno(), 10, 0) == b"kept"


def test_returned_descriptor_is_the_callers_alone(client: Client, service: Running) -> None:
    reply = face(client, "MakePipe")
    with reply.fds[0] as writer:
        assert reply.body == [0]
        os.write(writer.fileno(), b"through")
    with service.sample.kept_fds.pop() as reader:
        # End of file proves that the service kept no copy of the write end.
        assert os.read(reader.fileno(), 100) == b"through"
        assert os.read(reader.fileno(), 100) == b""


@pytest.mark.parametrize("member", ["Ping", "NoSuchMember"])
def test_descriptors_nobody_asked_for_are_closed(
    client: Client, tmp_path: Path, member: str
) -> None:
    interface = PEER if member == "Ping" else FACE
    with written(tmp_path / "a", "x") as file:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            with pytest.raises(BusError):
                client.call(NAME, ROOT, interface, member, "hhh", (0, 1, 2), fds=[file] * 3)
        assert len(os.listdir("/proc/self/fd")) == before


def test_sixteen_descriptors_fit_into_one_call(client: Client, tmp_path: Path) -> None:
    with written(tmp_path / "a", "x") as file:
        files = {str(index): index for index in range(16)}
        reply = face(client, "ReadAll", "a{sh}", files, fds=[file] * 16)
    assert reply.body == [dict.fromkeys(files, "x")]


@pytest.mark.parametrize("index", [{"x": 1}, {"x": 0, "y": 0}])
def test_descriptor_named_twice_or_not_sent_is_refused(
    service: Running, private_bus: PrivateBus, tmp_path: Path, index: dict[str, int]
) -> None:
    # Not through our client, which would not send it.
    with written(tmp_path / "a", "x") as file, Client(private_bus.address) as client:
        body = encode("a{sh}", [dict(index)], [file, file])
        del body.fds[1:]
        frame = messages.call(9, (NAME, ROOT, FACE, "ReadAll"), "a{sh}", body)
        deadline = monotonic() + 5
        client._send(frame, body.fds, deadline)
        with pytest.raises(BusError) as caught:
            client._wait(9, "ReadAll", deadline)
    assert caught.value.name == ERROR + "InvalidArgs"


def test_received_descriptors_are_closed_on_exec(client: Client, service: Running) -> None:
    reply = face(client, "MakePipe")
    numbers = [reply.fds[0].fileno(), service.sample.kept_fds[0].fileno()]
    assert [os.get_inheritable(number) for number in numbers] == [False, False]
    reply.fds[0].close()


def test_asynchronous_caller_owns_the_descriptors_of_an_answer(
    private_bus: PrivateBus, service: Running
) -> None:
    async def talk() -> None:
        connection = await Connection.open(private_bus.address)
        (writer,) = await connection.call(NAME, ROOT, FACE, "MakePipe")
        assert isinstance(writer, Fd)
        writer.close()
        await connection.close()

    asyncio.run(talk())


# --- the standard interfaces ------------------------------------------------------------


def test_peer_answers_at_any_path(client: Client) -> None:
    assert client.call(NAME, "/no/such", PEER, "Ping").body == []
    with open("/etc/machine-id", encoding="ascii") as file:
        assert client.call(NAME, ROOT, PEER, "GetMachineId").body == [file.read().strip()]


def test_properties_are_read(client: Client) -> None:
    assert client.call(NAME, ROOT, PROPERTIES, "Get", "ss", (FACE, "Items")).body == [
        Variant("as", ["alice", "bob"])
    ]
    (everything,) = client.call(NAME, ROOT, PROPERTIES, "GetAll", "s", (FACE,)).body
    assert everything == {"Items": Variant("as", ["alice", "bob"]), "Level": Variant("s", "info")}
    assert client.call(NAME, ROOT, PROPERTIES, "GetAll", "s", (PEER,)).body == [{}]
    assert client.call(NAME, ROOT, PROPERTIES, "GetAll", "s", ("",)).body == [everything]


def test_writable_properties_are_set(client: Client, service: Running) -> None:
    client.call(NAME, ROOT, PROPERTIES, "Set", "ssv", (FACE, "Level", Variant("s", "debug")))
    assert service.sample.level == "debug"


@pytest.mark.parametrize(
    ("member", "signature", "body", "name"),
    [
        ("Get", "ss", (FACE, "Other"), "UnknownProperty"),
        ("Get", "ss", ("org.example.Other", "Items"), "UnknownInterface"),
        ("GetAll", "s", ("org.example.Other",), "UnknownInterface"),
        ("Set", "ssv", (FACE, "Items", Variant("as", [])), "PropertyReadOnly"),
        ("Set", "ssv", (FACE, "Other", Variant("s", "")), "UnknownProperty"),
        ("Set", "ssv", (FACE, "Level", Variant("u", 3)), "InvalidArgs"),
    ],
)
def test_properties_are_refused_by_the_right_name(
    client: Client, member: str, signature: str, body: tuple[object, ...], name: str
) -> None:
    assert refused(client, ROOT, PROPERTIES, member, signature, *body).name == ERROR + name


def test_failing_property_fails_the_call(client: Client) -> None:
    error = refused(client, ROOT + "/broken", PROPERTIES, "GetAll", "s", "")
    assert error.name == "org.freedesktop.home1.HomeBusy"


def test_object_manager_lists_everything_below(client: Client) -> None:
    manager = "org.freedesktop.DBus.ObjectManager"
    (found,) = client.call(NAME, ITEMS, manager, "GetManagedObjects").body
    assert isinstance(found, dict)
    assert sorted(found) == [ITEMS + "/alice", ITEMS + "/bob"]
    assert text_of(found[ITEMS + "/alice"][FACE + ".Item"]["Name"]) == "alice"
    assert found[ITEMS + "/alice"][PEER] == {}


def introspected(client: Client, path: str) -> ET.Element:
    (text,) = client.call(NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect").body
    return ET.fromstring(str(text))


def test_introspection_tells_names_directions_and_annotations(client: Client) -> None:
    node = introspected(client, ROOT)
    slow = node.find(f"interface[@name='{FACE}']/method[@name='Slow']")
    assert slow is not None
    assert [child.attrib for child in slow] == [
        {"type": "u", "name": "milliseconds", "direction": "in"},
        {"type": "u", "name": "milliseconds", "direction": "out"},
        {"name": "org.freedesktop.systemd1.Privileged", "value": "true"},
    ]
    emits = {
        one.attrib["name"]: one[0].attrib["value"]
        for one in node.findall(f"interface[@name='{FACE}']/property")
    }
    assert emits == {"Items": "true", "Level": "const"}
    assert [one.attrib["name"] for one in node.findall("node")] == ["broken", "item"]


def test_intermediate_nodes_lead_the_way(client: Client) -> None:
    node = introspected(client, "/org")
    assert [one.attrib["name"] for one in node.findall("node")] == ["example"]
    error = refused(client, "/no", "org.freedesktop.DBus.Introspectable", "Introspect")
    assert error.name == ERROR + "UnknownObject"


# --- a foreign client ---------------------------------------------------------------------


def busctl(bus: PrivateBus, *arguments: str) -> str:
    argv = ["busctl", f"--address={bus.address}", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_busctl_finds_and_calls_everything(private_bus: PrivateBus, service: Running) -> None:
    tree = busctl(private_bus, "--list", "tree", NAME)
    assert tree.split()[-4:] == [ROOT + "/broken", ITEMS, ITEMS + "/alice", ITEMS + "/bob"]
    shown = busctl(private_bus, "introspect", NAME, ROOT)
    assert ".Greet" in shown
    assert "emits-change" in shown
    answer = busctl(private_bus, "call", NAME, ROOT, FACE, "Greet", "s", "busctl")
    assert answer == 's "Hello busctl"\n'
    assert busctl(private_bus, "call", NAME, ROOT, FACE, "MakePipe").startswith("h ")
    assert busctl(private_bus, "get-property", NAME, ROOT, FACE, "Level") == 's "info"\n'
