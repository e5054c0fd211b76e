"""How ``twistd`` makes the service."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.process import run

MADE = """
import sys, time
from conchrec import tap
options = tap.Options()
options["config"] = sys.argv[1]
tap.makeService(options)
from twisted.internet import reactor
before = reactor.seconds()
called = []
reactor.callLater(0.01, lambda: (called.append(True), reactor.stop()))
reactor.run()
assert called and abs(before - time.monotonic()) < 60, (before, time.monotonic())
"""


async def test_keeps_timers_when_wall_clock_changes(tmp_path: Path) -> None:
    """Set back by an hour, it would keep locks, and the ends of sessions, from being noticed for an hour."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "state_dir: state\nlisten: ['tcp:3023']\nusers: {}\nroles: {}\n"
        "recordings: {directory: recordings}\naudit: {file: audit.jsonl}\n"
    )
    (await run(sys.executable, "-c", MADE, config)).check()
