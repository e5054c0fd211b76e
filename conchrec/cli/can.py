"""``conchrec can joe root@web1:22``: the decision of the policy, and the rule and line that it follows from.

``conchrec can --who root@web1``: all users who may log in there. Exit code 0 for yes, 1 for no.
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
from typing import TextIO, TypeVar

from conchrec.access.closed_options import find_closed_option
from conchrec.access.host_rules import rule_for
from conchrec.access.lock_file import Locks
from conchrec.access.options import TABLE, Mfa, SessionOptions, why_not
from conchrec.access.patterns import address_of
from conchrec.access.policy import (
    Allow,
    Decision,
    Deny,
    Policy,
    active,
    decide,
    visible_recordings,
)
from conchrec.ca.revocation import Revocations, Revoked
from conchrec.clock import utc_now
from conchrec.config.lint import has_second_factor
from conchrec.config.loader import Config
from conchrec.config.model import TargetRule
from conchrec.config.target_rules import USUAL_PORT, given_address, located, other_ports
from conchrec.errors import ConfigError
from conchrec.model import Identity, Target, named_target
from conchrec.reasons import ReasonCode
from conchrec.state.state_file import StateFile
from conchrec.yaml_cursor import as_written, nearest

YES, NO, USAGE = 0, 1, 64
_DESTINATION = re.compile(
    r"(?P<login>.+)@(?:\[(?P<v6>[^\[\]@]+)\]|(?P<host>[^:\[\]@]+))(?::(?P<port>[0-9]{1,5}))?"
)

Resolve = Callable[[Target], tuple[str, ...]]
T = TypeVar("T")


def parse_destination(text: str) -> tuple[str, Target]:
    """The login and the target of ``root@web1:22``; an IPv6 address is written ``root@[fd00::1]:22``."""
    match = _DESTINATION.fullmatch(text)
    target = None
    if match is not None:
        target = named_target(match["v6"] or match["host"], match["port"] or str(USUAL_PORT))
    if match is None or target is None:
        raise argparse.ArgumentTypeError(f"invalid destination {text!r}: write LOGIN@HOST, like root@web1:22")
    return match["login"], target


def parse_source(text: str) -> str:
    """The address of ``--from``. Raises ArgumentTypeError."""
    if address_of(text) is None:
        raise argparse.ArgumentTypeError(f"invalid address {text!r}: must be an IP address, like 10.0.0.7")
    return text


def resolve_target(target: Target) -> tuple[str, ...]:
    """The addresses that this machine's resolver has for the host; empty where it has none."""
    try:
        answers = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in answers))


