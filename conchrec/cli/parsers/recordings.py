"""``conchrec recordings``: its commands and their arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction, argument_type, duration, moment, size
from conchrec.cli.rights import rights_for_files

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


_LARGEST_NUMBER = 1e6
_HEAD = argument_type(LateFunction("conchrec.recording.evidence.ledger_reader:parse_head"))


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``recordings`` and of its commands."""
    parser = subparsers.add_parser(
        "recordings",
        help="find, play, export, verify, keep and remove recordings",
        description="Commands about recordings. ID is the 26 characters that ls and search print first.",
    )
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _register_find(commands)
    _register_view(commands)
    _register_verify(commands)
    _register_keep(commands)


def _register_find(commands: Subparsers) -> None:
    ls = commands.add_parser(
        "ls",
        help="list recordings, one per line, oldest first",
        epilog="Examples:\n"
        "  conchrec recordings ls --live\n"
        "  conchrec recordings ls --user joe --host 'db*' --since 2026-11-23\n",
    )
    ls.add_argument("--live", action="store_true", help="only sessions that are still open")
    ls.add_argument(
        "--status", metavar="STATUS",
        help="only this status: complete, interrupted, failed, damaged, unreadable, live",
    )  # fmt: skip
    ls.add_argument("--kind", metavar="KIND", help="only this kind: shell, exec, subsystem")
    ls.add_argument(
        "--limit", metavar="N", type=argument_type(_parse_count), help="only the N newest recordings"
    )
    _add_filters(ls)
    ls.set_defaults(command=LateFunction("conchrec.cli.recordings.find:run_ls"))
    show_parser = commands.add_parser(
        "show", help="print everything that is known about one recording, also its commands and files"
    )
    _add_id(show_parser)
    _add_json(show_parser)
    show_parser.set_defaults(command=LateFunction("conchrec.cli.recordings.find:run_show"))
    search_parser = commands.add_parser(
        "search",
        help="search in output, commands and names of transferred files",
        description="Search in what was on the screen, in the commands, and in the names of transferred\n"
        "files. Print each line that contains all phrases, newest recording first.",
        epilog="Example:\n  conchrec recordings search 'drop table' --since 30d\n",
    )
    search_parser.add_argument(
        "phrase", metavar="PHRASE", nargs="+",
        help="one or more adjacent words; quote a phrase of several words, like 'drop table'",
    )  # fmt: skip
    search_parser.add_argument(
        "--limit", metavar="N", type=argument_type(_parse_count), default=100,
        help="print at most N lines (default: 100)",
    )  # fmt: skip
    _add_filters(search_parser)
    search_parser.set_defaults(command=LateFunction("conchrec.cli.recordings.find:run_search"))
    rebuild = commands.add_parser(
        "rebuild-index",
        help="create the index again from the recordings",
        description="Create the index of the recordings again. Needed if it is damaged, or if recordings\n"
        "were copied into the directory.",
    )
    rebuild.set_defaults(command=LateFunction("conchrec.cli.recordings.find:run_rebuild"))


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user", metavar="NAME", help="only sessions of this user; * and ? are wildcards, as in all names"
    )
    parser.add_argument("--login", metavar="NAME", help="only sessions as this login")
    parser.add_argument("--host", metavar="NAME", help="only sessions at this host, or host:port")
    parser.add_argument(
        "--target", metavar="NAME",
        help="only sessions at this machine: its name as requested, or its address, with or without port",
    )  # fmt: skip
    parser.add_argument("--approved-by", metavar="NAME", help="only sessions that this user approved")
    parser.add_argument(
        "--since", metavar="WHEN", type=moment,
        help="only from this time on, in UTC: 2026-11-23, 2026-11-23T14:00, or 2h for two hours ago",
    )  # fmt: skip
    parser.add_argument("--until", metavar="WHEN", type=moment, help="only before this time")
    _add_json(parser)


