"""What a new configuration changes while the proxy runs, and what has to wait for the next start. Pure."""

from __future__ import annotations

from dataclasses import fields, replace

from conchrec.config.model import Config, Recordings

#: Bound to sockets, files, keys and names that were opened or made at the start.
AT_START = frozenset(
    {
        "file",
        "cluster_name",
        "state_dir",
        "ca_agent",
        "listen",
        "public_address",
        "proxy_protocol_from",
        "audit",
        "web",
    }
)
#: The same, of ``recordings``.
RECORDINGS_AT_START = frozenset({"directory", "compress", "encrypt_to", "fsync", "input", "min_free"})


def changed(before: Config, after: Config) -> tuple[str, ...]:
    """The settings that are not the same, by their names in the file."""
    names = [field.name for field in fields(Config) if field.name not in ("warnings", "recordings")]
    found = [name for name in names if getattr(before, name) != getattr(after, name)]
    parts = [field.name for field in fields(Recordings)]
    return (
        *found,
        *(
            f"recordings.{name}"
            for name in parts
            if getattr(before.recordings, name) != getattr(after.recordings, name)
        ),
    )


def waits(name: str) -> bool:
    """Does this setting take effect at the next start?"""
    section, _, part = name.partition(".")
    return part in RECORDINGS_AT_START if section == "recordings" else name in AT_START


def effective(before: Config, after: Config) -> Config:
    """The new configuration, but for what waits."""
    kept = {name: getattr(before.recordings, name) for name in RECORDINGS_AT_START}
    return replace(
        after,
        recordings=replace(after.recordings, **kept),
        **{name: getattr(before, name) for name in AT_START},
    )
