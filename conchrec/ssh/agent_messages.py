"""Messages of the SSH agent protocol: numbers, framing, and the layout of each message that conchrec uses.

Requests go to the agent and replies come back, each as ``uint32 length, byte number, contents``. A reply
does not name its request; replies are assigned by their order. Section numbers refer to RFC 9987
(draft-ietf-sshm-ssh-agent); OpenSSH's extensions are in its PROTOCOL.agent.

Encoders return a message without its length, and ``frame`` adds the length. Parsers take one whole message.
They raise UnexpectedMessage for another message number, and RemoteViolation for contents that are too
short, too long, or invalid. ``conchrec.ssh.agent`` has the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import plain_type
from conchrec.ssh.wire import Reader, string, uint32
from conchrec.text import one_line

# Message numbers: section 8.1.
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
#: The failure message of the agents of ssh.com. Some agents still send it.
OLD_FAILURE = 102

#: The replies that refuse a request (section 5.1, and 5.8 for extensions).
REFUSALS = frozenset((FAILURE, EXTENSION_FAILURE, OLD_FAILURE))

# Signature flags: section 8.3. They select the hash of an RSA signature.
FLAG_RSA_SHA2_256 = 2
FLAG_RSA_SHA2_512 = 4

#: Key constraint: the agent deletes the key after this many seconds (section 5.2.7).
CONSTRAIN_LIFETIME = 1

#: Binds an agent connection to an SSH connection (PROTOCOL.agent, 1).
SESSION_BIND = b"session-bind@openssh.com"

#: The maximum length of a message in either direction, without its length field: OpenSSH's
#: ``AGENT_MAX_LEN``.
MAX_MESSAGE = 256 * 1024
#: The maximum number of keys in one list: more than any agent holds.
MAX_IDENTITIES = 2048
#: The maximum length of a key's comment, in characters; the rest is cut off.
MAX_COMMENT = 256


class InvalidLength(RemoteViolation):
    """The announced length of a message is 0 or more than MAX_MESSAGE; ``length`` is the announced length."""

    default_code = ReasonCode.MALFORMED_MESSAGE

    def __init__(self, length: int) -> None:
        super().__init__(f"the length of an agent message is {length} bytes; the limit is {MAX_MESSAGE}")
        self.length = length


class UnexpectedMessage(RemoteViolation):
    """The message has another number than the parser expects; ``number`` is None for an empty message."""

    def __init__(self, public: str, number: int | None) -> None:
        super().__init__(public)
        self.number = number

    @property
    def is_refusal(self) -> bool:
        """Whether the message says that the agent refuses the request."""
        return self.number in REFUSALS


# --- framing


def frame(message: bytes) -> bytes:
    """Return a message with its length, as it is sent: ``uint32 length, message`` (section 5)."""
    return string(message)


class AgentFrames:
    """Splits the bytes of one direction of an agent connection into messages (section 5).

    Feed bytes in pieces of any size, then call ``next_message`` until it returns None.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def clear(self) -> None:
        """Discard the bytes that were not returned yet."""
        self._buffer.clear()

    def next_length(self) -> int | None:
        """Return the length of the next message, or None until its four bytes have arrived.

        Raises InvalidLength.
        """
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if not 1 <= length <= MAX_MESSAGE:
            raise InvalidLength(length)
        return length

    def next_message(self) -> bytes | None:
        """Return the next message without its length (at least one byte), or None until it is complete.

        Raises InvalidLength, even before the message itself has arrived.
        """
        length = self.next_length()
        if length is None or len(self._buffer) < 4 + length:
            return None
        message = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return message


def read_message(read: Callable[[int], bytes]) -> bytes:
    """Read one message from a blocking stream with ``read(count)``.

    At the end of the stream the result is incomplete or empty, which every parser rejects. Raises
    InvalidLength for a message longer than MAX_MESSAGE.
    """
    length = int.from_bytes(read(4), "big")
    if length > MAX_MESSAGE:
        raise InvalidLength(length)
    return read(length)


def encode_message(number: int, contents: bytes = b"") -> bytes:
    """Encode ``byte number, contents`` (section 5)."""
    return bytes((number,)) + contents


def _unexpected(message: bytes) -> UnexpectedMessage:
    """Return the error for a message with another number than expected."""
    number = message[0] if message else None
    return UnexpectedMessage(f"unexpected message {number}", number)


def _contents(message: bytes, number: int) -> Reader:
    """Return a Reader for what follows the message number.

    Raises UnexpectedMessage if the message has another number.
    """
    if message[:1] != bytes((number,)):
        raise _unexpected(message)
    return Reader(message[1:])


# --- generic replies


def parse_done(message: bytes) -> bool:
    """Return True for ``byte SSH_AGENT_SUCCESS`` and False for a refusal (section 5.1)."""
    if message == bytes((SUCCESS,)):
        return True
    other = _unexpected(message)
    if other.is_refusal:
        return False
    raise other


# --- identities


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """A key or certificate that the agent can sign with; ``comment`` is safe to print."""

    blob: bytes
    comment: str

    @property
    def algorithm(self) -> bytes:
        """The key type at the start of the blob; empty if the blob is malformed."""
        length = int.from_bytes(self.blob[:4], "big")
        return self.blob[4 : 4 + length] if len(self.blob) >= 4 + length else b""

    @property
    def is_certificate(self) -> bool:
        """Whether the blob is a certificate, according to its key type."""
        return plain_type(self.algorithm) != self.algorithm


