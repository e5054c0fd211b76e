"""The helper process that computes modular powers for finite-field Diffie-Hellman.

It is started as a program of its own, with the standard library alone, and holds nothing but the request that
it works on: no key, no socket. Requests come on its standard input and answers leave on its standard output,
one after another; it ends when its input does, so it never outlives the proxy, however that ends.

Python's own ``pow`` takes 3 to 15 ms and holds the interpreter's lock meanwhile, as OpenSSL's does through
``cryptography`` (which will remove finite-field Diffie-Hellman): only another process keeps that away from
the reactor.

A frame is ``uint32 length, body``. The body of a request is ``string modulus, string exponent`` and a
``string`` for each base, that of an answer a ``string`` for each power; all are unsigned, big-endian.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

#: Answers and requests are about 2 kB; what is longer is no frame.
MAX_FRAME = 16 * 1024
_PR_SET_DUMPABLE = 4


def frame(numbers: Iterable[int]) -> bytes:
    """A whole frame of unsigned numbers."""
    body = b"".join(
        len(raw).to_bytes(4, "big") + raw
        for raw in (number.to_bytes((number.bit_length() + 7) // 8, "big") for number in numbers)
    )
    return len(body).to_bytes(4, "big") + body


def parse_numbers(body: bytes) -> tuple[int, ...]:
    """The numbers in the body of a frame. Raises ValueError where it is malformed."""
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
    """``base ** exponent`` modulo ``modulus``, for each base."""
    return tuple(pow(base, exponent, modulus) for base in bases)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until they end. Raises ValueError for a malformed one."""
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
    """The main function of the helper process."""
    # The proxy ends it by closing its input; a signal for the whole process group, or for all processes of
    # a service, must not end it before the proxy has done its last key exchange.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Secret exponents pass through: none of them goes into a core file, or to a debugger of another process.
    # A sandbox may not allow some of this; key exchanges work without it.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError, ImportError, MemoryError):
        import ctypes  # needs memory that is writable and executable, which a sandbox may deny

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    with contextlib.suppress(OSError):
        os.chdir("/")
    # The reactor comes first: what waits for it is everybody, what waits here is a few logins.
    with contextlib.suppress(OSError):
        os.nice(5)
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
