"""What a setup does to a tree, as data: a list of paths, what each will hold, and why.

Only looks, changes nothing. The facts behind it: systemd.unit(5), dbus-daemon(1),
polkit(8), sshd_config(5), nsswitch.conf(5); `pam` handles the PAM stack.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from homemgr.cli.manual import PAGES
from homemgr.cli.setup import live, share
from homemgr.cli.setup.tree import State
from homemgr.cli.verbs.completion import SCRIPTS
from homemgr.errors import NotSupported

if TYPE_CHECKING:
    from homemgr.cli.setup.journal import Journal
    from homemgr.cli.setup.tree import Tree

UNITS = "/usr/local/lib/systemd/system"
ENABLED = "/etc/systemd/system"
ALIAS = "dbus-org.freedesktop.home1.service"
ACTIVATION = "dbus-1/system-services/org.freedesktop.home1.service"
POLKIT = "/usr/share/polkit-1/actions"
POLKIT_OWN = f"{POLKIT}/org.homemgr.policy"
SSHD = "/etc/ssh/sshd_config.d/50-homemgr.conf"
NSSWITCH = "/etc/nsswitch.conf"
PAM_PROFILES = "/usr/share/pam-configs"
MAN = "/usr/local/share/man"
#: Where each shell looks for what completes the command lines of a program.
COMPLETIONS = {
    "bash": "/usr/local/share/bash-completion/completions/homemgr",
    "zsh": "/usr/local/share/zsh/site-functions/_homemgr",
    "fish": "/usr/local/share/fish/vendor_completions.d/homemgr.fish",
}
#: Name of each profile, and what it is for. Two, because their places in the stack differ:
#: a password module in front of pam_unix takes its question away, and with it `passwd` from
#: everybody whose account is in /etc/passwd.
PAM = {
    "homemgr": "PAM profile: logins open the home, refusals are final",
    "homemgr-password": "PAM profile: passwd reaches the home, after the accounts of this machine",
}

_ACTION = re.compile(r'action\s+id="(org\.freedesktop\.home1\.[a-z-]+)"')
_SAFE_PROGRAM = re.compile(r"/[A-Za-z0-9/._+-]+")


@dataclass(frozen=True)
class Step:
    """One path to bring into one state, with the reason shown to the administrator."""

    path: str
    wanted: State
    why: str

    def describe(self) -> str:
        """What will be there, in one line."""
        arrow = f" -> {self.wanted.target}" if self.wanted.target is not None else ""
        return f"{self.path}{arrow}: {self.why}"


@dataclass
class Plan:
    """All steps of a setup in order, and remarks on what is left out or missing."""

    steps: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def put(self, path: str, text: str, why: str) -> None:
        """A file."""
        self.steps.append(Step(path, State(text.encode()), why))

    def link(self, path: str, target: str, why: str) -> None:
        """A symbolic link."""
        self.steps.append(Step(path, State(target=target), why))


def make(tree: Tree, journal: Journal, programs: str) -> Plan:
    """The plan for ``tree``; ``programs`` is the directory of homemgr and homemgrd inside it."""
    plan = Plan()
    _require(tree, plan)
    _units(tree, plan, programs)
    _bus(tree, plan)
    _polkit(tree, plan)
    _sshd(tree, plan)
    _nsswitch(tree, plan, journal)
    _for_people(plan)
    if tree.names(PAM_PROFILES):
        for name, why in PAM.items():
            plan.put(f"{PAM_PROFILES}/{name}", share.read("policy", f"{name}.pam"), why)
    return plan


def _require(tree: Tree, plan: Plan) -> None:
    """Refuse a tree this service cannot work in; remark on what logins will miss."""
    if not any(tree.exists(p) for p in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")):
        raise NotSupported(f"{tree.root} has no systemd, which is what runs the service.")
    wanted = (
        ("libnss_systemd.so.2", "", "libnss-systemd", "accounts are invisible to getent and id"),
        ("pam_systemd_home.so", "security/", "systemd-homed", "nobody can log in to a home"),
    )
    for name, below, package, consequence in wanted:
        if not _has_library(tree, below + name):
            plan.remarks.append(
                f"{name} is missing, so {consequence}: "
                f"apt-get install {package}, then run setup again."
            )


def _has_library(tree: Tree, name: str) -> bool:
    places = [base for base in ("/usr/lib", "/lib", "/usr/lib64", "/lib64") if tree.exists(base)]
    # Debian's multiarch directories are one level deeper.
    deeper = [f"{p}/{d}" for p in places for d in tree.names(p) if "-linux-" in d]
    return any(tree.exists(f"{p}/{name}") for p in [*places, *deeper])


def _units(tree: Tree, plan: Plan, programs: str) -> None:
    # A half installation would only show at the next boot.
    for place in ("homemgrd", "homemgr"):
        program = os.path.join(programs, place)
        if not _SAFE_PROGRAM.fullmatch(program):
            raise NotSupported(f"{program}: a unit file cannot name a path with such characters.")
        if not tree.exists(program):
            raise NotSupported(
                f"{program} does not exist in {tree.root}: install homemgr there first, "
                "or name its directory with --programs=DIR."
            )
    for name, why in (
        ("homemgrd.service", "the service"),
        ("homemgr-activate.service", "deactivates all homes at shutdown"),
        ("homemgr-firstboot.service", "makes the first user at the first boot"),
    ):
        text = share.read("units", name)
        text = text.replace("@HOMEMGRD@", f"{programs}/homemgrd")
        plan.put(f"{UNITS}/{name}", text.replace("@HOMEMGR@", f"{programs}/homemgr"), why)
    # Masked and not just disabled: an update of the package would enable it again.
    for name in (live.HOMED, live.HOMED_ACTIVATE, live.HOMED_FIRSTBOOT):
        if any(tree.exists(f"{base}/systemd/system/{name}") for base in live.UNIT_BASES):
            plan.link(f"{ENABLED}/{name}", "/dev/null", "mask: homemgrd does its work now")
    service = f"{UNITS}/homemgrd.service"
    # What `systemctl enable` would make, made here so that the journal knows of it.
    plan.link(f"{ENABLED}/{ALIAS}", service, "the unit that the bus starts on demand")
    plan.link(f"{ENABLED}/multi-user.target.wants/homemgrd.service", service, "start at boot")
    for name in ("homemgr-activate.service", "homemgr-firstboot.service"):
        wants = f"{ENABLED}/homemgrd.service.wants/{name}"
        plan.link(wants, f"{UNITS}/{name}", "go along with the service")


def _for_people(plan: Plan) -> None:
    for name, page in PAGES.items():
        plan.put(f"{MAN}/man{name[-1]}/{name}", page(), "a manual page")
    for shell, path in COMPLETIONS.items():
        plan.put(path, SCRIPTS[shell](), f"completes command lines in {shell}")


def _bus(tree: Tree, plan: Plan) -> None:
    policy = share.read("policy", "org.homemgr.conf")
    plan.put("/etc/dbus-1/system.d/org.homemgr.conf", policy, "who may talk to the service")
    # The same text would do no harm, but two files of one name make the bus complain.
    if tree.exists(f"/usr/share/{ACTIVATION}"):
        plan.remarks.append("Bus activation: the file of package systemd-homed serves us too.")
        return
    text = share.read("policy", "org.freedesktop.home1.service")
    plan.put(f"/usr/local/share/{ACTIVATION}", text, "lets the bus start the service")


def _polkit(tree: Tree, plan: Plan) -> None:
    others = [f"{POLKIT}/{n}" for n in tree.names(POLKIT) if n.endswith(".policy")]
    taken: set[str] = set()
    for path in others:
        if path != POLKIT_OWN:
            # A plain search: a file that polkit could not parse is not ours to complain about.
            taken.update(_ACTION.findall(tree.text(path)))
    text, left = without_actions(share.read("policy", "org.homemgr.policy"), taken)
    if left:
        plan.put(POLKIT_OWN, text, f"{left} actions that polkit decides about")
    if taken:
        plan.remarks.append(f"polkit: {len(taken)} actions are defined by an installed package.")


def without_actions(text: str, taken: set[str]) -> tuple[str, int]:
    """The policy ``text`` without the actions in ``taken``, and how many actions are left."""
    root = ElementTree.fromstring(text)
    for action in root.findall("action"):
        if action.get("id") in taken:
            root.remove(action)
    # The parser drops what stands before the root element: licence and document type.
    head = text[: text.index("<policyconfig>")]
    body = ElementTree.tostring(root, encoding="unicode")
    return head + body + "\n", len(root.findall("action"))


def _sshd(tree: Tree, plan: Plan) -> None:
    main = tree.text("/etc/ssh/sshd_config")
    if not main:
        plan.remarks.append("ssh: no server here. Run setup again once there is one.")
        return
    # Nothing would read the drop-in, and sshd_config itself is the administrator's.
    if not re.search(r"(?mi)^\s*Include\s+/etc/ssh/sshd_config\.d/\*\.conf", main):
        plan.remarks.append("ssh: sshd_config does not include sshd_config.d, keys are left alone.")
        return
    directory, own = os.path.split(SSHD)
    others = [tree.text(f"{directory}/{n}") for n in tree.names(directory) if n != own]
    # sshd takes the first value it meets: ours would not hold, or displace another's.
    if any(re.search(r"(?mi)^\s*AuthorizedKeysCommand\s", t) for t in (main, *others)):
        plan.remarks.append("ssh: an AuthorizedKeysCommand is configured already and stays.")
        return
    plan.put(SSHD, share.read("policy", "sshd.conf"), "public keys from the user database")


def _nsswitch(tree: Tree, plan: Plan, journal: Journal) -> None:
    known = journal.find(NSSWITCH)
    if known and known.after and tree.state(NSSWITCH) == known.after:
        # Set up before: keep the step, so that it counts as being in place.
        plan.steps.append(Step(NSSWITCH, known.after, "accounts of homes are visible"))
        return
    text = tree.text(NSSWITCH)
    wanted, added = with_systemd(text)
    if not added:
        plan.remarks.append("nsswitch: systemd is there for passwd, group and shadow.")
        return
    plan.put(NSSWITCH, wanted, f"systemd added for {', '.join(added)}: accounts become visible")


def with_systemd(text: str) -> tuple[str, list[str]]:
    """nsswitch.conf ``text`` with systemd as a source of accounts, and the databases changed."""
    lines, added = text.splitlines(), []
    for database in ("passwd", "group", "shadow", "gshadow"):
        found = (i for i, line in enumerate(lines) if line.startswith(f"{database}:"))
        index = next(found, None)
        if index is None:
            # glibc's default for a missing gshadow line is fine, the others have to be there.
            if database != "gshadow":
                lines.append(f"{database}: files systemd")
                added.append(database)
        elif "systemd" not in lines[index].split("#")[0].split():
            sources, mark, comment = lines[index].partition("#")
            lines[index] = f"{sources.rstrip()} systemd" + (f" {mark}{comment}" if mark else "")
            added.append(database)
    return "\n".join(lines) + "\n", added
