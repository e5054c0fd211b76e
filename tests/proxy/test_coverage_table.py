"""Each field of each message that the proxy forwards has a row in the table."""

from __future__ import annotations

from conchrec.proxy.coverage_table import FIELDS, Treatment
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.message_layouts import FieldType

#: Where the fields of each group of the table are defined.
GROUPS: dict[str, dict[str, message_layouts.Layout]] = {
    "message": {m.NAMES[number]: layout for number, layout in message_layouts.CHANNEL_MESSAGES.items()},
    "request of the user": {
        name.decode(): layout for name, layout in message_layouts.CLIENT_REQUESTS.items()
    },
    "request of the target": {
        name.decode(): layout for name, layout in message_layouts.SERVER_REQUESTS.items()
    },
    "request on a forward": {
        name.decode(): layout for name, layout in message_layouts.FORWARD_REQUESTS.items()
    },
    "open": {name.decode(): layout for name, layout in message_layouts.CHANNEL_OPENS.items()},
    "global request": {name.decode(): layout for name, layout in message_layouts.GLOBAL_REQUESTS.items()},
}


def test_has_row_for_each_field() -> None:
    defined = {
        (group, message, field.name)
        for group, messages in GROUPS.items()
        for message, layout in messages.items()
        for field in layout
    }
    rows = {(row.group, row.message, row.field) for row in FIELDS}
    assert defined <= rows
    assert {row for row in rows - defined if row[0] in GROUPS} == set(), "rows without a field"
    assert len(rows) == len(FIELDS)


def test_lists_dropped_fields_as_constant() -> None:
    dropped = {
        (group, message, field.name)
        for group, messages in GROUPS.items()
        for message, layout in messages.items()
        for field in layout
        if field.type in (FieldType.DROPPED_STRING, FieldType.DROPPED_UINT32)
    }
    constant = {(row.group, row.message, row.field) for row in FIELDS if row.treatment is Treatment.CONSTANT}
    assert dropped <= constant
