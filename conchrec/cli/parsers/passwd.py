"""``conchrec passwd``: its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``passwd``."""
    parser = subparsers.add_parser(
        "passwd",
        help="print the configuration lines for a user's password or one-time codes",
        description="Ask for a password, or read the first line of standard input, and print the lines to\n"
        "add to the user in the configuration. The configuration is not changed.",
        epilog="Examples:\n  conchrec passwd joe --totp\n  conchrec passwd joe --totp-only > joe.yaml\n",
    )
    parser.add_argument("user", metavar="USER", help="the name of the user")
    parser.add_argument(
        "--totp", action="store_true",
        help="also create a secret for an authenticator app; its codes are the second factor",
    )  # fmt: skip
    parser.add_argument(
        "--totp-only", action="store_true",
        help="create only the secret: the user logs in with a key and a code, without a password",
    )  # fmt: skip
    parser.set_defaults(command=LateFunction("conchrec.cli.passwd:command"))
