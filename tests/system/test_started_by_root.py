"""twistd that root has started, on directories of another user: it listens, and is that user from then on."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import role
from tests.support.proxy import Proxy
from tests.support.stage import Stage
from tests.test_ownership import OTHER, needs_root


@pytest.fixture
def directory() -> Iterator[Path]:
    # pytest's own directories are for one user alone.
    directory = Path(tempfile.mkdtemp(prefix="conchrec-owner-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def fields(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@needs_root
async def test_drops_root_rights_before_listening(stage: Stage, directory: Path) -> None:
    proxy = Proxy(directory / "proxy", role())
    proxy.configure({"users": {"joe": {"roles": ["ops"]}}})
    stage.at_end(proxy.stop)
    for path in (proxy.directory / "state", proxy.recordings_directory):
        path.mkdir(mode=0o700, exist_ok=True)
    for path in (proxy.directory, *proxy.directory.rglob("*")):
        os.chown(path, OTHER, OTHER)
    await proxy.start()
    assert proxy.process is not None
    process = proxy.process.pid
    with socket.create_connection((proxy.host, proxy.port)) as there:
        assert there.recv(4) == b"SSH-"
    status = fields(process)
    assert (status["Uid"].split(), status["Gid"].split()) == ([str(OTHER)] * 4, [str(OTHER)] * 4)
    assert status["Groups"] == ""
    made = [path for path in proxy.directory.rglob("*") if not path.is_dir()]
    assert {"user_ca", "audit.jsonl"} < {path.name for path in made}
    assert {path.stat().st_uid for path in made} == {OTHER}

    # No core file; and what /proc has of it is root's, so it is no debugger's, not even of its own user.
    assert Path(f"/proc/{process}/environ").stat().st_uid == 0
    limits = Path(f"/proc/{process}/limits").read_text().splitlines()
    assert ["Max", "core", "file", "size", "0", "0", "bytes"] in [line.split() for line in limits]
