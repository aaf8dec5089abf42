"""One login, logout or refresh as its own program, so that it can be killed at any system call."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from homemgr.extension import attach, clean
from homemgr.extension.attach import Wanted
from homemgr.extension.refresh import refresh
from homemgr.extension.stack import Layer, Options
from tests.kernel import overlays
from tests.kernel.overlays import BIN, SHARE, Extension, Home


def main(step: str, directory: str, *trees: str) -> None:
    """Do ``step`` to the home in ``directory``, with the extensions in ``trees``."""
    area = Path(directory)
    home = Home(area / "alice.homedir", area / "alice")
    with ExitStack() as closing:
        wanted = [
            Wanted(h, [_layer(area / tree, h, closing) for tree in trees]) for h in (BIN, SHARE)
        ]
        if step == "login":
            view = closing.enter_context(home.view())
            attach.merge(view, wanted, Options())
            home.publish(view)
        elif step == "logout":
            home.take_away()
            with home.disk() as disk:
                clean.clean(disk)
        else:
            with home.root() as root:
                refresh(root, wanted, Options())


def _layer(tree: Path, hierarchy: str, closing: ExitStack) -> Layer:
    mount = closing.enter_context(overlays.idmapped(tree, read_only=True))
    layer = Extension(tree.name, mount).layer(hierarchy)
    closing.callback(layer.directory.close)
    return layer
