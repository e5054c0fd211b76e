"""A target that uses little CPU and memory: it accepts any key, and its shell only prints a prompt.

``python -m bench.light_target PORT HOST_KEY``, on 127.0.0.1. Signatures are not verified: the cost of the
target is not measured, and its sessions can do nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.conch.avatar import ConchUser
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.service import SSHService

from conchrec.ssh import userauth as u
from conchrec.ssh.wire import Reader, names


class Idle(SSHChannel):
    """A session: accepts a terminal and a shell."""

    name = b"session"

    def request_pty_req(self, data: bytes) -> int:
        """Accept a terminal."""
        return 1

    def request_env(self, data: bytes) -> int:
        """Accept an environment variable."""
        return 1

    def request_shell(self, data: bytes) -> int:
        """Accept a shell, and print a prompt."""
        self.write(b"$ ")  # type: ignore[no-untyped-call]
        return 1


class SessionService(SSHService):
    """Accepts the first key (RFC 4252 section 7), with or without a certificate."""

    name = b"ssh-userauth"
    transport: Any

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle a message of this service (SSHService)."""
        if messageNum != u.REQUEST:
            return
        r = Reader(packet)
        r.string()
        r.string()
        if r.string() not in (u.PUBLICKEY, u.HOSTBOUND):
            self.transport.sendPacket(u.FAILURE, names((u.PUBLICKEY,)) + b"\0")
        elif r.boolean():
            avatar = ConchUser()
            avatar.channelLookup[b"session"] = Idle
            avatar.conn = None
            self.transport.avatar = avatar
            self.transport.sendPacket(u.SUCCESS, b"")
            self.transport.setService(SSHConnection())
        else:
            self.transport.sendPacket(u.PK_OK, r.rest())


def main(port: str, host_key: str) -> None:
    """Run the program with these arguments."""
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    factory: Any = SSHFactory()
    key = Key.fromFile(host_key)
    factory.privateKeys = {key.sshType(): key}
    factory.publicKeys = {key.sshType(): key.public()}
    factory.services = {SessionService.name: SessionService, b"ssh-connection": SSHConnection}
    reactor.listenTCP(int(port), factory, interface="127.0.0.1", backlog=1000)
    print("listening", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
