"""The type of a benchmark, and the sizes with which it runs."""

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
    """The sizes of the benchmarks."""

    rounds: int = 7
    """Rounds, in each of which conchrec and the yardstick are measured once."""
    size: int = GB
    """Bytes of one transfer."""
    long_size: int = 20 * GB
    """Bytes of the connection with rekeys."""
    connections: int = 200
    """Connections of the crowd of clients, in one round."""
    clients: int = 50
    """Clients of the crowd, which connect at the same time."""
    logins: int = 20
    """Logins one after the other whose CPU time is measured, in one round."""
    prompts: int = 20
    """Logins one after the other whose time is measured, in one round."""
    keys: int = 1000
    """Keys that are typed in one round."""
    requests: int = 500
    """SFTP requests in one round."""
    sessions: tuple[int, ...] = (100, 1000)
    """Numbers of idle sessions at which memory is measured."""
    slow: float = 60.0
    """Seconds for which a slow reader reads, in one round."""
    recordings: int = 10_000
    """Recordings among which commands search."""
    flood: float = 3.0
    """Seconds of typing during each flood."""
    flood_logins: int = 3
    """Logins during each flood."""
    only: tuple[str, ...] = ()
    """Kinds of floods; empty for all."""
    gate: bool = False
    """Leave out what the gate does not judge: some floods, and floods of the yardstick."""

    def with_size(self, size: int) -> Effort:
        """Return the same effort with transfers of this size."""
        return replace(self, size=size, long_size=size)


FULL = Effort(sessions=(100, 1000, 5000))
QUICK = Effort(
    size=64 * MB,
    long_size=400 * MB,
    connections=25,
    clients=25,
    logins=5,
    prompts=2,
    keys=40,
    requests=200,
    sessions=(50, 200),
    slow=3.0,
    recordings=500,
    flood=1.5,
    flood_logins=1,
    gate=True,
)
"""For ``--gate``: all benchmarks together take less than ten minutes on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a benchmark runs with."""

    stage: Stage
    effort: Effort
    say: Callable[[str], None]
    """Shows the progress on the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The result of a benchmark. ``notes`` say how the figures were measured."""

    figures: Sequence[Figure]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark that ``python -m bench NAME`` runs.

    ``only_named``: it takes so long that it runs only if it is named, with ``--full``, or with ``--gate``,
    where it is small.
    """

    name: str
    about: str
    run: Callable[[Run], Awaitable[Measurement]]
    only_named: bool = False
