"""The arguments of a program that floods, the count that it prints, and the notes of the report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

#: The source address of floods: another one than the bystander's, because limits are for each address.
SOURCE = "127.0.0.9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The arguments of ``bench.hostile_client``.

    ``port`` is that of the jump host. ``user`` logs in there, and ``login`` at ``target_port``, both with the
    key in the file ``key``. ``count`` is the number of connections at one time, ``channels`` that of channels
    in each of them.
    """

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
    """The number of messages that were sent."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, count: int = 1) -> None:
        """Count messages; print ``flooding`` at the first one."""
        if not self.count:
            print("flooding", flush=True)
        self.count += count


NOTES = (
    "must: from the same bystander's times right before the flood: three times a keystroke and 5 ms, twice a"
    " login and half a second; a lock ends the flooding user's connection within 2 s",
    "the yardstick is a stock sshd as jump host under the same flood, with a process for each connection;"
    " all programs share this machine's cores; the flooding client and its target have one core and a low"
    " priority, because in use they are other machines",
    "the proxy has `algorithms: compatible`; its revocations are 5,000 serials",
)
"""The notes below the figures."""
