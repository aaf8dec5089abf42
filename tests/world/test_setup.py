"""`homemgr setup` on a machine that runs systemd-homed, and what it must not break there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .box import Box

WORLDS = (World("both"),)
PASSWORD = "correct horse"
# Everything that setup could touch, with owner, mode and contents.
# Users stay, and with them what the service knows of their records.
DIGEST = r"""
all="/etc /usr/share/pam-configs /usr/share/polkit-1 /usr/local /var/lib/homemgr -xdev
    ( -type f -o -type l ) ! -name mtab ! -path */record-stamps/*"
{ find $all -printf '%p %l %m %u:%g\n'; find $all -exec md5sum {} +; } 2>/dev/null | sort
"""


@pytest.fixture
def set_up(box: Box) -> Iterator[None]:
    box.run(["homemgr", "setup"])
    yield
    box.run(["homemgr", "unsetup"])


def state(box: Box, user: str) -> str:
    lines = box.run(["homemgr", "list", "--no-legend"]).stdout.splitlines()
    return next(line.split("\t")[3] for line in lines if line.startswith(f"{user}\t"))


def is_active(box: Box, unit: str) -> bool:
    return box.run(["systemctl", "is-active", "--quiet", unit], check=False).code == 0


def test_taking_over_and_giving_back_leaves_active_homes_alone(box: Box) -> None:
    secret = {"NEWPASSWORD": PASSWORD, "PASSWORD": PASSWORD}
    create = ["create", "--storage=directory", "-P"]
    box.run(["homectl", *create, "theirs"], env=secret)
    box.run(["homectl", "activate", "theirs"], env=secret)
    box.run(["sh", "-c", "echo kept >/home/theirs/note"])
    before = box.run(["sh", "-c", DIGEST]).stdout
    box.run(["homemgr", "setup"])
    assert is_active(box, "homemgrd.service")
    assert not is_active(box, "systemd-homed.service")
    # A bus call must not bring the other one back either.
    assert state(box, "theirs") == "active"
    assert not is_active(box, "systemd-homed.service")
    assert box.read("/home/theirs/note") == "kept\n"
    box.run(["homemgr", *create, "ours"], env=secret)
    box.run(["homemgr", "activate", "ours"], env=secret)
    box.run(["homemgr", "unsetup"])
    assert box.run(["sh", "-c", DIGEST]).stdout == before
    assert is_active(box, "systemd-homed.service")
    assert not is_active(box, "homemgrd.service")
    listed = box.run(["homectl", "list", "--no-legend"]).stdout
    assert {tuple(line.split()[::3][:2]) for line in listed.splitlines()} == {
        ("ours", "active"),
        ("theirs", "active"),
    }
    box.run(["homectl", "deactivate", "ours", "theirs"])
    box.run(["homectl", "remove", "ours", "theirs"])


def test_stopping_the_service_leaves_homes_active_and_shutdown_does_not(
    box: Box, set_up: None
) -> None:
    secret = {"NEWPASSWORD": PASSWORD, "PASSWORD": PASSWORD}
    box.run(["homemgr", "create", "-P", "alice"], env=secret)
    box.run(["homemgr", "activate", "alice"], env=secret)
    box.run(["systemctl", "restart", "homemgrd.service"])
    assert state(box, "alice") == "active"
    box.run(["systemctl", "stop", "homemgr-activate.service"])
    assert state(box, "alice") == "inactive"
    box.run(["homemgr", "remove", "alice"])


@pytest.fixture
def local(box: Box) -> Iterator[str]:
    """An account of /etc/passwd."""
    box.run(["useradd", "--create-home", "local"])
    yield "local"
    box.run(["userdel", "--remove", "local"], check=False)


def test_local_accounts_keep_their_passwd(box: Box, set_up: None, local: str) -> None:
    """With the profile of package systemd-homed all of these fail."""
    as_user = ["setpriv", "--reuid", local, "--regid", local, "--clear-groups"]
    box.run(["chpasswd"], stdin=f"{local}:first-one-7\n")
    box.run(["passwd", local], stdin="second-one-8\nsecond-one-8\n")
    box.run([*as_user, "passwd"], stdin="second-one-8\nthird-one-9\nthird-one-9\n")
    box.run(["pamtester", "login", local, "authenticate"], stdin="third-one-9\n")


def test_an_image_is_set_up_and_left_as_it_was(box: Box) -> None:
    """PAM included, which is changed from inside the image; the running system is not touched."""
    mount = """
        mkdir -p /image /over; mount -t tmpfs over /over; mkdir /over/u /over/w
        mount -t overlay image -o lowerdir=/,upperdir=/over/u,workdir=/over/w /image
    """
    box.run(["sh", "-ec", mount])
    inside = ["chroot", "/image", "sh", "-c", DIGEST]
    before, outside = box.run(inside).stdout, box.run(["sh", "-c", DIGEST]).stdout
    box.run(["homemgr", "setup", "--root=/image"])
    assert "pam_systemd_home.so" in box.read("/image/etc/pam.d/common-auth")
    assert "default=die" in box.read("/image/etc/pam.d/common-auth")
    assert is_active(box, "systemd-homed.service")
    box.run(["homemgr", "unsetup", "--root=/image"])
    assert box.run(inside).stdout == before
    assert box.run(["sh", "-c", DIGEST]).stdout == outside
    box.run(["sh", "-ec", "umount /image /over; rmdir /image /over"])


PURGE = """
    mkdir /away
    rm /etc/systemd/system/systemd-homed*.service
    mv /usr/lib/systemd/system/systemd-homed*.service /usr/share/pam-configs/systemd-homed /away
    systemctl daemon-reload
"""
INSTALL = """
    mv /away/*.service /usr/lib/systemd/system/; mv /away/systemd-homed /usr/share/pam-configs/
    rmdir /away; systemctl daemon-reload
    DEBIAN_FRONTEND=noninteractive pam-auth-update --package --enable systemd-homed
    systemctl enable --now systemd-homed.service
"""


def test_unsetup_works_after_systemd_homed_was_purged(box: Box) -> None:
    box.run(["homemgr", "setup"])
    box.run(["sh", "-ec", PURGE])
    try:
        said = box.run(["homemgr", "unsetup"]).stdout
        assert "systemd-homed is not installed" in said
        assert not is_active(box, "homemgrd.service")
        assert "nothing to do" in box.run(["homemgr", "unsetup"]).stdout.lower()
    finally:
        box.run(["sh", "-ec", INSTALL])
