"""``conchrec ssh-config``: its arguments."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DOMAIN = re.compile(r"[A-Za-z0-9*?._:-]+(,[A-Za-z0-9*?._:-]+)*")


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``ssh-config``."""
    parser = subparsers.add_parser(
        "ssh-config",
        help="print the lines for the users' ~/.ssh/config and known_hosts",
        description="Print what a user needs to log in through the proxy: a Host block for ~/.ssh/config,\n"
        "and the line for ~/.ssh/known_hosts that makes ssh trust the host CA.",
        epilog="Example:\n  conchrec ssh-config --user joe --domain '*.example.com'\n",
    )
    parser.add_argument(
        "--name", type=_alias, default="proxy", metavar="NAME",
        help="the name of the proxy in ~/.ssh/config (default: proxy)",
    )  # fmt: skip
    parser.add_argument(
        "--user", metavar="NAME",
        help="the user's name at the proxy (default: that of the only user, else a comment)",
    )  # fmt: skip
    parser.add_argument(
        "--domain", type=_domain, default="*", metavar="PATTERN",
        help="the hosts for which ssh trusts the host CA, like '*.example.com' (default: all)",
    )  # fmt: skip
    parser.set_defaults(command=LateFunction("conchrec.cli.ssh_config:command"))


def _alias(text: str) -> str:
    if not _ALIAS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"invalid name {text!r}: use letters, digits, dots, _ and -")
    return text


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"invalid host pattern {text!r}: write patterns like '*.example.com', separated by commas"
        )
    return text
