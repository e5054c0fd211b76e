"""Message numbers and reason codes of the transport protocol (RFC 4250 section 4, OpenSSH's PROTOCOL)."""

from __future__ import annotations

from enum import IntEnum

DISCONNECT = 1
IGNORE = 2
UNIMPLEMENTED = 3
DEBUG = 4
SERVICE_REQUEST = 5
SERVICE_ACCEPT = 6
EXT_INFO = 7
KEXINIT = 20
NEWKEYS = 21
KEX_FIRST = 30
KEX_REPLY = 31
#: The last number of the key exchange, and the first number of the services above.
LAST_TRANSPORT = 49
FIRST_SERVICE = 50
USERAUTH_SUCCESS = 52
#: CHANNEL_DATA and CHANNEL_EXTENDED_DATA, which the window limits.
CHANNEL_DATA_MESSAGES = (94, 95)
#: ``ping@openssh.com`` (PROTOCOL).
PING = 192
PONG = 193


class DisconnectReason(IntEnum):
    """The reason code of a DISCONNECT (RFC 4250 section 4.2.2), without the prefix SSH_DISCONNECT."""

    HOST_NOT_ALLOWED_TO_CONNECT = 1
    PROTOCOL_ERROR = 2
    KEY_EXCHANGE_FAILED = 3
    RESERVED = 4
    MAC_ERROR = 5
    COMPRESSION_ERROR = 6
    SERVICE_NOT_AVAILABLE = 7
    PROTOCOL_VERSION_NOT_SUPPORTED = 8
    HOST_KEY_NOT_VERIFIABLE = 9
    CONNECTION_LOST = 10
    BY_APPLICATION = 11
    TOO_MANY_CONNECTIONS = 12
    AUTH_CANCELLED_BY_USER = 13
    NO_MORE_AUTH_METHODS_AVAILABLE = 14
    ILLEGAL_USER_NAME = 15

    @classmethod
    def assigned(cls, number: int | None) -> DisconnectReason:
        """Return the reason with this number.

        The result is BY_APPLICATION for None and for numbers that are not assigned.
        """
        return cls(number) if number in set(cls) else cls.BY_APPLICATION


def may_go_in_exchange(number: int) -> bool:
    """Return whether a message may be sent during a key exchange (RFC 4253 section 7.1)."""
    return 1 <= number <= LAST_TRANSPORT and number not in (SERVICE_REQUEST, SERVICE_ACCEPT, EXT_INFO)
