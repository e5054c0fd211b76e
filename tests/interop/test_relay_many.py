"""Many at once: sessions on one connection, and connections."""

from __future__ import annotations

import os

from tests.support.client import AccessMethod
from tests.support.house import House
from tests.support.wait import fact, together

MINUTES = 60.0


async def test_serves_ten_sessions_on_one_connection(house: House, method: AccessMethod) -> None:
    before = house.proxy.sids()
    connections = len(house.proxy.audit("user.login", stage="outer"))
    client = house.client(method)
    control = house.stage.short / house.stage.unique("control")
    shared = ("-o", f"ControlPath={control}")
    master = client.start("-N", "-M", *shared, "web1")
    await fact(lambda: control.is_socket() or not master.is_running, lambda: f"no master:\n{master}")
    contents = [os.urandom(300_000 + number) for number in range(10)]
    results = await together(
        client.ssh(*shared, "web1", f"cat; echo err{number} >&2; exit {number}", stdin=contents[number])
        for number in range(10)
    )
    for number, result in enumerate(results):
        assert result.stdout == contents[number]
        assert (result.errors.splitlines(), result.code) == ([f"err{number}"], number), str(result)
    assert len(house.proxy.audit("user.login", stage="outer")) == connections + 1
    recordings = await house.proxy.finished(10, after=before)
    assert sorted(
        str(recording.manifest and recording.manifest["exit"]) for recording in recordings
    ) == sorted(str({"status": number}) for number in range(10))
    assert len({recording.manifest and recording.manifest["cid"] for recording in recordings}) == 1
    (await client.ssh(*shared, "-O", "exit", "web1")).check()
    await master.wait()


async def test_records_consecutive_sessions_separately(house: House) -> None:
    """A channel number is used again: each session has its own recording anyway."""
    before = house.proxy.sids()
    client = house.client()
    control = house.stage.short / house.stage.unique("control")
    shared = ("-o", f"ControlPath={control}")
    master = client.start("-N", "-M", *shared, "web1")
    await fact(lambda: control.is_socket() or not master.is_running, lambda: f"no master:\n{master}")
    for number in range(5):
        result = await client.ssh(*shared, "web1", f"echo {number}")
        assert result.stdout == b"%d\n" % number, str(result)
    recordings = await house.proxy.finished(5, after=before)
    assert [recording.text() for recording in recordings] == [f"{number}\n" for number in range(5)]
    await master.stop()


async def test_serves_hundred_connections_at_once(house: House) -> None:
    """A stock sshd drops some of a hundred handshakes at once (MaxStartups 10:30:100); nobody sees it."""
    before = house.proxy.sids()
    clients = [house.client(list(AccessMethod)[number % len(AccessMethod)]) for number in range(100)]
    results = await together(
        client.ssh("web1", f"echo {number}", within=6 * MINUTES) for number, client in enumerate(clients)
    )
    bad = [str(result) for result in results if result.code != 0]
    assert not bad, f"{len(bad)} of a hundred failed, the first with\n{bad[0]}\n{house.proxy.log[-8000:]}"
    assert [result.stdout for result in results] == [b"%d\n" % number for number in range(100)]
    recordings = await house.proxy.finished(100, after=before)
    assert sorted(int(recording.text()) for recording in recordings) == list(range(100))


async def test_closes_descriptors_after_sessions(house: House) -> None:
    """Sessions leave nothing open behind."""
    await together(house.client(method).ssh("web1", "true") for method in AccessMethod)
    await house.proxy.deserted()
    files = house.proxy.open_files()
    for _ in range(3):
        await together(house.client(method).ssh("web1", "true") for method in AccessMethod)
    await house.proxy.deserted()
    await fact(
        lambda: house.proxy.open_files() <= files,
        lambda: f"{house.proxy.open_files()} files are open, {files} were:\n{house.proxy.log}",
    )
