"""Docstrings below attributes are found, with the facts in their last lines."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.docs.attribute_docs import AttributeDoc, attribute_docs


@dataclass
class Described:
    """A class as the reference pages read it."""

    speed: int = 1
    """How fast
    it is.

    Type: a number of knots
    Example: 7
    """
    bare: int = 0
    colour: str = ""
    """Its colour."""


def test_reads_text_type_and_example() -> None:
    assert attribute_docs(Described) == {
        "speed": AttributeDoc(text="How fast\nit is.", type="a number of knots", example="7"),
        "colour": AttributeDoc(text="Its colour."),
    }


def test_names_attribute_without_docstring() -> None:
    with pytest.raises(KeyError, match=r"Described\.bare has no docstring below it"):
        attribute_docs(Described)["bare"]
