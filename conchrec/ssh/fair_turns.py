"""Bounded and fair work in each turn of the reactor.

What a connection has received is handled in slices: a few messages now, the rest in later turns. Output in
many small packets is sent in slices, too. All connections of one user are charged to one ``Share`` (before
the login: all connections of one address). Shares with more work take turns, so fifty connections of one
user get as much time as one. A peer that sends little is served at once.

While somebody types (``note_keystroke``), a keystroke waits less behind bulk transfers: sockets are read in
smaller pieces, which costs more CPU time, and the shares that use much time get one slice of each turn
together.

What a slice has written is sent when the slice ends (``after_slice``): joined, and without waiting for the
next turn.

The budgets delay messages and never refuse them. If no other share waits, a share gets all the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

from twisted.logger import Logger

from conchrec.clock import Clock, DelayedCall
from conchrec.token_bucket import Rate, TokenBucket

_log = Logger()

#: The maximum number of bytes to read from a socket at once, and the same while somebody types. Smaller reads
#: cost more, because each turn of the reactor has a cost: with 64 KiB a keystroke beside a bulk transfer
#: takes 40 % of the time, and the transfer 20 % more CPU time.
READ_AT_MOST = 256 * 1024
READ_WHILE_TYPING = 64 * 1024
#: Somebody is typing until this many seconds after a keystroke.
TYPING_SECONDS = 1.0
#: The budget of one share for one slice, in seconds and messages. A full read of a bulk transfer needs
#: less.
SLICE_SECONDS = 0.0005
SLICE_MESSAGES = 64
#: The budget of all shares together for one turn. Further messages wait.
TURN_SECONDS = 0.0015
TURN_MESSAGES = 4 * SLICE_MESSAGES
#: The budget of one turn for messages that wait.
WAITING_SECONDS = 0.0005
WAITING_MESSAGES = 2 * SLICE_MESSAGES
#: The same while somebody types: one slice, which may take longer. Of a transfer, it takes 0.25 ms.
WAITING_SECONDS_TYPING = 0.0001
#: A share that needs more seconds of each second is busy. A login needs 0.02 seconds.
LIGHT = Rate(per_second=0.1, burst=0.03, most_debt=0.03)
#: Less use than this needs no new turn to be reset.
_TRIFLE_SECONDS = SLICE_SECONDS / 4
_TRIFLE_MESSAGES = SLICE_MESSAGES // 4

Key = tuple[str, str]


class SlicedWork(Protocol):
    """A connection with received messages, or a stream with output, that may need several turns."""

    @property
    def share(self) -> Share | None:
        """The share that is charged. It changes at the login."""

    def run_slice(self, spent: Callable[[], bool]) -> bool:
        """Handle or send messages until ``spent`` returns true after one.

        Return whether messages are left. Never raises.
        """


class Share:
    """The time and messages that the connections of one user, or of one address, have used."""

    __slots__ = (
        "__weakref__", "_turns", "allowance", "credit", "is_queued", "messages", "seconds", "turn", "waiting",
    )  # fmt: skip

    def __init__(self, turns: TurnScheduler) -> None:
        self._turns = turns
        #: What the share has used in ``turn``.
        self.turn = 0
        self.seconds = 0.0
        self.messages = 0
        #: Time credit for the next slice, in seconds; negative after a message that took long.
        self.credit = 0.0
        #: The seconds until the share is busy.
        self.allowance = TokenBucket(LIGHT)
        #: Work with messages left, in the order of its turns.
        self.waiting: dict[SlicedWork, None] = {}
        self.is_queued = False

    def run(self, work: SlicedWork) -> bool:
        """Handle or send the messages of ``work``, as many as the budgets allow.

        Return whether messages are left for later turns.
        """
        return self._turns.run(self, work)

    def after_slice(self, send: Callable[[], object]) -> None:
        """Call ``send`` when the current slice ends; without one, in the next turn."""
        self._turns.after_slice(send)

    @property
    def read_size(self) -> int:
        """The maximum number of bytes to read from a socket at once."""
        return self._turns.read_size


class TurnScheduler:
    """The budgets of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shares: WeakValueDictionary[Key, Share] = WeakValueDictionary()
        self._ready: deque[Share] = deque()
        self._next_turn: DelayedCall | None = None
        self._turn = 1
        self._seconds = 0.0
        self._messages = 0
        #: The current slice: when it ends, and how many messages it may still handle.
        self._is_running = False
        self._slice_end = 0.0
        self._messages_left = 0
        #: What sends the output of the current slice.
        self._senders: list[Callable[[], object]] = []
        self._typing_until = 0.0

    def of_user(self, user: str) -> Share:
        """Return the share of all connections of a user."""
        return self._share(("user", user))

    def of_address(self, address: str) -> Share:
        """Return the share of all connections from an address that have not logged in."""
        return self._share(("address", address))

    def _share(self, key: Key) -> Share:
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(self)
        return share

    def note_keystroke(self) -> None:
        """Note that a user has typed on a terminal."""
        self._typing_until = self._clock.seconds() + TYPING_SECONDS

    @property
    def read_size(self) -> int:
        """The maximum number of bytes to read from a socket at once."""
        return READ_WHILE_TYPING if self._clock.seconds() < self._typing_until else READ_AT_MOST

    def run(self, share: Share, work: SlicedWork) -> bool:
        """Implement ``Share.run``."""
        if work in share.waiting:
            return True
        # An inner connection is read within the slice of the outer connection that carried its bytes.
        more = work.run_slice(self._count_message) if self._is_running else self._run_at_once(share, work)
        if more:
            self._defer(work.share or share, work)
        return more

    def after_slice(self, send: Callable[[], object]) -> None:
        """Call ``send`` when the current slice ends; without one, in the next turn."""
        self._senders.append(send)
        if len(self._senders) == 1 and not self._is_running:
            self._clock.callLater(0, self._send_output)

    def _send_output(self) -> None:
        """Send what was written, also what that causes others to write."""
        while self._senders:
            senders, self._senders = self._senders, []
            for send in senders:
                try:
                    send()
                except Exception:
                    _log.failure("unexpected error while output was sent")

    def _run_at_once(self, share: Share, work: SlicedWork) -> bool:
        """Run a slice now, if the budgets of this turn allow it.

        While somebody types, a busy share waits for its turn.
        """
        now = self._clock.seconds()
        if now < self._typing_until and share.allowance.fill(now) <= 0:
            return True
        if share.turn != self._turn:
            share.turn, share.seconds, share.messages = self._turn, 0.0, 0
        seconds = min(SLICE_SECONDS - share.seconds, TURN_SECONDS - self._seconds)
        messages = min(SLICE_MESSAGES - share.messages, TURN_MESSAGES - self._messages)
        if seconds <= 0 or messages <= 0:
            return True
        more, took, handled = self._run(share, work, seconds, messages)
        share.seconds += took
        share.messages += handled
        self._seconds += took
        self._messages += handled
        if share.seconds > _TRIFLE_SECONDS or share.messages > _TRIFLE_MESSAGES:
            self._schedule()
        return more

    def _run(self, share: Share, work: SlicedWork, seconds: float, messages: int) -> tuple[bool, float, int]:
        """Run one slice and charge the share. An error ends this slice only; other work goes on.

        Return whether messages are left, the seconds used, and the number of messages handled.
        """
        began, more = self._clock.seconds(), False
        self._is_running, self._slice_end, self._messages_left = True, began + seconds, messages
        try:
            more = work.run_slice(self._count_message)
        except Exception:
            _log.failure("unexpected error in a turn of a connection")
        finally:
            self._send_output()
            self._is_running = False
        now = self._clock.seconds()
        took = now - began
        share.allowance.charge(now, took)
        # A share that waits for its turn has waited for its debt, or no other share was waiting.
        share.credit = min(0.0, SLICE_SECONDS - took)
        return more, took, messages - self._messages_left

    def _count_message(self) -> bool:
        """Count a message, and return whether the slice is over."""
        self._messages_left -= 1
        return self._messages_left <= 0 or self._clock.seconds() >= self._slice_end

    def _defer(self, share: Share, work: SlicedWork) -> None:
        """Run the rest in a later turn."""
        share.waiting[work] = None
        self._queue_share(share)
        self._schedule()

    def _queue_share(self, share: Share) -> None:
        """Add a share to the queue of those that wait, unless it is in it."""
        if not share.is_queued:
            share.is_queued = True
            self._ready.append(share)

    def _schedule(self) -> None:
        """Run ``_begin_turn`` in the next turn of the reactor."""
        if self._next_turn is None:
            self._next_turn = self._clock.callLater(0, self._begin_turn)

    def _begin_turn(self) -> None:
        """Start a new turn of the reactor: run one slice of each share that waits."""
        self._next_turn = None
        self._turn += 1
        self._seconds, self._messages = 0.0, 0
        now = self._clock.seconds()
        until = now + (WAITING_SECONDS_TYPING if now < self._typing_until else WAITING_SECONDS)
        left = WAITING_MESSAGES
        while self._ready and left > 0 and self._clock.seconds() < until:
            share = self._ready.popleft()
            if share.credit < 0 and self._ready:
                share.credit += SLICE_SECONDS
                self._ready.append(share)
                continue
            share.is_queued = False
            work = next(iter(share.waiting))
            del share.waiting[work]
            more, _, handled = self._run(share, work, SLICE_SECONDS, min(SLICE_MESSAGES, left))
            left -= max(handled, 1)
            if more:
                self._defer(work.share or share, work)
            if share.waiting:
                self._queue_share(share)
        if self._ready:
            self._schedule()
