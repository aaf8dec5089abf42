"""Object path labels: examples systemd-homed was seen to use, and every name there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.bus import labels


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("a-bc", "a_2dbc"),
        ("alice", "alice"),
        ("", "_"),
        ("1st", "_31st"),
        ("a1", "a1"),
        ("_", "_5f"),
    ],
)
def test_known_labels(name: str, label: str) -> None:
    assert labels.encode(name) == label
    assert labels.decode(label) == name


@given(st.text())
def test_every_name_comes_back(name: str) -> None:
    label = labels.encode(name)
    assert labels.decode(label) == name
    assert label.isascii()
    assert label.replace("_", "a").isalnum()


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_no_label_breaks_the_decoder(label: str) -> None:
    assert isinstance(labels.decode(label), str)


def test_a_uid_keeps_its_leading_digit() -> None:
    assert labels.path_of_uid(60076) == "/org/freedesktop/home1/home/60076"
