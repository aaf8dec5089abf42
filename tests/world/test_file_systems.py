"""The whole way of a login on each file system that may lie under /home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conftest import World
from .product import PLACE
from .users import NOBODY

if TYPE_CHECKING:
    from .box import Box
    from .users import User

WORLDS = tuple(World(file_system=kind) for kind in ("ext4", "xfs", "btrfs"))

WORK = """
set -e
echo text >note; ln note hard; ln -s note soft; mkdir -p deep/er; mkfifo pipe
setfattr -n user.colour -v blue note; setfacl -m u:$(id -u):r note
truncate -s 5G sparse; cp --sparse=always sparse copy
chmod 4755 hard; stat -c %u:%g note hard deep/er pipe | sort -u; stat -f -c %T .
"""


def test_a_day_in_a_home(box: Box, alice: User) -> None:
    seen = alice.ssh(WORK).stdout.split()
    assert seen[0] == f"{alice.uid}:{alice.uid}"
    assert seen[1] == {"ext4": "ext2/ext3"}.get(box.file_system, box.file_system)
    alice.wait_until("inactive")
    assert set(alice.owners_on_disk()) == {NOBODY}
    assert "blue" in alice.ssh("cat soft; getfattr -n user.colour note").stdout
    alice.wait_until("inactive")
    image = alice.image
    alice.homectl("remove")
    assert not box.path(image).exists()


def test_no_other_id_can_own_a_file(box: Box, alice: User) -> None:
    """Only nobody is mapped: root itself gets EOVERFLOW for anything else."""
    with alice.active():
        for argv in (
            ["touch", f"{alice.home}/of-root"],
            ["chown", "0:0", f"{alice.home}/.bashrc"],
            ["chown", "12345", f"{alice.home}/.bashrc"],
        ):
            refused = box.run(argv, check=False)
            assert refused.code != 0
            assert "too large" in refused.stderr or "Invalid argument" in refused.stderr
    assert set(alice.owners_on_disk()) == {NOBODY}


def test_files_come_and_go_by_their_thousands(box: Box, alice: User) -> None:
    alice.ssh("mkdir many && cd many && seq 5000 | xargs touch")
    alice.wait_until("inactive")
    assert len(alice.owners_on_disk()[NOBODY]) > 5000
    alice.homectl("remove")


KEEP = f"""
set -e; PATH="{PLACE}/bin:$PATH"
echo before >note; mkdir -p deep; echo deep >deep/er
homemgr snapshot create $USER first --full-copy --reason="a good day"
echo after >note; rm -r deep
homemgr snapshot restore $USER first --path=$HOME/note 2>refused && exit 1
homemgr snapshot restore $USER first --path=deep --path=../../etc/passwd 2>>refused && exit 1
homemgr snapshot restore $USER first --path=note --force
homemgr snapshot restore $USER first --path=deep
homemgr snapshot restore $USER first 2>>refused </dev/null && exit 1
homemgr snapshot list | cut -f 1,5; cat note deep/er; stat -c %u note deep/er | sort -u
echo later >note
"""


def test_its_user_has_his_files_again(box: Box, alice: User) -> None:
    """Who logs in needs nobody for that; the home as a whole is root's to give back."""
    seen = alice.ssh(KEEP).stdout.split("\n")
    listed = ["NAME\tREASON", "first\ta good day"]
    assert seen == ["first", *listed, "before", "deep", str(alice.uid), ""]
    alice.wait_until("inactive")
    alice.homectl("passwd", new_password="changed since then")
    old, alice.password = alice.password, "changed since then"
    box.run(["homemgr", "snapshot", "restore", alice.name, "first"])
    assert set(alice.owners_on_disk()) == {NOBODY}
    alice.homectl_refuses("authenticate", old)
    said = alice.ssh("cat note; test -e refused || echo as it was").stdout
    assert said.split("\n")[:2] == ["before", "as it was"]
    alice.wait_until("inactive")
    alice.homectl("remove")
    assert not list(box.path("/home/.homemgr").glob(f".homemgr-snapshots/*{alice.name}*"))
