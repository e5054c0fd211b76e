"""``conchrec recordings prune | hold | release``: removes old recordings, and protects some from removal.

They write to the ledger, so they are run as root, or as the account that runs conchrec. Exit codes: 0 done;
1 the recording does not exist, or is held already.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.recordings.common import report_missing
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
from conchrec.recording.storage.recipients import Identities, parse_identities
from conchrec.text import count_of

if TYPE_CHECKING:
    from conchrec.audit.events import AuditEvent

YES, NO = 0, 1


def identities_of(args: argparse.Namespace) -> Identities:
    """The private keys of ``--identity``; none without it. Raises ConfigError."""
    if args.identity is None:
        return ()
    try:
        with as_invoker():
            return parse_identities(args.identity.read_bytes())
    except OSError as error:
        raise ConfigError("--identity", f"cannot read {args.identity}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(
            "--identity",
            f"{args.identity} is not an age or SSH private key. Give a file made by age-keygen, or an SSH key"
            " without a passphrase",
        ) from error


def trusted_keys(config: Config | None, args: argparse.Namespace) -> TrustedKeys:
    """The public keys of ``--key``, or of this installation. Raises ConfigError."""
    from conchrec.keys import installed_signing_keys, signing_keys  # slow to import

    if getattr(args, "key", None) is not None:
        with as_invoker():
            return signing_keys(args.key, setting="--key")
    assert config is not None
    return installed_signing_keys(config.state_dir, has_key_option=hasattr(args, "key"))


# -- prune, hold, release


def run_prune(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings prune``."""
    from conchrec.audit.events import RecordingRemoved
    from conchrec.recording.catalogue.indexer import forget

    assert config is not None
    configured = config.recordings.retention
    has_limit = args.age is not None or args.size is not None
    age, size = (args.age, args.size or 0) if has_limit else (configured.age, configured.size)
    if age is None and not size:
        print(
            "note: nothing to remove: recordings.retention has no limit; give one with --age or --size",
            file=err,
        )
        return YES
    tree = RecordingTree(config.recordings.directory)
    keys = trusted_keys(config, args)
    expired = tuple(retention.expired_recordings(tree, keys, utc_now(), age=age, size=size))
    if expired and not args.dry_run:
        book = _open_ledger(config)
        # From here on the ledger sees each new hold; earlier holds are read again.
        book.refresh()
        held = retention.held_recordings(book.path)
        removed = []
        with _open_audit(config) as emit:
            for recording in expired:
                if recording.sid in held or book.is_held(recording.sid):
                    continue
                emit(
                    RecordingRemoved(
                        sid=recording.sid,
                        by=account(),
                        sudo_user=os.environ.get("SUDO_USER", ""),
                        reason=recording.reason,
                    )
                )
                retention.remove(tree, book, recording.sid, reason=recording.reason, by=account())
                removed.append(recording)
        expired = tuple(removed)
        book.save_head()
        forget(tree.root)
    if args.json:
        rows = [{"sid": item.sid, "size": item.size, "reason": item.reason} for item in expired]
        print(json.dumps(rows, indent=1), file=out)
        return YES
    for recording in expired:
        print(recording.sid, f"{recording.size:>12}", recording.reason, file=out)
    total = sum(recording.size for recording in expired)
    outcome = "would remove" if args.dry_run else "removed"
    print(f"{outcome} {count_of(len(expired), 'recording')} ({total} bytes)", file=out)
    return YES


def run_hold(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings hold`` or ``release``."""
    from conchrec.audit.events import RecordingHeld

    assert config is not None
    tree = RecordingTree(config.recordings.directory)
    if not is_session_id(args.id) or not tree.path(args.id).exists():
        return report_missing(args.id, err)
    book = _open_ledger(config)
    book.refresh()
    action = LedgerAction.HELD if args.action == "hold" else LedgerAction.RELEASED
    is_held = args.id in retention.held_recordings(tree.root / ledger.NAME)
    if is_held is (action is LedgerAction.HELD):
        print(f"conchrec: {args.id} is {'already held' if is_held else 'not held'}", file=err)
        return NO
    with _open_audit(config) as emit:
        emit(
            RecordingHeld(
                sid=args.id,
                action=args.action,
                by=account(),
                sudo_user=os.environ.get("SUDO_USER", ""),
                reason=args.reason,
            )
        )
    book.append(action, args.id, reason=args.reason, by=account())
    book.sync()
    book.save_head()
    print(f"{args.id} is {'held' if action is LedgerAction.HELD else 'released'}", file=out)
    return YES


def _open_ledger(config: Config) -> Ledger:
    """The ledger. Raises ConfigError where it or its key does not exist.

    It is not created here: the file would belong to the account that runs the command, and the service
    could not write to it.
    """
    from conchrec.keys import open_signer

    signer, keys = open_signer(config.state_dir)
    heads = HeadFile(config.state_dir)
    book = Ledger(config.recordings.directory, signer, utc_now, keys=keys, heads=heads)
    if not book.path.exists():
        raise ConfigError(
            "recordings.directory", f"the ledger {book.path} does not exist; start conchrec first"
        )
    return book


@contextmanager
def _open_audit(config: Config) -> Iterator[Callable[[AuditEvent], None]]:
    """A function that appends to the audit log; one that does nothing where there is no log.

    The log is not created here, for the same reason as the ledger.
    """
    from conchrec.audit.open import open_log

    if not config.audit.file.exists():
        yield lambda event: None
        return
    log = open_log(config)
    try:
        yield log.emit
    finally:
        log.close()
