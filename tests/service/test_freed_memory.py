"""Memory is returned to the system after many connections have ended."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
import weakref
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from conchrec.service.freed_memory import LEAST, PAUSE_SECONDS, FreedMemory, return_memory, trim_heap

HEAP = """
from pathlib import Path
from conchrec.service.freed_memory import trim_heap
from conchrec.service.process import keep_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
keep_freed_memory()
blocks = [bytearray(100_000) for _ in range(600)]
last = blocks[-1]
del blocks
before = resident()
print(trim_heap(), before - resident() > 40_000_000)
"""


class Office:
    """Connections, a clock, and the times at which memory was returned."""

    def __init__(self) -> None:
        self.count = 0
        self.now = 0.0
        self.returned: list[float] = []
        self.memory = FreedMemory(
            lambda: self.count, lambda: self.now, lambda count: self.returned.append(self.now)
        )

    def check(self, count: int, seconds: float = 10.0) -> int:
        """Check after some time with this number of connections. Return how often memory was returned."""
        self.count = count
        self.now += seconds
        self.memory.check()
        return len(self.returned)


@pytest.fixture
def office() -> Office:
    return Office()


def test_returns_memory_after_most_connections_have_ended(office: Office) -> None:
    counts = (0, 500, 410, 320, 250, 240, 230)
    assert [office.check(count) for count in counts] == [0, 0, 0, 0, 1, 1, 1]


def test_waits_while_many_connections_end(office: Office) -> None:
    assert [office.check(count) for count in (500, 240, 100, 30, 30)] == [0, 0, 0, 1, 1]


def test_ignores_few_connections(office: Office) -> None:
    assert [office.check(count) for count in (LEAST, 1, 1)] == [0, 0, 0]
    assert [office.check(count) for count in (LEAST + 1, 1, 1)] == [0, 0, 1]


def test_returns_memory_once_when_nobody_is_connected(office: Office) -> None:
    """However few there were: garbage in old objects is collected only then."""
    assert [office.check(count, PAUSE_SECONDS) for count in (0, 2, 0, 0, 1, 0)] == [0, 0, 1, 1, 1, 2]


def test_pauses_between_returns(office: Office) -> None:
    assert [office.check(count) for count in (500, 0, 0, 500, 0, 0)] == [0, 0, 1, 1, 1, 1]
    assert office.check(0, PAUSE_SECONDS) == 2


def test_forgets_cancelled_timers() -> None:
    """The reactor alone keeps some of them until they are due, in an hour."""
    reactor: Any = SelectReactor()
    timers = [reactor.callLater(3600, int) for _ in range(50)]
    reactor.runUntilCurrent()
    for timer in timers:
        timer.cancel()
    references = [weakref.ref(timer) for timer in timers]
    del timers, timer
    reactor.runUntilCurrent()
    assert all(reference() is not None for reference in references)
    return_memory(reactor, 0)
    while any(reference() is not None for reference in references):
        reactor.iterate(1)  # until its next timer is due


@pytest.mark.parametrize(("connections", "calls"), [(0, ["all", "trim"]), (7, ["new", "trim"])])
def test_collects_everything_only_if_nobody_is_connected(
    connections: int, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for function, name in (("trim_heap", "trim"), ("collect_all", "all"), ("collect_new", "new")):
        monkeypatch.setattr(f"conchrec.service.freed_memory.{function}", functools.partial(made.append, name))
    clock = Clock()
    return_memory(clock, connections)
    assert made == []
    clock.advance(1)
    assert made == calls


def test_returns_heap_to_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAP], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == (["True"] * 2 if platform.libc_ver()[0] == "glibc" else ["False"] * 2)


def test_works_without_malloc_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.service.freed_memory.ctypes.CDLL", lambda name: object())
    assert trim_heap() is False
