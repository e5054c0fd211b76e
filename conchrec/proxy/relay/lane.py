"""Keeps the messages of one direction of a channel in order. Pure: no transport, no clock.

A lane is in one of three states. *Held*: the far end is not open yet, and all messages wait in one queue.
*Open*: a message is observed and forwarded in the same call. *Gated*: a message is observed at once, and
forwarded when it is released (``proxy-sync``: when it is on disk).

In each state messages leave in the order in which they came: EOF never overtakes data, and an exit status
stays before CLOSE.
"""

from __future__ import annotations

from collections.abc import Callable

from conchrec.errors import RemoteViolation
from conchrec.proxy.held_bytes import ChannelHeldBytes, UserHeldBytes
from conchrec.reasons import ReasonCode
from conchrec.slim_queue import SlimQueue

#: A function of a message: its number (93 to 100), and what follows the channel number in it.
MessageHandler = Callable[[int, bytes], None]

#: The most bytes that are held while the far end is not open.
HELD_BYTES = 256 * 1024
#: The most messages that are held. All of them are forwarded in one turn of the reactor, which takes 20 µs
#: for each. sshd accepts 128 environment variables for a session.
HELD_MESSAGES = 192


class Lane:
    """Observes and forwards the messages of one direction.

    ``observe`` is called before ``forward``. If it raises, the message is not forwarded.
    """

    __slots__ = (
        "_channel_held_bytes", "_forward", "_gate", "_gated", "_held", "_held_bytes", "_observe",
        "_observed_count", "_released_count",
    )  # fmt: skip

    def __init__(
        self, observe: MessageHandler, forward: MessageHandler, held_bytes: ChannelHeldBytes | None = None
    ) -> None:
        self._channel_held_bytes = held_bytes or UserHeldBytes().channel()
        self._observe = observe
        self._forward = forward
        self._held: SlimQueue[tuple[int, bytes]] | None = SlimQueue()
        self._held_bytes = 0
        self._gate: Callable[[], None] | None = None
        self._gated: SlimQueue[tuple[int, bytes]] = SlimQueue()
        self._observed_count = 0
        self._released_count = 0

    @property
    def is_held(self) -> bool:
        """Whether the far end is not open yet."""
        return self._held is not None

    @property
    def pending(self) -> int:
        """The number of messages that were pushed and not forwarded yet."""
        return len(self._held or ()) + len(self._gated)

    def push(self, message: int, body: bytes) -> None:
        """Handle a message. Raises what ``observe`` raises, or RemoteViolation if too much is held."""
        held = self._held
        if held is not None:
            self._held_bytes += len(body)
            if self._held_bytes > HELD_BYTES or len(held) >= HELD_MESSAGES:
                raise RemoteViolation(
                    "too much was sent before the other side opened the channel",
                    code=ReasonCode.TOO_MANY_MESSAGES,
                )
            self._channel_held_bytes.add(len(body))
            held.append((message, body))
            return
        self._observe_and_forward(message, body)

    def _observe_and_forward(self, message: int, body: bytes) -> None:
        self._observe(message, body)
        if self._gate is None:
            self._forward(message, body)
        else:
            self._gated.append((message, body))
            self._observed_count += 1
            self._gate()

    def open(self, gate: Callable[[], None] | None = None) -> None:
        """Observe and forward what was held, because the far end is open now, and hold nothing from now on.

        With ``gate`` messages wait after they were observed: ``gate`` is called for each, and arranges that
        they are released with ``release(mark())``. Messages that arrive during this call are forwarded last.
        """
        self._gate = gate
        held = self._held
        while held:
            message, body = held.popleft()
            self._channel_held_bytes.remove(len(body))
            self._observe_and_forward(message, body)
        self._held = None
        self._held_bytes = 0

    def mark(self) -> int:
        """Return a number that stands for all messages that were observed so far."""
        return self._observed_count

    def release(self, mark: int) -> None:
        """Forward the messages up to ``mark``."""
        gated = self._gated
        while gated and self._released_count < mark:
            self._released_count += 1
            self._forward(*gated.popleft())

    def abandon(self) -> list[tuple[int, bytes]]:
        """Remove and return the messages that were observed and not forwarded, at the end of the channel."""
        return list(self._gated.take())


class ReplyOrder:
    """Sends the replies to the channel requests of one end, in the order of the requests.

    The other end gives some of the replies, and the proxy the rest. Replies have no number (RFC 4254, 5.4):
    only their order tells which request they answer. So a reply of the proxy waits for all earlier ones.
    """

    __slots__ = ("_replies", "_send")

    def __init__(self, send: Callable[[bool], None]) -> None:
        self._send = send
        #: Each reply, None until the other end has given it, and whether the sender of the request wants it.
        self._replies: SlimQueue[tuple[bool | None, bool]] = SlimQueue()

    def expect(self, *, wanted: bool = True) -> None:
        """Note a request that was forwarded and that the other end will answer.

        If the sender did not want a reply, the reply keeps its position and is not sent.
        """
        self._replies.append((None, wanted))

    def answer(self, success: bool) -> None:
        """Answer the last request here, instead of the other end."""
        self._replies.append((success, True))
        self._flush()

    def accept_reply(self, success: bool) -> None:
        """Take the other end's reply to the oldest request that it has not answered, if there is one."""
        for index, (reply, wanted) in enumerate(self._replies):
            if reply is None:
                self._replies[index] = (success, wanted)
                self._flush()
                return

    def settle(self, success: bool) -> None:
        """Give this answer to all requests that the other end has not answered: it will not answer them."""
        for index, (reply, wanted) in enumerate(self._replies):
            if reply is None:
                self._replies[index] = (success, wanted)
        self._flush()

    def _flush(self) -> None:
        while self._replies and self._replies[0][0] is not None:
            success, wanted = self._replies.popleft()
            if wanted:
                self._send(bool(success))
