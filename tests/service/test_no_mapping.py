"""Homes on a file system that shows no files under other ids: refused at once, or in an image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.kernel import mounts
from tests.service.converting import begin, refusal
from tests.service.people import PASSWORD, record, secret, text
from tests.service.site import Service, Site, short, wait_until
from tests.service.sizes import take
from tests.service.test_classic import Account
from tests.service.test_image import homemgr as in_image
from tests.service.test_image import image as image
from tests.service.test_image import names
from tests.service.test_plain_images import create, loops_of
from tests.volumes import MIB

REASON = "cannot show files under other ids here"


def mount_overlay(layers: Path, target: Path) -> None:
    """What is in ``target`` as an overlay, in ``layers`` what is written to it."""
    for name in ("upper", "work"):
        (layers / name).mkdir(parents=True)
    (layers / "upper").chmod(0o755)
    options = f"lowerdir={target},upperdir={layers}/upper,workdir={layers}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", str(target)], check=True)


@pytest.fixture(scope="module")
def stacked(
    new_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service whose homes lie on an overlay, which the kernel maps no ids of."""
    site = new_site()
    mount_overlay(tmp_path_factory.mktemp("stacked"), site.home_root)
    running = Service(site)
    yield running
    running.call("DeactivateAllHomes")
    running.close()
    wait_until(lambda: loops_of(running) == [], "the devices to go")
    mounts.umount2(str(site.home_root), 0)


@pytest.mark.parametrize("storage", ["directory", "fscrypt", "subvolume"])
def test_no_home_is_made_that_nobody_could_use(stacked: Service, storage: str) -> None:
    made = text(record("anna", storage=storage))
    refused = stacked.failure("CreateHome", "s", made)
    assert (short(refused.name), REASON in refused.message) == ("NotSupported", True)
    assert "--storage=luks or image" in refused.message
    assert stacked.states() == {}
    assert os.listdir(stacked.site.base) == []


def test_an_account_stays_what_it_is(stacked: Service) -> None:
    bob = Account(stacked, stacked.site.home_root / "bob")
    bob.make()
    before = bob.files()
    assert REASON in bob.refused()
    assert bob.files() == before
    assert (bob.home / "sub/3").read_text() == "content 3\n"
    assert (bob.phase(), stacked.states()) == ("", {})


def test_in_an_image_it_works_and_is_not_taken_out_of_it(stacked: Service) -> None:
    image = create(stacked, "carl")
    stacked.activate("carl")
    assert take(stacked, "carl", MIB) == 0
    stacked.deactivate("carl")
    refused = refusal(stacked, begin(stacked, "carl", PASSWORD, storage="directory"))
    assert (short(refused.name), REASON in refused.message) == ("NotSupported", True)
    assert os.listdir(stacked.site.base) == [image.name]
    stacked.activate("carl")
    assert (stacked.path_of("carl") / "ballast").stat().st_size == MIB
    stacked.deactivate("carl")
    stacked.call("RemoveHome", "s", "carl")


def test_one_that_was_brought_there_says_why_it_is_not_shown(stacked: Service) -> None:
    stacked.site.plant("dora")
    stacked.wait_for("dora", "unfixated")
    refused = stacked.failure("ActivateHome", "ss", "dora", secret(PASSWORD))
    assert (short(refused.name), REASON in refused.message) == ("NotSupported", True)
    assert stacked.state("dora") == "unfixated"


def test_for_another_machine_it_is_made_wherever_its_root_lies(image: Path, tmp_path: Path) -> None:
    mount_overlay(tmp_path / "layers", image)
    try:
        in_image(image, "create", "anna", PASSWORD=PASSWORD, NEWPASSWORD=PASSWORD)
        assert names(image) == {"anna": "inactive"}
    finally:
        mounts.umount2(str(image), mounts.MNT_DETACH)
