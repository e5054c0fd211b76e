"""``GET /webapi/auth/export?type=user|host|krl``: the keys that targets and users must trust.

All of it is public: the public keys of the authorities, and the list of revoked keys. So every client gets
it, over HTTP, or over HTTPS where the endpoint uses TLS. There are no other pages.
"""

from __future__ import annotations

import hashlib
from collections import deque
from functools import lru_cache
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import BAD_REQUEST, CACHED, NOT_ALLOWED, NOT_FOUND
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

PATH = b"/webapi/auth/export"
#: Connections at one time: even a large fleet requests the keys only now and then.
MAX_CONNECTIONS = 200
#: Connections that are read in one turn of the reactor.
AT_ONCE = 2
#: The most bytes of one connection that wait to be read; a request is smaller.
MAX_WAITING = 64 * 1024
#: After how many seconds without data a connection is closed.
IDLE = 15.0
#: How long clients may cache a response, in seconds: a revocation list must be fresh.
KEYS_AGE, KRL_AGE = 3600, 60
_TEXT = b"text/plain; charset=utf-8"
_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Exports(Protocol):
    """The data that the page serves."""

    def user_ca_lines(self) -> str:
        """The trusted keys of the user CA, a line for each, for TrustedUserCAKeys."""

    def host_ca_lines(self) -> str:
        """An ``@cert-authority`` line for each trusted key of the host CA, for known_hosts."""

    def krl(self) -> bytes:
        """The revocation list for RevokedKeys (PROTOCOL.krl)."""


def factory(exports: Exports, reactor: Any) -> WrappingFactory[Any]:
    """The factory for a listener of the web server."""
    return _Limited(_Quiet(Export(exports), requestFactory=_Bodiless, reactor=reactor), reactor)


class Export(Resource):
    """The page, and the response to every other path."""

    isLeaf = True

    def __init__(self, exports: Exports) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._exports = exports

    def render(self, request: Request) -> bytes:
        """The response to one request."""
        request.responseHeaders.removeHeader(b"server")
        # Only a flood has use for a second request on one connection.
        request.setHeader(b"connection", b"close")
        request.channel.persistent = False
        request.setHeader(b"x-content-type-options", b"nosniff")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return _problem(request, NOT_ALLOWED, "method not allowed: use GET or HEAD")
        if request.path != PATH:
            return _problem(
                request, NOT_FOUND, "not found: the only path is /webapi/auth/export?type=user, host or krl"
            )
        types = (request.args or {}).get(b"type", [])
        if types == [b"user"]:
            return _answer(request, self._exports.user_ca_lines().encode(), _TEXT, KEYS_AGE)
        if types == [b"host"]:
            return _answer(request, self._exports.host_ca_lines().encode(), _TEXT, KEYS_AGE)
        if types == [b"krl"]:
            return _answer(request, self._exports.krl(), b"application/octet-stream", KRL_AGE)
        return _problem(request, BAD_REQUEST, "invalid parameter type: must be user, host or krl")


def _answer(request: Request, body: bytes, kind: bytes, age: int) -> bytes:
    request.setHeader(b"content-type", kind)
    request.setHeader(b"cache-control", b"public, max-age=%d" % age)
    if request.setETag(_tag(body)) is CACHED:
        return b""
    request.setHeader(b"content-length", b"%d" % len(body))
    return b"" if request.method == b"HEAD" else body


@lru_cache(maxsize=8)
def _tag(body: bytes) -> bytes:
    """The ETag of a body; cached, because the same few bodies are served again and again."""
    return b'"%s"' % hashlib.sha256(body).hexdigest().encode()


def _problem(request: Request, status: int, text: str) -> bytes:
    """An error response of one line, without any text of the request."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", _TEXT)
    request.setHeader(b"cache-control", b"no-store")
    body = f"conchrec: {text}\n".encode()
    request.setHeader(b"content-length", b"%d" % len(body))
    return b"" if request.method == b"HEAD" else body


class _Bodiless(Request):
    """A request without a body; one with a body gets an error, and its body is not read."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)  # type: ignore[no-untyped-call]
        if length != 0:
            line: Any = self.channel.transport
            line.write(_TOO_LARGE)
            line.loseConnection()


class _InTurn(ProtocolWrapper):
    """A connection whose bytes are read when it is its turn."""

    factory: _Limited

    def __init__(self, factory: _Limited, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self.unread = bytearray()

    def dataReceived(self, data: bytes) -> None:
        if len(self.unread) + len(data) > MAX_WAITING:
            self.unread.clear()
            self.abortConnection()
            return
        if not self.unread:
            self.factory.wait(self)
        self.unread += data

    def read(self) -> None:
        data = bytes(self.unread)
        self.unread.clear()
        if data and not self.disconnecting:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.unread.clear()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


@implementer(IProtocolNegotiationFactory)
class _Limited(WrappingFactory[_InTurn]):
    """Limits the connections, and how many of them are read in one turn of the reactor.

    TLS asks it which protocols there are, and it asks the site.
    """

    noisy = False
    protocol = _InTurn
    wrappedFactory: Site

    def __init__(self, site: Site, reactor: Any) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._waiting: deque[_InTurn] = deque()
        self._scheduled = False

    def wait(self, connection: _InTurn) -> None:
        """Read ``connection`` when it is its turn."""
        self._waiting.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._read)

    def _read(self) -> None:
        self._scheduled = False
        for _ in range(min(AT_ONCE, len(self._waiting))):
            self._waiting.popleft().read()
        self._schedule()

    def acceptableProtocols(self) -> Any:
        return self.wrappedFactory.acceptableProtocols()

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.protocols) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)


class _Quiet(Site):
    """A site without a log of requests: nobody needs to know who reads public keys."""

    noisy = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, timeout=IDLE, parsePOSTFormSubmission=False, **named)  # type: ignore[no-untyped-call]

    def startFactory(self) -> None:
        """Do nothing: Twisted's method opens a log, and starts a timer that fires each second."""

    def stopFactory(self) -> None:
        """Do nothing: there is no log to close."""

    def log(self, request: Any) -> None:
        """Do nothing."""
