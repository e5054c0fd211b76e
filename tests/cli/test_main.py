"""The console command: which configuration, which exit code, and what is printed where."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import conchrec
from conchrec.cli.main import main
from conchrec.cli.parsers.arguments import LateFunction
from conchrec.config import loader
from tests.docs.commands import parsers

GOOD = "users: {joe: {roles: [ops]}}\nroles: {ops: {logins: [root], hosts: [10.0.0.0/8]}}\n"


class Command:
    """``conchrec …`` in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.out = ""
        self.err = ""

    def __call__(self, *argv: str) -> int:
        out, err = io.StringIO(), io.StringIO()
        code = main(argv, out, err)
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def write(self, text: str, name: str = "config.yaml") -> Path:
        path = self.directory / name
        path.write_text(text)
        return path


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loader, "DEFAULT_FILES", (Path("config.yaml"), tmp_path / "etc" / "config.yaml"))
    return Command(tmp_path)


# -- usage


def test_prints_version(command: Command) -> None:
    assert command("--version") == 0
    assert command.out == f"conchrec {conchrec.__version__}\n"


def test_prints_help(command: Command) -> None:
    assert command("--help") == 0
    assert "config" in command.out
    assert command("can", "--help") == 0
    assert "LOGIN@HOST[:PORT]" in command.out


def test_lists_commands(command: Command) -> None:
    assert command("--help") == 0
    for name in ("demo", "init", "config", "ssh-config", "ca", "can", "recordings"):
        assert f"\n    {name} " in command.out


@pytest.mark.parametrize("argv", [[], ["config"], ["recordings"]])
def test_prints_help_without_command(command: Command, argv: list[str]) -> None:
    assert command(*argv) == 64
    assert command.out == ""
    assert command.err.startswith(" ".join(["usage: conchrec", *argv]))


@pytest.mark.parametrize(
    "argv",
    [["nix"], ["config", "nix"], ["can", "joe"], ["can", "joe", "web1"], ["config", "check", "--conf", "x"],
     ["recordings", "play", "x", "--speed", "0"], ["recordings", "ls", "--since", "yesterday"],
     ["recordings", "search"]],
)  # fmt: skip
def test_rejects_wrong_arguments(command: Command, argv: list[str]) -> None:
    command.write(GOOD)
    assert command(*argv) == 64
    assert command.out == ""
    assert command.err.startswith("usage: conchrec")


# -- what is imported

IMPORTS = """
import io, json, sys
before = set(sys.modules)
from conchrec.cli.main import main
for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    status = main(argv, out, err)
    assert status in (0, 1, 64), (argv, status, out.getvalue(), err.getvalue())
print(*sorted({name.partition(".")[0] for name in sys.modules.keys() - before}))
"""


def packages(*commands: Sequence[str], directory: Path | None = None) -> set[str]:
    """The packages that are not of Python and not ours, and that a new process imports for the commands."""
    argv = [sys.executable, "-c", IMPORTS, json.dumps(commands)]
    result = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=directory)
    imported = set(result.stdout.split())
    assert "argparse" in imported and "conchrec" in imported
    return imported - sys.stdlib_module_names - {"conchrec"}


def test_help_imports_only_python() -> None:
    helps = [[*parser.prog.split()[1:], "--help"] for parser in parsers()]
    assert ["recordings", "ls", "--help"] in helps
    assert packages(["--help"], ["--version"], *helps, ["recordings", "nix"], ["ca", "revoke"]) == set()


def test_small_commands_do_not_import_twisted(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GOOD + "state_dir: .\nlisten: ['tcp:3023']\n")
    commands = [["config", "check"], ["can", "--who", "root@10.0.0.1"], ["locks"], ["recordings", "ls"]]
    imported = packages(*commands, directory=tmp_path)
    assert "yaml" in imported
    assert not imported & {"twisted", "zope", "cryptography", "zstandard", "pyrage", "segno"}
    commands = [["ssh-config"], ["ca", "status"], ["ca", "export", "--type", "host"]]
    imported = packages(*commands, directory=tmp_path)
    assert "cryptography" in imported
    assert not imported & {"twisted", "zope", "peewee", "zstandard", "pyrage", "segno"}


