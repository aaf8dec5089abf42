"""A home shown as a whole through one overlay, which itself is never written to.

For homes that shall be as they were after each logout, or not change at all. Such a
home cannot carry overlays of its own, nor be idmapped again for containers: see
Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from homemgr.extension import stack
from homemgr.extension.attach import OWN, recall
from homemgr.extension.marks import Hiding
from homemgr.extension.stack import SOURCE, Layer, Options, Owner
from homemgr.kernel.mountinfo import file_systems
from homemgr.kernel.statx import place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd

_LABEL = "/whole/"


class WholeMode(enum.Enum):
    """What happens to all that is written into the home; the word for it in records."""

    #: It goes to memory and vanishes at logout.
    EPHEMERAL = "ephemeral"
    #: It is refused.
    READ_ONLY = "read-only"


def merge_whole(
    home: Fd, layers: Sequence[tuple[str, Fd]], mode: WholeMode, options: Options
) -> Fd:
    """The whole home as one detached overlay, to be published in the place of ``home``.

    ``layers`` are whole ``home`` directories of extensions, if there are any.
    """
    owner = Owner.of(home)
    hidden = {
        f"{hierarchy}/{path}"
        for hierarchy, entry in recall(home, []).items()
        for path in entry.hidden
    }
    with Hiding(layers, hidden, owner) as hiding, stack.empty_layer(owner) as nothing:
        # The kernel wants two layers even where there is only the home.
        below = hiding.layers() or [Layer("nothing", nothing)]
        make = stack.read_only if mode is WholeMode.READ_ONLY else stack.ephemeral
        return make([Layer(OWN, home), *below], owner, options, f"{_LABEL}{mode.value}")


def mode_of(root: Fd) -> WholeMode | None:
    """How the visible home with the top ``root`` is shown; None if it is itself."""
    kind, source = file_systems().get(place(root.fileno()).mount_id, ("", ""))
    start = f"{SOURCE}{_LABEL}"
    if kind != "overlay" or not source.startswith(start):
        return None
    return WholeMode(source.removeprefix(start))
