"""``conchrec ca rotate``: replaces the key of an authority, in phases."""

from __future__ import annotations

import argparse
from typing import TextIO

from conchrec.audit import events
from conchrec.ca.authority import CaKind
from conchrec.ca.rotation import RotationPhase, RotationStep
from conchrec.cli.ca.common import DONE, CommandFailed, audit, describe_key, open_and_report, read_public_key
from conchrec.config.loader import Config
from conchrec.ssh.certificate import (
    fingerprint,
)


def run_rotate(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec ca rotate``."""
    ca, step = CaKind(args.type), RotationStep(args.phase)
    public: bytes | None = None
    if args.public_key is not None:
        if step is not RotationStep.INIT or not config.ca_agent:
            raise CommandFailed(
                "--public-key works only with --phase init and a configured ca_agent;"
                " without ca_agent, omit it: init creates the new key"
            )
        public = read_public_key(args.public_key)
    elif step is RotationStep.INIT and config.ca_agent:
        raise CommandFailed(
            "the keys of the authorities are in the agent (ca_agent): add a new key to the agent, and name"
            " it with --public-key FILE"
        )
    authority = open_and_report(config, err)
    rotation = authority.rotate(ca, step, public_key=public)
    audit(
        config,
        events.CaRotate(
            type=ca.value, phase=step.value, signs=fingerprint(authority.trusted(ca)[0]),
            trusted=tuple(map(fingerprint, authority.trusted(ca))),
        ),
        err,
    )  # fmt: skip
    print(f"{ca.value} CA: {rotation.phase.value}", file=out)
    for number, blob in enumerate(authority.trusted(ca)):
        print(f"    {describe_key(blob)} {'signs' if not number else 'is trusted'}", file=out)
    if step is RotationStep.ROLLBACK and rotation.phase is RotationPhase.IDLE:
        print(_AFTER_ROLLBACK_OF_INIT[ca], file=out)
    else:
        print(_NEXT_STEPS[ca, step], file=out)
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
        "The old key signs again. Keep both keys in the file of TrustedUserCAKeys on the targets until the\n"
        "certificates of the new key have expired. Then run --phase finish."
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
        "The old key signs again. Next: sign the host key of each target that has a certificate of the new\n"
        "key again with\n"
        "    conchrec ca sign-host --host NAME --public-key FILE --out FILE\n"
        "and restart its sshd. Then run --phase finish."
    ),
}

_AFTER_ROLLBACK_OF_INIT = {
    CaKind.USER: (
        "The new key was removed; it never signed. Nothing changes for users. If you added its line to the\n"
        "file of TrustedUserCAKeys on targets, remove it there."
    ),
    CaKind.HOST: (
        "The new key was removed; it never signed. Nothing changes for users. If you added its line to\n"
        "known_hosts of users, remove it there."
    ),
}
