"""The reference of audit events has an example of each event, and a description of each field."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields

import pytest

from conchrec.audit.events import CATALOGUE, AuditEvent
from tests.docs.audit_events import field_docs, page
from tests.docs.audit_examples import EXAMPLES


def test_has_one_example_of_each_event() -> None:
    assert Counter(map(type, EXAMPLES)) == Counter(CATALOGUE)


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: str(kind.event))
def test_describes_each_field(kind: type[AuditEvent]) -> None:
    assert {item.name for item in fields(kind)} - set(field_docs(kind)) == set()


def test_shows_examples_as_json() -> None:
    blocks = [block.partition("```")[0] for block in page().split("```json\n")[1:]]
    assert [json.loads(block)["event"] for block in blocks] == [kind.event for kind in CATALOGUE]
