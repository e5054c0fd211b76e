"""Names and sizes that the whole project keeps to: a class name is unique, and a module is short."""

from __future__ import annotations

import ast
from collections import Counter

from tests.test_layers import MODULES

#: Peewee wants this name for the settings of each table.
GIVEN = frozenset({"Meta"})
MOST_LINES = 500
#: The catalogue of audit events is one table.
LONGER = {"conchrec.audit.events": 900}


def class_names() -> Counter[str]:
    """How often each name is given to a class."""
    return Counter(
        node.name
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef)
    )


def test_a_class_name_is_unique() -> None:
    names = class_names()
    assert {name for name, count in names.items() if count > 1} == GIVEN


def test_a_module_is_short() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    too_long = {name: length for name, length in lengths.items() if length > LONGER.get(name, MOST_LINES)}
    assert not too_long
    assert all(lengths[name] > MOST_LINES for name in LONGER), "of these, some are short by now"
