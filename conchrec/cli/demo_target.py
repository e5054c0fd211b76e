"""The demo's target where sshd is not installed: a small Conch server that starts the caller's own shell.

``python -m conchrec.cli.demo_target PORT HOST_KEY AUTHORIZED_KEYS`` listens on 127.0.0.1 and accepts the
keys of one file, for the account that runs it. It is for the demo only.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import struct
import sys
import termios
from typing import Any

from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import SSHPublicKeyChecker
from twisted.conch.interfaces import ISession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession
from twisted.cred.portal import Portal
from twisted.python.components import registerAdapter
from zope.interface import implementer


class Caller(ConchUser):
    """The account that runs the demo."""

    def __init__(self, reactor: Any) -> None:
        """``reactor`` starts the shell."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.reactor = reactor
        self.channelLookup[b"session"] = SSHSession


@implementer(ISession)
class Shell:
    """The caller's shell or command, on a pseudo-terminal where the client requested one."""

    def __init__(self, avatar: Caller) -> None:
        self._avatar = avatar
        self._size: tuple[int, int, int, int] | None = None
        self._term = b"xterm"
        self._process: Any = None

    def getPty(self, term: bytes, windowSize: tuple[int, int, int, int], modes: object) -> None:
        """Remember the terminal that the next process gets (ISession)."""
        self._term, self._size = term, windowSize

    def windowChanged(self, newWindowSize: tuple[int, int, int, int]) -> None:
        """Give the terminal another size (ISession)."""
        self._size = newWindowSize
        self._resize()

    def openShell(self, proto: Any) -> None:
        """Start the login shell (ISession)."""
        self._spawn(proto, ["-l"])

    def execCommand(self, proto: Any, command: bytes) -> None:
        """Run a command with the shell (ISession)."""
        self._spawn(proto, ["-c", command.decode()])

    def _spawn(self, proto: Any, arguments: list[str]) -> None:
        me = pwd.getpwuid(os.getuid())
        shell = me.pw_shell or "/bin/sh"
        environment = {
            "HOME": me.pw_dir,
            "USER": me.pw_name,
            "LOGNAME": me.pw_name,
            "SHELL": shell,
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "TERM": self._term.decode(),
        }
        self._process = self._avatar.reactor.spawnProcess(
            proto, shell, [shell, *arguments], env=environment, path=me.pw_dir, usePTY=self._size is not None
        )
        self._resize()

    def _resize(self) -> None:
        if self._process is not None and self._size is not None:
            rows, columns, width, height = self._size
            fcntl.ioctl(
                self._process.fileno(), termios.TIOCSWINSZ, struct.pack("4H", rows, columns, width, height)
            )

    def eofReceived(self) -> None:
        """The client sends no more input (ISession)."""
        if self._process is not None:
            self._process.closeStdin()

    def closed(self) -> None:
        """The session has ended: hang up (ISession)."""
        if self._process is not None and self._process.pid:
            self._process.signalProcess("HUP")


class Realm:
    """Makes everyone who has logged in the caller (IRealm)."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def requestAvatar(self, avatarId: bytes, mind: object, *interfaces: object) -> Any:
        """The avatar of a login (IRealm)."""
        return interfaces[0], Caller(self._reactor), lambda: None


class AuthorizedKeysFile:
    """The keys of one file, for the account that runs the demo (IAuthorizedKeysDB)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._user = pwd.getpwuid(os.getuid()).pw_name.encode()

    def getAuthorizedKeys(self, username: bytes) -> list[Key]:
        """The keys with which this user may log in (IAuthorizedKeysDB)."""
        if username != self._user:
            return []
        with open(self._path, "rb") as lines:
            return [Key.fromString(line) for line in lines if line.strip()]


def main(port: str, host_key: str, authorized_keys: str) -> None:
    """Serve until the process is ended. Prints ``listening`` when it is ready."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    registerAdapter(Shell, Caller, ISession)
    factory: Any = SSHFactory()
    key = Key.fromFile(host_key)
    factory.privateKeys = {key.sshType(): key}
    factory.publicKeys = {key.sshType(): key.public()}
    realm: Any = Realm(reactor)
    keys: Any = AuthorizedKeysFile(authorized_keys)
    checker: Any = SSHPublicKeyChecker(keys)
    factory.portal = Portal(realm, [checker])
    reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    print("listening", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
