"""What a benchmark is, and what it is given to run with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from bench.figures import Figure
from tests.support.stage import Stage

GB = 1_000_000_000
MB = 1_000_000
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured."""

    rounds: int = 3
    size: int = GB
    """Bytes of one transfer."""
    long_size: int = 20 * GB
    """Bytes of the connection with rekeys."""
    connections: int = 200
    """Connections of the crowd, in one round."""
    clients: int = 50
    """How many of those at one time."""
    logins: int = 20
    """One after the other, in one round: prompts, and connections whose CPU is counted."""
    keys: int = 1000
    """Keys that are typed, in one round."""
    sessions: tuple[int, ...] = (100, 1000)
    """Idle sessions at which memory is looked at."""
    slow: float = 60.0
    """Seconds of reading slowly."""
    recordings: int = 10_000
    """How many there are to be found."""
    flood: float = 3.0
    """Seconds of typing beside each flood."""
    flood_logins: int = 3
    """Logins beside each flood."""
    only: tuple[str, ...] = ()
    """Kinds of floods; all, where none is named."""
    gate: bool = False
    """Only what a gate needs: no yardstick where none is judged by it."""

    def with_size(self, size: int) -> Effort:
        """Return the same effort with transfers of this size."""
        return replace(self, size=size, long_size=size)


FULL = Effort(sessions=(100, 1000, 5000))
QUICK = Effort(
    size=96 * MB,
    long_size=400 * MB,
    connections=50,
    clients=25,
    logins=5,
    keys=150,
    sessions=(50, 200),
    slow=8.0,
    flood=1.5,
    flood_logins=1,
    gate=True,
)
"""For ``--gate``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one benchmark."""

    stage: Stage
    effort: Effort
    say: Callable[[str], None]
    """Say where it is, on the screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What comes of it."""

    figures: Sequence[Figure]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """``only_named``: takes so long that it is run with ``--full``, or where it is named."""

    name: str
    about: str
    run: Callable[[Run], Awaitable[Measured]]
    only_named: bool = False
    in_gate: bool = True
