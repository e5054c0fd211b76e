"""``conchrec ca``: its commands and their arguments."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from conchrec.cli.parsers.arguments import LateFunction, duration
from conchrec.cli.rights import Rights, rights_for_files

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


_NAMES = re.compile(r"[^\s,]+(,[^\s,]+)*")


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
    status.set_defaults(command=LateFunction("conchrec.cli.ca.command:run_status"))

    _register_rotate(commands)
    _register_revoke(commands)


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
    export.set_defaults(command=LateFunction("conchrec.cli.ca.command:run_export"))


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
        "--ttl", type=duration, default="90d", metavar="DURATION", help="its validity (default: 90d)"
    )
    host.add_argument("--force", action="store_true", help="replace existing files")
    host.set_defaults(command=LateFunction("conchrec.cli.ca.sign:run_sign_host"), rights=Rights.BOTH)


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
        "--ttl", type=duration, default="12h", metavar="DURATION", help="its validity (default: 12h)"
    )
    user.add_argument(
        "--out", type=Path, metavar="FILE",
        help="write the certificate to FILE (default: next to the key: k-cert.pub for k.pub)",
    )  # fmt: skip
    user.add_argument("--force", action="store_true", help="replace an existing file")
    user.set_defaults(command=LateFunction("conchrec.cli.ca.sign:run_sign_user"), rights=Rights.BOTH)


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
        "--phase", choices=("init", "update", "finish", "rollback"), required=True, help="the next phase"
    )
    rotate.add_argument(
        "--public-key", type=Path, metavar="FILE",
        help="with ca_agent and --phase init: the public key of the new key in the agent",
    )  # fmt: skip
    rotate.set_defaults(
        command=LateFunction("conchrec.cli.ca.rotate:run_rotate"), rights=rights_for_files("public_key")
    )


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
        "--key",
        type=Path,
        metavar="FILE",
        help="a public key; if FILE is a certificate, only this certificate is revoked",
    )
    subject.add_argument("--user", type=_name, metavar="NAME", help="every login of this user, by any method")
    revoke.add_argument("--undo", action="store_true", help="remove the revocation")
    revoke.set_defaults(
        command=LateFunction("conchrec.cli.ca.revoke:run_revoke"), rights=rights_for_files("key")
    )

    krl = commands.add_parser(
        "krl",
        help="write a list of everything that is revoked, for sshd's RevokedKeys",
        description="Write a key revocation list (KRL). Copy it to each target and name it in\n"
        "sshd_config as RevokedKeys. The proxy itself needs no list.",
        epilog="Example:\n  conchrec ca krl --out revoked.krl\n",
    )
    krl.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    krl.set_defaults(command=LateFunction("conchrec.cli.ca.revoke:run_krl"), rights=Rights.BOTH)


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
