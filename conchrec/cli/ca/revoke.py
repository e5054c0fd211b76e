"""``conchrec ca revoke | krl``: revokes certificates, keys and users, and writes the list for sshd."""

from __future__ import annotations

import argparse
from typing import TextIO

from conchrec.audit import events
from conchrec.ca.authority import Authority, CaKind
from conchrec.ca.revocation import Revoked
from conchrec.cli.ca.common import DONE, CommandFailed, audit, open_and_report, read_blob, write_file
from conchrec.config.loader import Config
from conchrec.ssh.certificate import (
    KEY_TYPES,
    certificate_type,
    decode,
    fingerprint,
    key_type_of,
)
from conchrec.yaml_cursor import nearest


def run_revoke(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec ca revoke``."""
    authority = open_and_report(config, err)
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
    audit(config, events.CaRevoke(what=kind, name=name, undo=args.undo), err)
    if args.undo:
        text = (
            f"{kind} {name} is no longer revoked. The proxy accepts it again.\n"
            "Targets refuse it until they have the new list. Write the list, and copy it to each target\n"
            "with RevokedKeys in sshd_config:\n"
        )
    else:
        text = (
            f"{kind} {name} is revoked. The proxy refuses it now.\n"
            "Targets that users reach without the proxy accept it until they have the new list. Write\n"
            "the list, and copy it to each target (RevokedKeys in sshd_config):\n"
        )
    print(text + "    conchrec ca krl --out FILE", file=out)
    return DONE


def _parse_revocation(args: argparse.Namespace, authority: Authority) -> tuple[str, str, Revoked]:
    """The kind and the name of what is revoked, for people, and the same as a value."""
    if args.serial is not None:
        return "serial", str(args.serial), Revoked(serials=frozenset({args.serial}))
    if args.key_id is not None:
        return "key id", args.key_id, Revoked(key_ids=frozenset({args.key_id}))
    if args.user is not None:
        return "user", args.user, Revoked(users=frozenset({args.user}))
    blob = read_blob(args.key, (*KEY_TYPES, *map(certificate_type, KEY_TYPES)))
    if key_type_of(blob) in KEY_TYPES:
        return "key", fingerprint(blob), Revoked(keys=frozenset({blob}))
    certificate = decode(blob)
    if certificate.authority not in (*authority.trusted(CaKind.USER), *authority.trusted(CaKind.HOST)):
        raise CommandFailed(
            f"{args.key} is a certificate of another authority: only that authority can revoke it;"
            " to refuse its key here, give the public key (.pub)"
        )
    return "serial", str(certificate.serial), Revoked(serials=frozenset({certificate.serial}))


def run_krl(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec ca krl``."""
    authority = open_and_report(config, err)
    write_file(args.out, authority.krl(), 0o644)
    print(
        f"Wrote the revocation list to {args.out}.\n"
        f"First copy it to /etc/ssh/{args.out.name} on each target. Then set in sshd_config there:\n"
        f"    RevokedKeys /etc/ssh/{args.out.name}\n"
        "sshd reads the list at each login. If it cannot read this file, it refuses all keys.",
        file=out,
    )
    return DONE
