"""``conchrec demo``: runs a complete example on this machine, and removes it afterwards.

It creates a temporary directory, a key and an agent, starts a target and the proxy on loopback, and runs
``ssh -J`` through the proxy. It uses the real programs: ``twistd conchrec`` and those of OpenSSH.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import pwd
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from conchrec.errors import ConchrecError
from conchrec.reasons import ReasonCode
from conchrec.text import one_line

#: The programs of OpenSSH that the demo runs.
CLIENT = ("ssh", "ssh-keygen", "ssh-agent", "ssh-add")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
START_SECONDS = 20.0
#: sshd needs this directory where root starts it; Debian creates it when its own service starts.
PRIVSEP = Path("/run/sshd")

CONCHREC = "from conchrec.cli.main import run; run()"
TWISTD = "from twisted.scripts.twistd import run; run()"


class DemoFailed(ConchrecError):
    """The demo cannot continue; the text says why."""

    default_code = ReasonCode.DEMO_FAILED


def demo(config: object, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run the demo, and return the exit status of the ssh session."""
    missing = [program for program in CLIENT if shutil.which(program) is None]
    if missing:
        print(
            f"conchrec: missing programs: {', '.join(missing)}; install them with:"
            " sudo apt-get install openssh-client",
            file=err,
        )
        return 1
    remote = args.remote[1:] if args.remote[:1] == ["--"] else args.remote
    with ExitStack() as cleanup:
        directory = _create_directory(args.keep, cleanup)
        demonstration = _Demonstration(directory, cleanup, lambda line: print(line, file=err, flush=True))
        demonstration.start()
        status = demonstration.run_session(remote)
        demonstration.report(out)
    if args.keep is not None:
        print(f"\nAll files are kept in {args.keep}.", file=err)
    return status


def _create_directory(keep: Path | None, cleanup: ExitStack) -> Path:
    if keep is None:
        return Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="conchrec-demo-")))
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise DemoFailed(f"{keep} already exists; --keep needs a new or empty directory")
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    return keep.absolute()


