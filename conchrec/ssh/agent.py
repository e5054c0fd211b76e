"""The user's ssh-agent, at the far end of a channel (draft-ietf-sshm-ssh-agent, OpenSSH's PROTOCOL.agent).

``AgentClient`` is what logs in at targets, and only what a login needs is ever sent by it: the list of
identities, a signature, an extension. It can't add, remove or lock keys, and nothing passes through: a peer
behind us gets at no other operation. ``AgentKeeper`` can add and remove, and is for the user's own wish.
The file knows bytes in and bytes out; which channel carries them, and for how long, is its owner's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.internet.defer import Deferred

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import plain_type
from conchrec.ssh.signers import Accepted, accepted_algorithm
from conchrec.ssh.wire import Reader, string, uint32
from conchrec.text import one_line

FAILURE = 5
SUCCESS = 6
REQUEST_IDENTITIES = 11
IDENTITIES_ANSWER = 12
SIGN_REQUEST = 13
SIGN_RESPONSE = 14
REMOVE_IDENTITY = 18
ADD_ID_CONSTRAINED = 25
EXTENSION = 27
EXTENSION_FAILURE = 28
EXTENSION_RESPONSE = 29
#: What agents of ssh.com answered, and some still do.
OLD_FAILURE = 102

FLAG_RSA_SHA2_256 = 2
FLAG_RSA_SHA2_512 = 4

CONSTRAIN_LIFETIME = 1

#: OpenSSH's own limit (``AGENT_MAX_LEN``) on one message, either way.
MAX_MESSAGE = 256 * 1024
#: More keys than anybody's agent holds.
MAX_IDENTITIES = 2048
MAX_COMMENT = 256


class AgentError(ConchrecError):
    """The agent said no, spoke nonsense, or is gone."""

    default_code = ReasonCode.AGENT_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """One key or certificate that the agent can sign with; ``comment`` is safe to print."""

    blob: bytes
    comment: str

    @property
    def algorithm(self) -> bytes:
        """The key type that the blob begins with, empty where it has none."""
        length = int.from_bytes(self.blob[:4], "big")
        return self.blob[4 : 4 + length] if len(self.blob) >= 4 + length else b""

    @property
    def is_certificate(self) -> bool:
        return plain_type(self.algorithm) != self.algorithm


class _Pending:
    """A request whose reply is to come. Its Deferred may be cancelled; the reply is then swallowed,
    for replies carry no number and only their order tells them apart."""

    __slots__ = ("deferred",)

    def __init__(self) -> None:
        self.deferred: Deferred[bytes] | None = Deferred(self._cancelled)

    def _cancelled(self, _: Deferred[bytes]) -> None:
        self.deferred = None


class AgentClient:
    """The client's side of one agent connection.

    ``write`` takes bytes for the agent; ``lose`` closes the connection and is called once, by
    ``close`` or when the agent breaks the protocol. The owner calls ``data_received`` and
    ``connection_lost``. Requests may overlap; replies come in their order. When the connection is
    gone every Deferred that waits fails with ``AgentError``, and so does every later request.
    """

    def __init__(self, write: Callable[[bytes], None], lose: Callable[[], None]) -> None:
        self._write = write
        self._lose = lose
        self._buffer = bytearray()
        self._pending: deque[_Pending] = deque()
        self._lost: str | None = None

    # --- what the owner calls

    def data_received(self, data: bytes) -> None:
        """Bytes from the agent, cut anywhere. Never raises: what is malformed closes the connection."""
        if self._lost is not None:
            return
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            length = int.from_bytes(buffer[:4], "big")
            if not 1 <= length <= MAX_MESSAGE:
                self._end(f"the agent announced a message of {length} bytes")
                return
            if len(buffer) < 4 + length:
                return
            message = bytes(buffer[4 : 4 + length])
            del buffer[: 4 + length]
            if not self._pending:
                self._end("the agent answered what was not asked")
                return
            deferred = self._pending.popleft().deferred
            if deferred is not None:
                deferred.callback(message)
            if self._lost is not None:
                return

    def connection_lost(self) -> None:
        """The connection is gone; nothing more will come. May be called more than once."""
        self._gone("the agent closed the connection")

    def close(self) -> None:
        """Nobody needs the agent any more; what still waits fails."""
        self._end("the agent connection was closed")

    @property
    def closed(self) -> bool:
        return self._lost is not None

    # --- what a login asks

    def identities(self) -> Deferred[tuple[AgentIdentity, ...]]:
        """What the agent holds, in its own order; a locked agent says that it holds nothing.

        ``uint32 count``, then for each ``string blob, string comment``.
        """
        return self._request(bytes((REQUEST_IDENTITIES,))).addCallback(self._identities)

    def sign(self, blob: bytes, data: bytes, flags: int) -> Deferred[bytes]:
        """The signature blob over ``data`` by the key (or certificate) ``blob``, unparsed.

        ``flags`` say which hash an RSA key is to use. The agent may ask its human first, so there is
        no time-out here: who waits may cancel.
        """
        request = bytes((SIGN_REQUEST,)) + string(blob) + string(data) + uint32(flags)
        return self._request(request).addCallback(self._signature)

    def extension(self, name: bytes, contents: bytes) -> Deferred[bytes | None]:
        """Ask for an extension; ``None`` where the agent does not know it, or refuses it.

        Else what its answer carries: after SSH_AGENT_SUCCESS, or after the name in
        SSH_AGENT_EXTENSION_RESPONSE.
        """
        request = bytes((EXTENSION,)) + string(name) + contents
        return self._request(request).addCallback(self._extended, name)

    def bind_session(
        self, *, host_key: bytes, session_id: bytes, signature: bytes, forwarding: bool
    ) -> Deferred[bool]:
        """``session-bind@openssh.com``: tell the agent which connection its signatures are for.

        ``host_key``, ``session_id`` and ``signature`` are of that connection's first key exchange.
        False where the agent knows no binding; destination-constrained keys are then unusable, and
        all others work.
        """
        contents = string(host_key) + string(session_id) + string(signature) + bytes((forwarding,))
        return self.extension(b"session-bind@openssh.com", contents).addCallback(
            lambda answer: answer is not None
        )

    def forward(self, message: bytes) -> Deferred[bytes]:
        """Ask what somebody else asks: a whole message, unread, and the answer to it as it came.

        Which messages may pass is the caller's to decide.
        """
        return self._request(message)

    # --- replies

    def _identities(self, message: bytes) -> tuple[AgentIdentity, ...]:
        if message[0] != IDENTITIES_ANSWER:
            raise self._unexpected(message[0], "would not list its keys")
        try:
            r = Reader(message[1:])
            count = r.uint32()
            if count > MAX_IDENTITIES:
                raise RemoteViolation(f"the agent claims {count} identities")
            found = tuple(
                AgentIdentity(blob=r.string(), comment=one_line(r.string(), MAX_COMMENT))
                for _ in range(count)
            )
            r.end()
        except RemoteViolation as violation:
            raise self._nonsense(violation) from violation
        return found

    def _signature(self, message: bytes) -> bytes:
        if message[0] != SIGN_RESPONSE:
            raise self._unexpected(message[0], "would not sign")
        try:
            r = Reader(message[1:])
            signature = r.string()
            r.end()
        except RemoteViolation as violation:
            raise self._nonsense(violation) from violation
        return signature

    def _extended(self, message: bytes, name: bytes) -> bytes | None:
        if message[0] == SUCCESS:
            return message[1:]
        if message[0] == EXTENSION_RESPONSE:
            try:
                r = Reader(message[1:])
                if r.string() != name:
                    raise RemoteViolation("the agent answered another extension")
                return r.rest()
            except RemoteViolation as violation:
                raise self._nonsense(violation) from violation
        if message[0] in (FAILURE, EXTENSION_FAILURE, OLD_FAILURE):
            return None
        raise self._unexpected(message[0], "")

    def _unexpected(self, number: int, what: str) -> AgentError:
        if number in (FAILURE, EXTENSION_FAILURE, OLD_FAILURE):
            return AgentError(f"the agent {what}", code=ReasonCode.AGENT_REFUSED)
        return self._nonsense(RemoteViolation(f"the agent answered with message {number}"))

    def _nonsense(self, violation: RemoteViolation) -> AgentError:
        """After a malformed reply no later one can be trusted to be in its place."""
        self._end(violation.public)
        return AgentError(f"the agent speaks nonsense: {violation.public}", code=ReasonCode.AGENT_MALFORMED)

    # --- life

    def _request(self, message: bytes) -> Deferred[bytes]:
        pending = _Pending()
        deferred = pending.deferred
        assert deferred is not None
        if self._lost is not None:
            deferred.errback(AgentError(self._lost, code=ReasonCode.AGENT_GONE))
        elif len(message) > MAX_MESSAGE:
            deferred.errback(
                AgentError(
                    f"{len(message)} bytes are more than an agent takes", code=ReasonCode.AGENT_REFUSED
                )
            )
        else:
            self._pending.append(pending)
            self._write(uint32(len(message)) + message)
        return deferred

    def _end(self, why: str) -> None:
        if self._lost is None:
            self._gone(why)
            self._lose()

    def _gone(self, why: str) -> None:
        if self._lost is not None:
            return
        self._lost = why
        self._buffer.clear()
        pending, self._pending = self._pending, deque()
        for request in pending:
            if request.deferred is not None:
                request.deferred.errback(AgentError(why, code=ReasonCode.AGENT_GONE))


class AgentKeeper(AgentClient):
    """An agent that a key can be put into, and taken out of."""

    def add(
        self, key: ed25519.Ed25519PrivateKey, certificate: bytes, *, comment: str, lifetime: timedelta
    ) -> Deferred[bool]:
        """Put in a key with its certificate (a wire blob), which the agent forgets after ``lifetime``.

        False where it refuses. True is no promise: agents that know no certificates may keep the key alone.
        ``string type, string certificate, string public, string private || public, string comment``, and
        the constraint ``byte 1, uint32 seconds``.
        """
        public, private = key.public_key().public_bytes_raw(), key.private_bytes_raw()
        seconds = max(1, int(lifetime.total_seconds()))
        request = (
            bytes((ADD_ID_CONSTRAINED,))
            + string(b"ssh-ed25519-cert-v01@openssh.com")
            + string(certificate)
            + string(public)
            + string(private + public)
            + string(comment.encode())
            + bytes((CONSTRAIN_LIFETIME,))
            + uint32(seconds)
        )
        return self._request(request).addCallback(self._done)

    def remove(self, blob: bytes) -> Deferred[bool]:
        """Take out a key or a certificate; False where the agent refuses, or does not have it."""
        return self._request(bytes((REMOVE_IDENTITY,)) + string(blob)).addCallback(self._done)

    def _done(self, message: bytes) -> bool:
        if message == bytes((SUCCESS,)):
            return True
        if message[0] in (FAILURE, EXTENSION_FAILURE, OLD_FAILURE):
            return False
        raise self._unexpected(message[0], "")


class AgentSigner:
    """A key or certificate in an agent, as something that can log in.

    ``label`` is what people read: the comment, and whether it is a certificate.
    """

    def __init__(self, client: AgentClient, identity: AgentIdentity) -> None:
        self._client = client
        self.blob = identity.blob
        kind = "certificate" if identity.is_certificate else "key"
        self.label = f"agent {kind} {identity.comment or one_line(identity.algorithm, MAX_COMMENT)}"
        self._key_type = identity.algorithm

    def algorithm(self, accepted: Accepted) -> bytes | None:
        """The algorithm to offer it with, ``None`` where the server takes none of those that it can do."""
        return accepted_algorithm(self._key_type, accepted)

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        """The signature blob; fails with ``AgentError`` where the agent signs otherwise than asked.

        Agents that ignore the flags sign with SHA-1, which no server should take and we never pass on.
        """
        wanted = plain_type(algorithm)
        flags = {b"rsa-sha2-256": FLAG_RSA_SHA2_256, b"rsa-sha2-512": FLAG_RSA_SHA2_512}.get(wanted, 0)
        return self._client.sign(self.blob, data, flags).addCallback(self._checked, wanted)

    def _checked(self, signature: bytes, wanted: bytes) -> bytes:
        try:
            made = Reader(signature).string()
        except RemoteViolation as violation:
            raise AgentError("the agent made no signature", code=ReasonCode.AGENT_MALFORMED) from violation
        if made != wanted:
            raise AgentError(
                f"the agent signed with {one_line(made, 64)}, asked for {one_line(wanted, 64)}",
                code=ReasonCode.AGENT_MALFORMED,
            )
        return signature
