"""The helper process for key exchanges lives exactly as long as the proxy, and holds nothing of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from tests.support.house import build
from tests.support.stage import Stage
from tests.support.wait import fact


def is_gone(pid: int) -> bool:
    """Has the process ended? A zombie has, too: nobody may be there to wait for it."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_ends_helper_with_proxy(stage: Stage, number: int) -> None:
    house = await build(stage)
    helper = await house.proxy.key_exchange_helper()
    await house.proxy.stop(number)
    await fact(lambda: is_gone(helper), "the helper outlives the proxy")


async def test_gives_helper_no_key_and_no_socket(stage: Stage) -> None:
    house = await build(stage)
    (await house.client().ssh("web1", "true")).check()
    proc = Path(f"/proc/{await house.proxy.key_exchange_helper()}")
    assert sorted(os.listdir(proc / "fd")) == ["0", "1", "2"]
    loaded = [
        load_ssh_private_key(path.read_bytes(), None)
        for path in (house.proxy.directory / "state").iterdir()
        if path.is_file() and path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    ]
    keys = [key.private_bytes_raw() for key in loaded if isinstance(key, Ed25519PrivateKey)]
    assert len(keys) >= 3
    with (proc / "mem").open("rb", buffering=0) as memory:
        for line in (proc / "maps").read_text().splitlines():
            bounds, permissions = line.split()[:2]
            if not permissions.startswith("rw") or "[v" in line:
                continue
            begin, end = (int(bound, 16) for bound in bounds.split("-"))
            memory.seek(begin)
            held = memory.read(end - begin)
            assert not any(key in held for key in keys)
