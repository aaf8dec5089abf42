"""Shared libraries that are there on most machines, and told about where they are not."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from homemgr.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    #: Result type and argument types of a function, as ctypes wants them.
    Prototype = tuple[object, Sequence[object]]


def load(need: str, soname: str, package: str, prototypes: Mapping[str, Prototype]) -> ctypes.CDLL:
    """Load ``soname`` and declare its functions.

    NotSupported says what ``need``s it, in the plural, and the ``package`` it is in.
    """
    try:
        library = ctypes.CDLL(soname)
        for name, (result, arguments) in prototypes.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NotSupported(
            f"{need} need the library {soname}, which cannot be used here ({error})."
            f" It is in the package {package}."
        ) from error
    return library
