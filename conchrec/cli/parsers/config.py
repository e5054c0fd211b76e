"""``conchrec config``: its commands and their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction
from conchrec.cli.rights import Rights

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``config`` and of its command."""
    parser = subparsers.add_parser("config", help="check the configuration")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="print every error and warning; exit 0 or 78",
        description="Read the configuration and all files that it names. Print every error with its line\n"
        "and setting, then exit with 78; or print warnings about probable mistakes, and\n"
        "exit with 0. A running proxy is not changed: to reload it, send it SIGHUP.",
        epilog="Example:\n  conchrec config check -c /etc/conchrec/config.yaml\n",
    )
    check.set_defaults(command=LateFunction("conchrec.cli.config:command"), rights=Rights.INVOKER)
