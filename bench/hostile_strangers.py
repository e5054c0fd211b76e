"""Floods that need no login, with blocking sockets."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from dataclasses import replace

from bench.hostile_plan import SOURCE, Plan, Sent
from bench.light_client import VERSION
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import COMPATIBLE, Algorithms
from conchrec.ssh.kexinit import Proposal
from conchrec.ssh.packetcipher import Clear
from conchrec.ssh.wire import string

#: Seconds without data from the peer after which a new connection is made.
PATIENCE = 10.0
KEX_GROUPS = (
    b"diffie-hellman-group18-sha512",
    b"diffie-hellman-group16-sha512",
    b"diffie-hellman-group14-sha256",
)
#: A public value: any number of the group is sufficient, because the client does not compute the secret.
PUBLIC_VALUE = b"\x00" + b"\x5a" * 250


def _connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.bind((SOURCE, 0))
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", port))
    return connection


def _offer(algorithms: Algorithms) -> bytes:
    """Return an identification string and a KEXINIT that offers ``algorithms``."""
    proposal = Proposal.make(algorithms, (b"ssh-ed25519", b"ssh-ed25519-cert-v01@openssh.com"), ())
    return VERSION + b"\r\n" + Clear().seal(0, proposal.payload)


def _dh(group: bytes) -> Callable[[Plan, Sent], None]:
    algorithms = replace(COMPATIBLE, kex=(group,))

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            connection.sendall(
                _offer(algorithms) + Clear().seal(1, bytes((a.KEX_FIRST,)), string(PUBLIC_VALUE))
            )
            sent.add()
            # Read the reply and NEWKEYS, or until the server closes; then the next connection follows.
            size = 0
            while size < 2000 and (data := connection.recv(65536)):
                size += len(data)

    return run


def _clear_messages(payload: bytes) -> Callable[[Plan, Sent], None]:
    """Send messages before the key exchange, which the sender need not encrypt."""
    batch = Clear().seal(0, payload) * 2000

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            connection.sendall(VERSION + b"\r\n")
            while True:
                connection.sendall(batch)
                sent.add(2000)

    return run


def _request_revocations(plan: Plan, sent: Sent) -> None:
    request = b"GET /webapi/auth/export?type=krl HTTP/1.1\r\nHost: proxy\r\n\r\n"
    with _connect(plan.port) as connection:
        while True:
            connection.sendall(request * 8)
            for _ in range(8):
                _response(connection)
                sent.add()


def _response(connection: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server has closed")
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    size = next(
        int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
    )
    left = size - len(body)
    while left > 0:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server has closed")
        left -= len(data)


#: Each connection has another address of a user behind a load balancer.
_ADDRESSES = itertools.count()


def _with_proxy_header(rest: bytes) -> Callable[[Plan, Sent], None]:
    """Send a PROXY header (version 1) with another address in each connection, and then ``rest``."""

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            number = next(_ADDRESSES) % 2**16
            address = f"10.1.{number // 256}.{number % 256}"
            connection.sendall(b"PROXY TCP4 %s 127.0.0.1 4321 22\r\n" % address.encode() + rest)
            sent.add()
            connection.recv(20)

    return run


def _without_proxy_header(plan: Plan, sent: Sent) -> None:
    """Send an invalid PROXY header; the proxy then closes the connection."""
    with _connect(plan.port) as connection:
        connection.sendall(b"PROXY " + bytes(200))
        sent.add()
        connection.recv(20)


def _close_at_once(plan: Plan, sent: Sent) -> None:
    """Make a connection and close it, also when the proxy refuses connections already."""
    with _connect(plan.port):
        sent.add()


RAW: dict[str, Callable[[Plan, Sent], None]] = {
    "dh-group18": _dh(KEX_GROUPS[0]),
    "dh-group16": _dh(KEX_GROUPS[1]),
    "dh-group14": _dh(KEX_GROUPS[2]),
    "ignore-stranger": _clear_messages(bytes((a.IGNORE,)) + string(b"")),
    "debug-stranger": _clear_messages(bytes((a.DEBUG,)) + b"\0" + string(b"") * 2),
    "krl": _request_revocations,
    "balanced": _with_proxy_header(VERSION + b"\r\n"),
    "balanced-no-header": _without_proxy_header,
    "connections": _close_at_once,
}
