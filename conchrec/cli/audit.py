"""``conchrec audit verify``: detects changes of the audit log.

Exit codes: 0 unchanged; 1 changed, or there is nothing to verify; 64 usage; 78 configuration.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from conchrec.audit.chain import Head
from conchrec.audit.files import Unreadable, log_files, oldest_first, read_lines
from conchrec.audit.heads import NAME, AuditHeadFile
from conchrec.audit.verify import AuditVerifier
from conchrec.cli.rights import Rights
from conchrec.config.loader import Config
from conchrec.ownership import as_invoker
from conchrec.recording.format.signatures import TrustedKeys
from conchrec.text import count_of, escape

OK, FAILED, USAGE = 0, 1, 64


def needs_config(args: argparse.Namespace) -> bool:
    """Whether the command reads the configuration."""
    return args.key is None or not args.files or getattr(args, "config", None) is not None


def rights_of(args: argparse.Namespace) -> Rights:
    """It writes nothing; files that the command line names may belong to any account."""
    if args.files:
        return Rights.INVOKER
    return Rights.BOTH if args.key is not None else Rights.OWNER


def run_verify(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec audit verify``."""
    keys = _read_keys(config, args.key)
    # The heads first: the log may grow meanwhile.
    heads = _stored_heads(config, args.files)
    files = args.files or _configured_files(config)
    verifier = AuditVerifier(keys, heads=heads, required=args.head, complete=args.complete)
    try:
        for path in oldest_first(files):
            verifier.read(str(path), read_lines(path))
    except Unreadable as error:
        verifier.problems.append(error.public)
    verifier.finish()
    if not heads and not args.head:
        verifier.notes.append(
            "no head to compare with: lines that were removed at the end are not detected; give a head that"
            " you stored elsewhere with --head"
        )
    _print_report(verifier, files, out, as_json=args.json)
    return OK if verifier.ok else FAILED


def _read_keys(config: Config | None, path: Path | None) -> TrustedKeys:
    """The public keys of ``--key``, or of this installation. Raises ConfigError."""
    from conchrec.keys import installed_signing_keys, signing_keys  # slow to import

    if path is None:
        assert config is not None
        return installed_signing_keys(config.state_dir, has_key_option=True)
    with as_invoker():
        return signing_keys(path, setting="--key")


def _stored_heads(config: Config | None, files: Iterable[Path]) -> tuple[Head, ...]:
    """The heads in the state directory; none where the live log is not among the files."""
    if config is None:
        return ()
    paths = [path.resolve() for path in files]
    if paths and config.audit.file.resolve() not in paths:
        return ()
    return AuditHeadFile(config.state_dir / NAME).heads()


def _configured_files(config: Config | None) -> tuple[Path, ...]:
    assert config is not None
    return log_files(config.audit.file)


def _print_report(verifier: AuditVerifier, files: Iterable[Path], out: TextIO, *, as_json: bool) -> None:
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
    counts = ", ".join(
        (
            count_of(verifier.lines, "line"),
            count_of(len(verifier.chains), "chain"),
            count_of(len(tuple(files)), "file"),
        )
    )
    print(f"{counts}: {'ok' if verifier.ok else 'FAILED'}", file=out)
    if head:
        print(f"head: {head}", file=out)
