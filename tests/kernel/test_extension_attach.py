"""Merging into a home: what is seen, whose it is on disk, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from homemgr.errors import NoDiskSpace, NotSupported
from homemgr.extension import attach, memory
from homemgr.extension.attach import Merged, Mode, Wanted
from homemgr.extension.home_side import Generation
from homemgr.extension.stack import Layer, Options, Owner, Upper, read_only, writable
from homemgr.extension.whole import WholeMode, merge_whole, mode_of
from homemgr.files import Fd
from homemgr.kernel import mounts
from tests.kernel import overlays
from tests.kernel.overlays import BIN, NOBODY, SHARE, USER, cleaned, marks_on, merged

FILES = {
    f"{BIN}/tool": "#!/bin/sh\necho one\n",
    f"{BIN}/other": "#!/bin/sh\necho other\n",
    f"{SHARE}/app/data": "data\n",
    f"{SHARE}/app/more/deep": "deep\n",
}
KINDS = ("directory", "tmpfs", "erofs", "squashfs")


@pytest.mark.parametrize("kind", KINDS)
def test_a_home_is_merged_changed_and_clean_again(every_area: Path, kind: str) -> None:
    with (
        overlays.home(every_area, {f"{BIN}/mine": "mine\n"}) as home,
        overlays.extension(every_area, "tools", FILES, kind) as tools,
    ):
        before = overlays.picture(home.stored)
        with merged(home, [tools]) as result:
            assert result == Merged([BIN, SHARE], {}, [], [])
            assert overlays.sh("ls .local/bin; .local/bin/tool", home.seen).split() == [
                "mine", "other", "tool", "one",
            ]  # fmt: skip
            overlays.sh(
                "echo changed >> .local/share/app/data; rm .local/bin/other;"
                " mv .local/bin/tool .local/bin/renamed; mkdir .local/share/new;"
                " rm -r .local/share/app/more; echo x > .local/share/new/file",
                home.seen,
            )
            assert home.owners() == {(NOBODY, NOBODY)}
            owners = {s.st_uid for _, s in overlays.everything(home.seen)}
            assert owners == {USER}
        assert cleaned(home).problems == []
        assert marks_on(home) == []
        assert home.owners() == {(NOBODY, NOBODY)}
        after = overlays.picture(home.stored)
        assert {path for path in after if path not in before} == {
            ".homemgr", ".homemgr/extensions.json", ".local/bin/renamed", SHARE, f"{SHARE}/app",
            f"{SHARE}/app/data", f"{SHARE}/new", f"{SHARE}/new/file",
        }  # fmt: skip
        with merged(home, [tools]):
            assert overlays.sh("ls .local/bin", home.seen).split() == ["mine", "renamed"]
            assert overlays.sh("ls .local/share/app", home.seen).split() == ["data"]
            assert (home.seen / SHARE / "app/data").read_text() == "data\nchanged\n"
        cleaned(home)
        assert overlays.picture(home.stored) == after


def test_an_unchanged_home_is_as_if_nothing_had_been(every_area: Path) -> None:
    with (
        overlays.home(every_area) as home,
        overlays.extension(every_area, "tools", FILES) as tools,
    ):
        # Empty, and the user's own, though the extension has it too.
        (home.stored / SHARE / "app/more").mkdir(parents=True)
        overlays.chown_all(home.stored)
        before = overlays.picture(home.stored)
        for mode in Mode:
            with merged(home, [tools], mode) as result:
                assert result.skipped == {}
                overlays.sh("cat .local/bin/tool .local/share/app/*/deep", home.seen)
            cleaned(home)
            assert overlays.picture(home.stored) == before


def test_no_path_of_the_store_is_in_the_mount_table(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES, "erofs") as tools:
        with Path("/proc/self/mountinfo").open(encoding="utf-8") as file:
            before = len(file.readlines())
        with merged(home, [tools]), Path("/proc/self/mountinfo").open(encoding="utf-8") as file:
            lines = file.readlines()
        # The home, and one for each merged directory.
        assert len(lines) == before + 3
        table = "".join(line for line in lines if "overlay" in line)
        assert "tools" not in table
        assert "homedir" not in table
        cleaned(home)


def test_layers_have_an_order_and_the_home_is_over_all_where_it_is_imported(area: Path) -> None:
    with (
        overlays.home(area, {f"{BIN}/a": "home"}) as home,
        overlays.extension(area, "x", {f"{BIN}/a": "x", f"{BIN}/b": "x"}) as x,
        overlays.extension(area, "y", {f"{BIN}/{n}": "y" for n in "abc"}) as y,
    ):
        for mode in Mode:
            with merged(home, [x, y], mode, [BIN]):
                found = [(home.seen / BIN / name).read_text() for name in "abc"]
            assert found == ["home" if mode.is_imported else "x", "x", "y"]
            cleaned(home)


@pytest.mark.parametrize("metacopy", [False, True])
def test_what_is_written_into_memory_is_gone(every_area: Path, metacopy: bool) -> None:
    with (
        overlays.home(every_area, {f"{BIN}/mine": "mine\n"}) as home,
        overlays.extension(every_area, "tools", FILES) as tools,
    ):
        before = overlays.picture(home.stored)
        options = Options(metacopy=metacopy)
        with merged(home, [tools], Mode.EPHEMERAL, options=options) as result:
            assert result.skipped == {}
            overlays.sh(
                "rm .local/bin/mine; echo x > .local/bin/new; chmod 700 .local/bin/tool", home.seen
            )
            assert overlays.sh("ls .local/bin", home.seen).split() == ["new", "other", "tool"]
        cleaned(home)
        assert overlays.picture(home.stored) == before


def test_a_read_only_directory_refuses_writes(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        with merged(home, [tools], Mode.READ_ONLY):
            script = "touch .local/bin/x 2>/dev/null && echo written || echo refused"
            assert overlays.sh(script, home.seen) == "refused\n"
        cleaned(home)


@pytest.mark.parametrize("mode", WholeMode)
@pytest.mark.parametrize("with_extension", [True, False])
def test_a_whole_home_can_be_merged(area: Path, mode: WholeMode, with_extension: bool) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        before = overlays.picture(home.stored)
        with home.view() as view, overlays.layers([tools], "") as found:
            layers = found if with_extension else []
            home.publish(merge_whole(view, layers, mode, Options()))
        with home.root() as root:
            assert mode_of(root) is mode
        assert (home.seen / ".profile").read_text() == "umask 022\n"
        assert (home.seen / BIN / "tool").exists() is with_extension
        status = home.seen.stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (USER, 0o700)
        done = overlays.sh("echo x > new 2>/dev/null && rm .profile || echo refused", home.seen)
        assert done == ("refused\n" if mode is WholeMode.READ_ONLY else "")
        home.take_away()
        assert overlays.picture(home.stored) == before


@pytest.mark.parametrize("mode", [m for m in Mode if m is not Mode.WRITABLE])
def test_what_was_deleted_and_changed_counts_where_it_is_imported(area: Path, mode: Mode) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        with merged(home, [tools], hierarchies=[BIN]):
            overlays.sh("rm .local/bin/other; echo mine > .local/bin/tool", home.seen)
        cleaned(home)
        before = overlays.picture(home.stored)
        with merged(home, [tools], mode, [BIN]):
            seen = overlays.sh("ls .local/bin; cat .local/bin/tool", home.seen).split()
            assert seen[:1] + seen[-1:] == (
                ["tool", "mine"] if mode.is_imported else ["other", "one"]
            )
            script = "echo x > .local/bin/new 2>/dev/null && rm .local/bin/tool || echo refused"
            done = overlays.sh(script, home.seen)
            assert done == ("refused\n" if mode.is_read_only else "")
        cleaned(home)
        assert overlays.picture(home.stored) == before


def test_deletions_are_hidden_only_where_an_extension_has_such_a_file(area: Path) -> None:
    with (
        overlays.home(area) as home,
        overlays.extension(area, "x", {f"{SHARE}/d/gone": "x", f"{SHARE}/d/here": "x"}) as x,
        overlays.extension(area, "y", {f"{SHARE}/d": "a file"}) as y,
    ):
        (area / "x.tree/home" / SHARE / "d").chmod(0o751)
        os.utime(area / "x.tree/home" / SHARE / "d", (1000, 1000))
        with merged(home, [x], hierarchies=[SHARE]):
            overlays.sh("rm .local/share/d/gone", home.seen)
        cleaned(home)
        with home.disk() as disk:
            assert memory.read(disk)[SHARE].deleted == {"d/gone"}
        with merged(home, [x], hierarchies=[SHARE]):
            assert os.listdir(home.seen / SHARE / "d") == ["here"]
        cleaned(home)
        # Of the extension's directory nothing is left but what is remembered.
        assert sorted(os.listdir(home.stored)) == [".homemgr", ".profile"]
        with merged(home, [x], Mode.IMPORT, [SHARE]):
            found = (home.seen / SHARE / "d").stat()
            assert (found.st_mode & 0o777, found.st_mtime, found.st_uid) == (0o751, 1000, USER)
        # What hides it must not make a directory of what is none in the first layer.
        with merged(home, [y, x], Mode.IMPORT, [SHARE]):
            assert (home.seen / SHARE / "d").read_text() == "a file"
        cleaned(home)


def test_a_replaced_directory_is_told_from_a_new_one_by_the_layers(area: Path) -> None:
    files = {f"{SHARE}/theirs/file": "x"}
    with overlays.home(area) as home, overlays.extension(area, "x", files) as x:
        with merged(home, [x], hierarchies=[SHARE]):
            overlays.sh(
                "cd .local/share; rm -r theirs; mkdir theirs mine; touch theirs/own mine/own",
                home.seen,
            )
        with overlays.layers([x], SHARE) as found:
            cleaned(home, {SHARE: found})
        with home.disk() as disk:
            assert memory.read(disk)[SHARE] == memory.Remembered(opaque=frozenset({"theirs"}))
        with merged(home, [x], hierarchies=[SHARE]):
            assert os.listdir(home.seen / SHARE / "theirs") == ["own"]
        cleaned(home)


def test_names_that_are_no_text_are_remembered(area: Path) -> None:
    name = os.fsdecode(b"\xff\xfe \n\"'")
    with overlays.home(area) as home, overlays.extension(area, "x", {f"{SHARE}/a": "x"}) as x:
        tree = area / "x.tree/home" / SHARE
        (tree / name).write_text("odd")
        os.chown(tree / name, NOBODY, NOBODY)
        with merged(home, [x], hierarchies=[SHARE]):
            overlays.as_user("rm", f"{SHARE}/{name}", cwd=home.seen)
        cleaned(home)
        with merged(home, [x], hierarchies=[SHARE]):
            assert os.listdir(home.seen / SHARE) == ["a"]
        cleaned(home)


def test_a_crash_is_cleaned_up_at_the_next_login(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        before = overlays.picture(home.stored)
        with merged(home, [tools]):
            overlays.sh("rm .local/bin/tool; touch .local/bin/.new; rm .local/bin/.new", home.seen)
        # No cleaning here: the power went.
        assert marks_on(home) != []
        with merged(home, [tools]) as result:
            assert result.problems == []
            assert os.listdir(home.seen / BIN) == ["other"]
        cleaned(home)
        (home.stored / ".homemgr/extensions.json").unlink()
        (home.stored / ".homemgr").rmdir()
        assert overlays.picture(home.stored) == before


HOSTILE = {
    "a link": "rm -rf .local; ln -s /etc .local",
    "a link at the end": "rm -rf .local/bin; ln -s /etc .local/bin",
    "a fifo": "rm -rf .local/bin; mkfifo .local/bin",
    "a file": "rm -rf .local/bin; touch .local/bin",
    "a file above": "rm -rf .local; touch .local",
}
HOSTILE_OURS = {
    "ours is a link": "ln -s /etc .homemgr",
    "ours is a file": "touch .homemgr",
    "work is a link": "mkdir .homemgr; ln -s /etc .homemgr/work",
    "work is a fifo": "mkdir .homemgr; mkfifo .homemgr/work",
    "work cannot be entered": "mkdir -p .homemgr/work; touch .homemgr/work/aaaaaaaaaaaa",
}


@pytest.mark.parametrize("what", [*HOSTILE, *HOSTILE_OURS])
def test_a_hostile_home_is_left_out_with_a_reason(area: Path, what: str) -> None:
    etc = overlays.picture(Path("/etc/skel"))
    listed = sorted(os.listdir("/etc"))
    with (
        overlays.home(area, {f"{BIN}/mine": "x"}) as home,
        overlays.extension(area, "tools", FILES) as tools,
    ):
        with home.view() as view:
            home.publish(view)
        overlays.sh((HOSTILE | HOSTILE_OURS)[what], home.seen)
        home.take_away()
        for mode in Mode:
            with merged(home, [tools], mode, [BIN]) as result:
                if what == "work cannot be entered":
                    assert result.merged == [BIN]
                else:
                    assert list(result.skipped) == [BIN]
                    assert result.skipped[BIN].startswith("~/")
        cleaned(home)
    assert overlays.picture(Path("/etc/skel")) == etc
    assert sorted(os.listdir("/etc")) == listed


MEMORIES = {
    "garbage": b"\xff\xfe{",
    "deep": b"[" * 100_000,
    "no object": b"[]",
    "version": b'{"version": 2, "hierarchies": {}}',
    "no lists": json.dumps({"version": 1, "hierarchies": {BIN: {"deleted": "tool"}}}).encode(),
    "up": json.dumps({"version": 1, "hierarchies": {BIN: {"deleted": ["../../x"]}}}).encode(),
    "absolute": json.dumps({"version": 1, "hierarchies": {"/etc": {"deleted": ["x"]}}}).encode(),
    "nul": json.dumps({"version": 1, "hierarchies": {BIN: {"deleted": ["a\0b"]}}}).encode(),
    "surrogate": b'{"version": 1, "hierarchies": {"x": {"deleted": ["\\ud800"]}}}',
    "huge": b" " * (5 << 20),
}  # fmt: skip


@pytest.mark.parametrize("content", MEMORIES.values(), ids=list(MEMORIES))
def test_a_memory_that_is_not_in_order_is_told_and_replaced(area: Path, content: bytes) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        (home.stored / ".homemgr").mkdir()
        (home.stored / ".homemgr" / memory.NAME).write_bytes(content)
        overlays.chown_all(home.stored)
        with merged(home, [tools], hierarchies=[BIN]) as result:
            assert result.merged == [BIN]
            assert "extensions.json is not in order" in result.problems[0]
            overlays.sh("rm .local/bin/tool", home.seen)
        cleaned(home)
        with home.disk() as disk:
            assert memory.read(disk)[BIN].deleted == {"tool"}


@pytest.mark.parametrize("make", ["symlink", "directory", "fifo"])
def test_a_memory_that_is_no_file_stops_nothing(area: Path, make: str) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        path = home.stored / ".homemgr" / memory.NAME
        path.parent.mkdir()
        {
            "symlink": lambda: path.symlink_to("/etc/passwd"),
            "directory": path.mkdir,
            "fifo": lambda: os.mkfifo(path),
        }[make]()
        overlays.chown_all(home.stored)
        with merged(home, [tools], hierarchies=[BIN]) as result:
            assert result.merged == [BIN]
        assert "not in order" in cleaned(home).problems[0]


def test_forged_notes_lead_nowhere(area: Path) -> None:
    with overlays.home(area) as home:
        outside = area / "outside"
        outside.mkdir()
        work = home.stored / ".homemgr/work/aaaaaaaaaaaa"
        work.mkdir(parents=True)
        for number, target in enumerate(
            ("../outside", str(outside), "x" * 900, ".", "..", "a/../..")
        ):
            (work / f"{number}-0").symlink_to(target)
        (work / "7-9999").symlink_to("missing")
        os.mkfifo(work / "8-0")
        overlays.chown_all(home.stored)
        assert cleaned(home).problems == []
        assert outside.is_dir()
        assert not (home.stored / ".homemgr").exists()


def test_too_many_and_too_deep_are_explained_before_mounting(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "x", {f"{BIN}/a": "x"}) as x:
        with home.view() as view, overlays.layers([x], BIN) as found:
            (one,) = found
            wanted = [Wanted(BIN, [one] * 500)]
            result = attach.merge(view, wanted, Options())
            assert "the limit is" in result.skipped[BIN]
        cleaned(home)


def test_an_overlay_that_came_up_read_only_is_a_failure(area: Path) -> None:
    """Strictly mapped, and mounted as root: the kernel cannot make its work directory."""
    with overlays.home(area, {f"{BIN}/mine": "x"}) as home, overlays.extension(
        area, "x", {f"{BIN}/a": "x"}
    ) as x, home.view() as view, overlays.layers([x], BIN) as found:  # fmt: skip
        overlays.chown_all(home.stored)
        (home.stored / "w").mkdir()
        overlays.chown_all(home.stored)
        with (
            Fd.open(BIN, os.O_PATH, dir_fd=view.fileno()) as own,
            Fd.open("w", os.O_PATH, dir_fd=view.fileno()) as work,
            pytest.raises(NotSupported, match="only read-only"),
        ):
            writable(found, Upper(own, work), Owner(0, 0), Options())


def test_overlays_can_wait_for_the_home_to_be_published(area: Path) -> None:
    """As on kernels before 6.15."""
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        view = home.view()
        result = Merged([BIN], {}, [], [])
        with (
            overlays.wanted([tools], hierarchies=[BIN]) as wanted,
            Generation.begin(view) as generation,
        ):
            mount = attach.build(view, generation, wanted[0], memory.NOTHING, Options())
            result.waiting.append(attach.Waiting(BIN, mount))
        home.publish(view)
        with home.root() as root:
            attach.attach_waiting(root, result)
        assert result == Merged([BIN], {}, [], [])
        assert os.listdir(home.seen / BIN)
        overlays.sh("rm .local/bin/tool", home.seen)
        home.take_away()
        cleaned(home)
        assert marks_on(home) == []


def test_subvolumes_as_homes_and_in_homes(every_area: Path) -> None:
    def subvolume(path: Path) -> bool:
        done = subprocess.run(
            ["btrfs", "subvolume", "create", str(path)], check=False, capture_output=True
        )
        return done.returncode == 0

    base = every_area / "base"
    if not subvolume(base):
        # Only one kind of file system has them.
        return
    with (
        overlays.home(base, {".local/x": ""}) as home,
        overlays.extension(every_area, "tools", FILES) as tools,
    ):
        shutil.rmtree(home.stored)
        assert subvolume(home.stored)
        (home.stored / ".local").mkdir()
        assert subvolume(home.stored / SHARE)
        overlays.chown_all(home.stored)
        with merged(home, [tools]) as result:
            assert result.merged == [BIN]
            assert "another subvolume" in result.skipped[SHARE]
            overlays.sh("echo x >> .local/bin/tool; rm .local/bin/other", home.seen)
        cleaned(home)
        with merged(home, [tools], Mode.IMPORT) as result:
            assert result.merged == [BIN, SHARE]
            assert os.listdir(home.seen / BIN) == ["tool"]
        cleaned(home)
        assert marks_on(home) == []


def test_a_full_home_keeps_its_marks_until_there_is_room(area: Path) -> None:
    small = area / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)], check=True)
    with overlays.extension(area, "tools", FILES) as tools:
        with overlays.home(small) as home:
            with merged(home, [tools]):
                overlays.sh("rm .local/bin/tool", home.seen)
                overlays.sh("cat /dev/zero > fill 2>/dev/null || true", home.seen)
            with pytest.raises(NoDiskSpace):
                cleaned(home)
            assert f"{BIN}/tool" in marks_on(home)
            (home.stored / "fill").unlink()
            cleaned(home)
            assert marks_on(home) == []
            with home.disk() as disk:
                assert memory.read(disk)[BIN].deleted == {"tool"}
        mounts.umount2(str(small), 0)


def test_mounts_forbid_what_the_record_says(area: Path) -> None:
    with overlays.home(area) as home, overlays.extension(area, "tools", FILES) as tools:
        for mode in Mode:
            options = Options(nosuid=True, nodev=True, noexec=True)
            with merged(home, [tools], mode, options=options):
                flags = os.statvfs(home.seen / BIN).f_flag
                assert flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC) == 14
            cleaned(home)


def test_stacked_layers_are_taken_once_and_explained_beyond(area: Path) -> None:
    with (
        overlays.home(area) as home,
        overlays.extension(area, "a", {f"{BIN}/a": "a"}) as a,
        overlays.extension(area, "b", {f"{BIN}/b": "b"}) as b,
        overlays.layers([a, b], BIN) as found,
        home.view() as view,
    ):
        owner = Owner(USER, USER)
        with read_only(found, owner, Options()) as once:
            result = attach.merge(view, [Wanted(BIN, [Layer("once", once)])], Options())
            assert result.skipped == {}
            with read_only([Layer("once", once), found[0]], owner, Options()) as twice:
                result = attach.merge(view, [Wanted(SHARE, [Layer("twice", twice)])], Options())
                assert "the kernel allows 2" in result.skipped[SHARE]
        # Closed with the view is everything that was attached to it.
