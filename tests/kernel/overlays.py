"""Homes and extensions for the tests of overlays, made without the rooms above `extension`.

A home is a tree of nobody's on a real file system, shown idmapped as a user's; an
extension is a tree or an image of one, opened as detached mount that shows it likewise.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from homemgr.extension import attach, clean
from homemgr.extension.attach import Merged, Mode, Wanted
from homemgr.extension.stack import Layer, Options
from homemgr.files import Fd
from homemgr.kernel import loop, mounts
from homemgr.kernel.syscall import AT_EMPTY_PATH, AT_FDCWD
from homemgr.kernel.userns import create_userns
from homemgr.storage import mountpoint

NOBODY = 65534
USER = 60001
MAP = f"{NOBODY} {USER} 1\n"

BIN = ".local/bin"
SHARE = ".local/share"

MOVE = mounts.MOVE_MOUNT_F_EMPTY_PATH


def chown_all(top: Path, uid: int = NOBODY) -> None:
    """Give everything at and below ``top`` to ``uid``."""
    subprocess.run(["chown", "-hR", f"{uid}:{uid}", str(top)], check=True)


def idmapped(path: Path, *, read_only: bool = False) -> Fd:
    """A detached view of ``path`` in which nobody's files are the user's."""
    mount = mounts.open_tree(AT_FDCWD, str(path), mounts.OPEN_TREE_CLONE)
    show_as_users(mount, read_only=read_only)
    return mount


def show_as_users(mount: Fd, *, read_only: bool) -> None:
    """Idmap the detached ``mount`` in place."""
    attributes = mounts.MOUNT_ATTR_IDMAP | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV
    attributes |= mounts.MOUNT_ATTR_RDONLY if read_only else 0
    with create_userns(MAP, MAP) as userns:
        mounts.mount_setattr(
            mount.fileno(),
            "",
            AT_EMPTY_PATH,
            attr_set=attributes,
            propagation=mounts.MS_PRIVATE,
            userns_fd=userns.fileno(),
        )


@dataclass
class Extension:
    """An extension that was opened: its detached mount, and its directories for a home."""

    name: str
    mount: Fd

    def layer(self, hierarchy: str) -> Layer:
        """What it has for ``hierarchy``; the caller closes it."""
        path = f"home/{hierarchy}".rstrip("/")
        flags = os.O_PATH | os.O_DIRECTORY
        return Layer(self.name, Fd.open(path, flags, dir_fd=self.mount.fileno()))


def write_tree(top: Path, files: Mapping[str, str]) -> None:
    """Files by path, with the directories they need."""
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if "bin/" in name else 0o644)


def open_image(image: Path, kind: str) -> Fd:
    """A detached mount of a read-only image, through a loop device."""
    with Fd.open(str(image), os.O_RDONLY) as backing:
        device = loop.attach(backing.fileno(), read_only=True)
    with device.device, mounts.fsopen(kind) as fs:
        mounts.fsconfig_set_string(fs.fileno(), "source", device.path)
        mounts.fsconfig_set_flag(fs.fileno(), "ro")
        mounts.fsconfig_create(fs.fileno())
        return mounts.fsmount(fs.fileno(), mounts.MOUNT_ATTR_RDONLY)


def make_image(tree: Path, image: Path, kind: str) -> None:
    """Pack ``tree`` into an image of ``kind``."""
    commands = {
        "erofs": ["mkfs.erofs", "--quiet", str(image), str(tree)],
        "squashfs": ["mksquashfs", str(tree), str(image), "-quiet", "-no-progress", "-noappend"],
    }
    subprocess.run(commands[kind], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def extension(
    area: Path,
    name: str,
    files: Mapping[str, str],
    kind: str = "directory",
    *,
    mapped: bool = True,
    twins: Mapping[str, str] | None = None,
) -> Iterator[Extension]:
    """An opened extension with ``files`` below its ``home``; as image, tmpfs or directory."""
    tree = area / f"{name}.tree"
    tree.mkdir()
    with ExitStack() as closing:
        if kind == "tmpfs":
            tree = _on_tmpfs(tree, closing)
        write_tree(tree / "home", files)
        for one, two in (twins or {}).items():
            os.link(tree / "home" / one, tree / "home" / two)
        chown_all(tree, NOBODY if mapped else USER)
        if kind in ("erofs", "squashfs"):
            image = area / f"{name}.{kind}"
            make_image(tree, image, kind)
            mount = open_image(image, kind)
        else:
            mount = mounts.open_tree(AT_FDCWD, str(tree), mounts.OPEN_TREE_CLONE)
        closing.callback(mount.close)
        if mapped:
            show_as_users(mount, read_only=True)
        yield Extension(name, mount)


def _on_tmpfs(tree: Path, closing: ExitStack) -> Path:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tree)], check=True)
    closing.callback(mounts.umount2, str(tree), mounts.MNT_DETACH)
    return tree


@dataclass
class Home:
    """A home on disk (``stored``) and where it is seen."""

    stored: Path
    seen: Path
    mapped: bool = True

    def view(self) -> Fd:
        """A new detached mount of it, as storage makes it."""
        if self.mapped:
            return idmapped(self.stored)
        return mounts.open_tree(AT_FDCWD, str(self.stored), mounts.OPEN_TREE_CLONE)

    def disk(self) -> Fd:
        """Its top as it lies on disk."""
        return Fd.open(str(self.stored), os.O_RDONLY | os.O_DIRECTORY)

    def root(self) -> Fd:
        """The top of the visible home."""
        return Fd.open(str(self.seen), os.O_PATH | os.O_DIRECTORY)

    def publish(self, mount: Fd) -> None:
        """Show ``mount``, with all that is attached to it; closes it."""
        with mount:
            mounts.move_mount(mount.fileno(), "", AT_FDCWD, str(self.seen), MOVE)

    def take_away(self) -> None:
        """Unmount everything at and below where it is seen."""
        if mountpoint.is_active(str(self.seen)):
            mountpoint.take_away(str(self.seen))

    def owners(self) -> set[tuple[int, int]]:
        """Who owns what on disk."""
        return {(s.st_uid, s.st_gid) for _, s in everything(self.stored)}


@contextmanager
def home(
    area: Path, files: Mapping[str, str] | None = None, *, mapped: bool = True
) -> Iterator[Home]:
    """A home with ``files`` in it, seen nowhere yet."""
    stored, seen = area / "alice.homedir", area / "alice"
    stored.mkdir(mode=0o700)
    seen.mkdir()
    write_tree(stored, files or {".profile": "umask 022\n"})
    chown_all(stored, NOBODY if mapped else USER)
    result = Home(stored, seen, mapped)
    try:
        yield result
    finally:
        result.take_away()


def everything(top: Path) -> list[tuple[str, os.stat_result]]:
    """Every path below ``top``, itself included as an empty one, with what lstat says."""
    found = [("", os.lstat(top))]
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            found.append((os.path.relpath(path, top), os.lstat(path)))
    return sorted(found)


def picture(top: Path) -> dict[str, tuple[object, ...]]:
    """All that can be seen of a tree: kinds, modes, owners, contents, attributes."""
    result: dict[str, tuple[object, ...]] = {}
    for path, found in everything(top):
        where = top / path
        content: object = None
        if stat.S_ISREG(found.st_mode):
            content = hashlib.sha256(where.read_bytes()).hexdigest()
        elif stat.S_ISLNK(found.st_mode):
            content = os.readlink(where)
        names = _attributes(where)
        attributes = tuple((n, os.getxattr(where, n, follow_symlinks=False)) for n in sorted(names))
        result[path] = (
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_rdev,
            content,
            attributes,
        )
    return result


def _attributes(where: Path) -> list[str]:
    try:
        return os.listxattr(where, follow_symlinks=False)
    except OSError as error:
        # A squashfs without any.
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def as_user(*argv: str, cwd: Path | None = None, check: bool = True) -> str:
    """Run a program as the user; what it wrote."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        check=check,
        user=USER,
        group=USER,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def sh(script: str, cwd: Path) -> str:
    """Run a shell script as the user in ``cwd``."""
    return as_user("sh", "-euc", script, cwd=cwd)


