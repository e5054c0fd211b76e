"""The memory of idle transports, in a process of its own: what other tests have left does not count."""

from __future__ import annotations

import subprocess
import sys

MEASURE = """
import gc, tracemalloc
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.context_pool import CONTEXTS
from tests.support.pair import Pair

CONTEXTS.most = 0

def make():
    pair = Pair(algorithms=MODERN).secure()
    # The doubles of the tests keep what they heard, and their buffers.
    pair.server_line.unsent = pair.client_line.unsent = bytearray()
    return pair

first = [make() for _ in range(5)]
gc.collect()
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
pairs = [make() for _ in range(50)]
gc.collect()
print((tracemalloc.get_traced_memory()[0] - before) // len(pairs))
"""
#: Bytes that Python allocates for the server and the client of one connection after the key exchange.
BOUND = 11_900


def test_keeps_idle_transports_small() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) < BOUND
