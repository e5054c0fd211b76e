"""``conchrec ca …``: what targets and users need of our authorities, and certificates by hand."""

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
from conchrec.cli.rights import Rights, for_files
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
    """What was asked for can't be done; says why."""

    default_code = ReasonCode.COMMAND_REFUSED


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
    host.add_argument("--ttl", type=duration, default=HOST_TTL, help="how long it is good (default 90d)")
    host.add_argument("--force", action="store_true", help="write over files that are there")
    host.set_defaults(command=_sign_host, rights=Rights.BOTH)

    user = commands.add_parser("sign-user", help="a user certificate for a public key")
    user.add_argument("--user", required=True, help="whom it is for: the key id of the certificate")
    user.add_argument("--login", type=_names, required=True, metavar="NAME[,NAME…]", help="at the targets")
    user.add_argument("--public-key", type=Path, required=True, metavar="FILE")
    user.add_argument("--ttl", type=duration, default=USER_TTL, help="how long it is good (default 12h)")
    user.add_argument("--out", type=Path, metavar="FILE", help="else beside the key: k.pub → k-cert.pub")
    user.add_argument("--force", action="store_true", help="write over a file that is there")
    user.set_defaults(command=_sign_user, rights=Rights.BOTH)

    status = commands.add_parser("status", help="which authorities there are, and what is revoked")
    status.add_argument("--json", action="store_true", help="for machines")
    status.set_defaults(command=_status)

    rotate = commands.add_parser("rotate", help="a new key for an authority, in phases")
    rotate.add_argument("--type", choices=("user", "host"), required=True)
    rotate.add_argument("--phase", choices=[step.value for step in RotationStep], required=True)
    rotate.add_argument(
        "--public-key", type=Path, metavar="FILE",
        help="init: the new key is this one, in the agent (ca_agent); else it is made",
    )  # fmt: skip
    rotate.set_defaults(command=_rotate, rights=for_files("public_key"))

    revoke = commands.add_parser("revoke", help="certificates, keys and users that no longer count")
    what = revoke.add_mutually_exclusive_group(required=True)
    what.add_argument("--serial", type=_serial, metavar="N", help="of a certificate of ours")
    what.add_argument("--key-id", type=_name, metavar="ID", help="of certificates of ours")
    what.add_argument(
        "--key", type=Path, metavar="FILE", help="a public key; of a certificate, that certificate alone"
    )
    what.add_argument("--user", type=_name, metavar="NAME", help="every login of that user, however")
    revoke.add_argument("--undo", action="store_true", help="it was a mistake: it counts again")
    revoke.set_defaults(command=_revoke, rights=for_files("key"))

    krl = commands.add_parser("krl", help="all that is revoked, for sshd's RevokedKeys")
    krl.add_argument("--out", type=Path, required=True, metavar="FILE")
    krl.set_defaults(command=_krl, rights=Rights.BOTH)


def _names(text: str) -> tuple[str, ...]:
    if not _NAMES.fullmatch(text):
        raise argparse.ArgumentTypeError("names with commas between them, please")
    return tuple(text.split(","))


def _name(text: str) -> str:
    if not text or not text.isprintable() or len(text) > 256:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name")
    return text


