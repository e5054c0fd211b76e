"""Values of a JSON object: with a checked type, and as indented text. Another type is a TypeError."""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONEncoder
from json.encoder import encode_basestring_ascii

_encode = JSONEncoder().encode


def as_text(value: object) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def as_number(value: object) -> int:
    """Return a whole number."""
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value


def as_mapping(value: object) -> Mapping[str, object]:
    """Return an object."""
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def indented(value: object, line: str = "\n") -> str:
    """Return what ``json.dumps(value, indent=1)`` returns; ``line`` begins each line.

    That function runs in Python as soon as it has to indent, and takes twice as long.
    """
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if type(value) is int:
        return str(value)
    below = line + " "
    if isinstance(value, dict) and value:
        members = [f"{encode_basestring_ascii(key)}: {indented(item, below)}" for key, item in value.items()]
        return f"{{{below}{f',{below}'.join(members)}{line}}}"
    if isinstance(value, (list, tuple)) and value:
        return f"[{below}{f',{below}'.join([indented(item, below) for item in value])}{line}]"
    return _encode(value)
