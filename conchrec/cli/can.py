"""``conchrec can joe root@web1:22``: what the policy says, and which rule says it. Exit 0 or 1."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TextIO

from conchrec.access.options import SWITCHES, Options
from conchrec.access.patterns import address_of
from conchrec.access.policy import Allow, decide, rule_for, sees
from conchrec.config import Config
from conchrec.model import Identity, Target
from conchrec.yamlread import nearest

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

YES, NO = 0, 1
_DESTINATION = re.compile(
    r"(?P<login>.+)@(?:\[(?P<v6>[^\[\]@]+)\]|(?P<host>[^:\[\]@]+))(?::(?P<port>[0-9]{1,5}))?"
)

Resolve = Callable[[Target], tuple[str, ...]]


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("can", help="may this user log in there? exit 0 or 1")
    parser.add_argument("user")
    parser.add_argument("destination", metavar="LOGIN@HOST[:PORT]", type=destination)
    parser.add_argument(
        "--from",
        dest="source",
        metavar="ADDRESS",
        default="",
        help="where the user is, for roles with a source",
    )
    parser.set_defaults(command=command)


def destination(text: str) -> tuple[str, Target]:
    """``root@web1:22`` → the login and the target; ``[fd00::1]:22`` for an address of IPv6."""
    found = _DESTINATION.fullmatch(text)
    port = int(found["port"] or 22) if found else 0
    if found is None or not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not like root@web1:22")
    return found["login"], Target(host=(found["v6"] or found["host"]).lower(), port=port)


def resolved(target: Target) -> tuple[str, ...]:
    """What this machine's resolver says; nothing where it does not know the name."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def command(
    config: Config, args: argparse.Namespace, out: TextIO, err: TextIO, resolve: Resolve = resolved
) -> int:
    login, target = args.destination
    user = config.users.get(args.user)
    if user is None:
        print(f"conchrec: there is no user {args.user!r}{nearest(args.user, tuple(config.users))}", file=err)
        return NO
    if args.source and address_of(args.source) is None:
        print(f"conchrec: {args.source!r} is not an address", file=err)
        return NO
    addresses = resolve(target)
    identity = Identity(user=user.name, method="publickey", roles=user.roles)
    decision = decide(
        config.policy,
        identity,
        target,
        addresses,
        login,
        args.source,
        datetime.now(timezone.utc),
    )
    if not addresses:
        print(f"note: {target.host!r} does not resolve here; rules for addresses were not asked", file=err)
    if not isinstance(decision, Allow):
        print(f"no: {decision.reason}", file=out)
        if not args.source and any(role.source is not None for role in config.policy.roles.values()):
            print("note: some roles have a source; say where the user is with --from ADDRESS", file=err)
        return NO
    print(f"yes: {user.name} may log in as {login} on {target} ({decision.rule})", file=out)
    if decision.addresses:
        print(f"  at {', '.join(decision.addresses)}", file=out)
    rule = rule_for(config.targets, target, decision.addresses)
    if rule is not None:
        print(f"  by the rule for targets {rule.name}", file=out)
    for line in _options(decision.options):
        print(f"  {line}", file=out)
    print(
        f"  recordings: {sees(config.policy, identity, args.source or '', datetime.now(timezone.utc)).value}",
        file=out,
    )
    return YES


def _options(options: Options) -> list[str]:
    opened = {switch: getattr(options, switch) for switch in SWITCHES}
    limits = {
        "max_session_ttl": _duration(options.max_session_ttl),
        "client_idle_timeout": _duration(options.client_idle_timeout),
        "max_sessions": str(options.max_sessions or "no limit"),
        "record": options.record.value,
    }
    return [f"{name}: {'yes' if it else 'no'}" for name, it in opened.items()] + [
        f"{name}: {limit}" for name, limit in limits.items()
    ]


def _duration(duration: timedelta | None) -> str:
    if duration is None:
        return "no limit"
    seconds = int(duration.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
