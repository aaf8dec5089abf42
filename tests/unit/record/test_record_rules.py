"""Each value type: what it takes, as what it reads it, and how it refuses the rest."""

from __future__ import annotations

import pytest

from homemgr.errors import InvalidRecord
from homemgr.record import rules
from homemgr.record.jsontext import Json
from homemgr.record.rules import ListOf, Rule, choice, number, octal


@pytest.mark.parametrize(
    ("rule", "given", "read"),
    [
        (rules.TEXT, "", ""),
        (rules.LINE, "a b", "a b"),
        (rules.BOOLEAN, True, True),
        (rules.SWITCH, 1, True),
        (rules.SWITCH, 0, False),
        (rules.SWITCH, False, False),
        (rules.UNSIGNED, 0, 0),
        (rules.UNSIGNED, (1 << 64) - 1, (1 << 64) - 1),
        (rules.UNSIGNED, "42", 42),
        (number(-20, 19), -20, -20),
        (octal(0o7777), 448, 0o700),
        (octal(0o7777), "0700", 0o700),
        (octal(0o777), "22", 0o22),
        (octal(0o777), "0" * 40 + "22", 0o22),
        (rules.UID, 60001, 60001),
        (rules.TEXT_OR_TEXTS, "one", ["one"]),
        (rules.TEXT_OR_TEXTS, ["one", "one"], ["one", "one"]),
        (rules.GROUP_NAMES, ["a", "b", "a"], ["a", "b"]),
        (rules.PATH, "/etc/skel/", "/etc/skel/"),
        (rules.HOME_PATH, "/home/alice", "/home/alice"),
        (rules.IMAGE_PATH, "/srv/a:b", "/srv/a:b"),
        (rules.SHELL, "/bin/bash", "/bin/bash"),
        (
            rules.UUID,
            "01234567-89ab-cdef-0123-456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdef",
        ),
        (rules.UUID, "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),
        (rules.DATE, "2000-02-29", "2000-02-29"),
        (rules.ENVIRONMENT, ["A=", "_b1=x=y"], ["A=", "_b1=x=y"]),
        (rules.BASE64, "aGk=", "aGk="),
        (rules.RESIZE_MODE, True, "shrink-and-grow"),
        (rules.RESIZE_MODE, False, "off"),
        (rules.RESIZE_MODE, "grow", "grow"),
        (rules.WEIGHT, True, 100),
        (rules.WEIGHT, False, 0),
        (rules.WEIGHT, 10000, 10000),
        (rules.BLOB_MANIFEST, {"avatar": "a" * 64}, {"avatar": "a" * 64}),
        (
            rules.RESOURCE_LIMITS,
            {"RLIMIT_NOFILE": {"cur": None, "max": "7"}},
            {"RLIMIT_NOFILE": {"cur": None, "max": 7}},
        ),
        (
            rules.RECOVERY_KEYS,
            [{"type": "modhex64", "hashedPassword": "x", "org.example": 1}],
            [{"type": "modhex64", "hashedPassword": "x", "org.example": 1}],
        ),
    ],
)
def test_accepted_values_are_read_in_their_plain_form(rule: Rule, given: Json, read: Json) -> None:
    result = rule.read(given, ".x")
    assert result == read
    assert type(result) is type(read)


@pytest.mark.parametrize(
    ("rule", "given", "message"),
    [
        (rules.TEXT, 1, ".x: expected a string, found 1."),
        (rules.TEXT, None, ".x: expected a string, found null."),
        (rules.LINE, "a\nb", ".x: expected a string without control characters"),
        (rules.BOOLEAN, 1, ".x: expected true or false, found 1."),
        (rules.BOOLEAN, "yes", ".x: expected true or false, found 'yes'."),
        (rules.SWITCH, 2, ".x: expected true or false, found 2."),
        (rules.UNSIGNED, True, ".x: expected an integer of 0 or more, found a boolean."),
        (rules.UNSIGNED, -1, ".x: expected an integer of 0 or more, found -1."),
        (rules.UNSIGNED, "07", ".x: expected an integer of 0 or more, found '07'."),
        (rules.UNSIGNED, "\uff19", ".x: expected an integer"),
        (rules.UNSIGNED, "1" * 5000, ".x: expected an integer"),
        (rules.UNSIGNED, [1], ".x: expected an integer of 0 or more, found an array."),
        (number(1, 5), 6, ".x: expected an integer of 1..5, found 6."),
        (rules.UID, 65535, ".x: expected an integer of 0..4294967294 other than 65535"),
        (rules.UID, 4294967295, ".x: expected an integer of 0..4294967294"),
        (octal(0o777), "0o22", ".x: expected a mode of 0..777"),
        (octal(0o777), "8", ".x: expected a mode"),
        (octal(0o777), "", ".x: expected a mode"),
        (octal(0o777), 0o1000, ".x: expected a mode"),
        (octal(0o777), "9" * 5000, ".x: expected a mode"),
        (octal(0o777), "7" * 5000, ".x: expected a mode"),
        (octal(0o777), "1" + "0" * 40 + "700", ".x: expected a mode"),
        (choice("a", "b"), "c", ".x: expected one of a, b, found 'c'."),
        (rules.TEXT_OR_TEXTS, ["a", 1], ".x[1]: expected a string, found 1."),
        (rules.TEXT_OR_TEXTS, {}, ".x: expected a string, found an object."),
        (rules.TEXTS, "a", ".x: expected an array"),
        (rules.GROUP_NAMES, ["a:b"], ".x[0]: expected a group name"),
        (rules.HOME_PATH, "/", ".x: expected an absolute normalized path other than /"),
        (rules.HOME_PATH, "/home/a:b", ".x: expected"),
        (rules.HOME_PATH, "/home/../etc", ".x: expected"),
        (rules.HOME_PATH, "/home//a", ".x: expected"),
        (rules.HOME_PATH, "/home/./a", ".x: expected"),
        (rules.HOME_PATH, "/home/a/", ".x: expected"),
        (rules.HOME_PATH, "home/a", ".x: expected"),
        (rules.HOME_PATH, "/a\nb", ".x: expected"),
        (rules.HOME_PATH, "/" + "a" * 256, ".x: expected"),
        (rules.HOME_PATH, "/a" * 2048, ".x: expected"),
        (rules.IMAGE_PATH, "/", ".x: expected"),
        (rules.PATH, "etc", ".x: expected an absolute path"),
        (rules.SHELL, "/bin/", ".x: expected"),
        (rules.UUID, "01234567-89abcdef-0123-456789abcdef", ".x: expected a UUID"),
        (rules.DATE, "2000-13-01", ".x: expected a date"),
        (rules.DATE, "2000-01-01\n", ".x: expected a date"),
        (rules.ENVIRONMENT, ["A"], ".x[0]: expected an assignment"),
        (rules.ENVIRONMENT, ["A=b\nC=d"], ".x[0]: expected an assignment"),
        (rules.FILE_NAME, "..", ".x: expected a file name"),
        (rules.FILE_NAME, "a/b", ".x: expected a file name"),
        (rules.BASE64, "a", ".x: expected base64"),
        (rules.BASE64, "é", ".x: expected base64"),
        (rules.RESIZE_MODE, "shrink", ".x: expected off, grow"),
        (rules.WEIGHT, 10001, ".x: expected an integer of 0..10000"),
        (rules.BLOB_MANIFEST, {".a": "a" * 64}, '.x.".a": expected a file name'),
        (rules.BLOB_MANIFEST, {"a/b": "a" * 64}, '.x."a/b": expected a file name'),
        (rules.BLOB_MANIFEST, {"avatar": "A" * 64}, ".x.avatar: expected 64 lower-case"),
        (rules.BLOB_MANIFEST, [], ".x: expected a file name"),
        (
            rules.RESOURCE_LIMITS,
            {"RLIMIT_WHAT": {"cur": 1, "max": 1}},
            ".x.RLIMIT_WHAT: expected a resource limit of getrlimit(2)",
        ),
        (rules.RESOURCE_LIMITS, {"NOFILE": {}}, ".x.NOFILE: expected a resource limit"),
        (rules.RESOURCE_LIMITS, {"RLIMIT_AS": {"cur": 1}}, ".x.RLIMIT_AS: expected an object with"),
        (
            rules.RESOURCE_LIMITS,
            {"RLIMIT_AS": {"cur": 1, "max": -1}},
            ".x.RLIMIT_AS.max: expected an integer",
        ),
        (rules.RECOVERY_KEYS, [{"type": "modhex64"}], ".x[0]: expected an object with"),
        (rules.PKCS11_KEYS, [{"uri": 1, "data": "", "hashedPassword": ""}], ".x[0].uri: expected"),
        (
            rules.FIDO2_SALTS,
            [{"credential": "", "salt": "", "hashedPassword": "", "up": 1}],
            ".x[0].up: expected true or false",
        ),
    ],
)
def test_refusal_names_path_expectation_and_finding(rule: Rule, given: Json, message: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        rule.read(given, ".x")
    assert caught.value.message.startswith(message)


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(InvalidRecord) as caught:
        rules.BOOLEAN.read("x" * 10_000, ".x")
    assert len(caught.value.message) < 120


@pytest.mark.parametrize("path", [".privileged.hashedPassword", ".secret.password"])
def test_contents_of_secret_sections_are_not_repeated(path: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        ListOf(number(), or_one=True).read(["hunter2"], path)
    assert caught.value.message == f"{path}[0]: expected an integer of 0 or more, found a string."
