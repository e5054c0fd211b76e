"""``conchrec recordings verify | prune | hold | release``: is it whole, and how long does it stay.

``verify`` needs nothing but the public key; the others write to the ledger, so they are run as the user
that runs conchrec. Exit codes: 0 done, or all whole; 1 something is not whole, or there is no such recording.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.arguments import duration, size
from conchrec.cli.rights import Rights
from conchrec.cli.shown import account, shown
from conchrec.config import Config
from conchrec.errors import ConfigError
from conchrec.ownership import as_invoker
from conchrec.recording import ledger, retention
from conchrec.recording.ledger import Act, Ledger
from conchrec.recording.recipients import Identities, identities
from conchrec.recording.seal import Keys
from conchrec.recording.session_id import is_session_id
from conchrec.recording.tree import FORMS, MANIFEST, Tree
from conchrec.recording.verify import Book, Verdict, Verifier

if TYPE_CHECKING:
    from conchrec.audit import AuditEvent
    from conchrec.cli.main import Subparsers

YES, NO = 0, 1


def register(commands: Subparsers) -> None:
    verify = commands.add_parser("verify", help="whole, or changed? needs nothing but the public key")
    verify.add_argument(
        "what", metavar="ID|PATH", nargs="*",
        help="recordings, or files or directories that were copied from elsewhere; else all there are",
    )  # fmt: skip
    verify.add_argument(
        "--key", metavar="FILE", type=Path, help="public keys; else those of this installation"
    )
    verify.add_argument(
        "--head", metavar="HEAD", default="",
        help="a head that was noted elsewhere (the audit log has them): the ledger must contain it",
    )  # fmt: skip
    add_identity(verify)
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(command=_verify, needs_config=_needs_config, rights=_verify_rights)
    prune = commands.add_parser("prune", help="remove what recordings.retention does not keep")
    prune.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    prune.add_argument(
        "--age", metavar="AGE", type=duration, help="what is older (365d); else as configured"
    )
    prune.add_argument(
        "--size", metavar="SIZE", type=size, help="the oldest above (500GiB); else as configured"
    )
    prune.add_argument("--json", action="store_true")
    prune.set_defaults(command=_prune)
    for name, act, text in (
        ("hold", Act.HELD, "a recording is not removed, however old (a legal hold)"),
        ("release", Act.RELEASED, "a recording may be removed again"),
    ):
        keeping = commands.add_parser(name, help=text)
        keeping.add_argument("id", metavar="ID")
        keeping.add_argument("--reason", metavar="TEXT", default="", required=act is Act.HELD)
        keeping.set_defaults(command=_hold, act=act)


def add_identity(parser: argparse.ArgumentParser) -> None:
    """For every command that reads what is recorded."""
    parser.add_argument(
        "--identity", metavar="FILE", type=Path,
        help="the private key for encrypted recordings: of age-keygen, or an SSH key without a passphrase",
    )  # fmt: skip


def identities_of(args: argparse.Namespace) -> Identities:
    """What ``--identity`` names. Raises ConfigError."""
    if args.identity is None:
        return ()
    try:
        with as_invoker():
            return identities(args.identity.read_bytes())
    except OSError as error:
        raise ConfigError("--identity", f"{args.identity} can not be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(
            "--identity", f"{args.identity} is no private key of age or SSH: {error}"
        ) from error


# -- verify


def _needs_config(args: argparse.Namespace) -> bool:
    return args.key is None or not args.what or any(is_session_id(one) for one in args.what)


def _verify_rights(args: argparse.Namespace) -> Rights:
    """It writes nothing; what is named may be anybody's, also a copy that only root can read."""
    if any(not is_session_id(one) for one in args.what):
        return Rights.INVOKER
    return Rights.BOTH if args.key is not None or args.identity is not None else Rights.OWNER


@dataclass(slots=True)
class _Count:
    """What was found; ``ledgers`` are its problems."""

    verdicts: list[Verdict]
    ledgers: list[str]
    head: str = ""

    @property
    def whole(self) -> bool:
        return not self.ledgers and all(verdict.whole for verdict in self.verdicts)


