"""Limits how many handshakes with one target are in progress; the users who wait take turns.

sshd drops connections without a login at random from ``MaxStartups`` on (10:30:100 by default), so the proxy
starts only a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from conchrec.fair_queue import FairQueue

#: Handshakes of one user with one target that may wait for a person, outside the gate.
WAITING_FOR_PEOPLE = 4


class Slot:
    """One slot of a gate. ``release`` may be called again."""

    __slots__ = ("_gate", "_on_release", "_user", "held", "waiting")

    def __init__(self, gate: Gate, user: str) -> None:
        self._gate = gate
        self._user = user
        self._on_release: Callable[[], None] | None = None
        self.held = True
        self.waiting = False

    def on_release(self, callback: Callable[[], None]) -> None:
        """Call this at each ``release``."""
        self._on_release = callback

    def release(self) -> None:
        """Give the slot back: the handshake is over."""
        if self.held:
            self.held = False
            self._gate.release(self._user)
        if self.waiting:
            self.waiting = False
            self._gate.person_done(self._user)
        if self._on_release is not None:
            self._on_release()

    def wait_for_person(self) -> None:
        """Give the slot back while a person must touch, confirm or type; a few of one user may do so."""
        if self.held and self._gate.may_wait(self._user):
            self.held = False
            self.waiting = True
            self._gate.release(self._user)


class Gate:
    """A number of slots. Users take turns, and the requests of one user are served in order.

    One user has at most ``share`` of the slots, by default three quarters: a user who never finishes a login
    cannot keep the others out.
    """

    def __init__(self, capacity: int, *, share: int | None = None) -> None:
        self._free = capacity
        self._capacity = capacity
        self._share = share or max(1, capacity * 3 // 4)
        self._queue: FairQueue[Deferred[Slot]] = FairQueue()
        self._held: dict[str, int] = {}
        self._people: dict[str, int] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds a slot, waits for one, or waits for a person."""
        return self._free == self._capacity and not self._queue and not self._people

    def enter(self, user: str) -> Deferred[Slot]:
        """Fires with a slot. If it is cancelled, the request leaves the queue."""
        waiting: Deferred[Slot] = Deferred(lambda waiting: self._queue.discard(user, waiting))
        self._queue.add(user, waiting)
        self._admit()
        return waiting

    def release(self, user: str) -> None:
        """Take back a slot of this user, and give it to the next."""
        self._free += 1
        _subtract(self._held, user)
        self._admit()

    def may_wait(self, user: str) -> bool:
        """Whether one more handshake of this user may wait for a person; counts it if so."""
        if self._people.get(user, 0) >= WAITING_FOR_PEOPLE:
            return False
        self._people[user] = self._people.get(user, 0) + 1
        return True

    def person_done(self, user: str) -> None:
        """Note that a handshake of this user no longer waits for a person."""
        _subtract(self._people, user)

    def _admit(self) -> None:
        while self._free:
            # Few users have their whole share: not many shares fit into the capacity.
            first = self._queue.take(lambda user: self._held.get(user, 0) < self._share)
            if first is None:
                return
            user, waiting = first
            self._free -= 1
            self._held[user] = self._held.get(user, 0) + 1
            waiting.callback(Slot(self, user))


def _subtract(counts: dict[str, int], user: str) -> None:
    remaining = counts.get(user, 0) - 1
    if remaining > 0:
        counts[user] = remaining
    else:
        counts.pop(user, None)
