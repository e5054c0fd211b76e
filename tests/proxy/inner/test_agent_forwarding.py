"""What a target may ask of the agent that is forwarded to it, and how much of it at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from conchrec.access.options import SessionOptions
from conchrec.model import Identity
from conchrec.proxy.agents import AgentSource, UserAgents
from conchrec.proxy.inner.agent_forwarding import MAX_WAITING, OnwardAgent
from conchrec.ssh import messages as m
from conchrec.ssh.agent import AgentClient
from conchrec.ssh.agent_messages import FAILURE, REQUEST_IDENTITIES, SUCCESS
from conchrec.ssh.connection import Channel
from conchrec.ssh.wire import string, uint32
from tests.support.auditlog import AuditMemory
from tests.support.context import partial_context, root_at_web1
from tests.support.loop import Handler, Loop, Receiver

REMOVE_ALL = 19
"""SSH_AGENTC_REMOVE_ALL_IDENTITIES: no target may ask that."""


class Agent:
    """The user's: takes every binding, and answers nothing else."""

    def __init__(self) -> None:
        self.requests = 0
        self.client = AgentClient(self._write, lambda: None)

    def open(self) -> Deferred[AgentClient]:
        return succeed(self.client)

    def _write(self, data: bytes) -> None:
        self.requests += 1
        if self.requests == 1:
            self.client.data_received(string(bytes((SUCCESS,))))


def opened() -> tuple[Loop, Channel, Receiver, Agent]:
    """The target's end of a channel to the user's agent."""
    target, proxy, agent = Receiver(), Handler(), Agent()
    loop = Loop(Handler(), proxy)
    channel = loop.left.open(b"auth-agent@openssh.com", target, window=2**20, max_packet=2**15)
    loop.pump()
    log = AuditMemory()
    context = partial_context(clock=Clock(), audit=log)
    access = root_at_web1(context, Identity(user="joe", method="publickey"), SessionOptions())
    access.agents = UserAgents(outer=AgentSource("outer"), inner=cast(AgentSource, agent))
    transport = SimpleNamespace(host_key_blob=b"", session_id=b"", host_key_signature=b"")
    upstream: Any = SimpleNamespace(transport=transport)
    OnwardAgent(access, proxy.openings[0], upstream, over=lambda onward: None).begin()
    loop.pump()
    assert [entry[0] for entry in target.heard] == ["opened"]
    target.heard.clear()
    return loop, channel, target, agent


@pytest.mark.parametrize(
    ("kind", "count", "answers", "is_closed"),
    [
        (REMOVE_ALL, MAX_WAITING, MAX_WAITING, False),
        (REMOVE_ALL, MAX_WAITING + 1, MAX_WAITING, True),
        (REMOVE_ALL, 6000, MAX_WAITING, True),
        (REQUEST_IDENTITIES, MAX_WAITING, 0, False),
        (REQUEST_IDENTITIES, MAX_WAITING + 1, 0, True),
    ],
)
def test_handles_a_bounded_number_of_requests_per_packet(
    kind: int, count: int, answers: int, is_closed: bool
) -> None:
    loop, channel, target, agent = opened()
    channel.send(m.CHANNEL_DATA, string(string(bytes((kind,))) * count))
    loop.pump()
    refusals = [
        entry for entry in target.heard if entry == (m.CHANNEL_DATA, string(uint32(1) + bytes((FAILURE,))))
    ]
    assert len(refusals) == answers
    assert ((m.CHANNEL_CLOSE, b"") in target.heard) is is_closed
    assert agent.requests - 1 == (0 if kind == REMOVE_ALL else MAX_WAITING)


def test_refused_requests_do_not_use_up_later_packets() -> None:
    loop, channel, target, _ = opened()
    for _ in range(2 * MAX_WAITING):
        channel.send(m.CHANNEL_DATA, string(string(bytes((REMOVE_ALL,)))))
        loop.pump()
    assert sum(entry[0] == m.CHANNEL_DATA for entry in target.heard) == 2 * MAX_WAITING
    assert (m.CHANNEL_CLOSE, b"") not in target.heard
