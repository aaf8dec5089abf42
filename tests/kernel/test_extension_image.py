"""Opened extensions: the user's files, read-only, of trusted origin, and nothing left over."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import (
    ExtensionDamaged,
    ExtensionDoesNotFit,
    ExtensionNotTrusted,
    ExtensionNotUsable,
)
from homemgr.extension import digest, find, hierarchies, release
from homemgr.extension.find import Candidate, Found, Kind
from homemgr.extension.image import NO_SHELF, Extension, Policy, open_extension, open_newest
from homemgr.extension.shelf import Shelf
from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.kernel.userns import create_userns
from tests.disk_images import ROOT_SIGNATURE_X86_64, ROOT_X86_64, Part, gpt_image
from tests.kernel.extension_trees import BIG, TOOL, fingerprint, make, own, pair, run, seal, tree
from tests.pages import is_resident
from tests.signed_images import Maker, signed_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCAL = 60123
HOST = release.Host("debian", "12", "", "x86-64")
IMAGES = ["erofs", "squashfs", "ext4", "gpt-erofs", "gpt-squashfs", "gpt-ext4"]
FORMS = ["directory", *IMAGES, "composefs"]


def userns(disk_uid: int, disk_gid: int, local_id: int = LOCAL) -> Fd:
    return create_userns(f"{disk_uid} {local_id} 1\n", f"{disk_gid} {local_id} 1\n")


@pytest.fixture
def store(area: Path) -> Iterator[Path]:
    """A directory for extensions, of which no loop device may be left."""
    path = area / "extensions"
    path.mkdir(mode=0o755)
    yield path
    assert not backed_by(path)


def backed_by(path: Path) -> list[str]:
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(file.read_text(encoding="utf-8").strip())
        except OSError:
            continue
    # Its file system is itself in an image, and what is seen of that is the path inside.
    return [text for text in found if f"{path.name}/" in text]


@pytest.fixture
def opened(area: Path) -> Callable[..., Extension]:
    """Open an extension with the test's own ledger and cache."""

    def open_one(
        candidate: Candidate, local_id: int = LOCAL, shelf: Shelf = NO_SHELF, **policy: bool
    ) -> Extension:
        return open_extension(
            candidate,
            host=HOST,
            local_uid=local_id,
            local_gid=local_id,
            policy=Policy(**policy),
            userns=lambda uid, gid: userns(uid, gid, local_id),
            places=digest.Places(str(area / "ledger.json"), str(area / "cache")),
            shelf=shelf,
        )

    return open_one


def stored(store: Path, form: str, owner: int = 65534) -> Candidate:
    """Extension "tools" in one of its forms."""
    if form == "directory":
        path = tree(store / "tools", "tools", owner)
    elif form == "composefs":
        path = pair(store / "tools.composefs", "tools", owner)
    else:
        path = store / "tools.raw"
        make(form, tree(store / "source", "tools", owner), path)
        seal(path)
    found = [c for c in find.candidates([str(store)]) if c.path == str(path)]
    assert len(found) == 1
    return found[0]


def layer_of(extension: Extension, hierarchy: str) -> Fd:
    layer = extension.layer(hierarchy)
    assert layer is not None
    return layer


def read(layer: Fd, name: str) -> tuple[bytes, os.stat_result]:
    with Fd.open(name, os.O_RDONLY, dir_fd=layer.fileno()) as file:
        return os.read(file.fileno(), 1 << 20), os.fstat(file.fileno())


@pytest.mark.parametrize("form", FORMS)
def test_files_are_the_users(store: Path, opened: Callable[..., Extension], form: str) -> None:
    candidate = stored(store, form)
    with opened(candidate) as extension:
        assert extension.name == "tools"
        assert extension.hierarchies == (".config/corp", ".local/bin")
        assert extension.unmergeable == (".bashrc",)
        for hierarchy, name, content in (
            (".local/bin", "tool", TOOL.encode()),
            (".config/corp", "big", BIG),
        ):
            with layer_of(extension, hierarchy) as layer:
                found, attributes = read(layer, name)
                assert found == content
                assert (attributes.st_uid, attributes.st_gid) == (LOCAL, LOCAL)
                top = os.fstat(layer.fileno())
                assert (top.st_uid, top.st_gid) == (LOCAL, LOCAL)
                # Not even for root.
                with pytest.raises(OSError) as caught:
                    Fd.open(name, os.O_WRONLY, dir_fd=layer.fileno())
                assert caught.value.errno == errno.EROFS
        assert extension.layer(".local/missing") is None
        assert extension.layer(".bashrc") is None


