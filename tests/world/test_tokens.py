"""Unmodified homectl and PAM use security tokens with us; homes move to systemd-homed with them."""

from __future__ import annotations

import datetime
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.soft_tokens import MODULE, PIN

from . import users
from .conftest import World
from .fido2 import make_port, plugged_in, show_to_systemd
from .hands import give_back, take_over
from .terminal import Terminal
from .users import User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .box import Box

# systemd-homed runs, homemgr is installed but not set up.
WORLDS = (World("both"), World("both", base="sid"))
TOKENS, AWAY = "/var/lib/softhsm/tokens", "/var/lib/softhsm/away"


@pytest.fixture(scope="module", autouse=True)
def token_uri(box: Box) -> str:
    """The URI of a PKCS#11 token with a key and, as homectl 252 wants it, a certificate."""
    said = ("--label", "card", "--pin", PIN)
    box.run(["softhsm2-util", "--init-token", "--free", *said, "--so-pin", "0815"])
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    box.write("/root/key.pem", pem.decode())
    box.path("/root/cert.der").write_bytes(_certificate(key).public_bytes(Encoding.DER))
    about = ("--label", "home", "--id", "01", "--pin", PIN)
    box.run(["softhsm2-util", "--import", "/root/key.pem", "--token", "card", *about])
    login = ("--module", MODULE, "--token-label", "card", "--login")
    written = ("--write-object", "/root/cert.der", "--type", "cert")
    box.run(["pkcs11-tool", *login, *about, *written])
    return "pkcs11:token=card"


@pytest.fixture(scope="module", autouse=True)
def hid_devices(box: Box) -> None:
    """Where FIDO2 tokens are plugged in."""
    make_port(box)


@pytest.fixture
def create(homed: Box, nothing_left: None) -> Iterator[Callable[..., User]]:
    """Makes a user with a token, by homectl or our own command line; removed after the test."""
    made: list[User] = []

    def make(name: str, *options: str, program: str = "homectl") -> User:
        user = User(homed, name, f"open sesame {name}")
        argv = [program, "create", name, *users.CREATE, *options]
        homed.run(argv, env={"NEWPASSWORD": user.password, "PIN": PIN})
        made.append(user)
        return user

    yield make
    for user in made:
        users.remove(user)


