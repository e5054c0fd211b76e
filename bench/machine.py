"""The machine and the versions of a measurement."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from tests.support.process import run
from tests.support.proxy import ROOT


async def describe() -> dict[str, str]:
    """Return names and values, in the order in which they are shown."""
    openssh = (await run("ssh", "-V")).errors.strip()
    head = (await run("git", "-C", ROOT, "rev-parse", "--short", "HEAD")).text.strip()
    edited = (await run("git", "-C", ROOT, "status", "--porcelain", "conchrec")).text.strip()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "conchrec": (head or "?") + (", with edits that are not committed" if edited else ""),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Twisted": version("Twisted"),
        "cryptography": version("cryptography"),
        "orjson": version("orjson"),
        "OpenSSH": openssh,
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
