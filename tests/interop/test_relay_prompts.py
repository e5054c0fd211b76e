"""Targets that ask: for passwords and codes, answered by the user in the inner login and kept nowhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.client import AccessMethod, Client
from tests.support.house import House, build
from tests.support.ports import free_port
from tests.support.process import Result, environment
from tests.support.sshd import Sshd
from tests.support.stage import Stage
from tests.support.wait import block, fact

SECRET = "corr€ct horse"
SETTINGS = {
    "proxy_checks_host_keys": False,
    "targets": {
        "gear": {"hosts": ["localhost"], "upstream_auth": ["prompt"]},
        "mixed": {"hosts": ["127.0.0.1"], "upstream_auth": ["agent", "certificate", "prompt"]},
    },
}

#: A target that takes what it is told to: ``password``, ``questions``, or a key and then questions.
GEAR = """
import asyncio, sys, asyncssh

port, takes, user_key = int(sys.argv[1]), sys.argv[2], asyncssh.import_public_key(sys.argv[3])
SECRET = sys.argv[4]

class Server(asyncssh.SSHServer):
    def connection_made(self, conn):
        self.conn = conn
    def begin_auth(self, username):
        self.conn.send_auth_banner("gear of the tests\\n")
        return True
    def password_auth_supported(self):
        return takes == "password"
    def validate_password(self, username, password):
        return password == SECRET
    def kbdint_auth_supported(self):
        return takes in ("questions", "imitation")
    def get_kbdint_challenge(self, username, lang, submethods):
        if takes == "imitation":
            self.conn.send_auth_banner("x\\rconchrec: a second factor is required\\n")
            return "conchrec: second factor", "\\n\\rconchrec: your code", "en", [("Code: ", False)]
        return "Gear", "Two things, please", "en", [("Secret: ", False), ("Your dog: ", True)]
    def validate_kbdint_response(self, username, responses):
        if takes == "imitation":
            self.conn.disconnect(14, "conchrec: wrong code, try again\\r\\nconchrec: Code: ")
            return False
        if list(responses) == [SECRET, "rex"]:
            return "One more thing", "", "en", [("Code: ", False)]
        return list(responses) == ["123456"]

async def command(process):
    if process.get_terminal_type():
        process.stdout.write(b"gear> ")
        process.stdout.write(await process.stdin.readuntil(b"\\r"))
    else:
        process.stdout.write(await process.stdin.read())
    process.exit(3)

async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", port, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        process_factory=command, encoding=None, line_editor=False,
    )
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

#: Answers each question with the next line of a file, and writes down what was asked.
ASKPASS = """#!/bin/sh
printf '%s\\n' "$1" >> "$ASKED"
head -n 1 "$ANSWERS"
sed -i 1d "$ANSWERS"
"""


@pytest.fixture(scope="module")
def anywhere(shared_stage: Stage) -> House:
    return block(build(shared_stage, settings=SETTINGS))


async def gear(house: House, takes: str, directory: Path) -> Sshd:
    """A target that takes ``password`` or ``questions``, and nothing else."""
    port, script = free_port(), house.stage.file("gear.py", GEAR)
    command = (sys.executable, script, str(port), takes, house.joe.key.line, SECRET)
    server = house.stage.process(*command, env=environment())
    await server.says(b"ready")
    return Sshd(host="127.0.0.1", port=port, directory=directory, host_keys=(), process=server)


class Person:
    """Somebody at the keyboard, for one call of ssh."""

    def __init__(self, directory: Path) -> None:
        self._answers, self._prompts = directory / "answers", directory / "asked"
        self._program = directory / "askpass"
        self._program.write_text(ASKPASS)
        self._program.chmod(0o700)

    async def ssh(self, client: Client, *answers: str, command: str = "cat") -> Result:
        self._answers.write_text("".join(f"{answer}\n" for answer in answers))
        self._prompts.write_text("")
        client.env |= {
            "SSH_ASKPASS": str(self._program),
            "SSH_ASKPASS_REQUIRE": "force",
            "ASKED": str(self._prompts),
            "ANSWERS": str(self._answers),
        }
        return await client.ssh("-o", "BatchMode=no", "web1", command, stdin=b"through\n")

    @property
    def prompts(self) -> list[str]:
        return self._prompts.read_text().splitlines()