def _certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "card")])
    now = datetime.datetime.now(tz=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    span = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return span.sign(key, hashes.SHA256())


def activate_by_pin(user: User) -> None:
    """As `homectl activate` does with the PIN and no password."""
    user.box.run(["homectl", "activate", user.name], env={"PIN": PIN})
    assert user.is_mounted()
    user.homectl("deactivate")


@contextmanager
def without_card(box: Box) -> Iterator[None]:
    """The PKCS#11 token is not there until the end of the block."""
    # Its own directory: the one above is of a layer below, and cannot be renamed.
    (token,) = box.path(TOKENS).iterdir()
    token.rename(box.path(AWAY))
    try:
        yield
    finally:
        box.path(AWAY).rename(token)


def authenticate_by_pam(user: User, *, prompt: str, answer: str) -> None:
    """What a login does; PAM asks with ``prompt``."""
    argv = ["pamtester", "login", user.name, "authenticate"]
    with Terminal(user.box, argv) as terminal:
        terminal.answer(prompt, answer)
        terminal.expect("successfully authenticated")
    user.wait_until("inactive")


def test_a_card_enrolled_with_systemd_homed_opens_with_homemgr_and_back(
    homed: Box, token_uri: str, create: Callable[..., User]
) -> None:
    bob = create("bob", f"--pkcs11-token-uri={token_uri}")
    activate_by_pin(bob)
    take_over(homed)
    activate_by_pin(bob)
    authenticate_by_pam(bob, prompt="PIN", answer=PIN)
    with Terminal(homed, ["homectl", "activate", bob.name], env={"PIN": "0000"}) as terminal:
        terminal.expect("PIN incorrect")
    with without_card(homed):
        authenticate_by_pam(bob, prompt="assword", answer=bob.password)
    assert bob.state() == "inactive"
    give_back(homed)
    activate_by_pin(bob)


def test_a_card_enrolled_with_homemgr_opens_with_systemd_homed(
    homed: Box, token_uri: str, create: Callable[..., User]
) -> None:
    take_over(homed)
    carol = create("carol", f"--pkcs11-token-uri={token_uri}", program="homemgr")
    activate_by_pin(carol)
    give_back(homed)
    activate_by_pin(carol)
    take_over(homed)
    # The real homectl changes it with us; the key slots that it then wants anew there are none of.
    carol.homectl("update", "--pkcs11-token-uri=")
    dave = create("dave")
    argv = ["homectl", "update", dave.name, f"--pkcs11-token-uri={token_uri}"]
    homed.run(argv, env={"PASSWORD": dave.password, "PIN": PIN})
    activate_by_pin(dave)


def test_a_fido2_token_enrolled_by_homectl_is_touched_at_login(
    homed: Box, create: Callable[..., User]
) -> None:
    take_over(homed)
    with plugged_in(homed) as device:
        options = ("--fido2-with-client-pin=no", "--fido2-with-user-presence=yes")
        emma = create("emma", f"--fido2-device={device}", *options)
        homed.run(["homectl", "activate", emma.name])
        assert emma.is_mounted()
        emma.homectl("deactivate")
        argv = ["pamtester", "login", emma.name, "authenticate"]
        # Nothing is typed.
        with Terminal(homed, argv) as terminal:
            terminal.expect("presence")
            terminal.expect("successfully authenticated")
        emma.wait_until("inactive")
    authenticate_by_pam(emma, prompt="assword", answer=emma.password)


@pytest.mark.base("sid")
def test_a_fido2_token_with_a_pin_opens_homes_of_either_service_with_the_other(
    homed: Box, create: Callable[..., User]
) -> None:
    """Enrolled by homectl with systemd-homed, and by our command line with us; both ask for it."""
    show_to_systemd(homed)
    frida, gerda = User(homed, "frida", "open sesame frida"), None
    with plugged_in(homed, "--pin", PIN):
        enrol_at_terminal(frida)
        try:
            activate_after_a_wrong_pin(frida)
            take_over(homed)
            activate_after_a_wrong_pin(frida)
            token = ("--fido2-device=auto", "--fido2-with-client-pin=yes")
            gerda = create("gerda", "--storage=fscrypt", *token, program="homemgr")
            assert gerda.record()["privileged"]["fido2HmacSalt"][0]["clientPin"] is True
            for serving in (lambda: None, lambda: give_back(homed)):
                serving()
                activate_after_a_wrong_pin(gerda)
                authenticate_by_pam(gerda, prompt="PIN", answer=PIN)
            activate_after_a_wrong_pin(frida)
        finally:
            users.remove(frida)


def enrol_at_terminal(user: User) -> None:
    """As homectl does it with whatever token is there; for a new one it asks people alone."""
    argv = ["homectl", "create", user.name, *users.CREATE, "--fido2-device=auto"]
    with Terminal(user.box, argv, env={"NEWPASSWORD": user.password}) as terminal:
        terminal.answer("token PIN", "0000")
        terminal.expect("PIN incorrect")
        terminal.answer("token PIN", PIN)
        terminal.expect("confirm presence")
        assert terminal.finish().code == 0


def activate_after_a_wrong_pin(user: User) -> None:
    """As `homectl activate` does with the token at hand."""
    argv = ["homectl", "activate", user.name]
    with Terminal(user.box, argv, env={"PIN": "0000"}) as terminal:
        terminal.expect("PIN incorrect")
        terminal.answer("enter security token PIN", PIN)
        assert terminal.finish().code == 0
    assert user.is_mounted()
    user.homectl("deactivate")
