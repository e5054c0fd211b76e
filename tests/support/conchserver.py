"""A program: a Conch server as its own examples make one, with files and forwards beside the demo's shell.

python -m tests.support.conchserver PORT HOST_KEY AUTHORIZED_KEYS
"""

from __future__ import annotations

import os
import pwd
import struct
import sys
from collections.abc import Callable
from typing import Any

from twisted.conch.interfaces import ISFTPServer
from twisted.conch.ssh import filetransfer, forwarding
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.unix import SFTPServerForUnixConchUser
from twisted.python.components import registerAdapter
from twisted.python.filepath import FilePath

from conchrec.cli import demo_target


class Full(demo_target.Caller):
    """May do all that Conch can."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.listeners: dict[tuple[bytes, int], Any] = {}
        self.channelLookup[b"direct-tcpip"] = forwarding.openConnectForwardingClient
        self.subsystemLookup[b"sftp"] = filetransfer.FileTransferServer

    def getUserGroupId(self) -> tuple[int, int]:
        """Return the ids of whom the server runs as (ISession)."""
        return os.getuid(), os.getgid()

    def getHomeDir(self) -> FilePath[str]:
        """Return the home directory of whom the server runs as."""
        return FilePath(pwd.getpwuid(os.getuid()).pw_dir)

    def _runAsUser(self, what: Any, *arguments: Any, **named: Any) -> Any:
        """Conch's own way of calling: one function, or several with what they get; we are that user."""
        calls: list[Any] = [(what, arguments, named)] if isinstance(what, Callable) else list(what)  # type: ignore[arg-type]
        result = None
        for function, *rest in calls:
            result = function(*(rest[0] if rest else ()), **(rest[1] if len(rest) > 1 else {}))
        return result

    def global_tcpip_forward(self, data: bytes) -> Any:
        """Listen for a remote forward."""
        host, port = forwarding.unpackGlobal_tcpip_forward(data)
        connection = self.conn  # Conch sets it
        factory: Any = forwarding.SSHListenForwardingFactory(
            connection, (host, port), forwarding.SSHListenServerForwardingChannel
        )
        listener = self.reactor.listenTCP(port, factory, interface="127.0.0.1")
        bound = listener.getHost().port
        factory.remoteHost = factory.hostport = (host, bound)
        self.listeners[host, bound] = listener
        return (1, struct.pack(">L", bound)) if port == 0 else 1


class PatientConnection(SSHConnection):
    """Conch sends EOF before data that still waits for the window: then clients drop that data."""

    def sendEOF(self, channel: Any) -> None:
        """Send it, unless data waits: CLOSE follows that data anyway."""
        if not channel.buf and not channel.extBuf:
            super().sendEOF(channel)  # type: ignore[no-untyped-call]


def main(*arguments: str) -> None:
    """Run the server; the arguments are those of the program."""
    registerAdapter(SFTPServerForUnixConchUser, Full, ISFTPServer)
    demo_target.Caller = Full  # type: ignore[misc]
    SSHFactory.services = {**SSHFactory.services, b"ssh-connection": PatientConnection}
    demo_target.main(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
