"""``conchrec ca sign-host | sign-user``: signs certificates for public keys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conchrec.audit import events
from conchrec.cli.ca.common import (
    DONE,
    CommandFailed,
    audit,
    check_absent,
    open_and_report,
    read_public_key,
    write_file,
)
from conchrec.config.loader import Config
from conchrec.ssh.certificate import (
    Certificate,
    fingerprint,
    public_line,
)
from conchrec.ssh.wire import string
from conchrec.yaml_cursor import nearest


def run_sign_host(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec ca sign-host``."""
    if patterns := [name for name in args.host if set(name) & set("*?[]")]:
        raise CommandFailed(
            f"invalid host name {patterns[0]}: OpenSSH before 10.3 accepts no patterns in a host certificate;"
            " list all names of this host, and sign a certificate for each host"
        )
    authority = open_and_report(config, err)
    key_file: Path = args.out
    certificate_file = key_file.with_name(key_file.name + "-cert.pub")
    new_key: ed25519.Ed25519PrivateKey | None = None
    if args.public_key is not None:
        public = read_public_key(args.public_key)
        files = [certificate_file]
    else:
        new_key = ed25519.Ed25519PrivateKey.generate()
        public = string(b"ssh-ed25519") + string(new_key.public_key().public_bytes_raw())
        files = [key_file, key_file.with_name(key_file.name + ".pub"), certificate_file]
    check_absent(files, args.force)
    certificate = authority.sign_host(public, args.host, args.ttl)
    if new_key is not None:
        pem = new_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        write_file(key_file, pem, 0o600)
        write_file(files[1], f"{public_line(public)} {args.host[0]}\n".encode(), 0o644)
    write_file(certificate_file, f"{public_line(certificate.blob)} {args.host[0]}\n".encode(), 0o644)
    _audit_certificate(config, certificate, "host", err)
    key_name, copies = "THE-HOST-KEY-THAT-YOU-CERTIFIED", f"{certificate_file}"
    if new_key is not None:
        key_name, copies = key_file.name, f"{key_file} (mode 600), {files[1]} and {certificate_file}"
    print(
        f"Wrote {certificate_file}: valid for {', '.join(certificate.principals)}"
        f" until {certificate.valid_until_text}.\n"
        f"Copy {copies} to /etc/ssh on the target. Then add to sshd_config there:\n"
        f"    HostKey /etc/ssh/{key_name}\n    HostCertificate /etc/ssh/{certificate_file.name}\n"
        "Then check it with `sshd -t`, and reload sshd: systemctl reload ssh (on some systems: sshd).",
        file=out,
    )
    return DONE


def run_sign_user(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec ca sign-user``."""
    authority = open_and_report(config, err)
    public = read_public_key(args.public_key)
    certificate_file: Path = args.out or _certificate_path(args.public_key)
    check_absent([certificate_file], args.force)
    certificate = authority.sign_user(public, principals=args.login, key_id=args.user, ttl=args.ttl)
    write_file(certificate_file, f"{public_line(certificate.blob)} {args.user}\n".encode(), 0o644)
    if args.user not in config.users:
        hint = nearest(args.user, tuple(config.users))
        print(f"warning: signed, but {config.file} has no user {args.user!r}{hint}", file=err)
    _audit_certificate(config, certificate, "user", err)
    print(
        f"Wrote {certificate_file}: valid for {', '.join(certificate.principals)}"
        f" until {certificate.valid_until_text}.",
        file=out,
    )
    return DONE


def _certificate_path(public_key: Path) -> Path:
    """Where ssh looks for the certificate of a key: ``k-cert.pub`` for ``k.pub``."""
    return public_key.with_name(public_key.name.removesuffix(".pub") + "-cert.pub")


def _audit_certificate(config: Config, certificate: Certificate, kind: str, err: TextIO) -> None:
    event = events.CertCreate(
        type=kind,
        key_id=certificate.key_id,
        serial=str(certificate.serial),
        principals=certificate.principals,
        valid_until=certificate.valid_until_text,
        key=fingerprint(certificate.public_key),
        purpose="conchrec ca",
    )
    audit(config, event, err)
