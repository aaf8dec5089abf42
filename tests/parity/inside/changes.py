"""Changing accounts: every kind of field, passwords, and who may do it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from . import people
from .accounts import is_old
from .people import BAD_SECRET, MACHINE, OTHER, PASSWORD, SECRET, WRONG
from .recorder import HOME, PATH, Recorder

STRANGER = 4242


def update_by_record(to: Recorder) -> None:
    """What an update makes of each field, on the bus."""
    people.create(to, "anna", uid=60111, memberOf=["games"])
    for what, fields in {
        "real name": {"realName": "New Name"},
        "groups": {"memberOf": ["audio"]},
        "no groups": {"memberOf": []},
        "shell": {"shell": "/bin/sh"},
        "bad shell": {"shell": "sh"},
        "home directory": {"homeDirectory": "/home/other"},
        "environment": {"environment": ["A=b"]},
        "limits": {"resourceLimits": {"RLIMIT_CORE": {"cur": 0, "max": 0}}},
        "another uid": {"uid": 60222},
        "another uid and gid": {"uid": 60222, "gid": 60222},
        "another storage": {"storage": "subvolume"},
        "same storage": {"storage": "directory"},
        "another place": {"imagePath": "/home/other.homedir"},
        "aliases": {"aliases": ["annie"]},
        "an alias that is taken": {"aliases": ["root"]},
        "locked": {"locked": True},
        "disposition": {"disposition": "system"},
        "service": {"service": "org.example"},
        "extension": {"org.example.field": {"b": 1, "a": 2}},
        "null": {"realName": None},
        "entry here": {"perMachine": [{"matchMachineId": [MACHINE], "location": "here"}]},
        "entry elsewhere": {"perMachine": [{"matchMachineId": ["0" * 32], "location": "no"}]},
        "unknown in an entry": {"perMachine": [{"matchMachineId": MACHINE, "strange": 1}]},
        "binding": {"binding": {MACHINE: {"uid": 5}}},
        "status": {"status": {MACHINE: {"uid": 5}}},
        "signature": {"signature": [{"data": "AA==", "key": "x"}]},
        "wrong password": {"secret": {"password": [WRONG]}},
        "no password": {"secret": {}},
        "no secret": {"secret": None},
        "older": {"lastChangeUSec": 5},
        "no stamp": {"lastChangeUSec": None},
        "of the future": {"lastChangeUSec": people.now_usec() + 10**9},
        "realm": {"realm": "example.com"},
        "another user": {"userName": "berta"},
    }.items():
        record = {**people.current(to, "anna"), **fields}
        sent = json.dumps({key: value for key, value in record.items() if value is not None})
        if what == "null":
            sent = json.dumps({**record, "realName": None})
        to.call(what, "UpdateHome", "s", sent)
        to.call(f"{what}: record", "GetUserRecordByName", "s", "anna")
        to.run(f"{what}: getent", "getent", "passwd", "anna")
        people.remove(to, "anna")
        people.create(to, "anna", uid=60111, memberOf=["games"])
    record = people.current(to, "anna")
    to.call("once", "UpdateHome", "s", json.dumps(record))
    to.call("the same again", "UpdateHome", "s", json.dumps(record))
    to.call("same stamp, other text", "UpdateHome", "s", json.dumps(record | {"location": "q"}))
    to.call("of the object", "Update", "s", _now(to), path=f"{PATH}/home/anna", interface=HOME)
    mismatch = json.dumps(people.record("berta"))
    to.call("mismatch", "Update", "s", mismatch, path=f"{PATH}/home/anna", interface=HOME)
    for flags in (1, 2, 3, 1 << 40):
        to.call(f"flags {flags}", "UpdateHomeEx", "sa{sh}t", _now(to), {}, flags)
    offline = json.dumps(people.current(to, "anna") | {"location": "offline", "secret": {}})
    to.call("offline", "UpdateHomeEx", "sa{sh}t", offline, {}, 1)
    to.keep("host copy then", people.host_copy("anna"))
    to.keep("copy inside then", people.inside_copy(to, "anna"))
    to.call("activate", "ActivateHome", "ss", "anna", SECRET)
    to.keep("copy inside after activation", people.inside_copy(to, "anna"))
    to.call("while active", "UpdateHome", "s", _now(to))
    to.call("unknown", "UpdateHome", "s", people.text("kim"))


def _now(to: Recorder) -> str:
    return json.dumps(people.current(to, "anna"))


def update_by_homectl(to: Recorder) -> None:
    """homectl update with its options, and what it shows after."""
    people.create(to, "anna", uid=60111, memberOf=["games"])
    env = {"PASSWORD": PASSWORD}
    options: list[tuple[str, ...]] = [
        ("--real-name=Anna B",),
        ("--real-name=",),
        ("--email-address=a@example.org", "--location=x"),
        ("--member-of=audio",),
        ("--member-of=video,games",),
        ("--member-of=",),
        ("--shell=/bin/sh",),
        ("--shell=sh",),
        ("--setenv=A=1", "--setenv=B=2"),
        ("--setenv=A=3",),
        ("--rlimit=RLIMIT_CORE=0",),
        ("--rlimit=",),
        ("--nice=5",),
        ("--nice=50",),
        ("--timezone=UTC",),
        ("--timezone=Nowhere/At",),
        ("--umask=022",),
        ("--locked=yes",),
        ("--locked=no",),
        ("--not-after=2090-01-01",),
        ("--password-hint=hint",),
        ("--ssh-authorized-keys=ssh-ed25519 AAAAC3Nza one",),
        ("--ssh-authorized-keys=",),
        ("--disk-size=1G",),
        ("--storage=subvolume",),
        ("--uid=60222",),
        ("--image-path=/home/x.homedir",),
        ("--home-dir=/home/anna",),
        ("--memory-max=1G",),
        ("--stop-delay=1min",),
        ("--auto-login=yes",),
        ("--strange",),
        (),
    ]
    if not is_old():
        options += [
            ("--offline", "--real-name=Offline"),
            ("--alias=annie",),
            ("-N", "--location=elsewhere"),
            ("-T", "--location=here"),
            ("-A", "--location=all"),
            ("--match=any", "--shell=/bin/bash"),
            ("--default-area=work",),
            ("--birth-date=2001-01-01",),
            ("--prompt-new-user=no",),
        ]
    for words in options:
        step = " ".join(words) or "nothing"
        to.run(step, "homectl", "update", "anna", *words, env=env, shown=False)
        to.run(f"{step}: record", "homectl", "inspect", "-j", "anna")
        if step in ("--storage=subvolume", "--uid=60222", "--image-path=/home/x.homedir"):
            people.remove(to, "anna")
            people.create(to, "anna", uid=60111)
    to.run("unknown user", "homectl", "update", "kim", "--real-name=x", env=env)


def passwords(to: Recorder) -> None:
    """Right, wrong, several, changed; wrong answers are held back, so they are asked together."""
    people.create(to, "anna", uid=60111)
    people.create(
        to,
        "berta",
        uid=60222,
        privileged={"hashedPassword": [people.hashed(), people.hashed(OTHER)]},
        secret={"password": [PASSWORD, OTHER]},
    )
    people.create(to, "carla", uid=60223, rateLimitIntervalUSec=600_000_000, rateLimitBurst=4)
    people.create(to, "dora", uid=60224, passwordChangeMinUSec=10**15)
    people.create(to, "emma", uid=60225, enforcePasswordPolicy=True)
    people.create(to, "frida", uid=60226)
    to.call("right", "AuthenticateHome", "ss", "anna", SECRET)
    to.call("none", "AuthenticateHome", "ss", "anna", "{}")
    for what, secret in {
        "a string": '{"password":"correct horse battery"}',
        "several": json.dumps({"password": [WRONG, PASSWORD]}),
        "bad JSON": "{",
        "a list": "[]",
        "empty": "",
        "a number": '{"password":5}',
        "numbers": '{"password":[5]}',
        "unknown field": json.dumps({"password": [PASSWORD], "strange": 1}),
        "pin": json.dumps({"password": [PASSWORD], "tokenPin": ["1"]}),
        "old pin": json.dumps({"password": [PASSWORD], "pkcs11Pin": "1"}),
        "flags": json.dumps({"password": [PASSWORD], "fido2UserPresencePermitted": True}),
        "empty word": json.dumps({"password": [""]}),
        "null": json.dumps({"password": None}),
    }.items():
        if what != "empty word":
            to.call(what, "AuthenticateHome", "ss", "anna", secret)
    _wrong(to)
    to.call("first of two", "AuthenticateHome", "ss", "berta", SECRET)
    other = json.dumps({"password": [OTHER]})
    to.call("second of two", "AuthenticateHome", "ss", "berta", other)
    for number in range(6):
        to.call(f"limit {number}", "AuthenticateHome", "ss", "carla", SECRET)
    to.call("limit: activate", "ActivateHome", "ss", "carla", SECRET)
    to.call("limit: record", "GetUserRecordByName", "s", "carla")
    to.call("too early", "ChangePasswordHome", "sss", "dora", other, SECRET)
    change = ("ChangePasswordHome", "sss")
    weak = json.dumps({"password": ["1234"]})
    to.call("weak", *change, "emma", weak, SECRET)
    to.call("own name", *change, "emma", json.dumps({"password": ["emma"]}), SECRET)
    to.call("to an empty one", *change, "frida", json.dumps({"password": [""]}), SECRET)
    to.call("new is nothing", *change, "anna", "{}", SECRET)
    to.call("old is nothing", *change, "anna", other, "{}")
    to.call("change", *change, "anna", other, SECRET)
    to.call("change: record", "GetUserRecordByName", "s", "anna")
    to.keep("change: inside", people.inside_copy(to, "anna"))
    to.call("new works", "AuthenticateHome", "ss", "anna", other)
    both = json.dumps({"password": [PASSWORD, OTHER]})
    to.call("to two", *change, "anna", both, other)
    to.call("two: first", "AuthenticateHome", "ss", "anna", SECRET)
    to.call("two: second", "AuthenticateHome", "ss", "anna", other)
    to.call("to the same", *change, "anna", SECRET, SECRET)
    to.call("active", "ActivateHome", "ss", "anna", SECRET)
    to.call("while active", *change, "anna", other, SECRET)
    to.call("record at last", "GetUserRecordByName", "s", "anna")
    words = ("homectl", "passwd", "anna")
    to.run("homectl passwd", *words, env={"PASSWORD": OTHER, "NEWPASSWORD": PASSWORD}, shown=False)
    to.run("homectl auth", "homectl", "authenticate", "anna", env={"PASSWORD": PASSWORD})
    to.run("homectl passwd of none", "homectl", "passwd", "kim", env={"NEWPASSWORD": "x"})


def _wrong(to: Recorder) -> None:
    """Every method that takes a secret, with a wrong one, all at once."""
    record = json.dumps(people.current(to, "anna") | {"secret": {"password": [WRONG]}})
    calls: dict[str, tuple[object, ...]] = {
        "authenticate": ("AuthenticateHome", "ss", "anna", BAD_SECRET),
        "activate": ("ActivateHome", "ss", "anna", BAD_SECRET),
        "acquire": ("AcquireHome", "ssb", "anna", BAD_SECRET, False),
        "update": ("UpdateHome", "s", record),
        "change": ("ChangePasswordHome", "sss", "anna", SECRET, BAD_SECRET),
        "resize": ("ResizeHome", "sts", "anna", 1 << 30, BAD_SECRET),
        "fixate": ("FixateHome", "ss", "anna", BAD_SECRET),
        "unlock": ("UnlockHome", "ss", "anna", BAD_SECRET),
        "realize": ("RealizeHome", "ss", "anna", BAD_SECRET),
        "empty word": ("AuthenticateHome", "ss", "anna", json.dumps({"password": [""]})),
    }
    # One home takes one job at a time, so each has a home of its own.
    for number in range(len(calls)):
        people.create(to, f"wrong{number}", uid=60300 + number)

    def ask(number: int, what: str) -> tuple[str, Recorder]:
        own = Recorder()
        own.section = to.section
        member, signature, *arguments = calls[what]
        arguments = [f"wrong{number}" if word == "anna" else word for word in arguments]
        if what == "update":
            changed = people.current(own, f"wrong{number}") | {"secret": {"password": [WRONG]}}
            arguments = [json.dumps(changed)]
        own.call(f"wrong: {what}", str(member), str(signature), *arguments)
        return what, own

    with ThreadPoolExecutor(len(calls)) as askers:
        for _, own in askers.map(ask, range(len(calls)), calls):
            to.outcomes |= own.outcomes
    to.call("wrong: counters", "GetUserRecordByName", "s", "wrong0")
    people.remove(to, *(f"wrong{number}" for number in range(len(calls))))


def permissions(to: Recorder) -> None:
    """Every method by a stranger and by the owner; nobody is there to be asked."""
    people.create(to, "anna", uid=60111)
    people.create(to, "berta", uid=60222)
    record = people.current(to, "anna")
    members: dict[str, tuple[object, ...]] = {
        "ActivateHome": ("ss", "anna", SECRET),
        "ActivateHomeIfReferenced": ("ss", "anna", SECRET),
        "DeactivateHome": ("s", "anna"),
        "RegisterHome": ("s", people.text("kim")),
        "UnregisterHome": ("s", "berta"),
        "AdoptHome": ("st", "/home/kim.homedir", 0),
        "CreateHome": ("s", people.text("kim")),
        "CreateHomeEx": ("sa{sh}t", people.text("kim"), {}, 0),
        "RealizeHome": ("ss", "anna", SECRET),
        "RemoveHome": ("s", "berta"),
        "FixateHome": ("ss", "anna", SECRET),
        "AuthenticateHome": ("ss", "anna", SECRET),
        "UpdateHome": ("s", json.dumps(record | {"realName": "Owner"})),
        "UpdateHomeEx": ("sa{sh}t", json.dumps(record | {"memberOf": ["sudo"]}), {}, 0),
        "ResizeHome": ("sts", "anna", 1 << 30, SECRET),
        "ChangePasswordHome": ("sss", "anna", SECRET, SECRET),
        "LockHome": ("s", "anna"),
        "UnlockHome": ("ss", "anna", SECRET),
        "AcquireHome": ("ssb", "anna", SECRET, False),
        "RefHome": ("sb", "anna", False),
        "RefHomeUnrestricted": ("sb", "anna", False),
        "ReleaseHome": ("s", "anna"),
        "ListSigningKeys": ("",),
        "GetSigningKey": ("s", "local.public"),
        "AddSigningKey": ("sst", "x.public", "x", 0),
        "RemoveSigningKey": ("st", "x.public", 0),
        "LockAllHomes": ("",),
        "DeactivateAllHomes": ("",),
        "Rebalance": ("",),
    }
    at_home: dict[str, tuple[object, ...]] = {
        "Activate": ("s", SECRET),
        "ActivateIfReferenced": ("s", SECRET),
        "Deactivate": ("",),
        "Unregister": ("",),
        "Realize": ("s", SECRET),
        "Remove": ("",),
        "Fixate": ("s", SECRET),
        "Authenticate": ("s", SECRET),
        "Resize": ("ts", 1 << 30, SECRET),
        "ChangePassword": ("ss", SECRET, SECRET),
        "Lock": ("",),
        "Unlock": ("s", SECRET),
        "Acquire": ("sb", SECRET, False),
        "Ref": ("b", False),
        "RefUnrestricted": ("b", False),
        "Release": ("",),
    }
    for uid, who in ((STRANGER, "stranger"), (60111, "owner")):
        for member, (signature, *arguments) in members.items():
            to.call(f"{member} by {who}", member, str(signature), *arguments, uid=uid)
            _settle(to)
        for member, (signature, *arguments) in at_home.items():
            if who == "owner" and member in ("Unregister", "Remove"):
                continue
            where = {"path": f"{PATH}/home/anna", "interface": HOME, "uid": uid}
            step = f"Home.{member} by {who}"
            to.call(step, member, str(signature), *arguments, **where)  # type: ignore[arg-type]
            _settle(to)
        own = json.dumps(people.current(to, "berta") | {"realName": "Stolen"})
        to.call(f"another's record by {who}", "UpdateHome", "s", own, uid=uid)


def _settle(to: Recorder) -> None:
    """A step must find the home as every other did: inactive."""
    to.quietly("DeactivateHome", "s", "anna")
    to.wait("anna", "inactive", "")


SECTIONS = (update_by_record, update_by_homectl, passwords, permissions)
