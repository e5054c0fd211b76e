"""``conchrec can joe root@web1:22``: what the policy says, and which rule in which line. Exit 0 or 1.

``conchrec can --who root@web1``: everybody who could.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from conchrec.access.host_rules import rule_for
from conchrec.access.lock_file import Locks
from conchrec.access.options import TABLE, Mfa, SessionOptions, why_not
from conchrec.access.patterns import address_of
from conchrec.access.policy import Allow, Decision, Deny, Policy, active, decide, sees, shut_by
from conchrec.access.time_windows import parse_moment
from conchrec.ca.revocation import Revocations, Revoked
from conchrec.clock import utc_now
from conchrec.config.lint import has_second_factor
from conchrec.config.loader import Config
from conchrec.config.model import TargetRule, named_target
from conchrec.config.target_rules import USUAL_PORT, given_address, located, other_ports
from conchrec.errors import ConfigError
from conchrec.model import Identity, Target
from conchrec.reasons import ReasonCode
from conchrec.recording.capture.file_transfers import transfer_programs
from conchrec.state.state_file import StateFile
from conchrec.yaml_cursor import as_written, nearest

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

YES, NO, USAGE = 0, 1, 64
_DESTINATION = re.compile(
    r"(?P<login>.+)@(?:\[(?P<v6>[^\[\]@]+)\]|(?P<host>[^:\[\]@]+))(?::(?P<port>[0-9]{1,5}))?"
)

Resolve = Callable[[Target], tuple[str, ...]]
T = TypeVar("T")


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "can", help="may this user log in there, and who may? exit 0 or 1", usage=(
            "conchrec can USER LOGIN@HOST[:PORT] [--from ADDRESS] [--at TIME] [--command TEXT] [--json]\n"
            "       conchrec can --who LOGIN@HOST[:PORT] [--from ADDRESS] [--at TIME] [--json]"
        ),
    )  # fmt: skip
    parser.add_argument("user", nargs="?")
    parser.add_argument("destination", metavar="LOGIN@HOST[:PORT]", type=destination, nargs="?")
    parser.add_argument("--who", metavar="LOGIN@HOST[:PORT]", type=destination, help="everybody who could")
    parser.add_argument(
        "--from", dest="source", metavar="ADDRESS", type=_address,
        help="where the user is, for roles with a source",
    )  # fmt: skip
    parser.add_argument(
        "--at", metavar="TIME", type=_moment, help="when: '2026-12-24 23:00 Europe/Berlin' (default now)"
    )
    parser.add_argument("--command", dest="run", metavar="TEXT", help="… and run this there?")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_command, parser=parser)


def destination(text: str) -> tuple[str, Target]:
    """``root@web1:22`` → the login and the target; ``[fd00::1]:22`` for an address of IPv6."""
    found = _DESTINATION.fullmatch(text)
    target = None
    if found is not None:
        target = named_target(found["v6"] or found["host"], found["port"] or str(USUAL_PORT))
    if found is None or target is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not like root@web1:22")
    return found["login"], target


def _address(text: str) -> str:
    if address_of(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address")
    return text


def _moment(text: str) -> datetime:
    try:
        return parse_moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def resolved(target: Target) -> tuple[str, ...]:
    """What this machine's resolver says; nothing where it does not know the name."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _command(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    if (args.who is None) == (args.destination is None):
        args.parser.print_usage(err)
        print("conchrec can: a user and a destination are wanted, or --who and a destination", file=err)
        return USAGE
    return command(config, args, out, err)


def command(
    config: Config, args: argparse.Namespace, out: TextIO, err: TextIO, resolve: Resolve = resolved
) -> int:
    user = config.users.get(args.user) if args.who is None else None
    if user is None and args.who is None:
        print(f"conchrec: there is no user {args.user!r}{nearest(args.user, tuple(config.users))}", file=err)
        return NO
    login, asked = args.who or args.destination
    question = _Question(config, login, asked, args.source or "", args.at, resolve)
    for note in question.notes:
        print(f"note: {note}", file=err)
    if not args.source and question.depends_on_source(config.users if user is None else (user.name,)):
        print("note: it depends on where the user comes from (source); say so with --from ADDRESS", file=err)
    if user is None:
        return _who(question, args.json, out)
    decision = question.decision(user.name)
    forbidden = ""
    if isinstance(decision, Allow) and args.run is not None:
        option = why_not(decision.options, "exec", args.run, transfer_programs("exec", args.run))
        forbidden = shut_by(decision.roles, option).rule if option else ""
    if args.json:
        print(json.dumps(question.as_json(user.name, decision, forbidden), indent=1), file=out)
    elif isinstance(decision, Allow):
        for line in question.yes(user.name, decision):
            print(line, file=out)
        if forbidden:
            print(f"no: this command may not be run ({forbidden})", file=out)
        elif args.run is not None:
            print("yes: this command may be run", file=out)
    else:
        print(f"no: {decision.reason}{question.where(decision)}", file=out)
    return YES if isinstance(decision, Allow) and not forbidden else NO


def _who(question: _Question, as_json: bool, out: TextIO) -> int:
    found = [
        (name, decision)
        for name in question.config.users
        if isinstance(decision := question.decision(name), Allow)
    ]
    if as_json:
        print(
            json.dumps([question.as_json(name, decision, "") for name, decision in found], indent=1), file=out
        )
    else:
        for name, decision in found:
            conditions = "".join(f"; {condition}" for condition in question.conditions(decision))
            print(f"{name}: {decision.rule}{question.where(decision)}{conditions}", file=out)
        if not found:
            print("nobody", file=out)
    return YES if found else NO


