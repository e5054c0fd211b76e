"""``conchrec ca``: exports the keys of our authorities, signs, rotates and revokes."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conchrec.audit import events
from conchrec.audit.open import audit_once
from conchrec.ca import keystore
from conchrec.ca.authority import Authority, CaKind, public_line
from conchrec.ca.revocation import Revoked
from conchrec.ca.rotation import RotationStep
from conchrec.cli.argument_types import duration
from conchrec.cli.rights import Rights, rights_for_files
from conchrec.config.loader import Config
from conchrec.errors import ConchrecError, WriteFailed
from conchrec.files import write_atomic
from conchrec.keys import open_authority
from conchrec.ownership import as_invoker
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import (
    KEY_TYPES,
    Certificate,
    certificate_type,
    decode,
    fingerprint,
    key_type_of,
)
from conchrec.ssh.wire import string
from conchrec.text import decode_text
from conchrec.yaml_cursor import nearest

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

DONE, NO = 0, 1
_NAMES = re.compile(r"[^\s,]+(,[^\s,]+)*")
HOST_TTL = timedelta(days=90)
USER_TTL = timedelta(hours=12)


class CommandFailed(ConchrecError):
    """The command cannot do what the arguments request; the text says why, and what to do."""

    default_code = ReasonCode.COMMAND_REFUSED


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``ca`` and of its commands."""
    parser = subparsers.add_parser(
        "ca",
        help="manage the certificate authorities: export, sign, rotate, revoke",
        description="conchrec has two certificate authorities (CA). Targets that trust the user CA accept\n"
        "the certificates that the proxy signs for users. Users who trust the host CA accept\n"
        "the proxy, and the targets that have a host certificate.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _register_export(commands)
    _register_sign_host(commands)
    _register_sign_user(commands)

    status = commands.add_parser(
        "status", help="show the keys of both authorities, their rotation, and what is revoked"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)

    _register_rotate(commands)
    _register_revoke(commands)

    krl = commands.add_parser(
        "krl",
        help="write a list of everything that is revoked, for sshd's RevokedKeys",
        description="Write a key revocation list (KRL). Copy it to each target and name it in\n"
        "sshd_config as RevokedKeys. The proxy itself needs no list.",
        epilog="Example:\n  conchrec ca krl --out revoked.krl\n",
    )
    krl.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    krl.set_defaults(command=_krl, rights=Rights.BOTH)


def _register_export(commands: Subparsers) -> None:
    export = commands.add_parser(
        "export",
        help="print the public key of an authority, as a line for targets or users",
        description="Print the public key of an authority: of the user CA for the targets, of the host CA\n"
        "for the users. During a rotation there is a line for each trusted key.",
        epilog="Examples:\n"
        "  conchrec ca export --type user             for the file of sshd's TrustedUserCAKeys\n"
        "  conchrec ca export --type host --domain '*.example.com'       for known_hosts\n",
    )
    export.add_argument(
        "--type", choices=("user", "host"), required=True, help="the authority: of users or of hosts"
    )
    export.add_argument(
        "--format", choices=("openssh", "authorized-keys"), default="openssh",
        help="openssh (default): a line for TrustedUserCAKeys or known_hosts; authorized-keys: a "
        "cert-authority line for authorized_keys (user CA only)",
    )  # fmt: skip
    export.add_argument(
        "--domain", metavar="PATTERN", default="*",
        help="the hosts for which users trust the host CA, like '*.example.com' (default: all)",
    )  # fmt: skip
    export.set_defaults(command=_export)


def _register_sign_host(commands: Subparsers) -> None:
    host = commands.add_parser(
        "sign-host",
        help="sign a host certificate for a target",
        description="Sign a host certificate. It contains every name by which users reach the target.\n"
        "Without --public-key a new host key is created: FILE and FILE.pub.",
        epilog="Example:\n"
        "  conchrec ca sign-host --host web1,web1.example.com --out web1 \\\n"
        "      --public-key ssh_host_ed25519_key.pub\n",
    )
    host.add_argument(
        "--host", type=_names, required=True, metavar="NAME[,NAME…]", help="all names of the target"
    )
    host.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="write the certificate to FILE-cert.pub (and a new key to FILE and FILE.pub)",
    )  # fmt: skip
    host.add_argument(
        "--public-key", type=Path, metavar="FILE",
        help="the target's public host key (default: create a new key)",
    )  # fmt: skip
    host.add_argument(
        "--ttl", type=duration, default=HOST_TTL, metavar="DURATION", help="its validity (default: 90d)"
    )
    host.add_argument("--force", action="store_true", help="replace existing files")
    host.set_defaults(command=_sign_host, rights=Rights.BOTH)


