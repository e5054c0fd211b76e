"""What the process asks of its operating system, in processes of their own."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from conchrec.service.process import keep_freed_memory, knows_aes

PACKETS = """
import resource
from conchrec.service.process import keep_freed_memory, knows_aes
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        # More than there is room for in the holes that the imports have left in the heap.
        packets = [b"x" * 100_000 for _ in range(60)]
        del packets
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""

LIMIT = """
import resource
from conchrec.service.process import raise_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""


def printed(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_keeps_freed_memory() -> None:
    if platform.libc_ver()[0] != "glibc":
        assert keep_freed_memory() is False
        return
    alone = int(printed(PACKETS.format(first="")))
    kept = int(printed(PACKETS.format(first="assert keep_freed_memory()")))
    assert kept * 10 < alone, (kept, alone)


def test_works_without_mallopt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.service.process.ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False


def test_raises_file_limit() -> None:
    assert printed(LIMIT) == "True"


@pytest.mark.parametrize(
    ("text", "knows"),
    [
        ("processor\t: 0\nflags\t\t: fpu vme sse4_2 aes xsave\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd aes pmull sha2\n", True),
        ("flags\t\t: fpu vme vaes\n", False),
        ("model name\t: one that knows aes\nflags\t\t: fpu\n", False),
        ("", False),
    ],
)
def test_detects_aes_instructions(tmp_path: Path, text: str, knows: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert knows_aes(cpuinfo) is knows


def test_reports_no_aes_without_cpuinfo(tmp_path: Path) -> None:
    assert knows_aes(tmp_path / "none") is False


HANDOVER = """
import sys
from conchrec.service.process import share_lock_often
share_lock_often()
print(sys.getswitchinterval() * 1000)
"""


def test_switches_threads_within_a_millisecond() -> None:
    assert float(printed(HANDOVER)) <= 0.5
