"""The transport protocol for servers and clients (RFC 4253, RFC 8308, OpenSSH's PROTOCOL).

These transports replace Conch's, and Conch's services also run on them. ``transport_base`` has what both
sides share. ``key_exchange`` has modern algorithms, strict key exchange, host certificates and automatic
rekeying.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from twisted.conch.ssh.service import SSHService

from conchrec.clock import Clock
from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.disconnect import ConnectionEnd, ConnectionGone
from conchrec.ssh.fair_turns import Share
from conchrec.ssh.kex_methods import ModularPowers, SntrupKeyPairs
from conchrec.ssh.kex_sides import ClientKeyExchange, HostKey, HostKeys, ServerKeyExchange
from conchrec.ssh.key_exchange import REKEY_BYTES, REKEY_TIME, KexSettings
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.transport_base import SSHTransport
from conchrec.ssh.wire import Reader, string
from conchrec.text import one_line

__all__ = ["ClientTransport", "ConnectionEnd", "ConnectionGone", "HostKey", "HostKeys", "ServerTransport"]

USERAUTH = b"ssh-userauth"
#: The maximum number of service requests in one connection.
MAX_SERVICE_REQUESTS = 64


class ServerTransport(SSHTransport):
    """The server's side, over TCP or any other ITransport.

    ``identification`` is our identification string, without CR and LF. ``userauth`` creates the
    authentication service, the only service that a client can request. A client that does not finish the
    key exchange within ``handshake_time`` is disconnected.
    """

    kex: ServerKeyExchange

    def __init__(
        self,
        *,
        identification: bytes,
        host_keys: HostKeys,
        algorithms: Algorithms,
        powers: ModularPowers,
        userauth: Callable[[], SSHService],
        clock: Clock,
        handshake_time: timedelta = timedelta(minutes=2),
        rekey_bytes: int = REKEY_BYTES,
        rekey_time: timedelta = REKEY_TIME,
        early_packet: int | None = None,
        share: Share | None = None,
    ) -> None:
        """Create the transport.

        ``early_packet`` is the maximum packet size before the login, in bytes. ``powers`` computes
        finite-field Diffie-Hellman. ``share`` is charged for the handling of messages; without a share all
        received messages are handled at once.
        """
        super().__init__(identification=identification, clock=clock, share=share)
        settings = KexSettings(
            algorithms=algorithms,
            powers=powers,
            clock=clock,
            rekey_bytes=rekey_bytes,
            rekey_time=rekey_time,
        )
        self.inbound.limit = early_packet
        self.kex = ServerKeyExchange(
            self, settings, inbound=self.inbound, outbound=self.outbound, host_keys=host_keys
        )
        self._userauth: Callable[[], SSHService] | None = userauth
        self._login: SSHService | None = None
        self._service_requests = 0
        self._handshake_time = handshake_time

    def _release(self) -> None:
        super()._release()
        self._userauth = self._login = None

    def setService(self, service: SSHService) -> None:
        """Stop the current service and start another. After the login the peer may send larger packets."""
        super().setService(service)
        if service is not self._login:
            self.inbound.limit = None
            self._login = None

    def connectionMade(self) -> None:
        """Start the connection. Called by Twisted."""
        self._start_handshake_timer()
        super().connectionMade()

    def _start_handshake_timer(self) -> None:
        """Start or restart the handshake timer."""
        self._timers.start("handshake", self._handshake_time.total_seconds(), self._end_handshake)

    def _end_handshake(self) -> None:
        """Disconnect a client whose handshake takes too long."""
        what = (
            "the key exchange was not completed in time"
            if not self.kex.is_secure
            else "the login was not started in time"
        )
        self.fail(RemoteViolation(what), DisconnectReason.BY_APPLICATION)

    def keys_exchanged(self) -> None:
        """Handle the end of the first key exchange."""
        # Restart the timer. The authentication service has its own limit, which starts with it.
        self._start_handshake_timer()
        super().keys_exchanged()

    def _handle_service_request(self, payload: bytes) -> None:
        """``string service``: only ``ssh-userauth``.

        Some clients (paramiko) send the request before each attempt. Like sshd we answer it again, without
        starting the authentication again.
        """
        r = Reader(payload)
        name = r.string()
        r.end()
        if not self.kex.is_secure:
            raise RemoteViolation("service request before the key exchange")
        self._service_requests += 1
        again = self._login is not None and self.service is self._login
        if name == USERAUTH and again and self._service_requests <= MAX_SERVICE_REQUESTS:
            self.sendPacket(a.SERVICE_ACCEPT, string(name))
            return
        if name != USERAUTH or self._userauth is None:
            shown = one_line(name, 64)
            self.fail(
                RemoteViolation(f"the service {shown} is not available", code=ReasonCode.SERVICE_UNAVAILABLE),
                DisconnectReason.SERVICE_NOT_AVAILABLE,
            )
            return
        userauth, self._userauth = self._userauth, None
        self._timers.cancel("handshake")
        self.sendPacket(a.SERVICE_ACCEPT, string(name))
        self._login = userauth()
        self.setService(self._login)


class ClientTransport(SSHTransport):
    """The client's side.

    ``verify_host_key`` gets the server's key or certificate, and raises the error that becomes
    ``ConnectionEnd.error``. With ``identification=None`` nothing is sent before ``start``; the server's
    identification string is read and given to ``on_identification``. ``key_pairs`` are needed to offer
    sntrup761.
    """

    kex: ClientKeyExchange

    def __init__(
        self,
        *,
        algorithms: Algorithms,
        powers: ModularPowers,
        key_pairs: SntrupKeyPairs | None = None,
        verify_host_key: Callable[[bytes], None],
        host_key_algorithms: tuple[bytes, ...],
        identification: bytes | None,
        clock: Clock,
        rekey_bytes: int = REKEY_BYTES,
        rekey_time: timedelta = REKEY_TIME,
        share: Share | None = None,
    ) -> None:
        super().__init__(identification=identification, clock=clock, share=share)
        settings = KexSettings(
            algorithms=algorithms,
            powers=powers,
            key_pairs=key_pairs,
            clock=clock,
            rekey_bytes=rekey_bytes,
            rekey_time=rekey_time,
        )
        self.kex = ClientKeyExchange(
            self,
            settings,
            inbound=self.inbound,
            outbound=self.outbound,
            verify_host_key=verify_host_key,
            host_key_algorithms=host_key_algorithms,
        )
        self._requested_service: SSHService | None = None

    def _release(self) -> None:
        super()._release()
        self._requested_service = None

    def start(self, identification: bytes) -> None:
        """Send our identification string and start the key exchange."""
        if self._identifications.ours is not None or self.is_over:
            return
        self._identifications.ours = identification
        if self._is_connected:
            self._send_identification()
            self.dataReceived(b"")

    def request_service(self, service: SSHService) -> None:
        """Request ``service.name``; the service starts when the server accepts it."""
        self._requested_service = service
        self.sendPacket(a.SERVICE_REQUEST, string(service.name))

    def _handle_service_accept(self, payload: bytes) -> None:
        """``string service``, which some servers leave out."""
        service, self._requested_service = self._requested_service, None
        if service is None or (payload and Reader(payload).string() != service.name):
            raise RemoteViolation("SERVICE_ACCEPT without a service request")
        self.setService(service)
