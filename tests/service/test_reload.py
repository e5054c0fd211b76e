"""A configuration that is read again: whole or not at all, and one at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest
from twisted.internet.defer import Deferred, execute

from conchrec.audit.events import ConfigReload
from conchrec.config.loader import load
from conchrec.config.model import Config
from conchrec.proxy.context import Settings
from conchrec.service.reload import Reloader
from tests.support.auditlog import AuditMemory
from tests.support.context import memory_context, memory_settings

T = TypeVar("T")

BEFORE = "users: {}\nroles: {}\n"
AFTER = "users: {}\nroles: {ops: {logins: [root], hosts: [web1]}}\nlimits: {connect_timeout: 7s}\n"


class Threads:
    """Runs work when the test says so."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self._waiting.append(lambda: cast(None, execute(work).chainDeferred(done)))
        return done

    @property
    def busy(self) -> int:
        return len(self._waiting)

    def run(self) -> None:
        self._waiting.pop(0)()


class Stage:
    """A proxy with one configuration file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.write_text(BEFORE)
        self.log = AuditMemory()
        self.built: list[Settings] = []
        self.applied: list[Settings] = []
        self.threads = Threads()
        self.context = memory_context(audit=self.log, settings=self.build(load(file)))
        self.reloader = Reloader(
            self.context, self.build, self.threads, lambda: self.applied.append(self.context.settings)
        )

    def build(self, config: Config) -> Settings:
        settings = memory_settings(config=config)
        self.built.append(settings)
        return settings

    @property
    def timeout(self) -> float:
        """Seconds that the dialer takes for a connection."""
        return self.context.services.dialer.timeout

    def results(self) -> list[str]:
        return [event.result for event in self.log.events if isinstance(event, ConfigReload)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "config.yaml")


def test_replaces_all_settings_at_once(stage: Stage) -> None:
    stage.file.write_text(AFTER)
    done = stage.reloader.request()
    assert not done.called and stage.context.settings is stage.built[0]
    stage.threads.run()
    assert done.called
    assert stage.context.settings is stage.built[1]
    assert set(stage.context.settings.config.roles) == {"ops"}
    assert (stage.applied, stage.results(), stage.timeout) == ([stage.built[1]], ["ok"], 7.0)


def test_keeps_settings_with_invalid_file(stage: Stage) -> None:
    stage.file.write_text("users: 3\n")
    done = stage.reloader.request()
    stage.threads.run()
    assert done.called
    assert stage.context.settings is stage.built[0]
    assert (stage.applied, stage.results(), stage.timeout) == ([], ["failed"], 30.0)


def test_reads_once_for_requests_during_reload(stage: Stage) -> None:
    first = stage.reloader.request()
    second, third = stage.reloader.request(), stage.reloader.request()
    assert stage.threads.busy == 1
    stage.file.write_text(AFTER)
    stage.threads.run()
    assert (first.called, second.called, third.called, stage.threads.busy) == (True, False, False, 1)
    stage.threads.run()
    assert (second.called, third.called, stage.threads.busy) == (True, True, 0)
    assert stage.results() == ["ok", "ok"]
