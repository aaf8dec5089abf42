"""Extensions at login: merged, shown as the user's, gone at logout, and never in the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError, Message
from tests.pages import is_resident
from tests.service import people
from tests.service.extension_store import make_store
from tests.service.site import Service, Site, wait_until

NAME, PATH, MANAGER = "org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager"
NOBODY = 65534

CONF = """
[Extension tools]
Users=alice bob
[Extension broken]
Users=bob
[Extension must]
Users=carol
Required=yes
[Extension extra]
Optional=*
"""


def make(directory: Path, name: str, files: dict[str, str]) -> Path:
    """A directory extension with these files below home/, owned by nobody, closed to others."""
    top = directory / name
    release = top / "usr/lib/extension-release.d" / f"extension-release.{name}"
    release.parent.mkdir(parents=True)
    release.write_text("ID=_any\n", encoding="utf-8")
    for path, text in files.items():
        file = top / "home" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(top / "home")], check=True)
    top.chmod(0o700)
    return top


@pytest.fixture
def store(tmp_path: Path, ground: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of extensions and the rules for them, known to the next daemon."""
    directory = make_store(ground, tmp_path, CONF, monkeypatch)
    make(directory, "tools", {".local/bin/tool": "#!/bin/sh\necho from the extension\n"})
    make(directory, "extra", {".config/corp/settings": "a=1\n"})
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=True)


@pytest.fixture
def merging(store: Path, new_site: Callable[..., Site]) -> Iterator[Service]:
    """A daemon with extensions."""
    running = Service(new_site())
    yield running
    running.call("DeactivateAllHomes")
    running.close()


def status(service: Service, user: str) -> dict[str, object]:
    """What the service says about a user's extensions."""
    reply = service.client.call(NAME, PATH, MANAGER, "GetExtensionStatus", "s", (user,))
    answer = json.loads(str(reply.body[0]))
    assert isinstance(answer, dict)
    return answer