@pytest.mark.parametrize("form", FORMS)
def test_nothing_of_an_extension_is_changed(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form)
    before = fingerprint(Path(candidate.path))
    with opened(candidate) as extension, layer_of(extension, ".local/bin") as layer:
        read(layer, "tool")
    assert fingerprint(Path(candidate.path)) == before


@pytest.mark.parametrize("form", FORMS)
def test_no_mount_is_seen_by_anybody(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form)
    before = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    with opened(candidate):
        assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(("form", "depth"), [("directory", 0), ("erofs", 1), ("squashfs", 0)])
def test_depth_is_told(
    store: Path, opened: Callable[..., Extension], form: str, depth: int
) -> None:
    candidate = stored(store, form)
    with opened(candidate) as extension:
        assert extension.depth == depth
        # erofs came straight from its file.
        assert bool(backed_by(store)) == (form == "squashfs")


def test_a_pair_is_one_deep(store: Path, opened: Callable[..., Extension]) -> None:
    with opened(stored(store, "composefs")) as extension:
        assert extension.depth == 1


@pytest.mark.parametrize("form", ["erofs", "squashfs"])
def test_on_overlayfs_no_image_is_stacked_on_it(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    with overlay(store) as place:
        candidate = stored(place, form)
        with opened(candidate) as extension:
            assert extension.depth == 0
            assert backed_by(place)


def test_a_tree_on_overlayfs_cannot_be_mapped(
    store: Path, opened: Callable[..., Extension]
) -> None:
    with overlay(store) as place:
        candidate = stored(place, "directory")
        with pytest.raises(ExtensionNotUsable, match="cannot show files under other ids"):
            opened(candidate)


@contextmanager
def overlay(store: Path) -> Iterator[Path]:
    """An overlayfs to store extensions in, as in a container."""
    for name in ("lower", "upper", "work", "merged"):
        (store / name).mkdir(mode=0o755)
    names = (f"{n}dir={store / n}" for n in ("lower", "upper", "work"))
    run("mount", "-t", "overlay", "none", "-o", ",".join(names), str(store / "merged"))
    try:
        yield store / "merged"
    finally:
        run("umount", str(store / "merged"))


@pytest.mark.parametrize("form", FORMS)
def test_two_users_share_what_was_read(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form)
    run("sync")
    Path("/proc/sys/vm/drop_caches").write_text("1")
    left: dict[str, Fd] = {}
    with (
        ExitStack() as closing,
        opened(candidate, shelf=Shelf(left, lambda n, m: keep(left, n, m, closing))) as one,
        opened(candidate, local_id=LOCAL + 1, shelf=Shelf(left)) as other,
    ):
        with layer_of(one, ".config/corp") as layer:
            read(layer, "big")
        with (
            layer_of(other, ".config/corp") as layer,
            Fd.open("big", os.O_RDONLY, dir_fd=layer.fileno()) as file,
        ):
            assert os.fstat(file.fileno()).st_uid == LOCAL + 1
            assert is_resident(file.fileno(), len(BIG))


def keep(left: dict[str, Fd], name: str, mount: Fd, closing: ExitStack) -> None:
    """Put a mount on a shelf that is this process's own."""
    left[name] = closing.enter_context(mount.duplicate())


def test_a_changed_image_is_not_taken_from_the_shelf(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "erofs")
    left: dict[str, Fd] = {}
    with ExitStack() as closing:
        shelf = Shelf(left, lambda n, m: keep(left, n, m, closing))
        opened(candidate, shelf=shelf).close()
        opened(candidate, shelf=shelf).close()
        assert len(left) == 1
        (store / "source/home/.local/bin/tool").write_text("another")
        Path(candidate.path).unlink()
        seal(make("erofs", store / "source", Path(candidate.path)))
        with (
            opened(candidate, shelf=shelf) as extension,
            layer_of(extension, ".local/bin") as layer,
        ):
            assert read(layer, "tool")[0] == b"another"
        assert len(left) == 2


def test_a_disk_with_large_sectors_is_read_too(
    store: Path, opened: Callable[..., Extension]
) -> None:
    inner = make("erofs", tree(store / "source", "tools"), store / "inner").read_bytes()
    image = store / "tools.raw"
    image.write_bytes(gpt_image([Part(ROOT_X86_64, inner)], sector=4096))
    image.chmod(0o644)
    seal(image)
    opened(Candidate("tools", Kind.IMAGE, str(image))).close()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_a_layer(
    store: Path, area: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form)
    own_directory = area / "own"
    own_directory.mkdir()
    with (
        opened(candidate) as extension,
        layer_of(extension, ".config/corp") as layer,
        Fd.open(str(own_directory), os.O_PATH) as top,
        mounts.fsopen("overlay") as fs,
    ):
        assert not hierarchies.too_deep("tools", extension.depth)
        for option, value in (("metacopy", "off"), ("redirect_dir", "nofollow")):
            mounts.fsconfig_set_string(fs.fileno(), option, value)
        mounts.fsconfig_set_fd(fs.fileno(), "lowerdir+", top.fileno())
        mounts.fsconfig_set_fd(fs.fileno(), "lowerdir+", layer.fileno())
        mounts.fsconfig_create(fs.fileno())
        extension.close()
        with mounts.fsmount(fs.fileno(), 0) as merged:
            content, attributes = read(merged, "big")
    assert content == BIG
    assert attributes.st_uid == LOCAL


# --- owners ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["erofs", "squashfs", "gpt-ext4", "composefs"])
def test_root_in_an_image_is_shown_as_the_user(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form, owner=0)
    with opened(candidate) as extension, layer_of(extension, ".local/bin") as layer:
        assert read(layer, "tool")[1].st_uid == LOCAL


@pytest.mark.parametrize("form", ["erofs", "composefs"])
def test_root_in_an_image_is_refused_by_policy(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form, owner=0)
    with pytest.raises(ExtensionNotTrusted, match="MapRoot=no"):
        opened(candidate, map_root=False)


def test_root_in_a_directory_is_never_shown_as_the_user(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "directory", owner=0)
    with pytest.raises(ExtensionNotTrusted, match=r"belongs to 0:0; .* `chown -R 65534:65534"):
        opened(candidate)
    os.chown(store / "tools/home", 65534, 0)
    with pytest.raises(ExtensionNotTrusted, match="belongs to 65534:0"):
        opened(candidate)


def test_a_directory_must_be_closed_to_others(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "directory")
    (store / "tools").chmod(0o755)
    with pytest.raises(ExtensionNotTrusted, match=r"`chmod 0700 .*/tools` keeps them out"):
        opened(candidate)
    # Wherever on the way the door is closed.
    store.chmod(0o700)
    opened(candidate).close()


def test_ids_of_others_do_not_map(store: Path, opened: Callable[..., Extension]) -> None:
    candidate = stored(store, "directory")
    other = store / "tools/home/.local/bin/other"
    other.write_text("x")
    other.chmod(0o600)
    os.chown(other, 1234, 1234)
    with opened(candidate) as extension, layer_of(extension, ".local/bin") as layer:
        assert os.stat("other", dir_fd=layer.fileno()).st_uid == 65534
        with pytest.raises(PermissionError):
            Fd.open("other", os.O_RDONLY, dir_fd=layer.fileno())


def test_a_wrong_namespace_is_noticed(store: Path, area: Path) -> None:
    candidate = stored(store, "directory")
    with pytest.raises(ExtensionNotUsable, match=f"as those of 7:7, not of {LOCAL}:{LOCAL}"):
        open_extension(
            candidate,
            host=HOST,
            local_uid=LOCAL,
            local_gid=LOCAL,
            policy=Policy(),
            userns=lambda uid, gid: create_userns(f"{uid} 7 1\n", f"{gid} 7 1\n"),
            places=digest.Places(str(area / "ledger"), str(area / "cache")),
        )


@pytest.mark.parametrize("form", ["directory", "erofs", "squashfs"])
def test_setuid_and_devices_have_no_effect(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    source = tree(store / ("tools" if form == "directory" else "source"), "tools")
    binaries = source / "home/.local/bin"
    shutil.copy("/usr/bin/id", binaries / "id")
    os.chown(binaries / "id", 65534, 65534)
    (binaries / "id").chmod(0o6755)
    os.setxattr(
        binaries / "id", "security.capability", struct.pack("<IIIII", 0x2000001, 1, 0, 0, 0)
    )
    os.mknod(binaries / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(binaries / "null", 65534, 65534)
    if form != "directory":
        seal(make(form, source, store / "tools.raw"))
    (candidate,) = (c for c in find.candidates([str(store)]) if c.name == "tools")
    with opened(candidate) as extension, layer_of(extension, ".local/bin") as layer:
        with pytest.raises(PermissionError):
            Fd.open("null", os.O_RDONLY, dir_fd=layer.fileno())
        flags = os.fstatvfs(layer.fileno()).f_flag
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        assert flags & os.ST_RDONLY


# --- paths ----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", ["owner", "group may write", "others may write"])
def test_what_others_could_have_put_there_is_refused(
    store: Path, opened: Callable[..., Extension], form: str, change: str
) -> None:
    candidate = stored(store, form)
    path = Path(candidate.path)
    if change == "owner":
        os.chown(path, 1000, 0)
    else:
        path.chmod(path.stat().st_mode | (0o020 if change.startswith("group") else 0o002))
    with pytest.raises(ExtensionNotTrusted, match="expected root as owner and no write"):
        opened(candidate)


def test_the_way_there_must_be_roots_alone(store: Path, opened: Callable[..., Extension]) -> None:
    candidate = stored(store, "erofs")
    store.chmod(0o777)
    with pytest.raises(ExtensionNotTrusted, match="extensions belongs to uid 0 with mode 0777"):
        opened(candidate)


def test_a_link_of_roots_is_followed(store: Path, opened: Callable[..., Extension]) -> None:
    stored(store, "erofs")
    (store / "elsewhere").mkdir()
    (store / "tools.raw").rename(store / "elsewhere/image")
    (store / "tools.raw").symlink_to("elsewhere/image")
    (candidate,) = (c for c in find.candidates([str(store)]) if c.kind is Kind.IMAGE)
    opened(candidate).close()
    os.chown(store / "tools.raw", 1000, 1000, follow_symlinks=False)
    with pytest.raises(ExtensionNotTrusted, match=r"tools\.raw belongs to uid 1000"):
        opened(candidate)


@pytest.mark.parametrize("form", ["erofs", "composefs", "directory"])
def test_gone_since_it_was_found(store: Path, opened: Callable[..., Extension], form: str) -> None:
    candidate = stored(store, form)
    path = Path(candidate.path)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ExtensionNotUsable, match=r"cannot be opened|No digest"):
        opened(candidate)


def test_a_fifo_is_refused_at_once(store: Path, opened: Callable[..., Extension]) -> None:
    os.mkfifo(store / "tools.raw")
    with pytest.raises(ExtensionNotTrusted, match="neither a file nor a directory"):
        opened(Candidate("tools", Kind.IMAGE, str(store / "tools.raw")))


@pytest.mark.parametrize("what", ["home", "usr/lib/extension-release.d", "usr"])
def test_links_inside_lead_nowhere(
    store: Path, opened: Callable[..., Extension], what: str
) -> None:
    candidate = stored(store, "directory")
    inside = store / "tools" / what
    inside.rename(store / "away")
    inside.symlink_to(store / "away")
    with pytest.raises(ExtensionNotUsable):
        opened(candidate)


def test_what_is_mounted_inside_is_not_part_of_it(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "directory")
    hidden = store / "tools/home/.local/bin"
    run("mount", "-t", "tmpfs", "none", str(hidden))
    try:
        with opened(candidate) as extension, layer_of(extension, ".local/bin") as layer:
            assert os.listdir(f"/proc/self/fd/{layer.fileno()}") == ["tool"]
    finally:
        run("umount", str(hidden))


# --- digests --------------------------------------------------------------------


def test_an_image_without_digest_is_refused(store: Path, opened: Callable[..., Extension]) -> None:
    candidate = stored(store, "erofs")
    (store / "tools.raw.sha256").unlink()
    with pytest.raises(ExtensionNotTrusted, match=r"No digest is stored for .*/tools.raw"):
        opened(candidate)


@pytest.mark.parametrize("form", [*IMAGES, "composefs"])
def test_a_cut_off_image_is_refused_before_it_is_mounted(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form)
    image = Path(candidate.path)
    image = image / "meta.erofs" if image.is_dir() else image
    os.truncate(image, image.stat().st_size - 512)
    with pytest.raises(ExtensionDamaged, match="its SHA-256 digest is"):
        opened(candidate)


@pytest.mark.parametrize("form", ["erofs", "squashfs", "ext4"])
def test_a_cut_off_image_with_a_digest_of_its_own_is_refused_too(
    store: Path, opened: Callable[..., Extension], form: str
) -> None:
    candidate = stored(store, form)
    os.truncate(candidate.path, 1100)
    seal(Path(candidate.path))
    with pytest.raises(ExtensionDamaged, match="is cut off"):
        opened(candidate)


def test_one_changed_bit_is_noticed_even_if_the_image_was_good_before(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "erofs")
    opened(candidate).close()
    with open(candidate.path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    with pytest.raises(ExtensionDamaged):
        opened(candidate)


def test_the_administrators_word_counts_before_the_makers(
    store: Path, area: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "erofs")
    places = digest.Places(str(area / "ledger.json"), str(area / "cache"))
    assert len(digest.trust(candidate.path, places)) == 64
    (store / "tools.raw.sha256").write_text("0" * 64 + "  tools.raw\n")
    opened(candidate).close()
    digest.distrust(candidate.path, places)
    with pytest.raises(ExtensionDamaged, match=r"not what .*\.sha256 says"):
        opened(candidate)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1, "images": {"x": 1}}', "[" * 9999])
def test_a_broken_ledger_trusts_nothing(
    store: Path, area: Path, opened: Callable[..., Extension], text: str
) -> None:
    candidate = stored(store, "erofs")
    (area / "ledger.json").write_text(text)
    (area / "ledger.json").chmod(0o644)
    with pytest.raises(ExtensionNotTrusted, match=r"ledger\.json"):
        opened(candidate)


def test_an_image_is_read_whole_only_once(
    store: Path, area: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "erofs")
    # Older than a tick of the clock that time stamps are made with.
    run("sleep", "0.05")
    opened(candidate).close()
    (kept,) = (area / "cache").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    first = kept.stat().st_ino
    opened(candidate).close()
    assert kept.stat().st_ino == first
    # What was kept is of that state of the file only.
    os.utime(candidate.path)
    run("sleep", "0.05")
    opened(candidate).close()
    assert kept.stat().st_ino != first


def test_a_cache_that_others_can_write_is_not_believed(
    store: Path, area: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "erofs")
    run("sleep", "0.05")
    opened(candidate).close()
    with open(candidate.path, "ab") as file:
        file.write(b"x")
    found = os.stat(candidate.path)
    (kept,) = (area / "cache").iterdir()
    good = kept.read_text().rsplit(" ")[-1]
    kept.write_text(f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {good}")
    (area / "cache").chmod(0o777)
    with pytest.raises(ExtensionDamaged):
        opened(candidate)


# --- what is inside ---------------------------------------------------------------


def test_garbage_with_a_digest_is_still_garbage(
    store: Path, opened: Callable[..., Extension]
) -> None:
    image = store / "tools.raw"
    image.write_bytes(b"garbage" * 4096)
    image.chmod(0o644)
    seal(image)
    with pytest.raises(ExtensionNotUsable, match="none of erofs, squashfs, ext4"):
        opened(Candidate("tools", Kind.IMAGE, str(image)))


@pytest.mark.parametrize("magic", [(1024, b"\xe2\xe1\xf5\xe0"), (0, b"hsqs"), (1080, b"\x53\xef")])
def test_what_the_kernel_does_not_mount_is_refused(
    store: Path, opened: Callable[..., Extension], magic: tuple[int, bytes]
) -> None:
    image = store / "tools.raw"
    content = bytearray(65536)
    content[magic[0] : magic[0] + len(magic[1])] = magic[1]
    image.write_bytes(content)
    image.chmod(0o644)
    seal(image)
    with pytest.raises(ExtensionNotUsable, match="cannot be opened"):
        opened(Candidate("tools", Kind.IMAGE, str(image)))


def test_a_tree_without_description_is_no_extension(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "directory")
    shutil.rmtree(store / "tools/usr")
    with pytest.raises(ExtensionNotUsable, match="is not an extension: it has no"):
        opened(candidate)


def test_a_description_of_another_name_does_not_count(
    store: Path, opened: Callable[..., Extension]
) -> None:
    stored(store, "erofs")
    (store / "tools.raw").rename(store / "renamed.raw")
    seal(store / "renamed.raw")
    with pytest.raises(ExtensionNotUsable, match=r"no usr/lib/.*/extension-release\.renamed"):
        opened(Candidate("renamed", Kind.IMAGE, str(store / "renamed.raw")))


def test_an_extension_without_home_has_nothing_for_one(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "directory")
    shutil.rmtree(store / "tools/home")
    with pytest.raises(ExtensionNotUsable, match="has no directory 'home'"):
        opened(candidate)


def test_made_for_another_system(store: Path, opened: Callable[..., Extension]) -> None:
    path = tree(store / "tools", "tools", release="ID=debian\nVERSION_ID=11\n")
    with pytest.raises(ExtensionDoesNotFit, match="VERSION_ID=11, but this system has"):
        opened(Candidate("tools", Kind.DIRECTORY, str(path)))


def test_the_newest_version_that_fits_is_opened(store: Path, area: Path) -> None:
    directory = store / "tools.raw.v"
    directory.mkdir(mode=0o755)
    for version, text in (("1", "ID=_any\n"), ("2", "ID=_any\n"), ("3", "ID=fedora\n")):
        source = tree(area / f"source{version}", "tools", release=text)
        seal(make("erofs", source, directory / f"tools_{version}.raw"))
    (found,) = find.pick(find.candidates([str(store)]), HOST)
    assert isinstance(found, Found)

    def newest() -> Extension:
        return open_newest(
            found,
            host=HOST,
            local_uid=LOCAL,
            local_gid=LOCAL,
            policy=Policy(),
            userns=userns,
            places=digest.Places(str(area / "ledger"), str(area / "cache")),
        )

    with newest() as extension:
        assert extension.version == "2"
    # A damaged one is not replaced by an older one in silence.
    os.truncate(directory / "tools_2.raw", 100)
    with pytest.raises(ExtensionDamaged):
        newest()


def test_a_signed_disk_needs_somebody_to_verify_it(
    store: Path, opened: Callable[..., Extension]
) -> None:
    inner = make("erofs", tree(store / "source", "tools"), store / "inner").read_bytes()
    image = store / "tools.raw"
    image.write_bytes(
        gpt_image([Part(ROOT_X86_64, inner), Part(ROOT_SIGNATURE_X86_64, b"{}", "signature")])
    )
    image.chmod(0o644)
    seal(image)
    candidate = Candidate("tools", Kind.IMAGE, str(image))
    with pytest.raises(ExtensionNotUsable, match=r"verity signature, which cannot be verified"):
        opened(candidate)
    opened(candidate, refuse_unverifiable_signature=False).close()


def test_a_disk_signed_by_a_stranger_is_refused(
    store: Path, opened: Callable[..., Extension]
) -> None:
    inner = make("erofs", tree(store / "source", "tools"), store / "inner").read_bytes()
    image = store / "tools.raw"
    image.write_bytes(signed_image(inner, Maker.new("stranger")))
    image.chmod(0o644)
    candidate = Candidate("tools", Kind.IMAGE, str(image))
    with pytest.raises(ExtensionNotTrusted, match="here: nobody who is trusted here made it"):
        opened(candidate)
    # A digest is another matter than a signature, and not enough where one is required.
    seal(image)
    with pytest.raises(ExtensionNotTrusted, match="here: nobody who is trusted here made it"):
        opened(candidate)
    opened(candidate, refuse_unverifiable_signature=False).close()
    os.truncate(image, image.stat().st_size - 512)
    image.with_name("tools.raw.sha256").unlink()
    with pytest.raises(ExtensionDamaged, match="backup copy of its partition table is missing"):
        opened(candidate)


def test_a_disk_in_a_disk_is_refused(store: Path, opened: Callable[..., Extension]) -> None:
    image = store / "tools.raw"
    image.write_bytes(gpt_image([Part(ROOT_X86_64, gpt_image([]))]))
    image.chmod(0o644)
    seal(image)
    with pytest.raises(ExtensionNotUsable, match="another partition table"):
        opened(Candidate("tools", Kind.IMAGE, str(image)))


def test_the_second_half_of_a_pair_is_needed(store: Path, opened: Callable[..., Extension]) -> None:
    candidate = stored(store, "composefs")
    shutil.rmtree(store / "tools.composefs/objects")
    with pytest.raises(ExtensionNotUsable, match="objects"):
        opened(candidate)


def test_nobody_elses_directory_stops_the_way_down(
    store: Path, opened: Callable[..., Extension]
) -> None:
    candidate = stored(store, "directory")
    closed = store / "tools/home/.config/corp"
    own(closed, 1234)
    closed.chmod(0o700)
    with opened(candidate) as extension:
        assert extension.hierarchies == (".config/corp", ".local/bin")
