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

#: What an observer sees and what is passed on: message number (93 to 100) and the body after the channel.
Pass = Callable[[int, bytes], None]

#: A peer that ignores the window, or never stops asking, while the far side is not there yet.
HELD_BYTES = 1024 * 1024
HELD_MESSAGES = 4096


class Lane:
    """See the module. ``observe`` runs before ``forward``; where it raises, nothing is forwarded."""

    __slots__ = ("_forward", "_gate", "_gated", "_held", "_held_bytes", "_observe", "_passed", "_pushed")

    def __init__(self, observe: Pass, forward: Pass) -> None:
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
                raise RemoteViolation("too much sent before the other side was there")
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
            self._pass(*held.popleft())
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


class ReplyOrder:
    """Replies to channel requests in one direction, some from the far side and some of our own.

    RFC 4254 section 5.4 has no numbers in its replies: only the order tells them apart. A request
    that is answered here waits until those before it have been answered there.
    """

    __slots__ = ("_send", "_turns")

    def __init__(self, send: Callable[[bool], None]) -> None:
        self._send = send
        self._turns: deque[bool | None] = deque()

    def passed_on(self) -> None:
        """A request that wants a reply went to the far side."""
        self._turns.append(None)

    def answer(self, success: bool) -> None:
        """A request that wants a reply is answered here."""
        self._turns.append(success)
        self._flush()

    def replied(self, success: bool) -> None:
        """The far side's reply came. One that nobody asked for is dropped."""
        for index, turn in enumerate(self._turns):
            if turn is None:
                self._turns[index] = success
                self._flush()
                return

    def settle(self, success: bool) -> None:
        """No reply will come any more: answer everything that waits."""
        for index, turn in enumerate(self._turns):
            if turn is None:
                self._turns[index] = success
        self._flush()

    def _flush(self) -> None:
        while self._turns and self._turns[0] is not None:
            self._send(bool(self._turns.popleft()))
