"""Runs a target on its inputs, and says which of them broke it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzz.limits import LIMITS, Limits, Memory, Stuck, Vigil
from fuzz.mutation import Mutator
from fuzz.target import Session, Target

#: How often memory is looked at in a run, and how many sessions are run to shorten what was found.
LOOKS = 20
ATTEMPTS = 200


class BugFound(Exception):
    """``data`` makes a new session of ``target`` fail, or did so once; its cause is the ``__cause__``."""

    def __init__(self, target: str, data: bytes, number: int) -> None:
        super().__init__(f"{target}: input {number} of {len(data)} bytes")
        self.target = target
        self.data = data
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run in which nothing was found."""

    inputs: int
    sessions: int
    seconds: float


def fuzz(
    target: Target,
    *,
    runs: int,
    seed: int,
    limits: Limits = LIMITS,
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Try ``runs`` inputs. Raises BugFound; Broken, of its memory, where no one input is to blame."""
    mutator = Mutator(f"{target.name} {seed}", target.corpus(), packed=target.packed)
    memory = Memory(limits)
    begin = time.monotonic()
    every = max(1, runs // LOOKS)
    done = sessions = 0
    with Vigil(limits) as vigil:
        while done < runs:
            history: list[bytes] = []
            sessions += 1
            inputs = (mutator.next() for _ in range(min(target.length, runs - done)))
            try:
                run = _Run(target, vigil)
                for data in inputs:
                    history.append(data)
                    if not run.feed(data):
                        break
                run.end()
            except Stuck as stuck:
                raise BugFound(target.name, b"".join(history), done + len(history)) from stuck
            except Exception as error:
                data = _shortened(target, history, limits)
                raise BugFound(target.name, data, done + len(history)) from error
            before, done = done, done + len(history)
            # What is kept for ever is there after the first tenth.
            if done // every != before // every and done >= runs // 10:
                memory.check()
                progress(done)
    return Result(inputs=done, sessions=sessions, seconds=time.monotonic() - begin)


def replay(target: Target, data: bytes, limits: Limits = LIMITS) -> None:
    """One input, to a session of its own. Raises whatever it finds."""
    with Vigil(limits) as vigil:
        run = _Run(target, vigil)
        run.feed(data)
        run.end()


class _Run:
    """A session under watch."""

    def __init__(self, target: Target, vigil: Vigil) -> None:
        self._vigil = vigil
        self._session: Session = target.begin()

    def feed(self, data: bytes) -> bool:
        self._vigil.next_input()
        goes_on = self._session.feed(data)
        self._vigil.check()
        return goes_on

    def end(self) -> None:
        self._session.end()
        self._vigil.check()


def _shortened(target: Target, history: Sequence[bytes], limits: Limits) -> bytes:
    """As few of a session's inputs as still break it, as one input."""
    needed = list(history)
    attempts = 0
    at = 0
    while at < len(needed) - 1 and attempts < ATTEMPTS:
        attempts += 1
        without = needed[:at] + needed[at + 1 :]
        if _breaks(target, b"".join(without), limits):
            needed = without
        else:
            at += 1
    return b"".join(needed)


def _breaks(target: Target, data: bytes, limits: Limits) -> bool:
    try:
        replay(target, data, limits)
    except (Exception, Stuck):
        return True
    return False
