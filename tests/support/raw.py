"""A client that does what no honest client does: paramiko's transport, with a login of our own."""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable
from dataclasses import dataclass

import paramiko
from paramiko.auth_handler import AuthHandler

MSG_SERVICE_REQUEST, MSG_USERAUTH_REQUEST = 5, 50
SECONDS = 30.0
PK_OK, FAILURE, SUCCESS, SERVICE_ACCEPT = 60, 51, 52, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What it came to."""

    acceptable: bool
    """The server said that it would take a signature by the key that was offered."""
    authenticated: bool
    channel: bool
    """A channel could be opened."""


class _Answers(AuthHandler):
    """Hands the server's answers to the one who wrote the requests."""

    def __init__(self, transport: paramiko.Transport) -> None:
        super().__init__(transport)
        self.answers: queue.Queue[int] = queue.Queue()

    @property
    def _handler_table(self) -> dict[int, Callable[[paramiko.Message], None]]:
        def taker(number: int) -> Callable[[paramiko.Message], None]:
            return lambda message: self.answers.put(number)

        return {number: taker(number) for number in (PK_OK, FAILURE, SUCCESS, SERVICE_ACCEPT)}

    def is_authenticated(self) -> bool:
        return True  # so that paramiko itself does not stop us from going on


class _Client:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._transport = paramiko.Transport(self._socket)
        self._transport.start_client(timeout=SECONDS)
        self._auth = _Answers(self._transport)
        self._transport.auth_handler = self._auth
        self._send(MSG_SERVICE_REQUEST, "ssh-userauth")
        assert self.answer() == SERVICE_ACCEPT

    def _send(self, number: int, *fields: str | bytes | bool) -> None:
        message = paramiko.Message()
        message.add_byte(bytes([number]))
        for field in fields:
            message.add_boolean(field) if isinstance(field, bool) else message.add_string(field)
        try:
            # paramiko has no public way to send a message that it does not know.
            self._transport._send_message(message)  # type: ignore[attr-defined]  # noqa: SLF001
        except (EOFError, OSError):
            pass  # the server has hung up, as its next answer will show

    def answer(self) -> int:
        """The server's next message about the login; 0 where it hangs up instead."""
        while True:
            try:
                return self._auth.answers.get(timeout=0.05)
            except queue.Empty:
                if not self._transport.is_active():
                    return 0

    def offer(self, user: str, key: paramiko.PKey) -> int:
        """A public key, and no signature."""
        request = (user, "ssh-connection", "publickey", False, key.get_name(), key.asbytes())
        self._send(MSG_USERAUTH_REQUEST, *request)
        return self.answer()

    def sign(self, user: str, key: paramiko.PKey) -> int:
        """A public key, and a signature by it."""
        fields = (user, "ssh-connection", "publickey", True, key.get_name(), key.asbytes())
        signed = paramiko.Message()
        assert self._transport.session_id is not None
        signed.add_string(self._transport.session_id)
        signed.add_byte(bytes([MSG_USERAUTH_REQUEST]))
        for field in fields:
            signed.add_boolean(field) if isinstance(field, bool) else signed.add_string(field)
        signature = key.sign_ssh_data(signed.asbytes(), key.get_name())
        self._send(MSG_USERAUTH_REQUEST, *fields, signature.asbytes())
        return self.answer()

    def channel(self) -> bool:
        try:
            self._transport.open_session(timeout=SECONDS)
        except (paramiko.SSHException, EOFError, OSError):
            return False
        return True

    def close(self) -> None:
        self._transport.close()
        self._socket.close()


def offer_only(port: int, user: str, key: str) -> Attempt:
    """Offer the key in this file, never sign, and open a channel. Blocks: for a thread."""
    client = _Client(port)
    try:
        offered = client.offer(user, paramiko.Ed25519Key.from_private_key_file(key))
        return Attempt(acceptable=offered == PK_OK, authenticated=False, channel=client.channel())
    finally:
        client.close()


def offer_then_sign(port: int, user: str, offered: str, signing: str) -> Attempt:
    """Offer one key, and sign with another. Blocks: for a thread."""
    client = _Client(port)
    try:
        first = client.offer(user, paramiko.Ed25519Key.from_private_key_file(offered))
        second = client.sign(user, paramiko.Ed25519Key.from_private_key_file(signing))
        return Attempt(acceptable=first == PK_OK, authenticated=second == SUCCESS, channel=client.channel())
    finally:
        client.close()