def as_user(uid: int, *argv: str) -> str:
    """Run a program as the user of a home."""
    done = subprocess.run(
        argv, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_tool_is_there_at_login_and_gone_at_logout(merging: Service) -> None:
    merging.create("alice")
    merging.activate("alice")
    home = merging.path_of("alice")
    uid = home.stat().st_uid
    tool = home / ".local/bin/tool"
    assert as_user(uid, str(tool)) == "from the extension\n"
    assert tool.stat().st_uid == uid
    entry = status(merging, "alice")
    assert entry["merged"] == [".local/bin"]
    merging.deactivate("alice")
    image = merging.site.base / "alice.homedir"
    assert not (image / ".local").exists()
    assert not (image / ".homemgr" / "work").exists()


def test_what_the_user_writes_stays_and_what_he_deletes_stays_deleted(merging: Service) -> None:
    merging.create("alice")
    merging.activate("alice")
    home = merging.path_of("alice")
    uid = home.stat().st_uid
    as_user(uid, "sh", "-c", f"echo mine > {home}/.local/bin/own; rm {home}/.local/bin/tool")
    merging.deactivate("alice")
    image = merging.site.base / "alice.homedir"
    assert os.listdir(image / ".local/bin") == ["own"]
    owners = {p.lstat().st_uid for p in image.rglob("*")}
    assert owners == {NOBODY}
    merging.activate("alice")
    assert os.listdir(home / ".local/bin") == ["own"]
    reply = merging.client.call(NAME, PATH, MANAGER, "GetExtensionDifferences", "s", ("alice",))
    found = json.loads(str(reply.body[0]))["differences"]
    assert [(d["path"], d["kind"], d["extension"]) for d in found] == [("tool", "deleted", "tools")]


def test_a_directory_deleted_and_made_anew_is_the_users_from_then_on(
    merging: Service, store: Path
) -> None:
    subprocess.run(["rm", "-r", str(store / "extra")], check=True)
    make(store, "extra", {".config/corp/part/file": "theirs\n", ".config/corp/b": ""})
    merging.create("dora")
    merging.client.call(NAME, PATH, MANAGER, "EnableExtension", "ss", ("dora", "extra"))
    merging.activate("dora")
    corp = merging.path_of("dora") / ".config/corp"
    uid = corp.stat().st_uid
    script = f"cd {corp}; rm -r part; mkdir part own; echo mine > part/mine"
    as_user(uid, "sh", "-c", script)
    merging.deactivate("dora")
    memory = merging.site.base / "dora.homedir/.homemgr/extensions.json"
    told = json.loads(memory.read_text())["hierarchies"]
    assert told == {".config/corp": {"deleted": [], "opaque": ["part"]}}
    merging.activate("dora")
    assert os.listdir(corp / "part") == ["mine"]
    # Also if it is taken off while the home is in use, and is wanted no more.
    as_user(uid, "sh", "-c", f"cd {corp}; rm b; mkdir b")
    merging.client.call(NAME, PATH, MANAGER, "DisableExtension", "ss", ("dora", "extra"))
    merging.client.call(NAME, PATH, MANAGER, "RefreshExtensions", "st", ("dora", 0))
    assert sorted(os.listdir(corp)) == ["b", "own", "part"]
    merging.deactivate("dora")
    told = json.loads(memory.read_text())["hierarchies"]
    assert told == {".config/corp": {"deleted": [], "opaque": ["b", "part"]}}


def test_two_users_share_one_copy_on_disk_and_in_memory(merging: Service, store: Path) -> None:
    content = os.urandom(1 << 20)
    tree = make(store, "big", {".local/share/big/data": ""})
    (tree / "home/.local/share/big/data").write_bytes(content)
    subprocess.run(["mkfs.erofs", "--quiet", f"{tree}.raw", str(tree)], check=True)
    shutil.rmtree(tree)
    image = store / "big.raw"
    image.chmod(0o644)
    (store / "big.raw.sha256").write_text(hashlib.sha256(image.read_bytes()).hexdigest())
    (store / "big.raw.sha256").chmod(0o644)
    for name in ("anna", "bert"):
        merging.create(name, **{"org.homemgr.extensions": ["big"]})
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")
    merging.activate("anna")
    free = os.statvfs(store).f_bfree
    merging.activate("bert")
    first, second = (merging.path_of(n) / ".local/share/big/data" for n in ("anna", "bert"))
    assert first.read_bytes() == content
    assert first.stat().st_uid != second.stat().st_uid
    with second.open("rb") as file:
        assert is_resident(file.fileno(), len(content))
    # Some blocks of directories and of the journal, whatever the extension's size.
    assert free - os.statvfs(store).f_bfree < 64
    merging.deactivate("anna")
    merging.deactivate("bert")
    # Nobody holds it any more: its space is free again.
    free = os.statvfs(store).f_bfree
    image.unlink()
    wait_until(lambda: os.statvfs(store).f_bfree - free > 200, "the image to be let go of")


def test_a_missing_one_is_skipped_with_a_reason(merging: Service) -> None:
    merging.create("bob")
    merging.activate("bob")
    entries = {e["name"]: e for e in status(merging, "bob")["extensions"]}  # type: ignore[index,attr-defined]
    assert entries["tools"]["state"] == "merged"
    assert entries["broken"]["state"] == "skipped"
    assert "no extension broken" in entries["broken"]["reasons"][0]


def test_a_required_one_that_is_missing_refuses_the_login(merging: Service) -> None:
    merging.create("carol")
    refused = merging.failure("ActivateHome", "ss", "carol", people.secret(people.PASSWORD))
    assert refused.name == "org.homemgr1.Error.NoSuchExtension" or "must" in refused.message
    assert merging.state("carol") == "inactive"


def test_the_user_chooses_and_a_refresh_applies_it(merging: Service) -> None:
    merging.create("dora")
    merging.activate("dora")
    home = merging.path_of("dora")
    merging.client.call(NAME, PATH, MANAGER, "EnableExtension", "ss", ("dora", "extra"))
    assert not (home / ".config/corp/settings").exists()
    reply = merging.client.call(NAME, PATH, MANAGER, "RefreshExtensions", "st", ("dora", 0))
    changes = json.loads(str(reply.body[0]))["changes"]
    assert [c["state"] for c in changes] == ["applied"]
    assert (home / ".config/corp/settings").read_text(encoding="utf-8") == "a=1\n"
    merging.client.call(NAME, PATH, MANAGER, "DisableExtension", "ss", ("dora", "extra"))
    merging.client.call(NAME, PATH, MANAGER, "RefreshExtensions", "st", ("dora", 0))
    assert not (home / ".config").exists()


def test_choices_are_of_the_user_and_not_of_the_name(merging: Service) -> None:
    merging.create("dora")
    merging.client.call(NAME, PATH, MANAGER, "EnableExtension", "ss", ("dora", "extra"))
    merging.call("RemoveHome", "s", "dora")
    merging.create("dora")
    reply = merging.client.call(NAME, PATH, MANAGER, "GetExtensionStatus", "s", ("dora",))
    assert json.loads(str(reply.body[0]))["chosen"] == []


def test_a_refresh_tells_its_steps(merging: Service) -> None:
    merging.create("dora")
    merging.activate("dora")
    merging.client.call(NAME, PATH, MANAGER, "EnableExtension", "ss", ("dora", "extra"))
    told: list[list[object]] = []

    def hear(message: Message) -> None:
        if message.member == "ExtensionProgress":
            told.append(message.body())

    merging.client.on_signal = hear
    rule = f"type='signal',sender='{NAME}',interface='{MANAGER}'"
    merging.client.call(BUS_NAME, BUS_PATH, BUS_NAME, "AddMatch", "s", (rule,))
    merging.client.call(NAME, PATH, MANAGER, "RefreshExtensions", "st", ("dora", 0))
    assert told == [["dora", "open", "extra", 0, 1], ["dora", "merge", ".config/corp", 0, 1]]


def test_rules_are_read_again_without_a_restart(merging: Service, tmp_path: Path) -> None:
    merging.create("anton")
    conf = tmp_path / "extensions.conf"

    def wanted() -> object:
        return status(merging, "anton")["wanted"]

    conf.write_text(CONF + "[Extension tools]\nUsers=anton\n", encoding="utf-8")
    assert wanted() == []
    merging.hang_up()
    wait_until(lambda: wanted() == ["tools"], "the new rules to count")
    conf.write_text("[Extension tools]\nUsers=anton\nNonsense=1\n", encoding="utf-8")
    merging.hang_up()
    wait_until(lambda: "stay as they were" in merging.site.log.read_text(), "a complaint")
    assert wanted() == ["tools"]
    conf.write_text("[Extension extra]\nUsers=anton\n", encoding="utf-8")
    merging.hang_up()
    wait_until(lambda: wanted() == ["extra"], "the rules to be right again")


def activate_in(service: Service, user: str, mode: str) -> None:
    """Activate a home in a mode of the caller's choice."""
    arguments = (user, people.secret(people.PASSWORD), mode)
    service.client.call(NAME, PATH, MANAGER, "ActivateHomeInMode", "sss", arguments)


def test_an_ephemeral_home_forgets_all_that_was_written(merging: Service) -> None:
    merging.create("alice")
    image = merging.site.base / "alice.homedir"
    before = sorted(path.relative_to(image) for path in image.rglob("*"))
    activate_in(merging, "alice", "ephemeral")
    home = merging.path_of("alice")
    uid = home.stat().st_uid
    assert as_user(uid, str(home / ".local/bin/tool")) == "from the extension\n"
    script = f"echo x > {home}/new; mkdir -p {home}/a/b; rm {home}/.local/bin/tool; rm {home}/.i*"
    as_user(uid, "sh", "-c", script)
    assert not (home / ".local/bin/tool").exists()
    told = status(merging, "alice")
    assert (told["home_mode"], told["merged"]) == ("ephemeral", [".local/bin"])
    reply = merging.client.call(NAME, PATH, MANAGER, "RefreshExtensions", "st", ("alice", 0))
    (change,) = json.loads(str(reply.body[0]))["changes"]
    assert change["state"] == "deferred"
    assert "at the next login" in change["reason"]
    arguments = ("alice", [".local/bin/tool"], 0)
    with pytest.raises(BusError, match="after the logout"):
        merging.client.call(NAME, PATH, MANAGER, "DiscardExtensionChanges", "sast", arguments)
    merging.deactivate("alice")
    assert sorted(path.relative_to(image) for path in image.rglob("*")) == before
    merging.activate("alice")
    assert status(merging, "alice")["home_mode"] == "normal"
    as_user(uid, "sh", "-c", f"echo x > {home}/new")
    merging.deactivate("alice")
    assert (image / "new").exists()


def test_a_record_says_how_the_home_is_shown_and_nobody_lifts_it(merging: Service) -> None:
    merging.create("alice", **{"org.homemgr.homeMode": "read-only"})
    merging.create("erika", **{"org.homemgr.homeMode": "ephemeral"})
    merging.activate("alice")
    home = merging.path_of("alice")
    script = f"touch {home}/x 2>/dev/null || echo refused; {home}/.local/bin/tool"
    assert as_user(home.stat().st_uid, "sh", "-c", script) == "refused\nfrom the extension\n"
    merging.deactivate("alice")
    for mode in ("normal", "ephemeral"):
        with pytest.raises(BusError, match="says that the home is read-only"):
            activate_in(merging, "alice", mode)
    assert merging.state("alice") == "inactive"
    # Also without a single extension.
    activate_in(merging, "erika", "ephemeral")
    home = merging.path_of("erika")
    as_user(home.stat().st_uid, "touch", f"{home}/x")
    assert status(merging, "erika")["home_mode"] == "ephemeral"
    merging.deactivate("erika")
    assert not (merging.site.base / "erika.homedir/x").exists()
    with pytest.raises(BusError, match="none of normal, ephemeral, read-only"):
        activate_in(merging, "erika", "upside-down")


def test_a_note_of_a_mode_is_forgotten_by_the_next_daemon_too(merging: Service) -> None:
    merging.create("erika")
    activate_in(merging, "erika", "read-only")
    merging.restart()
    assert status(merging, "erika")["home_mode"] == "read-only"
    merging.deactivate("erika")
    merging.activate("erika")
    assert status(merging, "erika")["home_mode"] == "normal"


def inventory(service: Service) -> dict[str, dict[str, object]]:
    """ListExtensions, by name."""
    reply = service.client.call(NAME, PATH, MANAGER, "ListExtensions", "", ())
    return {entry["name"]: entry for entry in json.loads(str(reply.body[0]))["extensions"]}


def test_the_list_says_what_can_be_used_and_why_not(merging: Service, store: Path) -> None:
    make(store, "foreign", {".local/bin/x": ""})
    release = store / "foreign/usr/lib/extension-release.d/extension-release.foreign"
    release.write_text("ID=another\n", encoding="utf-8")
    found = inventory(merging)
    assert sorted(found) == ["extra", "foreign", "tools"]
    assert found["tools"]["usable"]
    assert found["tools"]["form"] == "directory"
    assert found["tools"]["hierarchies"] == [".local/bin"]
    assert not found["foreign"]["usable"]
    assert "ID=another" in str(found["foreign"]["reason"])


def test_a_directory_needs_no_trust_and_an_unknown_name_gets_none(merging: Service) -> None:
    for name, said in (("tools", "needs no digest"), ("none", "There is no extension none")):
        with pytest.raises(BusError, match=said):
            merging.client.call(NAME, PATH, MANAGER, "TrustExtension", "s", (name,))


def test_nothing_is_wrong_with_a_home_while_extensions_are_merged(merging: Service) -> None:
    merging.create("alice")
    merging.activate("alice")
    uid = merging.path_of("alice").stat().st_uid
    as_user(uid, "rm", str(merging.path_of("alice") / ".local/bin/tool"))
    for member in ("CheckHomes", "RepairHomes"):
        reply = merging.client.call(NAME, PATH, MANAGER, member, "s", ("alice",))
        assert reply.body == ["[]"]
    merging.deactivate("alice")
    assert merging.client.call(NAME, PATH, MANAGER, "CheckHomes", "s", ("alice",)).body == ["[]"]
