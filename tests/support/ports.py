"""Free TCP ports on loopback.

Several processes run tests at the same time. Each of them claims a block of ports for as long as it lives, so
that none uses a port which another process has chosen but does not listen on yet.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

# Below the kernel's ephemeral ports, which connections use in the meantime.
_LOWEST, _HIGHEST = 20_000, 32_000
_BLOCK = 500
_claims: list[socket.socket] = []


def free_port() -> int:
    """Return a port that nobody listens on: a different one at each call, until the block is used up."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _own_ports() -> Iterator[int]:
    """Claim a block, then repeat its ports without end."""
    start = _claim()
    while True:
        yield from range(start, start + _BLOCK)


def _claim() -> int:
    """Claim a block of ports for this process; return its first port.

    The claim is a name of an abstract Unix socket: such names belong to the network namespace, as ports do.
    The kernel releases them when the process ends, however it ends.
    """
    while True:
        for start in range(_LOWEST, _HIGHEST, _BLOCK):
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0conchrec-tests-ports-{start}")
            except OSError:
                claim.close()
                continue
            _claims.append(claim)
            return start
        time.sleep(1)  # 24 processes run tests: wait until one of them ends


_ports = _own_ports()
