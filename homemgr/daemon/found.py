"""The record that a worker found in a home: one that was used elsewhere may have a newer one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record.reconcile import Winner, reconcile
from homemgr.record.signature import unknown_signer, verdict
from homemgr.record.validate import parse_embedded

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.job import Message

log = logging.getLogger(__name__)


async def take_newer(home: Home, about: Message) -> None:
    """The ``record`` that lies in the home: if it is newer than ours it counts from here on.

    So that a home which was used elsewhere leaves with what was changed there. Its user
    can write there what he likes: what nobody we know has signed is left alone.
    """
    try:
        found = parse_embedded(str(about.get("record")).encode("utf-8", "replace"))
        if not verdict(found, home.services.keyring).is_accepted:
            raise unknown_signer(found)
        settled = reconcile(home.record, found)
    except errors.HomeError as error:
        log.warning("The record in home area %s does not count: %s", home.name, error)
        return
    if settled.winner is Winner.EMBEDDED:
        await home.store_record(settled.record)
