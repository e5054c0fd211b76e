"""Limits for one peer: messages before its login, key exchanges that it starts, unsent replies."""

from __future__ import annotations

from conchrec.ssh.numbers import CHANNEL_DATA_MESSAGES
from conchrec.token_bucket import Rate, TokenBucket

#: The number of key exchanges that a peer may start at once, and what allows one more.
REKEY_BURST = 32
REKEY_BYTES_EACH = 16 * 1024 * 1024
REKEY_SECONDS_EACH = 60.0
#: Each further exchange is debt: the pause grows by this much, up to a limit. Four exchanges per second
#: cost us a few milliseconds, and a client that starts one after every few kilobytes, as in OpenSSH's tests
#: (``RekeyLimit 16``), still makes progress.
REKEY_PAUSE = 0.05
REKEY_LONGEST_PAUSE = 0.25
_REKEY_RATE = Rate(REKEY_BURST, 1 / REKEY_SECONDS_EACH, most_debt=REKEY_LONGEST_PAUSE / REKEY_PAUSE)

#: The maximum number of bytes before the login. An agent's 20 keys with large certificates need a quarter
#: of it. A message counts as at least MESSAGE_COST, the cost of handling it.
EARLY_BYTES = 4 * 1024 * 1024
MESSAGE_COST = 1024
#: This much is subtracted per second, so that keepalives during a long approval do not add up.
EARLY_BYTES_EACH_SECOND = 16 * 1024
_EARLY_RATE = Rate(EARLY_BYTES, EARLY_BYTES_EACH_SECOND)

#: The maximum number of unsent bytes other than channel data, while the socket does not drain. Above it the
#: peer's messages are not handled, because each may need a reply.
MAX_UNREAD = 64 * 1024
#: The same for all unsent bytes, with channel data. The producers were paused long before.
MAX_BEHIND = 16 * 1024 * 1024
#: The cost of a message in addition to its payload, in bytes.
_OVERHEAD = 64


class RekeyAllowance:
    """Charges a peer for the key exchanges that it starts after the first one."""

    __slots__ = (
        "_bucket", "_carried",
    )  # fmt: skip

    def __init__(self) -> None:
        self._bucket = TokenBucket(_REKEY_RATE)
        self._carried = 0

    def charge(self, seconds: float, carried: int) -> float:
        """Charge one key exchange, and return how many seconds to pause before it.

        ``seconds`` is the current time; ``carried`` is the number of bytes of the connection, in both
        directions.
        """
        self._bucket.fill(seconds)
        self._bucket.add((carried - self._carried) / REKEY_BYTES_EACH)
        self._carried = carried
        return max(-self._bucket.charge(seconds), 0.0) * REKEY_PAUSE


class EarlyAllowance:
    """Counts the bytes that a peer sends before its login."""

    def __init__(self) -> None:
        self._bucket = TokenBucket(_EARLY_RATE)

    def charge(self, seconds: float, size: int) -> bool:
        """Charge one message of ``size`` bytes at the time ``seconds``, and return whether it is allowed."""
        return self._bucket.charge(seconds, size if size > MESSAGE_COST else MESSAGE_COST) >= 0


class SendBacklog:
    """Counts the bytes that we send while the socket does not drain. The transport resets the counters."""

    __slots__ = ("answers", "total")

    def __init__(self) -> None:
        #: Bytes of messages without channel data. Windows limit the data; the peer causes the rest.
        self.answers = 0
        self.total = 0

    def add(self, number: int, size: int) -> None:
        """Count a message with ``size`` bytes of payload."""
        self.total += size + _OVERHEAD
        if number not in CHANNEL_DATA_MESSAGES:
            self.answers += size + _OVERHEAD
