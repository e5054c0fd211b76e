"""What both sides of the authentication protocol share (RFC 4252, RFC 4256, OpenSSH's PROTOCOL).

Message numbers, the layout of a public key request and of the data that its signature covers, and the
questions of keyboard-interactive. ``userauth_server`` and ``userauth_client`` are the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twisted.conch.ssh.service import SSHService

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.wire import Reader, Truncated, string, uint32
from conchrec.text import decode_text

REQUEST = 50
FAILURE = 51
SUCCESS = 52
BANNER = 53
#: The meaning of 60 and 61 depends on the current method (RFC 4252 section 6).
PK_OK = 60
INFO_REQUEST = 60
PASSWD_CHANGEREQ = 60
INFO_RESPONSE = 61

#: The last number of the authentication protocol, and the last number of the protocols above it.
LAST_USERAUTH = 79
LAST_CONNECTION = 127

#: The maximum number of questions in one message.
MAX_QUESTIONS = 32
#: The maximum length of a user name, in bytes.
MAX_USER = 512

CONNECTION = b"ssh-connection"
NONE = b"none"
PUBLICKEY = b"publickey"
PASSWORD = b"password"
KEYBOARD_INTERACTIVE = b"keyboard-interactive"
#: The public key method whose signature also covers the server's host key (OpenSSH's PROTOCOL, 1.9).
HOSTBOUND = b"publickey-hostbound-v00@openssh.com"
#: The extension that announces ``HOSTBOUND``.
HOSTBOUND_EXTENSION = b"publickey-hostbound@openssh.com"


class AuthTransport(Protocol):
    """The part of an SSH transport that authentication needs."""

    @property
    def sessionID(self) -> bytes | None:
        """The session identifier, which is part of the data that signatures cover."""

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send one message."""

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Send DISCONNECT and close the connection."""

    def sendUnimplemented(self) -> None:
        """Answer the current message with UNIMPLEMENTED."""

    def setService(self, service: SSHService) -> None:
        """Stop the current service and start another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question to the user. ``echo`` is whether the answer may be visible while it is typed."""

    text: str
    echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The questions of one INFO_REQUEST. Without prompts it only shows the instruction."""

    name: str = ""
    instruction: str = ""
    prompts: tuple[Prompt, ...] = ()


def publickey_request(
    *, user: bytes, algorithm: bytes, blob: bytes, host_key: bytes | None, signed: bool
) -> bytes:
    """Encode a public key request up to the signature (RFC 4252 section 7).

    ``string user, string service, string method, boolean signed, string algorithm, string blob``, then
    ``string host key`` with the host-bound method, which is used if ``host_key`` is given.
    """
    return (
        string(user)
        + string(CONNECTION)
        + string(PUBLICKEY if host_key is None else HOSTBOUND)
        + bytes((signed,))
        + string(algorithm)
        + string(blob)
        + (b"" if host_key is None else string(host_key))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeyRequest:
    """A public key request. Without ``signature`` it is an offer.

    ``host_key`` is None unless the method is the host-bound one. ``covered`` is the part of the payload that
    the signature covers.
    """

    algorithm: bytes
    blob: bytes
    host_key: bytes | None
    covered: bytes
    signature: bytes | None


def parse_publickey_request(payload: bytes, r: Reader, method: bytes) -> PublicKeyRequest:
    """Parse a public key request, of which ``r`` has read the method. Raises RemoteViolation.

    ``boolean signed, string algorithm, string blob[, string host key][, string signature]``
    """
    signed, algorithm, blob = r.boolean(), r.string(), r.string()
    host_key = r.string() if method == HOSTBOUND else None
    signature = r.string() if signed else None
    r.end()
    covered = payload if signature is None else payload[: len(payload) - 4 - len(signature)]
    return PublicKeyRequest(
        algorithm=algorithm, blob=blob, host_key=host_key, covered=covered, signature=signature
    )


def signed_data(session_id: bytes, request: bytes) -> bytes:
    """Return the data that the signature of a public key request covers.

    ``string session id, byte 50``, then the request up to the signature
    """
    return string(session_id) + bytes((REQUEST,)) + request


def info_request(challenge: Challenge) -> bytes:
    """Encode INFO_REQUEST (RFC 4256 section 3.2).

    ``string name, string instruction, string language, uint32 count``, then ``string prompt, boolean echo``
    repeated
    """
    return (
        string(challenge.name.encode())
        + string(challenge.instruction.encode())
        + string(b"")
        + uint32(len(challenge.prompts))
        + b"".join(string(prompt.text.encode()) + bytes((prompt.echo,)) for prompt in challenge.prompts)
    )


def parse_info_request(payload: bytes) -> Challenge:
    """Parse INFO_REQUEST; ``info_request`` has its layout. Raises RemoteViolation."""
    r = Reader(payload)
    name, instruction = decode_text(r.string()), decode_text(r.string())
    r.string()
    count = r.uint32()
    if count > MAX_QUESTIONS:
        raise RemoteViolation(f"too many questions in one message: the limit is {MAX_QUESTIONS}")
    prompts = tuple(Prompt(text=decode_text(r.string()), echo=r.boolean()) for _ in range(count))
    r.end()
    return Challenge(name=name, instruction=instruction, prompts=prompts)


def info_response(answers: tuple[str, ...]) -> bytes:
    """Encode INFO_RESPONSE (RFC 4256 section 3.4): ``uint32 count``, then ``string answer`` repeated."""
    return uint32(len(answers)) + b"".join(string(answer.encode()) for answer in answers)


def parse_info_response(payload: bytes) -> tuple[bytes, ...]:
    """Parse INFO_RESPONSE; ``info_response`` has its layout. Raises RemoteViolation."""
    r = Reader(payload)
    count = r.uint32()
    if count > len(payload) // 4:
        raise Truncated("the message is truncated")
    answers = tuple(r.string() for _ in range(count))
    r.end()
    return answers


def parse_user_name(raw: bytes) -> str:
    """Return a user name for the audit log and for targets. Raises RemoteViolation.

    It must be UTF-8, printable and not too long, so that it has one spelling.
    """
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RemoteViolation(
            "invalid user name: must be UTF-8", code=ReasonCode.INVALID_USER_NAME
        ) from error
    if not 0 < len(raw) <= MAX_USER or not name.isprintable():
        raise RemoteViolation(
            f"invalid user name: must be printable, with 1 to {MAX_USER} bytes",
            code=ReasonCode.INVALID_USER_NAME,
        )
    return name
