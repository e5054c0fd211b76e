"""``conchrec ca …``: what targets and users need of our authorities, and certificates by hand."""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import os
import re
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conchrec import audit
from conchrec.access.authority import Authority, public_line
from conchrec.config import Config
from conchrec.errors import ConchrecError, WriteFailed
from conchrec.ssh.certificate import KEY_TYPES, Certificate, fingerprint, key_type_of
from conchrec.ssh.wire import string
from conchrec.yamlread import parse_duration

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

DONE, NO = 0, 1
_NAMES = re.compile(r"[^\s,]+(,[^\s,]+)*")
HOST_TTL = timedelta(days=90)
USER_TTL = timedelta(hours=12)


class Refused(ConchrecError):
    """What was asked for can't be done; says why."""


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("ca", help="the certificate authorities: export, sign, status")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    export = commands.add_parser("export", help="the public key that targets or users are to trust")
    export.add_argument("--type", choices=("user", "host"), required=True)
    export.add_argument(
        "--format", choices=("openssh", "authorized-keys"), default="openssh",
        help="openssh: a line for TrustedUserCAKeys or known_hosts; authorized-keys: cert-authority (user)",
    )  # fmt: skip
    export.add_argument(
        "--domain", metavar="PATTERN", default="*", help="the hosts that it is believed for (host)"
    )
    export.set_defaults(command=_export)

    host = commands.add_parser("sign-host", help="a host certificate for a target")
    host.add_argument("--host", type=_names, required=True, metavar="NAME[,NAME…]", help="all its names")
    host.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE and FILE-cert.pub")
    host.add_argument("--public-key", type=Path, metavar="FILE", help="certify this key; else a new one")
    host.add_argument("--ttl", type=_ttl, default=HOST_TTL, help="how long it is good (default 90d)")
    host.add_argument("--force", action="store_true", help="write over files that are there")
    host.set_defaults(command=_sign_host)

    user = commands.add_parser("sign-user", help="a user certificate for a public key")
    user.add_argument("--user", required=True, help="whom it is for: the key id of the certificate")
    user.add_argument("--login", type=_names, required=True, metavar="NAME[,NAME…]", help="at the targets")
    user.add_argument("--public-key", type=Path, required=True, metavar="FILE")
    user.add_argument("--ttl", type=_ttl, default=USER_TTL, help="how long it is good (default 12h)")
    user.add_argument("--out", type=Path, metavar="FILE", help="else beside the key: k.pub → k-cert.pub")
    user.add_argument("--force", action="store_true", help="write over a file that is there")
    user.set_defaults(command=_sign_user)

    status = commands.add_parser("status", help="which authorities there are")
    status.set_defaults(command=_status)


def _names(text: str) -> tuple[str, ...]:
    if not _NAMES.fullmatch(text):
        raise argparse.ArgumentTypeError("names with commas between them, please")
    return tuple(text.split(","))


def _ttl(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _open(config: Config, err: TextIO) -> Authority:
    authority = Authority.open(config.state_dir, config.cluster_name, now=lambda: datetime.now(timezone.utc))
    for path in authority.created:
        print(f"conchrec: made {path}", file=err)
    return authority


def _export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    if args.type == "user":
        line = authority.user_ca_line
        print(f"cert-authority {line}" if args.format == "authorized-keys" else line, file=out)
    elif args.format == "authorized-keys":
        raise Refused("a host CA has no place in authorized_keys; it belongs into known_hosts")
    else:
        print(f"@cert-authority {args.domain} {authority.host_ca_line}", file=out)
    return DONE


def _status(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    print(f"cluster   {config.cluster_name}\nstate_dir {config.state_dir}", file=out)
    for kind, blob in (("user CA", authority.user_ca_public), ("host CA", authority.host_ca_public)):
        print(f"{kind}   {fingerprint(blob)} (ed25519)", file=out)
    return DONE


def _sign_host(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    key_file: Path = args.out
    certificate_file = key_file.with_name(key_file.name + "-cert.pub")
    made: ed25519.Ed25519PrivateKey | None = None
    if args.public_key is not None:
        public = _public_key(args.public_key)
        wanted = [certificate_file]
    else:
        made = ed25519.Ed25519PrivateKey.generate()
        public = string(b"ssh-ed25519") + string(made.public_key().public_bytes_raw())
        wanted = [key_file, key_file.with_name(key_file.name + ".pub"), certificate_file]
    _check_free(wanted, args.force)
    certificate = authority.sign_host(public, args.host, args.ttl)
    if made is not None:
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        _place(key_file, pem, 0o600)
        _place(wanted[1], f"{public_line(public)} {args.host[0]}\n".encode(), 0o644)
    _place(certificate_file, f"{public_line(certificate.blob)} {args.host[0]}\n".encode(), 0o644)
    _audit(config, certificate, "host", err)
    key_name = key_file.name if made is not None else "its own host key (as it is)"
    print(
        f"{certificate_file} is good for {', '.join(certificate.principals)}"
        f" until {certificate.valid_until_text}.\nOn the target, in sshd_config:\n"
        f"    HostKey /etc/ssh/{key_name}\n    HostCertificate /etc/ssh/{certificate_file.name}\n"
        "then check it with `sshd -t`, and restart sshd.",
        file=out,
    )
    return DONE


def _sign_user(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    public = _public_key(args.public_key)
    certificate_file: Path = args.out or _beside(args.public_key)
    _check_free([certificate_file], args.force)
    if args.user not in config.users:
        print(f"conchrec: there is no user {args.user} in {config.file}; signed all the same", file=err)
    certificate = authority.sign_user(public, principals=args.login, key_id=args.user, ttl=args.ttl)
    _place(certificate_file, f"{public_line(certificate.blob)} {args.user}\n".encode(), 0o644)
    _audit(config, certificate, "user", err)
    print(
        f"{certificate_file} is good for {', '.join(certificate.principals)}"
        f" until {certificate.valid_until_text}.",
        file=out,
    )
    return DONE


def _beside(public_key: Path) -> Path:
    return public_key.with_name(public_key.name.removesuffix(".pub") + "-cert.pub")


def _public_key(path: Path) -> bytes:
    """The wire blob of the one plain public key in a file. Raises Refused."""
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    with contextlib.suppress(IndexError, ValueError, binascii.Error, ConchrecError):
        kind, encoded = lines[0].split()[:2]
        blob = base64.b64decode(encoded, validate=True)
        if len(lines) == 1 and key_type_of(blob) == kind.encode() and kind.encode() in KEY_TYPES:
            return blob
    raise Refused(f"{path} does not hold one plain public key (a .pub file of ssh-keygen)")


def _check_free(paths: list[Path], force: bool) -> None:
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise Refused(f"{', '.join(there)} is there already; --force writes over it")


def _place(path: Path, contents: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by more than ``mode`` says."""
    partial = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(contents)
    shutil.move(partial, path)


def _audit(config: Config, certificate: Certificate, kind: str, err: TextIO) -> None:
    """The same event as the proxy writes; where the log is not ours to write, the person hears of it."""
    event = audit.CertCreate(
        type=kind,
        key_id=certificate.key_id,
        serial=certificate.serial,
        principals=certificate.principals,
        valid_until=certificate.valid_until_text,
        key=fingerprint(certificate.public_key),
        purpose="conchrec ca",
    )
    try:
        log = audit.AuditLog(config.audit.file)
        try:
            log.emit(event)
        finally:
            log.close()
    except WriteFailed as error:
        print(f"conchrec: the audit log does not have it: {error.detail}", file=err)
