"""Which digest an object must have, as overlayfs stores it with a file."""

from __future__ import annotations

import pytest

from homemgr.extension.objects import digest_in


@pytest.mark.parametrize(
    ("raw", "digest"),
    [
        # Written by hand or by an older mkcomposefs: no digest.
        ("", ""),
        ("00040000", ""),
        ("00240001" + "ab" * 32, "sha256:" + "ab" * 32),
        ("00440002" + "cd" * 64, "sha512:" + "cd" * 64),
        # Behind the length that it tells there may be anything.
        ("00240001" + "ab" * 32 + "ff" * 32, "sha256:" + "ab" * 32),
        # What nobody knows can be the digest of nothing.
        ("00240009" + "ab" * 32, "9:" + "ab" * 32),
    ],
)
def test_digests_are_read_as_the_kernel_measures_them(raw: str, digest: str) -> None:
    assert digest_in(bytes.fromhex(raw)) == digest
