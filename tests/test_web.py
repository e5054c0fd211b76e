"""The web face, over a transport in memory: what it gives out, and everything else."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from conchrec.web.export import AT_ONCE, IDLE, MAX_CONNECTIONS, MAX_WAITING, factory
from tests.support.turns import turn


class Keys:
    """Exports that can change."""

    user = "ssh-ed25519 AAAA user CA\n"

    def user_ca_lines(self) -> str:
        return self.user

    def host_ca_lines(self) -> str:
        return "@cert-authority * ssh-ed25519 BBBB host CA\n"

    def krl(self) -> bytes:
        return b"SSHKRL\n\0\xff"


class Web:
    """A listener; each ``line`` is a new connection."""

    def __init__(self) -> None:
        self.keys = Keys()
        self.clock = Clock()
        self.factory: Any = factory(self.keys, self.clock)
        self.factory.doStart()

    def connect(self) -> tuple[Any, StringTransport] | None:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 9))
        if protocol is None:
            return None
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def ask(self, request: bytes) -> bytes:
        connected = self.connect()
        assert connected is not None
        protocol, transport = connected
        protocol.dataReceived(request)
        self.clock.advance(0)
        response: bytes = transport.value()
        return response

    def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {path} HTTP/1.1", "Host: proxy", *headers, "", ""]
        head, _, body = self.ask("\r\n".join(lines).encode()).partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        fields = (line.split(": ", 1) for line in rest)
        return int(first.split()[1]), {name.lower(): value for name, value in fields}, body


EXPORT = "/webapi/auth/export"


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.mark.parametrize(
    ("kind", "content", "content_type", "age"),
    [
        ("user", b"ssh-ed25519 AAAA user CA\n", "text/plain; charset=utf-8", 3600),
        ("host", b"@cert-authority * ssh-ed25519 BBBB host CA\n", "text/plain; charset=utf-8", 3600),
        ("krl", b"SSHKRL\n\0\xff", "application/octet-stream", 60),
    ],
)
def test_serves_documents(web: Web, kind: str, content: bytes, content_type: str, age: int) -> None:
    code, headers, body = web.get(f"{EXPORT}?type={kind}")
    assert (code, body) == (200, content)
    assert headers["content-type"] == content_type
    assert headers["cache-control"] == f"public, max-age={age}"
    assert headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
    code, headers, body = web.get(f"{EXPORT}?type={kind}", method="HEAD")
    assert (code, body, headers["content-length"]) == (200, b"", str(len(content)))


def test_answers_not_modified_when_unchanged(web: Web) -> None:
    _, headers, _ = web.get(f"{EXPORT}?type=user")
    same = f"If-None-Match: {headers['etag']}"
    code, again, body = web.get(f"{EXPORT}?type=user", same)
    assert (code, body, again["etag"]) == (304, b"", headers["etag"])
    web.keys.user = "ssh-ed25519 CCCC the next\n"
    code, changed, body = web.get(f"{EXPORT}?type=user", same)
    assert (code, body) == (200, b"ssh-ed25519 CCCC the next\n")
    assert changed["etag"] != headers["etag"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", 404),
        ("/webapi", 404),
        ("/webapi/auth/export/", 404),
        ("/webapi/auth/export/user", 404),
        ("/webapi/auth/../auth/export?type=user", 404),
        ("//webapi/auth/export?type=user", 404),
        ("/webapi%2fauth%2fexport?type=user", 404),
        ("/<script>?type=user", 404),
        (EXPORT, 400),
        (EXPORT + "?type=", 400),
        (EXPORT + "?type=user_ca", 400),
        (EXPORT + "?type=../../user_ca", 400),
        (EXPORT + "?type=user&type=host", 400),
        (EXPORT + "?kind=user", 400),
    ],
)
def test_answers_not_found(web: Web, path: str, code: int) -> None:
    """One plain line that repeats nothing of the question."""
    answer, headers, body = web.get(path)
    assert (answer, headers["content-type"]) == (code, "text/plain; charset=utf-8")
    assert body in (
        b"conchrec: not found: the only path is /webapi/auth/export?type=user, host or krl\n",
        b"conchrec: invalid parameter type: must be user, host or krl\n",
    )
    assert "server" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"])
def test_rejects_other_methods(web: Web, method: str) -> None:
    code, headers, body = web.get(f"{EXPORT}?type=user", "Content-Length: 0", method=method)
    assert (code, headers["allow"]) == (405, "GET, HEAD")
    assert b"ssh-ed25519" not in body


@pytest.mark.parametrize(
    "header", ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 99999999"]
)
def test_accepts_no_request_body(web: Web, header: str) -> None:
    connected = web.connect()
    assert connected is not None
    protocol, transport = connected
    protocol.dataReceived(f"GET {EXPORT}?type=user HTTP/1.1\r\nHost: proxy\r\n{header}\r\n\r\n".encode())
    web.clock.advance(0)
    assert transport.value().startswith(b"HTTP/1.1 413 ")
    assert transport.disconnecting


@pytest.mark.parametrize(
    "request_bytes",
    [b"\0" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"A" * 70_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9_000],
)
def test_rejects_malformed_request(web: Web, request_bytes: bytes) -> None:
    connected = web.connect()
    assert connected is not None
    protocol, transport = connected
    protocol.dataReceived(request_bytes)
    web.clock.advance(0)
    assert b" 200 " not in transport.value()
    assert transport.disconnecting or transport.disconnected


def test_answers_one_request_and_closes(web: Web) -> None:
    """Hundreds in one read would be answered in one turn of the reactor."""
    request = f"GET {EXPORT}?type=user HTTP/1.1\r\nHost: proxy\r\n\r\n".encode()
    connected = web.connect()
    assert connected is not None
    protocol, transport = connected
    protocol.dataReceived(request * 500)
    web.clock.advance(0)
    assert transport.value().count(b"ssh-ed25519 AAAA user CA\n") == 1
    assert b"\r\nConnection: close\r\n" in transport.value()
    assert transport.disconnecting


def test_answers_few_connections_in_one_turn(web: Web) -> None:
    connections = [web.connect() for _ in range(50)]
    for connected in connections:
        assert connected is not None
        connected[0].dataReceived(f"GET {EXPORT}?type=krl HTTP/1.1\r\nHost: proxy\r\n\r\n".encode())
    answered = [0]
    while answered[-1] < 50:
        turn(web.clock)
        answered.append(sum(bool(connected and connected[1].value()) for connected in connections))
        assert 0 < answered[-1] - answered[-2] <= AT_ONCE


def test_bounds_unsent_bytes(web: Web) -> None:
    connected = web.connect()
    assert connected is not None
    protocol, transport = connected
    for _ in range(20):
        protocol.dataReceived(bytes(10_000))
    assert transport.disconnected
    assert len(protocol.unread) <= MAX_WAITING


def test_closes_silent_connection(web: Web) -> None:
    connected = web.connect()
    assert connected is not None
    protocol, transport = connected
    protocol.dataReceived(b"GET /")
    web.clock.advance(0)
    web.clock.advance(IDLE - 1)
    assert not transport.disconnecting
    web.clock.advance(1)
    assert transport.disconnecting


def test_limits_concurrent_connections(web: Web) -> None:
    connections = [web.connect() for _ in range(MAX_CONNECTIONS)]
    assert None not in connections
    assert web.connect() is None
    first = connections[0]
    assert first is not None
    first[0].connectionLost(None)
    assert web.connect() is not None


def test_runs_no_timer_when_idle(web: Web) -> None:
    assert web.clock.getDelayedCalls() == []
