"""The user's agent, onward to the target: bound as a forwarded one, and for signatures alone.

Without the bind a key that is constrained to ``proxy>target`` would become usable *from* the target,
in silence (OpenSSH's PROTOCOL.agent, ``session-bind@openssh.com``). So the bind comes first, and an
agent that does not take it is not relayed. A target may list keys, sign, and bind the next hop;
everything else it asks is answered with a failure and never reaches the agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.errors import ConchrecError, WriteFailed
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import INTERNAL_ERROR, ReasonCode
from conchrec.recording.format.coverage import NotKept
from conchrec.ssh import messages as m
from conchrec.ssh.agent import AgentClient, AgentError
from conchrec.ssh.agent_messages import (
    EXTENSION,
    FAILURE,
    REQUEST_IDENTITIES,
    SESSION_BIND,
    SIGN_REQUEST,
    AgentFrames,
    ExtensionRequest,
    InvalidLength,
    SessionBinding,
    encode_message,
    frame,
)
from conchrec.ssh.channel_stream import LEAST_PACKET, Stream
from conchrec.ssh.connection import IncomingOpen
from conchrec.ssh.wire import Truncated
from conchrec.text import one_line

#: Requests of a target that wait for the agent, or come in one packet.
MAX_WAITING = 32


class OnwardAgent:
    """One agent channel that the target asked for; a StreamHandler towards the target."""

    #: The option that allows it.
    switches = ("forward_agent",)

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        binding: SessionBinding | None,
        *,
        over: Callable[[OnwardAgent], None],
    ) -> None:
        """``binding`` is that of the connection to the target, None if it is gone."""
        self._access = access
        self._over = over
        self._ended = False
        self._opening = opening
        self._binding = binding
        self._client: AgentClient | None = None
        self._stream: Stream | None = None
        self._frames = AgentFrames()
        #: Answers in the order of the questions; None while the agent has not answered.
        self._answers: deque[list[bytes | None]] = deque()

    def begin(self) -> None:
        Deferred.fromCoroutine(self._begin()).addErrback(self._refused)

    async def _begin(self) -> None:
        if self._binding is None:
            raise AgentError("the connection to the target has ended", code=ReasonCode.TARGET_GONE)
        if self._opening.request.max_packet < LEAST_PACKET:
            raise AgentError(
                "the maximum packet size of the target is too small", code=ReasonCode.PACKETS_DO_NOT_FIT
            )
        client = await self._access.agents.inner.open()
        self._client = client
        if not await client.bind_session(self._binding, forwarding=True):
            raise AgentError(
                "the agent is not forwarded: it does not support session-bind@openssh.com (OpenSSH 8.9)",
                code=ReasonCode.AGENT_BINDING_UNSUPPORTED,
            )
        if self._ended:
            raise AgentError("the role no longer allows agent forwarding", code=ReasonCode.NO_LONGER_ALLOWED)
        if self._opening.channel.connection.stopped:
            raise AgentError("the connection to the target has ended", code=ReasonCode.TARGET_GONE)
        self._access.emit(self._event("relayed", ""))
        self._access.activity.add_not_kept(NotKept.AGENT)
        self._stream = Stream.accept(self._opening, self)

    def end(self, reason: str) -> None:
        """It is not allowed any more."""
        self._ended = True
        if self._stream is not None:
            self._emit("refused", reason)
        self._close()

    def _refused(self, failure: Failure) -> None:
        self._over(self)
        error = failure.value
        why = error.public if isinstance(error, ConchrecError) else INTERNAL_ERROR
        if self._client is not None:
            self._client.close()
        self._emit("refused", why)
        if not self._opening.answered and not self._opening.channel.connection.stopped:
            self._opening.refuse(m.CONNECT_FAILED, f"conchrec: {one_line(why)}")

    def _emit(self, action: str, reason: str) -> None:
        self._access.context.emit(self._event(action, reason))

    def _event(self, action: str, reason: str) -> events.Agent:
        return events.Agent(**self._access.who(), action=action, path="onward", reason=reason)

    # --- what the target asks

    def stream_data(self, data: bytes) -> None:
        self._frames.feed(data)
        requests = 0
        try:
            while self._frames.next_length() is not None:
                requests += 1
                # One packet has room for thousands, and those that are refused do not wait.
                if max(requests, len(self._answers) + 1) > MAX_WAITING:
                    self._close()
                    return
                request = self._frames.next_message()
                if request is None:
                    return
                self._ask(request)
        except InvalidLength:
            self._close()

    def _ask(self, request: bytes) -> None:
        turn: list[bytes | None] = [None]
        self._answers.append(turn)
        if self._client is None or not _is_allowed(request):
            self._answer(turn, encode_message(FAILURE))
            return
        try:
            if request[0] == SIGN_REQUEST:
                self._access.emit(self._event("signed", ""))
        except WriteFailed:
            self._answer(turn, encode_message(FAILURE))
            return
        self._client.forward(request).addCallbacks(
            lambda reply: self._answer(turn, reply), lambda _: self._answer(turn, encode_message(FAILURE))
        )

    def _answer(self, turn: list[bytes | None], reply: bytes) -> None:
        turn[0] = reply
        while self._answers and self._answers[0][0] is not None:
            answer = self._answers.popleft()[0]
            if self._stream is not None and answer is not None:
                self._stream.write(frame(answer))

    # --- ends

    def stream_opened(self) -> None:
        """The channel is the target's own; it was open from the start."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """The channel is the target's own; it was open from the start."""

    def stream_eof(self) -> None:
        self._close()

    def stream_request(self, request: m.ChannelRequest) -> bool:
        return False

    def stream_drained(self, pending: int) -> None:
        """What an agent says is small."""

    def stream_closed(self) -> None:
        self._over(self)
        if self._client is not None:
            self._client.close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._client is not None:
            self._client.close()


def _is_allowed(request: bytes) -> bool:
    """Whether a target may ask that: to list keys, to sign, and to bind the next hop."""
    if request[0] in (REQUEST_IDENTITIES, SIGN_REQUEST):
        return True
    if request[0] != EXTENSION:
        return False
    try:
        return ExtensionRequest.parse(request).name == SESSION_BIND
    except Truncated:
        return False
