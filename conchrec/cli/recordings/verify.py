"""``conchrec recordings verify``: detects changed and missing recordings.

It needs only the public key. With the configuration it also compares the ledger with the heads that are
stored outside its directory: in the state directory and in the audit log. Exit codes: 0 all ok; 1 something
failed, or there was nothing to verify.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from conchrec.cli.recordings.keep import identities_of, trusted_keys
from conchrec.cli.rights import Rights
from conchrec.clock import utc_now
from conchrec.config.loader import Config
from conchrec.errors import RecordingError
from conchrec.recording.evidence import ledger
from conchrec.recording.evidence.heads import HeadFile, KnownHead, heads_in_audit
from conchrec.recording.evidence.ledger_reader import LedgerReader
from conchrec.recording.evidence.verify import Verifier, VerifyResult
from conchrec.recording.format.session_id import is_session_id
from conchrec.recording.format.signatures import TrustedKeys
from conchrec.recording.storage.layout import MANIFEST, SUFFIXES, RecordingTree
from conchrec.text import count_of, escape

OK, FAILED = 0, 1
_DEPTH = 4
"""How many levels a recording is below the ledger: year, month, day, file."""


def needs_config(args: argparse.Namespace) -> bool:
    """Whether the command reads the configuration."""
    return args.key is None or not args.what or any(is_session_id(name) for name in args.what)


def rights_of(args: argparse.Namespace) -> Rights:
    """It writes nothing; a copy that the command line names may be one that only root can read."""
    if any(not is_session_id(name) for name in args.what):
        return Rights.INVOKER
    return Rights.BOTH if args.key is not None or args.identity is not None else Rights.OWNER


@dataclass(slots=True)
class _Report:
    """The result: ``ledger`` are problems of ledgers, ``problems`` those of the request as a whole."""

    verdicts: list[VerifyResult] = field(default_factory=list)
    ledger: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    head: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.problems and not self.ledger and all(verdict.ok for verdict in self.verdicts)


def run_verify(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings verify``."""
    keys = trusted_keys(config, args)
    request = _Verification(config, keys, Verifier(keys, identities_of(args), utc_now), args.head or "", err)
    ids = [name for name in args.what if is_session_id(name)]
    if config is not None and (ids or not args.what):
        request.ledger(config.recordings.directory, only=ids or None)
    for name in args.what:
        if not is_session_id(name):
            request.path(Path(os.path.abspath(name)))
    request.end()
    _print(request.report, out, as_json=args.json)
    return OK if request.report.ok else FAILED


class _Verification:
    """One run of the command: verifies what its arguments name, and collects the results in ``report``."""

    def __init__(
        self, config: Config | None, keys: TrustedKeys, verifier: Verifier, head: str, err: TextIO
    ) -> None:
        self.report = _Report()
        self._config = config
        self._keys = keys
        self._verifier = verifier
        self._head = head
        self._head_used = False
        self._err = err

    def path(self, path: Path) -> None:
        """Verify a file or a directory; with the ledger of a directory above it, where there is one."""
        if not os.path.lexists(path):
            self.report.problems.append(f"{path}: no such file or directory, and not the ID of a recording")
            return
        root = _root_above(path)
        if path.is_dir():
            if root is not None or self._is_configured(path):
                self.ledger(root or path, below=path)
            else:
                self._directory(path)
            return
        file = _cast(path)
        sid = file.name.partition(".")[0]
        if root is not None and is_session_id(sid) and RecordingTree(root).path(sid) == file:
            self.ledger(root, only=[sid])
        else:
            self._add([self._verifier.recording(file)])

    def ledger(self, root: Path, *, only: list[str] | None = None, below: Path | None = None) -> None:
        """Verify the ledger and the recordings: all, those with the ids, or those in one directory."""
        # In this order: the ledger already has what the audit log or the directory has.
        heads = self._stored_heads(root)
        tree = RecordingTree(root)
        there = [sid for sid, _ in tree.recordings()]
        book = LedgerReader(root / ledger.NAME, self._keys, self._head, heads)
        self._head_used = True
        self.report.ledger += book.problems
        self.report.head = book.head
        wanted: Collection[str] = only if only is not None else {*there, *book.entries}
        if below is not None and below != root:
            wanted = [sid for sid in wanted if tree.manifest_path(sid).is_relative_to(below)]
        verified = self._add(self._verifier.directory(book, root, wanted, there)) if wanted else set()
        if only is None:
            verified |= self._add(self._verifier.strays(below or root, root))
        if not book.exists and (verified or heads or self._head):
            count = book.missing_heads
            known = f" ({count} known head{'s are' if count != 1 else ' is'} missing)" if count else ""
            self.report.ledger.append(
                f"the ledger {root / ledger.NAME} does not exist{known}. Restore it from a backup"
            )
        for sid in only or ():
            if sid not in verified:
                problem = "no such recording: neither the directory nor the ledger has this ID"
                self._add([VerifyResult(sid=sid, status="unknown", problems=(problem,))])
        if not verified and only is None:
            self.report.problems.append(
                f"nothing to verify: no recordings in {below or root}, and none in its ledger"
            )

    def end(self) -> None:
        """All arguments were processed: report a head that was compared with no ledger."""
        if self._head and not self._head_used:
            self.report.problems.append(
                "--head was not checked: the paths have no ledger; name the directory that contains"
                f" {ledger.NAME}"
            )

    def _directory(self, path: Path) -> None:
        """Verify copies in a directory that has no ledger."""
        verified = self._add(self._verifier.strays(path))
        if not verified:
            self.report.problems.append(f"nothing to verify: no recordings in {path}")
        elif any(sid for sid, _ in RecordingTree(path).recordings()):
            self.report.ledger.append(
                f"the ledger {path / ledger.NAME} does not exist. Restore it from a backup"
            )
        else:
            self.report.notes.append(f"{path} has no ledger: missing recordings are not detected")

    def _add(self, verdicts: Iterable[VerifyResult]) -> set[str]:
        """Add results to the report, and return the ids of their recordings."""
        verified = set()
        for verdict in _show_progress(iter(verdicts), self._err):
            verified.add(verdict.sid)
            self.report.verdicts.append(verdict)
        return verified

    def _is_configured(self, root: Path) -> bool:
        directory = self._config.recordings.directory if self._config is not None else None
        return directory is not None and os.path.abspath(directory) == str(root)

    def _stored_heads(self, root: Path) -> list[KnownHead]:
        """The heads of this ledger that are stored outside its directory, as far as we may read them."""
        config = self._config
        if config is None or not self._is_configured(root):
            return []
        directory = config.recordings.directory
        heads: list[KnownHead] = []
        try:
            kept = HeadFile(config.state_dir).read(directory)
            if kept is not None and kept.position.number:
                heads.append(KnownHead(head=kept.position.head, source=f"{config.state_dir}"))
        except RecordingError as error:
            self.report.problems.append(error.public)
        except OSError as error:
            self._note_unread(config.state_dir, error)
        try:
            heads += heads_in_audit(config.audit.file, directory)
        except (OSError, EOFError) as error:
            self._note_unread(config.audit.file, error)
        return heads

    def _note_unread(self, path: Path, error: Exception) -> None:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self.report.notes.append(f"the ledger was not compared with the heads in {path}: {reason}")


