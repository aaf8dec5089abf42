"""The table of findings: stable codes, and the same one in the README."""

from __future__ import annotations

import re
from pathlib import Path

from homemgr.record.findings import CODES, Finding

ROOT = Path(__file__).resolve().parents[3]


def test_readme_has_the_whole_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert {
        code: (what, "" if repair == "\N{EN DASH}" else repair)
        for code, what, repair in rows
        if code in CODES
    } == {code: (kind.what, kind.repair) for code, kind in CODES.items()}


def test_codes_are_those_that_are_made() -> None:
    sources = [*(ROOT / "homemgr/work").glob("check*.py"), *(ROOT / "homemgr/daemon").glob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    made = re.findall(r"(?:Trouble|Finding)\(\s*\"([a-z-]+)\"", text)
    made += re.findall(r"return \(?\"(inside-[a-z-]+)\"", text)
    assert set(made) == set(CODES)


def test_every_kind_says_what_and_what_to_do() -> None:
    for code, kind in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert kind.what.endswith(".")
        assert kind.advice.endswith(".")
        assert not kind.repair.endswith(".")


def test_finding_tells_of_a_repair_only_where_there_is_one() -> None:
    told = Finding("record-mode", "/x", "Mode 0644.").to_json("alice")
    assert (told["can_repair"], told["repair"], told["done"]) == (False, "", "")
    told = Finding("record-mode", "/x", can_repair=True).to_json("alice")
    assert told["repair"] == CODES["record-mode"].repair
    assert (told["user"], told["object"], told["code"]) == ("alice", "/x", "record-mode")
