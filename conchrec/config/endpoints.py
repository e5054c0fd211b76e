"""``listen``: descriptions of Twisted's server endpoints, as far as they are checked here."""

from __future__ import annotations

from conchrec.config.model import is_port
from conchrec.yaml_cursor import Section, nearest

_ENDPOINTS = ("tcp", "tcp6", "unix", "systemd", "fd", "haproxy")
WEB_ENDPOINTS = (*_ENDPOINTS, "ssl")


def parse_listen(top: Section, believes_proxies: bool) -> tuple[str, ...]:
    """Server endpoints; Twisted has the last word on their syntax (``config check`` asks it)."""
    if "listen" not in top:
        return ("tcp:3023",)
    found = parse_endpoints(top, _ENDPOINTS, proxies=believes_proxies)
    if not found and not top.is_wrong("listen"):
        top.problem("listen", "is empty: nothing would listen")
    return found


def parse_endpoints(section: Section, kinds: tuple[str, ...], *, proxies: bool) -> tuple[str, ...]:
    """``listen``; none where it is not there."""
    entries = section.texts("listen")
    for entry in entries:
        kind, _, rest = entry.text.partition(":")
        if kind not in kinds:
            entry.problem(f"{kind!r} is not a kind of endpoint{nearest(kind, kinds)}")
        elif kind in ("tcp", "tcp6", "ssl") and not is_port(_port_of(rest), least=0):
            entry.problem(f"{entry.text!r} has no port between 0 and 65535 (tcp:3023:interface=127.0.0.1)")
        elif kind == "haproxy" and not proxies:
            entry.problem("whoever connects could claim any address: say who may in proxy_protocol_from")
    return tuple(entry.text for entry in entries)


def _port_of(arguments: str) -> str:
    """Of a tcp endpoint: the first argument, or the one by that name."""
    first, *others = arguments.split(":")
    named = (argument.removeprefix("port=") for argument in others if argument.startswith("port="))
    return first.removeprefix("port=") if "=" not in first or first.startswith("port=") else next(named, "")
