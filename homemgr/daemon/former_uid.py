"""The uid that a home had where it was used last, so that it can have it here as well.

systemd-homed reads it from the owner of the files. Here nobody owns them, and what is left
is the record inside, where a key that is accepted here signed it. It is asked for before the
user is known: whoever logs in has looked up his uid by then, and could not be given another.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from homemgr import errors
from homemgr.daemon.home import Home
from homemgr.record.secret import Secret
from homemgr.record.storages import abilities_of

if TYPE_CHECKING:
    from homemgr.daemon.discovery import Image
    from homemgr.daemon.home import Services
    from homemgr.record.model import UserRecord

log = logging.getLogger(__name__)

#: No disk holds up the discovery of other homes for longer.
_LIMIT_S: Final = 5.0


async def former_uid(services: Services, image: Image, record: UserRecord) -> int | None:
    """The uid to try first for ``image``, of which ``record`` is known; None if nothing tells."""
    if image.owner in services.config.uid_range:
        return image.owner
    # What only its user can read tells nobody.
    if abilities_of(image.storage).has_key:
        return None
    told = Home(services, record, is_fixated=False).job_arguments(Secret())
    try:
        async with asyncio.timeout(_LIMIT_S):
            result = await services.runner.run("former-uid", told, about=image.user)
    except (errors.HomeError, TimeoutError) as error:
        log.info("%s may get another uid than it had: %s", image.path, error)
        return None
    uid = result.get("uid")
    return uid if isinstance(uid, int) else None
