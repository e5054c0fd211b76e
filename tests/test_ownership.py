"""What root makes in a directory of somebody else belongs to them: by hand, and by ``conchrec lock``."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from conchrec.access.keystore import locked, write
from conchrec.audit import ServiceStop
from conchrec.ownership import create
from tests.support.auditlog import audit_log, events
from tests.support.house import build
from tests.support.stage import Stage

NOBODY = 65534


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Who was made the owner of what is made; by the test's own user it is not done for real."""
    given: list[tuple[int, int]] = []
    real = os.fchown

    def fchown(descriptor: int, user: int, group: int) -> None:
        given.append((user, group))
        if user == os.getuid():
            real(descriptor, user, group)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", fchown)
    return given


def test_it_is_the_directorys_owner(tmp_path: Path, theirs: list[tuple[int, int]]) -> None:
    here = (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    write(tmp_path / "file", b"contents", 0o600)
    with locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
    log = audit_log(tmp_path, now=lambda: datetime.now(timezone.utc))
    log.emit(ServiceStop(reason="over"))
    log.reopen()
    log.close()
    assert theirs == [here] * 4, "what is there keeps its owner"
    assert (tmp_path / "file").read_bytes() == b"contents"
    assert len(events(tmp_path / "audit.jsonl")) == 1


def test_a_link_is_not_followed(tmp_path: Path, theirs: list[tuple[int, int]]) -> None:
    """Or the owner of the directory would get what the link leads to."""
    precious = tmp_path / "precious"
    precious.write_text("root's")
    for name in ("file", ".lock"):
        (tmp_path / name).symlink_to(precious)
    with pytest.raises(FileExistsError):
        create(tmp_path / "file", os.O_WRONLY)
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path):
        pass
    assert theirs == []


async def test_the_proxy_reads_what_root_has_locked(stage: Stage) -> None:
    """As the package has it: the proxy has a user of its own, and root uses the command."""
    house = await build(stage, start=False)
    state = house.proxy.directory / "state"
    (await house.proxy.command("ca", "export", "--type", "user")).check()
    (state / ".lock").unlink(missing_ok=True)
    if os.getuid() == 0:
        os.chown(state, NOBODY, NOBODY)
    (await house.proxy.command("lock", "--user", "joe")).check()
    owner = state.stat().st_uid
    assert {path.name: path.stat().st_uid for path in (state / "locks.json", state / ".lock")} == {
        "locks.json": owner,
        ".lock": owner,
    }
