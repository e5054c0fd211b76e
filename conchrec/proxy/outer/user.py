"""The user of one outer connection: the address, the id of the connection, and whom the login has proved."""

from __future__ import annotations

import secrets

from twisted.internet.interfaces import IAddress

from conchrec.audit import events
from conchrec.model import Identity
from conchrec.proxy.agents import AgentSource, UserAgents
from conchrec.proxy.target_access import OneTimeProof, Origin


class OuterUser:
    """The facts about a user that the channels of one outer connection share."""

    __slots__ = ("_identity", "address", "agent", "cid", "local", "peer", "proofs", "source")

    def __init__(self, peer: IAddress | None) -> None:
        self.peer = peer
        #: The user's address without a port, and with it.
        self.source = str(getattr(peer, "host", "")) or "unknown"
        port = getattr(peer, "port", 0)
        self.address = f"[{self.source}]:{port}" if ":" in self.source else f"{self.source}:{port}"
        #: The connection's id.
        self.cid = secrets.token_hex(8)
        self.agent = AgentSource("outer")
        #: The second factor of the login, if nothing has used it.
        self.proofs = OneTimeProof()
        #: The proxy's address and port that the user connected to; empty before the login.
        self.local = ""
        self._identity: Identity | None = None

    @property
    def has_logged_in(self) -> bool:
        """Whether the login has succeeded."""
        return self._identity is not None

    @property
    def identity(self) -> Identity:
        """The user, as of the last check. Only after the login."""
        assert self._identity is not None, "used only after the login"
        return self._identity

    def set_identity(self, identity: Identity) -> None:
        """Store whom the login has proved (``OuterLogin``), or a new check of it (``LoginValidity``)."""
        self._identity = identity

    def origin(self) -> Origin:
        """Return the facts for an access to a target."""
        return Origin(
            cid=self.cid,
            source=self.source,
            address=self.address,
            local=self.local,
            agents=UserAgents(outer=self.agent),
            proofs=self.proofs,
        )

    def who(self) -> events.Who:
        """The fields that each audit event of this connection has. ``user`` is empty before the login."""
        return events.Who(
            user=self._identity.user if self._identity is not None else "",
            login="",
            target="",
            addr=self.address,
            cid=self.cid,
            sid="",
        )
