"""OpenSSH's own tests, with the proxy between its ssh and its sshd: ``python -m tests.openssh DIRECTORY``.

The directory has the sources of OpenSSH, built with ``make`` and ``make regress-binaries``. The tests
themselves are not changed: they start wrappers (``tests/openssh/wrapper.py``) instead of ssh and sshd. A test
that fails is repeated without the proxy.

Ends with 1 if a test fails only with the proxy, and DIFFERENCES does not explain why.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conchrec.ssh.algorithms import COMPATIBLE
from tests.support.client import AccessMethod, Person
from tests.support.house import House, build
from tests.support.keys import Key
from tests.support.ports import free_port
from tests.support.process import environment, run
from tests.support.program import run_program
from tests.support.proxy import Settings, merged
from tests.support.stage import Stage

#: The tests of connections. The others are about files, keys of users, and the configuration of ssh and sshd,
#: or start no ssh.
TESTS = (
    "agent",
    "banner",
    "channel-timeout",
    "cipher-speed",
    "connect",
    "connect-bigconf",
    "connect-uri",
    "connection-timeout",
    "dynamic-forward",
    "envpass",
    "exit-status",
    "exit-status-signal",
    "forwarding",
    "integrity",
    "kextype",
    "localcommand",
    "multiplex",
    "proxy-connect",
    "rekey",
    "scp3",
    "sftp-uri",
    "ssh-tty",
    "stderr-after-eof",
    "stderr-data",
    "transfer",
    "try-ciphers",
    "yes-head",
)
#: Those that vary the options of ssh which ``--outer`` uses for the connection to the proxy.
OUTER_TESTS = ("cipher-speed", "kextype", "proxy-connect", "rekey", "transfer", "try-ciphers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Why a test fails with the proxy, as it must, and with which lines."""

    lines: str
    reason: str
    since: tuple[int, int] = (0, 0)