def identities_answer(keys: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode the reply to REQUEST_IDENTITIES from pairs of key blob and comment (section 5.5).

    ``byte SSH_AGENT_IDENTITIES_ANSWER, uint32 count``, then for each key ``string blob, string comment``.
    """
    entries = [string(blob) + string(comment) for blob, comment in keys]
    return encode_message(IDENTITIES_ANSWER, uint32(len(entries)) + b"".join(entries))


def parse_identities(message: bytes) -> tuple[AgentIdentity, ...]:
    """Parse an ``identities_answer``. The keys keep their order."""
    r = _contents(message, IDENTITIES_ANSWER)
    count = r.uint32()
    if count > MAX_IDENTITIES:
        raise RemoteViolation(f"it lists {count} keys; the limit is {MAX_IDENTITIES}")
    identities = tuple(
        AgentIdentity(blob=r.string(), comment=one_line(r.string(), MAX_COMMENT)) for _ in range(count)
    )
    r.end()
    return identities


# --- signatures


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """Requests a signature over ``data`` by the key or certificate ``blob`` (section 5.6).

    ``byte SSH_AGENTC_SIGN_REQUEST, string blob, string data, uint32 flags``
    """

    blob: bytes
    data: bytes
    flags: int

    @classmethod
    def parse(cls, message: bytes) -> SignRequest:
        """Parse one whole message."""
        r = _contents(message, SIGN_REQUEST)
        value = cls(blob=r.string(), data=r.string(), flags=r.uint32())
        r.end()
        return value

    def encode(self) -> bytes:
        """Encode the message, without its length."""
        return encode_message(SIGN_REQUEST, string(self.blob) + string(self.data) + uint32(self.flags))


def sign_response(signature: bytes) -> bytes:
    """Encode the reply to a SignRequest: ``byte SSH_AGENT_SIGN_RESPONSE, string signature`` (section 5.6)."""
    return encode_message(SIGN_RESPONSE, string(signature))


def parse_signature(message: bytes) -> bytes:
    """Return the unparsed signature in a ``sign_response``.

    It is ``string algorithm, string signature``, and more for security keys.
    """
    r = _contents(message, SIGN_RESPONSE)
    signature = r.string()
    r.end()
    return signature


# --- keys that are added and removed


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCertificate:
    """Adds an Ed25519 key with its certificate, for ``lifetime`` seconds (sections 5.2.3 and 5.2.7).

    ``byte SSH_AGENTC_ADD_ID_CONSTRAINED, string type, string certificate, string public, string private ||
    public, string comment``, then the constraint ``byte SSH_AGENT_CONSTRAIN_LIFETIME, uint32 seconds``. The
    certificate precedes the key, as in OpenSSH (``sshkey_private_serialize``). ``public`` and ``private``
    have 32 raw bytes each.
    """

    certificate: bytes
    public: bytes
    private: bytes = field(repr=False)
    comment: bytes
    lifetime: int

    def encode(self) -> bytes:
        """Encode the message, without its length."""
        return encode_message(
            ADD_ID_CONSTRAINED,
            string(b"ssh-ed25519-cert-v01@openssh.com")
            + string(self.certificate)
            + string(self.public)
            + string(self.private + self.public)
            + string(self.comment)
            + bytes((CONSTRAIN_LIFETIME,))
            + uint32(self.lifetime),
        )


def remove_identity(blob: bytes) -> bytes:
    """Encode a request to delete a key or certificate (section 5.4).

    ``byte SSH_AGENTC_REMOVE_IDENTITY, string blob``
    """
    return encode_message(REMOVE_IDENTITY, string(blob))


# --- extensions


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionRequest:
    """Requests an extension (section 5.8): ``byte SSH_AGENTC_EXTENSION, string name, contents``."""

    name: bytes
    contents: bytes

    @classmethod
    def parse(cls, message: bytes) -> ExtensionRequest:
        """Parse one whole message."""
        r = _contents(message, EXTENSION)
        return cls(name=r.string(), contents=r.rest())

    def encode(self) -> bytes:
        """Encode the message, without its length."""
        return encode_message(EXTENSION, string(self.name) + self.contents)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBinding:
    """The SSH connection that an agent's signatures are for (PROTOCOL.agent, 1).

    The values are those of the first key exchange: the host key, the session identifier, and the signature
    of the host key over the session identifier.
    """

    host_key: bytes
    session_id: bytes
    signature: bytes

    def contents(self, *, forwarding: bool) -> bytes:
        """Encode the contents of the extension SESSION_BIND.

        ``string host key, string session identifier, string signature, boolean is forwarding``
        """
        key, session, signature = string(self.host_key), string(self.session_id), string(self.signature)
        return key + session + signature + bytes((forwarding,))


def extension_response(name: bytes, contents: bytes) -> bytes:
    """Encode a reply to an ExtensionRequest: ``byte SSH_AGENT_EXTENSION_RESPONSE, string name, contents``."""
    return encode_message(EXTENSION_RESPONSE, string(name) + contents)


def parse_extension_reply(message: bytes, name: bytes) -> bytes | None:
    """Return the contents of a reply to the extension ``name``, or None for a refusal (section 5.8).

    The contents follow the name in an ``extension_response``, and the number in SSH_AGENT_SUCCESS.
    """
    if message[:1] == bytes((SUCCESS,)):
        return message[1:]
    try:
        r = _contents(message, EXTENSION_RESPONSE)
    except UnexpectedMessage as other:
        if other.is_refusal:
            return None
        raise
    if r.string() != name:
        raise RemoteViolation("it is the reply to another extension")
    return r.rest()
