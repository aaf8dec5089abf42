"""Records by which an owner would get what only an administrator gives, as texts on the wire.

One table for the service on a private bus and for a booted system with the real polkit. Every
text but that of `free` must be refused, and change nothing.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, cast

from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json, JsonObject

#: What nobody but an administrator changes: fields and what somebody would like them to be.
FIELDS: dict[str, Json] = {
    "memberOf": ["sudo", "wheel", "adm"],
    "uid": 0,
    "gid": 0,
    "aliases": ["root"],
    "realm": "example.com",
    "disposition": "system",
    "service": "io.systemd.Other",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "imagePath": "/root",
    "homeDirectory": "/root",
    "storage": "luks",
    "blobDirectory": "/etc",
    "skeletonDirectory": "/root",
    "accessMode": 0o4777,
    "mountNoSuid": False,
    "mountNoDevices": False,
    "enforcePasswordPolicy": False,
    "passwordChangeMinUSec": 0,
    "passwordChangeMaxUSec": 2**60,
    "rateLimitBurst": 2**30,
    "rateLimitIntervalUSec": 1,
    "locked": False,
    "notAfterUSec": 2**60,
    "niceLevel": -20,
    "cpuWeight": 10000,
    "tasksMax": 2**40,
    "memoryMax": 2**50,
    "resourceLimits": {"RLIMIT_NOFILE": {"cur": 2**20, "max": 2**20}},
    "capabilityAmbientSet": ["cap_sys_admin"],
    "autoLogin": True,
    "stopDelayUSec": 2**60,
    "selfModifiableFields": ["memberOf", "selfModifiableFields", "lastChangeUSec"],
    "selfModifiableBlobs": ["system"],
    "selfModifiablePrivileged": [],
    "org.homemgr.idmapPolicy": "homed",
    "org.homemgr.homeMode": "ephemeral",
    "org.homemgr.extensions": ["tools"],
    "org.homemgr.activateWithoutSecretOn": ["{machine}"],
    "org.example.unknown": True,
}

#: Names that look like a field's and are none, or that are it in other letters.
SPELLINGS = (
    '"member\\u004ff"',
    '"\\u006demberOf"',
    '"memberof"',
    '"MEMBEROF"',
    '"memberOf "',
    '"memberOf\\u0000"',
    '"\\uff4demberOf"',
    '"member\\u200bOf"',
)


def changed(record: JsonObject, password: str, **fields: Json) -> JsonObject:
    """The record as its owner sends it back, newer, with his password and these changes."""
    sections = ("binding", "status", "signature")
    kept = {name: value for name, value in record.items() if name not in sections}
    stamp = time.time_ns() // 1000
    return {**kept, "lastChangeUSec": stamp, "secret": {"password": [password]}, **fields}


def free(record: JsonObject, password: str) -> str:
    """What the owner may do: the control, without which refusals would prove nothing."""
    mine: JsonObject = {"location": f"here {time.time_ns()}", "shell": "/bin/sh"}
    return json.dumps(changed(record, password, **mine))


def escapes(record: JsonObject, password: str, machine: str) -> dict[str, str]:
    """Every text that must be refused, by what it tries."""
    own = changed(record, password)
    wanted = {name: _for(machine, value) for name, value in FIELDS.items()}
    fields = {name: value for name, value in wanted.items() if own.get(name) != value}
    tries = {f"set {name}": json.dumps({**own, name: value}) for name, value in fields.items()}
    for name, value in fields.items():
        entry: JsonObject = {"matchMachineId": machine, "shell": "/bin/sh", name: value}
        tries[f"set {name} for this machine"] = json.dumps({**own, "perMachine": [entry]})
    bare = {name: value for name, value in own.items() if name != "memberOf"}
    tries |= {f"spell {name}": _raw(bare, f'{name}:["sudo"]') for name in SPELLINGS}
    tries |= _structures(own, machine)
    tries |= _duplicates(own)
    tries |= _signatures(record, own)
    tries |= _stamps(own)
    return tries


def _for(machine: str, value: Json) -> Json:
    return cast("Json", json.loads(json.dumps(value).replace("{machine}", machine)))


def _structures(own: JsonObject, machine: str) -> dict[str, str]:
    """Sections that are not his, or that hide something."""
    privileged = own.get("privileged")
    mine: JsonObject = privileged if isinstance(privileged, dict) else {}
    wheel: JsonObject = {"memberOf": ["sudo"]}
    sections: dict[str, JsonObject] = {
        "status": {"status": {machine: wheel}},
        "binding": {"binding": {machine: {"uid": 0, "gid": 0, "imagePath": "/root"}}},
        "privileged groups": {"privileged": {**mine, **wheel}},
        "privileged unknown": {"privileged": {**mine, "org.example.key": 1}},
        "hash for everybody": {"hashedPassword": mine.get("hashedPassword")},
        "entry for a host name": {"perMachine": [{"matchHostname": "localhost", **wheel}]},
        "entry for all but another": {"perMachine": [{"matchNotMachineId": "0" * 32, **wheel}]},
        "entry without a match": {"perMachine": [wheel]},
        "entry for another machine": {"perMachine": [{"matchMachineId": "0" * 32, **wheel}]},
        "entry in an entry": {"perMachine": [{"matchMachineId": machine, "perMachine": [wheel]}]},
        "entry that is none": {"perMachine": [["memberOf", "sudo"]]},
        "entries that are none": {"perMachine": wheel},
        "manifest": {"blobManifest": {"system": "0" * 64}},
        "another's name": {"userName": "root"},
        "internal members": {"__systemd_homework_internal_blob_fdmap": {}},
    }
    return {name: json.dumps({**own, **members}) for name, members in sections.items()}


def _duplicates(own: JsonObject) -> dict[str, str]:
    """One name twice: readers differ in which of both they see."""
    name = json.dumps(own["userName"])
    return {
        "groups last": _raw(own, '"memberOf":[],"memberOf":["sudo"]'),
        "groups first": _raw(own, '"memberOf":["sudo"],"memberOf":[]'),
        "groups in other letters": _raw(own, '"memberOf":[],"member\\u004ff":["sudo"]'),
        "two names": _raw(own, f'"userName":"root","userName":{name}'),
    }


def _signatures(record: JsonObject, own: JsonObject) -> dict[str, str]:
    """What is signed already, by whomever."""
    tries: dict[str, str] = {}
    changes: dict[str, JsonObject] = {"for a group": {"memberOf": ["sudo"]}, "for nothing more": {}}
    for why, change in changes.items():
        wanted = {**own, **change}
        mine = sign(UserRecord(wanted).without("secret"), PrivateKey.generate())
        signatures: dict[str, Json] = {
            "of a key of his own": mine.data["signature"],
            "of before": record["signature"],
            "of nothing": [{"data": "", "key": ""}],
        }
        for what, signature in signatures.items():
            tries[f"signature {what} {why}"] = json.dumps({**wanted, "signature": signature})
    return tries


def _stamps(own: JsonObject) -> dict[str, str]:
    """Times that would make the record the last one for ever, or an older one."""
    ages: dict[str, Json] = {
        "the end of time": 2**64 - 1,
        "the end of time in letters": str(2**64 - 1),
        "tomorrow": time.time_ns() // 1000 + 86_400_000_000,
        "the beginning": 0,
        "never": None,
        "a fraction": 1.5,
        "before time": -1,
    }
    stamps = {
        f"changed at {n}": json.dumps({**own, "lastChangeUSec": at}) for n, at in ages.items()
    }
    for n in ("the end of time", "the end of time in letters", "tomorrow"):
        text = json.dumps({**own, "lastPasswordChangeUSec": ages[n]})
        stamps[f"password changed at {n}"] = text
    return stamps


def _raw(own: JsonObject, members: str) -> str:
    """The record with more members as they are spelled."""
    return f"{json.dumps(own)[:-1]},{members}}}"
