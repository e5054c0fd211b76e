"""What a flood is told, and what it says of itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

#: Where a flood comes from, so that limits for each address do not hit the bystander.
SOURCE = "127.0.0.9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``port`` is that of the jump host. ``user`` logs in there and ``login`` at ``target_port``, both with
    the key in the file ``key``. ``count`` connections at one time, with ``channels`` in each of them."""

    kind: str
    port: int
    user: str = ""
    login: str = ""
    key: str = ""
    target_port: int = 0
    count: int = 1
    channels: int = 1

    def words(self) -> str:
        """Return the plan as one argument of a command."""
        return json.dumps(asdict(self))


class Sent:
    """How many there were; the first one is announced."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, count: int = 1) -> None:
        """Count messages; print ``flooding`` at the first one."""
        if not self.count:
            print("flooding", flush=True)
        self.count += count


NOTES = (
    "must: what the same bystander had right before the flood, three times and 5 ms more for a key, twice and"
    " half a second more for a login; a lock ends the flooding user's connection within 2 s",
    "the yardstick is a stock sshd as jump host under the same flood, with a process for each connection;"
    " all programs share this machine's cores; the flooding client and its target have one core and a low"
    " priority, for in use they are other machines",
    "the proxy has `algorithms: compatible`; its revocations are 5,000 serials",
)
"""What the report says below the figures."""
