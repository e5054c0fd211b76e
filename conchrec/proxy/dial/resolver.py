"""Resolves host names to addresses in threads: a few at a time, and the users take turns.

A name server may take long to answer. A user who requests a hundred names that do not resolve does not make
the others wait.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from conchrec.coroutines import run_coroutine
from conchrec.proxy.dial.handshake_gate import Gate
from conchrec.threads import InThread

#: Lookups at one time, of all users and of one user.
AT_ONCE, AT_ONCE_OF_USER = 16, 4


class Lookups:
    """Resolves names by ``addresses_of``, which blocks, in a thread."""

    def __init__(self, addresses_of: Callable[[str], tuple[str, ...]], in_thread: InThread) -> None:
        self._addresses_of = addresses_of
        self._in_thread = in_thread
        self._gate = Gate(AT_ONCE, share=AT_ONCE_OF_USER)

    def __call__(self, user: str, host: str) -> Deferred[tuple[str, ...]]:
        """Fires with all addresses of a host, in the system's order; none if there is no such host.

        If it is cancelled, it leaves the queue; a thread that already works keeps its slot until it is done.
        """
        return run_coroutine(self._look_up(user, host))

    async def _look_up(self, user: str, host: str) -> tuple[str, ...]:
        slot = await self._gate.enter(user)
        # A cancelled wait must not release the slot: the thread still works.
        answer: Deferred[tuple[str, ...]] = Deferred()

        lookup = self._in_thread(lambda: self._addresses_of(host))
        lookup.chainDeferred(answer)
        lookup.addBoth(lambda _: slot.release())
        return await answer