def run_can(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec can``: check which arguments were given, and call ``command``."""
    if (args.who is None) == (args.destination is None):
        args.parser.print_usage(err)
        print("conchrec can: give USER and LOGIN@HOST, or --who LOGIN@HOST", file=err)
        return USAGE
    return command(config, args, out, err)


def command(
    config: Config, args: argparse.Namespace, out: TextIO, err: TextIO, resolve: Resolve = resolve_target
) -> int:
    """Print the decision, and return YES or NO."""
    user = config.users.get(args.user) if args.who is None else None
    if user is None and args.who is None:
        hint = nearest(args.user, tuple(config.users))
        print(f"conchrec: {config.file} has no user {args.user!r}{hint}", file=err)
        return NO
    login, target = args.who or args.destination
    question = _Question(config, login, target, args.source or "", args.at, resolve)
    for note in question.notes:
        print(f"note: {note}", file=err)
    if not args.source and question.depends_on_source(config.users if user is None else (user.name,)):
        print(
            "note: the answer depends on the user's address (source); give it with --from ADDRESS", file=err
        )
    if user is None:
        return _print_allowed_users(question, args.json, out)
    decision = question.decision(user.name)
    forbidden = ""
    if isinstance(decision, Allow) and args.run is not None:
        from conchrec.recording.capture.file_transfers import transfer_programs  # slow to import

        option = why_not(decision.options, "exec", args.run, transfer_programs("exec", args.run))
        forbidden = find_closed_option(decision.roles, option).rule if option else ""
    if args.json:
        print(json.dumps(question.as_json(user.name, decision, forbidden), indent=1), file=out)
    elif isinstance(decision, Allow):
        for line in question.allow_lines(user.name, decision):
            print(line, file=out)
        if forbidden:
            print(f"no: {user.name} may not run this command ({forbidden})", file=out)
        elif args.run is not None:
            print(f"yes: {user.name} may run this command", file=out)
    else:
        print(f"no: {decision.reason}{question.position(decision)}", file=out)
    return YES if isinstance(decision, Allow) and not forbidden else NO


def _print_allowed_users(question: _Question, as_json: bool, out: TextIO) -> int:
    allowed = [
        (name, decision)
        for name in question.config.users
        if isinstance(decision := question.decision(name), Allow)
    ]
    if as_json:
        rows = [question.as_json(name, decision, "") for name, decision in allowed]
        print(json.dumps(rows, indent=1), file=out)
    else:
        for name, decision in allowed:
            conditions = "".join(f"; {condition}" for condition in question.conditions(decision))
            print(f"{name}: {decision.rule}{question.position(decision)}{conditions}", file=out)
        if not allowed:
            print("no user", file=out)
    return YES if allowed else NO


class _Question:
    """A login at a target: as which account, from which address, at which time.

    A user who has a second factor is assumed to prove it; the answer says that it is needed.
    """

    def __init__(
        self, config: Config, login: str, target: Target, source: str, at: datetime | None, resolve: Resolve
    ) -> None:
        """Resolve the target and read locks and revocations; ``notes`` say what was not checked."""
        self.config = config
        self._login = login
        self._source = source
        self._now = at or utc_now()
        self.notes: list[str] = []
        self._target = located(target, config.targets)
        self._other_ports = other_ports(target, self._target, config.targets)
        self._addresses = given_address(self._target, config.targets) or resolve(self._target)
        if not self._addresses:
            self.notes.append(
                f"this machine cannot resolve {target.host!r}: rules for addresses were not checked"
            )
        self._policy = replace(config.policy, locks=self._read_state("locks", Locks, ()))
        self._revoked = self._read_state("revocations", Revocations, Revoked())

    def _read_state(
        self, what: str, kind: Callable[[Path, Callable[[], datetime]], StateFile[T]], default: T
    ) -> T:
        """The contents of a file of the state directory; ``default`` and a note where it cannot be read."""
        try:
            return kind(self.config.state_dir, lambda: self._now).current
        except ConfigError as error:
            self.notes.append(f"{what} were not checked: {error.problem}")
            return default

    def _identity(self, user: str) -> Identity:
        roles = self.config.users[user].roles
        return Identity(user=user, method="publickey", roles=roles, second_factor="assumed")

    def depends_on_source(self, users: Iterable[str]) -> bool:
        """Whether the answer for one of the users would change if no role had a ``source``."""
        roles = {name: replace(role, source=None) for name, role in self._policy.roles.items()}
        anywhere = replace(self._policy, roles=roles)
        return any(self._decide(user, self._policy) != self._decide(user, anywhere) for user in users)

    def decision(self, user: str) -> Decision:
        """The decision of the policy, with revocations, second factors and rules of targets."""
        if reason := self._revoked.why(self._identity(user)):
            return Deny(reason=reason, rule="revoked", code=reason.code)
        decision = self._decide(user, self._policy)
        if isinstance(decision, Allow) and (denial := self._check_second_factor(user)) is not None:
            return denial
        rule = self._rule(decision)
        if isinstance(decision, Allow) and rule is not None and rule.record is not None:
            strict = min(rule.record, decision.options.record, key=lambda record: record.value != "strict")
            return replace(decision, options=replace(decision.options, record=strict))
        return decision

    def _check_second_factor(self, user: str) -> Deny | None:
        """A denial where a role requires a second factor and the user has none: no login succeeds."""
        if has_second_factor(self.config.users[user]):
            return None
        for role in active(self._policy, self._identity(user), self._source, self._now):
            if role.options.require_mfa is not Mfa.NO:
                rule = f"role {role.name} requires a second factor"
                return Deny(
                    reason=f"{user} cannot log in ({rule}, but {user} has neither totp nor a hardware key)",
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

    def position(self, decision: Decision) -> str:
        """Where the rule stands: `` (config.yaml:12)``, empty where it has no line."""
        return f" ({self.config.file.name}:{decision.line})" if decision.line else ""

    def conditions(self, decision: Allow) -> Iterator[str]:
        """What the user needs besides, and until when the decision certainly holds."""
        options = decision.options
        if options.require_mfa.value != "no":
            yield f"requires a second factor ({options.require_mfa.value})"
        if options.approval:
            yield f"requires approval by {_describe(options.approval)}"
        if decision.until is not None:
            yield f"this answer is valid until {decision.until:%Y-%m-%d %H:%M:%S} UTC, or longer"

    def allow_lines(self, user: str, decision: Allow) -> Iterator[str]:
        """The lines that describe a decision that allows the login."""
        rule = f"{decision.rule}{self.position(decision)}"
        yield f"yes: {user} may log in as {self._login} on {self._target} ({rule})"
        if decision.addresses:
            yield f"  addresses: {', '.join(decision.addresses)}"
        group = self._rule(decision)
        if group is not None:
            yield f"  group of targets: {group.name}"
        for condition in self.conditions(decision):
            yield f"  {condition}"
        for name, value in self.options(user, decision.options).items():
            yield f"  {name}: {value}"

    def options(self, user: str, options: SessionOptions) -> dict[str, str]:
        """The options that apply, in the order of the table."""
        visible = visible_recordings(self._policy, self._identity(user), self._source, self._now)
        options = replace(options, recordings=visible)
        values = {row.name: getattr(options, row.name) for row in TABLE if not row.shorthand}
        rows = {row.name: row for row in TABLE}
        return {n: rows[n].default if value is None else _describe(value) for n, value in values.items()}

    def as_json(self, user: str, decision: Decision, forbidden: str) -> dict[str, object]:
        """The decision as JSON has it; ``forbidden`` is the rule that forbids the command, or empty."""
        fields: dict[str, object] = {
            "user": user,
            "login": self._login,
            "target": str(self._target),
            "allowed": isinstance(decision, Allow) and not forbidden,
            "rule": forbidden or decision.rule,
            "line": decision.line or None,
        }
        if isinstance(decision, Allow):
            group = self._rule(decision)
            fields |= {
                "addresses": decision.addresses,
                "group": group.name if group is not None else None,
                "until": decision.until.isoformat() if decision.until is not None else None,
                "options": self.options(user, decision.options),
            }
        else:
            fields["reason"] = decision.reason
        return fields


def _describe(value: object) -> str:
    if value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return as_written(value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        texts = (" or ".join(sorted(item)) if isinstance(item, frozenset) else item.text for item in value)
        return (" and " if isinstance(value[0], frozenset) else ", ").join(texts)
    return str(value)
