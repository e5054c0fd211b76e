"""The transport protocol, both sides (RFC 4253, RFC 8308, OpenSSH's PROTOCOL), on Conch's transports.

Conch keeps the life of a connection and of its services. What it lacks is in ``transport_base`` and
``keying``: packets that are cut from a stream in linear time and sealed with modern ciphers, strict key
exchange, rekeying that we begin ourselves, host certificates, extension info that lists the keys of
*users*, and an end that everybody who asks hears of, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from twisted.conch.ssh.service import SSHService
from twisted.conch.ssh.transport import SSHClientTransport, SSHServerTransport

from conchrec.clock import Clock
from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import USER_SIGNATURES, Algorithms
from conchrec.ssh.certificate import CERTIFICATE, decode, key_type_of, verify_signature
from conchrec.ssh.disconnect import ConnectionEnd, ConnectionGone, printable
from conchrec.ssh.fair_turns import Share
from conchrec.ssh.kex_methods import KeyExchange, ModularPowers
from conchrec.ssh.key_exchange import REKEY_BYTES, REKEY_TIME
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.transport_base import SSHTransport
from conchrec.ssh.wire import Reader, string, uint32

__all__ = ["ClientTransport", "ConnectionEnd", "ConnectionGone", "HostKey", "HostKeys", "ServerTransport"]

USERAUTH = b"ssh-userauth"
#: A client that asks before each of its tries has not that many.
MAX_SERVICES_ASKED = 64


class HostKey(Protocol):
    """A host key, or a certificate with its key, as a server shows it."""

    def blob(self) -> bytes: ...

    def sign(self, data: bytes, signatureType: bytes) -> bytes: ...


class HostKeys(Protocol):
    """All that a server can show, in order of preference."""

    @property
    def algorithms(self) -> tuple[bytes, ...]: ...

    def get(self, algorithm: bytes) -> HostKey: ...


class ServerTransport(SSHTransport, SSHServerTransport):
    """The server's side: over TCP, or over any ITransport.

    ``version`` is our whole version line without CR and LF; ``userauth`` makes the one service that is
    to be had; who is not through the key exchange within ``handshake_time`` is disconnected.
    """

    def __init__(
        self,
        *,
        version: bytes,
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
        """``early_packet``: bytes of a packet of somebody who has not logged in. ``powers`` computes what
        finite-field Diffie-Hellman needs. ``share``: who pays for the handling of messages; without one all
        that has come is handled at once."""
        self._set_up(
            version=version,
            algorithms=algorithms,
            powers=powers,
            clock=clock,
            rekey_bytes=rekey_bytes,
            rekey_time=rekey_time,
            share=share,
        )
        self._incoming.most = early_packet
        self._host_keys = host_keys
        self._userauth: Callable[[], SSHService] | None = userauth
        self._login: SSHService | None = None
        self._services_asked = 0
        self._handshake_time = handshake_time

    def setService(self, service: SSHService) -> None:
        super().setService(service)
        if service is not self._login:
            self._incoming.most = None

    def connectionMade(self) -> None:
        self._watch_handshake()
        super().connectionMade()

    def _watch_handshake(self) -> None:
        self._later("handshake", self._handshake_time.total_seconds(), self._too_slow)

    def _too_slow(self) -> None:
        what = "no key exchange in time" if self._first_exchange else "no login in time"
        self._fail(RemoteViolation(what), DisconnectReason.BY_APPLICATION)

    def _is_secure(self) -> None:
        # From here to the login the authentication has its own limit, which begins with its service.
        self._watch_handshake()
        super()._is_secure()

    def _is_renewing(self) -> None:
        # The first message under the new keys (RFC 8308 section 2.4).
        if self._first_exchange and self._peer_takes_ext_info:
            self._send(a.EXT_INFO, ext_info())

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        return self._host_keys.algorithms

    def _exchanged(self, run: KeyExchange, r: Reader) -> None:
        client = r.string()
        r.end()
        self._compute(run.accept(client), lambda values: self._reply(client, *values))

    def _reply(self, client: bytes, server: bytes, secret: bytes) -> None:
        """The last message of the exchange: our host key, our value, and the signature over all of it."""
        assert self._agreed is not None
        algorithm = self._agreed.host_key
        key = self._host_keys.get(algorithm)
        blob = key.blob()
        exchange_hash = self._exchange_hash(blob, client, server, secret)
        signature = key.sign(exchange_hash, signatureType=algorithm)
        if self._first_exchange:
            self.host_key_blob, self.host_key_signature = blob, signature
        self._send(a.KEX_REPLY, string(blob) + string(server) + string(signature))
        self._take_keys(secret, exchange_hash)

    def _service_requested(self, payload: bytes) -> None:
        """``ssh-userauth``. Some clients (paramiko) ask for it before each try, and sshd answers: so do we,
        and nothing begins anew. Whatever comes after the login is none of the client's business."""
        r = Reader(payload)
        name = r.string()
        r.end()
        if self._first_exchange:
            raise RemoteViolation("a service request before the key exchange")
        self._services_asked += 1
        again = self._login is not None and self.service is self._login
        if name == USERAUTH and again and self._services_asked <= MAX_SERVICES_ASKED:
            self.sendPacket(a.SERVICE_ACCEPT, string(name))
            return
        if name != USERAUTH or self._userauth is None:
            shown = printable(name[:64])
            self._fail(
                RemoteViolation(f"the service {shown} is not to be had", code=ReasonCode.SERVICE_UNAVAILABLE),
                DisconnectReason.SERVICE_NOT_AVAILABLE,
            )
            return
        userauth, self._userauth = self._userauth, None
        self._not_later("handshake")
        self.sendPacket(a.SERVICE_ACCEPT, string(name))
        self._login = userauth()
        self.setService(self._login)