def _register_sign_user(commands: Subparsers) -> None:
    user = commands.add_parser(
        "sign-user",
        help="sign a user certificate for a public key",
        description="Sign a user certificate. With it the user can log in at every target that trusts\n"
        "the user CA, also without the proxy.",
        epilog="Example:\n  conchrec ca sign-user --user joe --login root,ubuntu --public-key joe.pub\n",
    )
    user.add_argument(
        "--user", required=True, metavar="NAME", help="the user: becomes the key ID of the certificate"
    )
    user.add_argument(
        "--login", type=_names, required=True, metavar="NAME[,NAME…]",
        help="the account names at the targets (principals)",
    )  # fmt: skip
    user.add_argument("--public-key", type=Path, required=True, metavar="FILE", help="the user's public key")
    user.add_argument(
        "--ttl", type=duration, default=USER_TTL, metavar="DURATION", help="its validity (default: 12h)"
    )
    user.add_argument(
        "--out", type=Path, metavar="FILE",
        help="write the certificate to FILE (default: next to the key: k-cert.pub for k.pub)",
    )  # fmt: skip
    user.add_argument("--force", action="store_true", help="replace an existing file")
    user.set_defaults(command=_sign_user, rights=Rights.BOTH)


def _register_rotate(commands: Subparsers) -> None:
    rotate = commands.add_parser(
        "rotate",
        help="replace the key of an authority, in phases",
        description="Replace the key of an authority while everything continues to work:\n"
        "  init      create a new key; it is trusted, but does not sign yet\n"
        "  update    the new key signs; the old one is still trusted\n"
        "  finish    remove the key that does not sign\n"
        "  rollback  let the old key sign again\n"
        "Each phase prints what to do before the next one.",
        epilog="Example:\n  conchrec ca rotate --type user --phase init\n",
    )
    rotate.add_argument(
        "--type", choices=("user", "host"), required=True, help="the authority: of users or of hosts"
    )
    rotate.add_argument(
        "--phase", choices=[step.value for step in RotationStep], required=True, help="the next phase"
    )
    rotate.add_argument(
        "--public-key", type=Path, metavar="FILE",
        help="with ca_agent and --phase init: the public key of the new key in the agent",
    )  # fmt: skip
    rotate.set_defaults(command=_rotate, rights=rights_for_files("public_key"))


def _register_revoke(commands: Subparsers) -> None:
    revoke = commands.add_parser(
        "revoke",
        help="revoke a certificate, a key or a user",
        description="Revoke a certificate, a key or a user. The proxy refuses it at once. Targets refuse\n"
        "it when they have the new list: conchrec ca krl.",
        epilog="Examples:\n  conchrec ca revoke --key stolen.pub\n  conchrec ca revoke --user joe --undo\n",
    )
    subject = revoke.add_mutually_exclusive_group(required=True)
    subject.add_argument(
        "--serial",
        type=_serial,
        metavar="N",
        help="the certificate of our authorities with this serial number",
    )
    subject.add_argument("--key-id", type=_name, metavar="ID", help="all certificates with this key ID")
    subject.add_argument(
        "--key", type=Path, metavar="FILE", help="a public key; of a certificate file, only that certificate"
    )
    subject.add_argument("--user", type=_name, metavar="NAME", help="every login of this user, by any method")
    revoke.add_argument("--undo", action="store_true", help="remove the revocation")
    revoke.set_defaults(command=_revoke, rights=rights_for_files("key"))


def _names(text: str) -> tuple[str, ...]:
    if not _NAMES.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"invalid names {text!r}: must be names separated by commas, without spaces"
        )
    return tuple(text.split(","))


def _name(text: str) -> str:
    if not text or not text.isprintable() or len(text) > 256:
        raise argparse.ArgumentTypeError(f"invalid name {text!r}: must be 1 to 256 printable characters")
    return text


