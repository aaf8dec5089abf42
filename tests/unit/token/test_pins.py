"""PINs are tried as seldom as can be: a token counts them."""

from __future__ import annotations

from typing import cast

import pytest

from homemgr import errors
from homemgr.token import cryptoki
from homemgr.token.cryptoki import Module, TokenInfo
from homemgr.token.p11kit import Uri
from homemgr.token.pkcs11 import Tokens

NEEDS_PIN = cryptoki.LOGIN_REQUIRED


class Driver:
    """A driver of one token, which answers a login with what it is told to, and counts them."""

    def __init__(self, flags: int, *codes: int, later: int = 0) -> None:
        self._flags = flags
        self._later = later
        self._codes = list(codes)
        self.logins = 0

    def slots(self) -> list[int]:
        return [1]

    def token(self, slot: int) -> TokenInfo:
        flags = self._flags | (self._later if self.logins else 0)
        return TokenInfo(label=b"Key" + b" " * 29, serial=b"1", flags=flags)

    def call(self, name: str, *arguments: object) -> None:
        assert name == "C_OpenSession"

    def result(self, name: str, *arguments: object) -> int:
        if name != "C_Login":
            return cryptoki.OK
        self.logins += 1
        return self._codes.pop(0)


class AnyToken:
    def means(self, token: TokenInfo) -> bool:
        return True


def log_in(tokens: Tokens, *pins: str, by_itself: bool = False) -> str:
    with tokens.logged_in(cast("Uri", AnyToken()), pins, by_itself=by_itself) as (_, pin):
        return pin


def tokens_of(driver: Driver) -> Tokens:
    return Tokens([cast("Module", driver)])


def test_a_wrong_pin_is_not_tried_again() -> None:
    driver = Driver(NEEDS_PIN, cryptoki.PIN_INCORRECT, cryptoki.OK, cryptoki.OK)
    tokens = tokens_of(driver)
    for _ in range(5):
        with pytest.raises(errors.BadPin):
            log_in(tokens, "1111")
    assert driver.logins == 1
    assert log_in(tokens, "1111", "4711") == "4711"
    assert driver.logins == 2


@pytest.mark.parametrize(
    ("driver", "expected", "logins"),
    [
        (Driver(NEEDS_PIN | cryptoki.PIN_IS_LOCKED), errors.TokenPinLocked, 0),
        (Driver(NEEDS_PIN, cryptoki.PIN_LOCKED), errors.TokenPinLocked, 1),
        (
            Driver(NEEDS_PIN, cryptoki.PIN_INCORRECT, later=cryptoki.PIN_IS_LOCKED),
            errors.TokenPinLocked,
            1,
        ),
        (
            Driver(NEEDS_PIN, cryptoki.PIN_LEN_RANGE, later=cryptoki.PIN_FINAL_TRY),
            errors.BadPinOneTryLeft,
            1,
        ),
        (
            Driver(NEEDS_PIN, cryptoki.PIN_INVALID, later=cryptoki.PIN_COUNT_LOW),
            errors.BadPinFewTriesLeft,
            1,
        ),
        (Driver(NEEDS_PIN, 0x30), errors.NotSupported, 1),
        (Driver(cryptoki.PROTECTED_PATH), errors.TokenProtectedAuthenticationPathNeeded, 0),
    ],
)
def test_the_token_says_how_many_tries_are_left(
    driver: Driver, expected: type[errors.HomeError], logins: int
) -> None:
    with pytest.raises(expected):
        log_in(tokens_of(driver), "1111")
    assert driver.logins == logins


def test_a_token_with_keys_of_its_own_asks_for_the_pin_itself() -> None:
    assert log_in(tokens_of(Driver(cryptoki.PROTECTED_PATH, cryptoki.OK)), by_itself=True) == ""
    refusing = tokens_of(Driver(cryptoki.PROTECTED_PATH, cryptoki.PIN_INCORRECT))
    with pytest.raises(errors.BadPin):
        log_in(refusing, by_itself=True)


def test_a_token_without_pin_is_simply_used() -> None:
    assert log_in(tokens_of(Driver(0))) == ""
