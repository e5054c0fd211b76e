"""TCP ports on loopback that nobody listens on."""

from __future__ import annotations

import itertools
import os
import socket

_LOWEST, _HIGHEST = 20_000, 32_000  # below the kernel's ephemeral ports, which connections take meanwhile
_offers = itertools.cycle(range(_LOWEST, _HIGHEST))
for _ in range(os.getpid() * 61 % (_HIGHEST - _LOWEST)):  # two runs at once begin in different places
    next(_offers)


def free_port() -> int:
    """A port that was free a moment ago, another one at each call."""
    while True:
        port = next(_offers)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
