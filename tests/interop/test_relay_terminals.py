"""Sessions on a terminal: what the user saw, byte for byte, is what asciinema shows."""

from __future__ import annotations

import pytest

from tests.support.cast import plays_as, read_cast
from tests.support.client import AccessMethod
from tests.support.house import House
from tests.support.wait import fact

SHOWN = (
    "plain\r\n\x1b[1;31mred\x1b[0m h\u00e9llo \u65e5\u672c\u8a9e \U0001f600\r\n"
    "\x1b]0;title\x07\x1b[2J\x1b[Hend"
)


async def test_records_output_of_terminal(house: House, method: AccessMethod) -> None:
    before = house.proxy.sids()
    path = house.stage.file(house.stage.unique("shown"), SHOWN)
    process = house.client(method).start("-q", "-tt", "web1", f"stty raw; cat {path}", terminal=(91, 33))
    result = await process.wait()
    assert (result.stdout, result.code) == (SHOWN.encode(), 0), str(result)
    recording = await house.proxy.finished_one(after=before)
    assert (recording.header["width"], recording.header["height"]) == (91, 33)
    assert recording.header["env"]["TERM"] == "xterm"
    assert recording.text() == SHOWN
    await plays_as(recording.path, result.stdout, "cat", "play")


async def test_records_window_changes(house: House, method: AccessMethod) -> None:
    before = house.proxy.sids()
    command = "trap 'stty size; read x; exit 5' WINCH; stty size; sleep 600 & wait"
    process = house.client(method).start("-q", "-tt", "web1", command, terminal=(97, 31))
    await process.says("31 97")
    process.resize(120, 40)
    await process.says("40 120")
    process.write(b"\r")
    result = await process.wait()
    assert result.code == 5, str(result)
    recording = await house.proxy.finished_one(after=before)
    assert (recording.header["width"], recording.header["height"]) == (97, 31)
    assert recording.listed("r") == ["120x40"]
    assert recording.text().encode() == result.stdout
    await house.proxy.audited("resize", sid=recording.sid, columns=120, rows=40)


async def test_records_interactive_shell(house: House, method: AccessMethod) -> None:
    before = house.proxy.sids()
    process = house.client(method).start("-q", "-tt", "web1", terminal=(80, 24))
    await process.takes_keys()
    process.write(b"stty -echo; PS1=; echo rea''dy\r")
    at = await process.says("ready\r\n")
    process.write(b"echo secret-''password; exit 11\r")
    await process.says("secret-password", after=at)
    result = await process.wait()
    assert result.code == 11, str(result)
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["kind"] == "shell"
    assert recording.manifest["exit"] == {"status": 11}
    assert recording.text().encode() == result.stdout
    assert recording.listed("i") == [], "what was typed is not kept unless asked for"
    await plays_as(recording.path, result.stdout)


async def test_runs_command_on_terminal(house: House, method: AccessMethod) -> None:
    """`ssh -t web1 cmd`: stderr and stdout are one, and exit statuses are as without."""
    before = house.proxy.sids()
    process = house.client(method).start(
        "-q", "-tt", "web1", "echo out; echo err >&2; tty; exit 3", terminal=(80, 24)
    )
    result = await process.wait()
    assert result.code == 3
    assert result.stdout.startswith(b"out\r\nerr\r\n/dev/pts/")
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["pty"] == {"term": "xterm", "columns": 80, "rows": 24}
    assert recording.text().encode() == result.stdout


async def test_relays_typed_interrupt(house: House, method: AccessMethod) -> None:
    process = house.client(method).start(
        "-q",
        "-tt",
        "web1",
        "trap 'echo caught; exit 42' INT; echo ready; sleep 600 & wait",
        terminal=(80, 24),
    )
    await process.says("ready\r\n")
    process.write(b"\x03")
    await process.says("caught")
    assert (await process.wait()).code == 42


async def test_records_terminal_without_size(house: House) -> None:
    before = house.proxy.sids()
    result = await house.client().start("-q", "-tt", "web1", "stty size; echo done", terminal=(0, 0)).wait()
    assert result.code == 0
    recording = await house.proxy.finished_one(after=before)
    assert (recording.header["width"], recording.header["height"]) == (80, 24), "what every player accepts"
    assert recording.text().encode() == result.stdout


async def test_records_large_terminal_output(house: House) -> None:
    before = house.proxy.sids()
    command = "i=0; while [ $i -lt 20000 ]; do echo line $i \u00e9\u65e5; i=$((i+1)); done"
    result = await house.client().start("-q", "-tt", "web1", command, terminal=(80, 24)).wait(within=120)
    assert result.code == 0, str(result)
    expected = "".join(f"line {number} \u00e9\u65e5\r\n" for number in range(20_000)).encode()
    assert result.stdout == expected
    recording = await house.proxy.finished_one(after=before)
    assert recording.text().encode() == expected
    await plays_as(recording.path, expected)


@pytest.mark.parametrize("flags", [("-T",), ("-tt",)])
async def test_records_bytes_that_are_not_text(house: House, flags: tuple[str, ...]) -> None:
    before = house.proxy.sids()
    command = "stty raw 2>/dev/null; printf 'a\\377\\376\\303'; printf '\\251b\\000\\200'"
    terminal = (80, 24) if flags == ("-tt",) else None
    stdin = None if terminal else b""
    result = await house.client().start("-q", *flags, "web1", command, terminal=terminal, stdin=stdin).wait()
    assert result.stdout == b"a\xff\xfe\xc3\xa9b\x00\x80", "the user gets the bytes themselves"
    recording = await house.proxy.finished_one(after=before)
    assert recording.text() == "a\ufffd\ufffd\u00e9b\x00\ufffd"
    await plays_as(recording.path, recording.text().encode())


async def test_writes_recording_that_is_readable_while_live(house: House) -> None:
    before = house.proxy.sids()
    process = house.client().start("-q", "-tt", "web1", "echo first; read x; echo second", terminal=(80, 24))
    await process.says("first\r\n")
    (path,) = [path for path in house.proxy.casts() if path.stem not in before]
    await fact(lambda: "first\r\n" in read_cast(path).text(), "it is written once a second")
    assert read_cast(path).manifest is None
    await plays_as(path, b"first\r\n")
    process.write(b"\r")
    result = await process.wait()
    recording = await house.proxy.finished_one(after=before)
    assert recording.text().encode() == result.stdout
