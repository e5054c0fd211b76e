"""What a new configuration changes at once, and what waits."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from conchrec.config.changes import AT_START, RECORDINGS_AT_START, changed, effective, waits
from conchrec.config.loader import parse
from conchrec.config.model import Config, Mode, Recordings

AT_ONCE = {
    "session_recording", "proxy_checks_host_keys", "trusted_hosts", "upstream_auth", "agent_probe",
    "inner_auth", "notice", "users", "roles", "targets", "algorithms", "limits", "recordings", "warnings",
}  # fmt: skip
RECORDINGS_AT_ONCE = {"retention"}

BEFORE = b"users: {}\nroles: {}\n"
AFTER = b"""
users: {}
roles: {ops: {logins: [root], hosts: [web1]}}
listen: ["tcp:4022"]
session_recording: off
recordings: {min_free: 1GiB, retention: {age: 1d}}
"""


def read(text: bytes) -> Config:
    return parse(text, Path("/etc/conchrec/config.yaml"), me="joe")


def test_classifies_every_setting() -> None:
    assert {field.name for field in fields(Config)} == AT_ONCE | AT_START
    assert {field.name for field in fields(Recordings)} == RECORDINGS_AT_ONCE | RECORDINGS_AT_START


def test_keeps_settings_that_wait_for_start() -> None:
    before, after = read(BEFORE), read(AFTER)
    names = changed(before, after)
    assert set(names) == {
        "listen",
        "session_recording",
        "roles",
        "recordings.min_free",
        "recordings.retention",
    }
    assert {name for name in names if waits(name)} == {"listen", "recordings.min_free"}
    now = effective(before, after)
    assert (now.listen, now.session_recording) == (("tcp:3023",), Mode.OFF)
    assert now.recordings.min_free == before.recordings.min_free
    assert now.recordings.retention == after.recordings.retention
    assert set(now.roles) == {"ops"}
    assert changed(before, read(BEFORE)) == ()
