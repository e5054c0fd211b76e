"""What ``conchrec config check`` and the start of the service say of configurations."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.golden.conftest import HERE, Compare
from tests.golden.entries import Entries

SEPARATOR = "%%\n"
GOOD = "users: {joe: {roles: [ops]}}\nroles: {ops: {logins: [root], hosts: [10.0.0.0/8]}}\n"
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=")


def test_keeps_messages_of_configurations(golden: Compare, tmp_path: Path) -> None:
    """Each of ``configs.txt``, with what is said of it behind it."""
    (tmp_path / "known").write_text("")
    texts = (HERE / "configs.txt").read_text().split(SEPARATOR)
    entries = Entries(tmp_path)
    for text in texts:
        (tmp_path / "config.yaml").write_bytes(text.replace("\\0", "\0").encode())
        entries.run("config", "check", given=text)
    (tmp_path / "config.yaml").write_bytes(b"users: {}\nroles: \xff\n")
    entries.run("config", "check", label="a byte that is not UTF-8")
    entries.run("config", "check", "-c", "missing.yaml")
    golden("messages/config.txt", entries.text())


def test_keeps_messages_of_failed_start(golden: Compare, tmp_path: Path) -> None:
    """``twistd conchrec`` that does not start."""
    entries = Entries(tmp_path)
    environment = dict(os.environ) | {"COLUMNS": "80", "LC_ALL": "C.UTF-8"}

    def start(label: str, config: str, *arguments: str, hidden: str = "") -> None:
        (tmp_path / "config.yaml").write_text(config)
        root = str(HERE.parent.parent)
        done = subprocess.run(
            [*TWISTD, "conchrec", *arguments],
            cwd=tmp_path, env=environment | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if hidden:  # The log has begun.
            _, _, message = done.stdout.replace(hidden, "<port>").partition("[stderr#error] ")
            entries.add(f"twistd -n conchrec: {label}", done.returncode, "", message)
        else:
            entries.add(f"twistd -n conchrec: {label}", done.returncode, done.stdout, done.stderr)

    start("a broken configuration", "users: {}\nroles: {ops: {hosts: a}}\nlistne: []\n", "-c", "config.yaml")
    start("no such file", GOOD, "-c", "missing.yaml")
    start("an unknown option", GOOD, "--nonsense")
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    key = directory / "user_ca"
    key.write_text("nonsense")
    key.chmod(0o600)
    start("a damaged key", GOOD + "state_dir: state\n", "-c", "config.yaml")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        key.unlink()
        config = GOOD + f"state_dir: state\nlisten: ['tcp:{port}:interface=127.0.0.1']\n"
        start("the port is taken", config, "-c", "config.yaml", hidden=port)
    golden("messages/start.txt", entries.text())
