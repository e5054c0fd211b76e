"""Logging in without a transport: keys in memory, an authenticator that remembers, and a wire that does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.ssh import userauth as u
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.certificate import CertificateKind, CertificateSigner, Ed25519Authority, issue
from conchrec.ssh.signers import KeySigner, Signer
from conchrec.ssh.userauth_client import UserAuthClient
from conchrec.ssh.userauth_server import UserAuthServer
from conchrec.ssh.wire import Reader, string

SESSION = b"the hash of the first key exchange"
HOST_KEY = b"the host key of this connection"
KINDS = ("ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa")
CURVES: dict[str, ec.EllipticCurve] = {
    "ecdsa256": ec.SECP256R1(),
    "ecdsa384": ec.SECP384R1(),
    "ecdsa521": ec.SECP521R1(),
}


def key(kind: str = "ed25519", number: int = 0) -> Key:
    """A private key; the same one for the same arguments."""
    return _key(kind, number)


@cache
def _key(kind: str, number: int) -> Key:
    if kind == "ed25519":
        return Key(ed25519.Ed25519PrivateKey.generate())
    if kind == "rsa":
        return Key(rsa.generate_private_key(65537, 2048))
    return Key(ec.generate_private_key(CURVES[kind]))


def authority(number: int = 0) -> Ed25519Authority:
    """Return an authority; the same one for the same number."""
    return _authority(number)


@cache
def _authority(number: int) -> Ed25519Authority:
    return Ed25519Authority(ed25519.Ed25519PrivateKey.generate())


def user_certificate(
    private: Key,
    *,
    key_id: str = "joe",
    principals: tuple[str, ...] = ("joe",),
    by: CertificateSigner | None = None,
    kind: CertificateKind = CertificateKind.USER,
    valid_after: int = 0,
    valid_before: int = 2**64 - 1,
    critical_options: Mapping[str, bytes] | None = None,
) -> bytes:
    """The blob of a certificate for ``private``."""
    return issue(
        authority=by or authority(),
        public_key=private.public().blob(),
        kind=kind,
        serial=1,
        key_id=key_id,
        principals=principals,
        valid_after=valid_after,
        valid_before=valid_before,
        critical_options=critical_options,
    ).blob


def signer(kind: str = "ed25519", number: int = 0, *, certified: bool = False, label: str = "") -> KeySigner:
    """Return a signer with this key, with a certificate if it is ``certified``."""
    private = key(kind, number)
    certificate = user_certificate(private) if certified else None
    return KeySigner(private, label=label or f"key {kind} {number}", certificate=certificate)


class ConnectionService(SSHService):
    """The service behind the login; keeps what reaches it."""

    name = b"ssh-connection"

    def __init__(self) -> None:
        self.started = 0
        self.stopped = 0
        self.received: list[tuple[int, bytes]] = []

    def serviceStarted(self) -> None:
        """Begin (SSHService)."""
        self.started += 1

    def serviceStopped(self) -> None:
        """End (SSHService)."""
        self.stopped += 1

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle a message of this service (SSHService)."""
        self.received.append((messageNum, packet))


class Wire:
    """A transport's side towards authentication. ``events`` has all that happened, in order."""

    def __init__(self, session_id: bytes | None = SESSION) -> None:
        self._session_id = session_id
        self.service: SSHService | None = None
        self.events: list[tuple[object, ...]] = []
        self.outbox: deque[tuple[int, bytes]] = deque()
        self.disconnected: int | None = None
        self.unimplemented = 0

    @property
    def sessionID(self) -> bytes | None:
        """Return the session identifier of the first key exchange."""
        return self._session_id

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Keep a message that is sent."""
        assert self.disconnected is None, "nothing follows a DISCONNECT"
        self.events.append((messageType, payload))
        self.outbox.append((messageType, payload))

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Keep a DISCONNECT that is sent."""
        if self.disconnected is None:
            self.events.append(("disconnect", reason, desc))
            self.disconnected = reason
            self.stop()

    def sendUnimplemented(self) -> None:
        """Count an UNIMPLEMENTED that is sent."""
        self.unimplemented += 1

    def setService(self, service: SSHService) -> None:
        """Start a service in place of the current one."""
        self.stop()
        self.service = service
        service.transport = self  # type: ignore[assignment]
        self.events.append(("service", service.name))
        service.serviceStarted()

    def stop(self) -> None:
        """The connection is gone."""
        service, self.service = self.service, None
        if service is not None:
            service.serviceStopped()

    def deliver(self, number: int, payload: bytes) -> None:
        """Pass a message to the current service."""
        if self.service is not None:
            self.service.packetReceived(number, payload)

    def take(self) -> list[tuple[int, bytes]]:
        """What has been sent since the last call."""
        messages = list(self.outbox)
        self.outbox.clear()
        return messages


