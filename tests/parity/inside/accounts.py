"""Making accounts: with every option of homectl, with records good and bad, and what is seen."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from homemgr.files import Fd

from . import people
from .people import MACHINE, PASSWORD, SECRET
from .recorder import Recorder

#: As `homectl create` writes them, one option for each kind of field.
OPTIONS = (
    *("--storage=directory", "--enforce-password-policy=no", "--real-name=Zoë Example"),
    *("--email-address=zoe@example.org", "--location=Here", "--icon-name=face", "--uid=60111"),
    *("--member-of=games,audio", "--shell=/bin/sh", "--setenv=PARITY=yes", "--setenv=EDITOR=vi"),
    *("--timezone=Europe/Berlin", "--language=de_DE.UTF-8", "--password-hint=horse"),
    *("--nice=3", "--rlimit=RLIMIT_NOFILE=512:1024", "--umask=027", "--access-mode=0750"),
    *("--tasks-max=500", "--memory-high=800M", "--memory-max=1G", "--cpu-weight=200"),
    *("--io-weight=300", "--nosuid=yes", "--nodev=yes", "--noexec=no", "--stop-delay=3s"),
    *("--kill-processes=no", "--auto-login=yes", "--rate-limit-interval=10min"),
    *("--rate-limit-burst=1000", "--not-before=2020-01-01", "--not-after=2099-01-01"),
    *("--password-change-min=0", "--password-change-max=10y", "--password-change-warn=7d"),
    *(
        "--password-change-inactive=30d",
        "--locked=no",
        "--ssh-authorized-keys=ssh-ed25519 AAAAC3Nza zoe",
    ),
    *("--skel=/etc/skel", "--drop-caches=no", "--rebalance-weight=off"),
)
#: Of releases after 252.
NEW_OPTIONS = (
    *("--capability-bounding-set=cap_net_raw", "--default-area=work", "--tmp-limit=50%"),
    *(
        "--session-launcher=x",
        "--session-type=wayland",
        "--dev-shm-limit=40%",
        "--alias=zz",
        "--birth-date=2001-02-03",
    ),
)


def create_by_homectl(to: Recorder) -> None:
    """All options at once, then every way to look at the result."""
    env = {"NEWPASSWORD": PASSWORD}
    options = OPTIONS if is_old() else OPTIONS + NEW_OPTIONS
    to.run("create", "homectl", "create", "zoe", *options, env=env)
    look(to, "zoe", "inactive")
    to.keep("host copy", people.host_copy("zoe"))
    to.keep("copy inside", people.inside_copy(to, "zoe"))
    to.run("create once more", "homectl", "create", "zoe", *OPTIONS, env=env)
    to.run("activate", "homectl", "activate", "zoe", env={"PASSWORD": PASSWORD})
    look(to, "zoe", "active")
    to.keep("files", sorted(os.listdir("/home/zoe")))
    status = os.stat("/home/zoe")
    to.keep("top of the home", [oct(status.st_mode), status.st_uid, status.st_gid])
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    to.keep("mount", [sorted(row[3].split(",")) for row in mounts if row[1] == "/home/zoe"])
    to.run("activate again", "homectl", "activate", "zoe", env={"PASSWORD": PASSWORD})
    to.run("remove while active", "homectl", "remove", "zoe")
    to.run("deactivate", "homectl", "deactivate", "zoe")
    to.run("deactivate again", "homectl", "deactivate", "zoe")
    to.run("remove", "homectl", "remove", "zoe")
    to.run("remove again", "homectl", "remove", "zoe")
    to.keep("what is left", [people.host_copy("zoe"), os.path.exists("/home/zoe")])


def is_old() -> bool:
    """Whether the machine's homectl is of 2022."""
    return 'VERSION_ID="12"' in Path("/etc/os-release").read_text()


def look(to: Recorder, name: str, when: str) -> None:
    """Everything that clients show of an account."""
    for words in (
        ("homectl", "inspect", name),
        ("homectl", "inspect", "-j", name),
        ("homectl", "inspect", "-E", name),
        ("homectl", "inspect", "-EE", name),
        ("homectl", "list"),
        ("homectl", "list", "-j"),
        ("getent", "passwd", name),
        ("getent", "group", name),
        ("getent", "shadow", name),
        ("getent", "initgroups", name),
        ("id", name),
        ("userdbctl", "user", name),
        ("userdbctl", "user", "-j", name),
        ("userdbctl", "group", name),
        ("userdbctl", "group", "-j", name),
        ("userdbctl", "groups-of-user", "-j", name),
        ("userdbctl", "users-in-group", "-j", "games"),
        ("userdbctl", "ssh-authorized-keys", name),
    ):
        to.run(f"{' '.join(words)} ({when})", *words)
    if not is_old():
        to.run(f"avatar ({when})", "homectl", "inspect", "-j", f"{name}@nowhere.example")
    to.call(f"GetHomeByName ({when})", "GetHomeByName", "s", name)
    to.call(f"GetHomeByUID ({when})", "GetHomeByUID", "u", 60111)
    to.call(f"GetUserRecordByName ({when})", "GetUserRecordByName", "s", name)
    to.call(f"GetUserRecordByUID ({when})", "GetUserRecordByUID", "u", 60111)
    to.call(f"ListHomes ({when})", "ListHomes")


