"""The configuration reference has every key, and examples that load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from conchrec.config import loader
from conchrec.config.fields import keys
from conchrec.config.model import Audit, Recordings, Retention, TrustedHosts, Web
from conchrec.config.roles import OPTIONS
from tests.docs.configuration import EXAMPLE_KEYS, Setting, settings

SETTINGS = settings()
#: What the examples refer to.
SURROUNDINGS = b"""
users: {}
roles:
  ops: {logins: [root], hosts: [web1]}
  oncall: {logins: [root], hosts: [web1]}
  lead: {logins: [root], hosts: [web1]}
targets:
  db: {hosts: ["db*.example.com"]}
"""


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both mappings; where both have a value that is no mapping, that of ``above``."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = merge(below[key], value) if both else value
    return merged


@pytest.mark.parametrize(
    "setting", [setting for setting in SETTINGS if setting.example], ids=lambda setting: str(setting.path)
)
def test_loads_example(setting: Setting, tmp_path: Path) -> None:
    for name in ("joe.keys", "host_ca.pub"):
        (tmp_path / name).write_text(EXAMPLE_KEYS.removeprefix("- ") + "\n")
    example = yaml.safe_load(setting.example_yaml())
    text = yaml.safe_dump(merge(yaml.safe_load(SURROUNDINGS), example))
    loader.parse(text.encode(), tmp_path / "config.yaml", me="joe")


def test_has_every_key() -> None:
    paths = {setting.path for setting in SETTINGS}
    sections = {"limits": loader.LIMITS, "users.NAME": loader.USER, "targets.NAME": loader.TARGET}
    sections |= {"audit": keys(Audit), "recordings": keys(Recordings), "web": keys(Web)}
    sections |= {"recordings.retention": keys(Retention), "trusted_hosts": keys(TrustedHosts)}
    sections |= {"roles.NAME.options": OPTIONS}
    expected = {f"{section}.{key}" for section, names in sections.items() for key in names}
    expected |= {*loader.TOP, *(f"roles.NAME.{key}" for key in ("logins", "hosts", "options"))}
    expected |= {"roles.NAME.deny.hosts", "roles.NAME.deny.logins"}
    assert paths == expected
    assert len(SETTINGS) == len(paths)


def test_has_description_and_example_for_each_value() -> None:
    assert [setting.path for setting in SETTINGS if not setting.about] == []
    assert [setting.path for setting in SETTINGS if not setting.example and setting.kind != "mapping"] == []


def test_names_required_settings() -> None:
    assert {setting.path for setting in SETTINGS if setting.required} == {"users", "roles"}


def test_names_settings_that_wait_for_next_start() -> None:
    waiting = {setting.path for setting in SETTINGS if setting.waits}
    assert {"listen", "recordings.directory", "audit.file", "web.listen"} <= waiting
    assert not {"limits.tries", "recordings.retention.age", "roles", "users.NAME.roles"} & waiting
