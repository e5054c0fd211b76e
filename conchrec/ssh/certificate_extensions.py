"""The extensions of user certificates that permit something (PROTOCOL.certkeys, "Extensions")."""

from __future__ import annotations

from collections.abc import Collection

PERMITS = (
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
)
"""All that sshd knows, except for ``no-touch-required``, which lifts a condition."""


def permits(without: Collection[str] = ()) -> dict[str, bytes]:
    """Return all permissions as certificate extensions, except for the names in ``without``."""
    return {name: b"" for name in PERMITS if name not in without}
