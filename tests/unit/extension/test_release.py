"""An extension is used only where it was made for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.extension import release
from homemgr.extension.release import Host, file_names, misfit, parse

DEBIAN = Host("debian", "12", "", "x86-64")
LEVELLED = Host("fedora", "40", "2", "arm64")
ROLLING = Host("arch", "", "", "x86-64")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("# comment\n\nID=debian\n", {"ID": "debian"}),
        ("ID='de bian'\nVERSION_ID=\"12\"\n", {"ID": "de bian", "VERSION_ID": "12"}),
        ('NAME="a \\"b\\" \\$c"\n', {"NAME": 'a "b" $c'}),
        ('A="\\n \\\\ \\`"\nB=\'\\"\'\n', {"A": "\\n \\ `", "B": '\\"'}),
        ("ID=\n", {"ID": ""}),
        ("ID=a\nID=b\n", {"ID": "b"}),
        ("  ID=a  \n", {"ID": "a"}),
        ("not an assignment\n1D=a\nID=two words\nID='open\n", {}),
    ],
)
def test_assignments_are_read_as_a_shell_would(text: str, fields: dict[str, str]) -> None:
    assert parse(text) == fields


@given(st.text())
def test_any_text_can_be_parsed(text: str) -> None:
    assert all(isinstance(v, str) for v in parse(text).values())


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ({"ID": "_any"}, DEBIAN),
        ({"ID": "_any", "VERSION_ID": "1", "SYSEXT_LEVEL": "7"}, LEVELLED),
        ({"ID": "debian", "VERSION_ID": "12"}, DEBIAN),
        ({"ID": "fedora", "SYSEXT_LEVEL": "2", "VERSION_ID": "1"}, LEVELLED),
        ({"ID": "fedora", "VERSION_ID": "40"}, LEVELLED),
        ({"ID": "debian", "VERSION_ID": "12", "SYSEXT_LEVEL": "5"}, DEBIAN),
        ({"ID": "arch"}, ROLLING),
        ({"ID": "_any", "ARCHITECTURE": "_any"}, DEBIAN),
        ({"ID": "_any", "ARCHITECTURE": "x86-64"}, DEBIAN),
        ({"ID": "_any", "SYSEXT_SCOPE": "system home"}, DEBIAN),
    ],
)
def test_what_fits(fields: dict[str, str], host: Host) -> None:
    assert misfit(fields, host) == ""


@pytest.mark.parametrize(
    ("fields", "host", "reason"),
    [
        ({}, DEBIAN, "does not say ID="),
        ({"ID": "fedora"}, DEBIAN, "ID=fedora, but this system has ID=debian"),
        ({"ID": "debian", "VERSION_ID": "11"}, DEBIAN, "VERSION_ID=11, but .* VERSION_ID=12"),
        ({"ID": "debian"}, DEBIAN, "no VERSION_ID="),
        ({"ID": "fedora", "SYSEXT_LEVEL": "1"}, LEVELLED, "SYSEXT_LEVEL=1, but"),
        ({"ID": "_any", "ARCHITECTURE": "arm64"}, DEBIAN, "this machine is x86-64"),
        ({"ID": "_any", "SYSEXT_SCOPE": "system"}, DEBIAN, "does not include 'home'"),
    ],
)
def test_what_does_not_fit_is_explained(fields: dict[str, str], host: Host, reason: str) -> None:
    assert re.search(reason, misfit(fields, host))


def test_the_running_system_is_read() -> None:
    host = release.read_host()
    assert host.id
    assert host.architecture in release.KNOWN_ARCHITECTURES


def test_the_description_may_be_named_without_the_version() -> None:
    assert file_names("tools") == ("extension-release.tools",)
    assert file_names("tools_1.2") == ("extension-release.tools_1.2", "extension-release.tools")
