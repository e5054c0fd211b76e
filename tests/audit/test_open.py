"""The copy of the audit log that goes to syslog."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from conchrec.audit.events import RecordingFailed, ServiceStart, UserLogin
from conchrec.audit.open import Syslog, open_log
from conchrec.config.loader import parse


@pytest.fixture
def daemon(tmp_path: Path) -> socket.socket:
    """A socket in place of /dev/log."""
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    daemon.bind(str(tmp_path / "log"))
    daemon.settimeout(10)
    return daemon


def test_sends_every_event_to_file_and_syslog(tmp_path: Path, daemon: socket.socket) -> None:
    text = f"users: {{}}\nroles: {{}}\nstate_dir: .\naudit: {{file: a.jsonl, syslog: {tmp_path}/log}}\n"
    log = open_log(parse(text.encode(), tmp_path / "config.yaml"))
    log.emit(UserLogin(user="jo\ne", method="publickey"))
    head, written = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert daemon.recv(65536).endswith(b": " + head), "heads as well"
    prefix, _, entry = daemon.recv(65536).partition(b": ")
    assert prefix == b"<86>conchrec[%d]" % os.getpid()
    assert entry == written and json.loads(entry)["user"] == "jo\ne"
    with daemon:
        log.close()


def test_maps_codes_to_severities(tmp_path: Path, daemon: socket.socket) -> None:
    sent = Syslog(tmp_path / "log", dropped=pytest.fail)
    sent.send(RecordingFailed(reason="x"), b"{}\n")
    assert daemon.recv(100).startswith(b"<83>")
    sent.close()
    daemon.close()


def test_reconnects_after_restart_of_the_daemon(tmp_path: Path, daemon: socket.socket) -> None:
    complaints: list[str] = []
    event = ServiceStart(version="1", mode="proxy")
    sent = Syslog(tmp_path / "log", dropped=complaints.append)
    sent.send(event, b"one\n")
    daemon.close()
    (tmp_path / "log").unlink()
    sent.send(event, b"two\n")
    sent.send(event, b"three\n")
    assert complaints == [f"{tmp_path}/log: No such file or directory"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(str(tmp_path / "log"))
        sent.send(event, b"four\n")
        assert again.recv(100).endswith(b": four")
    sent.close()


def test_does_not_wait_for_a_daemon_that_accepts_nothing(tmp_path: Path, daemon: socket.socket) -> None:
    complaints: list[str] = []
    sent = Syslog(tmp_path / "log", dropped=complaints.append)
    event = ServiceStart(version="1", mode="proxy")
    for _ in range(5000):
        sent.send(event, b"x" * 1000)
    assert complaints == [f"{tmp_path}/log: Resource temporarily unavailable"]
    sent.close()
    daemon.close()
