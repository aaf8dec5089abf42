"""Encrypted homes on disks get other sizes: their partition does."""

from __future__ import annotations

import subprocess

from tests.service.luks.test_devices import SETTINGS, homes_on, use
from tests.service.luks.test_devices import stick as stick
from tests.service.people import PASSWORD, secret
from tests.service.resizing import MIB, holds, resize, write
from tests.service.site import Service
from tests.service.sizes import figures

LARGEST = (1 << 64) - 2


def test_a_home_gets_more_of_its_disk_while_it_is_used(encrypting: Service, stick: str) -> None:
    encrypting.create("nina", imagePath=stick, diskSize=40 * MIB, **SETTINGS)
    encrypting.activate("nina")
    digest = write(encrypting, "nina", "kept", 3 * MIB)
    resize(encrypting, "nina", 44 * MIB)
    (found,) = homes_on(stick)
    assert found.size == 44 * MIB
    for size, refusal in ((65 * MIB, ".NoDiskSpace"), (40 * MIB, ".BadHomeSize")):
        refused = encrypting.failure("ResizeHome", "sts", "nina", size, secret(PASSWORD))
        assert refused.name.endswith(refusal)
    assert figures(encrypting, "nina")["diskCeiling"] == 64 * MIB
    encrypting.deactivate("nina")
    # There is no room for a copy of it.
    refused = encrypting.failure("ResizeHome", "sts", "nina", 40 * MIB, secret(PASSWORD))
    assert refused.name.endswith(".BadHomeSize")
    # What a new table would lose.
    argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--part-attrs", stick, "1"]
    subprocess.run([*argv, "RequiredPartition"], check=True, capture_output=True)
    refused = encrypting.failure("ResizeHome", "sts", "nina", LARGEST, secret(PASSWORD))
    assert "attributes" in refused.message
    subprocess.run([*argv, ""], check=True, capture_output=True)
    resize(encrypting, "nina", LARGEST)
    (found,) = homes_on(stick)
    assert found.size == 62 * MIB
    use(encrypting, "nina")
    encrypting.activate("nina")
    assert holds(encrypting, "nina", "kept", digest)
    encrypting.deactivate("nina")
    encrypting.call("RemoveHome", "s", "nina")
