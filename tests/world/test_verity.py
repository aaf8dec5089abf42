"""What the kernel of this machine may lack, on others: dm-verity, fs-verity, dm-crypt and more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from . import guest
from .product import given_to_guests

if TYPE_CHECKING:
    from .guest import Kind

# Several times what they take.
TIMEOUT_S = 540

# They have guests of their own, as all of them in one would take too long.
DEVICES = "tests/service/luks/test_devices.py"
FULL_IMAGES = "tests/service/luks/test_full_images.py"
CONVERSIONS = tuple(
    f"tests/service/luks/test_convert_{to}.py" for to in ("crypt", "devices", "fat")
)
HOMED = "tests/service/luks/test_homed.py"
STICKS = "tests/service/luks/test_sticks.py"
#: One boot for all that needs a kernel which has everything: no other is as slow.
WALK = "tests/service/luks/test_convert_crypt.py::test_from_every_storage_to_every_other"
FROM_A_SERVER = "tests/service/cifs/test_convert_server.py"
ENCRYPTED = "tests/service/quota/test_encrypted.py"
EVERYTHING = ("tests/kernel/fsverity", WALK, FROM_A_SERVER, ENCRYPTED)
NEEDED = ("FSVERITY", "FSCRYPT", "CRYPT", "CIFS")
ABLE = tuple(f"HOMEMGR_TEST_{name}" for name in NEEDED)
APART = tuple(f"--ignore={path}" for path in (*CONVERSIONS, DEVICES, FULL_IMAGES, HOMED, STICKS))


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize(
    ("kind", "settings", "tests"),
    [
        ("uml", ("HOMEMGR_TEST_VERITY",), ("tests/kernel/verity", "tests/service/verity")),
        ("uml", ("HOMEMGR_TEST_CRYPT",), ("tests/service/luks", *APART)),
        ("uml", ("HOMEMGR_TEST_CRYPT",), CONVERSIONS),
        ("uml", ("HOMEMGR_TEST_CRYPT",), ("tests/service/quota", f"--ignore={ENCRYPTED}")),
        ("uml", ("HOMEMGR_TEST_CRYPT",), (DEVICES, FULL_IMAGES)),
        ("uml", ("HOMEMGR_TEST_CRYPT",), (HOMED,)),
        ("uml", ("HOMEMGR_TEST_CRYPT",), (STICKS,)),
        ("uml", ("HOMEMGR_TEST_CIFS",), ("tests/service/cifs", "tests/world/storages")),
        ("qemu", ABLE, EVERYTHING),
    ],
)
def test_the_kernel_verifies_and_encrypts(
    machine: None, kind: Kind, settings: tuple[str, ...], tests: tuple[str, ...]
) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    # With CI set nothing may be skipped in there.
    able = dict.fromkeys(settings, "1")
    done = guest.run(kind, argv, TIMEOUT_S, CI="true", **able, **given_to_guests())
    assert done.status == 0, f"{done.output}\n{done.console[-4000:]}"
