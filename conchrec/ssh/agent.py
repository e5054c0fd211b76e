"""The user's ssh-agent, at the far end of a channel; ``agent_messages`` has the layouts.

``AgentClient`` is what logs in at targets, and only what a login needs is ever sent by it: the list of
identities, a signature, an extension. It can't add, remove or lock keys, and nothing passes through: a peer
behind us gets at no other operation. ``AgentKeyManager`` can add and remove, and is for the user's own wish.
The file knows bytes in and bytes out; which channel carries them, and for how long, is its owner's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.internet.defer import Deferred

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.agent_messages import (
    FLAG_RSA_SHA2_256,
    FLAG_RSA_SHA2_512,
    MAX_COMMENT,
    MAX_MESSAGE,
    REQUEST_IDENTITIES,
    SESSION_BIND,
    AddCertificate,
    AgentFrames,
    AgentIdentity,
    ExtensionRequest,
    InvalidLength,
    SessionBinding,
    SignRequest,
    UnexpectedMessage,
    encode_message,
    frame,
    parse_done,
    parse_extension_reply,
    parse_identities,
    parse_signature,
    remove_identity,
)
from conchrec.ssh.certificate import plain_type
from conchrec.ssh.signers import Accepted, accepted_algorithm
from conchrec.ssh.wire import Reader
from conchrec.text import one_line

_Result = TypeVar("_Result")


class AgentError(ConchrecError):
    """The agent said no, spoke nonsense, or is gone."""

    default_code = ReasonCode.AGENT_FAILED


class _PendingRequest:
    """A request whose reply is to come. Its Deferred may be cancelled; the reply is then swallowed,
    for replies carry no number and only their order tells them apart."""

    __slots__ = ("deferred",)

    def __init__(self) -> None:
        self.deferred: Deferred[bytes] | None = Deferred(self._cancel)

    def _cancel(self, _: Deferred[bytes]) -> None:
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
        self._frames = AgentFrames()
        self._pending: deque[_PendingRequest] = deque()
        self._end_reason: str | None = None

    # --- what the owner calls

    def data_received(self, data: bytes) -> None:
        """Bytes from the agent, cut anywhere. Never raises: what is malformed closes the connection."""
        if self._end_reason is not None:
            return
        self._frames.feed(data)
        try:
            while self._end_reason is None and (reply := self._frames.next_message()) is not None:
                self._handle_reply(reply)
        except InvalidLength as error:
            self._end(f"malformed message from the agent: its length is {error.length} bytes")

    def connection_lost(self) -> None:
        """The connection is gone; nothing more will come. May be called more than once."""
        self._fail_pending("the agent closed the connection")

    def close(self) -> None:
        """Nobody needs the agent any more; what still waits fails."""
        self._end("the agent connection was closed")

    @property
    def closed(self) -> bool:
        return self._end_reason is not None

    # --- what a login asks

    def identities(self) -> Deferred[tuple[AgentIdentity, ...]]:
        """What the agent holds, in its own order; a locked agent says that it holds nothing."""
        return self._request(encode_message(REQUEST_IDENTITIES)).addCallback(
            self._parse_reply, parse_identities, "refused to list its keys"
        )

    def sign(self, blob: bytes, data: bytes, flags: int) -> Deferred[bytes]:
        """The signature blob over ``data`` by the key (or certificate) ``blob``, unparsed.

        ``flags`` say which hash an RSA key is to use. The agent may ask its human first, so there is
        no time-out here: who waits may cancel.
        """
        request = SignRequest(blob=blob, data=data, flags=flags)
        return self._request(request.encode()).addCallback(
            self._parse_reply, parse_signature, "refused to sign"
        )

    def extension(self, name: bytes, contents: bytes) -> Deferred[bytes | None]:
        """Ask for an extension; ``None`` where the agent does not know it, or refuses it.

        Else what its answer carries: after SSH_AGENT_SUCCESS, or after the name in
        SSH_AGENT_EXTENSION_RESPONSE.
        """
        request = ExtensionRequest(name=name, contents=contents)
        return self._request(request.encode()).addCallback(
            self._parse_reply, lambda reply: parse_extension_reply(reply, name)
        )

    def bind_session(self, binding: SessionBinding, *, forwarding: bool) -> Deferred[bool]:
        """``session-bind@openssh.com``: tell the agent which connection its signatures are for.

        False where the agent knows no binding; destination-constrained keys are then unusable, and
        all others work.
        """
        contents = binding.contents(forwarding=forwarding)
        return self.extension(SESSION_BIND, contents).addCallback(lambda answer: answer is not None)

    def forward(self, request: bytes) -> Deferred[bytes]:
        """Ask what somebody else asks: a whole message, unread, and the answer to it as it came.

        Which messages may pass is the caller's to decide.
        """
        return self._request(request)

    # --- replies

    def _handle_reply(self, reply: bytes) -> None:
        """One whole message from the agent: the reply to the oldest request."""
        if not self._pending:
            self._end("the agent sent a reply without a request")
            return
        deferred = self._pending.popleft().deferred
        if deferred is not None:
            deferred.callback(reply)

    def _parse_reply(self, reply: bytes, parse: Callable[[bytes], _Result], refusal: str = "") -> _Result:
        """What ``parse`` reads in a reply. Raises AgentError; ``refusal`` says what the agent refused."""
        try:
            return parse(reply)
        except RemoteViolation as violation:
            if isinstance(violation, UnexpectedMessage) and violation.is_refusal:
                raise AgentError(f"the agent {refusal}", code=ReasonCode.AGENT_REFUSED) from violation
            raise self._malformed_reply(violation) from violation

    def _malformed_reply(self, violation: RemoteViolation) -> AgentError:
        """After a malformed reply no later one can be trusted to be in its place."""
        self._end(violation.public)
        return AgentError(
            f"malformed reply from the agent: {violation.public}", code=ReasonCode.AGENT_MALFORMED
        )

    # --- life

    def _request(self, request: bytes) -> Deferred[bytes]:
        pending = _PendingRequest()
        deferred = pending.deferred
        assert deferred is not None
        if self._end_reason is not None:
            deferred.errback(AgentError(self._end_reason, code=ReasonCode.AGENT_GONE))
        elif len(request) > MAX_MESSAGE:
            deferred.errback(
                AgentError(
                    f"the request to the agent is too long: {len(request)} bytes, the limit is {MAX_MESSAGE}",
                    code=ReasonCode.AGENT_REFUSED,
                )
            )
        else:
            self._pending.append(pending)
            self._write(frame(request))
        return deferred

    def _end(self, reason: str) -> None:
        if self._end_reason is None:
            self._fail_pending(reason)
            self._lose()

    def _fail_pending(self, reason: str) -> None:
        if self._end_reason is not None:
            return
        self._end_reason = reason
        self._frames.clear()
        pending, self._pending = self._pending, deque()
        for request in pending:
            if request.deferred is not None:
                request.deferred.errback(AgentError(reason, code=ReasonCode.AGENT_GONE))


class AgentKeyManager(AgentClient):
    """An agent that a key can be put into, and taken out of."""

    def add(
        self, key: ed25519.Ed25519PrivateKey, certificate: bytes, *, comment: str, lifetime: timedelta
    ) -> Deferred[bool]:
        """Put in a key with its certificate (a wire blob), which the agent forgets after ``lifetime``.

        False where it refuses. True is no promise: agents that know no certificates may keep the key alone.
        """
        request = AddCertificate(
            certificate=certificate,
            public=key.public_key().public_bytes_raw(),
            private=key.private_bytes_raw(),
            comment=comment.encode(),
            lifetime=max(1, int(lifetime.total_seconds())),
        )
        return self._request(request.encode()).addCallback(self._parse_reply, parse_done)

    def remove(self, blob: bytes) -> Deferred[bool]:
        """Take out a key or a certificate; False where the agent refuses, or does not have it."""
        return self._request(remove_identity(blob)).addCallback(self._parse_reply, parse_done)


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
        return self._client.sign(self.blob, data, flags).addCallback(self._check_algorithm, wanted)

    def _check_algorithm(self, signature: bytes, wanted: bytes) -> bytes:
        try:
            used = Reader(signature).string()
        except RemoteViolation as violation:
            raise AgentError(
                "malformed signature from the agent", code=ReasonCode.AGENT_MALFORMED
            ) from violation
        if used != wanted:
            raise AgentError(
                f"the agent signed with {one_line(used, 64)}, but {one_line(wanted, 64)} was requested",
                code=ReasonCode.AGENT_MALFORMED,
            )
        return signature
