"""Homes on devices become others, and others become them: what is undone, refused, killed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.wire.messages import BusError
from tests import verifying
from tests.service.converting import (
    begin,
    call,
    convert,
    diary,
    known,
    logged_in,
    rooms,
    storage_of,
    undo,
    write,
)
from tests.service.luks.test_convert_crypt import FIELDS
from tests.service.luks.test_devices import content_of, homes_on, stick
from tests.service.people import PASSWORD
from tests.service.site import Service, short, wait_until

__all__ = ["stick"]

if TYPE_CHECKING:
    pass


def settle(service: Service, **fields: object) -> Path:
    """Make nina with a line in her home, a plain directory; gives where it lies."""
    service.create("nina", **{**FIELDS, **fields})
    with logged_in(service, "nina"):
        write(service, "nina", "here")
    return service.site.base / "nina.homedir"


def lines(service: Service) -> list[str]:
    """What is in her home, after a login."""
    with logged_in(service, "nina"):
        return diary(service, "nina")


def to_the_stick(service: Service, stick: str) -> None:
    convert(service, "nina", PASSWORD, storage="luks", to=stick)
    assert storage_of(service, "nina") == "luks"


def is_blank(stick: str) -> bool:
    """Whether nothing is told of a device at either end."""
    content = content_of(stick)
    return not any(content[: 2 << 20]) and not any(content[-2 << 20 :])


def test_it_goes_to_a_device_and_is_back_with_nothing_left_there(
    running: Service, stick: str
) -> None:
    home = settle(running)
    to_the_stick(running, stick)
    assert [path.name for path in home.parent.iterdir()] == [rooms(home.parent)[0].name]
    with logged_in(running, "nina"):
        assert diary(running, "nina") == ["here"]
        write(running, "nina", "stick")
    with pytest.raises(BusError, match="has been used since"):
        call(running, "UndoConversion", "ss", "nina", "{}")
    undo(running, "nina")
    assert (rooms(home.parent), known(running), is_blank(stick)) == ([], {}, True)
    assert (storage_of(running, "nina"), lines(running)) == ("directory", ["here"])
    # What holds nothing is taken again, by the name that it has.
    to_the_stick(running, stick)
    call(running, "ConfirmConversion", "s", "nina")
    running.restart()
    assert lines(running) == ["here"]


def test_a_device_that_is_away_costs_nobody_what_was_kept(running: Service, stick: str) -> None:
    home = settle(running)
    to_the_stick(running, stick)
    away = f"{stick}-away"
    os.rename(stick, away)
    try:
        for member, arguments in (("ConfirmConversion", "s"), ("UndoConversion", "ss")):
            with pytest.raises(BusError, match="There is no home area at"):
                call(running, member, arguments, "nina", *["{}"][: len(arguments) - 1])
        undo(running, "nina")
    finally:
        os.rename(away, stick)
    assert (rooms(home.parent), known(running)) == ([], {})
    assert (storage_of(running, "nina"), lines(running)) == ("directory", ["here"])
    # Nobody could see to it: what it holds is left to people.
    with pytest.raises(BusError, match="is not empty: it holds"):
        to_the_stick(running, stick)


def test_a_device_that_holds_another_home_by_now_keeps_it(running: Service, stick: str) -> None:
    home = settle(running)
    to_the_stick(running, stick)
    subprocess.run(["blkdiscard", "--zeroout", "--force", stick], check=True)
    running.create("otto", imagePath=stick, storage="luks", **FIELDS)
    with pytest.raises(BusError, match="has been used since"):
        call(running, "UndoConversion", "ss", "nina", "{}")
    undo(running, "nina")
    assert (rooms(home.parent), known(running), lines(running)) == ([], {}, ["here"])
    with logged_in(running, "otto"):
        write(running, "otto", "still there")


def test_it_leaves_a_device_and_is_back_as_it_lay_there(running: Service, stick: str) -> None:
    running.create("nina", imagePath=stick, storage="luks", **FIELDS)
    with logged_in(running, "nina"):
        write(running, "nina", "stick")
    (found,) = homes_on(stick)
    convert(running, "nina", PASSWORD, storage="directory")
    assert running.site.base.joinpath("nina.homedir").is_dir()
    assert homes_on(stick) == [found]
    with logged_in(running, "nina"):
        write(running, "nina", "here")
    away = f"{stick}-away"
    os.rename(stick, away)
    with pytest.raises(BusError, match=r"not at .* any more .*plugged in"):
        undo(running, "nina")
    os.rename(away, stick)
    undo(running, "nina")
    assert (list(running.site.base.iterdir()), known(running)) == ([], {})
    assert (storage_of(running, "nina"), lines(running)) == ("luks", ["stick"])


def test_what_is_on_a_device_is_not_overwritten_and_what_fails_leaves_it_empty(
    running: Service, stick: str
) -> None:
    home = settle(running)
    subprocess.run(["mkfs.ext4", "-q", "-F", stick], check=True)
    before = content_of(stick)
    with pytest.raises(BusError, match="is not empty: it holds"):
        to_the_stick(running, stick)
    assert content_of(stick) == before
    subprocess.run(["blkdiscard", "--force", stick], check=True)
    with Fd.open(stick, os.O_RDONLY | os.O_EXCL), pytest.raises(BusError) as refused:
        to_the_stick(running, stick)
    assert short(refused.value.name) == "HomeInUse"
    # More than it can hold: found out once there is a file system.
    (home / "large").write_bytes(os.urandom(70 << 20))
    os.chown(home / "large", 65534, 65534)
    with pytest.raises(BusError, match="Take a larger device"):
        to_the_stick(running, stick)
    verifying.wait_until_gone()
    assert (is_blank(stick), rooms(home.parent), known(running)) == (True, [], {})
    assert lines(running) == ["here"]


def test_killed_while_it_is_made_on_a_device_it_never_was(running: Service, stick: str) -> None:
    home = settle(running)
    (home / "large").write_bytes(os.urandom(20 << 20))
    os.chown(home / "large", 65534, 65534)
    begin(running, "nina", PASSWORD, storage="luks", to=stick)
    wait_until(lambda: any(one.has_record for one in homes_on(stick)), "a volume", 30)
    running.kill_with_workers()
    running.start()
    assert (known(running), storage_of(running, "nina")) == ({}, "directory")
    assert is_blank(stick)
    to_the_stick(running, stick)
    assert lines(running) == ["here"]
