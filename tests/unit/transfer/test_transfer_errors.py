"""Failures of a transfer are told apart on the bus, and each comes with advice."""

from __future__ import annotations

import pytest

from homemgr import errors


@pytest.mark.parametrize(
    "kind",
    [
        errors.StreamError,
        errors.UntrustedOrigin,
        errors.WrongReceiver,
        errors.AlteredContent,
        errors.HomeMoved,
        errors.TransferBusy,
        errors.TransferInterrupted,
    ],
)
def test_failure_has_a_name_of_its_own_and_advice(kind: type[errors.HomeError]) -> None:
    name = errors.bus_name_of(kind())
    assert name == f"org.homemgr1.Error.{kind.__name__}"
    assert errors.BY_BUS_NAME[name] is errors.BY_CLASS[kind.__name__] is kind
    assert kind.hint
