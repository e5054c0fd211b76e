"""A client with a very small maximum packet size cannot make the proxy split streams into thousands."""

from __future__ import annotations

import pytest

from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import LEAST_PACKET
from conchrec.ssh.wire import string, uint32
from fuzz.channels.stack import Stack

TARGET = string(b"127.0.0.1") + uint32(2222) + string(b"") + uint32(0)


@pytest.mark.parametrize(("kind", "extra"), [(b"direct-tcpip", TARGET), (b"session", b"")])
def test_refuses_stream_with_very_small_packets(kind: bytes, extra: bytes) -> None:
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
