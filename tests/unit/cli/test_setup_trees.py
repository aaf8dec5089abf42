"""`homemgr setup` and `unsetup` on image trees: nothing but what it says, and all of it back."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from homemgr.cli.setup import act, pam, plan, share
from homemgr.cli.setup.act import setup, unsetup
from homemgr.cli.setup.journal import PATH as JOURNAL
from homemgr.cli.setup.journal import Journal
from homemgr.cli.setup.tree import State, Tree
from homemgr.errors import HomeBusy, InvalidArgs, NotSupported

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = "/opt/homemgr/bin"
NSSWITCH = (
    "passwd:         files\ngroup:          files # local\nshadow: files systemd\nhosts: dns\n"
)
HOMED_LINKS = {
    "multi-user.target.wants/systemd-homed.service": "/lib/systemd/system/systemd-homed.service",
    plan.ALIAS: "/lib/systemd/system/systemd-homed.service",
}


def write(root: Path, path: str, text: str = "") -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What a Debian machine with systemd-homed and sshd looks like to setup."""
    for path in (
        "usr/lib/systemd/systemd",
        "usr/lib/x86_64-linux-gnu/libnss_systemd.so.2",
        "usr/lib/x86_64-linux-gnu/security/pam_systemd_home.so",
        "usr/lib/systemd/system/systemd-homed.service",
        "usr/lib/systemd/system/systemd-homed-activate.service",
        "usr/lib/systemd/system/systemd-homed-firstboot.service",
        "usr/share/pam-configs/unix",
        f"{PROGRAMS}/homemgr",
        f"{PROGRAMS}/homemgrd",
    ):
        write(tmp_path, path)
    (tmp_path / "lib").symlink_to("usr/lib")
    write(tmp_path, "etc/nsswitch.conf", NSSWITCH)
    write(tmp_path, "etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n")
    for name, target in HOMED_LINKS.items():
        link = tmp_path / "etc/systemd/system" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return tmp_path


def digest(root: Path) -> dict[str, str]:
    """Every path with its kind, mode, owner and contents."""
    found = {}
    for place, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(place, name)
            status = os.lstat(path)
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isdir(path):
                content = "directory"
            else:
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            owner = f"{status.st_mode:o} {status.st_uid}:{status.st_gid}"
            found[os.path.relpath(path, root)] = f"{owner} {content}"
    return found


def set_up(root: Path) -> list[str]:
    said: list[str] = []
    setup(Tree(str(root)), PROGRAMS, said.append)
    return said


def take_away(root: Path) -> list[str]:
    said: list[str] = []
    unsetup(Tree(str(root)), said.append)
    return said


def read(root: Path, path: str) -> str:
    return (root / path.lstrip("/")).read_text()


def test_unsetup_leaves_the_tree_as_it_was(root: Path) -> None:
    before = digest(root)
    set_up(root)
    assert digest(root) != before
    take_away(root)
    assert digest(root) == before


def test_unsetup_after_systemd_homed_was_purged_leaves_no_links_to_nothing(root: Path) -> None:
    set_up(root)
    for name in ("systemd-homed.service", "systemd-homed-activate.service"):
        (root / "usr/lib/systemd/system" / name).unlink()
        (root / plan.ENABLED.lstrip("/") / name).unlink()
    said = take_away(root)
    assert f"removed   {plan.ENABLED}/{plan.ALIAS}" in said
    assert not (root / plan.ENABLED.lstrip("/") / plan.ALIAS).is_symlink()
    assert not (root / JOURNAL.lstrip("/")).exists()


