"""Signed disk images: whose signature counts, every block is checked, and nothing is left over."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from homemgr.errors import ExtensionDamaged, ExtensionNotTrusted, ExtensionNotUsable
from homemgr.extension import verified
from homemgr.extension.image import Extension
from homemgr.files import Fd
from homemgr.kernel import device_mapper
from tests import verifying
from tests.kernel import forks
from tests.kernel.extension_trees import BIG, TOOL, run, seal
from tests.kernel.verity.conftest import LOCAL, MAKER, Store
from tests.pages import is_resident
from tests.signed_images import DATA_START, Maker, hash_tree
from tests.verifying import damage, devices, images


def read(extension: Extension, hierarchy: str, name: str) -> bytes:
    layer = extension.layer(hierarchy)
    assert layer is not None
    with layer, Fd.open(name, os.O_RDONLY, dir_fd=layer.fileno()) as file:
        return os.read(file.fileno(), 1 << 20)


@pytest.mark.parametrize("form", ["erofs", "squashfs", "ext4"])
@pytest.mark.parametrize("kind", ["root", "usr"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_signed_image_needs_no_digest(store: Store, form: str, kind: str, algorithm: str) -> None:
    store.put(form, kind=kind, algorithm=algorithm)
    with store.open() as extension:
        assert extension.hierarchies == (".config/corp", ".local/bin")
        assert extension.depth == 0
        assert read(extension, ".local/bin", "tool") == TOOL.encode()
        assert read(extension, ".config/corp", "big") == BIG
        assert len(devices()) == 1
    verifying.wait_until_gone()


PARTITIONS = {
    "10-data": "Type=root\nFormat=squashfs\nCopyFiles=/\nVerity=data",
    "20-hashes": "Type=root-verity\nVerity=hash",
    "30-signature": "Type=root-verity-sig\nVerity=signature",
}


def test_what_systemd_signs_is_used(store: Store) -> None:
    definitions = store.path / "definitions"
    definitions.mkdir()
    for name, text in PARTITIONS.items():
        lines = f"[Partition]\n{text}\nVerityMatchKey=one\n"
        (definitions / f"{name}.conf").write_text(lines, encoding="utf-8")
    maker = Maker.new("repart", rsa.generate_private_key(65537, 2048))
    (store.path / "key").write_bytes(maker.private_pem)
    (store.path / "certificate").write_bytes(maker.pem)
    store.inner("squashfs")
    argv = ["systemd-repart", "--empty=create", "--size=auto", "--dry-run=no", "--no-pager"]
    argv += [f"--definitions={definitions}", f"--root={store.path}/source"]
    argv += [f"--private-key={store.path}/key", f"--certificate={store.path}/certificate"]
    run(*argv, str(store.image))
    store.image.chmod(0o644)
    with pytest.raises(ExtensionNotTrusted, match="nobody who is trusted here"):
        store.open()
    certificate = verifying.trust(maker, "repart")
    try:
        with store.open() as extension:
            assert read(extension, ".config/corp", "big") == BIG
            assert len(devices()) == 1
    finally:
        certificate.unlink()


def test_two_users_have_one_device_and_one_cache(store: Store) -> None:
    store.put()
    with store.open() as one:
        run("sync")
        Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")
        read(one, ".config/corp", "big")
        with store.open(LOCAL + 1) as other:
            assert len(devices()) == 1
            assert len(images()) == 2
            layer = other.layer(".config/corp")
            assert layer is not None
            with layer, Fd.open("big", os.O_RDONLY, dir_fd=layer.fileno()) as file:
                assert os.fstat(file.fileno()).st_uid == LOCAL + 1
                assert is_resident(file.fileno(), len(BIG))
        one.close()
        verifying.wait_until_gone()


def test_it_stays_while_it_is_used_and_goes_then(store: Store) -> None:
    store.put()
    with store.open() as extension:
        layer = extension.layer(".local/bin")
        assert layer is not None
        extension.close()
        with layer:
            assert len(devices()) == 1
            assert os.listdir(f"/proc/self/fd/{layer.fileno()}") == ["tool"]
        verifying.wait_until_gone()


def test_a_copy_has_a_device_of_its_own(store: Store) -> None:
    # One of them may be damaged where the other is not.
    store.put()
    content = store.image.read_bytes()
    with store.open():
        store.image.unlink()
        store.image.write_bytes(content)
        store.image.chmod(0o644)
        with store.open():
            assert len(devices()) == 2


# --- damage ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["erofs", "squashfs", "ext4"])
def test_a_damaged_beginning_is_told(store: Store, form: str) -> None:
    image = store.put(form)
    # Near the superblock, which is in the same block or the one after.
    damage(image, DATA_START)
    damage(image, DATA_START + 2047)
    with pytest.raises(ExtensionDamaged, match=r"tools\.raw cannot be opened: .*Input/output"):
        store.open()


def test_a_damaged_file_cannot_be_read_and_others_can(store: Store) -> None:
    image = store.put()
    damage(image, image.read_bytes().index(BIG[:64]))
    with store.open() as extension:
        assert read(extension, ".local/bin", "tool") == TOOL.encode()
        with pytest.raises(OSError, match="Input/output") as caught:
            read(extension, ".config/corp", "big")
        assert caught.value.errno == errno.EIO


def test_damaged_hashes_are_told(store: Store) -> None:
    image = store.put()
    # Behind the superblock's block, the root of the tree.
    damage(image, image.read_bytes().index(b"verity\0\0") + 4096)
    with pytest.raises(ExtensionDamaged, match="Input/output"):
        store.open()


def test_a_signed_hash_of_another_image_is_told(store: Store) -> None:
    store.put(root_hash=hash_tree(bytes(4096)).root_hash)
    with pytest.raises(ExtensionDamaged, match="Input/output"):
        store.open()


@pytest.mark.parametrize("length", [100, 8192, -512])
def test_a_cut_off_image_is_told(store: Store, length: int) -> None:
    image = store.put()
    os.truncate(image, length if length > 0 else image.stat().st_size + length)
    with pytest.raises(ExtensionNotUsable, match=r"damaged|none of erofs"):
        store.open()


# --- signatures -----------------------------------------------------------------


def test_nobody_else_can_sign(store: Store) -> None:
    store.put(maker=Maker.new("other"))
    with pytest.raises(ExtensionNotTrusted, match=r"nobody who is trusted here .*/etc/verity\.d"):
        store.open()
    assert devices() == []


def test_a_signature_counts_for_its_image_only(store: Store) -> None:
    store.put(signature=MAKER.sign(b"00" * 32))
    with pytest.raises(ExtensionNotTrusted, match="it is wrong"):
        store.open()


def test_trust_is_taken_back_with_the_certificate(store: Store) -> None:
    store.put()
    store.open().close()
    certificate = verifying.trust(MAKER)
    certificate.unlink()
    with pytest.raises(ExtensionNotTrusted, match="nobody who is trusted here"):
        store.open()
    verifying.trust(MAKER)


def test_a_stored_digest_counts_as_well(store: Store) -> None:
    image = store.put()
    seal(image)
    store.open().close()
    # Another image of the same maker is not the one that was meant.
    (store.path / "source/home/.local/bin/tool").write_text("another", encoding="utf-8")
    store.put()
    with pytest.raises(ExtensionDamaged, match="its SHA-256 digest is"):
        store.open()


def test_where_no_signature_is_needed_the_digest_is_enough(store: Store) -> None:
    image = store.put(maker=Maker.new("other"))
    with pytest.raises(ExtensionNotTrusted, match="No digest is stored"):
        store.open(refuse_unverifiable_signature=False)
    seal(image)
    with store.open(refuse_unverifiable_signature=False) as extension:
        assert devices() == []
        assert read(extension, ".config/corp", "big") == BIG
    # One that can be verified is, whatever has to be.
    seal(store.put())
    with store.open(refuse_unverifiable_signature=False):
        assert len(devices()) == 1


# --- kernels --------------------------------------------------------------------


def test_a_kernel_without_dm_verity_is_told(store: Store, modprobe: Callable[[str], None]) -> None:
    store.put()
    run("modprobe", "-r", "dm-verity")
    modprobe("install dm-verity /bin/false\n")
    try:
        with pytest.raises(
            ExtensionNotUsable, match=r"cannot be verified here: this kernel has no dm-verity\. Req"
        ):
            store.open()
    finally:
        modprobe("")
    # Loaded when it is needed.
    store.open().close()


def test_a_kernel_without_device_mapper_is_told(store: Store) -> None:
    image = store.put()
    run("modprobe", "-r", "dm-verity", "dm-mod")
    try:
        with pytest.raises(ExtensionNotUsable, match=r"this kernel has no device-mapper\. Require"):
            store.open()
        seal(image)
        store.open(refuse_unverifiable_signature=False).close()
        verified.sweep()
    finally:
        run("modprobe", "dm-mod")


# --- kills ----------------------------------------------------------------------

#: Opens the image and dies after so many requests to devices.
_DIES = """
import fcntl, os, signal, sys
from pathlib import Path
from tests.kernel.verity.conftest import Store

