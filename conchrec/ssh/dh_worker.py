"""The helper process that computes modular powers for finite-field Diffie-Hellman.

It runs as a separate program with the standard library only, and holds nothing but its current request: no
keys and no sockets. It reads requests from standard input and writes answers to standard output, one after
another. It ends when its input ends, so it never outlives the proxy.

Python's ``pow`` takes 3 to 15 ms and holds the interpreter lock, and so does OpenSSL through
``cryptography`` (which will remove finite-field Diffie-Hellman). Only a separate process keeps this work
away from the reactor.

A frame is ``uint32 length, body``. The body of a request is ``string modulus, string exponent`` and a
``string`` for each base; the body of an answer has a ``string`` for each power. Numbers are unsigned and
big-endian.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

#: The maximum length of a frame's body. Requests and answers have about 2 kB.
MAX_FRAME = 16 * 1024
_PR_SET_DUMPABLE = 4


def frame(numbers: Iterable[int]) -> bytes:
    """Encode numbers as a frame."""
    body = b"".join(
        len(raw).to_bytes(4, "big") + raw
        for raw in (number.to_bytes((number.bit_length() + 7) // 8, "big") for number in numbers)
    )
    return len(body).to_bytes(4, "big") + body


def parse_numbers(body: bytes) -> tuple[int, ...]:
    """Return the numbers in the body of a frame. Raises ValueError if it is malformed."""
    return tuple(_numbers(body))


def _numbers(body: bytes) -> Iterator[int]:
    start = 0
    while start < len(body):
        end = start + 4 + int.from_bytes(body[start : start + 4], "big")
        if end > len(body):
            raise ValueError("a number reaches beyond the end of its frame")
        yield int.from_bytes(body[start + 4 : end], "big")
        start = end


def powers(modulus: int, exponent: int, bases: Iterable[int]) -> tuple[int, ...]:
    """Return ``base ** exponent`` modulo ``modulus`` for each base."""
    return tuple(pow(base, exponent, modulus) for base in bases)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends. Raises ValueError for a malformed request."""
    while len(head := requests.read(4)) == 4:
        length = int.from_bytes(head, "big")
        if length > MAX_FRAME:
            raise ValueError("the frame is too long")
        body = requests.read(length)
        if len(body) < length:
            return
        modulus, exponent, *bases = parse_numbers(body)
        answers.write(frame(powers(modulus, exponent, bases)))
        answers.flush()


def main() -> None:
    """Run the helper process."""
    # The proxy ends this process by closing its input. A signal to the process group, or to all processes
    # of a service, must not end it before the proxy has finished its last key exchange.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Requests contain secret exponents: keep them out of core files and away from debuggers of other
    # processes. A sandbox may deny some of these calls; key exchanges work without them.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError, ImportError, MemoryError):
        import ctypes  # needs writable and executable memory, which a sandbox may deny

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    with contextlib.suppress(OSError):
        os.chdir("/")
    # The proxy has priority: all users wait for it, but only a few logins wait for this process.
    with contextlib.suppress(OSError):
        os.nice(5)
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
