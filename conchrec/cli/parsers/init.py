"""``conchrec init``: its arguments."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


CLUSTER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``init``."""
    parser = subparsers.add_parser(
        "init",
        help="create a state directory with keys, and a configuration file",
        description="Create a directory with the keys of both certificate authorities, the host key of the\n"
        "proxy, and a configuration file. An existing configuration file is not changed.",
        epilog="Example:\n"
        "  conchrec init /etc/conchrec --cluster example.com --public-address proxy.example.com:3023\n",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory to create")
    parser.add_argument(
        "--cluster", metavar="NAME", type=_cluster,
        help="the name of the proxy in its certificates: cluster_name (default: the name of this host)",
    )  # fmt: skip
    parser.add_argument(
        "--public-address", metavar="HOST[:PORT]",
        type=LateFunction("conchrec.cli.init:parse_public_address"),
        help="the address by which users reach the proxy (default: the name of this host, port 3023)",
    )  # fmt: skip
    parser.set_defaults(command=LateFunction("conchrec.cli.init:command"), needs_config=False)


def _cluster(text: str) -> str:
    if not CLUSTER_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"invalid name {text!r}: use letters, digits, dots, _ and -, like example.com"
        )
    return text
