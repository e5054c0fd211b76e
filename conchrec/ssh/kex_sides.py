"""The server's and the client's side of a key exchange (RFC 4253 section 8).

A side handles the two messages of the method, the host key, and the signature over the exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import USER_SIGNATURES
from conchrec.ssh.certificate import CERTIFICATE, decode, key_type_of
from conchrec.ssh.framing import InboundPackets, OutboundPackets
from conchrec.ssh.kex_methods import SNTRUP_METHODS
from conchrec.ssh.kexinit import EXT_INFO_CLIENT
from conchrec.ssh.key_exchange import KexRun, KexSettings, KexTransport, KeyExchange
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.wire import Reader, string, uint32


class HostKey(Protocol):
    """A host key of a server, or a certificate with its key."""

    def blob(self) -> bytes:
        """Return the wire blob of the key or certificate."""

    def sign(self, data: bytes, signatureType: bytes) -> bytes:
        """Return a signature over ``data``: ``string algorithm, string signature``."""


class HostKeys(Protocol):
    """The host keys of a server."""

    @property
    def algorithms(self) -> tuple[bytes, ...]:
        """The host key algorithms to offer, in order of preference."""

    def get(self, algorithm: bytes) -> HostKey:
        """Return the key for an offered algorithm."""


class ServerKeyExchange(KeyExchange):
    """The server's side: signs the exchange with one of ``host_keys``."""

    is_client = False

    def __init__(
        self,
        transport: KexTransport,
        settings: KexSettings,
        *,
        inbound: InboundPackets,
        outbound: OutboundPackets,
        host_keys: HostKeys,
    ) -> None:
        super().__init__(transport, settings, inbound=inbound, outbound=outbound)
        self.host_keys = host_keys

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        return self.host_keys.algorithms

    def _start_method(self, run: KexRun) -> None:
        """Do nothing: the client sends its value first."""

    def _handle_method(self, run: KexRun, r: Reader) -> None:
        """``string client's value``"""
        client = r.string()
        r.end()
        self._compute(run.method.accept(client), lambda values: self._reply(run, client, *values))

    def _reply(self, run: KexRun, client: bytes, server: bytes, secret: bytes) -> None:
        """Send ``string host key, string server's value, string signature``."""
        algorithm = run.agreed.host_key
        key = self.host_keys.get(algorithm)
        blob = key.blob()
        exchange_hash = self._exchange_hash(run, blob, client, server, secret)
        signature = key.sign(exchange_hash, signatureType=algorithm)
        self._transport.send_now(a.KEX_REPLY, string(blob) + string(server) + string(signature))
        self._use_secret(secret, exchange_hash, blob, signature)

    def _keys_sent(self, run: KexRun) -> None:
        # EXT_INFO is the first message under the new keys (RFC 8308 section 2.4).
        if not self.is_secure and EXT_INFO_CLIENT in run.theirs.kex:
            self._transport.send_now(a.EXT_INFO, ext_info())


class ClientKeyExchange(KeyExchange):
    """The client's side.

    ``verify_host_key`` gets the blob that the server presents, and raises a ConchrecError if it is not
    trusted. ``host_key_algorithms`` are the accepted algorithms.
    """

    is_client = True

    def __init__(
        self,
        transport: KexTransport,
        settings: KexSettings,
        *,
        inbound: InboundPackets,
        outbound: OutboundPackets,
        verify_host_key: Callable[[bytes], None],
        host_key_algorithms: tuple[bytes, ...],
    ) -> None:
        super().__init__(transport, _select_methods(settings), inbound=inbound, outbound=outbound)
        self._verify_host_key = verify_host_key
        self._offered_host_keys = host_key_algorithms
        self._sha1 = settings.algorithms.sha1

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        return self._offered_host_keys

    def _start_method(self, run: KexRun) -> None:
        self._compute(run.method.offer(), lambda offered: self._send_offer(run, offered))

    def _send_offer(self, run: KexRun, offered: bytes) -> None:
        run.offered = offered
        self._transport.send_now(a.KEX_FIRST, string(offered))

    def _handle_method(self, run: KexRun, r: Reader) -> None:
        """``string host key, string server's value, string signature``"""
        blob, server, signature = r.string(), r.string(), r.string()
        r.end()
        binding = self.binding
        if binding is None or blob != binding.host_key:
            # A server may have a new certificate now, but its key must be the same.
            if binding is not None and _plain_key(blob) != _plain_key(binding.host_key):
                raise RemoteViolation("the host key changed during the connection")
            try:
                self._verify_host_key(blob)
            except ConchrecError as error:
                self._transport.fail(error, DisconnectReason.HOST_KEY_NOT_VERIFIABLE)
                return
        self._compute(
            run.method.complete(server),
            lambda secret: self._check_reply(run, blob, server, signature, secret),
        )

    def _check_reply(self, run: KexRun, blob: bytes, server: bytes, signature: bytes, secret: bytes) -> None:
        """Verify the server's signature over this exchange, then use the keys."""
        exchange_hash = self._exchange_hash(run, blob, run.offered, server, secret)
        if not verify_signature(run.agreed.host_key, blob, exchange_hash, signature, sha1=self._sha1):
            self._transport.fail(
                RemoteViolation(
                    "host key signature verification failed", code=ReasonCode.HOST_KEY_SIGNATURE_INVALID
                ),
                DisconnectReason.KEY_EXCHANGE_FAILED,
            )
            return
        self._use_secret(secret, exchange_hash, blob, signature)


def _select_methods(settings: KexSettings) -> KexSettings:
    """Remove sntrup761 from the methods if the client would wait long for a key pair.

    Decided once for a connection: a later exchange offers what the first one offered, and waits.
    """
    if settings.key_pairs is not None and settings.key_pairs.are_available():
        return settings
    kex = tuple(name for name in settings.algorithms.kex if name not in SNTRUP_METHODS)
    return replace(settings, algorithms=replace(settings.algorithms, kex=kex))


def ext_info() -> bytes:
    """Return the payload of our servers' EXT_INFO (RFC 8308; PROTOCOL 1.9 and 1.10).

    ``uint32 count``, then for each extension ``string name, string value``.
    """
    extensions = {
        b"server-sig-algs": b",".join(USER_SIGNATURES),
        b"publickey-hostbound@openssh.com": b"0",
        b"ping@openssh.com": b"0",
    }
    return uint32(len(extensions)) + b"".join(
        string(name) + string(value) for name, value in extensions.items()
    )


def _plain_key(blob: bytes) -> bytes:
    """Return the plain key of a key or certificate blob."""
    return decode(blob).public_key if key_type_of(blob).endswith(CERTIFICATE) else blob
