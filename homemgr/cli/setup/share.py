"""The unit and policy files that come with the package.

A wheel carries them in ``homemgr/share``; in a source tree they lie beside the
package, in ``units/`` and ``policy/``. Knows nothing of where they go.
"""

from __future__ import annotations

import os

from homemgr.errors import FileNotFound

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(kind: str, name: str) -> str:
    """The text of ``name`` from ``units`` or ``policy``."""
    places = [os.path.join(_PACKAGE, "share", kind), os.path.join(_PACKAGE, "..", kind)]
    for place in places:
        path = os.path.join(place, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return file.read()
    raise FileNotFound(f"This installation of homemgr is incomplete: {kind}/{name} is missing.")
