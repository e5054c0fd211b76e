"""What the kernel knows about a process: CPU and memory, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.process import descendants

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def cpu_of_family(pid: int) -> float:
    """The same, with those of its children that still run, and theirs."""
    total = cpu_seconds(pid)
    for child, _ in descendants(pid):
        try:
            total += cpu_seconds(child)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended: its parent has it by now
    return total


def resident(pid: int) -> int:
    """Bytes of it that are in memory: exact, where VmRSS is rounded for each CPU."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Rss":
            return int(rest.split()[0]) * 1024
    raise AssertionError(f"no Rss of process {pid}")


def written(pid: int) -> int:
    """Bytes that it has handed to write(2), wherever to."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "wchar":
            return int(rest)
    raise AssertionError(f"no wchar of process {pid}")
