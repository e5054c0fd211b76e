"""Parses the names of targets: the host and port of ``direct-tcpip``, and the name of the subsystem."""

from __future__ import annotations

from conchrec import model
from conchrec.errors import AccessDenied
from conchrec.model import Target
from conchrec.reasons import ReasonCode
from conchrec.text import decode_text, one_line

#: The first characters of the subsystem's name.
SUBSYSTEM = b"proxy:"


def parse_target(host: bytes, port: str) -> Target:
    """Return the target with this host and port. Raises AccessDenied where one of them is invalid."""
    shown = one_line(host, 80)
    target = model.named_target(decode_text(host), port)
    if target is None:
        raise AccessDenied(
            f"invalid target '{shown}:{port}': must be a host name or an address, and a port from 1 to 65535",
            rule="not a host",
            code=ReasonCode.INVALID_TARGET,
        )
    return target


def parse_subsystem(name: bytes, cluster_name: str) -> Target:
    """Return the target that ``name`` (what follows ``proxy:``) means. Raises AccessDenied.

    Forms: ``host``, ``host:port``, ``host:port@cluster``; an IPv6 address in brackets, or bare with a port.
    """
    name, _, cluster = name.partition(b"@")
    if cluster and cluster != cluster_name.encode():
        shown = one_line(cluster, 80)
        raise AccessDenied(
            f"cannot reach cluster {shown}: this proxy belongs to cluster {cluster_name}. "
            "Leave @CLUSTER out, or use the other cluster's proxy",
            rule="cluster",
            code=ReasonCode.OTHER_CLUSTER,
        )
    if name.startswith(b"[") and b"]" in name:
        host, _, rest = name[1:].partition(b"]")
        port = rest.removeprefix(b":")
    elif name.count(b":") > 1:
        # ``proxy:%h:%p`` with an IPv6 address: ssh writes no brackets, and the last part is the port.
        host, _, port = name.rpartition(b":")
    else:
        host, _, port = name.partition(b":")
    return parse_target(host, decode_text(port) or "22")
