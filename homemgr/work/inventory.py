"""Verbs inventory, trust and distrust: the extensions of this machine, whoever uses them.

What can be used is found out by opening it, as a login would. Digests are kept by
``extension.digest``; the daemon has settled who may ask.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import digest, find, image, release, volume
from homemgr.extension.find import Kind
from homemgr.work import extensions

if TYPE_CHECKING:
    from homemgr.extension.find import Candidate, Found
    from homemgr.extension.release import Host
    from homemgr.record.jsontext import Json
    from homemgr.work.task import Task

#: Nobody looks at the files through this mapping: it is gone when the list is made.
_IDS = (65534, 65534)

_FORMS = {Kind.DIRECTORY: "directory", Kind.IMAGE: "image", Kind.COMPOSEFS: "composefs"}


def run(task: Task) -> dict[str, object]:
    """Every extension, the version a login would use, and why it cannot be used if so."""
    told = task.object("extensions")
    policy, host = extensions.policy_of(told), release.read_host()
    found = find.pick(find.candidates(extensions.directories_of(told)), host)
    return {"extensions": [_entry(one, host, policy) for one in found]}


def _entry(one: Found | find.Refused, host: Host, policy: image.Policy) -> Json:
    if isinstance(one, find.Refused):
        return _described(one.name, None, [], one.reason)
    try:
        with image.open_newest(
            one,
            host=host,
            local_uid=_IDS[0],
            local_gid=_IDS[1],
            policy=policy,
            userns=partial(extensions.userns, _IDS),
        ) as opened:
            used = next(c for c in one.choices if c.path == opened.path)
            return _described(one.name, used, list(opened.hierarchies), "")
    except errors.HomeError as error:
        return _described(one.name, one.candidate, [], error.message)


def _described(name: str, used: Candidate | None, hierarchies: list[Json], reason: str) -> Json:
    return {
        "name": name,
        "version": used.version if used else "",
        "form": _FORMS[used.kind] if used else "",
        "path": used.path if used else "",
        "usable": not reason,
        "reason": reason,
        "hierarchies": hierarchies,
    }


def trust(task: Task) -> dict[str, object]:
    """Take the images of one extension, all versions of it, for what they are meant to be."""
    return {"trusted": [{"path": p, "sha256": digest.trust(p)} for p in _images(task)]}


def distrust(task: Task) -> dict[str, object]:
    """Take that back; an image with a digest file beside it stays trusted by that."""
    paths = _images(task)
    for path in paths:
        digest.distrust(path)
    return {"distrusted": paths}


def _images(task: Task) -> list[str]:
    """The image files of the extension the daemon names."""
    name = task.text("name")
    found = find.candidates(extensions.directories_of(task.object("extensions")))
    forms = [candidate for candidate in found if candidate.name == name]
    if not forms:
        raise errors.NoSuchExtension(f"There is no extension {name} on this machine.")
    paths = [path for path in map(volume.image_path, forms) if path]
    if not paths:
        raise errors.InvalidArgs(
            f"Extension {name} is a directory of root, which needs no digest to be trusted."
        )
    return paths
