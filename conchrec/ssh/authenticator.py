"""The interface between the authentication protocol (RFC 4252) and the code that decides about logins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from conchrec.model import Identity
from conchrec.ssh.userauth import Challenge

Ask = Callable[[Challenge], Deferred[tuple[str, ...]]]


class PartialSuccess(Exception):
    """The authentication succeeded but is not sufficient; ``methods`` can continue (RFC 4252 section 5.1)."""

    def __init__(self, methods: tuple[bytes, ...]) -> None:
        super().__init__(methods)
        self.methods = methods


class Authenticator(Protocol):
    """Decides who may log in.

    The Deferreds fire with the Identity, or fail with ``AccessDenied`` or ``PartialSuccess``. They may take
    long; messages of the client wait meanwhile, and the login time does not run. The authenticator limits
    its own time. The Deferreds are cancelled when the connection ends.
    """

    def methods(self, user: str) -> tuple[bytes, ...]:
        """Return the methods that can continue. Unknown users get the same methods as known users."""

    def none(self, user: str) -> Deferred[Identity]:
        """Decide about a ``none`` request, which is usually the first request and names the user."""

    def accepts_key(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        """Return whether a signature by this key would be accepted. Has no side effects."""

    def log_in_by_key(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        """Decide about a key that was accepted and whose signature for this connection was verified."""

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """Ask the user questions.

        ``ask`` fires with one answer for each prompt. Only one call may be open at a time.
        """
