"""What programs can do with files in a merged directory: the same on every file system.

Where it differs from a plain directory, the expected result says how: one line each.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from homemgr.extension.attach import Mode
from homemgr.extension.stack import Options
from homemgr.files import Fd
from homemgr.kernel import inotify
from homemgr.kernel.rename import RENAME_EXCHANGE, renameat2
from homemgr.kernel.syscall import AT_FDCWD
from tests.kernel import overlays
from tests.kernel.overlays import SHARE, USER, cleaned, merged

NAMES = ("append", "gone", "again", "renamed", "linked", "acl", "xattr", "lock", "map", "mode",
         "swap", "cut", "twin", "dir/one", "dir/two", "dead/one", "moved/one")  # fmt: skip
FILES = {f"{SHARE}/app/{name}": "from the extension\n" for name in NAMES}

IN_MODIFY = 0x2

#: An ACL that lets the user and one group entry in: version 2, then (tag, permissions, id).
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, USER),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
)


def create() -> object:
    Path("new").write_text("new")
    found = os.stat("new")
    return [Path("new").read_text(), found.st_uid, found.st_gid]


def append() -> object:
    """The number and the device stay, which find(1) and tar(1) rely on."""
    before = os.stat("append")
    with open("append", "a", encoding="ascii") as file:
        file.write("more\n")
    after = os.stat("append")
    same = (before.st_ino, before.st_dev) == (after.st_ino, after.st_dev)
    return [Path("append").read_text(), same]


def remove() -> object:
    os.unlink("gone")
    os.unlink("again")
    Path("again").write_text("mine")
    return ["gone" in os.listdir("."), os.path.exists("gone"), Path("again").read_text()]


def remove_directory() -> object:
    shutil.rmtree("dead")
    os.mkdir("dead")
    return os.listdir("dead")


def rename_file() -> object:
    os.rename("renamed", "dir/renamed")
    os.rename("dir/renamed", "renamed2")
    return [Path("renamed2").read_text(), os.path.exists("renamed")]


def rename_directory() -> object:
    """EXDEV for an extension's directory, so mv(1) copies; one of the user's own can be."""
    os.mkdir("own")
    os.rename("own", "own2")
    try:
        os.rename("moved", "moved2")
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return sorted(os.listdir("moved2"))


def exchange() -> object:
    Path("other").write_text("other")
    renameat2(AT_FDCWD, "swap", AT_FDCWD, "other", RENAME_EXCHANGE)
    return [Path("swap").read_text(), Path("other").read_text()]


def temporary_file() -> object:
    fd = os.open("dir", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"hello")
    directory = os.open("dir", os.O_PATH)
    os.link(f"/proc/self/fd/{fd}", "tmpfile", dst_dir_fd=directory, follow_symlinks=True)
    os.close(fd)
    os.close(directory)
    return Path("dir/tmpfile").read_text()


def hard_link() -> object:
    """Of an extension's file: one file, but its names may have two numbers for a while."""
    os.link("linked", "linked2")
    with open("linked2", "a", encoding="ascii") as file:
        file.write("more")
    text = Path("linked").read_text()
    return [os.stat("linked").st_nlink, os.stat("linked2").st_nlink, text.endswith("more")]


def lower_hard_links() -> object:
    """Two names of one file in the extension are two files after one was written to."""
    with open("twin", "a", encoding="ascii") as file:
        file.write("more")
    return [Path("twin2").read_text(), os.path.samefile("twin", "twin2")]


def acl() -> object:
    """Of an image's file only once it was changed: erofs and squashfs are asked first."""
    os.chmod("acl", 0o600)
    os.setxattr("acl", "system.posix_acl_access", _ACL)
    found = os.getxattr("acl", "system.posix_acl_access")
    return [found == _ACL, oct(os.stat("acl").st_mode & 0o777)]


def attribute() -> object:
    os.setxattr("xattr", "user.note", b"x" * 100)
    found = len(os.getxattr("xattr", "user.note"))
    os.removexattr("xattr", "user.note")
    return [found, [name for name in os.listxattr("xattr") if name != "security.selinux"]]


def lock() -> object:
    """A lock taken before the file was copied up still counts afterwards."""
    with open("lock", encoding="ascii") as one, open("lock", "a", encoding="ascii") as two:
        two.write("more")
        two.flush()
        fcntl.flock(one, fcntl.LOCK_EX)
        try:
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "locked"
    return "not locked"


def shared_mapping() -> object:
    with open("map", "r+b") as file, mmap.mmap(file.fileno(), 0) as area:
        area[:4] = b"FROM"
        area.flush()
    return Path("map").read_text()


def mode() -> object:
    os.chmod("mode", 0o600)
    os.utime("mode", (7, 7))
    found = os.stat("mode")
    return [oct(found.st_mode & 0o7777), found.st_mtime, Path("mode").read_text()]


def cut() -> object:
    os.truncate("cut", 4)
    return Path("cut").read_text()


def other_kinds() -> object:
    os.symlink("new", "link")
    os.mkfifo("fifo")
    return [os.readlink("link"), os.path.exists("fifo")]


def numbers() -> object:
    """One device for all of it, and listing gives the numbers that stat(2) gives."""
    devices, wrong = set(), []
    for directory, _, _ in os.walk("."):
        with os.scandir(directory) as entries:
            for entry in entries:
                found = os.stat(entry.path, follow_symlinks=False)
                devices.add(found.st_dev)
                if entry.inode() != found.st_ino:
                    wrong.append(entry.path)
    return [len(devices), wrong]


