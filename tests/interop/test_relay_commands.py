"""What a command does at the target is what the user's ssh sees, in every way in; and it is recorded."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.client import AccessMethod
from tests.support.house import House
from tests.support.process import descendants, send
from tests.support.wait import fact

MIB = 1024 * 1024


def text(size: int) -> bytes:
    """That much valid UTF-8, no two lines alike."""
    lines = bytearray()
    number = 0
    while len(lines) < size:
        lines += f"line {number} {number * 2654435761 % 2**32:x} \u00e9\u65e5\u672c\n".encode()
        number += 1
    return bytes(lines)


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_relays_exit_code(house: House, method: AccessMethod, code: int) -> None:
    before = house.proxy.sids()
    result = await house.client(method).ssh("web1", f"echo out; echo err >&2; exit {code}")
    assert (result.stdout, result.stderr, result.code) == (b"out\n", b"err\n", code), str(result)
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["status"] == "complete"
    assert recording.manifest["exit"] == {"status": code}
    assert recording.manifest["kind"] == "exec"
    assert recording.manifest["user"] == "joe"
    assert recording.manifest["target"] == f"localhost:{house.target.port}"
    assert sorted(recording.text().splitlines()) == ["err", "out"]
    assert recording.header["command"] == f"echo out; echo err >&2; exit {code}"


async def test_relays_death_by_signal(house: House, method: AccessMethod) -> None:
    before = house.proxy.sids()
    result = await house.client(method).ssh("web1", "echo out; kill -TERM $$")
    assert (result.stdout, result.code) == (b"out\n", 255), str(result)
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["exit"] == {"signal": "TERM"}
    assert (await house.proxy.audited("session.end", sid=recording.sid))[0]["exit_signal"] == "TERM"


async def test_relays_command_without_input_and_output(house: House, method: AccessMethod) -> None:
    result = await house.client(method).ssh("web1", "true")
    assert (result.stdout, result.stderr, result.code) == (b"", b"", 0), str(result)


async def test_relays_stdin_to_its_end(house: House, method: AccessMethod, tmp_path: Path) -> None:
    contents = os.urandom(3 * MIB + 1)
    there, here = tmp_path / "there", tmp_path / "here"
    here.write_bytes(contents)
    before = house.proxy.sids()
    result = await house.client(method).ssh("web1", f"cat > {there}; echo done", stdin=here)
    assert (result.stdout, result.code) == (b"done\n", 0), str(result)
    assert there.read_bytes() == contents
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["stdin"] == {
        "bytes": len(contents),
        "sha256": hashlib.sha256(contents).hexdigest(),
    }


async def test_relays_bytes_unchanged(house: House, method: AccessMethod, tmp_path: Path) -> None:
    contents = os.urandom(2 * MIB + 1)
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(contents)
    result = await house.client(method).ssh("web1", "cat", stdin=sent, stdout=received)
    assert result.code == 0, str(result)
    assert received.read_bytes() == contents


async def test_relays_large_input(house: House, tmp_path: Path) -> None:
    contents = os.urandom(MIB) * 64
    there, here = tmp_path / "there", tmp_path / "here"
    here.write_bytes(contents)
    result = await house.client().ssh("web1", f"cat > {there}", stdin=here, within=240)
    assert result.code == 0, str(result)
    assert there.read_bytes() == contents


async def test_relays_large_output(house: House, tmp_path: Path) -> None:
    contents = text(64 * MIB)
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(contents)
    before = house.proxy.sids()
    result = await house.client().ssh("web1", "cat", stdin=sent, stdout=received, within=240)
    assert result.code == 0, str(result)
    assert received.read_bytes() == contents
    recording = await house.proxy.finished_one(after=before)
    assert recording.text().encode() == contents


async def test_separates_stderr_from_stdout(house: House, method: AccessMethod) -> None:
    command = "i=0; while [ $i -lt 500 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done; exit 7"
    result = await house.client(method).ssh("web1", command)
    assert result.stdout == b"".join(b"out%d\n" % number for number in range(500))
    assert result.stderr == b"".join(b"err%d\n" % number for number in range(500))
    assert result.code == 7


async def test_relays_input_after_end_of_output(house: House, method: AccessMethod, tmp_path: Path) -> None:
    """Half-close in the direction to the user: stdout ends, stdin is still read."""
    there = tmp_path / "there"
    process = house.client(method).start("web1", f"echo begun; exec >&-; cat > {there}; exit 4")
    await process.says("begun")
    process.write(b"late\n")
    process.close_input()
    assert (await process.wait()).code == 4
    assert there.read_bytes() == b"late\n"


async def test_relays_output_after_end_of_input(house: House, method: AccessMethod) -> None:
    """Half-close in the direction to the target: what comes after EOF still arrives."""
    process = house.client(method).start("web1", "cat; echo end of input; printf '%1000000s' x")
    process.write(b"typed\n")
    process.close_input()
    result = await process.wait()
    assert result.stdout == b"typed\nend of input\n" + b" " * 999_999 + b"x"
    assert result.code == 0


async def test_alternates_input_and_output(house: House, method: AccessMethod) -> None:
    process = house.client(method).start("web1", "while read -r line; do echo got $line; done; exit 9")
    for number in range(20):
        process.write(b"%d\n" % number)
        await process.says(f"got {number}\n")
    process.close_input()
    assert (await process.wait()).code == 9


async def test_ends_when_target_stops_reading(house: House, method: AccessMethod) -> None:
    """A command that ends before its input does: ssh sees its status, and does not hang."""
    process = house.client(method).start("web1", "head -c 10; exit 6")
    process.write(os.urandom(4 * MIB))
    result = await process.wait()
    assert (len(result.stdout), result.code) == (10, 6), str(result)


async def test_ends_session_when_user_disconnects(house: House, method: AccessMethod) -> None:
    before = house.proxy.sids()
    process = house.client(method).start("web1", "echo begun; cat; echo never")
    await process.says("begun")
    process.kill()
    await process.wait()
    recording = await house.proxy.finished_one(after=before)
    assert recording.text().startswith("begun\n")
    assert "never" not in recording.text()
    (end,) = await house.proxy.audited("session.end", sid=recording.sid)
    assert end["kind"] == "exec"
    await house.proxy.audited("client.disconnect", cid=end["cid"])


async def test_relays_environment(house: House, method: AccessMethod) -> None:
    client = house.client(method, inner='    SetEnv CONCHREC_TEST="a b \u00e9"')
    result = await client.ssh("web1", 'printf %s "$CONCHREC_TEST"')
    assert result.stdout.decode() == "a b \u00e9", str(result)


async def test_runs_script_from_stdin(house: House, method: AccessMethod) -> None:
    """`ssh web1 < script`: a shell without a terminal."""
    before = house.proxy.sids()
    result = await house.client(method).ssh("-T", "web1", stdin=b"echo from the script\nexit 12\n")
    assert result.code == 12, str(result)
    assert b"from the script\n" in result.stdout
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["kind"] == "shell"
    assert "from the script\n" in recording.text()


async def test_records_nothing_without_session(house: House, method: AccessMethod) -> None:
    """`ssh -N`: a connection without a session is a connection without a recording."""
    before = house.proxy.sids()
    control = house.stage.short / house.stage.unique("control")
    process = house.client(method).start("-N", "-M", "-o", f"ControlPath={control}", "web1")
    await fact(lambda: control.is_socket() or not process.is_running, lambda: str(process))
    process.kill()
    await process.wait()
    assert house.proxy.sids() == before


async def test_reaches_target_by_address(house: House, method: AccessMethod) -> None:
    result = await house.client(method, host="127.0.0.1").ssh("web1", "echo by address")
    assert (result.stdout, result.code) == (b"by address\n", 0), str(result)


async def test_limits_memory_for_stalled_reader(house: House) -> None:
    """An endless stream to a client that has stopped: the proxy holds little of it."""
    process = house.client().start("web1", "echo begun; cat /dev/zero | tr '\\0' x", stdin=b"")
    await process.says("begun")
    base = house.proxy.memory()
    family = descendants(process.pid)
    process.kill(signal.SIGSTOP)  # its pipes and sockets fill
    send(family, signal.SIGSTOP)
    try:
        size = -1
        while size != (size := sum(path.stat().st_size for path in house.proxy.casts())):
            await house.proxy.command("ca", "status")  # some real time for the stream to come to a halt
        assert house.proxy.memory() - base < 8 * MIB
    finally:
        process.kill(signal.SIGCONT)
        send(family, signal.SIGCONT)
    process.kill()
    await process.wait()


def _family(pid: int) -> list[int]:
    return [pid, *(child for child, _ in descendants(pid))]
