"""What both sides of the authentication protocol share (RFC 4252, RFC 4256, OpenSSH's PROTOCOL).

Message numbers, the layout of a public key request and of what its signature covers, and the
questions of keyboard-interactive. The two sides are ``userauth_server`` and ``userauth_client``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twisted.conch.ssh.service import SSHService

from conchrec.ssh.wire import string, uint32

REQUEST = 50
FAILURE = 51
SUCCESS = 52
BANNER = 53
#: 60 and 61 mean what the method in hand says (RFC 4252 section 6).
PK_OK = 60
INFO_REQUEST = 60
PASSWD_CHANGEREQ = 60
INFO_RESPONSE = 61

#: The last number of the authentication protocol, and the first of the protocols above it.
LAST_USERAUTH = 79
LAST_CONNECTION = 127

CONNECTION = b"ssh-connection"
NONE = b"none"
PUBLICKEY = b"publickey"
PASSWORD = b"password"
KEYBOARD_INTERACTIVE = b"keyboard-interactive"
#: The public key method whose signature also covers the server's host key (OpenSSH's PROTOCOL, 1.9).
HOSTBOUND = b"publickey-hostbound-v00@openssh.com"
#: The extension by which a server says that it knows ``HOSTBOUND``.
HOSTBOUND_EXTENSION = b"publickey-hostbound@openssh.com"


class AuthTransport(Protocol):
    """The part of an SSH transport that authentication needs."""

    @property
    def sessionID(self) -> bytes | None:
        """The hash of the first key exchange; signatures are bound to it."""

    def sendPacket(self, messageType: int, payload: bytes) -> None: ...

    def sendDisconnect(self, reason: int, desc: bytes) -> None: ...

    def sendUnimplemented(self) -> None: ...

    def setService(self, service: SSHService) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question; ``echo`` says whether the answer may be seen while it is typed."""

    text: str
    echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What is asked at once. There may be no prompt at all: then it only tells something."""

    name: str = ""
    instruction: str = ""
    prompts: tuple[Prompt, ...] = ()


def publickey_request(
    *, user: bytes, algorithm: bytes, blob: bytes, host_key: bytes | None, signed: bool
) -> bytes:
    """The payload of a public key request, up to the signature (RFC 4252 section 7).

    ``string user, string service, string method, boolean signed, string algorithm, string blob``,
    then ``string host key`` in the host-bound method, which is chosen by ``host_key``.
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


def signed_data(session_id: bytes, request: bytes) -> bytes:
    """What the signature covers: ``string session id, byte 50``, and the request up to the signature."""
    return string(session_id) + bytes((REQUEST,)) + request


def info_request(challenge: Challenge) -> bytes:
    """The payload of INFO_REQUEST (RFC 4256 section 3.2).

    ``string name, string instruction, string language, uint32 count, (string prompt, boolean echo)…``
    """
    return (
        string(challenge.name.encode())
        + string(challenge.instruction.encode())
        + string(b"")
        + uint32(len(challenge.prompts))
        + b"".join(string(prompt.text.encode()) + bytes((prompt.echo,)) for prompt in challenge.prompts)
    )


def info_response(answers: tuple[str, ...]) -> bytes:
    """The payload of INFO_RESPONSE (RFC 4256 section 3.4): ``uint32 count, string answer…``"""
    return uint32(len(answers)) + b"".join(string(answer.encode()) for answer in answers)
