"""``conchrec recordings verify``: are recordings as they were sealed, and are all of them there?

Needs nothing but the public key. With the configuration the ledger is also compared with the heads that are
known outside its directory: in the state directory and in the audit log. Exit codes: 0 all ok; 1 something
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
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.recordings.keep import add_identity, identities_of, trusted_keys
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
from conchrec.recording.storage.layout import FORMS, MANIFEST, RecordingTree
from conchrec.text import escape

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

OK, FAILED = 0, 1
_DEPTH = 4
"""How far below the ledger a recording lies: year, month, day, file."""


def register(commands: Subparsers) -> None:
    verify = commands.add_parser(
        "verify", help="check signatures and find what is missing; needs only the public key"
    )
    verify.add_argument(
        "what", metavar="ID|PATH", nargs="*",
        help="recordings, or files or directories that were copied from elsewhere; default: all recordings",
    )  # fmt: skip
    verify.add_argument(
        "--key", metavar="FILE", type=Path, help="public keys; default: those of this installation"
    )
    verify.add_argument(
        "--head", metavar="HEAD", default="",
        help="a head that was noted elsewhere (the audit log has them): the ledger must contain it",
    )  # fmt: skip
    add_identity(verify)
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(command=_verify, needs_config=_needs_config, rights=_rights)


def _needs_config(args: argparse.Namespace) -> bool:
    return args.key is None or not args.what or any(is_session_id(one) for one in args.what)


def _rights(args: argparse.Namespace) -> Rights:
    """It writes nothing; what is named may be anybody's, also a copy that only root can read."""
    if any(not is_session_id(one) for one in args.what):
        return Rights.INVOKER
    return Rights.BOTH if args.key is not None or args.identity is not None else Rights.OWNER


@dataclass(slots=True)
class _Report:
    """What was found: ``ledger`` are problems of ledgers, ``problems`` those of the whole request."""

    verdicts: list[VerifyResult] = field(default_factory=list)
    ledger: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    head: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems and not self.ledger and all(verdict.whole for verdict in self.verdicts)


def _verify(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    keys = trusted_keys(config, args)
    request = _Verification(config, keys, Verifier(keys, identities_of(args), utc_now), args.head, err)
    ids = [one for one in args.what if is_session_id(one)]
    if config is not None and (ids or not args.what):
        request.ledger(config.recordings.directory, only=ids or None)
    for one in args.what:
        if not is_session_id(one):
            request.path(Path(os.path.abspath(one)))
    request.end()
    _print(request.report, out, as_json=args.json)
    return OK if request.report.ok else FAILED


class _Verification:
    """One call of the command."""

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
        """A file or a directory. Where a ledger lies above it, that says what must be there."""
        if not os.path.lexists(path):
            self.report.problems.append(f"{path}: no such file or directory, and not a recording's id")
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
        """Recordings with the ledger that names them: all, some by their ids, or those in one directory."""
        # In this order: what is in the audit log or on the disk is in the ledger by then.
        heads = self._known_heads(root)
        tree = RecordingTree(root)
        there = [sid for sid, _ in tree.recordings()]
        book = LedgerReader(root / ledger.NAME, self._keys, self._head, heads)
        self._head_used = True
        self.report.ledger += book.problems
        self.report.head = book.head
        wanted: Collection[str] = only if only is not None else {*there, *book.entries}
        if below is not None and below != root:
            wanted = [sid for sid in wanted if tree.manifest_path(sid).is_relative_to(below)]
        known = self._add(self._verifier.directory(book, root, wanted, there)) if wanted else set()
        if only is None:
            known |= self._add(self._verifier.strays(below or root, root))
        if not book.there and (known or heads or self._head):
            self.report.ledger.append(f"there is no ledger: {root / ledger.NAME}")
        for sid in only or ():
            if sid not in known:
                problem = "no such recording: neither the directory nor the ledger has this id"
                self._add([VerifyResult(sid=sid, status="unknown", problems=(problem,))])
        if not known and only is None:
            self.report.problems.append(
                f"nothing to verify: no recordings in {below or root}, and its ledger names none"
            )

    def end(self) -> None:
        """All arguments were processed."""
        if self._head and not self._head_used:
            self.report.problems.append("there is no ledger that --head could be compared with")

    def _directory(self, path: Path) -> None:
        """One without a ledger: copies."""
        known = self._add(self._verifier.strays(path))
        if not known:
            self.report.problems.append(f"nothing to verify: no recordings in {path}")
        elif any(sid for sid, _ in RecordingTree(path).recordings()):
            self.report.ledger.append(f"there is no ledger: {path / ledger.NAME}")
        else:
            self.report.notes.append(f"{path} has no ledger: a recording that is missing is not noticed")

    def _add(self, verdicts: Iterable[VerifyResult]) -> set[str]:
        known = set()
        for verdict in _progress(iter(verdicts), self._err):
            known.add(verdict.sid)
            self.report.verdicts.append(verdict)
        return known

    def _is_configured(self, root: Path) -> bool:
        directory = self._config.recordings.directory if self._config is not None else None
        return directory is not None and os.path.abspath(directory) == str(root)

    def _known_heads(self, root: Path) -> list[KnownHead]:
        """What is known of this ledger outside its directory, as far as we may read it."""
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
            self._not_compared(config.state_dir, error)
        try:
            heads += heads_in_audit(config.audit.file, directory)
        except (OSError, EOFError) as error:
            self._not_compared(config.audit.file, error)
        return heads

    def _not_compared(self, path: Path, error: Exception) -> None:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self.report.notes.append(f"the ledger was not compared with the heads in {path}: {why}")


def _root_above(path: Path) -> Path | None:
    """The directory with the ledger of what lies here: this one, or one above days, months and years."""
    for directory in (path, *path.parents[:_DEPTH]):
        below = path.relative_to(directory).parts
        days = below if path.is_dir() else below[:-1]
        if all(part.isdecimal() for part in days) and os.path.lexists(directory / ledger.NAME):
            return directory
    return None


def _cast(path: Path) -> Path:
    """A manifest stands for the recording beside it."""
    if path.name.endswith(MANIFEST):
        sid = path.name.removesuffix(MANIFEST)
        forms = (form for form in FORMS if os.path.lexists(path.with_name(sid + form)))
        return path.with_name(sid + next(forms, FORMS[0]))
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
                    "whole": verdict.whole,
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
        if verdict.whole and (verdict.notes or alone):
            notes = "".join(f"; {note}" for note in verdict.notes)
            print(f"ok      {verdict.sid}: {verdict.status}{escape(notes)}", file=out)
    for note in report.notes:
        print(f"note    {escape(note)}", file=out)
    print(_summary(report), file=out)
    if report.head:
        print(f"head: {report.head}", file=out)


def _summary(report: _Report) -> str:
    count = Counter(verdict.status for verdict in report.verdicts)
    kinds = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
    failed = sum(not verdict.whole for verdict in report.verdicts)
    result = "ok"
    if not report.ok:
        result = f"{failed} FAILED" if failed else "the ledger FAILED" if report.ledger else "FAILED"
    return f"{len(report.verdicts)} recordings ({kinds or 'none'}): {result}"


def _progress(verdicts: Iterator[VerifyResult], err: TextIO) -> Iterator[VerifyResult]:
    """On a terminal, how far it is."""
    if not err.isatty():
        yield from verdicts
        return
    for number, verdict in enumerate(verdicts, 1):
        err.write(f"\r{number} verified")
        yield verdict
    err.write("\r\x1b[K")
