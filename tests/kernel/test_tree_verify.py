"""A tree that was torn is made to agree with its ledger, and nothing unknown stays in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.storage.ledger import Ledger
from homemgr.storage.verify import verify
from tests import homes
from tests.kernel.travels import copy, make_top, opened

YEAR_2001_NS = 10**18


@pytest.fixture
def here(area: Path) -> Path:
    """A small home: files of several names, one of them in front of the directory it is in."""
    here = make_top(area / "here")
    (here / "sub").mkdir()
    (here / "sub" / "plain").write_text("plain")
    (here / "a-first").write_text("of two names")
    os.link(here / "a-first", here / "sub" / "second")
    homes.give_away(here)
    for path in (here / "sub", here):
        os.utime(path, ns=(YEAR_2001_NS, YEAR_2001_NS))
    return here


@pytest.fixture
def there(here: Path, area: Path, ledger: Ledger) -> Path:
    """A copy of it, which the ledger knows."""
    there = make_top(area / "there")
    copy(here, there, ledger)
    return there


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(str(tmp_path / "ledger")) as ledger:
        yield ledger


def agree(there: Path, ledger: Ledger) -> int:
    """Verify; what comes out has to stand a second look."""
    with opened(there) as top:
        dropped = verify(top, ledger)
        before = ledger.digest()
        assert verify(top, ledger) == 0
    assert ledger.digest() == before
    return dropped


def test_what_is_right_stays_as_it_is(here: Path, there: Path, ledger: Ledger) -> None:
    assert agree(there, ledger) == 0
    assert homes.compare(here, there) == []


def test_strange_names_go_and_leave_no_trace(here: Path, there: Path, ledger: Ledger) -> None:
    (there / "sub" / "strange").touch()
    (there / "sub" / "tree" / "deeper").mkdir(parents=True)
    (there / "sub" / "tree" / "deeper" / "file").touch()
    # As if the kill had come after the directory was left.
    os.utime(there / "sub", ns=(YEAR_2001_NS, YEAR_2001_NS))
    assert agree(there, ledger) == 0
    assert homes.compare(here, there) == []


def test_strange_name_of_a_known_file_does_not_cost_the_file(
    here: Path, there: Path, ledger: Ledger
) -> None:
    os.link(there / "sub" / "plain", there / "A-strange")
    os.utime(there, ns=(YEAR_2001_NS, YEAR_2001_NS))
    assert agree(there, ledger) == 0
    assert homes.compare(here, there) == []


def test_torn_file_goes_with_all_its_names(there: Path, ledger: Ledger) -> None:
    (there / "a-first").write_text("half of it")
    assert agree(there, ledger) == 2
    assert sorted(os.listdir(there)) == ["sub"]
    assert os.listdir(there / "sub") == ["plain"]
    assert ledger.get(b"a-first") is None
    assert ledger.get(b"sub/second") is None


def test_further_name_that_is_a_file_of_its_own_goes(there: Path, ledger: Ledger) -> None:
    (there / "sub" / "second").unlink()
    (there / "sub" / "second").write_text("of two names")
    assert agree(there, ledger) == 1
    assert os.listdir(there / "sub") == ["plain"]


def test_file_that_became_a_further_name_goes(there: Path, ledger: Ledger) -> None:
    (there / "sub" / "plain").unlink()
    os.link(there / "a-first", there / "sub" / "plain")
    assert agree(there, ledger) == 1
    assert ledger.get(b"sub/plain") is None
    assert os.listdir(there / "sub") == ["second"]


def test_metadata_are_taken_as_they_are(there: Path, ledger: Ledger) -> None:
    (there / "sub" / "plain").chmod(0o751)
    (there / "sub").chmod(0o711)
    assert agree(there, ledger) == 0
    for path, mode in ((b"sub/plain", 0o751), (b"sub", 0o711)):
        row = ledger.get(path)
        assert row is not None
        assert row.entry.mode == mode


@pytest.mark.parametrize("name", ["sub", "a-first"])
def test_name_of_another_kind_goes_with_all_below(there: Path, ledger: Ledger, name: str) -> None:
    (there / name).rename(there.parent / "away")
    os.mkfifo(there / name) if name == "sub" else (there / name / "deep").mkdir(parents=True)
    assert agree(there, ledger) > 0
    assert name not in os.listdir(there)
    assert [path for path, _ in ledger.pairs() if path.startswith(os.fsencode(name))] == []


def test_what_is_left_out_is_nobodys_business(there: Path, ledger: Ledger) -> None:
    (there / ".identity").write_text("{}")
    with opened(there) as top:
        assert verify(top, ledger, frozenset({b".identity"})) == 0
    assert (there / ".identity").exists()
