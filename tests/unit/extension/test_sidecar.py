"""Digests as sha256sum(1) writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.extension.digest import from_sidecar

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        f"{DIGEST}  tools.raw\n",
        f"{DIGEST} *tools.raw\n",
        f"{DIGEST}  ./out/tools.raw\n",
        f"{DIGEST.upper()}\n",
        f"{'0' * 64}  other.raw\n{DIGEST}  tools.raw\n",
    ],
)
def test_the_line_for_the_image_counts(text: str) -> None:
    assert from_sidecar(text, "tools.raw") == DIGEST


@pytest.mark.parametrize(
    "text",
    ["", "\n", f"{DIGEST}  other.raw\n", f"{DIGEST[:-1]}  tools.raw\n", f"{DIGEST} tools.raw\n"],
)
def test_anything_else_is_none(text: str) -> None:
    assert from_sidecar(text, "tools.raw") == ""


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert len(from_sidecar(text, "tools.raw")) in (0, 64)
