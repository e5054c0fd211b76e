"""A configuration that is read again: whole or not at all, and one at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
from twisted.internet.defer import Deferred, execute

from conchrec.audit.events import ConfigReload
from conchrec.config.loader import load
from conchrec.config.model import Config
from conchrec.proxy.context import ProxyContext, Services, Settings
from conchrec.service.reload import Reloader
from tests.support.auditlog import AuditMemory

T = TypeVar("T")

BEFORE = "users: {}\nroles: {}\n"
AFTER = "users: {}\nroles: {ops: {logins: [root], hosts: [web1]}}\n"


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
        self.limits: list[int] = []
        self.built: list[Settings] = []
        self.applied: list[Settings] = []
        self.threads = Threads()
        services: Any = SimpleNamespace(
            audit=self.log,
            dialer=SimpleNamespace(set_limits=lambda *, handshakes, timeout: self.limits.append(handshakes)),
        )
        self.context = ProxyContext(self.build(load(file)), cast(Services, services))
        self.reloader = Reloader(
            self.context, self.build, self.threads, lambda: self.applied.append(self.context.settings)
        )

    def build(self, config: Config) -> Settings:
        settings = cast(Settings, SimpleNamespace(config=config))
        self.built.append(settings)
        return settings

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
    assert (stage.applied, stage.results(), len(stage.limits)) == ([stage.built[1]], ["ok"], 1)


def test_keeps_settings_with_invalid_file(stage: Stage) -> None:
    stage.file.write_text("users: 3\n")
    done = stage.reloader.request()
    stage.threads.run()
    assert done.called
    assert stage.context.settings is stage.built[0]
    assert (stage.applied, stage.results(), stage.limits) == ([], ["failed"], [])


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