def create_by_record(to: Recorder) -> None:
    """What records are taken and which are refused, by which name."""
    good: dict[str, dict[str, object]] = {
        "plain": {},
        "explicit uid outside the range": {"uid": 5000},
        "high uid": {"uid": 70000},
        "uid and gid": {"uid": 60222, "gid": 60222},
        "realm": {"realm": "example.com"},
        "realm in capitals": {"realm": "Example.COM"},
        "aliases": {"aliases": ["al1", "al2"]},
        "service": {"service": "io.systemd.Home"},
        "own extension": {"org.example.field": {"z": 1, "a": [True, None, "x"]}},
        "disposition unset": {"disposition": None},
        "no stamps": {"lastChangeUSec": None, "lastPasswordChangeUSec": None},
        "no storage": {"storage": None},
        "home directory": {"homeDirectory": "/home/elsewhere"},
        "access mode as text": {"accessMode": "0711"},
        "null field": {"realName": None, "location": None},
        "two passwords": {
            "privileged": {"hashedPassword": [people.hashed(), people.hashed(people.OTHER)]},
            "secret": {"password": [PASSWORD, people.OTHER]},
        },
        "secret as one string": {"secret": {"password": PASSWORD}},
        "matching entry": {"perMachine": [{"matchMachineId": MACHINE, "location": "there"}]},
        "other machine": {"perMachine": [{"matchMachineId": "0" * 32, "uid": 1}]},
        "negative match": {"perMachine": [{"matchNotMachineId": ["0" * 32], "location": "n"}]},
        "no match at all": {"perMachine": [{"location": "never"}]},
        "uuid": {"uuid": "0f3b9ae0-4f4c-4f0e-9d4c-3d6d8d0d1c11"},
        "colon in the real name": {"realName": "a:b\tc"},
        "resource limits": {"resourceLimits": {"RLIMIT_NOFILE": {"cur": 10, "max": None}}},
    }
    for what, fields in good.items():
        to.call(what, "CreateHome", "s", people.text("anna", **fields))
        to.call(f"{what}: record", "GetUserRecordByName", "s", "anna")
        to.run(f"{what}: getent", "getent", "passwd", "anna")
        to.call(f"{what}: remove", "RemoveHome", "s", "anna")
        people.remove(to, "anna")


BAD: dict[str, dict[str, object]] = {
    "uid as text": {"uid": "60223"},
    "disposition system": {"disposition": "system"},
    "disposition unknown": {"disposition": "strange"},
    "storage classic": {"storage": "classic"},
    "storage unknown": {"storage": "floppy"},
    "gid differs": {"uid": 60222, "gid": 60223},
    "service of another": {"service": "org.example"},
    "blob directory": {"blobDirectory": "/tmp"},
    "binding": {"binding": {MACHINE: {"uid": 60001}}},
    "status": {"status": {MACHINE: {"state": "active"}}},
    "uid of root": {"uid": 0},
    "system uid": {"uid": 500},
    "uid of a service": {"uid": 61200},
    "greeter uid": {"uid": 60600},
    "uid of nobody": {"uid": 65534},
    "uid 65535": {"uid": 65535},
    "uid 4294967295": {"uid": 4294967295},
    "negative uid": {"uid": -1},
    "fractional uid": {"uid": 60222.5},
    "huge uid": {"uid": 1 << 70},
    "bad realm": {"realm": "example.com."},
    "empty realm": {"realm": ""},
    "realm with spaces": {"realm": "a b"},
    "bad alias": {"aliases": ["no/slash"]},
    "alias is root": {"aliases": ["root"]},
    "alias is the name": {"aliases": ["anna"]},
    "relative home": {"homeDirectory": "home/anna"},
    "home with dots": {"homeDirectory": "/home/../etc"},
    "relative shell": {"shell": "sh"},
    "bad umask": {"umask": 0o1777},
    "bad access mode": {"accessMode": 0o17777},
    "bad nice": {"niceLevel": 20},
    "bad environment": {"environment": ["=x"]},
    "bad time zone": {"timeZone": 5},
    "bad mail": {"emailAddress": "a\nb"},
    "bad weight": {"cpuWeight": 0},
    "bad limits": {"resourceLimits": {"RLIMIT_NOFILE": {"cur": 10}}},
    "unknown limit": {"resourceLimits": {"RLIMIT_WHAT": {"cur": 1, "max": 1}}},
    "bad capability": {"capabilityBoundingSet": ["cap_fly"]},
    "bad group": {"memberOf": ["a:b"]},
    "groups no list": {"memberOf": {"a": 1}},
    "bad uuid": {"uuid": "x"},
    "no hash": {"privileged": {}},
    "no privileged": {"privileged": None},
    "no secret": {"secret": None},
    "empty secret": {"secret": {}},
    "wrong secret": {"secret": {"password": [people.WRONG]}},
    "hash is no hash": {"privileged": {"hashedPassword": ["x"]}},
    "one password of two": {
        "privileged": {"hashedPassword": [people.hashed(), people.hashed(people.OTHER)]},
    },
    "unknown in matching entry": {"perMachine": [{"matchMachineId": MACHINE, "strange": 1}]},
    "unknown in the secret": {"secret": {"password": [PASSWORD], "strange": 1}},
    "unknown privileged": {"privileged": {"hashedPassword": [people.hashed()], "strange": 1}},
    "entries no list": {"perMachine": {}},
    "entry no object": {"perMachine": [5]},
    "bad machine id": {"perMachine": [{"matchMachineId": "zz", "location": "x"}]},
    "unknown signer": {"signature": [{"data": "AA==", "key": "x"}]},
    "signature empty": {"signature": []},
    "signature no list": {"signature": {}},
    "image path relative": {"imagePath": "x"},
    "image path is root": {"imagePath": "/"},
    "bad manifest": {"blobManifest": {"avatar": "x"}},
    "bad stamp": {"lastChangeUSec": "never"},
    "weak password": {
        "enforcePasswordPolicy": True,
        "privileged": {"hashedPassword": [people.hashed("1234")]},
        "secret": {"password": ["1234"]},
    },
}


