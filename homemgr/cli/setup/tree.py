"""A root directory, the running one or an image, whose files are changed as seen from inside.

Knows states of paths (nothing, a file, a symbolic link) and how to make one so.
Absolute links inside an image stay inside: nothing outside the root is touched.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass

from homemgr.errors import InvalidArgs, NotSupported
from homemgr.files import write_atomically

_MAX_LINKS = 40
_DIRECTORY_MODE = 0o755


@dataclass(frozen=True)
class State:
    """What a path holds: a file with its contents, or a symbolic link (then only ``target``)."""

    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str | None = None

    def to_json(self) -> dict[str, str | int]:
        """A form that JSON can carry."""
        if self.target is not None:
            return {"target": self.target}
        text = base64.b64encode(self.data).decode("ascii")
        return {"data": text, "mode": self.mode, "uid": self.uid, "gid": self.gid}

    @classmethod
    def from_json(cls, value: object) -> State | None:
        """The inverse of `to_json`; None stands for a path that does not exist."""
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InvalidArgs("The record of the setup holds a state that is no object.")
        if "target" in value:
            return cls(target=str(value["target"]))
        data = base64.b64decode(str(value["data"]), validate=True)
        return cls(data, int(value["mode"]), int(value["uid"]), int(value["gid"]))

    @property
    def digest(self) -> str:
        """Short text that differs when the contents differ."""
        return hashlib.sha256(self.data).hexdigest()


class Tree:
    """The file tree below ``root``; every path given is absolute and seen from inside."""

    def __init__(self, root: str = "/") -> None:
        """Take ``root``, which must be an existing absolute directory."""
        if not os.path.isabs(root):
            raise InvalidArgs(f"--root={root}: expected an absolute path.")
        if not os.path.lexists(os.path.join(root, "etc")):
            raise NotSupported(f"{root} is not the root of an operating system: it has no etc/.")
        self.root = os.path.normpath(root)

    @property
    def is_running_system(self) -> bool:
        """Whether this is the tree that this very process lives in."""
        return self.root == "/"

    def real(self, path: str) -> str:
        """The outside name of ``path``, links in its directories resolved inside the root."""
        done: list[str] = []
        todo = path.strip("/").split("/")
        links = 0
        while len(todo) > 1:
            part = todo.pop(0)
            if part == "..":
                # A link may climb, but not beyond the root.
                done = done[:-1]
                continue
            here = os.path.join(self.root, *done, part)
            if part in ("", ".") or not os.path.islink(here):
                done += [part] if part not in ("", ".") else []
                continue
            links += 1
            if links > _MAX_LINKS:
                raise NotSupported(f"{path}: too many symbolic links.")
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            todo = target.strip("/").split("/") + todo
        return os.path.join(self.root, *done, todo[0])

    def state(self, path: str) -> State | None:
        """What is at ``path`` now; None if nothing is."""
        real = self.real(path)
        try:
            status = os.lstat(real)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(status.st_mode):
            return State(target=os.readlink(real))
        if not stat.S_ISREG(status.st_mode):
            raise NotSupported(f"{real} is neither a file nor a symbolic link.")
        with open(real, "rb") as file:
            data = file.read()
        return State(data, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)

    def exists(self, path: str) -> bool:
        """Whether something is at ``path``, of whatever kind."""
        return os.path.lexists(self.real(path))

    def text(self, path: str) -> str:
        """The text of the file at ``path``, links followed inside the root; empty if missing."""
        for _ in range(_MAX_LINKS):
            found = self.state(path)
            if found is None:
                return ""
            if found.target is None:
                return found.data.decode("utf-8", "replace")
            path = os.path.join(os.path.dirname(path), found.target)
        return ""

    def names(self, path: str) -> list[str]:
        """The names in the directory ``path``, sorted; none if there is no such directory."""
        try:
            # The dot makes `real` resolve the last component as well.
            return sorted(os.listdir(self.real(path + "/.")))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def make(self, path: str, wanted: State | None) -> None:
        """Bring ``path`` to the state ``wanted``; its directory must exist."""
        real = self.real(path)
        directory, name = os.path.split(real)
        if wanted is None:
            os.unlink(real)
        elif wanted.target is not None:
            # Under another name first: a reader finds the old or the new link, never none.
            temporary = os.path.join(directory, f".#{name}.homemgr")
            if os.path.lexists(temporary):
                os.unlink(temporary)
            os.symlink(wanted.target, temporary)
            os.replace(temporary, real)
        else:
            # The owner last: until then it is root's, and never writable for others.
            write_atomically(directory, name, wanted.data, wanted.mode)
            os.chown(real, wanted.uid, wanted.gid, follow_symlinks=False)

    def missing_directories(self, path: str) -> list[str]:
        """The directories above ``path`` that do not exist yet, outermost first."""
        missing: list[str] = []
        parent = os.path.dirname(path)
        while parent != "/" and not self.exists(parent):
            missing.insert(0, parent)
            parent = os.path.dirname(parent)
        return missing

    def make_directory(self, path: str) -> None:
        """Create one directory that everybody may enter."""
        real = self.real(path)
        os.mkdir(real)
        # Whatever the umask: system directories are for everybody to read.
        os.chmod(real, _DIRECTORY_MODE)

    def drop_directory(self, path: str) -> bool:
        """Remove ``path`` if it is an empty directory; say whether it was."""
        try:
            os.rmdir(self.real(path))
        except OSError:
            return False
        return True
