"""A role: which logins at which targets it allows, from where and when, and with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from conchrec.access.options import RoleOptions
from conchrec.access.patterns import HostPattern, IPNetwork
from conchrec.access.time_windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One role. An empty tuple allows nobody; ``source`` and ``times`` may be None: from anywhere, always.

    The order of the fields says where the file has them: those after ``options`` are among its options.
    ``expires`` is aware. ``lines`` has the line of each setting (``logins``, ``deny.logins``,
    ``options.times``; ``""`` is the role itself).
    """

    name: str
    logins: tuple[str, ...] = ()
    """The accounts at targets that this role allows: names, `{user}` for the user's own name, and patterns
    with `*` and `?`.

    Example: ["{user}", ubuntu]
    """
    hosts: tuple[HostPattern, ...] = ()
    """The targets that this role allows: names with `*` and `?`, addresses and networks, each with a port or
    for every port; `group:NAME` and `label:KEY=VALUE` for groups of `targets`.

    Example: ["*.example.com", "10.0.0.0/8", "db1:2222"]
    """
    deny_hosts: tuple[HostPattern, ...] = ()
    """The targets that are denied to each user who has this role, whatever other roles allow. A name and any
    of its addresses match; other names of the same host do not.

    Example: ["vault.example.com"]
    """
    deny_logins: tuple[str, ...] = ()
    """The accounts that are denied to each user who has this role, whatever other roles allow.

    Example: [oracle]
    """
    options: RoleOptions = field(default_factory=RoleOptions)
    """What a user may do at these targets."""
    direct: bool = False
    """Whether certificates from `login` and `sign` name the logins of this role. With such a certificate,
    users reach every target that trusts the user CA without the proxy, and unrecorded."""
    source: tuple[IPNetwork, ...] | None = None
    """The addresses and networks from which this role counts. The default is anywhere.

    Example: ["10.0.0.0/8"]
    """
    times: tuple[Window, ...] | None = None
    """When this role counts. The default is always; without a time zone the times are UTC.

    Example: ["mon-fri 08:00-18:00 Europe/Berlin"]
    """
    expires: datetime | None = None
    """When this role ends, for all of its users. The default is never.

    Example: 2030-01-01
    """
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)

    def line(self, setting: str) -> int:
        """The line of the setting, else that of the role; 0 if it is in no file."""
        return self.lines.get(setting, self.lines.get("", 0))
