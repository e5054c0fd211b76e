"""Values of a JSON object with a checked type. Each function raises TypeError for another type."""

from __future__ import annotations

from collections.abc import Mapping


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
