"""Helpers of the commands about authorities: files, keys and the audit log."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.ca.authority import Authority
from conchrec.config.loader import Config
from conchrec.errors import ConchrecError, WriteFailed
from conchrec.files import write_atomic
from conchrec.keys import open_authority
from conchrec.ownership import as_invoker
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import (
    KEY_TYPES,
    blob_of,
    fingerprint,
    key_type_of,
)
from conchrec.text import decode_text

if TYPE_CHECKING:
    from conchrec.audit.events import AuditEvent

DONE = 0


class CommandFailed(ConchrecError):
    """The command cannot do what the arguments request; the text says why, and what to do."""

    default_code = ReasonCode.COMMAND_REFUSED


def open_and_report(config: Config, err: TextIO) -> Authority:
    """The authorities; missing keys are created, and named on standard error."""
    authority = open_authority(config)
    for path in authority.created:
        print(f"conchrec: created {path}", file=err)
    return authority


def describe_key(blob: bytes) -> str:
    """The fingerprint and the type of a public key, for people."""
    return f"{fingerprint(blob)} ({key_type_of(blob).decode().removeprefix('ssh-')})"


def read_public_key(path: Path) -> bytes:
    """The wire blob of the only plain public key in a file. Raises CommandFailed."""
    return read_blob(path, KEY_TYPES)


def read_blob(path: Path, kinds: Collection[bytes]) -> bytes:
    """The wire blob of the only key of these types in a file. Raises CommandFailed."""
    try:
        with as_invoker():
            lines = decode_text(path.read_bytes()).splitlines()
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
    blob = blob_of(lines, kinds)
    if blob is None:
        allowed = "public key" if len(kinds) == len(KEY_TYPES) else "public key or certificate"
        raise CommandFailed(f"{path} must contain exactly one {allowed}, like a .pub file of ssh-keygen")
    return blob


def check_absent(paths: list[Path], force: bool) -> None:
    """Raises CommandFailed where one of the files exists and ``--force`` was not given."""
    with as_invoker():
        existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise CommandFailed(
            f"cannot write {', '.join(existing)}: already exists; choose another --out, or replace with"
            " --force"
        )


def write_file(path: Path, contents: bytes, mode: int) -> None:
    """Replace a file of the invoker's as a whole, with these permissions. Raises CommandFailed."""
    try:
        with as_invoker():
            write_atomic(path, contents, mode)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error


def audit(config: Config, event: AuditEvent, err: TextIO) -> None:
    """Append to the proxy's audit log; where that fails, print a warning."""
    from conchrec.audit.open import audit_once  # slow to import

    try:
        audit_once(config, event)
    except WriteFailed as error:
        print(f"warning: done, but not audited: {error.detail}", file=err)
