"""Names become addresses: in threads, so many at a time, and no user has all of them.

A lookup may take as long as somebody's name server likes. Users take turns; one who asks for a hundred names
that nobody answers for keeps nobody else waiting.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from conchrec.proxy.dial.dialer import Gate
from conchrec.threads import InThread

#: Lookups at one time, and of one user.
PLACES, SHARE = 16, 4


class Lookups:
    """See the module. ``addresses_of`` blocks."""

    def __init__(self, addresses_of: Callable[[str], tuple[str, ...]], in_thread: InThread) -> None:
        self._addresses_of = addresses_of
        self._in_thread = in_thread
        self._gate = Gate(PLACES, share=SHARE)

    def __call__(self, user: str, host: str) -> Deferred[tuple[str, ...]]:
        """All addresses of a host, in the system's order; none where there is no such host.

        Cancelled, it leaves the line; a thread that is at it already keeps its place until it is done.
        """
        return Deferred.fromCoroutine(self._look_up(user, host))

    async def _look_up(self, user: str, host: str) -> tuple[str, ...]:
        slot = await self._gate.enter(user)
        # Whoever does not wait any more must not make room for another: the thread still works.
        answer: Deferred[tuple[str, ...]] = Deferred()

        working = self._in_thread(lambda: self._addresses_of(host))
        working.chainDeferred(answer)
        working.addBoth(lambda _: slot.release())
        return await answer
