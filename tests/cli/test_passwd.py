"""``conchrec passwd``: on a terminal, in a pipe, and what a camera sees."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
import yaml
import zxingcpp

from conchrec.access.passwords import Passwords, code_at, parse_hash, parse_secret, step_at
from conchrec.cli.passwd import QUIET, qr_code
from conchrec.config.loader import parse
from tests.support.process import Process, Result, run
from tests.support.proxy import our_environment
from tests.support.stage import Stage

PASSWORD = "corr€ct horse"
CONFIG = (
    "cluster_name: example.com\nusers: {joe: {roles: [ops]}}\nroles: {ops: {logins: [root], hosts: [web1]}}\n"
)
COMMAND = (sys.executable, "-c", "from conchrec.cli.main import run; run()", "passwd")
#: What one half block shows: the upper module and the lower one; 1 is dark.
BLOCKS = {" ": (0, 0), "▄": (0, 1), "▀": (1, 0), "█": (1, 1)}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


async def piped(config: Path, *arguments: str, stdin: str = PASSWORD + "\n") -> Result:
    return await run(*COMMAND, *arguments, "-c", config, env=our_environment(), stdin=stdin.encode())


def typed(stage: Stage, config: Path, *arguments: str, columns: int = 80, term: str = "xterm") -> Process:
    return stage.process(
        *COMMAND, *arguments, "-c", config, env=our_environment() | {"TERM": term}, terminal=(columns, 50)
    )


async def answered(process: Process, *answers: tuple[str, str]) -> None:
    at = 0
    for question, answer in answers:
        at = await process.says(question, after=at)
        process.write(answer.encode() + b"\n")


def screen(process: Process) -> str:
    return process.stdout.decode().replace("\r\n", "\n")


def scanned(picture: list[str], scale: int = 4) -> str:
    """What a camera reads."""
    rows: list[list[int]] = []
    for line in picture:
        for half in (0, 1):
            rows.append([255 * (1 - BLOCKS[block][half]) for block in line for _ in range(scale)])
    pixels = b"".join(bytes(row) * scale for row in rows)
    shape = (len(rows) * scale, len(rows[0]))
    (code,) = zxingcpp.read_barcodes(memoryview(pixels).cast("B", shape))
    assert code.format == zxingcpp.BarcodeFormat.QRCode
    return str(code.text)


async def test_reads_password_from_pipe(config: Path) -> None:
    """One line of standard input; standard output has what goes under ``users:`` and nothing else."""
    result = (await piped(config, "joe")).check()
    assert result.errors == ""
    assert all(line.startswith("  ") for line in result.text.splitlines())
    lines = yaml.safe_load(result.text)
    assert list(lines) == ["joe"] and list(lines["joe"]) == ["password"]
    hashed = parse_hash(lines["joe"]["password"])
    passwords = Passwords({"joe": hashed}, {}, b"salt")
    assert passwords.is_right("joe", PASSWORD)
    assert not passwords.is_right("joe", PASSWORD + "\n")


async def test_prints_valid_configuration(config: Path) -> None:
    result = (await piped(config, "ann", "--totp")).check()
    assert "note: give the user roles too" in result.errors
    read = parse(f"users:\n{result.text}    roles: [ops]\nroles: {{ops: {{}}}}\n".encode(), config)
    assert read.users["ann"].password.startswith(b"$2b$12$")
    (secret,) = re.findall(r"secret=([A-Z2-7]{32})&", result.errors)
    assert read.users["ann"].totp == parse_secret(secret)
    assert f"otpauth://totp/example.com:ann?secret={secret}&issuer=example.com\n" in result.errors
    assert "\x1b" not in result.errors
    assert "▄" not in result.errors


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("x" * 73, "at most 72 bytes"),
        ("€" * 25, "at most 72 bytes"),
        ("", "must not be empty"),
        ("with\ttab", "control characters"),
    ],
)
async def test_rejects_invalid_password(config: Path, password: str, why: str) -> None:
    result = await piped(config, "joe", stdin=password + "\n")
    assert (result.stdout, result.code) == (b"", 1)
    assert why in result.errors


async def test_rejects_invalid_text(config: Path) -> None:
    result = await run(
        *COMMAND, "joe", "-c", config, env=our_environment(), stdin="Ångström 1".encode("latin-1")
    )
    assert (result.stdout, result.errors, result.code) == (
        b"",
        "conchrec: invalid password: must be UTF-8\n",
        1,
    )


async def test_reports_missing_password(stage: Stage, config: Path) -> None:
    process = typed(stage, config, "joe")
    await process.says("New password of joe: ")
    process.write(b"\x04")
    assert (await process.wait()).code == 1
    assert "conchrec: no password was typed" in screen(process)


async def test_warns_of_short_password(config: Path) -> None:
    result = (await piped(config, "joe", stdin="secret")).check()
    assert result.errors.startswith("note: the password is short")


async def test_asks_twice_at_terminal(stage: Stage, config: Path) -> None:
    process = typed(stage, config, "joe")
    await answered(process, ("New password of joe: ", PASSWORD), ("Again: ", PASSWORD))
    assert (await process.wait()).code == 0
    assert PASSWORD not in screen(process)
    assert f"Add this to joe in {config}, and reload the proxy (SIGHUP):" in screen(process)
    (hashed,) = re.findall(r"password: (\S+)", screen(process))
    assert Passwords({"joe": parse_hash(hashed)}, {}, b"salt").is_right("joe", PASSWORD)
    assert config.read_text() == CONFIG


async def test_rejects_different_repetition(stage: Stage, config: Path) -> None:
    process = typed(stage, config, "joe")
    await answered(process, ("New password of joe: ", PASSWORD), ("Again: ", "mistyped"))
    assert (await process.wait()).code == 1
    assert "the two passwords differ" in screen(process)
    assert "password:" not in screen(process)


async def test_enrols_authenticator_app(stage: Stage, config: Path) -> None:
    """The picture holds the URI, it fits, and one code has to be right."""
    process = typed(stage, config, "joe", "--totp")
    await answered(process, ("New password of joe: ", PASSWORD), ("Again: ", PASSWORD))
    await process.says("The code that the app shows now: ")
    (uri,) = re.findall(r"otpauth://\S+", screen(process))
    picture = re.findall(r"\x1b\[0;30;107m(.*?)\x1b\[0m\n", screen(process))
    assert scanned(picture) == uri
    assert max(map(len, picture)) <= 80
    secret = parse_secret(re.findall(r"secret=(\w+)", uri)[0])
    code = code_at(secret, step_at(time.time()))
    await answered(process, ("The code", f"{(int(code) + 1) % 1_000_000:06}"), ("The code", code))
    assert (await process.wait()).code == 0
    (shown,) = re.findall(r"totp: (\S+)", screen(process))
    assert parse_secret(shown) == secret


async def test_rejects_wrong_codes(stage: Stage, config: Path) -> None:
    process = typed(stage, config, "joe", "--totp")
    await answered(process, ("New password of joe: ", PASSWORD), ("Again: ", PASSWORD))
    await answered(process, *[("The code", "none")] * 3)
    assert (await process.wait()).code == 1
    assert "no valid code was typed" in screen(process)
    assert "totp:" not in screen(process)


@pytest.mark.parametrize(
    ("columns", "term", "why"),
    [(40, "xterm", "make it wider"), (80, "dumb", "cannot show a QR code")],
)
async def test_explains_missing_qr_code(
    stage: Stage, config: Path, columns: int, term: str, why: str
) -> None:
    process = typed(stage, config, "joe", "--totp", columns=columns, term=term)
    await answered(process, ("New password of joe: ", PASSWORD), ("Again: ", PASSWORD))
    await process.says("The code that the app shows now: ")
    assert "otpauth://" in screen(process)
    assert why in screen(process)
    assert not any(block in screen(process) for block in "▄▀█")


@pytest.mark.parametrize("length", [1, 40, 90, 200, 300])
def test_draws_qr_codes_of_all_sizes(length: int) -> None:
    text = "otpauth://totp/" + "x" * length
    picture = qr_code(text)
    assert scanned(picture) == text
    assert len({len(line) for line in picture}) == 1
    # Light modules all around.
    assert {picture[0], picture[QUIET // 2 - 1], picture[-1]} == {" " * len(picture[0])}
    assert all(line[:QUIET] == line[-QUIET:] == " " * QUIET for line in picture)
