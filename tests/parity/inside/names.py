"""Names with a realm and with an area, and fields of sessions that need a login to be seen."""

from __future__ import annotations

from . import people
from .people import PASSWORD
from .recorder import Recorder, run

REALM = "example.com"
NAMES = (f"anna@{REALM}", f"annie@{REALM}", "anna@example.org", "anna%work", f"anna%work@{REALM}")
SSH = (
    *("sshpass", "-e", "ssh", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1"),
    *("-o", "PreferredAuthentications=password"),
)


def names_of_users(to: Recorder) -> None:
    """Whatever a name can be with behind it, to each program that takes one."""
    people.create(to, "anna", uid=60111, realm=REALM, aliases=["annie"], shell="/bin/sh")  # noqa: S604 -- a member of the record
    env = {"PASSWORD": PASSWORD}
    for name in NAMES:
        for verb in ("inspect", "authenticate", "activate", "deactivate"):
            words = ("-j",) if verb == "inspect" else ()
            to.run(f"homectl {verb} {name}", "homectl", verb, name, *words, env=env)
        to.run(f"homectl update {name}", "homectl", "update", name, "--location=Here", env=env)
        to.run(f"homectl with {name}", "homectl", "with", name, "--", "pwd", env=env)
        to.keep(f"{name}: after with", to.wait("anna", "inactive"))
        for argv in (("id", "-u", name), ("getent", "passwd", name), ("userdbctl", "user", name)):
            to.run(" ".join(argv), *argv)
    new = {"NEWPASSWORD": PASSWORD}
    for name in (f"berta@{REALM}", "berta%work", "berta@"):
        to.run(f"homectl create {name}", "homectl", "create", name, "--storage=directory", env=new)
        found = to.quietly("GetUserRecordByName", "s", "berta")
        to.keep(f"{name}: has been created", found and people.json.loads(str(found[0])))
        people.remove(to, "berta")


def areas(to: Recorder) -> None:
    """A part of a home as a home of its own."""
    people.create(to, "anna", uid=60111, shell="/bin/sh", stopDelayUSec=0)  # noqa: S604 -- a member of the record
    # Held: it would go with the first session, and the next could not be asked for a password.
    held = to.reference("hold", "AcquireHome", "ssb", "anna", people.SECRET, False)
    seen = "pwd; echo $HOME $XDG_AREA $XDG_RUNTIME_DIR"
    for step, area in (("before it is there", "work"), ("no name", ".."), ("none", "")):
        argv = ("run0", "--pipe", "--user=anna", f"--area={area}", "sh", "-c", seen)
        to.run(f"run0 --area {step}", *argv)
    make = ("run0", "--pipe", "--user=anna", "mkdir", "-p", "/home/anna/Areas/work")
    to.run("make an area", *make)
    to.run("run0 --area", "run0", "--pipe", "--user=anna", "--area=work", "sh", "-c", seen)
    env = {"PASSWORD": PASSWORD}
    for area in ("work", "", "a/b"):
        step = f"homectl update --default-area={area}"
        to.run(step, "homectl", "update", "anna", f"--default-area={area}", env=env)
        to.run(f"run0 after {step}", "run0", "--pipe", "--user=anna", "sh", "-c", seen)
    if held is not None:
        held.close()
    run(("loginctl", "terminate-user", "anna"))
    to.keep("after all", to.wait("anna", "inactive"))


def fields_of_sessions(to: Recorder) -> None:
    """Languages beside the first, and for how long a user stays after his last session."""
    env = {"PASSWORD": PASSWORD, "NEWPASSWORD": PASSWORD, "SSHPASS": PASSWORD}
    languages = "--language=C.UTF-8:POSIX:C"
    create = ("homectl", "create", "lena", "--storage=directory", "--enforce-password-policy=no")
    to.run("create", *create, "--uid=60222", languages, "--stop-delay=1h", env=env)
    to.run("inspect", "homectl", "inspect", "lena", "-j")
    seen = "env | grep ^LANG | sort"
    to.run("ssh", *SSH, "lena@localhost", seen, env=env)
    # For an hour: his manager is ended by hand.
    ended = "while loginctl show-user lena -P State | grep -v closing; do sleep 0.05; done"
    to.run("after ssh", "timeout", "20", "sh", "-c", ended, shown=False)
    to.keep("home after ssh", to.state("lena"))
    to.run("terminate", "loginctl", "terminate-user", "lena")
    to.keep("home after that", to.wait("lena", "inactive"))
    for words in ("--language=POSIX", "--language=", "--language=x y", "--stop-delay=0"):
        to.run(f"update {words}", "homectl", "update", "lena", words, env=env)
        record = people.current(to, "lena")
        fields = ("preferredLanguage", "additionalLanguages", "stopDelayUSec")
        to.keep(f"after {words}", {name: record.get(name) for name in fields})


SECTIONS = (names_of_users, areas, fields_of_sessions)
