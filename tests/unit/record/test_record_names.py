"""Names: strict for new users, relaxed for those that exist, image names both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import InvalidArgs
from homemgr.record import names


@pytest.mark.parametrize("name", ["a", "alice", "Alice", "a-b_c9", "x" * 31, "systemd"])
def test_new_names_that_are_fine(name: str) -> None:
    names.check_new_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "1a", "_a", "-a", "a.b", "a b", "a:b", "a/b", "é", "x" * 32, "a\n", "12", "a@b", "a$",
     "root", "nobody", "nogroup", "systemd-home", "nfsnobody", "../a", "a\0b"],
)  # fmt: skip
def test_new_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgs, match="name"):
        names.check_new_name(name, nobody_names=("nfsnobody",))


@pytest.mark.parametrize("name", ["a.b", "Ärger", "a b", "1a", "_x", "$", "a@b", "-x", "x" * 200])
def test_relaxed_names_that_are_fine(name: str) -> None:
    assert names.is_acceptable(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "12", "-12", "a:b", "a/b", "a\n", "a\x7f", " a", "a ", "a\x85", "\ud800",
     "x" * 300, "é" * 130],
)  # fmt: skip
def test_relaxed_names_that_are_refused(name: str) -> None:
    assert not names.is_acceptable(name)


@given(st.text(max_size=40))
def test_acceptable_names_are_safe_as_file_name_and_passwd_field(name: str) -> None:
    if names.is_acceptable(name):
        assert "/" not in name
        assert ":" not in name
        assert "\0" not in name
        assert len(f"{name}.identity".encode()) <= 255


@pytest.mark.parametrize("realm", ["com", "Example.COM", "a-b.c_d", "x" * 63])
def test_realms_that_are_fine(realm: str) -> None:
    assert names.is_realm(realm)


@pytest.mark.parametrize(
    "realm", ["", ".", "example.com.", ".com", "a..b", "x" * 64, "a b", "é", "a/b", "a.b" * 100]
)
def test_realms_that_are_refused(realm: str) -> None:
    assert not names.is_realm(realm)


@pytest.mark.parametrize("name", ["avatar", "login-background", "a.b", "A_9~", "~", "x" * 255])
def test_blob_names_that_are_fine(name: str) -> None:
    assert names.is_blob_name(name)


@pytest.mark.parametrize("name", ["", ".a", "..", "a/b", "a b", "é", "x" * 256, "a\n"])
def test_blob_names_that_are_refused(name: str) -> None:
    assert not names.is_blob_name(name)


@pytest.mark.parametrize(
    ("name", "realm", "file_name"),
    [
        ("alice", None, "alice.homedir"),
        ("alice", "example.com", "alice@example.com.homedir"),
        ("a.b", None, "a.b.homedir"),
    ],
)
def test_image_file_name_reads_back(name: str, realm: str | None, file_name: str) -> None:
    # Defect 11 of homed: names with a realm were dropped by the user name test.
    assert names.image_file_name(name, realm) == file_name
    assert names.parse_image_file_name(file_name) == (name, realm)
    for storage, suffix in (("luks", ""), ("image", "image")):
        as_file = names.image_file_name(name, realm, storage)
        assert as_file == file_name.removesuffix("dir") + suffix
        assert names.parse_image_file_name(as_file) == (name, realm)


@pytest.mark.parametrize(
    "file_name",
    ["alice", ".home", ".homedir", "@x.homedir", "alice@.homedir", "alice@x..homedir",
     "..homedir", "12.homedir", "alice.homedir.bak", ".#homemgr-new-alice.homedir/x"],
)  # fmt: skip
def test_other_file_names_are_no_images(file_name: str) -> None:
    assert names.parse_image_file_name(file_name) is None


def test_split_realm_takes_the_first_at_sign() -> None:
    assert names.split_realm("a@b@c") == ("a", "b@c")
    assert names.split_realm("a") == ("a", None)
    assert names.split_realm("a@") == ("a", "")
