"""Signed images at login: merged, gone at logout or after a kill, and never in the way."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.wire.messages import BusError
from tests import verifying
from tests.kernel.extension_trees import BIG, make, tree
from tests.service.extension_store import make_store
from tests.service.site import Service, Site
from tests.service.test_extensions import as_user, status
from tests.signed_images import DATA_START, Maker, signed_image

MAKER = Maker.new("maker")

CONF = """
[Extension tools]
Users=alice bob
[Extension must]
Users=carol
Required=yes
"""


@pytest.fixture
def store(tmp_path: Path, ground: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for extensions, the rules for them, and a maker who is trusted."""
    directory = make_store(ground, tmp_path, CONF, monkeypatch)
    certificate = verifying.trust(MAKER)
    yield directory
    certificate.unlink()
    subprocess.run(["rm", "-rf", str(directory)], check=True)


@pytest.fixture
def running(store: Path, new_site: Callable[..., Site]) -> Iterator[Service]:
    """A daemon with these extensions; it leaves no device."""
    service = Service(new_site())
    yield service
    if service.is_running:
        service.call("DeactivateAllHomes")
    service.close()
    verifying.wait_until_gone()


def put(store: Path, name: str = "tools", maker: Maker = MAKER) -> Path:
    """A signed image without any digest beside it."""
    source = store.with_name(f"source-{name}")
    if not source.exists():
        tree(source, name)
    image = store / f"{name}.raw"
    inner = make("erofs", source, store.with_name("inner")).read_bytes()
    image.write_bytes(signed_image(inner, maker))
    image.chmod(0o644)
    return image


def test_a_login_has_its_tools_and_a_logout_leaves_no_device(running: Service, store: Path) -> None:
    put(store)
    for name in ("alice", "bob"):
        running.create(name)
        running.activate(name)
        home = running.path_of(name)
        uid = home.stat().st_uid
        assert as_user(uid, str(home / ".local/bin/tool")) == "tool\n"
        assert (home / ".config/corp/big").stat().st_uid == uid
    # One device for both.
    assert len(verifying.devices()) == 1
    assert len(verifying.images()) == 2
    running.deactivate("alice")
    assert (running.path_of("bob") / ".config/corp/big").read_bytes() == BIG
    running.deactivate("bob")
    verifying.wait_until_gone()


def test_a_killed_service_leaves_no_device_after_the_logout(running: Service, store: Path) -> None:
    put(store)
    running.create("alice")
    running.activate("alice")
    running.kill()
    # What is merged stays, and needs nobody.
    assert (running.path_of("alice") / ".config/corp/big").read_bytes() == BIG
    running.start()
    assert len(verifying.devices()) == 1
    running.deactivate("alice")
    verifying.wait_until_gone()


def test_what_is_not_in_order_is_told_and_stops_no_login(running: Service, store: Path) -> None:
    running.create("alice")
    running.create("bob")
    image = put(store)
    verifying.damage(image, DATA_START)
    running.activate("alice")
    assert reason(running, "alice").startswith(f"Extension {image} cannot be opened: ")
    assert "Input/output error" in reason(running, "alice")
    running.deactivate("alice")
    put(store, maker=Maker.new("other"))
    running.activate("bob")
    assert "nobody who is trusted here made it" in reason(running, "bob")
    running.deactivate("bob")
    verifying.wait_until_gone()


def test_a_damaged_file_is_an_error_for_who_reads_it_only(running: Service, store: Path) -> None:
    running.create("alice")
    image = put(store)
    verifying.damage(image, image.read_bytes().index(BIG[:64]))
    running.activate("alice")
    home = running.path_of("alice")
    with pytest.raises(OSError, match="Input/output"):
        (home / ".config/corp/big").read_bytes()
    assert as_user(home.stat().st_uid, str(home / ".local/bin/tool")) == "tool\n"
    running.deactivate("alice")


def test_a_required_one_refuses_the_login(running: Service, store: Path) -> None:
    running.create("carol")
    image = put(store, "must", Maker.new("other"))
    with pytest.raises(BusError, match=r"must\.raw carries a verity signature, which cannot be"):
        running.activate("carol")
    put(store, "must")
    running.activate("carol")
    running.deactivate("carol")
    assert image.exists()


def reason(service: Service, user: str) -> str:
    """Why the user's only extension is not merged."""
    (entry,) = status(service, user)["extensions"]  # type: ignore[misc]
    assert entry["state"] == "skipped", json.dumps(entry)
    (told,) = entry["reasons"]
    return str(told)