DIFFERENCES = {
    "banner": Difference(
        lines=r"banner size \d+ mismatch", reason="text of a target is marked with its name"
    ),
    "multiplex": Difference(
        lines="conninfo", reason="a client with a ProxyCommand knows no address", since=(10, 3)
    ),
    "proxy-connect": Difference(
        lines="bad SSH_CONNECTION comp=.*|ssh proxyconnect failed",
        reason="sshd sees an address; and a login must not contain a colon",
    ),
    "rekey": Difference(
        lines="no rekeying occurred",
        reason="the file is smaller than the least limits.rekey_bytes",
        since=(9, 9),
    ),
}
KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
WRAPPER = Path(__file__).with_name("wrapper.py")
#: The proxy takes the place of sshd, whose RekeyLimit a part of rekey.sh varies. These are the smallest
#: values. LARGE is the size of the file that the tests transfer; that of OpenSSH's programs may be smaller.
LIMITS: Settings = {"limits": {"rekey_bytes": "1MiB", "rekey_time": "5s"}}
#: What only some of the tests need: agents and forwards at the target.
OPTIONS: Settings = {"port_forwarding": True, "forward_agent": True}
LARGE = 3 << 19
SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one test printed, and the lines that say what failed."""

    is_ok: bool
    output: str
    failures: Sequence[str]

    def explained(self, test: str, version: tuple[int, int]) -> Difference | None:
        """Return the difference that explains all failures."""
        difference = DIFFERENCES.get(test)
        if difference is None or version < difference.since or not self.failures:
            return None
        matches = [re.fullmatch(difference.lines, line) for line in self.failures]
        return difference if all(matches) else None


class Programs:
    """OpenSSH's programs, and a directory in which its tests run."""

    def __init__(self, source: Path, directory: Path) -> None:
        self.source = source
        self.directory = directory
        self.wrappers: dict[str, Path] = {}
        for program in ("netcat", "modpipe", "mkdtemp", "setuid-allowed", "check-perm", "timestamp", "misc"):
            if (source / "regress" / program).exists():
                (directory / program).symlink_to(source / "regress" / program)

    async def make_keys(self) -> list[Key]:
        """Make the keys that the tests make if they do not exist."""
        keys = [Key(path=self.directory / name) for name in KEY_TYPES]
        for key in keys:
            command = (self.source / "ssh-keygen", "-q", "-N", "", "-t", key.path.name, "-f", key.path)
            (await run(*command)).check()
        return keys

    def make_wrappers(self, house: House, person: Person, *, is_outer: bool) -> None:
        """Write the wrappers for this proxy and this user."""
        client = house.client(AccessMethod.CERTIFICATE, person=person)
        known_hosts = self.directory / "host_authority"
        known_hosts.write_text(house.authority)
        settings = self.directory / "wrapper.json"
        names = (*COMPATIBLE.kex, *COMPATIBLE.ciphers, *COMPATIBLE.macs)
        contents = {
            "ssh": str(self.source / "ssh"),
            "sshd": str(self.source / "sshd"),
            "config": str(client.config),
            "known_hosts": str(known_hosts),
            "identity": str(person.key.path),
            "algorithms": [name.decode() for name in names],
            "outer": is_outer,
        }
        settings.write_text(json.dumps(contents))
        # What runs does not change if somebody edits the clone meanwhile.
        copy = shutil.copy(WRAPPER, self.directory / "wrapper.py")
        for program in ("ssh", "sshd"):
            command = (sys.executable, "-I", "-S", copy, settings, program)
            self.wrappers[program] = self._write_wrapper(program, command)
        self.wrappers["ssh-agent"] = self._write_wrapper("ssh-agent", [self.source / "ssh-agent"])

    def _write_wrapper(self, program: str, command: Sequence[str | Path]) -> Path:
        """Write a script that starts a command. The tests transfer the file of ssh or of the agent."""
        wrapper = self.directory / f"wrapped-{program}"
        start = f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n'
        wrapper.write_text(start + os.urandom(LARGE // 2).hex())
        wrapper.chmod(0o755)
        return wrapper

    async def version(self) -> tuple[int, int]:
        """Return the version of these programs."""
        match = re.search(r"OpenSSH_(\d+)\.(\d+)", (await run(self.source / "ssh", "-V")).errors)
        assert match is not None, f"no OpenSSH: {self.source}"
        return int(match[1]), int(match[2])

    async def run(self, test: str, *, authority: Path, through_proxy: bool) -> Outcome:
        """Run one test."""
        wrappers = self.wrappers if through_proxy else {}
        variables = {
            name: str(self.source / program)
            for name, program in (
                ("SCP", "scp"),
                ("SFTP", "sftp"),
                ("SFTPSERVER", "sftp-server"),
                ("SSHADD", "ssh-add"),
                ("SSHKEYGEN", "ssh-keygen"),
                ("SSHKEYSCAN", "ssh-keyscan"),
                ("SK_HELPER", "ssh-sk-helper"),
                ("SSHD_SESSION", "sshd-session"),
                ("SSHD_AUTH", "sshd-auth"),
                ("MODULI_FILE", "moduli"),
            )
        } | {
            "SSH": str(wrappers.get("ssh", self.source / "ssh")),
            "SSHD": str(wrappers.get("sshd", self.source / "sshd")),
            "SSHAGENT": str(wrappers.get("ssh-agent", self.source / "ssh-agent")),
            "PORT": str(free_port()),
            "UNSAFE_PERMISSIONS": "1",
            "SSHD_CONFOPTS": f"TrustedUserCAKeys {authority}",
        }
        env = environment(
            BUILDDIR=str(self.source),
            EGREP="grep -E",
            SHELL="/bin/sh",
            TEST_SHELL="sh",
            **{f"TEST_SSH_{name}": value for name, value in variables.items()},
        )
        scripts = self.source / "regress"
        command = ("sh", scripts / "test-exec.sh", self.directory, scripts / f"{test}.sh")
        log = self.directory / "failed-regress.log"
        log.unlink(missing_ok=True)
        result = await run(*command, env=env, directory=scripts, within=SECONDS)
        failures = re.findall("^FAIL: (.*?) *$", log.read_text() if log.exists() else "", re.MULTILINE)
        return Outcome(is_ok=result.code == 0, output=result.text + result.errors, failures=failures)


async def start_proxy(stage: Stage, keys: Sequence[Key]) -> House:
    """Start a proxy that lets ``joe`` do everything, with any of these keys."""
    settings: Settings = {
        "algorithms": "compatible",
        "proxy_checks_host_keys": False,
        "users": {"joe": {"authorized_keys": [key.line for key in keys]}},
    }
    return await build(stage, settings=merged(settings, LIMITS), options=OPTIONS)


async def run_tests(args: argparse.Namespace, directory: Path) -> int:
    """Run the tests, and return the exit status."""
    stage = Stage(directory=directory)
    failed = []
    try:
        programs = Programs(args.source.resolve(), stage.short)
        keys = await programs.make_keys()
        house = await start_proxy(stage, keys)
        programs.make_wrappers(house, Person(name="joe", key=keys[0]), is_outer=args.outer)
        authority = house.proxy.directory / "state" / "user_ca.pub"
        version = await programs.version()
        for test in args.tests:
            begin = time.monotonic()
            outcome = await programs.run(test, authority=authority, through_proxy=not args.direct)
            verdict = "skipped" if "SKIPPED: " in outcome.output else "ok"
            if not outcome.is_ok:
                print(outcome.output)
                verdict = "FAILED"
                if difference := outcome.explained(test, version):
                    verdict = f"differs: {difference.reason}"
                elif (
                    args.direct
                    or (await programs.run(test, authority=authority, through_proxy=False)).is_ok
                ):
                    failed.append(test)
                else:
                    verdict = "FAILED, and without the proxy, too"
            print(f"{test}: {verdict} ({time.monotonic() - begin:.0f} s)", flush=True)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            for log in filter(Path.exists, stage.short.glob("*.log")):
                shutil.copy(log, args.keep)
            (args.keep / "proxy.log").write_text(house.proxy.log)
    finally:
        await stage.close()
    return 1 if failed else 0


def main(words: Sequence[str]) -> int:
    """Run the tests that these arguments name; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.openssh", description="run OpenSSH's own tests")
    parser.add_argument("source", type=Path, metavar="DIRECTORY", help="OpenSSH's sources, built")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="all that make sense, where none is named")
    parser.add_argument(
        "--outer", action="store_true", help="use the options of the test for the connection to the proxy"
    )
    parser.add_argument("--direct", action="store_true", help="without the proxy")
    parser.add_argument("--keep", type=Path, metavar="COPY", help="copy the logs to this directory")
    args = parser.parse_intermixed_args(words)
    if not args.tests:
        tests = OUTER_TESTS if args.outer else TESTS
        args.tests = [test for test in tests if (args.source / "regress" / f"{test}.sh").exists()]

    async def run_all() -> int:
        with tempfile.TemporaryDirectory(prefix="conchrec-openssh-") as directory:
            return await run_tests(args, Path(directory))

    return run_program(run_all)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