@pytest.fixture
def refusing_pam(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose pam-auth-update changes nothing, as where common-* were edited by hand."""
    write(root, pam.PROGRAM)
    write(root, "etc/pam.d/common-auth", "auth required pam_unix.so\n")
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(pam.subprocess, "run", lambda *_, **__: done)
    return root


def test_refusal_of_pam_takes_the_whole_setup_back(refusing_pam: Path) -> None:
    before = digest(refusing_pam)
    for _ in range(2):
        with pytest.raises(NotSupported, match="pam-auth-update --force"):
            set_up(refusing_pam)
        assert digest(refusing_pam) == before
    assert take_away(refusing_pam) == [f"Nothing to do: {refusing_pam} was not set up."]


def test_failure_of_a_later_setup_leaves_the_earlier_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(root)
    set_up(root)
    write(root, pam.PROGRAM)
    write(root, "etc/pam.d/common-auth", "auth required pam_unix.so\n")
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(pam.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(NotSupported):
        set_up(root)
    assert "homemgrd" in read(root, f"{plan.UNITS}/homemgrd.service")
    for path in (pam.PROGRAM, "etc/pam.d/common-auth"):
        (root / path.lstrip("/")).unlink()
    for path in ("usr/sbin", "etc/pam.d"):
        (root / path).rmdir()
    take_away(root)
    assert digest(root) == before


def test_every_changed_path_is_said(root: Path) -> None:
    before = digest(root)
    said = "\n".join(set_up(root))
    after = digest(root)
    changed = {p for p in after if after[p] != before.get(p) and not after[p].endswith("directory")}
    assert changed - {JOURNAL.lstrip("/")}
    for path in changed - {JOURNAL.lstrip("/")}:
        assert f"/{path}" in said


def test_units_name_the_installed_programs(root: Path) -> None:
    set_up(root)
    assert f"ExecStart={PROGRAMS}/homemgrd\n" in read(root, f"{plan.UNITS}/homemgrd.service")
    activate = read(root, f"{plan.UNITS}/homemgr-activate.service")
    assert f"ExecStop={PROGRAMS}/homemgr deactivate-all\n" in activate
    firstboot = read(root, f"{plan.UNITS}/homemgr-firstboot.service")
    assert f"ExecStart={PROGRAMS}/homemgr firstboot --prompt-new-user " in firstboot
    wants = root / "etc/systemd/system/homemgrd.service.wants/homemgr-firstboot.service"
    assert os.readlink(wants) == f"{plan.UNITS}/homemgr-firstboot.service"
    wants = root / "etc/systemd/system/multi-user.target.wants/homemgrd.service"
    assert os.readlink(wants) == f"{plan.UNITS}/homemgrd.service"


def test_homed_is_masked_and_its_alias_is_ours(root: Path) -> None:
    set_up(root)
    units = root / "etc/systemd/system"
    assert os.readlink(units / "systemd-homed.service") == "/dev/null"
    assert os.readlink(units / "systemd-homed-activate.service") == "/dev/null"
    assert os.readlink(units / "systemd-homed-firstboot.service") == "/dev/null"
    assert os.readlink(units / plan.ALIAS) == f"{plan.UNITS}/homemgrd.service"


def test_without_homed_nothing_is_masked(root: Path) -> None:
    os.unlink(root / "usr/lib/systemd/system/systemd-homed.service")
    os.unlink(root / "usr/lib/systemd/system/systemd-homed-activate.service")
    set_up(root)
    assert not os.path.lexists(root / "etc/systemd/system/systemd-homed.service")


def test_second_setup_changes_nothing_and_unsetup_still_knows_the_original(root: Path) -> None:
    before = digest(root)
    set_up(root)
    once = digest(root)
    said = set_up(root)
    assert digest(root) == once
    assert any(line.startswith("Set up: 0 of ") for line in said)
    take_away(root)
    assert digest(root) == before


def test_second_unsetup_says_there_is_nothing_to_do(root: Path) -> None:
    set_up(root)
    take_away(root)
    assert take_away(root) == [f"Nothing to do: {root} was not set up."]


def test_setup_with_another_program_directory_renews_the_unit(root: Path) -> None:
    before = digest(root)
    set_up(root)
    for name in ("homemgr", "homemgrd"):
        write(root, f"/usr/local/bin/{name}")
    between = digest(root)
    setup(Tree(str(root)), "/usr/local/bin", lambda _: None)
    assert "ExecStart=/usr/local/bin/homemgrd" in read(root, f"{plan.UNITS}/homemgrd.service")
    assert digest(root) != between
    take_away(root)
    added = {p: d for p, d in digest(root).items() if before.get(p) != d}
    assert {p for p in added if "directory" not in added[p]} == {
        "usr/local/bin/homemgr",
        "usr/local/bin/homemgrd",
    }


def interrupt_after(root: Path, steps: int) -> None:
    """Run a setup that dies after so many changes: its journal says what it had in mind."""
    tree = Tree(str(root))
    count = 0

    class Dies(Exception):
        pass

    def say(text: str) -> None:
        nonlocal count
        count += text.startswith(("new", "replaced"))
        if count == steps:
            raise Dies

    with pytest.raises(Dies):
        setup(tree, PROGRAMS, say)


@pytest.mark.parametrize("steps", range(1, 11))
def test_an_interrupted_setup_can_be_undone(root: Path, steps: int) -> None:
    before = digest(root)
    interrupt_after(root, steps)
    take_away(root)
    assert digest(root) == before


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_an_interrupted_setup_can_be_completed(root: Path, steps: int) -> None:
    interrupt_after(root, steps)
    assert "remark:   an earlier setup was interrupted, completing it" in set_up(root)
    assert Journal(Tree(str(root))).complete


def test_interrupted_renewal_still_knows_the_old_unit_as_its_own(root: Path) -> None:
    before = digest(root)
    set_up(root)
    tree = Tree(str(root))
    journal = Journal(tree)
    unit = f"{plan.UNITS}/homemgrd.service"
    # As if killed between the journal and the file.
    journal.note(unit, tree.state(unit), State(b"newer"))
    journal.save()
    take_away(root)
    assert digest(root) == before


def test_nsswitch_gets_systemd_where_it_is_missing(root: Path) -> None:
    set_up(root)
    text = read(root, "/etc/nsswitch.conf")
    assert "passwd:         files systemd\n" in text
    assert "group:          files systemd # local\n" in text
    assert "shadow: files systemd\n" in text
    assert "hosts: dns\n" in text


def test_nsswitch_without_a_line_gets_one() -> None:
    text, added = plan.with_systemd("hosts: files\n")
    assert added == ["passwd", "group", "shadow"]
    assert text.splitlines()[1:] == [f"{d}: files systemd" for d in added]


def test_complete_nsswitch_is_left_alone(root: Path) -> None:
    text = "".join(f"{d}: files systemd\n" for d in ("passwd", "group", "shadow", "gshadow"))
    write(root, "etc/nsswitch.conf", text)
    said = set_up(root)
    assert "remark:   nsswitch: systemd is there for passwd, group and shadow." in said
    assert Journal(Tree(str(root))).find(plan.NSSWITCH) is None


def test_a_file_changed_since_by_somebody_else_is_left_as_it_is(root: Path) -> None:
    set_up(root)
    write(root, "etc/nsswitch.conf", "passwd: files systemd ldap\n")
    said = take_away(root)
    assert read(root, "/etc/nsswitch.conf") == "passwd: files systemd ldap\n"
    assert any("/etc/nsswitch.conf was changed since setup" in line for line in said)


def test_our_edited_unit_is_out_of_effect_but_not_lost(root: Path) -> None:
    set_up(root)
    write(root, f"{plan.UNITS}/homemgrd.service", "edited")
    take_away(root)
    assert not (root / plan.UNITS.lstrip("/") / "homemgrd.service").exists()
    assert read(root, f"{plan.UNITS}/homemgrd.service~") == "edited"


def test_setup_refuses_to_overwrite_our_edited_unit(root: Path) -> None:
    set_up(root)
    write(root, f"{plan.UNITS}/homemgrd.service", "edited")
    with pytest.raises(NotSupported, match="changed after the earlier setup"):
        set_up(root)


def test_a_file_of_that_name_from_somebody_else_comes_back(root: Path) -> None:
    write(root, plan.SSHD, "# the administrator's\n")
    os.chmod(root / plan.SSHD.lstrip("/"), 0o600)
    before = digest(root)
    set_up(root)
    assert "userdbctl" in read(root, plan.SSHD)
    take_away(root)
    assert digest(root) == before


def test_an_existing_keys_command_stays(root: Path) -> None:
    write(root, "etc/ssh/sshd_config.d/20-systemd-userdb.conf", "AuthorizedKeysCommand /bin/x\n")
    said = set_up(root)
    assert not (root / plan.SSHD.lstrip("/")).exists()
    assert any("AuthorizedKeysCommand is configured already" in line for line in said)


def test_without_sshd_the_drop_in_is_left_out(root: Path) -> None:
    os.unlink(root / "etc/ssh/sshd_config")
    assert "remark:   ssh: no server here. Run setup again once there is one." in set_up(root)
    assert not (root / plan.SSHD.lstrip("/")).exists()


def test_bus_activation_of_the_package_is_kept(root: Path) -> None:
    write(root, f"usr/share/{plan.ACTIVATION}", "[D-BUS Service]\n")
    set_up(root)
    assert not (root / f"usr/local/share/{plan.ACTIVATION}").exists()


def action_ids(text: str) -> list[str]:
    return [str(a.get("id")) for a in ElementTree.fromstring(text).findall("action")]


def test_polkit_actions_of_a_package_are_left_out(root: Path) -> None:
    theirs = '<policyconfig><action id="org.freedesktop.home1.create-home"/></policyconfig>'
    write(root, f"{plan.POLKIT}/org.freedesktop.home1.policy", theirs)
    set_up(root)
    left = action_ids(read(root, plan.POLKIT_OWN))
    assert len([name for name in left if name.startswith("org.freedesktop.home1.")]) == 8
    assert "org.freedesktop.home1.create-home" not in left
    assert "org.freedesktop.home1.activate-home" in left


def test_all_nine_actions_come_with_the_defaults_of_homed() -> None:
    actions = ElementTree.fromstring(share.read("policy", "org.homemgr.policy")).findall("action")
    theirs = [a for a in actions if str(a.get("id")).startswith("org.freedesktop.home1.")]
    assert len(theirs) == 9
    for action in theirs:
        defaults = [d.text for d in action.findall("defaults/*")]
        last = "yes" if str(action.get("id")).endswith(".update-home-by-owner") else None
        assert defaults == ["auth_admin_keep", "auth_admin_keep", last or "auth_admin_keep"]


def test_people_choose_extensions_without_asking_and_move_with_their_password(root: Path) -> None:
    """Also where systemd-homed's package defines all of its own actions."""
    set_up(root)
    actions = ElementTree.fromstring(read(root, plan.POLKIT_OWN)).findall("action")
    ours = {
        str(a.get("id")).removeprefix("org.homemgr1."): {d.text for d in a.findall("defaults/*")}
        for a in actions
        if str(a.get("id")).startswith("org.homemgr1.")
    }
    assert ours == {
        "choose-extension": {"auth_admin_keep"},
        "repair-home": {"auth_admin_keep"},
        "choose-extension-own": {"yes"},
        "refresh-extensions": {"auth_admin_keep"},
        "refresh-extensions-own": {"yes"},
        "send-home": {"auth_admin_keep"},
        "send-home-own": {"auth_self"},
        "receive-home": {"auth_admin_keep"},
        "convert-account": {"auth_admin_keep"},
        "convert-home": {"auth_admin_keep"},
        "export-home": {"auth_admin_keep"},
        "export-home-own": {"auth_self"},
        "manage-snapshots": {"auth_admin_keep"},
        "manage-snapshots-own": {"yes"},
        "restore-home": {"auth_admin_keep"},
        "restore-home-own": {"auth_self"},
    }


def test_bus_policy_opens_whole_interfaces() -> None:
    """Defect 10: AdoptHome was forgotten in a list of members, so here is no list."""
    config = ElementTree.fromstring(share.read("policy", "org.homemgr.conf"))
    rules = config.findall("policy[@context='default']/allow")
    open_to_all = {(r.get("send_interface"), r.get("send_member")) for r in rules}
    assert ("org.freedesktop.home1.Manager", None) in open_to_all
    assert ("org.freedesktop.home1.Home", None) in open_to_all
    # A rule without interface would open the object manager and the log control as well.
    assert all(r.get("send_interface") for r in rules if r.get("send_destination"))


def test_pam_profile_makes_refusals_final_and_spares_local_users() -> None:
    profile = "".join(share.read("policy", f"{name}.pam") for name in plan.PAM)
    lines = [line.strip() for line in profile.splitlines() if "pam_systemd_home.so" in line]
    assert len(lines) == 4
    for line in lines:
        control = line[1 : line.index("]")].split()
        # The module may be uninstalled: that must not lock root out.
        over = "2" if "service_err=ignore" in control else "ignore"
        assert {f"user_unknown={over}", f"module_unknown={over}"} <= {*control}
        assert "default=die" in control or "default=bad" in control
    assert profile.count("pam_localuser.so") == 4
    # What ends the questions is no broken service to those who log in.
    after = profile.partition("service_err=ignore")[2].splitlines()[1:3]
    assert [line.split()[-1] for line in after] == ["pam_deny.so", "pam_permit.so"]


def test_pam_auth_update_knows_its_own_work_again() -> None:
    """It takes the first number out of a control to compare: beside "end" none may stand."""
    profile = "".join(share.read("policy", f"{name}.pam") for name in plan.PAM)
    controls = [line.partition("]")[0] for line in profile.splitlines() if "[" in line]
    assert controls
    assert not [c for c in controls if "=end" in c and any(map(str.isdigit, c))]


def test_password_profile_stands_behind_that_of_pam_unix() -> None:
    """In front of it, as systemd-homed's does, `passwd` fails for every local account."""
    priorities = {
        name: int(share.read("policy", f"{name}.pam").split("Priority: ")[1].split()[0])
        for name in plan.PAM
    }
    assert priorities["homemgr-password"] < 256 < priorities["homemgr"]
    assert "Password" not in share.read("policy", "homemgr.pam").split("Auth-Type", 1)[1]


def test_missing_libraries_are_named_with_their_package(root: Path) -> None:
    os.unlink(root / "usr/lib/x86_64-linux-gnu/security/pam_systemd_home.so")
    said = "\n".join(set_up(root))
    assert "pam_systemd_home.so is missing" in said
    assert "apt-get install systemd-homed" in said


def test_a_tree_without_systemd_is_refused_and_untouched(root: Path) -> None:
    os.unlink(root / "usr/lib/systemd/systemd")
    before = digest(root)
    with pytest.raises(NotSupported, match="no systemd"):
        set_up(root)
    assert digest(root) == before


def test_a_tree_without_the_programs_is_refused_and_untouched(root: Path) -> None:
    before = digest(root)
    with pytest.raises(NotSupported, match="/usr/bin/homemgrd does not exist"):
        setup(Tree(str(root)), "/usr/bin", lambda _: None)
    assert digest(root) == before


def test_a_program_path_that_a_unit_cannot_hold_is_refused(root: Path) -> None:
    with pytest.raises(NotSupported, match="such characters"):
        setup(Tree(str(root)), "/opt/my programs", lambda _: None)


@pytest.mark.parametrize("path", ["relative", "/nonexistent"])
def test_a_root_that_is_none_is_refused(path: str) -> None:
    with pytest.raises((InvalidArgs, NotSupported)):
        Tree(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}'])
def test_a_damaged_journal_is_refused(root: Path, text: str) -> None:
    write(root, JOURNAL, text)
    before = digest(root)
    for run in (set_up, take_away):
        with pytest.raises(NotSupported, match=JOURNAL):
            run(root)
    assert digest(root) == before


def test_two_at_once_are_refused(root: Path) -> None:
    lock = type(root)(act.lock_path(Tree(str(root))))
    command = ["flock", str(lock), "-c", "echo; read x"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(HomeBusy, match="right now"):
            set_up(root)
        other.communicate(b"\n")
    lock.unlink()
    set_up(root)
    assert not lock.exists()


def test_links_of_an_image_stay_inside_it(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    os.rename(root / "etc", root / "real-etc")
    (root / "etc").symlink_to("/real-etc")
    (root / "usr/local").symlink_to(f"/../..{outside}")
    (root / str(outside).lstrip("/")).mkdir(parents=True)
    set_up(root)
    assert os.listdir(outside) == []
    assert (root / str(outside).lstrip("/") / "lib/systemd/system/homemgrd.service").exists()
    assert "systemd" in (root / "real-etc/nsswitch.conf").read_text()


def test_a_directory_in_the_way_is_refused(root: Path) -> None:
    (root / plan.SSHD.lstrip("/")).mkdir(parents=True)
    with pytest.raises(NotSupported, match="neither a file nor a symbolic link"):
        set_up(root)
