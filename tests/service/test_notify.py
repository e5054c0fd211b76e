"""What systemd is told, through a socket as systemd opens it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from conchrec.service.notify import LEAST_SECONDS, STATUS_SECONDS, ServiceNotifier
from tests.support.systemd import NotifySocket

ADDRESSES = ["path", "abstract"]


@pytest.fixture(params=ADDRESSES)
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    name = str(tmp_path / "notify")
    manager = NotifySocket(name if request.param == "path" else f"@{name}")
    yield manager
    manager.close()


def notifier_of(manager: NotifySocket, **environment: str) -> ServiceNotifier:
    """``manager.status`` is what the service shows."""
    return ServiceNotifier({"NOTIFY_SOCKET": manager.address} | environment, lambda: manager.status)


def test_reports_life_of_service(manager: NotifySocket) -> None:
    notifier = notifier_of(manager)
    assert manager.messages() == []
    notifier.ready()
    notifier.report_stop()
    assert manager.messages() == ["READY=1\nSTATUS=fine", "STOPPING=1\nSTATUS=ends all sessions"]


def test_is_ready_after_last_reload(manager: NotifySocket) -> None:
    notifier = notifier_of(manager)
    notifier.reload_begins()
    notifier.reload_begins()
    notifier.reload_ends()
    assert manager.messages() == ["RELOADING=1", "RELOADING=1"]
    manager.status = "the last reload was refused"
    notifier.reload_ends()
    assert manager.messages() == ["READY=1\nSTATUS=the last reload was refused"]


def test_reports_changed_status_once(manager: NotifySocket) -> None:
    notifier = notifier_of(manager)
    notifier.ready()
    manager.messages()
    notifier.report()
    manager.status = "two\nREADY=1"
    notifier.report()
    notifier.report()
    assert manager.messages() == ["STATUS=two READY=1"], "a status is one line"


@pytest.mark.parametrize(
    ("microseconds", "interval"), [("60000000", STATUS_SECONDS), ("3000000", 1.5), ("1", LEAST_SECONDS)]
)
def test_reports_twice_in_time_of_watchdog(manager: NotifySocket, microseconds: str, interval: float) -> None:
    notifier = notifier_of(manager, WATCHDOG_USEC=microseconds, WATCHDOG_PID=str(os.getpid()))
    assert notifier.interval == pytest.approx(interval)
    notifier.ready()
    manager.messages()
    notifier.report()
    notifier.report()
    assert manager.messages() == ["WATCHDOG=1", "WATCHDOG=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
    ],
    ids=["no watchdog", "another process", "zero", "no number"],
)
def test_reports_no_life_without_watchdog(manager: NotifySocket, environment: dict[str, str]) -> None:
    notifier = notifier_of(manager, **environment)
    notifier.ready()
    manager.messages()
    notifier.report()
    assert (notifier.interval, manager.messages()) == (STATUS_SECONDS, [])


def test_keeps_variables_from_children() -> None:
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    ServiceNotifier(environment, str)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_runs_without_systemd(address: str) -> None:
    """A socket that cannot be reached is logged once."""
    notifier = ServiceNotifier({"NOTIFY_SOCKET": address}, lambda: "fine")
    with capturedLogs() as logged:
        notifier.ready()
        notifier.reload_begins()
        notifier.reload_ends()
        notifier.report()
        notifier.report_stop()
    assert len(logged) == (1 if address.startswith("/") else 0)
