"""What the sender wants to have written leads nowhere but below the top."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.errors import NotSupported, StreamError
from homemgr.storage.writer import TreeWriter
from tests.kernel.travels import (
    NOBODY,
    directory_entry,
    fifo_entry,
    file_entry,
    link_entry,
    make_top,
    symlink_entry,
    writing,
)

SECRET = "not for nobody"


@pytest.fixture
def there(area: Path) -> Iterator[Path]:
    """The tree being written, beside something that is not to be touched."""
    outside = area / "outside"
    outside.mkdir()
    (outside / "file").write_text(SECRET)
    yield make_top(area / "there")
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == SECRET
    assert os.stat(outside / "file").st_nlink == 1
    assert os.stat(outside / "file").st_uid == 0
    assert sorted(os.listdir(area)) == ["outside", "there"]


ACTS: dict[str, Callable[[TreeWriter, bytes], object]] = {
    "enter": lambda writer, name: writer.enter(name, directory_entry()),
    "small": lambda writer, name: writer.write_small(name, file_entry(1), b"x"),
    "begin": lambda writer, name: writer.begin(name, file_entry(1)),
    "copy": lambda writer, name: writer.begin(b"copy", file_entry(1), copy_of=name),
    "same": lambda writer, name: writer.same(name, file_entry(1)),
    "symlink": lambda writer, name: writer.node(name, symlink_entry(b"x")),
    "fifo": lambda writer, name: writer.node(name, fifo_entry()),
    "link to": lambda writer, name: writer.node(b"link", link_entry(name)),
    "link at": lambda writer, name: writer.node(name, link_entry(b"honest")),
    "delete": lambda writer, name: writer.delete(name),
}


@pytest.mark.parametrize("name", [b"..", b".", b"../outside/file", b"/etc/passwd", b"", b"x" * 256])
@pytest.mark.parametrize("act", ACTS)
def test_names_that_lead_elsewhere_are_refused(there: Path, act: str, name: bytes) -> None:
    (there / "honest").write_text("x")
    with writing(there) as writer, pytest.raises(StreamError):
        ACTS[act](writer, name)
    assert os.listdir(there) == ["honest"]


@pytest.mark.parametrize("act", ["enter", "copy", "same", "link to"])
@pytest.mark.parametrize("through", [b"out", b"out/file", b"file"])
def test_symbolic_links_in_the_tree_are_not_followed(there: Path, act: str, through: bytes) -> None:
    (there / "out").symlink_to("../outside")
    (there / "file").symlink_to("../outside/file")
    with writing(there) as writer:
        if act == "link to" and through != b"out/file":
            # A further name of a symbolic link is one as well.
            writer.node(b"link", link_entry(through))
            assert (there / "link").is_symlink()
        elif act == "enter" and through != b"out/file":
            writer.enter(through, directory_entry())
            writer.leave()
            assert not (there / os.fsdecode(through)).is_symlink()
        else:
            with pytest.raises(StreamError):
                ACTS[act](writer, through)
    assert not (there / "copy").exists()


def test_directory_of_the_sender_that_is_none_here_is_refused(there: Path) -> None:
    (there / "link").symlink_to("../outside")
    with writing(there) as writer:
        for name in (b"missing", b"link"):
            with pytest.raises(StreamError):
                writer.enter(name, None)


def make_tree(path: Path) -> None:
    (path / "below").mkdir(parents=True)
    (path / "below" / "file").touch()


MADE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "file": lambda path: path.write_text("old"),
    "tree": make_tree,
    "link to a directory": lambda path: path.symlink_to("../outside"),
    "fifo": os.mkfifo,
    "another name": lambda path: os.link(path.parent / "first", path),
}

WANTED = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "link": stat.S_IFREG,
}


def put(writer: TreeWriter, what: str) -> None:
    if what == "file":
        writer.write_small(b"it", file_entry(3), b"new")
    elif what == "directory":
        writer.enter(b"it", directory_entry())
        writer.leave()
    else:
        entries = {
            "symlink": symlink_entry(b"to"),
            "fifo": fifo_entry(),
            "link": link_entry(b"first"),
        }
        writer.node(b"it", entries[what])


@pytest.mark.parametrize("what", [what for what in WANTED if what != "directory"])
def test_a_directory_with_something_in_it_is_not_replaced_by_anything_else(
    there: Path, what: str
) -> None:
    (there / "first").write_text("first")
    MADE["tree"](there / "it")
    before = sorted(os.listdir(there / "it"))
    # What is in it has to be taken away first, name by name, so that the ledger knows of it.
    with writing(there) as writer, pytest.raises(StreamError, match="is to replace a directory"):
        put(writer, what)
    assert sorted(os.listdir(there / "it")) == before
    assert sorted(os.listdir(there)) == ["first", "it"]


@pytest.mark.parametrize(
    ("before", "what"),
    [(b, w) for b in MADE for w in WANTED if b != "tree" or w == "directory"],
)
def test_whatever_has_the_name_is_replaced(there: Path, before: str, what: str) -> None:
    (there / "first").write_text("first")
    MADE[before](there / "it")
    with writing(there) as writer:
        put(writer, what)
    found = (there / "it").lstat()
    assert stat.S_IFMT(found.st_mode) == WANTED[what]
    assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY) or what == "link"
    if what == "file":
        assert (there / "it").read_text() == "new"
    assert (what == "link") == os.path.samestat(found, (there / "first").lstat())
    assert (there / "first").read_text() == "first"
    # Nothing temporary is left.
    assert sorted(os.listdir(there)) == ["first", "it"]


def test_labels_that_the_machine_gives_stay(there: Path) -> None:
    path = there / "file"
    path.write_text("x")
    os.setxattr(path, "security.label", b"of this machine")
    os.setxattr(path, "user.old", b"of the user")
    with writing(there) as writer:
        writer.same(b"file", file_entry(1))
    assert os.listxattr(path) == ["security.label"]


def test_attribute_that_the_file_system_cannot_store_is_named(there: Path) -> None:
    """An ext4 has room for a block of attributes."""
    entry = file_entry(1)._replace(xattrs=((b"user.large", b"x" * 20_000),))
    with (
        writing(there) as writer,
        pytest.raises(NotSupported, match=r"'user\.large' of a file, 20000 bytes"),
    ):
        writer.write_small(b"file", entry, b"x")
    assert os.listdir(there) == []


def test_symbolic_link_that_the_file_system_cannot_store_is_named(there: Path) -> None:
    with writing(there) as writer, pytest.raises(NotSupported, match=r"'long'.*4095 bytes"):
        writer.node(b"long", symlink_entry(b"x" * 4095))
    assert os.listdir(there) == []
