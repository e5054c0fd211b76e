"""``conchrec audit verify``: was the audit log changed?

Exit codes: 0 it was not; 1 it was, or there is nothing to verify; 64 usage; 78 configuration.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.audit.chain import Head
from conchrec.audit.files import Unreadable, log_files, oldest_first, read_lines
from conchrec.audit.heads import NAME, AuditHeadFile
from conchrec.audit.verify import AuditVerifier
from conchrec.cli.rights import Rights
from conchrec.config.loader import Config
from conchrec.ownership import as_invoker
from conchrec.recording.format.signatures import TrustedKeys
from conchrec.text import escape

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

OK, FAILED, USAGE = 0, 1, 64
_EPILOG = """\
Without FILE the configured log and all its rotated files are verified, packed ones (gz, bz2, xz, zst) among
them, and compared with the heads that the state directory keeps. With --key and FILE no configuration is
needed: an auditor verifies copies elsewhere, with the public key STATE_DIR/recording_key.pub.

A chain without a closing line is a note: its process was killed, or still writes. docs/audit.md describes
what is found, and what cannot be.
"""


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("audit", help="verify the audit log")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="find lines that were changed, removed, added or moved",
        description="Verify the chains and signatures of the audit log.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "files", metavar="FILE", nargs="*", type=Path,
        help="files of one log, in any order; else those of the configuration",
    )  # fmt: skip
    verify.add_argument(
        "--key", metavar="FILE", type=Path, help="public keys; else those of this installation"
    )
    verify.add_argument(
        "--head", metavar="HEAD", type=_head, action="append", default=[],
        help="a head that was noted elsewhere (CHAIN:SEQ:DIGEST): the log must contain it",
    )  # fmt: skip
    verify.add_argument(
        "--complete", action="store_true", help="fail where older lines are missing, rotated away or not"
    )
    verify.add_argument("--json", action="store_true", help="for machines")
    verify.set_defaults(command=_verify, needs_config=_needs_config, rights=_rights)


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _needs_config(args: argparse.Namespace) -> bool:
    return args.key is None or not args.files or getattr(args, "config", None) is not None


def _rights(args: argparse.Namespace) -> Rights:
    """It writes nothing; a file that is named may be anybody's."""
    if args.files:
        return Rights.INVOKER
    return Rights.BOTH if args.key is not None else Rights.OWNER


def _verify(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    keys = _keys(config, args.key)
    # The heads first: the log may grow meanwhile.
    heads = _known_heads(config, args.files)
    files = args.files or _configured(config)
    verifier = AuditVerifier(keys, heads=heads, required=args.head, complete=args.complete)
    try:
        for path in oldest_first(files):
            verifier.read(str(path), read_lines(path))
    except Unreadable as error:
        verifier.problems.append(error.public)
    verifier.finish()
    if not heads and not args.head:
        verifier.notes.append("no head is known here, so an end that was cut is not noticed: see --head")
    _report(verifier, files, out, as_json=args.json)
    return OK if verifier.ok else FAILED


def _keys(config: Config | None, path: Path | None) -> TrustedKeys:
    from conchrec.keys import public_signing_key, signing_keys  # which takes long to load

    if path is None:
        assert config is not None
        path = public_signing_key(config.state_dir)
        return signing_keys(path)
    with as_invoker():
        return signing_keys(path)


def _known_heads(config: Config | None, files: Iterable[Path]) -> tuple[Head, ...]:
    """Those of the state directory, where the live log is among the files."""
    if config is None:
        return ()
    chosen = [path.resolve() for path in files]
    if chosen and config.audit.file.resolve() not in chosen:
        return ()
    return AuditHeadFile(config.state_dir / NAME).heads()


def _configured(config: Config | None) -> tuple[Path, ...]:
    assert config is not None
    return log_files(config.audit.file)


def _report(verifier: AuditVerifier, files: Iterable[Path], out: TextIO, *, as_json: bool) -> None:
    head = str(verifier.head) if verifier.head is not None else ""
    if as_json:
        fields = {
            "ok": verifier.ok,
            "files": [str(path) for path in files],
            "lines": verifier.lines,
            "chains": [chain.as_json() for chain in verifier.chains.values()],
            "problems": verifier.problems,
            "notes": verifier.notes,
            "head": head,
        }
        print(json.dumps(fields, indent=1), file=out)
        return
    for note in verifier.notes:
        print(f"note    {escape(note)}", file=out)
    for problem in verifier.problems:
        print(f"FAILED  {escape(problem)}", file=out)
    counts = f"{verifier.lines} lines, {len(verifier.chains)} chains, {len(tuple(files))} files"
    print(f"{counts}: {'ok' if verifier.ok else 'FAILED'}", file=out)
    if head:
        print(f"head: {head}", file=out)
