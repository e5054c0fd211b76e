"""``conchrec lock | unlock | locks``: refuses logins and ends sessions, also in the running proxy."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from conchrec.access.host_rules import rule_for
from conchrec.access.lock_file import Locks, check_name
from conchrec.access.locks import Lock, LockKind
from conchrec.access.login_names import USER, is_usable
from conchrec.access.patterns import HostPattern, address_of
from conchrec.cli.can import resolve_target
from conchrec.cli.rights import account
from conchrec.clock import utc_now
from conchrec.config.loader import Config
from conchrec.config.target_rules import USUAL_PORT
from conchrec.errors import WriteFailed
from conchrec.model import Target
from conchrec.recording.format.session_id import LENGTH, is_session_id
from conchrec.yaml_cursor import nearest

if TYPE_CHECKING:
    from conchrec.audit.events import AuditEvent, LockCreate

DONE, NO, USAGE = 0, 1, 64


def parse_stored_name(kind: str, text: str) -> str:
    """A name that a lock of this kind may have, also an old one. Raises ValueError."""
    return check_name(LockKind(kind), text.lower() if kind == LockKind.TARGET.value else text)


def parse_name(kind: str, text: str) -> str:
    """A name that can match something. Raises ValueError."""
    name = parse_stored_name(kind, text)
    if kind == LockKind.SESSION.value and not is_session_id(name):
        raise ValueError(
            f"invalid session ID {text!r}: must be {LENGTH} letters and digits; list the IDs of live sessions"
            " with: conchrec recordings ls --live"
        )
    if kind == LockKind.LOGIN.value and not is_usable(name.replace(USER, "u")):
        raise ValueError(f"invalid login {text!r}: an account name has no spaces, no / and no :")
    return name


def _subject_of(args: argparse.Namespace) -> tuple[LockKind, str]:
    return next((kind, str(name)) for kind in LockKind if (name := getattr(args, kind.value)) is not None)


def run_lock(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec lock``."""
    kind, name = _subject_of(args)
    if args.name_only and kind is not LockKind.TARGET:
        args.parser.print_usage(err)
        print("conchrec lock: --name-only works only with --target", file=err)
        return USAGE
    warning = ""
    if kind is LockKind.USER and name not in config.users:
        hint = nearest(name, tuple(config.users))
        warning = f"locked, but {config.file} has no user {name!r}{hint}"
    now = utc_now()
    until = now + args.ttl if args.ttl is not None else None
    requested = Lock(kind=kind, name=name, until=until, reason=args.reason, by=account(), made=now)
    locks = [requested]
    if kind is LockKind.TARGET and not args.name_only and (target := _named_host(name)) is not None:
        addresses = _addresses(config, target)
        locks += [replace(requested, name=address, of=name) for address in addresses]
        if not addresses:
            warning = (
                f"this machine cannot resolve {target.host}: only the name is locked; to lock its addresses"
                " too, run: conchrec lock --target ADDRESS"
            )
    Locks(config.state_dir, utc_now).add(*locks)
    if warning:
        print(f"warning: {warning}", file=err)
    for lock in locks:
        print(lock, file=out)
    return _audit(config, [_lock_event(lock) for lock in locks], err)


def _named_host(name: str) -> Target | None:
    """The host that a lock of a target names; None for a pattern or an address.

    Users could reach such a host by its address, so the addresses are locked too.
    """
    pattern = HostPattern.parse(name)
    if pattern.name is None or "*" in name or "?" in name:
        return None
    return Target(host=name.partition(":")[0], port=pattern.port or 0)


def _addresses(config: Config, target: Target) -> list[str]:
    """The addresses of its group of targets, or else of the resolver; with the port where it has one."""
    rule = rule_for(config.targets, replace(target, port=target.port or USUAL_PORT), ())
    texts = (rule.address if rule is not None else ()) or resolve_target(target)
    addresses = [address for text in texts if (address := address_of(text)) is not None]
    if not target.port:
        return [str(address) for address in addresses]
    return [str(Target(host=str(address), port=target.port)) for address in addresses]


def _lock_event(lock: Lock) -> LockCreate:
    from conchrec.audit.events import LockCreate  # slow to import

    until = lock.until
    return LockCreate(
        kind=lock.kind.value,
        name=lock.name,
        until=until.isoformat(timespec="seconds") if until is not None else "",
        reason=lock.reason,
        by=lock.by,
        of=lock.of,
        sudo_user=os.environ.get("SUDO_USER", ""),
    )


def run_unlock(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec unlock``."""
    kind, name = _subject_of(args)
    if Locks(config.state_dir, utc_now).remove(kind, name) is None:
        print(f"conchrec: {kind.value} {name} is not locked; list the locks with: conchrec locks", file=err)
        return NO
    print(f"{kind.value} {name} is no longer locked", file=out)
    from conchrec.audit.events import LockRemove  # slow to import

    event = LockRemove(
        kind=kind.value, name=name, by=account(), sudo_user=os.environ.get("SUDO_USER", "")
    )
    return _audit(config, [event], err)


def _audit(config: Config, events: Sequence[AuditEvent], err: TextIO) -> int:
    """Append the events to the audit log. The change stays if that fails, and the exit code is NO."""
    from conchrec.audit.open import audit_once  # slow to import

    try:
        audit_once(
            config, *events, dropped=lambda reason: print(f"warning: not sent to syslog: {reason}", file=err)
        )
    except WriteFailed as error:
        print(f"conchrec: done, but not audited: {error.public}: {error.detail}", file=err)
        return NO
    return DONE


def run_list(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec locks``."""
    now = utc_now()
    locks = [lock for lock in Locks(config.state_dir, utc_now).current if lock.holds(now)]
    if args.json:
        rows = [
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
        print(json.dumps(rows, indent=1), file=out)
        return DONE
    for lock in locks:
        made = f", by {lock.by} at {lock.made:%Y-%m-%d %H:%M:%S} UTC" if lock.made is not None else ""
        print(f"{lock}{made}", file=out)
    if not locks:
        print("no locks", file=err)
    return DONE
