"""What the far connection calls of a relay, which is itself what the near connection calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FarEnd:
    """A ChannelReceiver of four functions."""

    opened: Callable[[int, int, bytes], None]
    refused: Callable[[int, bytes], None]
    received: Callable[[int, bytes], None]
    lost: Callable[[], None]
