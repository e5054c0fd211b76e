"""Real shells: which commands were given, what of the keys is kept, and that no password is."""

from __future__ import annotations

import json

import pytest

from tests.support.cast import Cast
from tests.support.house import House, build
from tests.support.process import Process
from tests.support.stage import Stage
from tests.support.wait import block

PASSWORD = "Tr0ub4dor"
ASK = "python3 -c 'import getpass; getpass.getpass()'"


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    return block(build(shared_stage, settings={"recordings": {"input": True}}))


class Terminal:
    """A shell, and somebody who types at it, and waits for the prompt."""

    def __init__(self, process: Process, prompt: str) -> None:
        self.process = process
        self.prompt = prompt
        self._at = 0

    async def sees(self, text: str) -> None:
        self._at = await self.process.says(text, after=self._at)

    async def types(self, text: str) -> None:
        """One key after the other, each when the one before was shown."""
        for letter in text:
            self.process.write(letter.encode())
            await self.sees(letter)

    async def runs(self, command: str) -> None:
        await self.types(command)
        self.process.write(b"\r")
        await self.sees(self.prompt)

    async def secret(self, text: str) -> None:
        """Typed where nothing is shown."""
        for letter in text:
            self.process.write(letter.encode())
        self.process.write(b"\r")


async def shell(house: House, command: str, prompt: str) -> Terminal:
    process = house.client().start("-q", "-tt", "web1", command, terminal=(100, 30))
    terminal = Terminal(process, prompt)
    await terminal.sees(prompt)
    return terminal


async def leave(house: House, terminal: Terminal, before: frozenset[str]) -> Cast:
    terminal.process.write(b"exit\r")
    await terminal.process.wait()
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert PASSWORD not in recording.path.read_text()
    assert PASSWORD not in json.dumps(recording.manifest)
    return recording


def given(recording: Cast) -> list[str]:
    assert recording.manifest is not None
    commands = recording.manifest["commands"]
    assert isinstance(commands, list)
    texts = [str(command["text"]) for command in commands]
    assert [text for text in recording.listed("m") if text in texts] == texts, "markers as well"
    return texts


@pytest.mark.parametrize("name", ["bash --norc --noprofile", "dash -i", "zsh -f"])
async def test_records_commands_and_keys(house: House, name: str) -> None:
    before = house.proxy.sids()
    prompt = "zq% " if name.startswith("zsh") else "zq$ "
    written = prompt.replace("%", "%%")
    terminal = await shell(house, f"env PS1='{written}' PROMPT_SP= HISTFILE= {name}", prompt)
    await terminal.runs("echo one")
    await terminal.runs("cd /")
    await terminal.types("cat")
    terminal.process.write(b"\r")
    await terminal.sees("\r\n")
    await terminal.types("words to cat")
    terminal.process.write(b"\r")
    await terminal.sees("words to cat")
    terminal.process.write(b"\x04")
    await terminal.sees(prompt)
    # Somebody changes their mind.
    await terminal.types("rm -rf /tmp/x")
    terminal.process.write(b"\x03")
    await terminal.sees(prompt)
    # A password, to a program and to the shell itself.
    await terminal.types(ASK)
    terminal.process.write(b"\r")
    await terminal.sees("Password: ")
    await terminal.secret(PASSWORD)
    await terminal.sees(prompt)
    await terminal.types("stty -echo; head -n 1 > /dev/null; stty echo")
    terminal.process.write(b"\r")
    await terminal.sees("\r\n")
    await terminal.process.takes_keys()
    await terminal.secret(PASSWORD)
    await terminal.sees(prompt)
    recording = await leave(house, terminal, before)
    texts = given(recording)
    stty = "stty -echo; head -n 1 > /dev/null; stty echo"
    assert texts == ["echo one", "cd /", "cat", ASK, stty, "exit"]
    shown = (await house.proxy.command("recordings", "show", recording.sid)).check().text
    assert f"s  {stty}\n" in shown
    typed = recording.text("i").replace("\r", "\n")
    assert typed.startswith("echo one\ncd /\ncat\nwords to cat\n\x04rm -rf /tmp/x\x03")
    assert "input that the terminal did not show: not recorded" in recording.listed("m")


async def test_records_history_and_completion(house: House) -> None:
    before = house.proxy.sids()
    terminal = await shell(house, "env PS1='zq$ ' HISTFILE= bash --norc --noprofile", "zq$ ")
    await terminal.runs("echo first")
    terminal.process.write(b"\x1b[A")
    await terminal.sees("echo first")
    terminal.process.write(b"\r")
    await terminal.sees("zq$ ")
    await terminal.types("cat /etc/hostn")
    terminal.process.write(b"\t")
    await terminal.sees("ame ")
    terminal.process.write(b"\r")
    await terminal.sees("zq$ ")
    assert given(await leave(house, terminal, before)) == [
        "echo first",
        "echo first",
        "cat /etc/hostname",
        "exit",
    ]


async def test_reads_shell_integration(house: House) -> None:
    """OSC 133, as terminals' shell integrations set it up; with exit statuses, and over several lines."""
    before = house.proxy.sids()
    setup = r"PS1='\[\e]133;D;$?\a\e]133;A\a\]zq\$ \[\e]133;B\a\]' PS0='\[\e]133;C\a\]'"
    start = f'bash --norc --noprofile -c "{setup.replace("$", chr(92) + "$")} exec bash --norc --noprofile"'
    process = house.client().start("-q", "-tt", "web1", "bash --norc --noprofile", terminal=(100, 30))
    del start
    terminal = Terminal(process, "zq# ")
    await terminal.sees("# ")
    process.write(setup.encode() + b"\r")
    await terminal.sees("\x1b]133;B\x07")
    process.write(b"false\r")
    await terminal.sees("\x1b]133;D;1\x07")
    process.write(b"for i in 1 2\rdo echo $i\rdone\r")
    await terminal.sees("\x1b]133;D;0\x07")
    recording = await leave(house, terminal, before)
    assert recording.manifest is not None
    commands = recording.manifest["commands"]
    assert isinstance(commands, list)
    pairs = [(command["text"], command.get("exit")) for command in commands]
    assert ("false", 1) in pairs and pairs[-1] == ("exit", None), pairs
    assert any(str(text).startswith("for i in 1 2") for text, _ in pairs), pairs
