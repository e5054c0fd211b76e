"""Ansible through the proxy: many short sessions on one connection, which outlives each of its runs
(ControlPersist, its default)."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cast import read_cast
from tests.support.client import AccessMethod, Client
from tests.support.house import House
from tests.support.process import Result, run
from tests.support.proxy import Event
from tests.support.sshd import LOGIN
from tests.support.wait import fact

MINUTES = 60.0
PIPELINING = pytest.mark.parametrize("pipelining", [False, True], ids=["files", "pipelining"])

PLAYBOOK = """
- hosts: all
  gather_facts: true
  gather_subset: [min]
  vars: {there: "THERE/{{ inventory_hostname }}"}
  tasks:
    - file: {path: "{{ there }}", state: directory, mode: "0750"}
    - copy: {content: "{{ ansible_facts.python.version.major }}\\n", dest: "{{ there }}/copied"}
    - lineinfile: {path: "{{ there }}/copied", line: h\u00e9llo \u65e5\u672c}
    - shell: {cmd: "cat; echo err >&2; exit 3", stdin: typed}
      register: shell
      failed_when: shell.rc != 3
    - raw: echo raw; exit 4
      register: raw
      failed_when: raw.rc != 4
    - script: SCRIPT word
      register: script
    - shell: echo later
      async: 60
      poll: 1
      register: later
    - meta: reset_connection
    - command: echo {{ inventory_hostname }}
      register: again
    - fetch: {src: "{{ there }}/copied", dest: "{{ there }}/fetched", flat: true}
    - assert:
        that:
          - shell.stdout == 'typed' and shell.stderr == 'err'
          - raw.stdout_lines == ['raw']
          - script.stdout_lines == ['script word']
          - later.stdout == 'later'
          - again.stdout == inventory_hostname
