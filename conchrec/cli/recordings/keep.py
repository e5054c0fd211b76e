"""``conchrec recordings prune | hold | release``: how long recordings stay.

All of them write to the ledger, so they are run as the user that runs conchrec. Exit codes: 0 done; 1 there
is no such recording, or it is held already.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.argument_types import duration, size
from conchrec.cli.rights import account
from conchrec.clock import utc_now
from conchrec.config.loader import Config
from conchrec.errors import ConfigError
from conchrec.ownership import as_invoker
from conchrec.recording import retention
from conchrec.recording.evidence import ledger
from conchrec.recording.evidence.heads import HeadFile
from conchrec.recording.evidence.ledger import Ledger, LedgerAction
from conchrec.recording.format.session_id import is_session_id
from conchrec.recording.format.signatures import TrustedKeys
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.storage.recipients import Identities, identities
from conchrec.text import escape

if TYPE_CHECKING:
    from conchrec.audit.events import AuditEvent
    from conchrec.cli.main import Subparsers

YES, NO = 0, 1


def register(commands: Subparsers) -> None:
    prune = commands.add_parser("prune", help="remove what recordings.retention does not keep")
    prune.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    prune.add_argument("--age", metavar="AGE", type=duration, help="what is older (365d); else as configured")
    prune.add_argument(
        "--size", metavar="SIZE", type=size, help="the oldest above (500GiB); else as configured"
    )
    prune.add_argument("--json", action="store_true")
    prune.set_defaults(command=_prune)
    for name, act, text in (
        ("hold", LedgerAction.HELD, "a recording is not removed, however old (a legal hold)"),
        ("release", LedgerAction.RELEASED, "a recording may be removed again"),
    ):
        keeping = commands.add_parser(name, help=text)
        keeping.add_argument("id", metavar="ID")
        keeping.add_argument("--reason", metavar="TEXT", default="", required=act is LedgerAction.HELD)
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


def trusted_keys(config: Config | None, args: argparse.Namespace) -> TrustedKeys:
    """The public keys of ``--key``, or of this installation. Raises ConfigError."""
    from conchrec.keys import public_signing_key, signing_keys  # which takes long to load

    if getattr(args, "key", None) is not None:
        with as_invoker():
            return signing_keys(args.key)
    assert config is not None
    return signing_keys(public_signing_key(config.state_dir))


# -- prune, hold, release


def _prune(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    from conchrec.audit.events import RecordingRemoved
    from conchrec.recording.catalogue.indexer import forget

    assert config is not None
    kept = config.recordings.retention
    by_hand = args.age is not None or args.size is not None
    age, size = (args.age, args.size or 0) if by_hand else (kept.age, kept.size)
    if age is None and not size:
        print("conchrec: recordings.retention says nothing: all recordings stay", file=err)
        return YES
    tree = RecordingTree(config.recordings.directory)
    keys = trusted_keys(config, args)
    found = tuple(retention.expired(tree, keys, utc_now(), age=age, size=size))
    if found and not args.dry_run:
        book = _ledger(config)
        # From here on the ledger knows of each hold; what was held before is read again.
        book.refresh()
        held = retention.held(book.path)
        found = tuple(one for one in found if one.sid not in held)
        with _log(config) as log:
            for one in found:
                if book.is_held(one.sid):
                    continue
                log(
                    RecordingRemoved(
                        sid=one.sid,
                        by=account(),
                        sudo_user=os.environ.get("SUDO_USER", ""),
                        reason=one.reason,
                    )
                )
                retention.remove(tree, book, one.sid, reason=one.reason, by=account())
        book.keep_head()
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
    from conchrec.audit.events import RecordingHeld

    assert config is not None
    tree = RecordingTree(config.recordings.directory)
    if not is_session_id(args.id) or not tree.path(args.id).exists():
        print(f"conchrec: no recording {escape(args.id)}", file=err)
        return NO
    book = _ledger(config)
    book.refresh()
    is_held = args.id in retention.held(tree.root / ledger.NAME)
    if is_held is (args.act is LedgerAction.HELD):
        print(f"conchrec: {args.id} is {'held already' if is_held else 'not held'}", file=err)
        return NO
    with _log(config) as log:
        log(
            RecordingHeld(
                sid=args.id,
                action="hold" if args.act is LedgerAction.HELD else "release",
                by=account(),
                sudo_user=os.environ.get("SUDO_USER", ""),
                reason=args.reason,
            )
        )
    book.append(args.act, args.id, reason=args.reason, by=account())
    book.sync()
    book.keep_head()
    print(f"{args.id} is {'held' if args.act is LedgerAction.HELD else 'released'}", file=out)
    return YES


def _ledger(config: Config) -> Ledger:
    """Neither it nor the key is made here: whoever asks would own it, and the service could not write."""
    from conchrec.keys import open_signer

    signer, keys = open_signer(config.state_dir)
    heads = HeadFile(config.state_dir)
    book = Ledger(config.recordings.directory, signer, utc_now, keys=keys, heads=heads)
    if not book.path.exists():
        raise ConfigError("recordings.directory", f"there is no ledger: {book.path}; start conchrec first")
    return book


@contextmanager
def _log(config: Config) -> Iterator[Callable[[AuditEvent], None]]:
    """For the same reason nothing is audited where there is no log."""
    from conchrec.audit.open import open_log

    if not config.audit.file.exists():
        yield lambda event: None
        return
    log = open_log(config)
    try:
        yield log.emit
    finally:
        log.close()