class ClientTransport(SSHTransport, SSHClientTransport):
    """The client's side.

    ``verify_host_key`` judges the blob that the server shows, at once, and raises what is then
    ``ConnectionEnd.error``. With ``version=None`` nothing is sent before ``start``, while the server's
    version is read and told to ``on_version``.
    """

    def __init__(
        self,
        *,
        algorithms: Algorithms,
        powers: ModularPowers,
        verify_host_key: Callable[[bytes], None],
        host_key_algorithms: tuple[bytes, ...],
        version: bytes | None,
        clock: Clock,
        rekey_bytes: int = REKEY_BYTES,
        rekey_time: timedelta = REKEY_TIME,
        share: Share | None = None,
    ) -> None:
        self._set_up(
            version=version,
            algorithms=algorithms,
            powers=powers,
            clock=clock,
            rekey_bytes=rekey_bytes,
            rekey_time=rekey_time,
            share=share,
        )
        self._verify_host_key = verify_host_key
        self._offered_host_keys = host_key_algorithms
        self._asked_for: SSHService | None = None

    def start(self, version: bytes) -> None:
        """Introduce ourselves with this version line, and go on."""
        if self._our_version is not None or self._over:
            return
        self._our_version = version
        if self._made:
            self._greet()
            self.dataReceived(b"")

    def request_service(self, service: SSHService) -> None:
        """Ask for ``service.name``; it starts when the server accepts it."""
        self._asked_for = service
        self.sendPacket(a.SERVICE_REQUEST, string(service.name))

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        return self._offered_host_keys

    def _exchanged(self, run: KeyExchange, r: Reader) -> None:
        blob, server, signature = r.string(), r.string(), r.string()
        r.end()
        if blob != self.host_key_blob:
            # A server may have renewed its certificate meanwhile; the key in it stays the same.
            if not self._first_exchange and _plain_key(blob) != _plain_key(self.host_key_blob):
                raise RemoteViolation("the host key changed in the middle of a connection")
            try:
                self._verify_host_key(blob)
            except ConchrecError as error:
                self._fail(error, DisconnectReason.HOST_KEY_NOT_VERIFIABLE)
                return
        self._compute(run.complete(server), lambda secret: self._check_reply(blob, server, signature, secret))

    def _check_reply(self, blob: bytes, server: bytes, signature: bytes, secret: bytes) -> None:
        """Has the server signed this very exchange? Then its keys are used."""
        exchange_hash = self._exchange_hash(blob, self._offered, server, secret)
        assert self._agreed is not None
        good = verify_signature(
            self._agreed.host_key, blob, exchange_hash, signature, sha1=self._algorithms.sha1
        )
        if not good:
            self._fail(
                RemoteViolation(
                    "host key signature verification failed", code=ReasonCode.HOST_KEY_SIGNATURE_INVALID
                ),
                DisconnectReason.KEY_EXCHANGE_FAILED,
            )
            return
        if self._first_exchange:
            self.host_key_blob, self.host_key_signature = blob, signature
        self._take_keys(secret, exchange_hash)

    def _service_accepted(self, payload: bytes) -> None:
        service, self._asked_for = self._asked_for, None
        if service is None or (payload and Reader(payload).string() != service.name):
            raise RemoteViolation("a service that was not asked for")
        self.setService(service)


def ext_info() -> bytes:
    """What our servers tell a client of themselves (RFC 8308; PROTOCOL 1.9 and 1.10)."""
    told = {
        b"server-sig-algs": b",".join(USER_SIGNATURES),
        b"publickey-hostbound@openssh.com": b"0",
        b"ping@openssh.com": b"0",
    }
    return uint32(len(told)) + b"".join(string(name) + string(value) for name, value in told.items())


def _plain_key(blob: bytes) -> bytes:
    return decode(blob).public_key if key_type_of(blob).endswith(CERTIFICATE) else blob
