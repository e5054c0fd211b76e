"""A program on a pseudo-terminal, driven by blocking calls: what is timed here waits for no reactor.

For threads (``in_thread``); nothing in here touches the reactor.
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
    """``began`` is when the program was started, by ``time.perf_counter``."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._main, secondary = os.openpty()
        self._heard = bytearray()
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
        """The time at which ``text`` was there; what came up to then is forgotten."""
        end = time.monotonic() + PATIENCE
        while text not in self._heard:
            self._wait(end, text)
            try:
                data = os.read(self._main, 65536)
            except OSError as error:  # EIO: the program has gone
                raise AssertionError(f"it ended without saying {text!r}: {bytes(self._heard)!r}") from error
            self._heard += data
        now = time.perf_counter()
        self._heard.clear()
        return now

    def key(self, byte: bytes = b"x") -> float:
        """Type one, and wait until it is shown; seconds."""
        began = time.perf_counter()
        self.write(byte)
        return self.read_until(byte) - began

    def _wait(self, end: float, text: bytes) -> None:
        ready, _, _ = select.select([self._main], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise AssertionError(f"it does not say {text!r}: {bytes(self._heard)!r}")

    def close(self) -> None:
        """End the program, by hanging up and then by force."""
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
