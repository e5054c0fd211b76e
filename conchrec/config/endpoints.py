"""``listen``: checks descriptions of Twisted's server endpoints. Twisted itself checks them further."""

from __future__ import annotations

from conchrec.model import is_port
from conchrec.yaml_cursor import Section, nearest

_ENDPOINTS = ("tcp", "tcp6", "unix", "systemd", "fd", "haproxy")
WEB_ENDPOINTS = (*_ENDPOINTS, "ssl")


def parse_listen(top: Section, believes_proxies: bool) -> tuple[str, ...]:
    """The endpoints of the proxy. ``believes_proxies``: haproxy endpoints are allowed."""
    if "listen" not in top:
        return ("tcp:3023",)
    endpoints = parse_endpoints(top, _ENDPOINTS, proxies=believes_proxies)
    if not endpoints and not top.is_wrong("listen"):
        top.problem("listen", "is empty: the proxy needs at least one endpoint, like tcp:3023")
    return endpoints


def parse_endpoints(section: Section, kinds: tuple[str, ...], *, proxies: bool) -> tuple[str, ...]:
    """The endpoints in ``listen`` of a section; none where the key is missing."""
    entries = section.texts("listen")
    for entry in entries:
        kind, _, rest = entry.text.partition(":")
        if kind not in kinds:
            entry.problem(f"unknown endpoint type {kind!r}{nearest(kind, kinds)}")
        elif kind in ("tcp", "tcp6", "ssl") and not is_port(_port_of(rest), least=0):
            entry.problem(
                f"invalid endpoint {entry.text!r}: needs a port from 0 to 65535, like"
                " tcp:3023:interface=127.0.0.1"
            )
        elif kind == "haproxy" and not proxies:
            entry.problem(
                "haproxy needs proxy_protocol_from: list the addresses of the load balancers there"
                " (without it every client could claim any address)"
            )
    return tuple(entry.text for entry in entries)


def _port_of(arguments: str) -> str:
    """The port of a tcp endpoint: the first argument, or the one named ``port``."""
    first, *others = arguments.split(":")
    named = (argument.removeprefix("port=") for argument in others if argument.startswith("port="))
    return first.removeprefix("port=") if "=" not in first or first.startswith("port=") else next(named, "")
