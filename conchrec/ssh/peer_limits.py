"""What a peer may ask for: messages before its login, and key exchanges after it.

Values: the time and the volume are handed in.
"""

from __future__ import annotations

#: Key exchanges that a peer may begin at once, and what earns it one more.
REKEY_BURST = 32
REKEY_BYTES_EACH = 16 * 1024 * 1024
REKEY_SECONDS_EACH = 60.0
#: Each exchange beyond that is debt: the pause grows by this much with each, up to a limit. Four exchanges a
#: second cost us some milliseconds, and a client that asks for one after every few kilobytes, as OpenSSH's
#: tests do (``RekeyLimit 16``), still gets on.
REKEY_PAUSE = 0.05
REKEY_LONGEST_PAUSE = 0.25

#: What a peer may send before its login, in bytes: 20 keys of an agent with large certificates take a quarter
#: of it. A message counts as at least MESSAGE_COST, for that is what handling it costs.
EARLY_BYTES = 4 * 1024 * 1024
MESSAGE_COST = 1024
#: What is forgotten of it in each second, so that keepalives during a long approval never add up.
EARLY_BYTES_EACH_SECOND = 16 * 1024


class RekeyAllowance:
    """Charges one peer for the key exchanges that it begins after the first."""

    def __init__(self) -> None:
        self._left = float(REKEY_BURST)
        self._seconds = 0.0
        self._carried = 0

    def charge(self, seconds: float, carried: int) -> float:
        """The peer begins one more. ``seconds`` is the time, ``carried`` what the connection has carried in
        all, in bytes both ways. The result is how long to pause before the exchange, in seconds."""
        earned = (seconds - self._seconds) / REKEY_SECONDS_EACH + (carried - self._carried) / REKEY_BYTES_EACH
        self._seconds, self._carried = seconds, carried
        most_debt = REKEY_LONGEST_PAUSE / REKEY_PAUSE
        self._left = max(min(self._left + earned, REKEY_BURST) - 1, -most_debt)
        return max(-self._left, 0.0) * REKEY_PAUSE


class EarlyAllowance:
    """Counts what one peer sends before its login. A stranger has no use for more."""

    def __init__(self) -> None:
        self._used = 0.0
        self._seconds = 0.0

    def charge(self, seconds: float, size: int) -> bool:
        """The peer has sent one more message of ``size`` bytes. Is that still allowed?"""
        forgotten = (seconds - self._seconds) * EARLY_BYTES_EACH_SECOND
        self._seconds = seconds
        self._used = max(self._used - forgotten, 0.0) + max(size, MESSAGE_COST)
        return self._used <= EARLY_BYTES
