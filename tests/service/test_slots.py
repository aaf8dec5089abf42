"""Passwords and recovery keys one by one, and what a change of the password does to them."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from homemgr.wire.messages import BusError
from tests.service.bus import STRANGERS
from tests.service.holders import stranger
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import ROOT, Service, short

MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")
PROGRAM = "import sys; from homemgr.entry import homemgr; sys.exit(homemgr())"
KEY = "-".join(["cbdefghi", "jklnrtuv"] * 4)
OTHER_KEY = "-".join(["ijklnrtu", "vcbdefgh"] * 4)
WEAK = "password1"


def call(service: Service, member: str, *words: str) -> list[object]:
    """A member of org.homemgr1.Manager, all of whose arguments are strings."""
    return service.client.call(*MANAGER, member, "s" * len(words), words, timeout_s=60).body


def refused(service: Service, member: str, *words: str) -> str:
    """The short name of what it is refused with."""
    with pytest.raises(BusError) as caught:
        call(service, member, *words)
    return short(caught.value.name).removeprefix("org.homemgr1.Error.")


def slots(service: Service, name: str) -> dict[str, str]:
    """Kinds by name."""
    (text,) = call(service, "ListSlots", name)
    return {slot["name"]: slot["kind"] for slot in json.loads(str(text))}


def opens(service: Service, name: str, *words: str) -> list[bool]:
    """Which of the words unlock the home, each by itself."""
    # Acquired, since those wait for each other; the refusals are held back together.
    begun = [service.begin("AcquireHome", "ssb", name, secret(word), False) for word in words]
    answers = [one.failure() for one in begun]
    service.wait_for(name, "inactive")
    assert set(answers) <= {"", "BadPassword"}
    return [answer == "" for answer in answers]


def homemgr(service: Service, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=ROOT,
        env={**service.site.environment(), **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def test_slots_come_and_go_without_each_other(service: Service) -> None:
    service.create("anna", rateLimitBurst=1000)
    call(service, "AddSlot", "anna", "work", "password", secret(OTHER_PASSWORD), secret(PASSWORD))
    call(service, "AddSlot", "anna", "safe", "recovery-key", secret(KEY.upper()), secret(PASSWORD))
    assert slots(service, "anna") == {
        "password": "password",
        "work": "password",
        "safe": "recovery-key",
    }
    for word, name in ((PASSWORD, "password"), (OTHER_PASSWORD, "work"), (KEY, "safe")):
        call(service, "TestSlot", "anna", name, secret(word))
        service.activate("anna", word)
        service.deactivate("anna")
    assert refused(service, "TestSlot", "anna", "work", secret(PASSWORD)) == "BadPassword"
    assert refused(service, "TestSlot", "anna", "safe", secret(PASSWORD)) == "BadRecoveryKey"
    # With the key from the safe in hand it is changed for another.
    call(service, "ReplaceSlot", "anna", "safe", secret(OTHER_KEY), secret(KEY))
    assert refused(service, "TestSlot", "anna", "safe", secret(KEY)) == "BadPassword"
    # A change of the password takes that one alone, and needs nothing from the safe.
    service.call("ChangePasswordHome", "sss", "anna", secret("a third word"), secret(PASSWORD))
    assert list(slots(service, "anna")) == ["password", "work", "safe"]
    words = (PASSWORD, "a third word", OTHER_PASSWORD, KEY, OTHER_KEY)
    assert opens(service, "anna", *words) == [False, True, True, False, True]
    # Who removes a slot shows that another one is his.
    given = secret(OTHER_PASSWORD)
    assert refused(service, "RemoveSlot", "anna", "work", given) == "LastSlot"
    call(service, "RemoveSlot", "anna", "password", given)
    call(service, "RemoveSlot", "anna", "work", secret(OTHER_KEY))
    assert refused(service, "RemoveSlot", "anna", "safe", secret(OTHER_KEY)) == "LastSlot"
    assert slots(service, "anna") == {"safe": "recovery-key"}
    assert service.error("AuthenticateHome", "ss", "anna", "{}") == "BadRecoveryKey"
    # Both copies say the same, also to a service that has just started.
    inside = json.loads((service.site.base / "anna.homedir/.identity").read_text())
    assert inside["privileged"] == service.user_record("anna")["privileged"]
    assert list(inside["privileged"]["org.homemgr.slots"]) == ["safe"]


def test_what_a_slot_may_not_be(service: Service) -> None:
    service.create("bert", rateLimitBurst=1000)
    given = secret(PASSWORD)
    before = service.site.digest()

    def add(name: str, kind: str, new: str, old: str = given) -> str:
        return refused(service, "AddSlot", "bert", name, kind, new, old)

    assert add("password", "password", secret(OTHER_PASSWORD)) == "InvalidArgs"
    assert add("x", "pkcs11", secret(OTHER_PASSWORD)) == "InvalidArgs"
    assert add("x", "password", "{}") == "InvalidArgs"
    assert add("x", "password", secret(OTHER_PASSWORD, "one more 77")) == "InvalidArgs"
    assert add("x", "recovery-key", secret(OTHER_PASSWORD)) == "InvalidArgs"
    assert add("x", "password", secret(WEAK)) == "LowPasswordQuality"
    assert add("x", "password", secret(OTHER_PASSWORD), secret(WRONG_PASSWORD)) == "BadPassword"
    assert add("x", "password", secret(OTHER_PASSWORD), "{}") == "BadPassword"
    # The same password in two slots could not be taken away by removing one.
    assert add("x", "password", given, secret(PASSWORD + "?", PASSWORD)) != "SlotExists"
    assert refused(service, "RemoveSlot", "bert", "x", given) == "NoSuchSlot"
    assert refused(service, "TestSlot", "bert", "x", given) == "NoSuchSlot"
    assert refused(service, "RemoveSlot", "bert", "password", given) == "LastSlot"
    assert service.site.digest() == before


def test_the_policy_on_passwords_cannot_be_talked_around(service: Service) -> None:
    service.create("cleo", rateLimitBurst=1000, realName="Cleo Albrecht")
    change = ("ChangePasswordHome", "sss", "cleo")
    # One that is said to be an old one is not checked, if it is one.
    assert service.error(*change, secret(WEAK), secret(PASSWORD, WEAK)) == "LowPasswordQuality"
    assert service.error(*change, secret(PASSWORD), secret(PASSWORD)) == "LowPasswordQuality"
    assert service.error(*change, secret("Albrecht12"), "{}") == "LowPasswordQuality"
    # Keys of the storage made anew, for clients that ask for it: no change of the password.
    service.call(*change, "{}", secret(PASSWORD))
    assert service.error(*change, "{}", secret(WRONG_PASSWORD)) == "BadPassword"
    stamp = service.user_record("cleo")["lastPasswordChangeUSec"]
    service.call(*change, secret(PASSWORD, OTHER_PASSWORD), secret(PASSWORD))
    assert opens(service, "cleo", PASSWORD, OTHER_PASSWORD) == [True, True]
    assert service.user_record("cleo")["lastPasswordChangeUSec"] != stamp
    service.create("dora", enforcePasswordPolicy=False)
    service.call("ChangePasswordHome", "sss", "dora", secret("x"), secret(PASSWORD))
    assert service.user_record("dora")["privileged"] != {}
    call(service, "AddSlot", "dora", "y", "password", secret("y"), secret("x"))
    assert opens(service, "dora", "x", "y", PASSWORD) == [True, True, False]


def test_a_password_slot_is_bound_to_the_age_of_the_password(service: Service) -> None:
    hour = 3_600_000_000
    service.create("emil", passwordChangeMinUSec=hour)
    new = secret(OTHER_PASSWORD)
    denied = service.failure("ChangePasswordHome", "sss", "emil", new, secret(PASSWORD))
    assert (short(denied.name), "60 minutes" in denied.message) == ("AccessDenied", True)
    add = ("AddSlot", "emil", "work")
    assert refused(service, *add, "password", new, secret(PASSWORD)) == "AccessDenied"
    call(service, *add, "recovery-key", secret(KEY), secret(PASSWORD))
    stamp = time.time_ns() // 1000 - 3 * hour
    ages = {"passwordChangeMaxUSec": hour, "passwordChangeInactiveUSec": hour}
    service.create("fritz", lastPasswordChangeUSec=stamp, **ages)
    denied = service.failure("ChangePasswordHome", "sss", "fritz", new, secret(PASSWORD))
    assert (short(denied.name), "administrator" in denied.message) == ("AccessDenied", True)
    service.create("gerda", lastPasswordChangeUSec=stamp, passwordChangeMaxUSec=hour)
    service.call("ChangePasswordHome", "sss", "gerda", new, secret(PASSWORD))
    changed = service.user_record("gerda")["lastPasswordChangeUSec"]
    assert isinstance(changed, int)
    assert changed > stamp + 2 * hour


def test_slots_are_for_root_and_the_user_himself(service: Service) -> None:
    service.create("hugo", uid=STRANGERS[0], rateLimitBurst=1000)
    new, given = secret(OTHER_PASSWORD), secret(PASSWORD)
    asked = (
        ("ListSlots", "hugo"),
        ("AddSlot", "hugo", "work", "password", new, given),
        ("TestSlot", "hugo", "work", new),
        ("ReplaceSlot", "hugo", "work", secret("a third word"), new),
        ("RemoveSlot", "hugo", "work", given),
    )
    for uid, is_owner in ((STRANGERS[1], False), (STRANGERS[0], True)):
        with stranger(uid, service.site.bus_address) as client:
            for member, *words in asked:
                try:
                    client.call_at((*MANAGER, member), "s" * len(words), *words)
                    answer = ""
                except BusError as error:
                    answer = short(error.name)
                assert answer == ("" if is_owner else "AccessDenied"), member
    assert slots(service, "hugo") == {"password": "password"}


def test_the_command_line_shows_a_recovery_key_once(service: Service) -> None:
    service.create("ida", rateLimitBurst=1000)
    passwords = {"PASSWORD": PASSWORD, "NEWPASSWORD": OTHER_PASSWORD}
    assert homemgr(service, "slot", "add", "ida", "work", **passwords).returncode == 0
    shown = homemgr(
        service, "slot", "add", "ida", "safe", "--recovery-key", PASSWORD=OTHER_PASSWORD
    )
    key = shown.stdout.strip()
    assert (shown.returncode, len(key), key in shown.stderr) == (0, 71, False)
    listed = homemgr(service, "slot", "list", "ida", "--no-legend").stdout
    assert listed.split() == [
        *("password", "password", "work", "password", "safe", "recovery-key")
    ]  # fmt: skip
    assert homemgr(service, "slot", "test", "ida", "safe", PASSWORD=key.upper()).returncode == 0
    rotated = homemgr(service, "slot", "replace", "ida", "safe", PASSWORD=key)
    assert (rotated.returncode, rotated.stdout != shown.stdout) == (0, True)
    assert opens(service, "ida", key, rotated.stdout.strip()) == [False, True]
    wrong = homemgr(service, "slot", "remove", "ida", "work", PASSWORD=OTHER_PASSWORD)
    assert (wrong.returncode, "another slot" in wrong.stderr) == (1, True)
    assert homemgr(service, "slot", "remove", "ida", "work", PASSWORD=PASSWORD).returncode == 0
    assert homemgr(service, "slot", "replace", "ida", "work").returncode == 1
    assert homemgr(service, "slot", "turn", "ida", "work").returncode == 2
