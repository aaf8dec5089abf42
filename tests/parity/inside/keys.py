"""Signing keys; records and files that come from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign

from . import people
from .accounts import is_old
from .people import OTHER, PASSWORD, RECORDS, SECRET
from .recorder import Recorder
from .states import image_of

#: Both services meet the same key.
FRIEND = PrivateKey.from_pem(
    b"-----BEGIN PRIVATE KEY-----\n"
    b"MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    b"-----END PRIVATE KEY-----\n"
)


def signing_keys(to: Recorder) -> None:
    """List, get, add, remove, with every kind of wrong name and key."""
    pem = FRIEND.public.pem
    to.call("list", "ListSigningKeys")
    to.call("get local", "GetSigningKey", "s", "local.public")
    for name in ("friend.public", "local.private", "../local.public", "", "x"):
        to.call(f"get {name!r}", "GetSigningKey", "s", name)
        to.call(f"remove {name!r}", "RemoveSigningKey", "st", name, 0)
    to.call("remove local", "RemoveSigningKey", "st", "local.public", 0)
    for name in ("local.public", "friend", "../friend.public", ".public", "", "a b.public"):
        to.call(f"add as {name!r}", "AddSigningKey", "sst", name, pem, 0)
        to.quietly("RemoveSigningKey", "st", name, 0)
    for what, key in {"nothing": "", "a word": "key", "half": pem[:60], "twice": pem + pem}.items():
        to.call(f"add {what}", "AddSigningKey", "sst", "friend.public", key, 0)
        to.quietly("RemoveSigningKey", "st", "friend.public", 0)
    to.call("flags", "AddSigningKey", "sst", "friend.public", pem, 1)
    to.call("add", "AddSigningKey", "sst", "friend.public", pem, 0)
    status = os.stat(RECORDS / "friend.public")
    to.keep("file", [oct(status.st_mode), status.st_uid])
    to.call("add again", "AddSigningKey", "sst", "friend.public", pem, 0)
    to.call("add under another name", "AddSigningKey", "sst", "other.public", pem, 0)
    to.call("list two", "ListSigningKeys")
    to.call("get", "GetSigningKey", "s", "friend.public")
    to.call("remove with flags", "RemoveSigningKey", "st", "friend.public", 1)
    if not is_old():
        to.run("homectl list", "homectl", "list-signing-keys")
        to.run("homectl list -j", "homectl", "list-signing-keys", "-j")
        to.run("homectl get", "homectl", "get-signing-key", "friend.public")
        to.run("homectl remove", "homectl", "remove-signing-key", "friend.public")
        words = ("homectl", "add-signing-key", "--key-name=friend.public")
        to.run("homectl add", *words, stdin=pem)
        to.run("homectl add again", *words, stdin=pem)
    to.call("remove", "RemoveSigningKey", "st", "friend.public", 0)
    to.call("remove again", "RemoveSigningKey", "st", "friend.public", 0)


def foreign_records(to: Recorder) -> None:
    """Records that another machine signed."""
    fields = {"uid": 60400, "storage": None, "secret": None}
    made = people.record("paula", **fields)
    foreign = json.dumps(sign(UserRecord(made), FRIEND).data)  # type: ignore[arg-type]
    to.call("register, unknown key", "RegisterHome", "s", foreign)
    to.call("add", "AddSigningKey", "sst", "friend.public", FRIEND.public.pem, 0)
    to.call("register", "RegisterHome", "s", foreign)
    to.call("record", "GetUserRecordByName", "s", "paula")
    to.call("register again", "RegisterHome", "s", foreign)
    changed = people.current(to, "paula") | {"realName": "Changed"}
    to.call("update", "UpdateHome", "s", json.dumps(changed))
    secret = json.dumps({"password": [OTHER]})
    to.call("change the password", "ChangePasswordHome", "sss", "paula", secret, SECRET)
    offline = ("UpdateHomeEx", "sa{sh}t")
    to.call("update offline", *offline, json.dumps(changed), {}, 1)
    newer = people.record("paula", **fields, realName="Newer")
    signed = sign(UserRecord(newer), FRIEND).data  # type: ignore[arg-type]
    to.call("newer offline", *offline, json.dumps({**signed, "secret": {}}), {}, 1)
    to.call("record then", "GetUserRecordByName", "s", "paula")
    to.keep("host copy", people.host_copy("paula"))
    to.call("unregister", "UnregisterHome", "s", "paula")
    to.call("unregister again", "UnregisterHome", "s", "paula")
    tampered = json.dumps({**sign(UserRecord(made), FRIEND).data, "realName": "x"})  # type: ignore[arg-type]
    to.call("tampered", "RegisterHome", "s", tampered)
    to.call(
        "create of a foreign record",
        "CreateHome",
        "s",
        json.dumps(
            {
                **sign(UserRecord(people.record("paula", secret=None)), FRIEND).data,  # type: ignore[arg-type]
                "secret": {"password": [PASSWORD]},
            }
        ),
    )
    to.call("its record", "GetUserRecordByName", "s", "paula")
    to.call("its password", "ChangePasswordHome", "sss", "paula", secret, SECRET)
    to.call("activate it", "ActivateHome", "ss", "paula", SECRET)
    people.remove(to, "paula")
    to.call("remove the key", "RemoveSigningKey", "st", "friend.public", 0)


def register(to: Recorder) -> None:
    """A user by the record alone."""
    for what, fields in {
        "bare": {"storage": None, "privileged": None},
        "with hash": {"storage": None},
        "with storage": {},
        "with place": {"imagePath": "/home/there.homedir"},
        "with uid": {"uid": 60400},
        "with secret": {"secret": {"password": [PASSWORD]}},
        "with realm": {"realm": "example.com", "aliases": ["annie"]},
        "luks": {"storage": "luks"},
        "fscrypt": {"storage": "fscrypt"},
        "cifs": {"storage": "cifs", "cifsService": "//host/share"},
    }.items():
        to.call(what, "RegisterHome", "s", people.text("anna", **{"secret": None, **fields}))
        to.keep(f"{what}: state", to.wait("anna", "inactive", "absent", "unfixated"))
        to.call(f"{what}: record", "GetUserRecordByName", "s", "anna")
        to.keep(f"{what}: host copy", people.host_copy("anna"))
        to.run(f"{what}: getent", "getent", "passwd", "anna")
        to.call(f"{what}: again", "RegisterHome", "s", people.text("anna"))
        to.call(f"{what}: unregister", "UnregisterHome", "s", "anna")
    to.call("register to realize", "RegisterHome", "s", people.text("anna", secret=None))
    to.call("realize", "RealizeHome", "ss", "anna", SECRET)
    to.keep("realized", to.state("anna"))
    to.call("activate", "ActivateHome", "ss", "anna", SECRET)
    people.remove(to, "anna")
    if not is_old():
        text = people.text("anna", secret=None, uid=60111)
        to.run("homectl register", "homectl", "register", stdin=text)
        to.run("homectl inspect", "homectl", "inspect", "anna", "-j")
        to.run("homectl unregister", "homectl", "unregister", "anna")
        to.run("homectl unregister again", "homectl", "unregister", "anna")
        to.run("homectl register nonsense", "homectl", "register", stdin="{")


def adopt(to: Recorder) -> None:
    """Files that lie somewhere, with their own record."""
    work = Path("/home/.adopting")
    work.mkdir(mode=0o700)
    people.create(to, "anna", uid=60111)
    moved = work / "anna.homedir"
    image = image_of(to, "anna")
    to.call("unregister", "UnregisterHome", "s", "anna")
    to.keep("comes back", to.wait("anna", "unfixated"))
    shutil.move(image, moved)
    to.keep("is gone", to.wait("anna", ""))
    (work / "anna.dir").mkdir()
    for what, path in {
        "missing": str(work / "kim.homedir"),
        "relative": "anna.homedir",
        "no name": str(work / ".homedir"),
        "bad name": str(work / "a b.homedir"),
        "another ending": str(work / "anna.dir"),
        "dots": f"{work}/../.adopting/anna.homedir",
        "empty": "",
    }.items():
        to.call(what, "AdoptHome", "st", path, 0)
    (work / "kim.home").mkdir()
    (work / "kim.homedir").write_text("no directory")
    (work / "berta.homedir").symlink_to(moved)
    for name in ("kim.home", "kim.homedir", "berta.homedir"):
        to.call(f"adopt {name}", "AdoptHome", "st", str(work / name), 0)
        people.remove(to, name.partition(".")[0])
    to.call("flags", "AdoptHome", "st", str(moved), 1)
    to.call("adopt", "AdoptHome", "st", str(moved), 0)
    to.call("its record", "GetUserRecordByName", "s", "anna")
    to.call("home", "GetHomeByName", "s", "anna")
    to.call("adopt again", "AdoptHome", "st", str(moved), 0)
    to.call("update unfixated", "UpdateHome", "s", people.text("anna", uid=60111))
    to.call("fixate", "FixateHome", "ss", "anna", SECRET)
    to.call("record then", "GetUserRecordByName", "s", "anna")
    to.call("fixate again", "FixateHome", "ss", "anna", SECRET)
    to.call("activate", "ActivateHome", "ss", "anna", SECRET)
    people.remove(to, "anna")
    to.keep("removed", sorted(os.listdir(work)))
    shutil.rmtree(work)


SECTIONS = (signing_keys, foreign_records, register, adopt)
