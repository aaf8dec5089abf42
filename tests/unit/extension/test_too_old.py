"""Older kernels refuse layers that are mounted nowhere; people are told why."""

from __future__ import annotations

import errno

import pytest

from homemgr.extension.stack import too_old


@pytest.mark.parametrize(
    "kernel", ["5.10.0-1-amd64", "6.1.0-50-amd64", "6.12.117+deb13-cloud-amd64"]
)
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_an_old_kernel_is_told(kernel: str, number: int) -> None:
    said = too_old(OSError(number, "x"), kernel)
    assert said.startswith(f"this kernel ({kernel}) merges no layers")
    assert said.endswith("expected Linux 6.15")


@pytest.mark.parametrize("kernel", ["6.15.0", "6.18.44-fc", "7.2.13+deb14-cloud-amd64", "odd"])
def test_a_new_one_has_other_reasons(kernel: str) -> None:
    assert too_old(OSError(errno.EINVAL, "x"), kernel) == ""


def test_other_errors_have_other_reasons() -> None:
    assert too_old(OSError(errno.ENOMEM, "x"), "6.1.0") == ""
