"""The options of a login at a target, and how those of several roles are combined. Pure.

``TABLE`` says how an option of several roles becomes one: ``combine`` follows it, and ``docs/roles.md`` has
it.

A switch is open or closed by default. A role may say yes, no, or nothing: a ``no`` of one role wins over all
other roles; a ``yes`` opens a closed switch. Of several limits the strictest holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar

from conchrec.access.command_patterns import CommandPattern

T = TypeVar("T")
_Limit = TypeVar("_Limit", int, timedelta)


class Record(Enum):
    """What happens if a session cannot be recorded."""

    STRICT = "strict"
    """It does not start, or it ends."""
    BEST_EFFORT = "best_effort"
    """It goes on unrecorded, with an audit event."""


class VisibleRecordings(Enum):
    """Whose recordings a user may see over ssh."""

    NONE = "none"
    """Nobody's."""
    OWN = "own"
    """The user's own."""
    ALL = "all"
    """Everybody's."""


class Mfa(Enum):
    """When a second factor is required: a code, or the touch of a hardware key."""

    NO = "no"
    """Never."""
    LOGIN = "login"
    """For each connection to the proxy."""
    SESSION = "session"
    """For each connection to a target, and for each command to the proxy."""

    @property
    def level(self) -> int:
        """How strict it is: 0 for NO."""
        return list(Mfa).index(self)


class Adds(Enum):
    """How an option of several roles is combined."""

    STRICTEST = "the strictest holds"
    OPEN = "open, unless one of them says no"
    CLOSED = "closed, unless one of them says yes and none says no"
    UNION = "what one of them allows is allowed; a role without a list allows every command"
    EACH = "each has to be satisfied"
    WIDEST = "the widest holds, of all the roles of a user"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionRow:
    """One option. A ``shorthand`` stands for these other options, where they are not written.

    ``example`` is a value for the documentation, if neither the default nor its opposite is useful.
    """

    name: str
    adds: Adds
    default: str
    about: str
    example: str = ""
    shorthand: tuple[str, ...] = ()


TABLE: tuple[OptionRow, ...] = (
    OptionRow(name="max_session_ttl", adds=Adds.STRICTEST, default="no limit",
        about="how long a connection to a target may last", example="12h"),
    OptionRow(name="client_idle_timeout", adds=Adds.STRICTEST, default="no limit",
        about="how long a connection to a target may be without a keystroke", example="15m"),
    OptionRow(name="max_sessions", adds=Adds.STRICTEST, default="10",
        about="how many session channels one connection to a target may have at one time"),
    OptionRow(name="max_connections", adds=Adds.STRICTEST, default="no limit",
        about="how many connections to targets a user may have at one time", example="5"),
    OptionRow(name="shell", adds=Adds.OPEN, default="yes", about="login shells, with or without a terminal"),
    OptionRow(name="pty", adds=Adds.OPEN, default="yes", about="terminals (`ssh -t`, interactive shells)"),
    OptionRow(name="exec", adds=Adds.OPEN, default="yes",
        about="commands (`ssh host command`); `scp -O`, rsync and git are commands, too"),
    OptionRow(name="commands", adds=Adds.UNION, default="every command",
        about="the only commands that are allowed; shells and subsystems are then closed unless the role "
        "opens them",
        example='[uptime, "systemctl restart *"]'),
    OptionRow(name="subsystem", adds=Adds.OPEN, default="yes", about="subsystems other than sftp"),
    OptionRow(name="file_copy", adds=Adds.OPEN, default="yes",
        about="`sftp` and `scp` together", shorthand=("sftp", "scp")),
    OptionRow(name="sftp", adds=Adds.OPEN, default="yes",
        about="the subsystem sftp (`sftp`, `sshfs`, current `scp`), and commands that are seen to run its "
        "server"),
    OptionRow(name="scp", adds=Adds.OPEN, default="yes",
        about="commands that are seen to run scp at the target"),
    OptionRow(name="port_forwarding", adds=Adds.CLOSED, default="no",
        about="the next three options together",
        shorthand=("local_forwarding", "remote_forwarding", "streamlocal_forwarding")),
    OptionRow(name="local_forwarding", adds=Adds.CLOSED, default="no",
        about="`ssh -L`, `-D` and `-W` at the target"),
    OptionRow(name="remote_forwarding", adds=Adds.CLOSED, default="no", about="`ssh -R` at the target"),
    OptionRow(name="streamlocal_forwarding", adds=Adds.CLOSED, default="no",
        about="`ssh -L` and `-R` with sockets at the target"),
    OptionRow(name="x11_forwarding", adds=Adds.CLOSED, default="no", about="`ssh -X` and `-Y`"),
    OptionRow(name="forward_agent", adds=Adds.CLOSED, default="no",
        about="the user's agent at the target (`ssh -A`)"),
    OptionRow(name="unknown_requests", adds=Adds.OPEN, default="yes",
        about="requests that conchrec does not know, which are relayed unread"),
    OptionRow(name="nested_ssh", adds=Adds.OPEN, default="yes",
        about="SSH inside a forward, which is not recorded; with `no`, such a forward ends"),
    OptionRow(name="record", adds=Adds.STRICTEST, default="strict",
        about="what happens if a session cannot be recorded"),
    OptionRow(name="require_mfa", adds=Adds.STRICTEST, default="no",
        about="when a second factor is required", example="session"),
    OptionRow(name="approval", adds=Adds.EACH, default="none",
        about="roles: somebody else who has one of them has to approve each connection to a target",
        example="[lead]"),
    OptionRow(name="recordings", adds=Adds.WIDEST, default="own",
        about="whose recordings a user may see with ssh"),
)  # fmt: skip
"""In the order in which people are shown them."""

SHORTHANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {row.name: row.shorthand for row in TABLE if row.shorthand}
)
SWITCHES: Mapping[str, bool] = MappingProxyType(
    {
        row.name: row.adds is Adds.OPEN
        for row in TABLE
        if row.adds in (Adds.OPEN, Adds.CLOSED) and not row.shorthand
    }
)
"""All switches without the shorthands, and whether they are open by default."""
#: A role with ``commands`` closes these, unless it says yes.
_CLOSED_BY_COMMANDS = frozenset({"shell", "subsystem", "sftp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """The options of a login, of all its roles together. None means no limit; for ``commands``, any command.

    ``max_sessions`` limits the session channels of one connection to a target at one time,
    ``max_connections`` the user's connections to targets. ``approval`` requires, for each of its sets,
    another user who has one of the roles in the set.
    """

    max_session_ttl: timedelta | None = None
    client_idle_timeout: timedelta | None = None
    max_sessions: int | None = 10
    max_connections: int | None = None
    shell: bool = True
    pty: bool = True
    exec: bool = True
    commands: tuple[CommandPattern, ...] | None = None
    subsystem: bool = True
    sftp: bool = True
    scp: bool = True
    local_forwarding: bool = False
    remote_forwarding: bool = False
    streamlocal_forwarding: bool = False
    x11_forwarding: bool = False
    forward_agent: bool = False
    unknown_requests: bool = True
    nested_ssh: bool = True
    record: Record = Record.STRICT
    require_mfa: Mfa = Mfa.NO
    approval: tuple[frozenset[str], ...] = ()
    recordings: VisibleRecordings = VisibleRecordings.OWN


def switches(**written: bool) -> Mapping[str, bool]:
    """The switches that a role sets, with shorthands resolved; a switch of its own wins over a shorthand."""
    resolved = {
        name: written[short] for short, names in SHORTHANDS.items() if short in written for name in names
    }
    own = {name: value for name, value in written.items() if name not in SHORTHANDS}
    return MappingProxyType(resolved | own)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleOptions:
    """The options of one role. ``switches`` has only those that the role sets; ``approval`` names roles."""

    switches: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    commands: tuple[CommandPattern, ...] | None = None
    max_session_ttl: timedelta | None = None
    client_idle_timeout: timedelta | None = None
    max_sessions: int | None = 10
    max_connections: int | None = None
    record: Record = Record.STRICT
    require_mfa: Mfa = Mfa.NO
    approval: frozenset[str] = frozenset()
    recordings: VisibleRecordings = VisibleRecordings.OWN

    def opens(self, switch: str) -> bool:
        """Whether the role opens the switch, explicitly or by default."""
        default = SWITCHES[switch] and not (self.commands is not None and switch in _CLOSED_BY_COMMANDS)
        return self.switches.get(switch, default)


def combine(limiting: Sequence[RoleOptions], opening: Sequence[RoleOptions]) -> SessionOptions:
    """The options that all roles together allow.

    ``opening`` are those of ``limiting`` whose yes counts: a role that allows only some addresses of a
    target opens no switch.
    """
    closed = {switch for role in limiting for switch, is_open in role.switches.items() if not is_open}
    opened: dict[str, Any] = {
        switch: switch not in closed and any(role.opens(switch) for role in opening) for switch in SWITCHES
    }
    return SessionOptions(
        max_session_ttl=_least(role.max_session_ttl for role in limiting),
        client_idle_timeout=_least(role.client_idle_timeout for role in limiting),
        max_sessions=_least(role.max_sessions for role in limiting),
        max_connections=_least(role.max_connections for role in limiting),
        commands=_commands([role for role in opening if role.opens("exec")]),
        record=_strictest((role.record for role in limiting), lambda record: record is Record.STRICT),
        require_mfa=_strictest((role.require_mfa for role in limiting), lambda mfa: mfa.level),
        approval=tuple(dict.fromkeys(role.approval for role in limiting if role.approval)),
        **opened,
    )


def _least(limits: Iterable[_Limit | None]) -> _Limit | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _strictest(values: Iterable[T], strictness: Callable[[T], int]) -> T:
    return max(values, key=strictness)


def _commands(roles: Sequence[RoleOptions]) -> tuple[CommandPattern, ...] | None:
    lists = [role.commands for role in roles]
    if any(commands is None for commands in lists):
        return None
    return tuple(dict.fromkeys(pattern for commands in lists for pattern in commands or ()))


def why_not(options: SessionOptions, kind: str, argument: str, programs: Collection[str]) -> str:
    """The option that forbids to start this; empty where none does.

    ``kind`` is shell, exec or subsystem, ``argument`` the command line or the subsystem's name, ``programs``
    the transfer programs in it (sftp, scp, and others, which no option forbids).
    """
    if kind == "shell":
        required: tuple[str, ...] = ("shell",)
    elif kind == "exec":
        required = ("exec", *(program for program in ("sftp", "scp") if program in programs))
    else:
        required = ("sftp",) if argument == "sftp" else ("subsystem",)
    closed = next((switch for switch in required if not getattr(options, switch)), "")
    if closed or kind != "exec" or options.commands is None:
        return closed
    return "" if any(pattern.matches(argument) for pattern in options.commands) else "commands"
