"""The helper process for slow key exchanges: modular powers, and key pairs of sntrup761.

It runs as a separate program with the standard library and pqcrypto only, and holds nothing but its current
request: no keys and no sockets. It reads requests from standard input and writes answers to standard output,
one after another. It ends when its input ends, so it never outlives the proxy.

Python's ``pow`` takes 3 to 15 ms and holds the interpreter lock, and so does OpenSSL through
``cryptography`` (which will remove finite-field Diffie-Hellman). pqcrypto holds it for 20 ms while it makes a
key pair. Only a separate process keeps this work away from the reactor.

A frame is ``uint32 length, body``. The body of a request is a byte and strings: POWERS with ``string
modulus, string exponent`` and a ``string`` for each base, or KEY_PAIR. The body of an answer has a
``string`` for each power, or ``string public key, string private key``. Numbers are unsigned and big-endian.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

#: The kinds of requests.
POWERS = b"\0"
KEY_PAIR = b"\1"
#: The maximum length of a frame's body. Requests and answers have about 3 kB.
MAX_FRAME = 16 * 1024
_PR_SET_DUMPABLE = 4


def frame(body: bytes) -> bytes:
    """Return a frame with ``body``."""
    return len(body).to_bytes(4, "big") + body


def encode_strings(strings: Iterable[bytes]) -> bytes:
    """Encode strings for the body of a frame."""
    return b"".join(len(raw).to_bytes(4, "big") + raw for raw in strings)


def encode_numbers(numbers: Iterable[int]) -> bytes:
    """Encode numbers for the body of a frame."""
    return encode_strings(number.to_bytes((number.bit_length() + 7) // 8, "big") for number in numbers)


def parse_strings(body: bytes) -> tuple[bytes, ...]:
    """Return the strings in the body of a frame. Raises ValueError if it is malformed."""
    return tuple(_strings(body))


def _strings(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        end = start + 4 + int.from_bytes(body[start : start + 4], "big")
        if end > len(body):
            raise ValueError("a string reaches beyond the end of its frame")
        yield body[start + 4 : end]
        start = end


def powers(modulus: int, exponent: int, bases: Iterable[int]) -> tuple[int, ...]:
    """Return ``base ** exponent`` modulo ``modulus`` for each base."""
    return tuple(pow(base, exponent, modulus) for base in bases)


def key_pair() -> tuple[bytes, bytes]:
    """Make a key pair of sntrup761: the public and the private key."""
    from pqcrypto import pqcrypto

    public, private = pqcrypto.Sntrup761.keygen()
    return public, private


def _answer(request: bytes) -> bytes:
    """Return the body of the answer to the body of a request. Raises ValueError."""
    kind, strings = request[:1], parse_strings(request[1:])
    if kind == KEY_PAIR:
        return encode_strings(key_pair())
    if kind != POWERS:
        raise ValueError("unknown request")
    modulus, exponent, *bases = (int.from_bytes(raw, "big") for raw in strings)
    return encode_numbers(powers(modulus, exponent, bases))


def _serve_one(requests: BinaryIO, answers: BinaryIO) -> bool:
    """Answer one request, and return whether there was one.

    What it contained is gone when this returns: nothing keeps an exponent or a private key while the
    process waits.
    """
    if len(head := _read(requests, 4)) < 4:
        return False
    length = int.from_bytes(head, "big")
    if length > MAX_FRAME:
        raise ValueError("the frame is too long")
    if len(body := _read(requests, length)) < length:
        return False
    answer = memoryview(bytearray(frame(_answer(body))))
    sent = 0
    while sent < len(answer):
        sent += answers.write(answer[sent:])
    answer[:] = bytes(len(answer))
    return True


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes from an unbuffered stream, or less at its end."""
    data = b""
    while len(data) < size and (piece := stream.read(size - len(data))):
        data += piece
    return data


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends. Raises ValueError for a malformed request.

    The streams are unbuffered, because a buffer would keep secrets.
    """
    while _serve_one(requests, answers):
        pass


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
    # pqcrypto is there; -S keeps the interpreter from looking for it.
    sys.path += sys.argv[1:]
    # The proxy has priority: all users wait for it, but only a few logins wait for this process.
    with contextlib.suppress(OSError):
        os.nice(5)
    with (
        contextlib.suppress(BrokenPipeError),
        open(0, "rb", buffering=0) as requests,
        open(1, "wb", buffering=0) as answers,
    ):
        serve(requests, answers)


if __name__ == "__main__":
    main()
