"""Logins as people have them: every PAM stack, ssh, and what logind makes of the record."""

from __future__ import annotations

import json

from . import people
from .accounts import is_old
from .people import OTHER, PASSWORD, WRONG
from .recorder import Recorder

STACK = ("authenticate", "acct_mgmt", "open_session", "close_session")
YEAR_USEC = 365 * 86400 * 1_000_000


def pam(to: Recorder) -> None:
    """pamtester through each stack, for accounts in every condition."""
    conditions: dict[str, dict[str, object]] = {
        "good": {},
        "locked": {"locked": True},
        "not yet": {"notBeforeUSec": people.now_usec() + YEAR_USEC},
        "no more": {"notAfterUSec": 5},
        "change now": {"passwordChangeNow": True},
        "aged": {"passwordChangeMaxUSec": 1, "passwordChangeInactiveUSec": YEAR_USEC},
        "long aged": {"passwordChangeMaxUSec": 1, "passwordChangeInactiveUSec": 1},
        "warned": {"passwordChangeMaxUSec": YEAR_USEC, "passwordChangeWarnUSec": YEAR_USEC},
        "no stamp": {"passwordChangeMaxUSec": YEAR_USEC, "lastPasswordChangeUSec": None},
        "limited": {"rateLimitIntervalUSec": 600_000_000, "rateLimitBurst": 1},
    }
    for what, fields in conditions.items():
        people.create(to, "anna", uid=60111, **fields)
        # Each refusal makes the modules below it wait for seconds.
        is_good = what == "good"
        for service in ("login", "sshd") if is_good else ("sshd",):
            for operations in (("authenticate",), ("acct_mgmt",), STACK)[0 if is_good else 1 :]:
                step = f"{what}: {' '.join(operations)} of {service}"
                _pamtester(to, step, service, "anna", operations)
                to.keep(f"{step}: then", to.wait("anna", "inactive"))
        people.remove(to, "anna")
    people.create(to, "anna", uid=60111)
    for service in ("passwd", "login"):
        text = f"{OTHER}\n{OTHER}\n{PASSWORD}\n"
        to.run(f"change by {service}", "pamtester", service, "anna", "chauthtok", stdin=text)
        back = f"{PASSWORD}\n{PASSWORD}\n{OTHER}\n"
        to.run(f"back by {service}", "pamtester", service, "anna", "chauthtok", stdin=back)
    to.run("wrong", "pamtester", "login", "anna", "authenticate", stdin=f"{WRONG}\n", shown=False)
    for name in ("kim", "root%x", "anna%work", "anna@example.com"):
        _pamtester(to, f"{name}", "login", name, ("authenticate",))
        to.wait("anna", "inactive")
    _pamtester(to, "by alias", "su", "anna", ("authenticate", "acct_mgmt"))


def _pamtester(
    to: Recorder, step: str, service: str, name: str, operations: tuple[str, ...]
) -> None:
    to.run(step, "pamtester", service, name, *operations, stdin=f"{PASSWORD}\n" * 5, shown=False)


SEEN = (
    "pwd; id; umask; nice; ulimit -n; ulimit -Hn; env | grep -E "
    "'^(HOME|SHELL|USER|LOGNAME|LANG|TZ|EMAIL|EDITOR|PARITY|SYSTEMD_HOME|XDG_RUNTIME|XDG_SESSION_CLASS"
    "|LANGUAGE)' | grep -v SYSTEMD_HOME_SUSPEND | sort; stat -c '%U %G %a' .; "
    "grep -o 'user-[0-9]*' /proc/self/cgroup | sort -u; systemctl --user is-system-running --wait; "
    "loginctl show-user -P State; touch made && stat -c '%U %G' made"
)


def sessions(to: Recorder) -> None:
    """A session over ssh with a password, and with a key."""
    people.create(  # noqa: S604 -- a member of the record
        to,
        "anna",
        uid=60111,
        realName="Anna A",
        emailAddress="anna@example.org",
        shell="/bin/sh",
        environment=["PARITY=yes", "EDITOR=vi"],
        umask=0o27,
        niceLevel=3,
        timeZone="Europe/Berlin",
        preferredLanguage="C.UTF-8",
        resourceLimits={"RLIMIT_NOFILE": {"cur": 512, "max": 1024}},
        memberOf=["games"],
        tasksMax=400,
        cpuWeight=200,
        memoryMax=1 << 30,
        memoryHigh=1 << 29,
        stopDelayUSec=0,
        killProcesses=False,
        **({} if is_old() else {"aliases": ["annie"]}),
    )
    ssh = (
        *("sshpass", "-e", "ssh", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no"),
        *("-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1"),
        *("-o", "PreferredAuthentications=password"),
    )
    env = {"SSHPASS": PASSWORD}
    # Of 252 not every session finds its home: here it is about what is in one that does.
    attempts = 8 if is_old() else 1
    while not to.run("ssh", *ssh, "anna@localhost", SEEN, env=env).startswith("/home/anna\n"):
        attempts -= 1
        if not attempts:
            break
        to.forget("ssh")
        to.wait("anna", "inactive")
    to.keep("after ssh", to.wait("anna", "inactive"))
    limits = "cat /sys/fs/cgroup/user.slice/user-60111.slice/{pids.max,memory.max,cpu.weight}"
    to.run("limits of the slice", *ssh, "anna@localhost", f"bash -c '{limits}'", env=env)
    shown = "loginctl show-user anna -p Name -p UID -p RuntimePath -p Slice -p Linger -p State"
    to.run("loginctl", *ssh, "anna@localhost", shown, env=env)
    to.run("loginctl -j", *ssh, "anna@localhost", "loginctl list-users --no-legend", env=env)
    to.keep("after loginctl", to.wait("anna", "inactive"))
    to.run("wrong password", *ssh, "anna@localhost", "true", env={"SSHPASS": WRONG})
    to.run("exit code", *ssh, "anna@localhost", "exit 9", env=env)
    if not is_old():
        to.run("by alias", *ssh, "annie@localhost", "id -un; pwd", env=env)
    to.keep("after all", to.wait("anna", "inactive"))
    to.run("unknown user", *ssh, "kim@localhost", "true", env=env)
    record = people.current(to, "anna") | {"locked": True}
    to.quietly("UpdateHome", "s", json.dumps(record))
    to.run("locked", *ssh, "anna@localhost", "true", env=env)
    to.keep("after locked", to.wait("anna", "inactive"))


SECTIONS = (pam, sessions)