def refuse_records(to: Recorder) -> None:
    """Every record that is no record, for create and for register."""
    for what, fields in BAD.items():
        for member in ("CreateHome", "RegisterHome"):
            to.call(f"{member}: {what}", member, "s", people.text("anna", **fields))
            people.remove(to, "anna")
            to.quietly("UnregisterHome", "s", "anna")
    for what, raw in {
        "nothing": "",
        "no JSON": "{",
        "a list": "[]",
        "a word": '"anna"',
        "an empty object": "{}",
        "two objects": "{}{}",
        "the name twice": '{"userName":"anna","userName":"berta"}',
        "a number as name": '{"userName":5}',
        "no name": '{"disposition":"regular"}',
        "deep": "[" * 5000 + "]" * 5000,
    }.items():
        for member in ("CreateHome", "UpdateHome", "RegisterHome"):
            to.call(f"{member}: {what}", member, "s", raw)


def refuse_names(to: Recorder) -> None:
    """Names that nobody may have, and those that are taken."""
    names = (
        *("root", "nobody", "nogroup", "1234", "-dash", "_under", "a.b", "a b", "a/b", "a:b"),
        *("systemd-x", "UPPER", "x" * 31, "x" * 32, "x" * 300, "ünicode", "a@b", "a$", "", "."),
        *("daemon", "games", "messagebus", "a-b", "a_b", "a1"),
    )
    for name in names:
        for member in ("CreateHome", "RegisterHome"):
            to.call(f"{member}: {name[:40]!r} {len(name)}", member, "s", people.text(name))
            people.remove(to, name)
            to.quietly("UnregisterHome", "s", name)
    with people.home(to, "anna", aliases=["annie"], realm="example.com", uid=60333):
        for what, fields in {
            "the name": {"userName": "anna"},
            "an alias": {"userName": "annie"},
            "as alias": {"userName": "berta", "aliases": ["anna"]},
            "alias as alias": {"userName": "berta", "aliases": ["annie"]},
            "the uid": {"userName": "berta", "uid": 60333},
            "uid of a service": {"userName": "berta", "uid": 65534},
        }.items():
            name = str(fields.pop("userName"))
            to.call(f"taken: {what}", "CreateHome", "s", people.text(name, **fields))
            to.call(f"registered: {what}", "RegisterHome", "s", people.text(name, **fields))
            if name == "berta":
                people.remove(to, name)
                to.quietly("UnregisterHome", "s", name)
        for name in ("anna", "annie", "anna@example.com", "annie@example.com", "anna@other.com"):
            to.call(f"GetHomeByName {name}", "GetHomeByName", "s", name)
            to.call(f"authenticate {name}", "AuthenticateHome", "ss", name, SECRET)
            to.run(f"getent passwd {name}", "getent", "passwd", name)
            to.run(f"userdbctl user {name}", "userdbctl", "user", "-j", name)


