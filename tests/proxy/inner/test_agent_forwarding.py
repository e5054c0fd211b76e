"""What a target may ask of the agent that is forwarded to it, and how much of it at once."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from conchrec.access.options import SessionOptions
from conchrec.audit import events
from conchrec.model import Identity
from conchrec.proxy.inner.agent_forwarding import MAX_WAITING, OnwardAgent
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
from tests.support.context import partial_context, root_at_web1
from tests.support.loop import Handler, Loop, Receiver

REMOVE_ALL = 19
"""SSH_AGENTC_REMOVE_ALL_IDENTITIES: no target may ask that."""
BINDING = SessionBinding(host_key=b"host key", session_id=b"session", signature=b"signature")
REFUSED = (m.CHANNEL_DATA, string(frame(encode_message(FAILURE))))


class Agent(Handler):
    """The user's client with an agent, which accepts every binding and answers nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []
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
            self.asked.append(request)
            if len(self.asked) == 1:
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
        self.over: list[OnwardAgent] = []
        proxy = Handler()
        self._upstream, self._user = Loop(Handler(), proxy), Loop(Handler(), self.agent)
        self._channel = self._upstream.left.open(
            b"auth-agent@openssh.com", self.target, window=2**20, max_packet=max_packet
        )
        self.pump()
        options = SessionOptions(forward_agent=True)
        access = root_at_web1(
            partial_context(audit=self.log, clock=Clock()), Identity(user="joe", method="publickey"), options
        )
        access.agents.inner.connection = self._user.left
        OnwardAgent(access, proxy.openings[0], BINDING, over=self.over.append).begin()
        self.pump()

    def pump(self) -> None:
        """Deliver until nobody has anything to say."""
        for _ in range(4):
            self._upstream.pump()
            self._user.pump()

    def send(self, kind: int, count: int) -> None:
        """The target sends so many requests of this kind in one packet."""
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
def test_handles_a_bounded_number_of_requests_per_packet(
    kind: int, count: int, refusals: int, is_closed: bool
) -> None:
    stage = Stage()
    stage.send(kind, count)
    assert stage.target.heard.count(REFUSED) == refusals
    assert ((m.CHANNEL_CLOSE, b"") in stage.target.heard) is is_closed
    binding, *requests = stage.agent.asked
    assert BINDING.contents(forwarding=True) in binding
    assert requests == ([] if kind == REMOVE_ALL else [encode_message(kind)] * MAX_WAITING)


def test_refused_requests_do_not_use_up_later_packets() -> None:
    stage = Stage()
    for _ in range(2 * MAX_WAITING):
        stage.send(REMOVE_ALL, 1)
    assert stage.target.heard.count(REFUSED) == 2 * MAX_WAITING
    assert (m.CHANNEL_CLOSE, b"") not in stage.target.heard


def test_refuses_a_target_that_takes_very_small_packets() -> None:
    stage = Stage(max_packet=LEAST_PACKET - 1)
    assert [entry[0] for entry in stage.target.heard] == ["refused"]
    (event,) = stage.log.events
    assert isinstance(event, events.Agent)
    assert isinstance(event.reason, Reason)
    assert event.reason.code is ReasonCode.PACKETS_DO_NOT_FIT
    assert len(stage.over) == 1
    assert stage.agent.asked == []
