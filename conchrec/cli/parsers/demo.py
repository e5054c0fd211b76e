"""``conchrec demo``: its arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``demo``."""
    parser = subparsers.add_parser(
        "demo",
        help="run a complete example on this machine, and remove it afterwards",
        description="Start a target and the proxy on this machine, log in through the proxy, and show\n"
        "the audit log and the recording. It takes a minute and needs no configuration.",
        epilog="Examples:\n"
        "  conchrec demo                              a shell; leave it with exit\n"
        "  conchrec demo --keep /tmp/demo uptime      one command; keep all files\n",
    )
    parser.add_argument(
        "--keep", metavar="DIR", type=Path,
        help="keep keys, configuration, audit log and recordings in this new directory",
    )  # fmt: skip
    parser.add_argument(
        "remote", metavar="COMMAND", nargs=argparse.REMAINDER,
        help="the command to run at the target (default: a shell)",
    )  # fmt: skip
    parser.set_defaults(command=LateFunction("conchrec.cli.demo:demo"), needs_config=False)
