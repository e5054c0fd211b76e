"""A clock for what would be later in the same turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.base import DelayedCall


class Now:
    """Calls at once what is to be called after no time at all, and takes nothing else."""

    def seconds(self) -> float:
        """Return 0: time stands still."""
        return 0.0

    def callLater(self, delay: float, what: Callable[..., object], /, *args: object) -> DelayedCall:
        """Call it at once."""
        assert delay == 0
        what(*args)
        done = DelayedCall(0.0, what, args, {}, lambda call: None, lambda call: None)
        done.called = True
        return done
