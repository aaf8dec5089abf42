"""Homes that security tokens unlock: enrolled by the command line, asked by the service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from homemgr.work import tokens
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD
from tests.service.site import ROOT, Service, children, name_of, wait_until
from tests.soft_tokens import PIN, Port, SoftHsm

PROGRAM = "import sys; from homemgr.entry import homemgr; sys.exit(homemgr())"
TOUCHED = {"fido2UserPresencePermitted": True}


@pytest.fixture(scope="module")
def hsm(private_mounts: None, tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return SoftHsm(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture(scope="module")
def port(private_mounts: None, tmp_path_factory: pytest.TempPathFactory) -> Port:
    return Port(tmp_path_factory.mktemp("hidraw"))


def homemgr(service: Service, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line, nobody at a terminal."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=ROOT,
        env={**service.site.environment(), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def create(service: Service, name: str, *options: str, pin: str = PIN, code: int = 0) -> str:
    """Create a home with options; gives what was said."""
    done = homemgr(service, "create", name, *options, NEWPASSWORD=PASSWORD, PIN=pin)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def secret(*pins: str, password: str = "", **flags: bool) -> str:
    words = {"password": [password]} if password else {}
    return json.dumps({"tokenPin": list(pins), **words, **flags})


def authenticate(service: Service, name: str, given: str) -> str:
    """The error that comes of it; empty if it unlocks."""
    return service.begin("AuthenticateHome", "ss", name, given).failure()


def test_a_pkcs11_token_unlocks_what_the_command_line_enrolled(
    service: Service, hsm: SoftHsm
) -> None:
    uri = hsm.add("curve")
    create(service, "anna", f"--pkcs11-token-uri={uri}")
    # PAM's first question is empty, and the answer tells it what to ask for.
    assert authenticate(service, "anna", "{}") == "TokenPinNeeded"
    assert authenticate(service, "anna", secret("0000")) == "BadPinFewTriesLeft"
    service.call("ActivateHome", "ss", "anna", secret(PIN))
    service.deactivate("anna")
    assert authenticate(service, "anna", secret(password=PASSWORD)) == ""
    assert authenticate(service, "anna", secret(password=WRONG_PASSWORD)) == "TokenPinNeeded"
    with hsm.unplugged():
        assert authenticate(service, "anna", "{}") == "BadPasswordAndNoToken"
        assert authenticate(service, "anna", secret(password=PASSWORD)) == ""
    record = service.user_record("anna")
    assert record["pkcs11TokenUri"] == [uri]
    status = record["status"]
    assert isinstance(status, dict)
    (here,) = status.values()
    assert isinstance(here, dict)
    # An empty secret guesses nothing; a PIN and a password do.
    assert here["badAuthenticationCounter"] == 2


def test_update_adds_and_takes_away_tokens(service: Service, hsm: SoftHsm) -> None:
    uri = hsm.add("keyring", "rsa:2048")
    service.create("bert")
    update = ("update", "bert", f"--pkcs11-token-uri={uri}")
    done = homemgr(service, *update, PASSWORD=PASSWORD, PIN="0000")
    # Nobody is there to be asked for the right one.
    assert done.returncode == 1
    assert "PIN" in done.stderr
    assert homemgr(service, *update, PASSWORD=PASSWORD, PIN=PIN).returncode == 0
    assert authenticate(service, "bert", secret(PIN)) == ""
    away = homemgr(service, "update", "bert", "--pkcs11-token-uri=", PASSWORD=PASSWORD)
    assert away.returncode == 0, away.stderr
    assert authenticate(service, "bert", secret(PIN)) == "BadPassword"
    assert "pkcs11TokenUri" not in service.user_record("bert")


@pytest.mark.parametrize("protocol", ["1", "2"])
def test_a_fido2_token_is_touched_and_told_its_pin(
    service: Service, port: Port, protocol: str
) -> None:
    name = f"carla{protocol}"
    token = ("--pin", PIN, "--protocol", protocol, "--master", name)
    with port.plugged_in(*token):
        assert "touch" in create(service, name, "--fido2-device=auto")
        assert authenticate(service, name, "{}") == "TokenUserPresenceNeeded"
        assert authenticate(service, name, secret(**TOUCHED)) == "TokenPinNeeded"
        assert authenticate(service, name, secret(PIN, **TOUCHED)) == ""
        assert authenticate(service, name, secret("1111", "2222", **TOUCHED)) == "BadPin"
        # The third wrong one in a row, and the token wants to be plugged in again.
        assert authenticate(service, name, secret("3333", **TOUCHED)) == "TokenPinLocked"
    with port.plugged_in(*token, "--tries", "3"):
        assert authenticate(service, name, secret("1111", **TOUCHED)) == "BadPinFewTriesLeft"
        assert authenticate(service, name, secret("1111", **TOUCHED)) == "BadPinOneTryLeft"
        assert authenticate(service, name, secret("1111", **TOUCHED)) == "TokenPinLocked"
    with port.plugged_in(*token, "--untouched"):
        assert authenticate(service, name, secret(PIN, **TOUCHED)) == "TokenActionTimeout"
    # Without the token nobody is asked to touch one.
    assert authenticate(service, name, "{}") == "BadPasswordAndNoToken"


def test_fido2_without_touch_and_pin_unlocks_by_being_there(service: Service, port: Port) -> None:
    options = ("--fido2-with-user-presence=no", "--fido2-with-client-pin=no")
    with port.plugged_in("--master", "dora"):
        create(service, "dora", "--fido2-device=auto", *options)
        assert authenticate(service, "dora", "{}") == ""
    with port.plugged_in("--master", "another"):
        assert authenticate(service, "dora", "{}") == "BadPasswordAndNoToken"
    assert authenticate(service, "dora", "{}") == "BadPasswordAndNoToken"


def test_a_token_that_knows_its_user_is_believed(service: Service, port: Port) -> None:
    options = ("--fido2-with-user-verification=yes", "--fido2-with-client-pin=no")
    with port.plugged_in("--recognises", "--insists"):
        create(service, "emma", "--fido2-device=auto", *options)
        given = {"fido2UserVerificationPermitted": True}
        assert authenticate(service, "emma", secret(**TOUCHED)) == "TokenUserVerificationNeeded"
        assert authenticate(service, "emma", secret(**TOUCHED, **given)) == ""


def test_a_token_that_hangs_holds_up_nobody_else(service: Service, port: Port) -> None:
    options = ("--fido2-with-user-presence=no", "--fido2-with-client-pin=no")
    with port.plugged_in("--master", "fred"):
        create(service, "fred", "--fido2-device=auto", *options)
    service.create("gina")
    with port.plugged_in("--mute"):
        hanging = service.begin("AuthenticateHome", "ss", "fred", secret())
        wait_until(lambda: token_processes(service) != [], "the token to be asked")
        service.activate("gina")
        service.deactivate("gina")
        assert hanging.is_alive()
        # Nor has the driver, whoever wrote it, anything of the worker's power.
        for pid in token_processes(service):
            assert powers(pid) == {"Inh": 0, "Prm": 0, "Eff": 0, "Bnd": 0, "Amb": 0, "new": 1}
        # A driver that dies is no answer either; the worker and the home live on.
        for pid in token_processes(service):
            os.kill(pid, signal.SIGKILL)
        assert hanging.failure() == "BadPasswordAndNoToken"
    with port.plugged_in("--master", "fred"):
        assert authenticate(service, "fred", "{}") == ""


def token_processes(service: Service) -> list[int]:
    """Processes that ask tokens, and are ready to."""
    found = [pid for worker in service.workers() for pid in children(worker)]
    return [pid for pid in found if name_of(pid) == tokens.NAME]


def powers(pid: int) -> dict[str, int]:
    """Its sets of capabilities, and whether it can never get new ones."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    sets = {name: int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    return {**sets, "new": int(status["NoNewPrivs"])}