def in_child(work: Callable[[], object]) -> object:
    """What ``work`` returns if a process of the user runs it; its failure is ours."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            os.write(writing, json.dumps(work()).encode())
            code = 0
        except (OSError, ValueError, AssertionError):
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as result:
        text = result.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the user's process failed"
    return json.loads(text)


@contextmanager
def merged(
    home: Home,
    extensions: Sequence[Extension],
    mode: Mode = Mode.WRITABLE,
    hierarchies: Sequence[str] = (BIN, SHARE),
    options: Options | None = None,
) -> Iterator[Merged]:
    """Log in, and out again at the end of the block."""
    view = home.view()
    with wanted(extensions, mode, hierarchies) as overlays:
        result = attach.merge(view, overlays, options or Options())
    home.publish(view)
    if result.waiting:
        # Before Linux 6.15.
        with home.root() as root:
            attach.attach_waiting(root, result)
    try:
        yield result
    finally:
        home.take_away()


@contextmanager
def wanted(
    extensions: Sequence[Extension],
    mode: Mode = Mode.WRITABLE,
    hierarchies: Sequence[str] = (BIN, SHARE),
) -> Iterator[list[Wanted]]:
    """All extensions in each of the hierarchies."""
    with ExitStack() as closing:
        yield [Wanted(h, closing.enter_context(layers(extensions, h)), mode) for h in hierarchies]


def cleaned(home: Home, known: Mapping[str, Sequence[Layer]] | None = None) -> clean.Cleaned:
    """Clean the home as it lies on disk."""
    with home.disk() as disk:
        return clean.clean(disk, lambda hierarchy: (known or {}).get(hierarchy, ()))


def marks_on(home: Home) -> list[str]:
    """What a clean home must not have."""
    found = []
    for path, status in everything(home.stored):
        if stat.S_ISCHR(status.st_mode):
            found.append(path)
        names = os.listxattr(home.stored / path, follow_symlinks=False)
        found += [f"{path} {name}" for name in names if name.startswith("trusted.overlay")]
    if (home.stored / ".homemgr/work").exists():
        found.append("work")
    return found


@contextmanager
def layers(extensions: Sequence[Extension], hierarchy: str) -> Iterator[list[Layer]]:
    """What the extensions have for ``hierarchy``, in their order."""
    with ExitStack() as closing:
        found = [one.layer(hierarchy) for one in extensions]
        for layer in found:
            closing.callback(layer.directory.close)
        yield found
