"""A Clock driven turn by turn, as a reactor does it: what a turn schedules for now runs in the next one."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock


def turn(clock: Clock) -> None:
    """Run what is due when the turn begins."""
    calls: list[Any] = list(clock.getDelayedCalls())
    for call in [call for call in calls if call.getTime() <= clock.seconds()]:
        clock.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)


def finish(clock: Clock) -> int:
    """Turns until nothing is left to be done now; how many."""
    turns = 0
    while any(call.getTime() <= clock.seconds() for call in _calls(clock)):
        turn(clock)
        turns += 1
    return turns


def _calls(clock: Clock) -> list[Any]:
    return list(clock.getDelayedCalls())
