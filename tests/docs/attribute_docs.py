"""The docstrings below the attributes of classes: ``name: type = default`` and then a string."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeDoc:
    """What stands below an attribute: the text, and what its last lines say after ``Type:`` (in place of the
    type of the attribute) and ``Example:``. Both are empty if there is no such line."""

    text: str
    type: str = ""
    example: str = ""


class AttributeDocs(dict[str, AttributeDoc]):
    """The docstrings below the attributes of a class. The KeyError of a missing one says where to add it."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self._name = f"{kind.__module__}.{kind.__qualname__}"

    def __missing__(self, attribute: str) -> AttributeDoc:
        raise KeyError(f"{self._name}.{attribute} has no docstring below it")


def attribute_docs(kind: type) -> AttributeDocs:
    """The docstrings of the attributes that the class itself defines, by attribute, in order."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs = AttributeDocs(kind)
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign):
            target: ast.expr = statement.target
        elif isinstance(statement, ast.Assign):
            target = statement.targets[0]
        else:
            continue
        if (
            isinstance(target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[target.id] = _parse(following.value.value)
    return docs


def _parse(docstring: str) -> AttributeDoc:
    text, _, example = inspect.cleandoc(docstring).partition("\nExample: ")
    text, _, kind = text.partition("\nType: ")
    return AttributeDoc(text=text.strip(), type=kind.strip(), example=" ".join(example.split()))