def _root_above(path: Path) -> Path | None:
    """The directory with the ledger of a recording: this one, or one above days, months and years."""
    for directory in (path, *path.parents[:_DEPTH]):
        below = path.relative_to(directory).parts
        days = below if path.is_dir() else below[:-1]
        if all(part.isdecimal() for part in days) and os.path.lexists(directory / ledger.NAME):
            return directory
    return None


def _cast(path: Path) -> Path:
    """The path of the recording: of a manifest, the recording next to it."""
    if path.name.endswith(MANIFEST):
        sid = path.name.removesuffix(MANIFEST)
        forms = (form for form in SUFFIXES if os.path.lexists(path.with_name(sid + form)))
        return path.with_name(sid + next(forms, SUFFIXES[0]))
    return path


def _print(report: _Report, out: TextIO, *, as_json: bool) -> None:
    if as_json:
        fields = {
            "whole": report.ok,
            "head": report.head,
            "problems": report.problems,
            "notes": report.notes,
            "ledger": report.ledger,
            "recordings": [
                {
                    "sid": verdict.sid,
                    "status": verdict.status,
                    "whole": verdict.ok,
                    "problems": list(verdict.problems),
                    "notes": list(verdict.notes),
                }
                for verdict in report.verdicts
            ],
        }
        print(json.dumps(fields, indent=1), file=out)
        return
    for problem in report.problems:
        print(f"FAILED  {escape(problem)}", file=out)
    for problem in report.ledger:
        print(f"FAILED  ledger: {escape(problem)}", file=out)
    alone = len(report.verdicts) == 1
    for verdict in report.verdicts:
        for problem in verdict.problems:
            print(f"FAILED  {escape(verdict.sid)}: {escape(problem)}", file=out)
        if verdict.ok and (verdict.notes or alone):
            notes = "".join(f"; {note}" for note in verdict.notes)
            print(f"ok      {verdict.sid}: {verdict.status}{escape(notes)}", file=out)
    for note in report.notes:
        print(f"note    {escape(note)}", file=out)
    print(_summary(report), file=out)
    if report.head:
        print(f"head: {report.head}", file=out)


def _summary(report: _Report) -> str:
    count = Counter(verdict.summary or verdict.status for verdict in report.verdicts)
    kinds = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
    failed = sum(not verdict.ok for verdict in report.verdicts)
    result = "ok"
    if not report.ok:
        result = f"{failed} FAILED" if failed else "the ledger FAILED" if report.ledger else "FAILED"
    return f"{count_of(len(report.verdicts), 'recording')} ({kinds or 'none'}): {result}"


def _show_progress(verdicts: Iterator[VerifyResult], err: TextIO) -> Iterator[VerifyResult]:
    """The same results; on a terminal their number is shown meanwhile."""
    if not err.isatty():
        yield from verdicts
        return
    for number, verdict in enumerate(verdicts, 1):
        err.write(f"\r{number} verified")
        yield verdict
    err.write("\r\x1b[K")
