"""Where a user wants to go, as it was written: ``direct-tcpip``'s host and port, the subsystem's name."""

from __future__ import annotations

from conchrec.config import model
from conchrec.errors import AccessDenied
from conchrec.model import Target
from conchrec.reasons import ReasonCode
from conchrec.text import decode_text, one_line

#: What the subsystem's name begins with.
SUBSYSTEM = b"proxy:"


def named_target(host: bytes, port: str) -> Target:
    """What the client named. AccessDenied where it is no host, or no port."""
    shown = one_line(host, 80)
    found = model.named_target(decode_text(host), port)
    if found is None:
        raise AccessDenied(
            f"invalid target {shown}:{port}: must be a host name or an address, and a port from 1 to 65535",
            rule="not a host",
            code=ReasonCode.INVALID_TARGET,
        )
    return found


def subsystem_target(place: bytes, cluster_name: str) -> Target:
    """``host``, ``host:port``, ``host:port@cluster``; an IPv6 address in brackets."""
    name, _, cluster = place.partition(b"@")
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
        # ``proxy:%h:%p`` with a bare IPv6 address: the last part is the port.
        host, _, port = name.rpartition(b":")
    else:
        host, _, port = name.partition(b":")
    return named_target(host, decode_text(port) or "22")
