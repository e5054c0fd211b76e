"""The part of systemd that services report to (sd_notify(3))."""

from __future__ import annotations

import socket


class NotifySocket:
    """The socket at an address: a path, or ``@`` and a name. ``status`` is for tests of a notifier alone."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.status = "fine"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address.replace("@", "\0"))

    def messages(self) -> list[str]:
        """Return the messages since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(65536).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