def _serial(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"invalid serial number {text!r}: must be a number from 1 on")
    return int(text)


def _open_authority(config: Config, err: TextIO) -> Authority:
    """The authorities; missing keys are created, and named on standard error."""
    authority = open_authority(config)
    for path in authority.created:
        print(f"conchrec: created {path}", file=err)
    return authority


def _export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open_authority(config, err)
    if args.type == "user":
        prefix = "cert-authority " if args.format == "authorized-keys" else ""
        for line in authority.user_ca_lines().splitlines():
            print(prefix + line, file=out)
    elif args.format == "authorized-keys":
        raise CommandFailed(
            "--format authorized-keys is for the user CA only; add the line of the host CA to known_hosts"
        )
    else:
        out.write(authority.host_ca_lines(args.domain))
    return DONE


def _status(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open_authority(config, err)
    revoked = authority.revoked()
    if args.json:
        fields: dict[str, object] = {"cluster": config.cluster_name, "state_dir": str(config.state_dir)}
        for ca in CaKind:
            trusted = list(map(fingerprint, authority.trusted(ca)))
            phase = authority.rotation(ca).phase.value
            fields[f"{ca.value}_ca"] = {"phase": phase, "signs": trusted[0], "trusted": trusted}
        print(json.dumps({**fields, "revoked": revoked.to_json()}), file=out)
        return DONE
    print(f"cluster   {config.cluster_name}\nstate_dir {config.state_dir}", file=out)
    for ca in CaKind:
        current, *others = authority.trusted(ca)
        print(f"{ca.value} CA   {_describe_key(current)}", file=out)
        for blob in others:
            print(f"          {_describe_key(blob)}: trusted, does not sign", file=out)
        if others:
            print(f"          rotation: {authority.rotation(ca).phase.value}", file=out)
    for kind, names in (
        ("user", sorted(revoked.users)),
        ("key id", sorted(revoked.key_ids)),
        ("serial", map(str, sorted(revoked.serials))),
        ("key", sorted(map(fingerprint, revoked.keys))),
    ):
        for name in names:
            print(f"revoked   {kind} {name}", file=out)
    return DONE


def _describe_key(blob: bytes) -> str:
    return f"{fingerprint(blob)} ({key_type_of(blob).decode().removeprefix('ssh-')})"


def _rotate(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    ca, step = CaKind(args.type), RotationStep(args.phase)
    public: bytes | None = None
    if args.public_key is not None:
        if step is not RotationStep.INIT or not config.ca_agent:
            raise CommandFailed(
                "--public-key works only with --phase init and a configured ca_agent;"
                " without ca_agent, leave it out: init creates the new key"
            )
        public = _read_public_key(args.public_key)
    elif step is RotationStep.INIT and config.ca_agent:
        raise CommandFailed(
            "the keys of the authorities are in the agent (ca_agent): add a new key to the agent, and name"
            " it with --public-key FILE"
        )
    authority = _open_authority(config, err)
    rotation = authority.rotate(ca, step, public_key=public)
    _audit(
        config,
        events.CaRotate(
            type=ca.value, phase=step.value, signs=fingerprint(authority.trusted(ca)[0]),
            trusted=tuple(map(fingerprint, authority.trusted(ca))),
        ),
        err,
    )  # fmt: skip
    print(f"{ca.value} CA: {rotation.phase.value}", file=out)
    for number, blob in enumerate(authority.trusted(ca)):
        print(f"    {_describe_key(blob)} {'signs' if not number else 'is trusted'}", file=out)
    print(_NEXT_STEPS[ca, step].format(config=config.file), file=out)
    return DONE


_NEXT_STEPS = {
    (CaKind.USER, RotationStep.INIT): (
        "Next: let every target trust both keys. On each target, write the output of\n"
        "    conchrec ca export --type user\n"
        "to the file of TrustedUserCAKeys (sshd reads it at each login). Then run --phase update."
    ),
    (CaKind.USER, RotationStep.UPDATE): (
        "The new key signs from now on. Next: wait until the last certificate of the old key has expired\n"
        "(after 12h, or the --ttl that you gave), or let users log in again. Then run --phase finish."
    ),
    (CaKind.USER, RotationStep.FINISH): (
        "The proxy rejects certificates of the removed key from now on. On each target, write the output of\n"
        "    conchrec ca export --type user\n"
        "to the file of TrustedUserCAKeys: until then the target still accepts them."
    ),
    (CaKind.USER, RotationStep.ROLLBACK): (
        "The old key signs again. Keep both keys in TrustedUserCAKeys of the targets until the certificates\n"
        "of the new key have expired. Then, if the phase is not idle, run --phase finish."
    ),
    (CaKind.HOST, RotationStep.INIT): (
        "Next: let every user trust both keys. Add the output of\n"
        "    conchrec ca export --type host\n"
        "to their known_hosts (or to /etc/ssh/ssh_known_hosts). Then run --phase update."
    ),
    (CaKind.HOST, RotationStep.UPDATE): (
        "The new key signs from now on. Next: sign the host key of each target again with\n"
        "    conchrec ca sign-host --host NAME --public-key FILE --out FILE\n"
        "and restart its sshd. Then run --phase finish."
    ),
    (CaKind.HOST, RotationStep.FINISH): (
        "The proxy rejects host certificates of the removed key from now on. Its line can be removed from\n"
        "the users' known_hosts."
    ),
    (CaKind.HOST, RotationStep.ROLLBACK): (
        "The old key signs again. Sign the targets again that have a certificate of the new key.\n"
        "Then, if the phase is not idle, run --phase finish."
    ),
}


def _revoke(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open_authority(config, err)
    kind, name, revoked = _parse_revocation(args, authority)
    if args.user is not None and args.user not in config.users:
        hint = nearest(args.user, tuple(config.users))
        print(f"warning: {config.file} has no user {args.user!r}{hint}", file=err)
    before = authority.revoked()
    after = authority.revocations.change(**{"remove" if args.undo else "add": revoked})
    if after.version == before.version:
        state = "is not revoked" if args.undo else "is already revoked"
        print(f"{kind} {name} {state}: nothing to do", file=out)
        return DONE
    _audit(config, events.CaRevoke(what=kind, name=name, undo=args.undo), err)
    state = "no longer revoked" if args.undo else "revoked"
    print(
        f"{kind} {name} is {state} at the proxy, from now on.\n"
        "Targets with RevokedKeys in sshd_config need the new list:\n"
        "    conchrec ca krl --out FILE",
        file=out,
    )
    return DONE


def _parse_revocation(args: argparse.Namespace, authority: Authority) -> tuple[str, str, Revoked]:
    """The kind and the name of what is revoked, for people, and the same as a value."""
    if args.serial is not None:
        return "serial", str(args.serial), Revoked(serials=frozenset({args.serial}))
    if args.key_id is not None:
        return "key id", args.key_id, Revoked(key_ids=frozenset({args.key_id}))
    if args.user is not None:
        return "user", args.user, Revoked(users=frozenset({args.user}))
    blob = _read_blob(args.key, (*KEY_TYPES, *map(certificate_type, KEY_TYPES)))
    if key_type_of(blob) in KEY_TYPES:
        return "key", fingerprint(blob), Revoked(keys=frozenset({blob}))
    certificate = decode(blob)
    if certificate.authority not in (*authority.trusted(CaKind.USER), *authority.trusted(CaKind.HOST)):
        raise CommandFailed(
            f"{args.key} is a certificate of another authority: only that authority can revoke it;"
            " to refuse its key here, give the public key (.pub)"
        )
    return "serial", str(certificate.serial), Revoked(serials=frozenset({certificate.serial}))


def _krl(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open_authority(config, err)
    _write(args.out, authority.krl(), 0o644)
    print(
        f"Wrote everything that is revoked to {args.out}. On each target, in sshd_config:\n"
        f"    RevokedKeys /etc/ssh/{args.out.name}\n"
        "sshd reads the file at each login. If it cannot read the file, it refuses all keys.",
        file=out,
    )
    return DONE


def _sign_host(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    if patterns := [name for name in args.host if set(name) & set("*?[]")]:
        raise CommandFailed(
            f"invalid host name {patterns[0]}: OpenSSH before 10.3 accepts no patterns in a host certificate;"
            " list all names of this host, and sign a certificate for each host"
        )
    authority = _open_authority(config, err)
    key_file: Path = args.out
    certificate_file = key_file.with_name(key_file.name + "-cert.pub")
    new_key: ed25519.Ed25519PrivateKey | None = None
    if args.public_key is not None:
        public = _read_public_key(args.public_key)
        files = [certificate_file]
    else:
        new_key = ed25519.Ed25519PrivateKey.generate()
        public = string(b"ssh-ed25519") + string(new_key.public_key().public_bytes_raw())
        files = [key_file, key_file.with_name(key_file.name + ".pub"), certificate_file]
    _check_absent(files, args.force)
    certificate = authority.sign_host(public, args.host, args.ttl)
    if new_key is not None:
        pem = new_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        _write(key_file, pem, 0o600)
        _write(files[1], f"{public_line(public)} {args.host[0]}\n".encode(), 0o644)
    _write(certificate_file, f"{public_line(certificate.blob)} {args.host[0]}\n".encode(), 0o644)
    _audit_certificate(config, certificate, "host", err)
    key_name = key_file.name if new_key is not None else "THE-HOST-KEY-THAT-YOU-CERTIFIED"
    print(
        f"Wrote {certificate_file}: valid for {', '.join(certificate.principals)}"
        f" until {certificate.valid_until_text}.\nOn the target, in sshd_config:\n"
        f"    HostKey /etc/ssh/{key_name}\n    HostCertificate /etc/ssh/{certificate_file.name}\n"
        "Then check it with `sshd -t`, and reload sshd: systemctl reload ssh (on some systems: sshd).",
        file=out,
    )
    return DONE


def _sign_user(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open_authority(config, err)
    public = _read_public_key(args.public_key)
    certificate_file: Path = args.out or _certificate_path(args.public_key)
    _check_absent([certificate_file], args.force)
    if args.user not in config.users:
        hint = nearest(args.user, tuple(config.users))
        print(f"warning: signed, but {config.file} has no user {args.user!r}{hint}", file=err)
    certificate = authority.sign_user(public, principals=args.login, key_id=args.user, ttl=args.ttl)
    _write(certificate_file, f"{public_line(certificate.blob)} {args.user}\n".encode(), 0o644)
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


def _read_public_key(path: Path) -> bytes:
    """The wire blob of the only plain public key in a file. Raises CommandFailed."""
    return _read_blob(path, KEY_TYPES)


def _read_blob(path: Path, kinds: Collection[bytes]) -> bytes:
    """The wire blob of the only key of these types in a file. Raises CommandFailed."""
    try:
        with as_invoker():
            lines = decode_text(path.read_bytes()).splitlines()
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
    blob = keystore.blob_of(lines, kinds)
    if blob is None:
        allowed = "public key" if len(kinds) == len(KEY_TYPES) else "public key or certificate"
        raise CommandFailed(f"{path} must contain exactly one {allowed}, like a .pub file of ssh-keygen")
    return blob


def _check_absent(paths: list[Path], force: bool) -> None:
    """Raises CommandFailed where one of the files exists and ``--force`` was not given."""
    with as_invoker():
        existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise CommandFailed(
            f"cannot write {', '.join(existing)}: already exists; name another --out, or replace with --force"
        )


def _write(path: Path, contents: bytes, mode: int) -> None:
    """Replace a file of the invoker's as a whole, with these permissions. Raises CommandFailed."""
    try:
        with as_invoker():
            write_atomic(path, contents, mode)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error


def _audit_certificate(config: Config, certificate: Certificate, kind: str, err: TextIO) -> None:
    event = events.CertCreate(
        type=kind,
        key_id=certificate.key_id,
        serial=certificate.serial,
        principals=certificate.principals,
        valid_until=certificate.valid_until_text,
        key=fingerprint(certificate.public_key),
        purpose="conchrec ca",
    )
    _audit(config, event, err)


def _audit(config: Config, event: events.AuditEvent, err: TextIO) -> None:
    """Append to the proxy's audit log; where that fails, print a warning."""
    try:
        audit_once(config, event)
    except WriteFailed as error:
        print(f"warning: done, but not audited: {error.detail}", file=err)
