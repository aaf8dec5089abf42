"""Manual pages: every verb, option, finding and error is in them, and they are well-formed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from homemgr.cli.manual import PAGES
from homemgr.cli.manual.roff import Page
from homemgr.cli.verb_table import COMMON, VERBS, load
from homemgr.errors import BY_BUS_NAME
from homemgr.record.findings import CODES

from .conftest import homemgr


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"there is no {name}")
        pytest.skip(f"there is no {name}")
    return found


def shown(page: str) -> str:
    """The page as man shows it, on lines that are wide enough for everything."""
    argv = [program("mandoc"), "-T", "ascii", "-O", "width=400"]
    done = subprocess.run(argv, input=page, capture_output=True, text=True, check=False)
    return re.sub(r".\x08", "", done.stdout)


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_without_faults(name: str) -> None:
    argv = [program("mandoc"), "-T", "lint", "-W", "warning"]
    done = subprocess.run(argv, input=PAGES[name](), capture_output=True, text=True, check=False)
    # The same sources give the same page, on whatever day.
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


def test_every_verb_option_and_finding_is_told_of() -> None:
    text = shown(PAGES["homemgr.1"]())
    for name, verb in VERBS.items():
        assert f"   {name} {verb.usage}".rstrip() in text
        assert f"{verb.help}." in text
        for option in (*COMMON, *load(verb.module).OPTIONS):
            assert option.shown in text
            assert f"{option.help}.".replace("`", "") in text
    for code in CODES:
        assert f" {code}" in text


def test_every_error_is_told_of() -> None:
    text = shown(PAGES["homemgrd.8"]())
    for name, failure in BY_BUS_NAME.items():
        assert name in text
        assert failure.hint.replace("`", "") in text


def test_man_prints_a_page_by_either_name() -> None:
    for words in ((), ("homemgr",), ("homemgr.1",)):
        assert homemgr("man", *words).stdout == PAGES["homemgr.1"]()
    assert "\n.SH" in homemgr("man", "homemgrd").stdout
    done = homemgr("man", "ls")
    assert done.returncode == 2
    assert "ls: expected one of homemgr.1, homemgrd.8, " in done.stderr


def test_text_cannot_become_a_request() -> None:
    page = Page("x", 1, "y")
    page.heading("Z")
    page.paragraph(".de of 'quotes' and \"these\" \\ and -- **bold** `code`.")
    page.code(".TH\n'br")
    text = shown(page.text)
    assert ".de of 'quotes' and \"these\" \\ and -- bold code." in text
    assert ".TH" in text
    assert "'br" in text
