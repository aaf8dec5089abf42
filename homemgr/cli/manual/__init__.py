"""The manual pages, generated from the tables of the product, in the language of man(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.manual import command, files, service

if TYPE_CHECKING:
    from collections.abc import Callable

#: By file name.
PAGES: dict[str, Callable[[], str]] = {
    "homemgr.1": command.page,
    "homemgrd.8": service.page,
    "homemgr-extensions.conf.5": files.extensions_conf,
    "homemgr.conf.5": files.homemgr_conf,
}
