"""What a user certificate permits its bearer, as limits of a session (PROTOCOL.certkeys, "Extensions"). Pure.

sshd gives a terminal, forwards, X11 and the agent to the bearer of a certificate only where it has the
``permit-…`` extension. Whoever logs in at the proxy with a certificate is held to the same: what it does not
permit is shut, whatever the roles say, and is missing in the certificate that the proxy signs for the
connection to the target. ``permit-agent-forwarding`` is about the agent going on to the target; that the
proxy logs in with the keys of the agent is no forwarding.
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
        # ~/.ssh/rc at the target: for the certificate of one connection alone.
        "permit-user-rc": (),
    }
)
#: The extension of a certificate that a user had made at the proxy (``login``, ``sign``). What it permits was
#: worked out from the user's roles, for targets that know no roles; at the proxy the roles themselves count.
SELF_SERVICE = "self-service@conchrec"


def withheld(extensions: Collection[str]) -> frozenset[str]:
    """The permits that a certificate with these extensions does not give."""
    return frozenset() if SELF_SERVICE in extensions else frozenset(SWITCHES_OF.keys() - set(extensions))


def permit_of(switch: str) -> str:
    """The extension that opens the switch; empty where none does."""
    return next((name for name, switches in SWITCHES_OF.items() if switch in switches), "")
