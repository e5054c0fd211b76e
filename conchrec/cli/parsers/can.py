"""``conchrec can``: its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction, argument_type

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


_DESTINATION = LateFunction("conchrec.cli.can:parse_destination")


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``can``."""
    parser = subparsers.add_parser(
        "can",
        help="show whether a user may log in at a target, and which rule decides",
        usage="conchrec can USER LOGIN@HOST[:PORT] [--from ADDRESS] [--at TIME] [--command TEXT] [--json]\n"
        "       conchrec can --who LOGIN@HOST[:PORT] [--from ADDRESS] [--at TIME] [--json]",
        description="Show the decision of the policy, the rule, its line in the configuration, and the\n"
        "options that apply. The exit code is 0 for yes and 1 for no. It only asks DNS;\n"
        "it connects to no host.",
        epilog="Examples:\n"
        "  conchrec can joe root@web1\n"
        "  conchrec can joe root@web1:2222 --from 10.0.0.7 --command 'systemctl restart nginx'\n"
        "  conchrec can --who root@web1\n",
    )
    parser.add_argument("user", metavar="USER", nargs="?", help="the name of the user in the configuration")
    parser.add_argument(
        "destination", metavar="LOGIN@HOST[:PORT]", type=_DESTINATION, nargs="?",
        help="the account, and the host as users name it (port 22 by default)",
    )  # fmt: skip
    parser.add_argument(
        "--who", metavar="LOGIN@HOST[:PORT]", type=_DESTINATION,
        help="list all users who may log in there",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="source", metavar="ADDRESS", type=LateFunction("conchrec.cli.can:parse_source"),
        help="the address of the user, for roles that have a source",
    )  # fmt: skip
    parser.add_argument(
        "--at", metavar="TIME", type=argument_type(LateFunction("conchrec.access.time_windows:parse_moment")),
        help="the time of the login, like '2026-12-24 23:00 Europe/Berlin' (default: now)",
    )  # fmt: skip
    parser.add_argument(
        "--command", dest="run", metavar="TEXT", help="also decide whether the user may run this command"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=LateFunction("conchrec.cli.can:run_can"), parser=parser)
