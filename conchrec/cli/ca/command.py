"""``conchrec ca``: the parser of all commands about our authorities, and ``export`` and ``status``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, TextIO

from conchrec.ca.authority import CaKind
from conchrec.cli.ca import revoke, rotate, sign
from conchrec.cli.ca.common import DONE, CommandFailed, describe_key, open_and_report
from conchrec.config.loader import Config
from conchrec.ssh.certificate import (
    fingerprint,
)

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


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
    sign.register(commands)

    status = commands.add_parser(
        "status", help="show the keys of both authorities, their rotation, and what is revoked"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)

    rotate.register(commands)
    revoke.register(commands)


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


def _export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = open_and_report(config, err)
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
    authority = open_and_report(config, err)
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
        print(f"{ca.value} CA   {describe_key(current)}", file=out)
        for blob in others:
            print(f"          {describe_key(blob)}: trusted, does not sign", file=out)
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
