"""kill -9 in the middle of a session, with a real reactor and real threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from conchrec.recording.format.manifest import Status
from tests.recording.recording_bench import KEY, Bench, events, output
from tests.support.keys import private_text

WRITER = Path(__file__).with_name("killed_writer.py")
ROOT = WRITER.parents[2]


def test_keeps_everything_but_the_last_moment(bench: Bench, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(private_text(KEY))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(bench.directory), str(key)],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        written = 0
        while written < 50:
            written = int(process.stdout.readline())
        assert bench.recover() == (), "it is alive"
        process.send_signal(signal.SIGKILL)
        process.wait()
    (recovered,) = bench.recover()
    assert recovered.manifest is not None and recovered.manifest.status is Status.INTERRUPTED
    lines = output(path).split("\r\n")
    assert lines[:written] == [f"line {number}" for number in range(written)]
    assert events(path)[-1] == ("m", "interrupted")
