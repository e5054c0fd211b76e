"""Logins of targets, for scenarios: one that takes any key, one that takes nothing, and one that asks."""

from __future__ import annotations

from typing import Any

from twisted.conch.ssh.service import SSHService

from fuzz.channels import wire as w
from fuzz.channels.ends import USERAUTH_REQUEST, USERAUTH_SUCCESS, Raw

FAILURE, BANNER, OK_OR_QUESTIONS, ANSWERS = 51, 53, 60, 61


class TargetLogin(SSHService):
    """Takes every key that signs. With ``methods`` of another kind it takes none."""

    name = b"ssh-userauth"
    methods = b"publickey"

    def __init__(self, then: Raw) -> None:
        self.transport: Any = None
        self._then = then

    def serviceStarted(self) -> None:
        """The client begins."""

    def serviceStopped(self) -> None:
        """The connection service follows."""

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if messageNum == USERAUTH_REQUEST:
            cursor = w.Cursor(packet)
            cursor.text()
            cursor.text()
            self._request(cursor.text(), cursor)
        elif messageNum == ANSWERS:
            self._answers(packet)

    def _request(self, method: bytes, cursor: w.Cursor) -> None:
        if method not in (b"publickey", b"publickey-hostbound-v00@openssh.com"):
            self._refuse()
        elif cursor.flag():
            self._welcome()
        else:
            self.transport.sendPacket(OK_OR_QUESTIONS, w.text(cursor.text()) + w.text(cursor.text()))

    def _answers(self, packet: bytes) -> None:
        self._refuse()

    def _refuse(self) -> None:
        self.transport.sendPacket(FAILURE, w.text(self.methods) + b"\0")

    def _welcome(self) -> None:
        self.transport.sendPacket(USERAUTH_SUCCESS, b"")
        self.transport.setService(self._then)


class RefusingLogin(TargetLogin):
    """Takes no key, and shows a banner."""

    def serviceStarted(self) -> None:
        self.transport.sendPacket(BANNER, w.text(b"Authorized use only.\n") + w.text(b""))

    def _request(self, method: bytes, cursor: w.Cursor) -> None:
        self._refuse()


class AskingLogin(TargetLogin):
    """Asks for a password, and takes ``letmein``."""

    methods = b"keyboard-interactive"

    def _request(self, method: bytes, cursor: w.Cursor) -> None:
        if method != b"keyboard-interactive":
            self._refuse()
            return
        question = w.text(b"") + w.text(b"") + w.text(b"") + w.u32(1) + w.text(b"Password: ") + b"\0"
        self.transport.sendPacket(OK_OR_QUESTIONS, question)

    def _answers(self, packet: bytes) -> None:
        if packet == w.u32(1) + w.text(b"letmein"):
            self._welcome()
        else:
            self._refuse()
