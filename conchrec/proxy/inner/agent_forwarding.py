"""Forwards the user's agent to the target, for signatures only.

The agent is first bound to the target's session as a forwarded agent (``session-bind@openssh.com`` in
OpenSSH's PROTOCOL.agent). Without that, a key that is constrained to ``proxy>target`` would silently become
usable *from* the target. An agent that does not support it is not forwarded. The target may list keys, sign,
and bind the next hop; all its other requests are answered with a failure and never reach the agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.coroutines import run_coroutine
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

_log = Logger()

#: The most requests of a target that wait for the agent, or arrive in one packet.
MAX_WAITING = 32


class ForwardedAgent:
    """One agent channel that the target opened; the StreamHandler of its stream."""

    #: The options of a role that allow this channel.
    options = ("forward_agent",)

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        binding: SessionBinding | None,
        *,
        on_end: Callable[[ForwardedAgent], None],
    ) -> None:
        """``binding`` belongs to the connection to the target; None if that has ended."""
        self._access = access
        self._on_end = on_end
        self._has_ended = False
        self._opening = opening
        self._binding = binding
        self._client: AgentClient | None = None
        self._stream: Stream | None = None
        self._frames = AgentFrames()
        #: The answers in the order of the requests, each in a list; None until the agent has answered.
        self._answers: deque[list[bytes | None]] = deque()

    def begin(self) -> None:
        """Open and bind the user's agent, and accept the channel; refuse it if that fails."""
        run_coroutine(self._begin()).addErrback(self._refused)

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
        if self._has_ended:
            raise AgentError("the role no longer allows agent forwarding", code=ReasonCode.NO_LONGER_ALLOWED)
        if self._opening.channel.connection.stopped:
            raise AgentError("the connection to the target has ended", code=ReasonCode.TARGET_GONE)
        self._access.emit(self._event("relayed", ""))
        self._access.activity.add_not_kept(NotKept.AGENT)
        self._stream = Stream.accept(self._opening, self)

    def end(self, reason: str) -> None:
        """End the channel, because it is no longer allowed."""
        self._has_ended = True
        if self._stream is not None:
            self._emit("refused", reason)
        self._close()

    def _refused(self, failure: Failure) -> None:
        self._on_end(self)
        error = failure.value
        if isinstance(error, ConchrecError):
            why = error.public
        else:
            _log.failure("internal error in a forwarded agent", failure=failure)
            why = INTERNAL_ERROR
        if self._client is not None:
            self._client.close()
        self._emit("refused", why)
        if not self._opening.answered and not self._opening.channel.connection.stopped:
            self._opening.refuse(m.CONNECT_FAILED, f"conchrec: {one_line(why)}")

    def _emit(self, action: str, reason: str) -> None:
        self._access.context.emit(self._event(action, reason))

    def _event(self, action: str, reason: str) -> events.Agent:
        return events.Agent(**self._access.who(), action=action, path="onward", reason=reason)

    # --- requests of the target

    def stream_data(self, data: bytes) -> None:
        """Forward the requests in ``data`` that are allowed, and answer the others."""
        self._frames.feed(data)
        requests = 0
        try:
            while self._frames.next_length() is not None:
                requests += 1
                # One packet can contain thousands of requests, and refused ones do not wait for the agent.
                if max(requests, len(self._answers) + 1) > MAX_WAITING:
                    self._close()
                    return
                request = self._frames.next_message()
                if request is None:
                    return
                self._handle(request)
        except InvalidLength:
            self._close()

    def _handle(self, request: bytes) -> None:
        answer: list[bytes | None] = [None]
        self._answers.append(answer)
        if self._client is None or not _is_allowed(request):
            self._answer(answer, encode_message(FAILURE))
            return
        try:
            if request[0] == SIGN_REQUEST:
                self._access.emit(self._event("signed", ""))
        except WriteFailed:
            self._answer(answer, encode_message(FAILURE))
            return
        self._client.forward(request).addCallbacks(
            lambda message: self._answer(answer, message),
            lambda _: self._answer(answer, encode_message(FAILURE)),
        )

    def _answer(self, answer: list[bytes | None], message: bytes) -> None:
        """Set an answer, and send all answers up to the first one that is not set."""
        answer[0] = message
        while self._answers and self._answers[0][0] is not None:
            next_message = self._answers.popleft()[0]
            if self._stream is not None and next_message is not None:
                self._stream.write(frame(next_message))

    # --- ends

    def stream_opened(self) -> None:
        """Do nothing: the proxy accepted this stream, and did not request it."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """Do nothing: the proxy accepted this stream, and did not request it."""

    def stream_eof(self) -> None:
        """Close the channel, because the target sends no more requests."""
        self._close()

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Refuse a request on the channel: an agent channel has none."""
        return False

    def stream_drained(self, pending: int) -> None:
        """Do nothing: the answers of an agent are small."""

    def stream_closed(self) -> None:
        """Close the connection to the agent."""
        self._on_end(self)
        if self._client is not None:
            self._client.close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._client is not None:
            self._client.close()


def _is_allowed(request: bytes) -> bool:
    """Whether a target may send this request: to list keys, to sign, or to bind the next hop."""
    if request[0] in (REQUEST_IDENTITIES, SIGN_REQUEST):
        return True
    if request[0] != EXTENSION:
        return False
    try:
        return ExtensionRequest.parse(request).name == SESSION_BIND
    except Truncated:
        return False
