"""A user whose client takes very small packets does not make the proxy cut streams into thousands of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from conchrec.audit import events
from conchrec.proxy.inner.agent_forwarding import OnwardAgent
from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import LEAST_PACKET
from conchrec.ssh.wire import string, uint32
from fuzz.channels.stack import Stack
from tests.support.auditlog import AuditMemory
from tests.support.context import partial_context
from tests.support.loop import Handler, Loop, Receiver

PLACE = string(b"127.0.0.1") + uint32(2222) + string(b"") + uint32(0)


@pytest.mark.parametrize(("kind", "extra"), [(b"direct-tcpip", PLACE), (b"session", b"")])
def test_a_stream_of_very_small_packets_is_refused(kind: bytes, extra: bytes) -> None:
    stack = Stack(settings={}, options={})
    stack.connect()
    assert stack.outer is not None
    heard: list[int] = []
    stack.outer_received = lambda number, payload: heard.append(number)
    for size in (LEAST_PACKET - 1, LEAST_PACKET):
        opening = m.ChannelOpen(kind=kind, sender=9, window=2**32 - 1, max_packet=size, extra=extra)
        stack.outer.send(m.CHANNEL_OPEN, opening.encode())
        stack.settle()
    stack.close()
    answers = (m.CHANNEL_OPEN_CONFIRMATION, m.CHANNEL_OPEN_FAILURE)
    assert [number for number in heard if number in answers] == [answers[1], answers[0]]


def test_a_target_that_takes_very_small_packets_gets_no_agent() -> None:
    target, proxy, log = Receiver(), Handler(), AuditMemory()
    over: list[OnwardAgent] = []
    loop = Loop(Handler(), proxy)
    loop.left.open(b"auth-agent@openssh.com", target, window=2**32 - 1, max_packet=LEAST_PACKET - 1)
    loop.pump()
    access: Any = SimpleNamespace(context=partial_context(audit=log), who=dict)
    upstream: Any = SimpleNamespace(transport=object())
    OnwardAgent(access, proxy.openings[0], upstream, over=over.append).begin()
    loop.pump()
    assert [entry[0] for entry in target.heard] == ["refused"]
    (event,) = log.events
    assert isinstance(event, events.Agent)
    assert event.reason == "the target takes too few bytes in a packet"
