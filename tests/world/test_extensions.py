"""Extensions at a real login: found in PATH, replaced while people work, gone at logout."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import logins
from .conftest import World
from .product import PLACE
from .users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .box import Box
    from .users import User

RULES = """
[Extension tools]
Users=*
[Extension packed]
Users=*
[Extension extra]
Optional=*
"""

# Rules are read when the service starts, so they are there before it does.
WORLDS = (World(files=(("/etc/homemgr/extensions.conf", RULES),)),)

# On the box's tmpfs: its root is an overlay, which cannot be idmapped.
STORE = "/run/homemgr/extensions"

# What Debian's .profile does for shells that read it, and the way to our program.
PROFILE = f'PATH="$HOME/.local/bin:{PLACE}/bin:$PATH"'


def tree(top: Path, name: str, files: dict[str, str]) -> Path:
    """The files of an extension, owned by nobody, as it would be unpacked."""
    release = top / "usr/lib/extension-release.d" / f"extension-release.{name}"
    release.parent.mkdir(parents=True)
    release.write_text("ID=_any\n")
    for path, text in files.items():
        file = top / "home" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    subprocess.run(["chown", "-R", "65534:65534", str(top / "home")], check=True)
    top.chmod(0o700)
    return top


def says(word: str) -> str:
    """A tool that prints one word."""
    return f"#!/bin/sh\necho {word}\n"


@pytest.fixture
def store(box: Box) -> Iterator[Path]:
    """An empty directory of extensions in the box, as this process reaches it."""
    directory = box.path(STORE)
    directory.mkdir(mode=0o755, parents=True)
    yield directory
    shutil.rmtree(directory)
    box.path("/var/lib/homemgr/extensions.digests.json").unlink(missing_ok=True)


@pytest.fixture
def put(store: Path) -> Callable[[str, dict[str, str]], None]:
    """Puts a directory extension in place, as a whole, instead of what was there."""

    def put(name: str, files: dict[str, str]) -> None:
        made = tree(store / f".new-{name}", name, files)
        if (store / name).exists():
            (store / name).rename(store / f".old-{name}")
            shutil.rmtree(store / f".old-{name}", ignore_errors=True)
        made.rename(store / name)

    return put


# squashfs always takes a loop device, which the unit has to let the service open.
FORMATS = {"erofs": ["mkfs.erofs", "--quiet"], "squashfs": ["mksquashfs", "-quiet"]}


@pytest.fixture(params=FORMATS)
def packed(store: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An extension as an image; nobody has said yet that it is trusted."""
    tool, *options = FORMATS[request.param]
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    image = store / "packed.raw"
    content = tree(tmp_path / "packed", "packed", {".local/bin/packed": says("packed")})
    # One names the image first, the other last.
    paths = [image, content] if tool == "mkfs.erofs" else [content, image]
    subprocess.run([tool, *map(str, paths), *options], check=True, stdout=subprocess.DEVNULL)
    image.chmod(0o644)
    return image


def extension(box: Box, *arguments: str, user: str | None = None) -> str:
    """One `homemgr extension` in a pipe; what it prints."""
    return box.run(["homemgr", "extension", *arguments], user=user).stdout


def state_of(box: Box, user: User, name: str) -> str:
    """What `homemgr extension status` says about one extension."""
    lines = extension(box, "status", user.name, "--no-legend").splitlines()
    return next(cells[2] for cells in (line.split("\t") for line in lines) if cells[0] == name)


