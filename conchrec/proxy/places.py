"""Where a user wants to go, as it was written: ``direct-tcpip``'s host and port, the subsystem's name."""

from __future__ import annotations

from conchrec.errors import AccessDenied
from conchrec.model import Target
from conchrec.proxy import refusal
from conchrec.settings import host_and_port

#: What the subsystem's name begins with.
SUBSYSTEM = b"proxy:"
#: A name longer than DNS knows is no name.
MAX_HOST = 255


def named_target(host: bytes, port: str) -> Target:
    """What the client named. AccessDenied where it is no host, or no port."""
    try:
        text = host.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    shown = refusal.one_line(host.decode("utf-8", "replace"), 80)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    found = None
    if 0 < len(bare) <= MAX_HOST:
        found = host_and_port(f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}")
    if found is None:
        raise AccessDenied(f"{shown}:{port} is not a host and port", rule="not a host")
    return Target(host=found.host.rstrip(".") or found.host, port=found.port)


def subsystem_target(place: bytes, cluster_name: str) -> Target:
    """``host``, ``host:port``, ``host:port@cluster``; an IPv6 address in brackets."""
    name, _, cluster = place.partition(b"@")
    if cluster and cluster != cluster_name.encode():
        shown = refusal.one_line(cluster.decode("utf-8", "replace"), 80)
        raise AccessDenied(f"this proxy is of the cluster {cluster_name}, not of {shown}", rule="cluster")
    if name.startswith(b"[") and b"]" in name:
        host, _, rest = name[1:].partition(b"]")
        port = rest.removeprefix(b":")
    elif name.count(b":") > 1:
        # ``proxy:%h:%p`` with a bare IPv6 address: the last part is the port.
        host, _, port = name.rpartition(b":")
    else:
        host, _, port = name.partition(b":")
    return named_target(host, port.decode("ascii", "replace") or "22")
