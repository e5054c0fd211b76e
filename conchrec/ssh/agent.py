"""Client for a user's ssh-agent. ``agent_messages`` has the layouts of the messages.

``AgentClient`` is used for logins at targets. It can only list identities, request signatures and send
extensions; it cannot add, remove or lock keys, and a target has no access to other operations.
``AgentKeyManager`` can also add and remove keys, for commands that the user runs. This module handles
bytes; the owner decides which channel carries them and for how long.
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
    """The agent refused a request, sent a malformed reply, or its connection has ended."""

    default_code = ReasonCode.AGENT_FAILED


class _PendingRequest:
    """A request that waits for its reply.

    Replies have no number and are assigned by their order. A cancelled request therefore stays in the
    queue, and its reply is discarded.
    """

    __slots__ = ("deferred",)

    def __init__(self) -> None:
        self.deferred: Deferred[bytes] | None = Deferred(self._cancel)

    def _cancel(self, _: Deferred[bytes]) -> None:
        self.deferred = None


class AgentClient:
    """The client side of one agent connection.

    ``write`` sends bytes to the agent. ``lose`` closes the connection; it is called once, by ``close`` or
    when the agent violates the protocol. The owner calls ``data_received`` and ``connection_lost``. Several
    requests may be open at a time; replies arrive in the order of the requests. When the connection has
    ended, all open and later requests fail with ``AgentError``.
    """

    def __init__(self, write: Callable[[bytes], None], lose: Callable[[], None]) -> None:
        self._write = write
        self._lose = lose
        self._frames = AgentFrames()
        self._pending: deque[_PendingRequest] = deque()
        self._end_reason: str | None = None

    # --- what the owner calls

    def data_received(self, data: bytes) -> None:
        """Handle bytes from the agent, in pieces of any size.

        Never raises: a malformed message closes the connection.
        """
        if self._end_reason is not None:
            return
        self._frames.feed(data)
        try:
            while self._end_reason is None and (reply := self._frames.next_message()) is not None:
                self._handle_reply(reply)
        except InvalidLength as error:
            self._end(f"malformed message from the agent: its length is {error.length} bytes")

    def connection_lost(self) -> None:
        """Handle the end of the connection. May be called more than once."""
        self._fail_pending("the agent closed the connection")

    def close(self) -> None:
        """Close the connection. Open requests fail."""
        self._end("the agent connection was closed")

    @property
    def closed(self) -> bool:
        """Whether the connection has ended or was closed."""
        return self._end_reason is not None

    # --- requests of a login

    def identities(self) -> Deferred[tuple[AgentIdentity, ...]]:
        """Request the keys and certificates in the agent, in its own order.

        A locked agent returns an empty list.
        """
        return self._request(encode_message(REQUEST_IDENTITIES)).addCallback(
            self._parse_reply, parse_identities, "refused to list its keys"
        )

    def sign(self, blob: bytes, data: bytes, flags: int) -> Deferred[bytes]:
        """Request a signature over ``data`` by the key or certificate ``blob``.

        The result is the unparsed signature. ``flags`` select the hash for RSA keys (``FLAG_RSA_SHA2_256``,
        ``FLAG_RSA_SHA2_512``). There is no timeout, because the agent may ask the user for confirmation;
        the caller may cancel the Deferred.
        """
        request = SignRequest(blob=blob, data=data, flags=flags)
        return self._request(request.encode()).addCallback(
            self._parse_reply, parse_signature, "refused to sign"
        )

    def extension(self, name: bytes, contents: bytes) -> Deferred[bytes | None]:
        """Send an extension request. The result is the contents of the reply, or ``None`` for a refusal.

        The contents follow SSH_AGENT_SUCCESS, or the name in SSH_AGENT_EXTENSION_RESPONSE. An agent also
        refuses an extension that it does not know.
        """
        request = ExtensionRequest(name=name, contents=contents)
        return self._request(request.encode()).addCallback(
            self._parse_reply, lambda reply: parse_extension_reply(reply, name)
        )

    def bind_session(self, binding: SessionBinding, *, forwarding: bool) -> Deferred[bool]:
        """Bind the agent connection to an SSH connection (``session-bind@openssh.com``, PROTOCOL.agent 1).

        The result is False if the agent does not support it; then only keys without destination constraints
        can be used.
        """
        contents = binding.contents(forwarding=forwarding)
        return self.extension(SESSION_BIND, contents).addCallback(lambda answer: answer is not None)

    def forward(self, request: bytes) -> Deferred[bytes]:
        """Forward a whole request from another client, unparsed. The result is the unparsed reply.

        The caller decides which requests it forwards.
        """
        return self._request(request)

    # --- replies

    def _handle_reply(self, reply: bytes) -> None:
        """Assign a whole message from the agent to the oldest request."""
        if not self._pending:
            self._end("the agent sent a reply without a request")
            return
        deferred = self._pending.popleft().deferred
        if deferred is not None:
            deferred.callback(reply)

    def _parse_reply(self, reply: bytes, parse: Callable[[bytes], _Result], refusal: str = "") -> _Result:
        """Return what ``parse`` returns for a reply. Raises AgentError.

        ``refusal`` completes the text of the error if the agent refused the request.
        """
        try:
            return parse(reply)
        except RemoteViolation as violation:
            if isinstance(violation, UnexpectedMessage) and violation.is_refusal:
                raise AgentError(f"the agent {refusal}", code=ReasonCode.AGENT_REFUSED) from violation
            raise self._malformed_reply(violation) from violation

    def _malformed_reply(self, violation: RemoteViolation) -> AgentError:
        """Close the connection and return the error.

        After a malformed reply, later replies cannot be assigned reliably.
        """
        text = f"malformed reply from the agent: {violation.public}"
        self._end(text)
        return AgentError(text, code=ReasonCode.AGENT_MALFORMED)

    # --- life

    def _request(self, request: bytes) -> Deferred[bytes]:
        """Send a request. The Deferred fires with the whole reply."""
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
        """Close the connection for a reason on our side."""
        if self._end_reason is None:
            self._fail_pending(reason)
            self._lose()

    def _fail_pending(self, reason: str) -> None:
        """Fail all open requests; later requests fail for the same reason."""
        if self._end_reason is not None:
            return
        self._end_reason = reason
        self._frames.clear()
        pending, self._pending = self._pending, deque()
        for request in pending:
            if request.deferred is not None:
                request.deferred.errback(AgentError(reason, code=ReasonCode.AGENT_GONE))


class AgentKeyManager(AgentClient):
    """An agent client that can also add and remove keys."""

    def add(
        self, key: ed25519.Ed25519PrivateKey, certificate: bytes, *, comment: str, lifetime: timedelta
    ) -> Deferred[bool]:
        """Add a key with its certificate (a wire blob); the agent deletes both after ``lifetime``.

        The result is False if the agent refuses. True does not prove that the agent has the certificate: an
        agent without support for certificates may keep the key alone.
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
        """Remove a key or certificate. The result is False if the agent refuses or does not have it."""
        return self._request(remove_identity(blob)).addCallback(self._parse_reply, parse_done)


