"""Bus interfaces as data: methods, properties, signals, and the nodes that have them.

Knows how an interface is described; not how calls travel nor what they do. One
table drives both dispatch and introspection, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

#: Named arguments: (name, signature) in order.
Arguments = tuple[tuple[str, str], ...]
#: Annotations of the introspection data: (name, value).
Annotations = tuple[tuple[str, str], ...]
#: ``run(target, call, *args)``: tuple, list, None or `Encoded`, or a coroutine of one.
Run = Callable[..., object]


@dataclass(frozen=True)
class Method:
    """A method: what it takes and gives, and the function that runs it.

    ``run(target, call, *args)`` returns the out arguments as a tuple or list (None if
    there are none) or as `Encoded`; or it is a coroutine function of that.
    """

    name: str
    takes: Arguments
    gives: Arguments
    run: Run
    annotations: Annotations = ()

    @cached_property
    def in_signature(self) -> str:
        """What a call must carry."""
        return "".join(signature for _, signature in self.takes)

    @cached_property
    def out_signature(self) -> str:
        """What the answer carries."""
        return "".join(signature for _, signature in self.gives)


@dataclass(frozen=True)
class Property:
    """A property; ``get(target, call)`` returns its value or is a coroutine function of it.

    ``set(target, call, value)``, where given, makes it writable.
    """

    name: str
    signature: str
    get: Run
    emits: Literal["true", "false", "const", "invalidates"] = "false"
    annotations: Annotations = ()
    set: Run | None = None


@dataclass(frozen=True)
class Signal:
    """A signal, for the introspection data; `Connection.emit` sends one."""

    name: str
    args: Arguments
    annotations: Annotations = ()


@dataclass(frozen=True)
class Interface:
    """An interface: everything of one name that a node offers."""

    name: str
    methods: tuple[Method, ...] = ()
    properties: tuple[Property, ...] = ()
    signals: tuple[Signal, ...] = ()

    @cached_property
    def method(self) -> dict[str, Method]:
        """Methods by name."""
        return {method.name: method for method in self.methods}

    @cached_property
    def property(self) -> dict[str, Property]:
        """Properties by name."""
        return {one.name: one for one in self.properties}


@dataclass(frozen=True)
class Node:
    """What stands at an object path; without interfaces it only leads to its children."""

    target: object = None
    interfaces: tuple[Interface, ...] = field(default=())
    #: Whether org.freedesktop.DBus.ObjectManager of everything below sits here.
    manages: bool = False


class Objects(Protocol):
    """The object tree, looked up anew for every call."""

    def resolve(self, path: str) -> Node | None:
        """The node at ``path``; None if neither an object nor the way to one is there."""

    def children(self, path: str) -> list[str]:
        """Names of the nodes directly below ``path``."""
