"""All fuzzers there are."""

from __future__ import annotations

from fuzz.target import Target
from fuzz.targets import (
    agents,
    casts,
    certificates,
    connections,
    early,
    evidence,
    headers,
    lines,
    logins,
    parsers,
    pictures,
    relays,
    revocations,
    transfers,
)

TARGETS: tuple[Target, ...] = (
    parsers.TARGET,
    certificates.TARGET,
    revocations.TARGET,
    agents.TARGET,
    lines.TARGET,
    casts.TARGET,
    pictures.TARGET,
    evidence.TARGET,
    headers.TARGET,
    early.SERVER,
    early.CLIENT,
    logins.SERVER,
    logins.CLIENT,
    connections.SERVER,
    connections.CLIENT,
    relays.TARGET,
    transfers.SFTP,
    transfers.SCP,
)