class AgentSigner:
    """A Signer for one key or certificate in an agent. ``label`` contains the comment of the key."""

    def __init__(self, client: AgentClient, identity: AgentIdentity) -> None:
        self._client = client
        self.blob = identity.blob
        kind = "certificate" if identity.is_certificate else "key"
        self.label = f"agent {kind} {identity.comment or one_line(identity.algorithm, MAX_COMMENT)}"
        self._key_type = identity.algorithm

    def algorithm(self, accepted: Accepted) -> bytes | None:
        """Return the public key algorithm to offer, or ``None`` if the server accepts none."""
        return accepted_algorithm(self._key_type, accepted)

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        """Request a signature with ``algorithm``.

        Fails with ``AgentError`` if the agent used another algorithm: some agents ignore the flags and sign
        with SHA-1, which must not reach a server.
        """
        wanted = plain_type(algorithm)
        flags = {b"rsa-sha2-256": FLAG_RSA_SHA2_256, b"rsa-sha2-512": FLAG_RSA_SHA2_512}.get(wanted, 0)
        return self._client.sign(self.blob, data, flags).addCallback(self._check_algorithm, wanted)

    def _check_algorithm(self, signature: bytes, wanted: bytes) -> bytes:
        """Return ``signature`` if its algorithm is ``wanted``."""
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
