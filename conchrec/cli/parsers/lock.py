"""``conchrec lock | unlock | locks``: their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction, argument_type, duration

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


_LONGEST_REASON = 200


def register(subparsers: Subparsers) -> None:
    """Add the parsers of ``lock``, ``unlock`` and ``locks``."""
    lock = subparsers.add_parser(
        "lock",
        help="lock a user, a target, a login or a session: end sessions and refuse new ones",
        description="Refuse new logins of a user, at a target or as a login, and end the sessions that\n"
        "are open. A lock of a session ends that session. A running proxy applies it\n"
        "immediately.",
        epilog="Examples:\n"
        "  conchrec lock --user joe --for 2h --reason 'stolen laptop'\n"
        "  conchrec lock --target 'db*.example.com'\n"
        "  conchrec lock --session 06c5mghfba7faxgaqvzpe16264\n",
    )
    _add_names(lock, LateFunction("conchrec.cli.lock:parse_name"))
    lock.add_argument(
        "--for", dest="ttl", type=duration, metavar="DURATION",
        help="how long, like 30m, 2h or 7d (default: until conchrec unlock)",
    )  # fmt: skip
    lock.add_argument(
        "--reason", type=_reason, default="", metavar="TEXT", help="the reason; the locked users read it"
    )
    lock.add_argument(
        "--name-only", action="store_true",
        help="with --target NAME: do not lock the addresses that the name has now",
    )  # fmt: skip
    lock.set_defaults(command=LateFunction("conchrec.cli.lock:run_lock"), parser=lock)
    unlock = subparsers.add_parser(
        "unlock", help="remove a lock", epilog="Example:\n  conchrec unlock --user joe\n"
    )
    _add_names(unlock, LateFunction("conchrec.cli.lock:parse_stored_name"))
    unlock.set_defaults(command=LateFunction("conchrec.cli.lock:run_unlock"))
    locks = subparsers.add_parser("locks", help="list the locks")
    locks.add_argument("--json", action="store_true", help="print JSON")
    locks.set_defaults(command=LateFunction("conchrec.cli.lock:run_list"))


def _add_names(parser: argparse.ArgumentParser, parse: Callable[[str, str], str]) -> None:
    subject = parser.add_mutually_exclusive_group(required=True)
    for kind, metavar, help_text in (
        ("user", "NAME", "a user: all connections of this user"),
        ("target", "HOST", "a target: a host name, a pattern like 'db*', an address or a network"),
        ("login", "NAME", "an account at all targets: a name, or a pattern with * and ?"),
        ("session", "ID", "one session: its ID as in conchrec recordings ls"),
    ):
        subject.add_argument(
            f"--{kind}", metavar=metavar, type=argument_type(partial(parse, kind)), help=help_text
        )


def _reason(text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST_REASON:
        raise argparse.ArgumentTypeError(
            f"invalid reason: must be one line of at most {_LONGEST_REASON} printable characters"
        )
    return text.strip()
