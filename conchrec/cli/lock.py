"""``conchrec lock | unlock | locks``: who must stay out, and go if they are in; the proxy obeys at once."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TextIO

from conchrec.access.host_rules import rule_for
from conchrec.access.lock_file import Locks, check_name
from conchrec.access.locks import Lock, LockKind
from conchrec.access.patterns import HostPattern, address_of
from conchrec.audit import events as audit_events
from conchrec.audit.open import audit_once
from conchrec.cli.argument_types import duration
from conchrec.cli.can import resolved
from conchrec.cli.rights import account
from conchrec.clock import utc_now
from conchrec.config.loader import Config
from conchrec.config.target_rules import USUAL_PORT
from conchrec.errors import WriteFailed
from conchrec.model import Target
from conchrec.yaml_cursor import nearest

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

DONE, NO, USAGE = 0, 1, 64
_LONGEST_REASON = 200


def register(subparsers: Subparsers) -> None:
    lock = subparsers.add_parser("lock", help="keep a user, a target, a login or a session out, at once")
    _add_names(lock)
    lock.add_argument("--for", dest="ttl", type=duration, metavar="2h", help="else until it is taken back")
    lock.add_argument("--reason", type=_reason, default="", metavar="TEXT", help="which users read")
    lock.add_argument(
        "--name-only", action="store_true", help="of a target: not the addresses that its name has now"
    )
    lock.set_defaults(command=_lock, parser=lock)
    unlock = subparsers.add_parser("unlock", help="take a lock back")
    _add_names(unlock)
    unlock.set_defaults(command=_unlock)
    listed = subparsers.add_parser("locks", help="what is locked")
    listed.add_argument("--json", action="store_true", help="for machines")
    listed.set_defaults(command=_list)


def _add_names(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    for kind, shown, about in (
        (LockKind.USER, "NAME", "every connection of that user"),
        (LockKind.TARGET, "HOST", "a name, a pattern of names, an address or a network"),
        (LockKind.LOGIN, "NAME", "at every target; a name, or a pattern"),
        (LockKind.SESSION, "ID", "that one session"),
    ):
        what.add_argument(f"--{kind.value}", metavar=shown, type=partial(_name, kind), help=about)


def _name(kind: LockKind, text: str) -> str:
    try:
        return check_name(kind, text.lower() if kind is LockKind.TARGET else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _named(args: argparse.Namespace) -> tuple[LockKind, str]:
    return next((kind, str(name)) for kind in LockKind if (name := getattr(args, kind.value)) is not None)


def _reason(text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST_REASON:
        raise argparse.ArgumentTypeError(f"one line of at most {_LONGEST_REASON} characters is wanted")
    return text.strip()


def _lock(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    kind, name = _named(args)
    if args.name_only and kind is not LockKind.TARGET:
        args.parser.print_usage(err)
        print("conchrec lock: --name-only is for targets", file=err)
        return USAGE
    if kind is LockKind.USER and name not in config.users:
        hint = nearest(name, tuple(config.users))
        print(f"warning: there is no user {name!r}{hint}; locked all the same", file=err)
    now = utc_now()
    until = now + args.ttl if args.ttl is not None else None
    one = Lock(kind=kind, name=name, until=until, reason=args.reason, by=account(), made=now)
    locks = [one]
    if kind is LockKind.TARGET and not args.name_only and (plain := _plain_name(name)) is not None:
        found = _addresses(config, plain)
        locks += [replace(one, name=address, of=name) for address in found]
        if not found:
            print(f"warning: {plain.host} does not resolve here: its name alone is locked", file=err)
    Locks(config.state_dir, utc_now).add(*locks)
    for each in locks:
        print(each, file=out)
    return _audited(config, [_created(each) for each in locks], err)


def _plain_name(name: str) -> Target | None:
    """A name that is no pattern and no address; one that somebody may go around by the address it has."""
    pattern = HostPattern.parse(name)
    if pattern.name is None or "*" in name or "?" in name:
        return None
    return Target(host=name.partition(":")[0], port=pattern.port or 0)


def _addresses(config: Config, target: Target) -> list[str]:
    """Those that its group gives, or else the resolver; with the port where one is meant."""
    rule = rule_for(config.targets, replace(target, port=target.port or USUAL_PORT), ())
    found = (rule.address if rule is not None else ()) or resolved(target)
    usable = [address for one in found if (address := address_of(one)) is not None]
    if not target.port:
        return [str(address) for address in usable]
    return [str(Target(host=str(address), port=target.port)) for address in usable]


def _created(lock: Lock) -> audit_events.LockCreate:
    until = lock.until
    return audit_events.LockCreate(
        kind=lock.kind.value,
        name=lock.name,
        until=until.isoformat(timespec="seconds") if until is not None else "",
        reason=lock.reason,
        by=lock.by,
        of=lock.of,
        sudo_user=os.environ.get("SUDO_USER", ""),
    )


def _unlock(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    kind, name = _named(args)
    if Locks(config.state_dir, utc_now).remove(kind, name) is None:
        print(f"conchrec: {kind.value} {name} is not locked", file=err)
        return NO
    print(f"{kind.value} {name} is not locked any more", file=out)
    event = audit_events.LockRemove(
        kind=kind.value, name=name, by=account(), sudo_user=os.environ.get("SUDO_USER", "")
    )
    return _audited(config, [event], err)


def _audited(config: Config, events: Sequence[audit_events.AuditEvent], err: TextIO) -> int:
    """What is done is done; that the audit does not know of it is said, and the exit code says so."""
    try:
        audit_once(
            config, *events, dropped=lambda why: print(f"conchrec: not sent to syslog: {why}", file=err)
        )
    except WriteFailed as error:
        print(f"conchrec: done, but not audited: {error.public}: {error.detail}", file=err)
        return NO
    return DONE


def _list(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    now = utc_now()
    locks = [lock for lock in Locks(config.state_dir, utc_now).current if lock.holds(now)]
    if args.json:
        shown = [
            {
                "kind": lock.kind.value,
                "name": lock.name,
                "until": lock.until.isoformat(timespec="seconds") if lock.until is not None else None,
                "reason": lock.reason,
                "by": lock.by,
                "made": lock.made.isoformat(timespec="seconds") if lock.made is not None else None,
                "of": lock.of or None,
            }
            for lock in locks
        ]
        print(json.dumps(shown, indent=1), file=out)
        return DONE
    for lock in locks:
        made = f", by {lock.by} at {lock.made:%Y-%m-%d %H:%M:%S} UTC" if lock.made is not None else ""
        print(f"{lock}{made}", file=out)
    if not locks:
        print("nothing is locked", file=err)
    return DONE