async def kept_nowhere(house: House, *secrets: str) -> None:
    """Not in a recording, a manifest, the audit, the log, or anything else that the proxy has written."""
    await fact(
        lambda: all(path.with_suffix(".json").exists() for path in house.proxy.casts()),
        lambda: f"recordings are not closed: {house.proxy.casts()}",
    )
    files = [path for path in house.proxy.directory.rglob("*") if path.is_file()]
    assert len(files) > 5
    log = house.proxy.log.encode()
    for secret in secrets:
        matches = [path for path in files if secret.encode() in path.read_bytes()]
        assert matches == []
        assert secret.encode() not in log


async def test_relays_password_prompt(anywhere: House, tmp_path: Path) -> None:
    target = await gear(anywhere, "password", tmp_path)
    joe = Person(tmp_path)
    result = await joe.ssh(anywhere.client(AccessMethod.INNER_AGENT, target=target), SECRET)
    assert (result.stdout, result.code) == (b"through\n", 3), str(result)
    assert "gear of the tests" in result.errors
    (question,) = joe.prompts
    assert question.endswith(f"@localhost:{target.port}'s password: ")
    (*_, event) = anywhere.proxy.audit("upstream.connect", target=f"localhost:{target.port}")
    assert event["method"] == "password"
    await kept_nowhere(anywhere, SECRET)


async def test_relays_repeated_password_prompt(anywhere: House, tmp_path: Path) -> None:
    target = await gear(anywhere, "password", tmp_path)
    joe = Person(tmp_path)
    result = await joe.ssh(anywhere.client(target=target), "mistyped-8731", SECRET)
    assert (result.stdout, result.code) == (b"through\n", 3), str(result)
    assert len(joe.prompts) == 2
    await kept_nowhere(anywhere, SECRET, "mistyped-8731")


async def test_reports_failed_login_after_wrong_answers(anywhere: House, tmp_path: Path) -> None:
    target = await gear(anywhere, "password", tmp_path)
    joe = Person(tmp_path)
    wrong = [f"mistyped-{number}-8731" for number in range(9)]
    result = await joe.ssh(anywhere.client(target=target), *wrong)
    assert result.code == 255
    assert f"conchrec: localhost:{target.port} rejected the answers for " in result.errors
    assert len(joe.prompts) == 3
    (*_, event) = anywhere.proxy.audit("upstream.failed", target=f"localhost:{target.port}")
    assert "rejected the answers" in str(event["reason"])
    await kept_nowhere(anywhere, "8731")


async def test_relays_several_questions(anywhere: House, tmp_path: Path) -> None:
    """Several at once, with and without echo, and more after these."""
    target = await gear(anywhere, "questions", tmp_path)
    joe = Person(tmp_path)
    result = await joe.ssh(anywhere.client(target=target), SECRET, "rex", "123456")
    assert (result.stdout, result.code) == (b"through\n", 3), str(result)
    assert [text.rpartition("] ")[2] for text in joe.prompts] == ["Secret: ", "Your dog: ", "Code: "]
    assert "Two things, please" in result.errors
    (*_, event) = anywhere.proxy.audit("upstream.connect", target=f"localhost:{target.port}")
    assert event["method"] == "keyboard-interactive"
    await kept_nowhere(anywhere, SECRET, "rex\n", "123456")