class _Demonstration:
    """The programs of the demo and their files, in one directory; ``cleanup`` ends the programs."""

    def __init__(self, directory: Path, cleanup: ExitStack, say: Callable[[str], None]) -> None:
        """``say`` prints a line for the user."""
        self._directory = directory
        self._cleanup = cleanup
        self._say = say
        self._user = getpass.getuser()
        self._key = directory / "id_ed25519"
        self._agent = directory / "agent"
        self._config = directory / "config.yaml"
        self._ssh_config = directory / "ssh_config"
        self._target_port = _free_port()
        self._proxy_port = _free_port()

    def start(self) -> None:
        """Start the agent, the target and the proxy. Raises DemoFailed."""
        self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(self._key))
        self._start_agent()
        target = self._start_target()
        self._start_proxy()
        self._say(f"target: {target} on 127.0.0.1:{self._target_port}")
        self._say(f"proxy:  twistd -n conchrec -c {self._config} on 127.0.0.1:{self._proxy_port}")

    # --- the session

    def run_session(self, remote: list[str]) -> int:
        """Run ``ssh -A -J proxy target``, and return its exit status."""
        command = ["ssh", "-F", str(self._ssh_config), "-A", "-J", "conchrec-proxy", "target", *remote]
        self._say(f"you:    {shlex.join(command)}\n")
        return subprocess.run(command, check=False, env=self._environment()).returncode

    def report(self, out: TextIO) -> None:
        """Print the audit log, the path of each recording, and the recording itself."""
        self._stop_proxy()
        casts = sorted((self._directory / "recordings").rglob("*.cast"))
        print("\nThe audit log:", file=out)
        for line in (self._directory / "audit.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] not in ("audit.head", "service.start", "service.stop"):
                print(f"  {event['time']}  {event['event']:<18} {_summary(event)}", file=out)
        for cast in casts:
            print(f"\nThe recording: {cast}\nThis is what it shows:\n", file=out, flush=True)
            self._play(cast, out)
        if not casts:
            print("\nNo recording: no session was opened.", file=out)

    def _play(self, cast: Path, out: TextIO) -> None:
        player = shutil.which("asciinema")
        if player is not None and out.isatty():
            subprocess.run([player, "play", "-i", "1", str(cast)], check=False)
            return
        for line in cast.read_text(encoding="utf-8").splitlines()[1:]:
            event = json.loads(line)
            if event[1] == "o":
                out.write(event[2])
        out.flush()

    # --- agent, target and proxy

    def _start_agent(self) -> None:
        self._start(["ssh-agent", "-D", "-a", str(self._agent)], until="SSH_AUTH_SOCK")
        self._run("ssh-add", "-q", str(self._key))

    def _start_target(self) -> str:
        directory = self._directory / "target"
        directory.mkdir(mode=0o700)
        host_key = directory / "host_key"
        self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key))
        keys = directory / "authorized_keys"
        keys.write_text(self._key.with_suffix(".pub").read_text())
        kind, key = host_key.with_suffix(".pub").read_text().split()[:2]
        (self._directory / "known_hosts").write_text(f"[127.0.0.1]:{self._target_port} {kind} {key}\n")
        sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{SBIN}")
        if sshd is None:
            self._start(
                [sys.executable, "-m", "conchrec.cli.demo_target",
                 str(self._target_port), str(host_key), str(keys)],
                until="listening",
            )  # fmt: skip
            return "a small Conch server (sshd is not installed)"
        config = directory / "sshd_config"
        config.write_text(
            f"Port {self._target_port}\nListenAddress 127.0.0.1\nHostKey {host_key}\n"
            f"AuthorizedKeysFile {keys}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n"
            "Subsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0 and not PRIVSEP.exists():
            PRIVSEP.mkdir(mode=0o755)
            self._cleanup.callback(PRIVSEP.rmdir)
        self._start([sshd, "-D", "-e", "-f", str(config)], until="Server listening")
        return "a stock sshd"

    def _start_proxy(self) -> None:
        self._config.write_text(
            f"cluster_name: demo\nstate_dir: state\n"
            f'listen: ["tcp:{self._proxy_port}:interface=127.0.0.1"]\n'
            f"public_address: 127.0.0.1:{self._proxy_port}\n"
            "trusted_hosts: {known_hosts: [known_hosts]}\n"
            'notice: "This is the demo. This session is recorded."\n'
            f"users:\n  {json.dumps(self._user)}:\n"
            f"    authorized_keys_file: {json.dumps(str(self._key) + '.pub')}\n    roles: [demo]\n"
            'roles:\n  demo: {logins: ["*"], hosts: ["127.0.0.1"]}\n'
            "recordings: {directory: recordings, min_free: 1MiB}\n"
            "audit: {file: audit.jsonl, min_free: 1MiB}\n"
        )
        self._proxy = self._start(
            [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "conchrec", "-c", str(self._config)],
            until="listens on",
        )
        host_ca = self._run(
            sys.executable, "-c", CONCHREC, "ca", "export", "--type", "host", "-c", str(self._config)
        )
        known_hosts = self._directory / "client_known_hosts"
        known_hosts.write_text(host_ca)
        self._ssh_config.write_text(
            f"Host conchrec-proxy\n  HostName 127.0.0.1\n  Port {self._proxy_port}\n  User {self._user}\n"
            f"Host target\n  HostName 127.0.0.1\n  Port {self._target_port}\n"
            f"  User {pwd.getpwuid(os.getuid()).pw_name}\n"
            f"Host *\n  IdentityFile {self._key}\n  IdentitiesOnly yes\n  IdentityAgent {self._agent}\n"
            f"  UserKnownHostsFile {known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n  ForwardAgent no\n"
        )

    def _stop_proxy(self) -> None:
        """Stop the proxy with SIGTERM, so that every recording is complete."""
        self._proxy.terminate()
        self._proxy.wait(START_SECONDS)

    # --- programs

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SSH_AUTH_SOCK": str(self._agent)}

    def _run(self, program: str, *arguments: str) -> str:
        result = subprocess.run(
            [program, *arguments], check=False, capture_output=True, text=True, env=self._environment()
        )
        if result.returncode != 0:
            raise DemoFailed(f"{program} failed: {result.stderr.strip() or result.returncode}")
        return result.stdout

    def _start(self, command: list[str], *, until: str) -> subprocess.Popen[bytes]:
        """Start a program and wait until it has printed ``until``; it is ended with the demo."""
        log = self._directory / f"{Path(command[0]).name}.log"
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            cwd=self._directory,
        )
        self._cleanup.callback(_end, process)
        assert process.stdout is not None
        output = b""
        descriptor = process.stdout.fileno()
        while until.encode() not in output:
            ready, _, _ = select.select([descriptor], [], [], START_SECONDS)
            data = os.read(descriptor, 65536) if ready else b""
            if not data:
                text = one_line(output).strip() or "it printed nothing"
                raise DemoFailed(f"{Path(command[0]).name} did not start: {text}")
            output += data
        self._cleanup.enter_context(_Drain(descriptor, log))
        return process


class _Drain:
    """Copies a program's output to a file, so that the program never waits for a reader."""

    def __init__(self, descriptor: int, log: Path) -> None:
        self._cat = subprocess.Popen(["cat"], stdin=descriptor, stdout=log.open("wb"))

    def __enter__(self) -> None:
        """Nothing to do: the copy has begun already."""

    def __exit__(self, *exception: object) -> None:
        _end(self._cat)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _summary(event: dict[str, object]) -> str:
    """The most important fields of an event."""
    names = ("user", "login", "target", "method", "key", "trust", "kind", "command", "exit_status", "reason")
    return " ".join(f"{name}={event[name]}" for name in names if event.get(name) not in (None, ""))
