"""Which directories of a home an extension merges into, and how many of them one home takes.

Pure: told what is in an extension's ``home`` directory, answers with paths relative
to it. As deep as possible, so that the rest of the home keeps its file system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    #: The entries of a directory given relative to ``home``, at most so many of them.
    Contents = Callable[[str, int], Sequence["Entry"]]

#: Names at the top of one extension's ``home``.
TOP_LIMIT = 1024
#: Overlays one home may have.
HIERARCHY_LIMIT = 64
#: Bytes of all their paths together.
PATHS_LIMIT = 64 << 10
#: Directories on the way to one; deeper ones are merged where the limit was reached.
DEPTH_LIMIT = 32
#: overlayfs takes 500 lower layers; the home's own directory may be two of them.
LAYER_LIMIT = 498
#: File systems the kernel stacks on one another (FILESYSTEM_MAX_STACK_DEPTH).
STACK_LIMIT = 2

#: What is the home's own business in every home.
_RESERVED = frozenset((".homemgr", ".identity", ".identity-blob"))


class Entry(NamedTuple):
    """One name in a directory of an extension."""

    name: str
    is_directory: bool


class Offer(NamedTuple):
    """What an extension has for a home: directories to merge, and what cannot be merged."""

    hierarchies: tuple[str, ...]
    unmergeable: tuple[str, ...]


def offered(contents: Contents) -> Offer:
    """The offer of an extension, given what lists its directories; ValueError if it is too long.

    Of each directory but the top one only two entries are asked for.
    """
    hierarchies: list[str] = []
    unmergeable: list[str] = []
    top = contents("", TOP_LIMIT + 1)
    if len(top) > TOP_LIMIT:
        raise ValueError(f"it has more than {TOP_LIMIT} names for the top of a home")
    for entry in sorted(top):
        if entry.is_directory and entry.name not in _RESERVED and is_sayable(entry.name):
            hierarchies.append(_descend(entry.name, contents))
        else:
            unmergeable.append(_said(entry.name))
    return Offer(tuple(hierarchies), tuple(unmergeable))


def is_sayable(name: str) -> bool:
    """Whether ``name`` can go into messages, JSON and the bus as it is."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return name.isprintable()


def _said(name: str) -> str:
    return name if is_sayable(name) else name.encode("unicode_escape").decode("ascii")


def _descend(path: str, contents: Contents) -> str:
    for _ in range(DEPTH_LIMIT):
        # One more than one is as many as we need to know.
        found = contents(path, 2)
        if len(found) != 1 or not found[0].is_directory or not is_sayable(found[0].name):
            break
        path = f"{path}/{found[0].name}"
    return path


def union(offers: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """All hierarchies of several extensions; what lies below another one is part of it."""
    result: list[str] = []
    # Sorted by component an ancestor comes right before what is below it.
    for path in sorted({p for offer in offers for p in offer}, key=lambda p: p.split("/")):
        if not result or not path.startswith(f"{result[-1]}/"):
            result.append(path)
    return tuple(result)


def within_limits(
    offers: Mapping[str, Sequence[str]],
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The hierarchies of the extensions in this order, and why some had to be left out."""
    taken: list[Sequence[str]] = []
    reasons: dict[str, str] = {}
    for name, offer in offers.items():
        merged = union([*taken, offer])
        size = sum(len(path.encode("utf-8")) for path in merged)
        if len(merged) > HIERARCHY_LIMIT:
            reasons[name] = (
                f"With extension {name} the home would have {len(merged)} merged directories;"
                f" the limit is {HIERARCHY_LIMIT}."
            )
        elif size > PATHS_LIMIT:
            reasons[name] = (
                f"With extension {name} the paths of the merged directories would have {size}"
                f" bytes; the limit is {PATHS_LIMIT}."
            )
        else:
            taken.append(offer)
    return union(taken), reasons


def too_many_layers(hierarchy: str, count: int) -> str:
    """Why ``count`` extensions cannot be merged into one directory; empty if they can."""
    if count <= LAYER_LIMIT:
        return ""
    return f"{count} extensions would be merged into {hierarchy}; the limit is {LAYER_LIMIT}."


def too_deep(name: str, depth: int) -> str:
    """Why an extension of this stack depth cannot be a layer; empty if it can."""
    if depth < STACK_LIMIT:
        return ""
    return (
        f"Extension {name} is already stacked {depth} file systems high; with the home's own"
        f" overlay it would be {depth + 1}, and the kernel allows {STACK_LIMIT}."
    )