"""


@dataclass(kw_only=True)
class Control:
    """A machine with Ansible and an inventory; ``-J proxy`` is all that it knows of the proxy."""

    house: House
    client: Client
    inventory: Path
    sockets: Path
    env: dict[str, str]
    past: int
    """Events of the audit that were there before."""

    async def ansible(self, name: str, *arguments: str | Path, pipelining: bool, **settings: str) -> Result:
        """``ansible`` or ``ansible-playbook``."""
        program = Path(sys.executable).with_name(name)
        assert program.exists(), f"no {name} on this machine: run tests/prepare"
        env = self.env | {"ANSIBLE_PIPELINING": str(pipelining), **settings}
        return await run(program, "-i", self.inventory, *arguments, env=env, within=3 * MINUTES)

    def masters(self) -> list[Path]:
        """The connections that wait for the next run."""
        return sorted(self.sockets.glob("*"))

    async def close(self) -> None:
        """End them, and not a minute later."""
        for socket in self.masters():
            await self.client.ssh("-o", f"ControlPath={socket}", "-O", "exit", "web1")

    async def events(self, *, connections: int = 1) -> list[Event]:
        """What the audit has of all of it, once it is over."""

        def look() -> list[Event] | None:
            events = self.house.proxy.audit()[self.past :]
            gone = [event for event in events if event["event"] == "client.disconnect"]
            return events if len(gone) == connections else None

        await self.close()
        return await fact(look, lambda: f"not {connections} connections ended:\n{self.house.proxy.log}")


def controller(
    house: House, method: AccessMethod, tmp_path: Path, hosts: Sequence[str] = ("web1",)
) -> Control:
    """All ``hosts`` are the same target, each by a connection of its own."""
    client = house.client(method)
    sockets = house.stage.short / house.stage.unique("cp")
    lines = [f"{host} ansible_host=web1 ansible_control_path={sockets}/{host}" for host in hosts]
    jump = " ".join((*client.options, "-J", "proxy"))
    lines += [
        "[all:vars]",
        f"ansible_ssh_common_args='{jump}'",
        f"ansible_python_interpreter={sys.executable}",
    ]
    if not method.agent:
        lines.append(f"ansible_ssh_private_key_file={house.keyless.key.path}")
    env = client.env | {
        "HOME": str(tmp_path),
        "ANSIBLE_CONFIG": str(house.stage.file("ansible.cfg", "")),  # not /etc's
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets),
        "ANSIBLE_NOCOLOR": "1",
        # Otherwise it kills a worker that has not quite ended, with its process group: in that is the ssh of
        # -J, without which the connection that should wait for the next run is gone.
        "ANSIBLE_WORKER_SHUTDOWN_POLL_COUNT": "600",
    }
    control = Control(
        house=house,
        client=client,
        inventory=house.stage.file(house.stage.unique("inventory"), "\n".join(lines) + "\n"),
        sockets=sockets,
        env=env,
        past=len(house.proxy.audit()),
    )
    house.stage.at_end(control.close)
    return control


def named(events: Sequence[Event], name: str) -> list[Event]:
    return [event for event in events if event["event"] == name]


def recorded(house: House, events: Sequence[Event]) -> None:
    """Each session has ended, and has a recording that is complete and says how."""
    ends = {end["sid"]: end for end in named(events, "session.end")}
    assert ends
    assert {start["sid"] for start in named(events, "session.start")} == set(ends)
    for sid, end in ends.items():
        recording = read_cast(Path(str(end["recording"])))
        assert recording.sid == sid
        assert recording.manifest is not None
        assert recording.manifest["exit"] == {"status": end["exit_status"]}
    for event in (*named(events, "exec"), *named(events, "subsystem")):
        assert event["sid"] in ends


@pytest.mark.parametrize(
    "method", [AccessMethod.INNER_AGENT, AccessMethod.CERTIFICATE], ids=lambda method: method.name
)
@PIPELINING
async def test_pings_target(house: House, method: AccessMethod, pipelining: bool, tmp_path: Path) -> None:
    control = controller(house, method, tmp_path)
    for _ in range(2):
        result = await control.ansible("ansible", "all", "-m", "ping", pipelining=pipelining)
        assert (result.code, '"ping": "pong"' in result.text) == (0, True), str(result)
    assert control.masters(), "it waits for a third run"
    events = await control.events()
    stages = [login["stage"] for login in named(events, "user.login")]
    assert stages == ["outer", "inner"], "once for both runs"
    recorded(house, events)
    commands = named(events, "exec")
    if pipelining:
        assert [event["tty"] for event in commands] == [False, False]
        for end in named(events, "session.end"):
            assert isinstance(end["stdin"], int)
            assert end["stdin"] > 50_000, "the module came over stdin"
    else:
        modules = [event for event in commands if event["tty"]]
        assert len(modules) == 2
        for event in modules:
            assert "AnsiballZ_ping.py" in str(event["command"])
            (end,) = [end for end in named(events, "session.end") if end["sid"] == event["sid"]]
            assert '"ping": "pong"' in read_cast(Path(str(end["recording"]))).text()
        assert [event["name"] for event in named(events, "subsystem")] == ["sftp", "sftp"]


@pytest.mark.parametrize(
    ("method", "pipelining"),
    [("sftp", False), ("scp", False), ("piped", False), ("sftp", True)],
    ids=["sftp", "scp", "piped", "pipelining"],
)
async def test_copies_and_fetches_large_file(
    house: House, method: str, pipelining: bool, tmp_path: Path
) -> None:
    """A file that is larger than a window, there and back."""
    control = controller(house, AccessMethod.INNER_AGENT, tmp_path)
    here, there, back = (tmp_path / name for name in ("it's here", "there", "back"))
    here.write_bytes(os.urandom(3_000_001))
    settings = {"ANSIBLE_SSH_TRANSFER_METHOD": method, "ANSIBLE_SCP_EXTRA_ARGS": "-O"}
    for module, words, changes in (
        ("copy", f'src="{here}" dest="{there}" mode=0640', "CHANGED"),
        ("fetch", f'src="{there}" dest="{back}" flat=yes', "CHANGED"),
    ):
        result = await control.ansible(
            "ansible", "all", "-m", module, "-a", words, pipelining=pipelining, **settings
        )
        assert (result.code, f"web1 | {changes}" in result.text) == (0, True), str(result)
    assert here.read_bytes() == there.read_bytes() == back.read_bytes()
    assert there.stat().st_mode & 0o777 == 0o640
    events = await control.events()
    recorded(house, events)
    ends = named(events, "session.end")
    for stream in ("stdin", "stdout"):
        sizes = [end[stream] for end in ends]
        assert any(isinstance(size, int) and size > 3_000_000 for size in sizes), f"{stream}: {sizes}"
    assert bool(named(events, "subsystem")) == (method == "sftp")


@PIPELINING
async def test_runs_playbook_on_two_hosts(house: House, pipelining: bool, tmp_path: Path) -> None:
    """Two hosts at once; in the middle each closes its connection and opens another."""
    hosts = ("one", "two")
    control = controller(house, AccessMethod.CERTIFICATE, tmp_path, hosts)
    script = house.stage.file(house.stage.unique("script"), '#!/bin/sh\necho "script $1"\n')
    text = PLAYBOOK.replace("THERE", str(tmp_path)).replace("SCRIPT", str(script))
    playbook = house.stage.file(house.stage.unique("playbook.yml"), text)
    result = await control.ansible("ansible-playbook", playbook, pipelining=pipelining)
    assert result.code == 0, str(result)
    for host in hosts:
        for name in ("copied", "fetched"):
            assert (tmp_path / host / name).read_text() == "3\nh\u00e9llo \u65e5\u672c\n"
        assert (tmp_path / host).stat().st_mode & 0o777 == 0o750
    assert [path.name for path in control.masters()] == sorted(hosts)
    events = await control.events(connections=4)
    assert len([login for login in named(events, "user.login") if login["stage"] == "inner"]) == 4
    recorded(house, events)
    assert len([event for event in named(events, "exec") if event["command"] == "echo raw; exit 4"]) == 2
    statuses = Counter(end["exit_status"] for end in named(events, "session.end"))
    del statuses[0]
    assert statuses == {4: 2, 1: 2}, "raw's own, and that of a module whose command failed"


async def test_shows_refusal_and_keeps_no_refused_connection(house: House, tmp_path: Path) -> None:
    """The user reads why where Ansible shows it; and what is good for nothing does not persist."""
    control = controller(house, AccessMethod.INNER_AGENT, tmp_path)
    result = await control.ansible("ansible", "all", "-u", "nobody", "-m", "ping", pipelining=True)
    assert (result.code, "web1 | UNREACHABLE!" in result.text) == (4, True), str(result)
    line = (
        f"conchrec: joe may not log in as nobody on localhost:{house.target.port} (role ops allows: {LOGIN})"
    )
    assert line in result.text, str(result)
    await fact(lambda: not control.masters(), "the proxy ends it, by itself")
    events = await control.events()
    assert not named(events, "session.start")
    (rejected,) = named(events, "session.rejected")
    assert rejected["login"] == "nobody"