real, left = fcntl.ioctl, [int(sys.argv[2])]

def ioctl(*arguments):
    answer = real(*arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

fcntl.ioctl = ioctl
Store(Path(sys.argv[1])).open()
print(left[0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_after(store: Store, requests: int) -> str:
    """What it printed if it came to its end."""
    argv = [sys.executable, "-B", "-c", _DIES, str(store.path), str(requests)]
    done = subprocess.run(argv, cwd=forks.ROOT, stdout=subprocess.PIPE, check=False, text=True)
    assert done.returncode == -signal.SIGKILL
    return done.stdout


def test_killed_anywhere_nothing_is_left_that_the_next_does_not_remove(store: Store) -> None:
    store.put()
    total = 1000 - int(killed_after(store, 1000))
    # Listing, making, loading, two loop devices, telling it to go, resuming.
    assert total > 8
    verifying.wait_until_gone()
    left_over = 0
    for number in range(1, total + 1):
        assert killed_after(store, number) == ""
        left_over += len(devices())
        if number % 2:
            verified.sweep()
        else:
            store.open().close()
        verifying.wait_until_gone()
    # At least one kill was between making a device and telling it to go.
    assert left_over


def test_devices_of_others_are_left_alone(store: Store) -> None:
    with device_mapper.open_control() as control:
        number = control.fileno()
        made = device_mapper.create(number, "somebody", "SOMEBODY")
        try:
            store.put()
            with store.open():
                verified.sweep()
                assert len(devices()) == 2
            assert device_mapper.status(number, "somebody") == made
        finally:
            device_mapper.remove(number, "somebody")