def test_lists_name_what_is_plugged_in(service: Service, hsm: SoftHsm, port: Port) -> None:
    hsm.add("listed")
    listed = homemgr(service, "create", "--pkcs11-token-uri=list").stdout
    assert any("token=listed\tlisted\tSoftHSM" in line for line in listed.splitlines())
    with port.plugged_in() as device:
        assert (
            f"{device}\tVirtual Token" in homemgr(service, "update", "--fido2-device=list").stdout
        )
    none = homemgr(service, "create", "hans", "--fido2-device=auto", NEWPASSWORD=PASSWORD)
    assert none.returncode == 1
    assert "--fido2-device=list" in none.stderr


def test_a_token_opens_a_key_slot_of_an_encrypted_home(service: Service, hsm: SoftHsm) -> None:
    """One that was there at creation, and one that came later, each by itself."""
    first, second = hsm.add("first"), hsm.add("second", "rsa:2048")
    fscrypt = "--storage=fscrypt"
    create(service, "ida", fscrypt, f"--pkcs11-token-uri={first}")
    service.call("ActivateHome", "ss", "ida", secret(PIN))
    service.deactivate("ida")
    assert authenticate(service, "ida", "{}") == "TokenPinNeeded"
    create(service, "jane", fscrypt)
    update = ("update", "jane", f"--pkcs11-token-uri={second}")
    done = homemgr(service, *update, PASSWORD=PASSWORD, PIN=PIN)
    assert done.returncode == 0, done.stderr
    service.call("ActivateHome", "ss", "jane", secret(PIN))
    service.deactivate("jane")
    # The password is changed with the token at hand, as each has a slot of its own.
    new = secret(password=OTHER_PASSWORD)
    service.call("ChangePasswordHome", "sss", "jane", new, secret(PIN, password=PASSWORD))
    for given in (secret(PIN), new):
        service.call("ActivateHome", "ss", "jane", given)
        service.deactivate("jane")
    done = homemgr(service, "update", "jane", "--pkcs11-token-uri=", PASSWORD=OTHER_PASSWORD)
    assert done.returncode == 0, done.stderr
    assert authenticate(service, "jane", secret(PIN)) == "BadPassword"