class Porter:
    """An Authenticator. ``keys`` are the blobs that each user may log in with; ``asked`` has every call."""

    def __init__(self, keys: Mapping[str, tuple[bytes, ...]] | None = None) -> None:
        self.keys = dict(keys or {})
        self.free: set[str] = set()
        self.can: tuple[bytes, ...] = (u.PUBLICKEY,)
        self.calls: list[tuple[str, ...]] = []
        self.held: Deferred[Identity] | None = None
        self.hold = False
        self.cancelled = 0
        self.conversation: Callable[[str, str, Ask], Deferred[Identity]] | None = None

    def methods(self, user: str) -> tuple[bytes, ...]:
        """Return the methods that are allowed."""
        return self.can

    def none(self, user: str) -> Deferred[Identity]:
        """Log in by ``none``."""
        self.calls.append(("none", user))
        return self._answer(user, user in self.free)

    def accepts_key(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        """Tell whether a key may be used."""
        self.calls.append(("offered", user))
        return blob in self.keys.get(user, ())

    def log_in_by_key(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        """Log in by a key whose signature is valid."""
        self.calls.append(("proved", user))
        return self._answer(user, blob in self.keys.get(user, ()))

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """Log in by ``conversation``."""
        self.calls.append(("keyboard-interactive", user))
        assert self.conversation is not None
        return self.conversation(user, submethods, ask)

    def _answer(self, user: str, well: bool) -> Deferred[Identity]:
        if self.hold:
            self.held = Deferred(self._cancelled)
            return self.held
        if well:
            return succeed(identity(user))
        return fail(AccessDenied("Permission denied", "the porter says no"))

    def _cancelled(self, _: Deferred[Identity]) -> None:
        self.cancelled += 1


def identity(user: str) -> Identity:
    """Return the identity of a user who has logged in by a key."""
    return Identity(user=user, method="publickey")


class Server:
    """A UserAuthServer on a Wire, with all that it told. ``refused`` is what the audit heard."""

    def __init__(
        self,
        porter: Porter,
        *,
        tries: int = 6,
        banner: str = "",
        connection: Callable[[Identity], SSHService] | None = None,
        session_id: bytes | None = SESSION,
    ) -> None:
        self.porter = porter
        self.clock = Clock()
        self.wire = Wire(session_id)
        self.connection_service = ConnectionService()
        self.identities: list[Identity] = []
        self.refused: list[tuple[str, str, str]] = []
        self.userauth = UserAuthServer(
            porter,
            connection=connection or self._connection,
            clock=self.clock,
            login_time=timedelta(minutes=2),
            tries=tries,
            banner=banner,
            host_key=lambda: HOST_KEY,
            on_refused=lambda *what: self.refused.append(what),
        )
        self.wire.setService(self.userauth)
        self.wire.events.clear()

    def _connection(self, who: Identity) -> SSHService:
        self.identities.append(who)
        return self.connection_service

    @property
    def logged_in(self) -> bool:
        """Tell whether a user has logged in."""
        return bool(self.identities)

    def ask(self, payload: bytes, number: int = u.REQUEST) -> list[tuple[int, bytes]]:
        """Send a message; what comes back at once."""
        self.wire.take()
        self.wire.deliver(number, payload)
        return self.wire.take()

    def numbers(self, payload: bytes, number: int = u.REQUEST) -> list[int]:
        """Send a message; return the numbers of the replies."""
        return [answer for answer, _ in self.ask(payload, number)]


def request(user: str, method: bytes, rest: bytes = b"", service: bytes = u.CONNECTION) -> bytes:
    """Return the payload of a USERAUTH_REQUEST."""
    return string(user.encode()) + string(service) + string(method) + rest


def none(user: str = "joe") -> bytes:
    """Return the payload of a request for ``none``."""
    return request(user, u.NONE)


def offer(user: str, by: Signer, *, algorithm: bytes | None = None, host_key: bytes | None = None) -> bytes:
    """A public key without a signature."""
    return u.publickey_request(
        user=user.encode(),
        algorithm=algorithm_of(by) if algorithm is None else algorithm,
        blob=by.blob,
        host_key=host_key,
        signed=False,
    )


def algorithm_of(by: Signer) -> bytes:
    """Return the first algorithm of a signer."""
    algorithm = by.algorithm(None)
    assert algorithm is not None
    return algorithm


def signed(
    user: str,
    by: Signer,
    *,
    algorithm: bytes | None = None,
    signs_as: bytes | None = None,
    session_id: bytes = SESSION,
    host_key: bytes | None = None,
) -> bytes:
    """A public key with a signature; ``signs_as`` where that is to be by another algorithm."""
    algorithm = algorithm_of(by) if algorithm is None else algorithm
    payload = u.publickey_request(
        user=user.encode(), algorithm=algorithm, blob=by.blob, host_key=host_key, signed=True
    )
    signature: list[bytes] = []
    by.sign(u.signed_data(session_id, payload), signs_as or algorithm).addCallback(signature.append)
    return payload + string(signature[0])


def failure_of(message: tuple[int, bytes]) -> tuple[tuple[bytes, ...], bool]:
    """Methods and partial success of a FAILURE."""
    number, payload = message
    assert number == u.FAILURE
    r = Reader(payload)
    methods, partial = r.names(), r.boolean()
    r.end()
    return methods, partial


class Pair:
    """A UserAuthClient and a UserAuthServer, joined message by message."""

    def __init__(
        self,
        porter: Porter,
        signers: list[Signer],
        *,
        user: str = "joe",
        extensions: Mapping[bytes, bytes] | None = None,
        prompter: Callable[[u.Challenge], Deferred[tuple[str, ...]]] | None = None,
        banner: str = "",
        tries: int = 6,
    ) -> None:
        self.server = Server(porter, banner=banner, tries=tries)
        self.wire = Wire()
        self.connection_service = ConnectionService()
        self.banners: list[bytes] = []
        self.signing: list[str] = []
        left = iter(signers)
        self.client = UserAuthClient(
            user.encode(),
            lambda methods: succeed(next(left, None)),
            self.connection_service,
            on_banner=self.banners.append,
            peer_extensions=lambda: extensions or {},
            host_key=lambda: HOST_KEY,
            on_signing=lambda signer: self.signing.append(signer.label),
            prompter=prompter,
            target="web1",
        )
        self.wire.setService(self.client)

    def pump(self) -> Pair:
        """Deliver until nobody has anything to say."""
        ends = ((self.wire, self.server.wire), (self.server.wire, self.wire))
        while any(here.outbox for here, _ in ends):
            for here, there in ends:
                for number, payload in here.take():
                    there.deliver(number, payload)
        return self
