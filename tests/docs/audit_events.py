"""The reference of audit events, from the catalogue, the docstrings of its fields, and the encoder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from datetime import datetime, timezone
from typing import Any

from conchrec.audit.encoder import encode
from conchrec.audit.events import CATALOGUE, AuditEvent
from tests.docs import markdown
from tests.docs.attribute_docs import AttributeDocs, attribute_docs
from tests.docs.audit_examples import EXAMPLES

_TIME = datetime(2026, 11, 29, 14, 2, 11, 30000, tzinfo=timezone.utc)
_LEVELS = {"I": "information", "W": "warning", "E": "error"}
_TYPES = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "true or false",
    "tuple[str, ...]": "list of texts",
}


def page() -> str:
    """The common fields, a table of all events, and each event."""
    rows = (
        (f"[`{kind.event}`](#{markdown.anchor(kind.event)})", f"`{kind.code}`", _when(kind))
        for kind in CATALOGUE
    )
    parts = [
        "## Fields of every event\n",
        markdown.from_docstring(inspect.getdoc(AuditEvent) or ""),
        _field_list(AuditEvent),
        "## All events\n",
        markdown.table(("event", "code", "when"), rows),
        "## Each event\n",
        *map(_event, CATALOGUE),
    ]
    return "\n".join(parts)


def fields_of(kind: type[AuditEvent]) -> Iterator[Field[Any]]:
    """The fields that an event has besides those of every event."""
    common = {item.name for item in fields(AuditEvent)} if kind is not AuditEvent else set()
    return (item for item in fields(kind) if item.name not in common)


def field_docs(kind: type[AuditEvent]) -> AttributeDocs:
    """The docstrings of all fields, also of those that an event inherits from another one."""
    docs = AttributeDocs(kind)
    for base in reversed(kind.__mro__):
        if issubclass(base, AuditEvent):
            docs.update(attribute_docs(base))
    return docs


def _when(kind: type[AuditEvent]) -> str:
    sentence = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()).replace("``", "`")
    return sentence.partition(". ")[0].removesuffix(".").removeprefix("Written ")


def _event(kind: type[AuditEvent]) -> str:
    example = next((event for event in EXAMPLES if type(event) is kind), None)
    if example is None:
        raise LookupError(f"tests/docs/audit_examples.py has no example of {kind.__name__}")
    values = json.loads(encode(example, _TIME) + b"}")
    parts = [
        f"### {kind.event}\n",
        f"Code `{kind.code}`, {_LEVELS[kind.code[-1]]}.\n",
        markdown.from_docstring(inspect.getdoc(kind) or ""),
        *([_field_list(kind)] if any(fields_of(kind)) else []),
        markdown.json_object(values),
    ]
    return "\n".join(parts)


def _field_list(kind: type[AuditEvent]) -> str:
    docs = field_docs(kind)
    return "".join(
        markdown.item(f"`{item.name}` ({_type(item)}): {docs[item.name].text}") for item in fields_of(kind)
    )


def _type(item: Field[Any]) -> str:
    kind = _TYPES[str(item.type).removesuffix(" | None")]
    return f"{kind}, always" if item.default is MISSING else kind
