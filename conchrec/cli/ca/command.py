"""``conchrec ca export | status``: prints the public keys of the authorities, and their rotation."""

from __future__ import annotations

import argparse
import json
from typing import TextIO

from conchrec.ca.authority import CaKind
from conchrec.cli.ca.common import DONE, CommandFailed, describe_key, open_and_report
from conchrec.config.loader import Config
from conchrec.ssh.certificate import (
    fingerprint,
)


def run_export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec ca export``."""
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


def run_status(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec ca status``."""
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
