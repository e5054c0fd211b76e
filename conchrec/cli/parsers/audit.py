"""``conchrec audit``: its commands and their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction, argument_type

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


_DESCRIPTION = """\
Verify the chains and signatures of the audit log: find lines that were changed,
removed, added or moved.

Without FILE it verifies the configured log and all its rotated files, also
compressed ones (gz, bz2, xz, zst), and compares them with the heads in the state
directory. With --key and FILE it needs no configuration: an auditor can verify
copies on another machine with the public key STATE_DIR/recording_key.pub.

A chain that is not closed gets a note: conchrec is still running, or was killed.
docs/audit.md describes what is detected and what cannot be.
"""
_EPILOG = """\
Examples:
  conchrec audit verify
  conchrec audit verify --key recording_key.pub audit.jsonl audit.jsonl-*.gz
"""


_HEAD = argument_type(LateFunction("conchrec.audit.chain:Head.parse"))


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``audit`` and of its command."""
    parser = subparsers.add_parser("audit", help="verify the audit log")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="find lines that were changed, removed, added or moved",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    verify.add_argument(
        "files", metavar="FILE", nargs="*", type=Path,
        help="the files of one log, in any order (default: those of the configuration)",
    )  # fmt: skip
    verify.add_argument(
        "--key", metavar="FILE", type=Path,
        help="a file with the public keys (default: STATE_DIR/recording_key.pub)",
    )  # fmt: skip
    verify.add_argument(
        "--head", metavar="HEAD", type=_HEAD, action="append", default=[],
        help="a head that you stored elsewhere (CHAIN:SEQ:DIGEST): fail if the log does not contain it",
    )  # fmt: skip
    verify.add_argument(
        "--complete", action="store_true", help="fail if old lines are missing, also rotated ones"
    )
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(
        command=LateFunction("conchrec.cli.audit:run_verify"),
        needs_config=LateFunction("conchrec.cli.audit:needs_config"),
        rights=LateFunction("conchrec.cli.audit:rights_of"),
    )
