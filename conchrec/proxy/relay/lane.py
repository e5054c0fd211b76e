"""One direction of one channel: order, and who may go on. Pure: no transport, no clock.

A lane is in one of three states. *Held*: the far end is not open yet, and everything waits in one
queue. *Open*: a message is shown to the observer and passed on in the same call. *Gated*: it is shown
at once and passed on when the gate says so (``proxy-sync``: when it is on disk).

Whatever the state, messages leave in the order in which they came: EOF never overtakes data, and
an exit status stays before CLOSE.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from conchrec.errors import RemoteViolation
from conchrec.proxy.held_bytes import ChannelWaiting, UserWaiting
from conchrec.reasons import ReasonCode

#: What an observer sees and what is passed on: message number (93 to 100) and the body after the channel.
Pass = Callable[[int, bytes], None]

#: A peer that ignores the window, or never stops asking, while the far side is not there yet.
HELD_BYTES = 256 * 1024
#: They are passed on in one turn of the reactor, which takes 20 µs for each. sshd takes 128 environment
#: variables for a session.
HELD_MESSAGES = 192


class Lane:
    """See the module. ``observe`` runs before ``forward``; where it raises, nothing is forwarded."""

    __slots__ = (
        "_account", "_forward", "_gate", "_gated", "_held", "_held_bytes", "_observe", "_passed", "_pushed",
    )  # fmt: skip

    def __init__(self, observe: Pass, forward: Pass, account: ChannelWaiting | None = None) -> None:
        self._account = account or UserWaiting().channel()
        self._observe = observe
        self._forward = forward
        self._held: deque[tuple[int, bytes]] | None = deque()
        self._held_bytes = 0
        self._gate: Callable[[], None] | None = None
        self._gated: deque[tuple[int, bytes]] = deque()
        self._pushed = 0
        self._passed = 0

    @property
    def is_held(self) -> bool:
        return self._held is not None

    @property
    def waiting(self) -> int:
        """Messages that have come and not gone."""
        return len(self._held or ()) + len(self._gated)

    def push(self, message: int, body: bytes) -> None:
        """A message has come. Raises what the observer raises, and RemoteViolation on a flood."""
        held = self._held
        if held is not None:
            self._held_bytes += len(body)
            if self._held_bytes > HELD_BYTES or len(held) >= HELD_MESSAGES:
                raise RemoteViolation(
                    "too much was sent before the other side opened the channel",
                    code=ReasonCode.TOO_MANY_MESSAGES,
                )
            self._account.add(len(body))
            held.append((message, body))
            return
        self._pass(message, body)

    def _pass(self, message: int, body: bytes) -> None:
        self._observe(message, body)
        if self._gate is None:
            self._forward(message, body)
        else:
            self._gated.append((message, body))
            self._pushed += 1
            self._gate()

    def open(self, gate: Callable[[], None] | None = None) -> None:
        """The far end is there: replay what was held, and pass straight through from now on.

        With ``gate`` messages wait after they were observed: it is called for each, and whoever
        it calls releases them with ``release(mark())``. What arrives during the replay queues up
        behind it.
        """
        self._gate = gate
        held = self._held
        while held:
            message, body = held.popleft()
            self._account.remove(len(body))
            self._pass(message, body)
        self._held = None
        self._held_bytes = 0

    def mark(self) -> int:
        """A name for everything that has been pushed so far."""
        return self._pushed

    def release(self, mark: int) -> None:
        """Pass on what was pushed up to ``mark``."""
        gated = self._gated
        while gated and self._passed < mark:
            self._passed += 1
            self._forward(*gated.popleft())

    def abandon(self) -> list[tuple[int, bytes]]:
        """The channel has ended: what was observed and will not be passed on."""
        abandoned = list(self._gated)
        self._gated.clear()
        return abandoned


class ReplyOrder:
    """Replies to one end's channel requests, some from the other end and some of our own.

    Replies have no number (RFC 4254, 5.4): only their order tells which request they answer. A request that
    is answered here waits until those before it have been answered there.
    """

    __slots__ = ("_send", "_turns")

    def __init__(self, send: Callable[[bool], None]) -> None:
        self._send = send
        #: Answer, or None while the other end has not given it; and whether the sender wants it.
        self._turns: deque[tuple[bool | None, bool]] = deque()

    def passed_on(self, *, wanted: bool = True) -> None:
        """A request that the other end will answer was forwarded. Where the sender did not want a reply the
        answer keeps its turn and is not sent."""
        self._turns.append((None, wanted))

    def answer(self, success: bool) -> None:
        """A request that wants a reply is answered here."""
        self._turns.append((success, True))
        self._flush()

    def replied(self, success: bool) -> None:
        """The other end's answer to the oldest request that waits for one; without such a request nothing
        happens."""
        for index, (answer, wanted) in enumerate(self._turns):
            if answer is None:
                self._turns[index] = (success, wanted)
                self._flush()
                return

    def settle(self, success: bool) -> None:
        """The other end will not answer any more: give everything that waits this answer."""
        self._turns = deque((success if answer is None else answer, wanted) for answer, wanted in self._turns)
        self._flush()

    def _flush(self) -> None:
        while self._turns and self._turns[0][0] is not None:
            success, wanted = self._turns.popleft()
            if wanted:
                self._send(bool(success))
