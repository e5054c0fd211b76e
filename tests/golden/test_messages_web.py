"""What the web listener answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from conchrec.web.export import factory
from tests.golden.conftest import Compare
from tests.golden.entries import Entries


class _Keys:
    def user_ca_lines(self) -> str:
        return "ssh-ed25519 KEY user CA\n"

    def host_ca_lines(self) -> str:
        return "@cert-authority * ssh-ed25519 KEY host CA\n"

    def krl(self) -> bytes:
        return b"a list of keys"


def _answer(request: str) -> str:
    clock = Clock()
    site: Any = factory(_Keys(), clock)
    site.doStart()
    protocol, transport = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 9)), StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(request.encode())
    clock.advance(0)
    response: bytes = transport.value()
    return response.decode()


def test_keeps_messages_of_web(golden: Compare) -> None:
    entries = Entries(Path("/nowhere"))
    for line, more in (
        ("GET /webapi/auth/export?type=user", ""),
        ("GET /webapi/auth/export?type=host", ""),
        ("GET /webapi/auth/export?type=krl", ""),
        ("HEAD /webapi/auth/export?type=user", ""),
        ("GET /webapi/auth/export", ""),
        ("GET /webapi/auth/export?type=both", ""),
        ("GET /", ""),
        ("POST /webapi/auth/export?type=user", ""),
        ("POST /webapi/auth/export?type=user", "Content-Length: 9\r\n"),
    ):
        answer = _answer(f"{line} HTTP/1.1\r\nHost: proxy\r\n{more}\r\n")
        head, _, body = answer.partition("\r\n\r\n")
        status, *headers = head.split("\r\n")
        shown = [header for header in headers if not header.startswith("Date:")]
        entries.add(line, status, "\n".join([*shown, "", body]))
    golden("messages/web.txt", entries.text())