def _serial(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a serial number")
    return int(text)


def _open(config: Config, err: TextIO) -> Authority:
    authority = open_authority(config)
    for path in authority.created:
        print(f"conchrec: made {path}", file=err)
    return authority


def _export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    if args.type == "user":
        prefix = "cert-authority " if args.format == "authorized-keys" else ""
        for line in authority.user_ca_lines().splitlines():
            print(prefix + line, file=out)
    elif args.format == "authorized-keys":
        raise CommandFailed("a host CA has no place in authorized_keys; it belongs into known_hosts")
    else:
        out.write(authority.host_ca_lines(args.domain))
    return DONE


def _status(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    revoked = authority.revoked()
    if args.json:
        fields: dict[str, object] = {"cluster": config.cluster_name, "state_dir": str(config.state_dir)}
        for role in CaKind:
            trusted = list(map(fingerprint, authority.trusted(role)))
            phase = authority.rotation(role).phase.value
            fields[f"{role.value}_ca"] = {"phase": phase, "signs": trusted[0], "trusted": trusted}
        print(json.dumps({**fields, "revoked": revoked.to_json()}), file=out)
        return DONE
    print(f"cluster   {config.cluster_name}\nstate_dir {config.state_dir}", file=out)
    for role in CaKind:
        signs, *others = authority.trusted(role)
        print(f"{role.value} CA   {_shown(signs)}", file=out)
        for blob in others:
            print(f"          {_shown(blob)}: trusted, does not sign", file=out)
        if others:
            print(f"          rotation: {authority.rotation(role).phase.value}", file=out)
    for what, names in (
        ("user", sorted(revoked.users)),
        ("key id", sorted(revoked.key_ids)),
        ("serial", map(str, sorted(revoked.serials))),
        ("key", sorted(map(fingerprint, revoked.keys))),
    ):
        for name in names:
            print(f"revoked   {what} {name}", file=out)
    return DONE


def _shown(blob: bytes) -> str:
    return f"{fingerprint(blob)} ({key_type_of(blob).decode().removeprefix('ssh-')})"


def _rotate(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    role, step = CaKind(args.type), RotationStep(args.phase)
    public: bytes | None = None
    if args.public_key is not None:
        if step is not RotationStep.INIT or not config.ca_agent:
            raise CommandFailed("--public-key is for init, with a key that the agent at ca_agent holds")
        public = _public_key(args.public_key)
    elif step is RotationStep.INIT and config.ca_agent:
        raise CommandFailed(
            "the keys are in an agent: put a new one there, and name it with --public-key FILE"
        )
    authority = _open(config, err)
    rotation = authority.rotate(role, step, public_key=public)
    _tell(
        config,
        events.CaRotate(
            type=role.value, phase=step.value, signs=fingerprint(authority.trusted(role)[0]),
            trusted=tuple(map(fingerprint, authority.trusted(role))),
        ),
        err,
    )  # fmt: skip
    print(f"{role.value} CA: {rotation.phase.value}", file=out)
    for number, blob in enumerate(authority.trusted(role)):
        print(f"    {_shown(blob)} {'signs' if not number else 'is trusted'}", file=out)
    print(_AFTER[role, step].format(config=config.file), file=out)
    return DONE


_AFTER = {
    (CaKind.USER, RotationStep.INIT): (
        "Before the next step: every target has to trust both. On each of them, write what\n"
        "    conchrec ca export --type user\n"
        "says into the file of TrustedUserCAKeys (sshd reads it at each login). Then: --phase update"
    ),
    (CaKind.USER, RotationStep.UPDATE): (
        "New certificates are by the new key. Before the next step: wait until the last one by the old key\n"
        "has run out (12h, or what you gave as --ttl), or let users log in again. Then: --phase finish"
    ),
    (CaKind.USER, RotationStep.FINISH): (
        "Certificates by the key that was dropped count no longer at the proxy. On each target, write what\n"
        "    conchrec ca export --type user\n"
        "says into the file of TrustedUserCAKeys: there they count until then."
    ),
    (CaKind.USER, RotationStep.ROLLBACK): (
        "The old key signs again. Leave both in the targets' TrustedUserCAKeys until the certificates by\n"
        "the new one have run out; then, where the phase is not idle: --phase finish"
    ),
    (CaKind.HOST, RotationStep.INIT): (
        "Before the next step: every user has to trust both. Put what\n"
        "    conchrec ca export --type host\n"
        "says into their known_hosts (or /etc/ssh/ssh_known_hosts). Then: --phase update"
    ),
    (CaKind.HOST, RotationStep.UPDATE): (
        "New certificates are by the new key. Before the next step: sign the host key of each target again\n"
        "    conchrec ca sign-host --host NAME --public-key FILE --out FILE\n"
        "and restart its sshd. Then: --phase finish"
    ),
    (CaKind.HOST, RotationStep.FINISH): (
        "Targets whose host certificate is by the key that was dropped are refused from now on. Its line\n"
        "can go from the users' known_hosts."
    ),
    (CaKind.HOST, RotationStep.ROLLBACK): (
        "The old key signs again. Targets that have a certificate by the new one are to be signed again;\n"
        "then, where the phase is not idle: --phase finish"
    ),
}


def _revoke(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    what, name, revoked = _revocation(args, authority)
    if args.user is not None and args.user not in config.users:
        hint = nearest(args.user, tuple(config.users))
        print(f"warning: there is no user {args.user!r} in {config.file}{hint}", file=err)
    before = authority.revoked()
    after = authority.revocations.change(**{"remove" if args.undo else "add": revoked})
    word = "not revoked" if args.undo else "revoked"
    if after.version == before.version:
        print(f"{what} {name} is {word} already", file=out)
        return DONE
    _tell(config, events.CaRevoke(what=what, name=name, undo=args.undo), err)
    print(
        f"{what} {name} is {word}; the proxy knows it already. Targets with RevokedKeys need the new list:\n"
        "    conchrec ca krl --out FILE",
        file=out,
    )
    return DONE


def _revocation(args: argparse.Namespace, authority: Authority) -> tuple[str, str, Revoked]:
    """What, which, and as a value."""
    if args.serial is not None:
        return "serial", str(args.serial), Revoked(serials=frozenset({args.serial}))
    if args.key_id is not None:
        return "key id", args.key_id, Revoked(key_ids=frozenset({args.key_id}))
    if args.user is not None:
        return "user", args.user, Revoked(users=frozenset({args.user}))
    blob = _one_blob(args.key, (*KEY_TYPES, *map(certificate_type, KEY_TYPES)))
    if key_type_of(blob) in KEY_TYPES:
        return "key", fingerprint(blob), Revoked(keys=frozenset({blob}))
    certificate = decode(blob)
    if certificate.authority not in (*authority.trusted(CaKind.USER), *authority.trusted(CaKind.HOST)):
        raise CommandFailed(
            f"{args.key} is a certificate of another authority: that is for its owners to revoke"
        )
    return "serial", str(certificate.serial), Revoked(serials=frozenset({certificate.serial}))


def _krl(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = _open(config, err)
    _place(args.out, authority.krl(), 0o644)
    print(
        f"{args.out} has all that is revoked. On each target, in sshd_config:\n"
        f"    RevokedKeys /etc/ssh/{args.out.name}\n"
        "sshd reads it at each login, and lets nobody in by a key where it can not.",
        file=out,
    )
    return DONE


def _sign_host(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    if wild := [name for name in args.host if set(name) & set("*?[]")]:
        raise CommandFailed(
            f"{wild[0]} is a pattern, and OpenSSH before 10.3 takes none in a host certificate:"
            " name each host, or sign each host's key for its own names"
        )
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
        "then check it with `sshd -t`, and reload sshd: systemctl reload ssh (on some systems: sshd)",
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
    return _one_blob(path, KEY_TYPES)


def _one_blob(path: Path, kinds: Collection[bytes]) -> bytes:
    """Of the one key in a file, of one of these types. Raises Refused."""
    with as_invoker():
        lines = decode_text(path.read_bytes()).splitlines()
    blob = keystore.blob_of(lines, kinds)
    if blob is None:
        plain = "plain " if len(kinds) == len(KEY_TYPES) else ""
        raise CommandFailed(f"{path} does not hold one {plain}public key (a .pub file of ssh-keygen)")
    return blob


def _check_free(paths: list[Path], force: bool) -> None:
    with as_invoker():
        there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise CommandFailed(f"{', '.join(there)} is there already; --force writes over it")


def _place(path: Path, contents: bytes, mode: int) -> None:
    """Whole or not at all, never readable by more than ``mode`` says, and the invoker's."""
    with as_invoker():
        write_atomic(path, contents, mode)


def _audit(config: Config, certificate: Certificate, kind: str, err: TextIO) -> None:
    event = events.CertCreate(
        type=kind,
        key_id=certificate.key_id,
        serial=certificate.serial,
        principals=certificate.principals,
        valid_until=certificate.valid_until_text,
        key=fingerprint(certificate.public_key),
        purpose="conchrec ca",
    )
    _tell(config, event, err)


def _tell(config: Config, event: events.AuditEvent, err: TextIO) -> None:
    """The same log as the proxy's; where it is not ours to write, the person hears of it."""
    try:
        audit_once(config, event)
    except WriteFailed as error:
        print(f"conchrec: the audit log does not have it: {error.detail}", file=err)
