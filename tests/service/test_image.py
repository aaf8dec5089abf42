"""Verbs with --root=: an image without a service, and nothing outside of it that is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from homemgr import crypt
from tests.service.people import PASSWORD
from tests.service.site import ROOT

MACHINE = "0123456789abcdef0123456789abcdef"
NOBODY = (65534, 65534)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nvera:x:60999:60999::/:/bin/sh\n"
PROGRAM = "import sys; from homemgr.entry import homemgr; sys.exit(homemgr())"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The root of a system that was never booted, below a directory that shows who was there."""
    root = tmp_path / "outside/image"
    for name in ("etc/skel", "proc", "run", "home", "var/lib", "var/cache", "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "etc/machine-id").write_text(f"{MACHINE}\n")
    (root / "etc/hostname").write_text("image\n")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text("root:x:0:\n")
    # What is named there is in the image, and must not be run.
    (root / "etc/nsswitch.conf").write_text("passwd: evil files\ngroup: evil files\n")
    (root / "etc/skel/note").write_text("kept")
    return root


def homemgr(
    image: Path, *words: str, code: int = 0, stdin: str = "", **variables: str
) -> tuple[str, str]:
    """What a verb on the image says, on standard output and error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"--root={image}", *words],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SYSTEMD_CRYPT_PREFIX": "$6$",
            # Where there is no bus: whoever asks one is found out.
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent",
            **variables,
        },
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def names(image: Path) -> dict[str, str]:
    """The homes that are listed, and their states."""
    listed = json.loads(homemgr(image, "list", "--json=short")[0])
    return {home["name"]: home["state"] for home in listed}


def everything(top: Path, leave_out: Path) -> dict[str, tuple[int, int]]:
    """All that is below a directory, but for one part of it."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode)
        for path in top.rglob("*")
        if leave_out not in (path, *path.parents)
    }


def test_a_home_lives_its_whole_life_in_an_image(image: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture"
    picture.write_text("a picture")
    secrets = {"PASSWORD": PASSWORD, "NEWPASSWORD": PASSWORD}
    options = ["--real-name=Anna", "-P", f"--avatar={picture}", "-T", "--location=here"]
    assert homemgr(image, "create", "anna", *options, **secrets) == ("", "")
    home = image / "home/.homemgr/anna.homedir"
    assert (home / "note").read_text() == "kept"
    for path in (home, *home.rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == NOBODY
    assert (image / "var/cache/systemd/home/anna/avatar").read_text() == "a picture"
    assert names(image) == {"anna": "inactive"}
    homemgr(image, "authenticate", "anna", **secrets)
    # An update keeps the picture, which lies in the image as well.
    homemgr(image, "update", "anna", "--real-name=Anne", **secrets)
    assert (image / "var/cache/systemd/home/anna/avatar").read_text() == "a picture"
    record = json.loads(homemgr(image, "inspect", "anna", "--json=short")[0])
    assert record["realName"] == "Anne"
    assert record["perMachine"] == [{"matchMachineId": MACHINE, "location": "here"}]
    assert set(record["binding"]) == {MACHINE}
    assert "Anne" in homemgr(image, "inspect", "anna")[0]
    inside = json.loads((home / ".identity").read_text())
    assert inside["realName"] == "Anne"
    homemgr(image, "passwd", "anna", PASSWORD=PASSWORD, NEWPASSWORD="quite another one")
    homemgr(image, "authenticate", "anna", PASSWORD="quite another one")
    refused = homemgr(image, "authenticate", "anna", "--no-ask-password", code=1, **secrets)
    assert "Cannot authenticate home anna" in refused[1]
    assert homemgr(image, "check") == ("", "")
    (image / "var/lib/systemd/home/anna.identity").chmod(0o644)
    assert "record-mode" in homemgr(image, "check", code=1)[0]
    homemgr(image, "repair")
    assert (image / "var/lib/systemd/home/anna.identity").stat().st_mode & 0o777 == 0o600
    homemgr(image, "unregister", "anna")
    assert names(image) == {"anna": "unfixated"}
    homemgr(image, "remove", "anna")
    assert names(image) == {}
    assert not home.exists()
    # What was there only while somebody worked on it has left no trace.
    assert os.listdir(image / "run") == os.listdir(image / "proc") == []


def test_records_keys_and_files_that_declare_users(image: Path, tmp_path: Path) -> None:
    own = homemgr(image, "get-signing-key")[0]
    assert own == (image / "var/lib/systemd/home/local.public").read_text()
    homemgr(image, "register", "-", stdin='{"userName":"bert"}')
    homemgr(image, "remove-signing-key", "x.public", code=1)
    hashed = {"hashedPassword": [crypt.hash_password(PASSWORD, "$6$")]}
    declared = tmp_path / "users.json"
    declared.write_text(json.dumps([{"userName": "carl", "privileged": hashed}]))
    assert homemgr(image, "apply", "--dry-run", str(declared), code=3)[0].startswith("carl: create")
    homemgr(image, "apply", str(declared))
    assert homemgr(image, "apply", str(declared))[0] == "carl: unchanged\n"
    assert names(image) == {"bert": "absent", "carl": "inactive"}
    homemgr(image, "authenticate", "carl", PASSWORD=PASSWORD)
    # The image's own accounts count, and those of this machine do not.
    refused = homemgr(image, "create", "vera", "-P", code=1, NEWPASSWORD=PASSWORD)
    assert "already taken" in refused[1]
    homemgr(image, "create", "daemon", "-P", NEWPASSWORD=PASSWORD)


def test_no_link_leads_out_of_the_image(image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "prey").mkdir()
    (outside / "prey/passwd").write_text("daisy:x:60998:60998::/:/bin/sh\n")
    (image / "prey").mkdir(mode=0o755)
    for name, target in (
        ("var/lib/systemd", f"{outside}/prey"),
        ("var/cache/systemd", "../../../prey"),
        ("home/.homemgr", f"{outside}/prey"),
    ):
        (image / name).symlink_to(target)
    before = everything(outside, image)
    # An absolute link means a place in the image; there is none of that name.
    failed = homemgr(image, "create", "doris", "-P", code=1, NEWPASSWORD=PASSWORD)
    assert "Traceback" not in failed[1]
    assert everything(outside, image) == before
    # One that goes up beyond the root ends there, at a directory of the image.
    (image / "var/lib/systemd").unlink()
    (image / "var/lib/systemd").symlink_to("../../../../prey")
    (image / "home/.homemgr").unlink()
    homemgr(image, "create", "doris", "-P", NEWPASSWORD=PASSWORD)
    assert (image / "prey/home/doris.identity").exists()
    assert everything(outside, image) == before


@pytest.mark.parametrize("name", ["proc", "run"])
def test_what_is_mounted_for_us_is_mounted_in_the_image(
    image: Path, tmp_path: Path, name: str
) -> None:
    (image / name).rmdir()
    (image / name).symlink_to(tmp_path)
    assert "it is not the root of a system" in homemgr(image, "list", code=1)[1]


def test_what_cannot_be_worked_on_is_refused_with_the_reason(image: Path, tmp_path: Path) -> None:
    (image / "etc/machine-id").write_text("uninitialized\n")
    refused = homemgr(image, "list", code=1)[1]
    assert "systemd-machine-id-setup --root=DIR" in refused
    assert "No such file" in homemgr(tmp_path / "nothing", "list", code=1)[1]
    assert "Unknown option --root" in homemgr(image, "activate", "x", code=1)[1]