class _Question:
    """As whom, where, from where, when. A second factor is taken for granted where the user has one; that
    it is needed is said."""

    def __init__(
        self, config: Config, login: str, asked: Target, source: str, at: datetime | None, resolve: Resolve
    ) -> None:
        self.config = config
        self._login = login
        self._source = source
        self._now = at or utc_now()
        self.notes: list[str] = []
        self._target = located(asked, config.targets)
        self._other_ports = other_ports(asked, self._target, config.targets)
        self._addresses = given_address(self._target, config.targets) or resolve(self._target)
        if not self._addresses:
            self.notes.append(f"{asked.host!r} does not resolve here; rules for addresses were not asked")
        self._policy = replace(config.policy, locks=self._known("locks", Locks, ()))
        self._revoked = self._known("revocations", Revocations, Revoked())

    def _known(
        self, what: str, kind: Callable[[Path, Callable[[], datetime]], StateFile[T]], unknown: T
    ) -> T:
        """What the state directory says, as the proxy sees it."""
        try:
            return kind(self.config.state_dir, lambda: self._now).current
        except ConfigError as error:
            self.notes.append(f"{what} were not looked at: {error.problem}")
            return unknown

    def _identity(self, user: str) -> Identity:
        roles = self.config.users[user].roles
        return Identity(user=user, method="publickey", roles=roles, second_factor="taken for granted")

    def depends_on_source(self, users: Iterable[str]) -> bool:
        """Would the answer for any of them be another one if no role had a ``source``?"""
        roles = {name: replace(role, source=None) for name, role in self._policy.roles.items()}
        anywhere = replace(self._policy, roles=roles)
        return any(self._decide(user, self._policy) != self._decide(user, anywhere) for user in users)

    def decision(self, user: str) -> Decision:
        if why := self._revoked.why(self._identity(user)):
            return Deny(reason=why, rule="revoked", code=why.code)
        decision = self._decide(user, self._policy)
        if isinstance(decision, Allow) and (lacking := self._lacks_second_factor(user)) is not None:
            return lacking
        rule = self._rule(decision)
        if isinstance(decision, Allow) and rule is not None and rule.record is not None:
            strict = min(rule.record, decision.options.record, key=lambda one: one.value != "strict")
            return replace(decision, options=replace(decision.options, record=strict))
        return decision

    def _lacks_second_factor(self, user: str) -> Deny | None:
        """The login at the proxy fails, whatever the target is."""
        if has_second_factor(self.config.users[user]):
            return None
        for role in active(self._policy, self._identity(user), self._source, self._now):
            if role.options.require_mfa is not Mfa.NO:
                rule = f"role {role.name} requires a second factor"
                return Deny(
                    reason=f"{user} can not log in ({rule}, and there is neither totp nor an sk- key)",
                    rule=rule,
                    line=role.line("options.require_mfa"),
                    code=ReasonCode.SECOND_FACTOR_UNAVAILABLE,
                )
        return None

    def _decide(self, user: str, policy: Policy) -> Decision:
        return decide(
            policy,
            self._identity(user),
            self._target,
            self._addresses,
            self._login,
            self._source,
            self._now,
            other_ports=self._other_ports,
        )

    def _rule(self, decision: Decision) -> TargetRule | None:
        addresses = decision.addresses if isinstance(decision, Allow) else self._addresses
        return rule_for(self.config.targets, self._target, addresses)

    def where(self, decision: Decision) -> str:
        return f" ({self.config.file.name}:{decision.line})" if decision.line else ""

    def conditions(self, decision: Allow) -> Iterator[str]:
        """What else it takes, and how long it is so."""
        options = decision.options
        if options.require_mfa.value != "no":
            yield f"with a second factor ({options.require_mfa.value})"
        if options.approval:
            yield f"approved by {_shown(options.approval)}"
        if decision.until is not None:
            yield f"so until {decision.until:%Y-%m-%d %H:%M:%S} UTC at least"

    def yes(self, user: str, decision: Allow) -> Iterator[str]:
        rule = f"{decision.rule}{self.where(decision)}"
        yield f"yes: {user} may log in as {self._login} on {self._target} ({rule})"
        if decision.addresses:
            yield f"  at {', '.join(decision.addresses)}"
        group = self._rule(decision)
        if group is not None:
            yield f"  by the rule for targets {group.name}"
        for condition in self.conditions(decision):
            yield f"  {condition}"
        for name, value in self.options(user, decision.options).items():
            yield f"  {name}: {value}"

    def options(self, user: str, options: SessionOptions) -> dict[str, str]:
        """All that are in force, in the order of the table."""
        seen = sees(self._policy, self._identity(user), self._source, self._now)
        options = replace(options, recordings=seen)
        values = {row.name: getattr(options, row.name) for row in TABLE if not row.shorthand}
        rows = {row.name: row for row in TABLE}
        return {n: rows[n].default if value is None else _shown(value) for n, value in values.items()}

    def as_json(self, user: str, decision: Decision, forbidden: str) -> dict[str, object]:
        said: dict[str, object] = {
            "user": user,
            "login": self._login,
            "target": str(self._target),
            "allowed": isinstance(decision, Allow) and not forbidden,
            "rule": forbidden or decision.rule,
            "line": decision.line or None,
        }
        if isinstance(decision, Allow):
            group = self._rule(decision)
            said |= {
                "addresses": decision.addresses,
                "group": group.name if group is not None else None,
                "until": decision.until.isoformat() if decision.until is not None else None,
                "options": self.options(user, decision.options),
            }
        else:
            said["reason"] = decision.reason
        return said


def _shown(value: object) -> str:
    if value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return as_written(value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        texts = (" or ".join(sorted(one)) if isinstance(one, frozenset) else one.text for one in value)
        return (" and " if isinstance(value[0], frozenset) else ", ").join(texts)
    return str(value)
