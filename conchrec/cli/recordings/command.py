"""``conchrec recordings``: the parser of all commands about recordings.

Exit codes: 0 done; 1 the recording does not exist, cannot be read, or fails verification; 64 usage; 78
configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conchrec.cli.recordings import find, keep, verify, view

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``recordings`` and of its commands."""
    parser = subparsers.add_parser(
        "recordings",
        help="find, play, export, verify, keep and remove recordings",
        description="Commands about recordings. ID is the 26 characters that ls and search print first.",
    )
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    find.register(commands)
    view.register(commands)
    verify.register(commands)
    keep.register(commands)