def assert_nothing_left(box: Box, user: User, *names: str) -> None:
    """The home on disk: nobody's, without the files and the bookkeeping of any merge."""
    user.wait_until("inactive")
    owners = user.owners_on_disk()
    assert set(owners) == {NOBODY}
    kept = [Path(path).name for path in owners[NOBODY]]
    assert not {*names, "work"} & set(kept)
    top = box.path(user.image)
    found = subprocess.run(
        ["getfattr", "-R", "-h", "-P", "-d", "-m", "trusted.overlay", str(top)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "trusted.overlay" not in found.stdout
    assert not list(top.rglob(".wh.*"))
    assert not any(path.is_char_device() for path in top.rglob("*"))


def test_a_tool_is_in_the_path_replaced_live_and_gone_at_logout(
    box: Box, put: Callable[[str, dict[str, str]], None], alice: User
) -> None:
    put("tools", {".local/bin/tool": says("first")})
    with logins.ssh_on_terminal(box, alice.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, alice.password)
        terminal.answer(r"[$] $", f"{PROFILE}; type -p tool; tool")
        seen = terminal.expect(r"first\s")
        assert f"{alice.home}/.local/bin/tool" in seen
        terminal.expect(r"[$] $")
        assert state_of(box, alice, "tools") == "merged"
        put("tools", {".local/bin/tool": says("second"), ".local/bin/more": says("third")})
        # As the user himself, in his session: polkit lets him, without a password.
        terminal.send("homemgr extension refresh | cat; hash -r; tool; more")
        shown = terminal.expect(r"third\s")
        assert "~/.local/bin\tapplied" in shown.replace("        ", "\t")
        assert "second" in shown
        terminal.answer(r"[$] $", "exit")
        terminal.finish()
    assert_nothing_left(box, alice, "tool", "more", ".local")


def test_an_image_is_merged_once_it_is_trusted(box: Box, packed: Path, alice: User) -> None:
    assert "unusable" in extension(box, "list")
    without = alice.ssh(f"{PROFILE}; packed", check=False)
    assert without.code == 127
    alice.wait_until("inactive")
    digest, path = extension(box, "trust", "packed").split()
    assert path == f"{STORE}/packed.raw"
    assert digest == hashlib.sha256(packed.read_bytes()).hexdigest()
    seen = alice.ssh(
        f"{PROFILE}; packed; stat -c %u:%g ~/.local/bin/packed; homemgr extension list"
    )
    assert seen.stdout.split()[:2] == ["packed", f"{alice.uid}:{alice.uid}"]
    assert "image\tusable" in seen.stdout
    assert_nothing_left(box, alice, "packed", ".local")


def test_a_changed_image_is_skipped_and_the_login_goes_on(
    box: Box, packed: Path, alice: User
) -> None:
    extension(box, "trust", "packed")
    with packed.open("r+b") as image:
        image.truncate(packed.stat().st_size // 2)
    seen = alice.ssh(f"{PROFILE}; pwd; homemgr extension status --json=short")
    assert seen.stdout.splitlines()[0] == alice.home
    entries = {e["name"]: e for e in json.loads(seen.stdout.splitlines()[1])["extensions"]}
    assert entries["packed"]["state"] == "skipped"
    assert entries["packed"]["reasons"]
    assert_nothing_left(box, alice, ".local")


def test_people_choose_what_is_offered_and_nothing_else(
    box: Box, put: Callable[[str, dict[str, str]], None], alice: User
) -> None:
    put("extra", {".config/corp/settings": "a=1\n"})
    seen = alice.ssh(
        f"{PROFILE}; homemgr extension enable extra && homemgr extension refresh >/dev/null"
        " && cat .config/corp/settings; homemgr extension enable tools; echo code=$?",
    )
    assert seen.stdout.split() == ["a=1", "code=1"]
    assert "not offered" in seen.stderr
    alice.wait_until("inactive")
    assert alice.ssh("cat .config/corp/settings").stdout == "a=1\n"
    assert_nothing_left(box, alice, ".config")


def test_what_was_deleted_is_listed_and_taken_back(
    box: Box, put: Callable[[str, dict[str, str]], None], alice: User
) -> None:
    put("tools", {".local/bin/tool": says("first")})
    alice.ssh("rm .local/bin/tool; echo mine >.local/bin/own")
    assert_nothing_left(box, alice, "tool")
    shown = extension(box, "diff", alice.name, "--no-legend")
    assert shown == "deleted\t.local/bin/tool\ttools\n"
    assert alice.ssh("ls .local/bin").stdout == "own\n"
    alice.wait_until("inactive")
    extension(box, "discard", f"--user={alice.name}")
    assert alice.ssh("ls .local/bin").stdout == "own\ntool\n"
    assert_nothing_left(box, alice, "tool")


def test_strangers_neither_choose_nor_refresh_nor_trust(
    box: Box, put: Callable[[str, dict[str, str]], None], alice: User
) -> None:
    put("extra", {".config/corp/settings": "a=1\n"})
    for arguments in (
        ["enable", "extra", f"--user={alice.name}"],
        ["refresh", alice.name],
        ["status", alice.name],
        ["diff", alice.name],
        ["discard", f"--user={alice.name}"],
        ["trust", "extra"],
    ):
        refused = box.run(["homemgr", "extension", *arguments], user="nobody", check=False)
        assert refused.code == 1, arguments
        assert refused.stderr.startswith("homemgr: "), refused.stderr
    assert "extra" in extension(box, "list", user="nobody")