def blobs(to: Recorder) -> None:
    """Public files beside the record."""
    with tempfile.TemporaryDirectory(dir="/run") as work:
        avatar, background = Path(work, "avatar"), Path(work, "login-background")
        avatar.write_bytes(b"a picture")
        background.write_bytes(b"a wall")
        text = people.text("anna")
        to.call("flags", "CreateHomeEx", "sa{sh}t", text, {}, 1)
        _send(
            to, "create", "CreateHomeEx", text, {"avatar": avatar, "login-background": background}
        )
        _blobs_now(to, "created")
        _send(to, "keep one", "UpdateHomeEx", _now(to), {"avatar": avatar})
        _blobs_now(to, "one kept")
        to.call("update without", "UpdateHome", "s", _now(to))
        _blobs_now(to, "without")
        for name in ("bad/name", ".hidden", "", "x" * 300, "ünicode", "a b"):
            _send(to, f"name {name[:20]!r}", "UpdateHomeEx", _now(to), {name: avatar})
        wrong = json.dumps(people.current(to, "anna") | {"blobManifest": {"other": "0" * 64}})
        _send(to, "manifest", "UpdateHomeEx", wrong, {"avatar": avatar})
        for what, flags in {
            "write only": os.O_WRONLY,
            "a path": os.O_PATH,
            "read and write": os.O_RDWR,
            "append": os.O_RDWR | os.O_APPEND,
        }.items():
            _send(to, what, "UpdateHomeEx", _now(to), {"avatar": avatar}, flags)
        _send(to, "a directory", "UpdateHomeEx", _now(to), {"avatar": Path(work)})
        _send(to, "none", "UpdateHomeEx", _now(to), {})
        _blobs_now(to, "none left")
        if not is_old():
            _blobs_by_homectl(to, avatar)
    to.call("remove", "RemoveHome", "s", "anna")
    to.keep("directory after", os.path.exists("/var/cache/systemd/home/anna"))


def _now(to: Recorder) -> str:
    return json.dumps(people.current(to, "anna"))


def _send(
    to: Recorder,
    step: str,
    member: str,
    record: str,
    files: dict[str, Path],
    flags: int = os.O_RDONLY,
) -> None:
    """A call with descriptors of its own: who reads them moves their position."""
    with ExitStack() as opened:
        fds = [opened.enter_context(Fd.open(str(path), flags)) for path in files.values()]
        given = {name: number for number, name in enumerate(files)}
        to.call(step, member, "sa{sh}t", record, given, 0, fds=fds)


def _blobs_by_homectl(to: Recorder, avatar: Path) -> None:
    env = {"PASSWORD": PASSWORD}
    to.run("homectl --avatar", "homectl", "update", "anna", f"--avatar={avatar}", env=env)
    _blobs_now(to, "by homectl")
    to.run("homectl -b", "homectl", "update", "anna", f"--blob=x={avatar}", env=env)
    _blobs_now(to, "two by homectl")
    # The home brings them along, and homectl hands all that are public over with the next update.
    to.call("forget", "UnregisterHome", "s", "anna")
    to.wait("anna", "unfixated")
    to.call("take up", "ActivateHome", "ss", "anna", SECRET)
    to.call("lay down", "DeactivateHome", "s", "anna")
    _blobs_now(to, "brought along")
    to.run("homectl -c", "homectl", "update", "anna", "--real-name=Anna", env=env)
    _blobs_now(to, "still there")
    to.run("homectl -b=", "homectl", "update", "anna", "--blob=", env=env)
    _blobs_now(to, "none by homectl")


def _blobs_now(to: Recorder, when: str) -> None:
    places = [Path("/var/cache/systemd/home/anna")]
    to.keep(
        f"stored ({when})",
        {
            entry.name: [oct(entry.stat().st_mode), entry.stat().st_uid, entry.read_text()]
            for place in places
            if place.exists()
            for entry in sorted(place.iterdir())
        },
    )
    body = to.quietly("GetUserRecordByName", "s", "anna")
    shown = json.loads(str(body[0])) if body else {}
    to.keep(f"manifest ({when})", shown.get("blobManifest"))


def dry_run(to: Recorder) -> None:
    """What homectl would send."""
    env = {"NEWPASSWORD": PASSWORD, "SYSTEMD_HOME_DRY_RUN": "1"}
    to.run("create", "homectl", "create", "dry", "--storage=directory", env=env)
    to.run("nothing made", "homectl", "inspect", "dry")
    if not is_old():
        words = ("homectl", "create", "dry", "--storage=directory", "--dry-run")
        to.run("create --dry-run", *words, env={"NEWPASSWORD": PASSWORD}, shown=False)
        to.run("nothing made by it", "homectl", "inspect", "dry")


SECTIONS = (create_by_homectl, create_by_record, refuse_records, refuse_names, blobs, dry_run)
