"""A directory of the target mounted with sshfs: one sftp session that lasts, and many requests at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.client import AccessMethod, Client
from tests.support.house import House
from tests.support.process import Process, run
from tests.support.wait import fact, together

# sshfs gives -a to ssh, and that wins: an agent comes with the outer connection or not at all.
METHODS = pytest.mark.parametrize(
    "method",
    [AccessMethod.OUTER_AGENT, AccessMethod.SUBSYSTEM, AccessMethod.CERTIFICATE],
    ids=lambda method: method.name.lower(),
)


@pytest.fixture(autouse=True)
def fuse() -> None:
    """The kernel has to allow it, and in many containers it does not."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse on this machine: sshfs cannot mount anything")


async def mount(house: House, client: Client, there: Path, here: Path, *options: str) -> Process:
    """Mount the target's directory ``there``, and wait until it is. Whoever touches ``here`` waits for the
    proxy: leave that to programs that can be ended."""
    here.mkdir()
    flags = [word for option in options for word in ("-o", option)]
    command = ("sshfs", "-f", "-F", str(client.config), *flags)
    process = house.stage.process(*command, f"web1:{there}", here, env=client.env)

    async def unmount() -> None:
        await run("fusermount3", "-u", "-z", here)

    house.stage.at_end(unmount)

    def mounted() -> bool:
        assert process.is_running, f"it ended:\n{process}"
        return f" {here} fuse.sshfs " in Path("/proc/self/mounts").read_text()

    await fact(mounted, lambda: f"not mounted:\n{process}\n{house.proxy.log}")
    return process


@METHODS
async def test_changes_tree_on_mount(house: House, method: AccessMethod, tmp_path: Path) -> None:
    """Copied, changed in place, renamed and removed; the same on both sides, and one recording of it all."""
    before = house.proxy.sids()
    there, here, tree = tmp_path / "there", tmp_path / "here", tmp_path / "tree"
    (tree / "sub dir").mkdir(parents=True)
    (tree / "large").write_bytes(os.urandom(3_000_001))
    (tree / "large").chmod(0o640)
    (tree / "sub dir" / "link").symlink_to("1 \u00e9")
    for number in range(100):
        (tree / "sub dir" / f"{number} \u00e9").write_text(f"{number}\n" * number)
    there.mkdir()
    process = await mount(house, house.client(method), there, here)
    (await run("cp", "-r", "--preserve=mode", tree, here / "copy")).check()
    (await run("diff", "-r", tree, there / "copy")).check()
    (await run("diff", "-r", tree, here / "copy")).check()
    assert os.readlink(there / "copy" / "sub dir" / "link") == "1 \u00e9"
    assert (there / "copy" / "large").stat().st_mode & 0o777 == 0o640
    patch = ("dd", f"of={here}/copy/large", "bs=1", "seek=2000000", "conv=notrunc", "status=none")
    (await run(*patch, stdin=b"in the middle")).check()
    contents = (tree / "large").read_bytes()
    assert (there / "copy" / "large").read_bytes() == (
        contents[:2_000_000] + b"in the middle" + contents[2_000_013:]
    )
    (await run("truncate", "--size=17", here / "copy" / "large")).check()
    (await run("mv", here / "copy" / "large", here / "small")).check()
    assert (there / "small").read_bytes() == contents[:17]
    (await run("rm", "-r", here / "copy")).check()
    assert [path.name for path in there.iterdir()] == ["small"]
    missing = await run("cat", here / "missing")
    assert (missing.code, "No such file" in missing.errors) == (1, True), str(missing)
    (await run("fusermount3", "-u", here)).check()
    await process.wait()
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["kind"] == "subsystem"
    # Markers, and a checkpoint for each second that it took.
    assert {code for _, code, _ in recording.events} <= {"m", "c"}, "a file's bytes are no terminal output"
    (end,) = await house.proxy.audited("session.end", sid=recording.sid)
    assert isinstance(end["stdin"], int)
    assert end["stdin"] > 3_000_000
    (connected,) = house.proxy.audit("upstream.connect", cid=recording.manifest["cid"])
    # An agent that nobody announced is asked where nothing else does: the target takes the certificate.
    assert str(connected["key"]).startswith("agent key ") == (method is AccessMethod.SUBSYSTEM)


async def test_reads_and_writes_in_parallel_on_mount(house: House, tmp_path: Path) -> None:
    """Ten readers and ten writers, whose requests and answers cross."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    contents = [os.urandom(500_000 + number) for number in range(10)]
    for number, data in enumerate(contents):
        (there / f"old{number}").write_bytes(data)
    await mount(house, house.client(AccessMethod.OUTER_AGENT), there, here)
    read = (run("cat", here / f"old{number}") for number in range(10))
    write = (
        run("dd", f"of={here}/new{number}", "status=none", stdin=contents[number]) for number in range(10)
    )
    results = await together([*read, *write])
    assert [result.code for result in results] == [0] * 20, [str(result) for result in results if result.code]
    assert [result.stdout for result in results[:10]] == contents
    assert [(there / f"new{number}").read_bytes() for number in range(10)] == contents


async def test_reconnects_mount_after_restart(house: House, tmp_path: Path) -> None:
    """``-o reconnect``: the mount is there again, by a connection and a recording of its own."""
    before = house.proxy.sids()
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    (there / "first").write_text("first\n")
    (there / "second").write_text("second\n")
    await mount(house, house.client(AccessMethod.OUTER_AGENT), there, here, "reconnect")
    assert (await run("cat", here / "first")).text == "first\n"
    await house.proxy.restart()
    (first,) = await house.proxy.finished(1, after=before)
    result = await run("cat", here / "second")
    assert (result.text, result.code) == ("second\n", 0), str(result)
    (await run("fusermount3", "-u", here)).check()
    recordings = await house.proxy.finished(2, after=before)
    cids = [recording.manifest and recording.manifest["cid"] for recording in recordings]
    assert len(set(cids)) == 2
    assert recordings[0].sid == first.sid
