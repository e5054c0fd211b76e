"""Which requests a target may send to the forwarded agent, and how many at once."""

from __future__ import annotations

import pytest

from conchrec.access.options import SessionOptions
from conchrec.audit import events
from conchrec.model import Identity
from conchrec.proxy.inner.agent_forwarding import MAX_WAITING, ForwardedAgent
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.agent_messages import (
    FAILURE,
    REQUEST_IDENTITIES,
    SUCCESS,
    AgentFrames,
    SessionBinding,
    encode_message,
    frame,
)
from conchrec.ssh.channel_stream import LEAST_PACKET, Stream
from conchrec.ssh.connection import IncomingOpen
from conchrec.ssh.wire import string
from tests.support.auditlog import AuditMemory
from tests.support.context import memory_context, root_at_web1
from tests.support.loop import Handler, Loop, Receiver

REMOVE_ALL = 19
"""SSH_AGENTC_REMOVE_ALL_IDENTITIES, which no target may request."""
BINDING = SessionBinding(host_key=b"host key", session_id=b"session", signature=b"signature")
REFUSED = (m.CHANNEL_DATA, string(frame(encode_message(FAILURE))))


class Agent(Handler):
    """The user's client with an agent, which accepts each binding and answers nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.agent_requests: list[bytes] = []
        self._frames = AgentFrames()
        self._stream: Stream

    def channel_requested(self, opening: IncomingOpen) -> None:
        self._stream = Stream.accept(opening, self)

    def stream_opened(self) -> None:
        """Called for channels that this side opens."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """Called for channels that this side opens."""

    def stream_data(self, data: bytes) -> None:
        self._frames.feed(data)
        while (request := self._frames.next_message()) is not None:
            self.agent_requests.append(request)
            if len(self.agent_requests) == 1:
                self._stream.write(frame(encode_message(SUCCESS)))

    def stream_eof(self) -> None:
        """CLOSE follows."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        return False

    def stream_drained(self, pending: int) -> None:
        """Answers are short."""

    def stream_closed(self) -> None:
        """The proxy needs the agent no longer."""


class Stage:
    """A target that opens the user's agent, and the agent itself, with the proxy between them."""

    def __init__(self, *, max_packet: int = 2**15) -> None:
        self.target, self.agent, self.log = Receiver(), Agent(), AuditMemory()
        self.over: list[ForwardedAgent] = []
        proxy = Handler()
        self._upstream, self._user = Loop(Handler(), proxy), Loop(Handler(), self.agent)
        self._channel = self._upstream.left.open(
            b"auth-agent@openssh.com", self.target, window=2**20, max_packet=max_packet
        )
        self.pump()
        options = SessionOptions(forward_agent=True)
        access = root_at_web1(
            memory_context(audit=self.log), Identity(user="joe", method="publickey"), options
        )
        access.agents.inner.connection = self._user.left
        ForwardedAgent(access, proxy.openings[0], BINDING, on_end=self.over.append).begin()
        self.pump()

    def pump(self) -> None:
        """Deliver all messages in both directions."""
        for _ in range(4):
            self._upstream.pump()
            self._user.pump()

    def send(self, kind: int, count: int) -> None:
        """Send ``count`` requests of this kind from the target, in one packet."""
        self._channel.send(m.CHANNEL_DATA, string(frame(encode_message(kind)) * count))
        self.pump()


@pytest.mark.parametrize(
    ("kind", "count", "refusals", "is_closed"),
    [
        (REMOVE_ALL, MAX_WAITING, MAX_WAITING, False),
        (REMOVE_ALL, MAX_WAITING + 1, MAX_WAITING, True),
        (REMOVE_ALL, 6000, MAX_WAITING, True),
        (REQUEST_IDENTITIES, MAX_WAITING, 0, False),
        (REQUEST_IDENTITIES, MAX_WAITING + 1, 0, True),
    ],
)
def test_limits_requests_per_packet(kind: int, count: int, refusals: int, is_closed: bool) -> None:
    stage = Stage()
    stage.send(kind, count)
    assert stage.target.heard.count(REFUSED) == refusals
    assert ((m.CHANNEL_CLOSE, b"") in stage.target.heard) is is_closed
    binding, *others = stage.agent.agent_requests
    assert BINDING.contents(forwarding=True) in binding
    assert others == ([] if kind == REMOVE_ALL else [encode_message(kind)] * MAX_WAITING)


def test_does_not_count_refused_requests_of_earlier_packets() -> None:
    stage = Stage()
    for _ in range(2 * MAX_WAITING):
        stage.send(REMOVE_ALL, 1)
    assert stage.target.heard.count(REFUSED) == 2 * MAX_WAITING
    assert (m.CHANNEL_CLOSE, b"") not in stage.target.heard


def test_refuses_target_with_very_small_packets() -> None:
    stage = Stage(max_packet=LEAST_PACKET - 1)
    assert [entry[0] for entry in stage.target.heard] == ["refused"]
    (event,) = stage.log.events
    assert isinstance(event, events.Agent)
    assert isinstance(event.reason, Reason)
    assert event.reason.code is ReasonCode.PACKETS_DO_NOT_FIT
    assert len(stage.over) == 1
    assert stage.agent.agent_requests == []