async def test_marks_prompts_that_imitate_proxy(anywhere: House, tmp_path: Path) -> None:
    """A malicious target wants the code of the second factor at the proxy."""
    target = await gear(anywhere, "imitation", tmp_path)
    person, mark = Person(tmp_path), f"[localhost:{target.port}] "
    result = await person.ssh(anywhere.client(target=target), "123456")
    assert [text.rpartition(") ")[2] for text in person.prompts] == [f"{mark}Code: "]
    shown = [line for line in result.errors.replace("\r", "\n").split("\n") if "second factor" in line]
    assert len(shown) == 2 and all(f"{mark}'conchrec': " in line for line in shown), str(result)
    ours = [line for line in result.errors.replace("\r", "\n").split("\n") if line.startswith("conchrec")]
    assert ours and all(f"localhost:{target.port} rejected" in line for line in ours)


async def test_asks_questions_when_inner_login_is_skipped(stage: Stage, tmp_path: Path) -> None:
    """With ``inner_auth: tunnel`` the questions are all that the inner login asks."""
    house = await build(stage, settings={**SETTINGS, "inner_auth": "tunnel"})
    target = await gear(house, "questions", tmp_path)
    joe = Person(tmp_path)
    result = await joe.ssh(house.client(target=target), SECRET, "rex", "123456")
    assert (result.stdout, result.code) == (b"through\n", 3), str(result)


async def test_asks_nothing_when_key_is_accepted(anywhere: House, tmp_path: Path) -> None:
    joe = Person(tmp_path)
    # The agent that the outer connection has, and our own certificate.
    for method in (AccessMethod.OUTER_AGENT, AccessMethod.CERTIFICATE):
        result = await joe.ssh(anywhere.client(method, host="127.0.0.1"), command="cat; exit 3")
        assert (result.stdout, result.code) == (b"through\n", 3), str(result)
        assert joe.prompts == []


async def test_accepts_challenge_without_questions(anywhere: House, tmp_path: Path) -> None:
    joe = Person(tmp_path)
    target = await anywhere.stage.sshd(users=[anywhere.joe.key], more=["PasswordAuthentication no"])
    result = await joe.ssh(anywhere.client(target=target))
    assert result.code == 255
    assert f"conchrec: localhost:{target.port} does not ask " in result.errors


async def test_names_methods_of_target_in_batch_mode(anywhere: House, tmp_path: Path) -> None:
    """BatchMode: it is told what is wanted, as a host without a proxy would tell it."""
    target = await gear(anywhere, "password", tmp_path)
    result = await anywhere.client(target=target).ssh("web1", "true")
    assert result.code == 255
    assert "Permission denied (keyboard-interactive)" in result.errors


async def test_asks_nothing_before_inner_key_is_proved(anywhere: House, tmp_path: Path) -> None:
    """Who cannot log in as joe does not get at the target's questions either."""
    target = await gear(anywhere, "password", tmp_path)
    client = anywhere.client(AccessMethod.CERTIFICATE, target=target, inner_person=anywhere.ann)
    joe = Person(tmp_path)
    result = await joe.ssh(client, SECRET)
    assert result.code == 255
    assert joe.prompts == []
    assert "Permission denied (publickey)" in result.errors


async def test_hides_answers_on_terminal_and_in_recording(anywhere: House, tmp_path: Path) -> None:
    """As a person sees it; and what was typed blindly is in no recording."""
    target = await gear(anywhere, "questions", tmp_path)
    client = anywhere.client(target=target)
    before = anywhere.proxy.sids()
    process = client.start("-o", "BatchMode=no", "-tt", "web1", "", terminal=(24, 80))
    await process.says("Secret: ")
    process.write(SECRET.encode() + b"\r")
    await process.says("Your dog: ")
    process.write(b"rex\r")
    await process.says("Code: ")
    process.write(b"123456\r")
    await process.says("gear> ")
    process.write(b"typed in the session\r")
    assert (await process.wait()).code == 3
    (cast,) = await anywhere.proxy.finished(1, after=before)
    assert "typed in the session" in cast.text()
    screen = process.stdout.decode()
    assert "gear of the tests" in screen
    assert SECRET not in screen
    await kept_nowhere(anywhere, SECRET, "123456")
