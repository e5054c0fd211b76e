"""Derives the keys of a section, and how each is read, from the dataclasses of ``config.model``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from conchrec.yaml_cursor import Section

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


T = TypeVar("T", bound="DataclassInstance")

WAITS_FOR_START: Mapping[str, object] = {"at_start": True}
"""Metadata of a setting whose change takes effect only at the next start: it belongs to sockets, files, keys
or names that are opened or created at a start."""
SIZE: Mapping[str, object] = {"size": True}
"""Metadata of a number of bytes: ``500MiB``."""


def written_as(*names: str) -> Mapping[str, object]:
    """Metadata of a field whose keys in the file have these names, and not the field's."""
    return {"written_as": names}


def keys(kind: type[DataclassInstance], *without: str) -> tuple[str, ...]:
    """The keys of a section: the names of the fields, in order. ``without``: fields that have no key."""
    return tuple(name for item in fields(kind) if item.name not in without for name in names_in_file(item))


def names_in_file(item: Field[Any]) -> tuple[str, ...]:
    """The keys that give the value of a field."""
    names: tuple[str, ...] = item.metadata.get("written_as", (item.name,))
    return names


def at_start(kind: type[DataclassInstance]) -> frozenset[str]:
    """The settings whose change waits for the next start."""
    return frozenset(item.name for item in fields(kind) if item.metadata.get("at_start"))


def read_fields(section: Section, kind: type[T], **given: object) -> T:
    """The value of a section.

    Fields that are not ``given`` are read by the type of their default, which is used where the key is
    missing. ``least`` and ``most`` in the metadata limit a number or a size.
    """
    read = {item.name: _read(section, item) for item in fields(kind) if item.name not in given}
    return kind(**given, **read)


def _read(section: Section, item: Field[Any]) -> object:
    key, default = item.name, item.default
    if isinstance(default, bool):
        return section.flag(key, default)
    if isinstance(default, timedelta):
        return section.duration(key, default)
    if isinstance(default, Enum):
        return section.word(key, type(default), default)
    if not isinstance(default, int):
        raise TypeError(f"{key} is not read by the type of its default")
    bounds = {name: item.metadata[name] for name in ("least", "most") if name in item.metadata}
    if item.metadata.get("size"):
        return section.size(key, default, **bounds)
    return section.integer(key, default, **bounds)