def test_functions_of_parsers_exist() -> None:
    references = set()
    for parser in parsers():
        types = [getattr(action.type, "__closure__", None) or () for action in parser._actions]
        values = [*parser._defaults.values(), *(action.type for action in parser._actions)]
        values += [cell.cell_contents for cells in types for cell in cells]
        functions = [getattr(value, "func", value) for value in values]
        references |= {function for function in functions if isinstance(function, LateFunction)}
    assert len({function.reference for function in references}) > 30
    for function in references:
        assert callable(function.load()), function.reference


# -- the configuration


def test_finds_configuration(command: Command, tmp_path: Path) -> None:
    assert command("config", "check") == 78
    assert "conchrec: no configuration file: config.yaml and " in command.err
    assert "conchrec init DIR" in command.err
    (tmp_path / "etc").mkdir()
    command.write(GOOD, "etc/config.yaml")
    assert command("config", "check") == 0
    assert command.out == f"{tmp_path}/etc/config.yaml: ok\n"
    command.write(GOOD)
    assert command("config", "check") == 0
    assert command.out == f"{tmp_path}/config.yaml: ok\n"
    other = command.write(GOOD, "other.yaml")
    for argv in (
        ["config", "check", "-c", "other.yaml"], ["config", "-c", "other.yaml", "check"],
        ["-c", "other.yaml", "config", "check"], ["config", "check", f"--config={other}"],
    ):  # fmt: skip
        assert command(*argv) == 0
        assert command.out == f"{other}: ok\n"


def test_prints_every_problem(command: Command) -> None:
    command.write("users: {joe: {rols: []}}\nroles: {ops: {hosts: [10.*]}}\n")
    for argv in (["config", "check"], ["can", "joe", "root@web1"], ["recordings", "ls"]):
        assert command(*argv) == 78
        assert command.out == ""
        assert command.err.splitlines() == [
            "config.yaml:1: users.joe.rols: unknown key; did you mean roles?",
            "config.yaml:2: roles.ops.hosts[0]: invalid host pattern '10.*': it would also match names;"
            " write a network, like 10.0.0.0/8",
        ]


def test_reports_missing_file(command: Command) -> None:
    assert command("config", "check", "-c", "nix.yaml") == 78
    assert command.err == "nix.yaml: cannot be read: No such file or directory\n"


def test_prints_warnings(command: Command, tmp_path: Path) -> None:
    command.write(GOOD + "proxy_checks_host_keys: no\n")
    assert command("config", "check") == 0
    assert command.err.startswith(
        f"warning: {tmp_path}/config.yaml:3: proxy_checks_host_keys: host keys are not"
    )
    assert command("can", "joe", "root@10.0.0.1") == 0
    assert command.err == ""


@pytest.mark.parametrize(
    "endpoint", ["tcp:22:nix=1", "tcp:22:backlog=many", "haproxy:nix:1", "tcp:22:interface=a:mode=1"]
)
def test_reports_invalid_endpoint(command: Command, endpoint: str) -> None:
    command.write(f"{GOOD}listen: ['tcp:3023', '{endpoint}']\nproxy_protocol_from: [10.0.0.1]\n")
    assert command("config", "check") == 78
    assert f"listen[1]: invalid endpoint '{endpoint}': " in command.err


@pytest.mark.parametrize(
    "endpoint",
    ["tcp:0", "tcp:port=22:interface=127.0.0.1", "unix:/run/x:mode=600", "systemd:domain=INET:index=0",
     "haproxy:tcp:22", "tcp6:22", "tcp:interface=127.0.0.1:port=22"],
)  # fmt: skip
def test_accepts_endpoints(command: Command, endpoint: str) -> None:
    command.write(f"{GOOD}listen: ['{endpoint}']\nproxy_protocol_from: [10.0.0.1]\n")
    assert command("config", "check") == 0, command.err


# -- as a process


def process(*argv: str, directory: Path) -> subprocess.Popen[bytes]:
    code = "from conchrec.cli.main import run; run()"
    root = str(Path(conchrec.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=directory,
        env={"PYTHONPATH": root, "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_runs_console_script(command: Command) -> None:
    command.write(GOOD)
    out, err = (running := process("config", "check", directory=command.directory)).communicate()
    assert (running.returncode, err) == (0, b"")
    assert out.endswith(b"config.yaml: ok\n")


def test_ends_with_closed_pipe(command: Command) -> None:
    command.write(GOOD)
    running = process("config", "check", directory=command.directory)
    assert running.stdout and running.stderr
    running.stdout.close()
    assert running.stderr.read() == b""
    running.stderr.close()
    assert running.wait() == 141