def _register_view(commands: Subparsers) -> None:
    play_parser = commands.add_parser(
        "play",
        help="play a recording with its original timing; into a pipe, all at once",
        description="Play a recording on the terminal. Keys: space: pause; .: one step; arrows: 5 s;\n"
        "PgUp, PgDn: 60 s; [ and ]: markers; 0 to 9: jump to 0 % … 90 %; Home, End; + and -: speed; q: quit.",
        epilog="Example:\n  conchrec recordings play --speed 4 --idle 1 06c5mghfba7faxgaqvzpe16264\n",
    )
    play_parser.add_argument(
        "--speed", type=argument_type(_parse_number), default=1.0, metavar="N",
        help="play N times as fast, like 2 or 0.5 (default: 1)",
    )  # fmt: skip
    play_parser.add_argument(
        "--idle", type=argument_type(_parse_number), metavar="SECONDS", help="shorten longer pauses to this"
    )
    play_parser.set_defaults(command=LateFunction("conchrec.cli.recordings.view:run_play"))
    text_parser = commands.add_parser("text", help="print the output of a recording as plain text")
    text_parser.set_defaults(command=LateFunction("conchrec.cli.recordings.view:run_text"))
    follow_parser = commands.add_parser(
        "follow", help="show a live session from its beginning until it ends (q quits)"
    )
    follow_parser.set_defaults(command=LateFunction("conchrec.cli.recordings.view:run_follow"))
    export_parser = commands.add_parser(
        "export",
        help="write a recording to a file or standard output, decrypted",
        epilog="Example:\n  conchrec recordings export --format text -o s.txt 06c5mghfba7faxgaqvzpe16264\n",
    )
    export_parser.add_argument(
        "--format", choices=("cast", "text", "json"), default="cast",
        help="cast (default): for asciinema; text: the output as plain text; json: manifest and events",
    )  # fmt: skip
    export_parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        help="write to this file, which must not exist (default: standard output)",
    )  # fmt: skip
    export_parser.set_defaults(command=LateFunction("conchrec.cli.recordings.view:run_export"))
    for parser in (play_parser, text_parser, follow_parser, export_parser):
        _add_id(parser)
        if parser in (play_parser, follow_parser):
            parser.add_argument(
                "--raw", action="store_true",
                help="print the recorded bytes unchanged; control sequences can do anything to your terminal",
            )  # fmt: skip
        _add_identity(parser)
        parser.set_defaults(rights=rights_for_files("identity", "output"))


def _register_verify(commands: Subparsers) -> None:
    verify = commands.add_parser(
        "verify",
        help="verify signatures, and find changed and missing recordings",
        description="Verify recordings, their manifests and the ledger. An auditor can verify copies on\n"
        "another machine: with --key and paths it needs no configuration.",
        epilog="Examples:\n"
        "  conchrec recordings verify\n"
        "  conchrec recordings verify --key recording_key.pub /mnt/copy/2026/11\n",
    )
    verify.add_argument(
        "what", metavar="ID|PATH", nargs="*",
        help="IDs of recordings, or copied files or directories (default: all recordings)",
    )  # fmt: skip
    verify.add_argument(
        "--key", metavar="FILE", type=Path,
        help="a file with the public keys (default: STATE_DIR/recording_key.pub)",
    )  # fmt: skip
    verify.add_argument(
        "--head", metavar="HEAD", type=_HEAD,
        help="a head that you stored elsewhere, like those in the audit log (NUMBER:DIGEST): fail if the "
        "ledger does not contain it",
    )  # fmt: skip
    _add_identity(verify)
    _add_json(verify)
    verify.set_defaults(
        command=LateFunction("conchrec.cli.recordings.verify:run_verify"),
        needs_config=LateFunction("conchrec.cli.recordings.verify:needs_config"),
        rights=LateFunction("conchrec.cli.recordings.verify:rights_of"),
    )


def _register_keep(commands: Subparsers) -> None:
    prune = commands.add_parser(
        "prune",
        help="remove recordings that are older or larger than the retention allows",
        description="Remove old recordings. The proxy does it by itself as recordings.retention says. With\n"
        "--age or --size only these limits apply. Held recordings stay. The ledger and the\n"
        "audit log keep a line for each removed recording.",
        epilog="Example:\n  conchrec recordings prune --age 365d --dry-run\n",
    )
    prune.add_argument("--dry-run", action="store_true", help="print what would be removed; remove nothing")
    prune.add_argument(
        "--age", metavar="DURATION", type=duration, help="remove recordings that are older, like 365d"
    )
    prune.add_argument(
        "--size", metavar="SIZE", type=size,
        help="remove the oldest recordings while all together are larger, like 500GiB",
    )  # fmt: skip
    _add_json(prune)
    prune.set_defaults(command=LateFunction("conchrec.cli.recordings.keep:run_prune"))
    for name, help_text in (
        ("hold", "protect a recording from removal (legal hold)"),
        ("release", "end the hold: the recording may be removed again"),
    ):
        hold = commands.add_parser(
            name, help=help_text, epilog=f"Example:\n  conchrec recordings {name} ID --reason 'case 4711'\n"
        )
        _add_id(hold)
        hold.add_argument(
            "--reason", metavar="TEXT", default="", required=name == "hold",
            help="the reason, for the ledger and the audit log",
        )  # fmt: skip
        hold.set_defaults(command=LateFunction("conchrec.cli.recordings.keep:run_hold"), action=name)


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the ID of the recording, as ls prints it")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_identity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--identity", metavar="FILE", type=Path,
        help="the private key for encrypted recordings: a file made by age-keygen, or an SSH key without a "
        "passphrase",
    )  # fmt: skip


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"invalid number {text!r}: must be a whole number from 1 on")
    return int(text)


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < _LARGEST_NUMBER:
        raise ValueError(f"invalid number {text!r}: must be greater than 0 and less than 1000000")
    return number
