"""Introspection data: the XML that describes a node, written from its interface tables.

Knows the introspection format of the D-Bus specification; no transport, no objects.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.wire.table import Annotations, Arguments, Interface, Method, Property, Signal

_HEAD = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    '"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def node_xml(interfaces: Iterable[Interface], children: Iterable[str]) -> str:
    """The description of a node with ``interfaces`` and, by name only, its ``children``."""
    parts = [_HEAD, "<node>\n", *map(_interface_xml, interfaces)]
    parts += [f" <node name={_quoted(name)}/>\n" for name in children]
    parts.append("</node>\n")
    return "".join(parts)


# Interfaces are constants: a tree of thousands of objects describes each once.
@lru_cache(maxsize=64)
def _interface_xml(interface: Interface) -> str:
    parts = [f" <interface name={_quoted(interface.name)}>\n"]
    parts += map(_method_xml, interface.methods)
    parts += map(_property_xml, interface.properties)
    parts += map(_signal_xml, interface.signals)
    parts.append(" </interface>\n")
    return "".join(parts)


def _method_xml(method: Method) -> str:
    inside = _arguments_xml(method.takes, ' direction="in"')
    inside += _arguments_xml(method.gives, ' direction="out"')
    inside += _annotations_xml(method.annotations)
    return _element("method", f" name={_quoted(method.name)}", inside)


def _property_xml(one: Property) -> str:
    access = "readwrite" if one.set else "read"
    head = f' name={_quoted(one.name)} type={_quoted(one.signature)} access="{access}"'
    return _element("property", head, _annotations_xml(((_EMITS, one.emits), *one.annotations)))


def _signal_xml(signal: Signal) -> str:
    inside = _arguments_xml(signal.args, "") + _annotations_xml(signal.annotations)
    return _element("signal", f" name={_quoted(signal.name)}", inside)


def _arguments_xml(arguments: Arguments, direction: str) -> str:
    return "".join(
        f"   <arg type={_quoted(signature)} name={_quoted(name)}{direction}/>\n"
        for name, signature in arguments
    )


def _annotations_xml(annotations: Annotations) -> str:
    return "".join(
        f"   <annotation name={_quoted(name)} value={_quoted(value)}/>\n"
        for name, value in annotations
    )


def _element(tag: str, attributes: str, inside: str) -> str:
    if not inside:
        return f"  <{tag}{attributes}/>\n"
    return f"  <{tag}{attributes}>\n{inside}  </{tag}>\n"


# By hand: the modules of the standard library for this take longer to load than to write.
def _quoted(text: str) -> str:
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(plain, escaped)
    return f'"{text}"'
