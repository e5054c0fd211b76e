"""Floods of strangers, who need no login, with blocking sockets."""

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

#: Seconds without anything from the peer after which a connection is made again.
DEAF = 10.0
KEX_GROUPS = (
    b"diffie-hellman-group18-sha512",
    b"diffie-hellman-group16-sha512",
    b"diffie-hellman-group14-sha256",
)
#: A public value of group 18: any number in it will do, for nobody computes the secret.
GUESS = b"\x00" + b"\x5a" * 250


def _connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.bind((SOURCE, 0))
    connection.settimeout(DEAF)
    connection.connect(("127.0.0.1", port))
    return connection


def _offer(algorithms: Algorithms) -> bytes:
    """A version line and a KEXINIT that asks for ``algorithms``."""
    proposal = Proposal.make(algorithms, (b"ssh-ed25519", b"ssh-ed25519-cert-v01@openssh.com"), ())
    return VERSION + b"\r\n" + Clear().seal(0, proposal.payload)


def _dh(group: bytes) -> Callable[[Plan, Sent], None]:
    algorithms = replace(COMPATIBLE, kex=(group,))

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            connection.sendall(_offer(algorithms) + Clear().seal(1, bytes((a.KEX_FIRST,)), string(GUESS)))
            sent.add()
            # The reply, NEWKEYS, or the server's refusal; then the next connection.
            size = 0
            while size < 2000 and (data := connection.recv(65536)):
                size += len(data)

    return run


def _clear_messages(payload: bytes) -> Callable[[Plan, Sent], None]:
    """Messages before the key exchange, which cost the sender nothing."""
    batch = Clear().seal(0, payload) * 2000

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            connection.sendall(VERSION + b"\r\n")
            while True:
                connection.sendall(batch)
                sent.add(2000)

    return run


def _http(plan: Plan, sent: Sent) -> None:
    request = b"GET /webapi/auth/export?type=krl HTTP/1.1\r\nHost: proxy\r\n\r\n"
    with _connect(plan.port) as connection:
        while True:
            connection.sendall(request * 8)
            for _ in range(8):
                _response(connection)
                sent.add()


def _response(connection: socket.socket) -> None:
    heard = b""
    while b"\r\n\r\n" not in heard:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server has closed")
        heard += data
    head, _, body = heard.partition(b"\r\n\r\n")
    size = next(
        int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
    )
    left = size - len(body)
    while left > 0:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server has closed")
        left -= len(data)


#: Addresses of users behind a load balancer are made up: each connection has another one.
_ADDRESSES = itertools.count()


def _with_proxy_header(rest: bytes) -> Callable[[Plan, Sent], None]:
    """A PROXY header (version 1) of somebody else each time, and then ``rest``."""

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            number = next(_ADDRESSES) % 2**16
            address = f"10.1.{number // 256}.{number % 256}"
            connection.sendall(b"PROXY TCP4 %s 127.0.0.1 4321 22\r\n" % address.encode() + rest)
            sent.add()
            connection.recv(20)

    return run


def _without_proxy_header(plan: Plan, sent: Sent) -> None:
    """No PROXY header at all: the connection is refused as soon as that is seen."""
    with _connect(plan.port) as connection:
        connection.sendall(b"PROXY " + bytes(200))
        sent.add()
        connection.recv(20)


def _leave_at_once(plan: Plan, sent: Sent) -> None:
    """Connections that are made and left, until the proxy refuses them, and after that."""
    with _connect(plan.port):
        sent.add()


RAW: dict[str, Callable[[Plan, Sent], None]] = {
    "dh-group18": _dh(KEX_GROUPS[0]),
    "dh-group16": _dh(KEX_GROUPS[1]),
    "dh-group14": _dh(KEX_GROUPS[2]),
    "ignore-stranger": _clear_messages(bytes((a.IGNORE,)) + string(b"")),
    "debug-stranger": _clear_messages(bytes((a.DEBUG,)) + b"\0" + string(b"") * 2),
    "krl": _http,
    "balanced": _with_proxy_header(VERSION + b"\r\n"),
    "balanced-no-header": _without_proxy_header,
    "connections": _leave_at_once,
}
