"""Sends a message for each field of the table through the whole proxy, in memory.

Its value must be where the table says: in the recording, its hash, the audit, or nowhere at the far end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from conchrec.proxy.coverage_table import FIELDS, FieldRow, Treatment
from conchrec.proxy.relay.message_parser import SETUPS
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.message_layouts import FieldType, Layout
from conchrec.ssh.wire import string, uint32
from fuzz.channels.stack import Stack

#: Numbers and texts that no other message contains.
NUMBERS = (3571, 3659)
TEXTS = (b"alpha-3571", b"omega-3659")
WINDOW, PACKET = 1 << 20, 1 << 15
GROUPS: dict[str, dict[bytes, Layout]] = {
    "request of the user": message_layouts.CLIENT_REQUESTS,
    "request of the target": message_layouts.SERVER_REQUESTS,
    "open": message_layouts.CHANNEL_OPENS,
    "global request": message_layouts.GLOBAL_REQUESTS,
}
#: The target opens these.
OPENED_BY_TARGET = ("forwarded-tcpip", "forwarded-streamlocal@openssh.com", "x11")
#: A size that a player can show, so that it is recorded as it is.
SIZES = {"columns": (357, 365), "rows": (57, 65)}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    options: dict[str, object] = {
        "port_forwarding": True, "x11_forwarding": True, "max_sessions": 100, "unknown_requests": True
    }  # fmt: skip
    stack = Stack(settings={}, options=options)
    yield stack
    stack.close()


@dataclass
class Ends:
    """Both ends of a connection through the proxy, and all that they received."""

    stack: Stack
    client: list[tuple[int, bytes]] = field(default_factory=list)
    server: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stack.events()
        self.stack.forget()
        self.stack.client_received = lambda number, body: self.client.append((number, body))
        self.stack.server_received = lambda number, body: self.server.append((number, body))
        self.stack.connect()

    def send(self, from_user: bool, number: int, body: bytes) -> None:
        end = self.stack.client if from_user else self.stack.server
        assert end is not None
        end.send(number, body)
        self.stack.settle()

    def session(self) -> None:
        """A session whose channel has the number 0 at the user, and 7 at the target."""
        self.send(True, m.CHANNEL_OPEN, string(b"session") + uint32(0) + uint32(WINDOW) + uint32(PACKET))
        self.confirm(from_user=False)

    def confirm(self, *, from_user: bool) -> None:
        """Grant the channel that the other end opened last."""
        heard = self.client if from_user else self.server
        body = next(body for number, body in reversed(heard) if number == m.CHANNEL_OPEN)
        kind_length = int.from_bytes(body[:4], "big")
        sender = body[4 + kind_length : 8 + kind_length]
        self.send(
            from_user,
            m.CHANNEL_OPEN_CONFIRMATION,
            sender + uint32(7) + uint32(WINDOW) + uint32(PACKET),
        )
        self.channels = {True: self._number(self.client), False: sender}

    def _number(self, heard: list[tuple[int, bytes]]) -> bytes:
        return next((body[4:8] for number, body in heard if number == m.CHANNEL_OPEN_CONFIRMATION), b"")

    def request(self, from_user: bool, name: bytes, extra: bytes, *, reply: bool = False) -> None:
        request = m.ChannelRequest(name=name, want_reply=reply, extra=extra)
        self.send(from_user, m.CHANNEL_REQUEST, self.channels[from_user] + request.encode())

    def run(self) -> None:
        self.request(True, b"exec", string(b"cat"))
        self.send(False, m.CHANNEL_SUCCESS, self.channels[False])

    def finish(self) -> None:
        for from_user in (True, False):
            self.send(from_user, m.CHANNEL_CLOSE, self.channels[from_user])
        self.stack.disconnect()
        self.stack.settle()

    def recorded(self) -> str:
        (sid,) = self.stack.sids()
        lines, manifest = self.stack.recording(sid)
        return json.dumps([lines, manifest])

    def control(self, sender: str) -> str:
        (sid,) = self.stack.sids()
        _, manifest = self.stack.recording(sid)
        assert manifest is not None
        value: dict[str, Any] = manifest["control"][sender]
        return str(value["sha256"])


def encode(layout: Layout, name: str, choice: int) -> bytes:
    """A message whose field ``name`` has one of two values, and the others a constant one."""
    out = b""
    for each in layout:
        chosen = each.name == name
        if each.type in (FieldType.UINT32, FieldType.DROPPED_UINT32):
            number = SIZES.get(each.name, NUMBERS)[choice] if chosen else 80
            out += uint32(number)
        elif each.type is FieldType.BOOLEAN:
            out += bytes((choice if chosen else 0,))
        else:
            out += string(TEXTS[choice] if chosen else b"text")
    return out


def value(row: FieldRow, layout: Layout, choice: int) -> str:
    (kind,) = (each.type for each in layout if each.name == row.field)
    if kind is FieldType.UINT32:
        return str(SIZES.get(row.field, NUMBERS)[choice])
    return TEXTS[choice].decode()


def run(stack: Stack, row: FieldRow, choice: int) -> tuple[Ends, list[dict[str, Any]]]:
    """Send the message of a row; returns the ends and what was audited."""
    ends = Ends(stack)
    name = row.message.encode()
    extra = encode(GROUPS[row.group][name], row.field, choice)
    if row.group == "global request":
        want = m.GlobalRequest(name=name, want_reply=True, extra=extra)
        ends.send(True, m.GLOBAL_REQUEST, want.encode())
        stack.disconnect()
        stack.settle()
    elif row.group == "open":
        from_user = row.message not in OPENED_BY_TARGET
        if not from_user:
            ends.session()
            ends.request(True, b"x11-req", b"\0" + string(b"MIT") + string(b"00") + uint32(0))
            ends.run()
            for listen, address in (
                (b"tcpip-forward", string(b"") + uint32(80)),
                (b"streamlocal-forward@openssh.com", string(b"/s")),
            ):
                request = m.GlobalRequest(name=listen, want_reply=True, extra=address)
                ends.send(True, m.GLOBAL_REQUEST, request.encode())
                ends.send(False, m.REQUEST_SUCCESS, b"")
        opening = string(name) + uint32(5) + uint32(WINDOW) + uint32(PACKET) + extra
        ends.send(from_user, m.CHANNEL_OPEN, opening)
        ends.confirm(from_user=not from_user)
        stack.disconnect()
        stack.settle()
    else:
        from_user = row.group == "request of the user"
        ends.session()
        if not (from_user and (name in SETUPS or name in (b"exec", b"subsystem"))):
            ends.run()
        ends.request(from_user, name, extra)
        if from_user and name in SETUPS:
            ends.run()
        ends.finish()
    return ends, stack.events()


ROWS = [row for row in FIELDS if row.group in GROUPS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.message}-{row.field}")
def test_keeps_field_value_as_table_says(stack: Stack, row: FieldRow) -> None:
    layout = GROUPS[row.group][row.message.encode()]
    from_user = row.group != "request of the target" and row.message not in OPENED_BY_TARGET
    results: list[object] = []
    for choice in (0, 1):
        ends, events = run(stack, row, choice)
        if row.treatment is Treatment.DIGESTED:
            results.append(ends.control("user" if from_user else "target"))
        elif row.treatment is Treatment.RECORDED:
            results.append(value(row, layout, choice) in ends.recorded())
        elif row.treatment is Treatment.AUDITED:
            results.append(value(row, layout, choice) in json.dumps(events))
        else:
            results.append(tuple(ends.server if from_user else ends.client))
            assert results[-1]
    if row.treatment is Treatment.DIGESTED:
        assert results[0] != results[1]
    elif row.treatment is Treatment.CONSTANT:
        assert results[0] == results[1]
    else:
        assert results == [True, True]


def test_covers_other_rows_elsewhere() -> None:
    """Data and windows in test_relay; unknown requests, replies and refusals below."""
    assert {row.group for row in FIELDS} - set(GROUPS) == {
        "message", "global reply", "open failure", "unknown request"
    }  # fmt: skip


def test_audits_port_chosen_by_target(stack: Stack) -> None:
    ends = Ends(stack)
    request = m.GlobalRequest(name=b"tcpip-forward", want_reply=True, extra=string(b"lo") + uint32(0))
    ends.send(True, m.GLOBAL_REQUEST, request.encode())
    ends.send(False, m.REQUEST_SUCCESS, uint32(3571) + b"surplus")
    assert ends.client[-1] == (m.REQUEST_SUCCESS, uint32(3571))
    events = stack.events()
    assert [event["destination"] for event in events if event["event"] == "port"] == ["lo:0", "lo:3571"]
    (dropped,) = [event for event in events if event["event"] == "message.dropped"]
    assert (dropped["size"], dropped["sender"]) == (7, "target")
    stack.disconnect()


def test_audits_reason_of_open_failure(stack: Stack) -> None:
    ends = Ends(stack)
    opening = string(b"direct-tcpip") + uint32(5) + uint32(WINDOW) + uint32(PACKET)
    ends.send(True, m.CHANNEL_OPEN, opening + string(b"db") + uint32(1) + string(b"me") + uint32(2))
    body = next(body for number, body in ends.server if number == m.CHANNEL_OPEN)
    sender = body[16:20]
    ends.send(False, m.CHANNEL_OPEN_FAILURE, sender + uint32(2) + string(b"alpha-3571") + string(b"xx"))
    (refused,) = [event for event in stack.events() if event.get("action") == "refused"]
    assert "alpha-3571" in refused["reason"] and "2" in refused["reason"]
    number, body = ends.client[-1]
    assert number == m.CHANNEL_OPEN_FAILURE and b"xx" not in body
    stack.disconnect()


@pytest.mark.parametrize("from_user", [True, False])
def test_audits_hash_of_unknown_request(stack: Stack, from_user: bool) -> None:
    ends = Ends(stack)
    ends.session()
    ends.run()
    ends.request(from_user, b"new@example.com", b"some bytes")
    ends.finish()
    (event,) = [event for event in stack.events() if event["event"] == "request.unknown"]
    assert (event["request"], event["size"]) == ("new@example.com", 10)
    assert event["sha256"] == hashlib.sha256(b"some bytes").hexdigest()
    assert event["sender"] == ("user" if from_user else "target")
