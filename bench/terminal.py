"""A program on a pseudo-terminal, with blocking calls, so that no reactor delays what is timed.

For threads (``in_thread``); nothing here uses the reactor.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

PATIENCE = 60.0


class Terminal:
    """A program with a terminal of its own. ``began``: when it was started, by ``time.perf_counter``."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._main, secondary = os.openpty()
        self._output = bytearray()
        try:
            self.began = time.perf_counter()
            self._process = subprocess.Popen(
                command, env=env, stdin=secondary, stdout=secondary, stderr=secondary, start_new_session=True
            )
        except BaseException:
            os.close(self._main)
            raise
        finally:
            os.close(secondary)

    def write(self, data: bytes) -> None:
        """Type these bytes."""
        os.write(self._main, data)

    def read_until(self, text: bytes) -> float:
        """Wait for ``text`` in the output, drop all output so far, and return the time."""
        end = time.monotonic() + PATIENCE
        while text not in self._output:
            self._wait(end, text)
            try:
                data = os.read(self._main, 65536)
            except OSError as error:  # EIO: the program has ended
                raise AssertionError(f"the program ended, no {text!r}: {bytes(self._output)!r}") from error
            self._output += data
        now = time.perf_counter()
        self._output.clear()
        return now

    def key(self, byte: bytes = b"x") -> float:
        """Type a byte and wait for its echo; return the seconds between."""
        began = time.perf_counter()
        self.write(byte)
        return self.read_until(byte) - began

    def _wait(self, end: float, text: bytes) -> None:
        ready, _, _ = select.select([self._main], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise AssertionError(f"no {text!r} from the program: {bytes(self._output)!r}")

    def close(self) -> None:
        """Close the terminal and end the program; kill it if it does not end."""
        os.close(self._main)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
