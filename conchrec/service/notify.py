"""Tells systemd how the service is: ready, reloading, stopping, and still alive (sd_notify(3)).

With ``Type=notify`` systemd sets ``NOTIFY_SOCKET``, and with ``WatchdogSec=`` it restarts a service that does
not report for that long: a reactor that hangs serves nobody.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping

from twisted.logger import Logger

from conchrec.text import one_line

_log = Logger()

STATUS_SECONDS = 10.0
"""The longest interval between two reports."""
LEAST_SECONDS = 0.1
"""The shortest interval, however impatient the watchdog is."""


class ServiceNotifier:
    """Sends messages to the socket that ``environment`` names; without one, does nothing.

    ``status`` returns a line for ``systemctl status``. The variables are removed from ``environment``: only
    this process may use them.
    """

    def __init__(self, environment: MutableMapping[str, str], status: Callable[[], str]) -> None:
        self._status = status
        self._shown = ""
        self._address = _address(environment.pop("NOTIFY_SOCKET", ""))
        watchdog = _watchdog_seconds(
            environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        )
        self._has_watchdog = watchdog is not None
        #: The seconds between two calls of ``report``: at least two within the time of the watchdog.
        self.interval = STATUS_SECONDS
        if watchdog is not None:
            self.interval = max(LEAST_SECONDS, min(STATUS_SECONDS, watchdog / 2))
        self._reloads = 0
        self._has_failed = False

    def ready(self) -> None:
        """The service accepts connections."""
        self._shown = self._status()
        self._send("READY=1", f"STATUS={one_line(self._shown)}")

    def reload_begins(self) -> None:
        """A reload was requested; each one is followed by ``reload_ends``."""
        self._reloads += 1
        self._send("RELOADING=1")

    def reload_ends(self) -> None:
        """A reload is done, or was refused."""
        self._reloads -= 1
        if not self._reloads:
            self.ready()

    def report_stop(self) -> None:
        """The service ends its sessions, and then itself."""
        self._send("STOPPING=1", "STATUS=ends all sessions")

    def report(self) -> None:
        """The reactor runs. Called every ``interval`` seconds."""
        lines = ["WATCHDOG=1"] if self._has_watchdog else []
        status = self._status()
        if status != self._shown:
            self._shown = status
            lines.append(f"STATUS={one_line(status)}")
        if lines:
            self._send(*lines)

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            # Once: systemd says itself when it misses a message.
            if not self._has_failed:
                self._has_failed = True
                _log.error("cannot report to systemd: {why}", why=error.strerror or str(error))


def _address(name: str) -> str | None:
    """The address of a socket: a path, or a name in the abstract namespace, which begins with ``@``."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    return name if name.startswith("/") else None


def _watchdog_seconds(microseconds: str, pid: str) -> float | None:
    """The time of the watchdog; None without one, or if it is meant for another process."""
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6
