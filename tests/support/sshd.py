"""A stock sshd on loopback: the target."""

from __future__ import annotations

import getpass
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.keys import Key, all_lines
from tests.support.ports import free_port
from tests.support.process import Process, program, run

LOGIN = getpass.getuser()
"""An sshd without root accepts only the account that started it; with root, root is enough for the tests."""


@dataclass(kw_only=True)
class Sshd:
    """A running server. ``log`` is what it has said so far."""

    host: str
    port: int
    directory: Path
    host_keys: tuple[Key, ...]
    process: Process

    @property
    def log(self) -> str:
        """Return what the server has printed."""
        return self.process.stderr.decode(errors="replace")

    def known_as(self, *names: str) -> str:
        """known_hosts lines for its plain keys, by default under its address and as localhost."""
        return "".join(
            key.known_as(name, self.port)
            for name in names or (self.host, "localhost")
            for key in self.host_keys
        )

    async def stop(self) -> None:
        """End the server."""
        await self.process.stop()


async def start_sshd(
    directory: Path,
    *,
    host_keys: Sequence[Key],
    users: Sequence[Key] = (),
    user_authority: Path | None = None,
    port: int | None = None,
    host: str = "127.0.0.1",
    more: Sequence[str] = (),
    sftp: bool = True,
) -> Sshd:
    """Start it, and wait until it listens. ``users``: keys that may log in; ``user_authority``: the file for
    TrustedUserCAKeys; ``more``: lines of its configuration, which win over ours (the first one counts);
    ``sftp``: it has the subsystem."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    home = directory / "home"
    home.mkdir(exist_ok=True)
    authorized = directory / "authorized_keys"
    authorized.write_text(all_lines(tuple(users)))
    lines = [
        *more,
        f"ListenAddress {host}:{port}",
        *(f"HostKey {key.path}" for key in host_keys),
        *(f"HostCertificate {key.certificate}" for key in host_keys if key.certificate),
        f"AuthorizedKeysFile {authorized}",
        *([f"TrustedUserCAKeys {user_authority}"] if user_authority else []),
        "PidFile none",
        f"SetEnv HOME={home}",  # what stands in somebody's .bashrc is not tested here
        "StrictModes no",  # the directory of a test may be writable for a group
        f"UsePAM {'yes' if _locked() else 'no'}",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        "PrintMotd no",
        "PrintLastLog no",
        "LogLevel VERBOSE",  # DEBUG would write to the stderr of sessions
        "AcceptEnv LANG LC_* CONCHREC_*",
    ]
    if sftp and not any(line.startswith("Subsystem sftp ") for line in more):
        lines.append("Subsystem sftp internal-sftp")
    if await version() >= (9, 8):
        lines.append("PerSourcePenalties no")  # what is refused here comes from one address, on purpose
    configuration = directory / "sshd_config"
    configuration.write_text("\n".join(lines) + "\n")
    if os.getuid() == 0:
        os.makedirs(
            "/run/sshd", mode=0o755, exist_ok=True
        )  # where it locks itself up; systemd makes it elsewhere
    process = Process([program("sshd"), "-D", "-e", "-f", configuration])
    sshd = Sshd(host=host, port=port, directory=directory, host_keys=tuple(host_keys), process=process)
    try:
        await process.says("Server listening on")
    except BaseException:
        await process.stop(signal.SIGKILL)
        raise
    return sshd


async def version() -> tuple[int, int]:
    """Of the OpenSSH that is installed."""
    match = re.search(r"OpenSSH_(\d+)\.(\d+)", (await run("ssh", "-V")).errors)
    assert match is not None, "this ssh is not OpenSSH's"
    return int(match[1]), int(match[2])


def _locked() -> bool:
    """May root not log in because there is a ! in its password (Ubuntu)? PAM does not mind that."""
    try:
        rows = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return False
    return any(row.startswith(f"{LOGIN}:!") for row in rows)
