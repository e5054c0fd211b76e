"""Programs of the tests and benchmarks that use the reactor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react


def run_program(main: Callable[[], Coroutine[Deferred[Any], Any, int]]) -> int:
    """Run ``main`` in the reactor, and return its exit status, or 1 after ^C: it can then still end the
    programs that it has started."""
    code = 1
    over: Deferred[None] = Deferred()

    def start(reactor: Any) -> Deferred[None]:
        running = Deferred.fromCoroutine(run_main())
        reactor.addSystemEventTrigger("before", "shutdown", interrupt, running)
        return running

    async def run_main() -> None:
        nonlocal code
        try:
            code = await main()
        except CancelledError:
            print("interrupted", file=sys.stderr)
        finally:
            over.callback(None)

    def interrupt(running: Deferred[None]) -> Deferred[None]:
        running.cancel()
        return over

    try:
        react(start)
    except SystemExit as end:
        return int(end.code or 0) or code
    return code
