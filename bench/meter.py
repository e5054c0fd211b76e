"""CPU time, memory and output of a process, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.process import descendants

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def cpu_of_family(pid: int) -> float:
    """Return user and system time of a process and of all its descendants."""
    total = cpu_seconds(pid)
    for child, _ in descendants(pid):
        try:
            total += cpu_seconds(child)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended: its parent counts it now
    return total


def resident(pid: int) -> int:
    """Return the bytes of a process that are in memory (exact; VmRSS is rounded for each CPU)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Rss":
            return int(rest.split()[0]) * 1024
    raise AssertionError(f"no Rss of process {pid}")


def written(pid: int) -> int:
    """Return the bytes that a process has given to write(2)."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "wchar":
            return int(rest)
    raise AssertionError(f"no wchar of process {pid}")
