"""Malformed messages and records straight into the parsers: each is taken or refused, as it is."""

from __future__ import annotations

import pytest

from tests.load import wire
from tests.load.run import PARSED


@pytest.mark.timeout(300)
def test_a_hundred_thousand_malformed_inputs_are_taken_or_refused() -> None:
    ended = wire.feed(PARSED, seed=262)
    assert ended.total() == PARSED
    # Damage that always or never matters would try nothing.
    assert {kind for kind, count in ended.items() if count > PARSED // 200} == {
        *("message taken", "message refused", "record taken", "record refused"),
        *("text taken", "text refused"),
    }
