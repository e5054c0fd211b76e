"""Makes the outer connections of the proxy, within the limits."""

from __future__ import annotations

from twisted.conch.ssh.factory import SSHFactory
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol as TwistedProtocol

from conchrec.proxy.context import ProxyContext
from conchrec.proxy.outer.connection_limits import ConnectionLimits, RefusedConnection
from conchrec.proxy.outer.server import OuterConnection


class OuterFactory(SSHFactory):
    """Makes one OuterConnection for each TCP connection, within the limits."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._limits = ConnectionLimits(context)

    def startFactory(self) -> None:
        """Do nothing: Conch's method loads keys and moduli, and ours are in the authority."""

    def stopFactory(self) -> None:
        """Do nothing: the service ends live connections."""

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:  # type: ignore[override]
        """The transport for a new TCP connection; one that sends the reason, where it is refused."""
        host = str(getattr(addr, "host", "")) or "unknown"
        if reason := self._limits.refusal(host):
            return RefusedConnection(reason)
        return OuterConnection(self._context, addr, self._limits).transport