def _verify(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    keys = _keys(config, args)
    verifier = Verifier(keys, identities_of(args), _now)
    found = _Count([], [])
    ids = [one for one in args.what if is_session_id(one)]
    if config is not None and (ids or not args.what):
        _directory(verifier, keys, config.recordings.directory, args.head, ids, found, err)
    for one in args.what:
        if not is_session_id(one):
            path = Path(one)
            if path.is_dir():
                _directory(verifier, keys, path, args.head, (), found, err)
            else:
                found.verdicts.append(verifier.recording(_cast(path)))
    _report(found, out, as_json=args.json)
    return YES if found.whole else NO


def _keys(config: Config | None, args: argparse.Namespace) -> Keys:
    from conchrec.authorities import public_signing_key, signing_keys  # which takes long to load

    if getattr(args, "key", None) is not None:
        with as_invoker():
            return signing_keys(args.key)
    assert config is not None
    return signing_keys(public_signing_key(config.state_dir))


def _directory(
    verifier: Verifier,
    keys: Keys,
    root: Path,
    head: str,
    ids: list[str] | tuple[str, ...],
    found: _Count,
    err: TextIO,
) -> None:
    there = [sid for sid, _ in Tree(root).recordings()]
    book = Book(root / ledger.NAME, keys, head)
    found.ledgers += book.problems
    found.head = book.head
    known = set()
    for verdict in _progress(verifier.directory(book, root, ids, there), err):
        known.add(verdict.sid)
        found.verdicts.append(verdict)
    if not book.there and (known or head):
        found.ledgers.append(f"there is no ledger: {root / ledger.NAME}")
    for sid in ids:
        if sid not in known:
            problem = "there is no such recording, and the ledger knows of none"
            found.verdicts.append(Verdict(sid=sid, status="unknown", problems=(problem,)))


def _cast(path: Path) -> Path:
    """A manifest stands for the recording beside it."""
    if path.name.endswith(MANIFEST):
        sid = path.name.removesuffix(MANIFEST)
        there = (each for form in FORMS if (each := path.with_name(sid + form)).exists())
        return next(there, path.with_name(sid + FORMS[0]))
    return path


def _report(found: _Count, out: TextIO, *, as_json: bool) -> None:
    if as_json:
        fields = {
            "whole": found.whole,
            "head": found.head,
            "ledger": found.ledgers,
            "recordings": [
                {
                    "sid": one.sid,
                    "status": one.status,
                    "whole": one.whole,
                    "problems": list(one.problems),
                    "notes": list(one.notes),
                }
                for one in found.verdicts
            ],
        }
        print(json.dumps(fields, indent=1), file=out)
        return
    for one in found.ledgers:
        print(f"NOT WHOLE  the ledger: {shown(one)}", file=out)
    alone = len(found.verdicts) == 1
    for verdict in found.verdicts:
        for problem in verdict.problems:
            print(f"NOT WHOLE  {shown(verdict.sid)}: {shown(problem)}", file=out)
        if verdict.whole and (verdict.notes or alone):
            notes = "".join(f"; {note}" for note in verdict.notes)
            print(f"whole      {verdict.sid}: {verdict.status}{shown(notes)}", file=out)
    count = Counter(verdict.status for verdict in found.verdicts)
    kinds = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
    bad = sum(not verdict.whole for verdict in found.verdicts)
    said = "all whole" if found.whole else f"{bad} NOT WHOLE" if bad else "the ledger is NOT WHOLE"
    print(f"{len(found.verdicts)} recordings ({kinds or 'none'}): {said}", file=out)
    if found.head:
        print(f"head: {found.head}", file=out)


def _progress(verdicts: Iterator[Verdict], err: TextIO) -> Iterable[Verdict]:
    """On a terminal, how far it is."""
    if not err.isatty():
        yield from verdicts
        return
    for number, verdict in enumerate(verdicts, 1):
        err.write(f"\r{number} verified")
        yield verdict
    err.write("\r\x1b[K")


# -- prune, hold, release


def _prune(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    from conchrec.audit import RecordingRemoved
    from conchrec.recording.indexing import forget

    assert config is not None
    kept = config.recordings.retention
    by_hand = args.age is not None or args.size is not None
    age, size = (args.age, args.size or 0) if by_hand else (kept.age, kept.size)
    if age is None and not size:
        print("conchrec: recordings.retention says nothing: all recordings stay", file=err)
        return YES
    tree = Tree(config.recordings.directory)
    keys = _keys(config, args)
    found = tuple(retention.expired(tree, keys, _now(), age=age, size=size))
    if found and not args.dry_run:
        book = _ledger(config)
        with _log(config) as log:
            for one in found:
                log(
                    RecordingRemoved(
                        sid=one.sid,
                        by=account(),
                        sudo_user=os.environ.get("SUDO_USER", ""),
                        reason=one.reason,
                    )
                )
                retention.remove(tree, book, one.sid, reason=one.reason, by=account())
        forget(tree.root)
    if args.json:
        rows = [{"sid": one.sid, "size": one.size, "reason": one.reason} for one in found]
        print(json.dumps(rows, indent=1), file=out)
        return YES
    for one in found:
        print(one.sid, f"{one.size:>12}", one.reason, file=out)
    freed = sum(one.size for one in found)
    what = "would be removed" if args.dry_run else "removed"
    print(f"{len(found)} recordings, {freed} bytes, {what}", file=out)
    return YES


def _hold(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    from conchrec.audit import RecordingHeld

    assert config is not None
    tree = Tree(config.recordings.directory)
    if not is_session_id(args.id) or not tree.path(args.id).exists():
        print(f"conchrec: no recording {shown(args.id)}", file=err)
        return NO
    is_held = args.id in retention.held(tree.root / ledger.NAME)
    if is_held is (args.act is Act.HELD):
        print(f"conchrec: {args.id} is {'held already' if is_held else 'not held'}", file=err)
        return NO
    book = _ledger(config)
    with _log(config) as log:
        log(
            RecordingHeld(
                sid=args.id,
                action="hold" if args.act is Act.HELD else "release",
                by=account(),
                sudo_user=os.environ.get("SUDO_USER", ""),
                reason=args.reason,
            )
        )
    book.append(args.act, args.id, reason=args.reason, by=account())
    book.sync()
    print(f"{args.id} is {'held' if args.act is Act.HELD else 'released'}", file=out)
    return YES


def _ledger(config: Config) -> Ledger:
    """Neither it nor the key is made here: whoever asks would own it, and the service could not write."""
    from conchrec.authorities import open_signer

    signer, _ = open_signer(config.state_dir)
    book = Ledger(config.recordings.directory, signer, _now)
    if not book.path.exists():
        raise ConfigError("recordings.directory", f"there is no ledger: {book.path}; start conchrec first")
    return book


@contextmanager
def _log(config: Config) -> Iterator[Callable[[AuditEvent], None]]:
    """For the same reason nothing is audited where there is no log."""
    from conchrec.auditing import open_log

    if not config.audit.file.exists():
        yield lambda event: None
        return
    log = open_log(config)
    try:
        yield log.emit
    finally:
        log.close()


def _now() -> datetime:
    return datetime.now(timezone.utc)
