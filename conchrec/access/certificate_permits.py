"""The limits that a user certificate sets for sessions (PROTOCOL.certkeys, "Extensions"). Pure.

sshd allows a terminal, forwards, X11 and the agent to a user with a certificate only if that has the
``permit-…`` extension. The proxy enforces the same: what the certificate does not permit is closed,
whatever the roles say, and is missing in the certificate that the proxy signs for the connection to the
target. ``permit-agent-forwarding`` is about forwarding the agent to the target; when the proxy logs in with
the keys of the agent, that is not forwarding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from conchrec.access.options import SHORTHANDS

#: The switches (``access.options``) that each extension opens.
SWITCHES_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "permit-X11-forwarding": ("x11_forwarding",),
        "permit-agent-forwarding": ("forward_agent",),
        "permit-port-forwarding": SHORTHANDS["port_forwarding"],
        "permit-pty": ("pty",),
        # ~/.ssh/rc at the target: only in the certificate for one connection.
        "permit-user-rc": (),
    }
)
#: The extension of a certificate that the proxy signed for a user (``login``, ``sign``). Its permits follow
#: from the user's roles, for targets, which know no roles; at the proxy the roles themselves count.
SELF_SERVICE = "self-service@conchrec"


def withheld(extensions: Collection[str]) -> frozenset[str]:
    """The permits that a certificate with these extensions lacks."""
    return frozenset() if SELF_SERVICE in extensions else frozenset(SWITCHES_OF.keys() - set(extensions))


def permit_of(switch: str) -> str:
    """The extension that opens the switch; empty if it has no extension."""
    return next((name for name, switches in SWITCHES_OF.items() if switch in switches), "")
