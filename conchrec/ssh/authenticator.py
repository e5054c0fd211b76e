"""Who decides about a login, as the server side of the authentication protocol asks it (RFC 4252)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from conchrec.model import Identity
from conchrec.ssh.userauth import Challenge

Ask = Callable[[Challenge], Deferred[tuple[str, ...]]]


class PartialSuccess(Exception):
    """What was proved is good but not enough; ``methods`` can go on (RFC 4252 section 5.1)."""

    def __init__(self, methods: tuple[bytes, ...]) -> None:
        super().__init__(methods)
        self.methods = methods


class Authenticator(Protocol):
    """Who may log in.

    The Deferreds fire with the Identity, or fail with ``AccessDenied`` or ``PartialSuccess``; they may
    take long, and what the client sends meanwhile waits. The login time does not run while they do:
    how long they take is the authenticator's to limit. They are cancelled when the connection ends.
    """

    def methods(self, user: str) -> tuple[bytes, ...]:
        """The methods that can go on; the same for users that there are not."""

    def none(self, user: str) -> Deferred[Identity]:
        """The ``none`` request, which usually comes first and names the user."""

    def offered(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        """Would a signature by this key be acceptable? Decides nothing and changes nothing."""

    def proved(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        """The client has signed with this key, which was acceptable, for this very connection."""

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """Hold a conversation. ``ask`` fires with one answer for each prompt; one call at a time."""