EXPECTED: dict[Callable[[], object], object] = {
    create: ["new", USER, USER],
    append: ["from the extension\nmore\n", True],
    remove: [False, False, "mine"],
    remove_directory: [],
    rename_file: ["from the extension\n", False],
    rename_directory: "EXDEV",
    exchange: ["other", "from the extension\n"],
    temporary_file: "hello",
    hard_link: [2, 2, True],
    lower_hard_links: ["from the extension\n", False],
    acl: [True, "0o640"],
    attribute: [100, []],
    lock: "locked",
    shared_mapping: "FROM the extension\n",
    mode: ["0o600", 7.0, "from the extension\n"],
    cut: "from",
    other_kinds: ["new", True],
    numbers: [1, []],
}


def functions(where: Path) -> Callable[[], object]:
    def run() -> object:
        os.chdir(where)
        return {function.__name__: function() for function in EXPECTED}

    return run


#: Where what is written goes, and whether changing the mode may leave the data where it is.
WAYS = {
    "home": (Mode.WRITABLE, Options()),
    "memory": (Mode.EPHEMERAL, Options()),
    "metacopy": (Mode.EPHEMERAL_IMPORT, Options(metacopy=True)),
}


def run_functions(area: Path, way: str, kind: str, *, mapped: bool) -> None:
    expected = {function.__name__: result for function, result in EXPECTED.items()}
    if way == "metacopy":
        # It brings the option that lets directories be renamed; fine if all is thrown away.
        expected["rename_directory"] = ["one"]
    choice, options = WAYS[way]
    with (
        overlays.home(area, mapped=mapped) as home,
        overlays.extension(
            area,
            "tools",
            FILES,
            kind,
            mapped=mapped,
            twins={f"{SHARE}/app/twin": f"{SHARE}/app/twin2"},
        ) as tools,
    ):
        before = contents(area, tools.mount)
        with merged(home, [tools], choice, [SHARE], options) as result:
            assert result.skipped == {}
            assert overlays.in_child(functions(home.seen / SHARE / "app")) == expected
            assert home.owners() == {(overlays.NOBODY,) * 2 if mapped else (USER, USER)}
        assert cleaned(home).problems == []
        assert overlays.marks_on(home) == []
        assert contents(area, tools.mount) == before


def contents(area: Path, mount: Fd) -> object:
    """Digests of all that the extension is: of its files as seen, and of its image."""
    seen = overlays.picture(Path(f"/proc/self/fd/{mount.fileno()}/."))
    images = [p for p in area.iterdir() if p.suffix in (".erofs", ".squashfs")]
    return seen, [hashlib.sha256(p.read_bytes()).hexdigest() for p in images]


@pytest.mark.parametrize("mapped", [True, False], ids=["idmapped", "plain"])
@pytest.mark.parametrize("way", WAYS)
def test_programs_work_the_same_everywhere(every_area: Path, way: str, mapped: bool) -> None:
    run_functions(every_area, way, "directory", mapped=mapped)


@pytest.mark.parametrize("mapped", [True, False], ids=["idmapped", "plain"])
@pytest.mark.parametrize("kind", ["tmpfs", "erofs", "squashfs"])
def test_programs_work_the_same_with_every_layer(area: Path, kind: str, mapped: bool) -> None:
    run_functions(area, "home", kind, mapped=mapped)


@pytest.mark.parametrize("kind", ["directory", "squashfs"])
def test_a_watch_survives_copying_up_and_eviction(every_area: Path, kind: str) -> None:
    with (
        overlays.home(every_area) as home,
        overlays.extension(every_area, "tools", FILES, kind) as tools,
    ):
        with merged(home, [tools], hierarchies=[SHARE]), inotify.inotify_init() as watch:
            name = str(home.seen / SHARE / "app/append")
            inotify.inotify_add_watch(watch.fileno(), name, IN_MODIFY)
            # Dentries and inodes of the whole machine; a watch must keep its own.
            Path("/proc/sys/vm/drop_caches").write_text("2")
            assert inotify.read_events(watch.fileno()) == []
            overlays.sh("echo more >> .local/share/app/append", home.seen)
            events = inotify.read_events(watch.fileno())
            assert [event.mask for event in events] == [IN_MODIFY]
        cleaned(home)


def test_setuid_devices_and_capabilities_never_take_effect(area: Path) -> None:
    with (
        overlays.home(area) as home,
        overlays.extension(area, "x", {f"{SHARE}/id": ""}) as x,
    ):
        tree = area / "x.tree/home" / SHARE
        shutil.copy("/usr/bin/id", tree / "id")
        os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
        overlays.chown_all(tree)
        subprocess.run(["setcap", "cap_setuid+ep", str(tree / "id")], check=True)
        (tree / "id").chmod(0o6755)
        with merged(home, [x], hierarchies=[SHARE]):
            assert overlays.as_user("./.local/share/id", "-u", cwd=home.seen) == f"{USER}\n"
            flags = os.statvfs(home.seen / SHARE).f_flag
            assert flags & os.ST_NOSUID
            script = "cat .local/share/null 2>&1 || true; touch .local/share/id 2>&1 || true"
            said = overlays.sh(script, home.seen)
            # Nothing with file capabilities is ever copied into the home.
            assert "null: Permission denied" in said
            assert "touch: cannot touch" in said
        cleaned(home)
        assert not (home.stored / ".local").exists()
