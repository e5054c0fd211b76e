"""The administrator's guide, followed step by step on loopback, with the blocks that the page shows, and then
the commands of the guides for users and auditors.

Programs that need a server of its own (systemctl, chown, ssh-keyscan on port 22) are small scripts here,
first on the PATH. Everything else is what the page says: conchrec, ssh, scp, and sshd as the target.
"""

from __future__ import annotations

import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.agent import Agent
from tests.support.keys import Key
from tests.support.pages import Page
from tests.support.process import PATH, Result, program, run
from tests.support.proxy import ROOT, Proxy, our_environment
from tests.support.sshd import LOGIN, Sshd
from tests.support.stage import Stage
from tests.support.wait import fact

GUIDE = Page(ROOT / "docs" / "guides" / "administrator.md")
USER = Page(ROOT / "docs" / "guides" / "user.md")
AUDITOR = Page(ROOT / "docs" / "guides" / "auditor.md")


@dataclass(kw_only=True)
class Machines:
    """The proxy, a target and the users' machines of the guide, in one directory."""

    stage: Stage
    proxy: Proxy
    target: Sshd
    etc: Path
    """The proxy's /etc/conchrec, where the commands run."""
    target_etc: Path
    """The target's /etc/ssh."""
    scripts: Path

    def text(self, block: str) -> str:
        """A block of the guide with the paths, names and ports of this test."""
        state, log = self.etc.parent / "state", self.etc.parent / "log"
        for old, new in (
            ("/etc/conchrec", str(self.etc)),
            ("/var/lib/conchrec", str(state)),
            ("/var/log/conchrec", str(log)),
            ("/etc/ssh", str(self.target_etc)),
            ("proxy.example.com:3023", f"127.0.0.1:{self.proxy.port}"),
            ("tcp:3023", f"tcp:{self.proxy.port}:interface=127.0.0.1"),
            ("logins: [root]", f"logins: [{LOGIN}]"),
        ):
            block = block.replace(old, new)
        return re.sub(r"\broot@(?=web1|\$host)", f"{LOGIN}@", block)

    def configure(self, block: str) -> None:
        """Write the guide's configuration. The target is on loopback, and this disk may be small."""
        text = self.text(block).replace("recordings}", "recordings, min_free: 1MiB}")
        if "cluster_name" in text:
            rule = {"hosts": ["web1.example.com"], "address": "127.0.0.1", "port": self.target.port}
            text += yaml.safe_dump({"targets": {"web": rule}})
        else:  # other users and roles
            before = self.proxy.config.read_text()
            text = re.sub(r"^users:.*?(?=^trusted_hosts)", "", before, flags=re.M | re.S) + text
        self.proxy.config.write_text(text)

    async def shell(self, block: str, *, ssh_config: Path | None = None, agent: Path | None = None) -> Result:
        """Run a block as the person who reads the guide."""
        env = our_environment() | {
            "PATH": f"{self.scripts}:{PATH}",
            "SSH_CONFIG": str(ssh_config or "none"),
            "SSH_AUTH_SOCK": str(agent or ""),
            "PYTHON": sys.executable,
            "TARGET_PORT": str(self.target.port),
            "AUDIT_FILE": str(self.proxy.audit_file),
            "PROXY_PID": str(self.proxy.process.pid if self.proxy.process else 0),
        }
        return await run("bash", "-eo", "pipefail", "-c", self.text(block), env=env, directory=self.etc)

    async def reload_target(self) -> None:
        """Let sshd read its configuration again, as the commands of the guide have requested."""
        (self.target_etc / "reloads").unlink()
        before = self.target.log.count("Server listening on")
        self.target.process.kill(signal.SIGHUP)
        await fact(lambda: self.target.log.count("Server listening on") > before, lambda: self.target.log)


SCRIPTS = {
    "conchrec": 'exec "$PYTHON" -c "from conchrec.cli.main import run; run()" "$@"',
    "sftp": f'exec {program("sftp")} -F "$SSH_CONFIG" "$@" < /dev/null',
    "ssh": f'exec {program("ssh")} -F "$SSH_CONFIG" "$@"',
    # The machine of the user and the proxy are one directory here.
    "scp": f'case "$*" in *proxy.example.com:*) exit 0;; esac; exec {program("scp")} -F "$SSH_CONFIG" "$@"',
    "ssh-keyscan": f"{program('ssh-keyscan')} -t ed25519 -p $TARGET_PORT 127.0.0.1 |"
    " sed 's/127.0.0.1/web1.example.com/'",
    "chown": "exit 0",
    # The proxy reads its configuration soon after the signal, and the guide's next step needs the new one.
    "systemctl": """[ "$*" = "reload conchrec" ] || exit 1
count() { grep -c '"event":"config.reload"' "$AUDIT_FILE"; }
before=$(count)
kill -HUP $PROXY_PID
while [ "$(count)" = "$before" ]; do sleep 0.05; done""",
}
#: The same for commands that ssh runs at the target.
AT_TARGET = {
    "sshd": "exit 0",
    # The test reloads sshd afterwards: it executes itself again, and does not listen meanwhile.
    "systemctl": '[ "$*" = "reload ssh" ] && echo >> RELOADS',
}


def write_scripts(directory: Path, scripts: dict[str, str]) -> Path:
    directory.mkdir()
    for name, line in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{line}\n")
        (directory / name).chmod(0o755)
    return directory


async def make_machines(stage: Stage, users: tuple[Key, ...]) -> Machines:
    etc, target_etc, home = (stage.path(f"{name}/x").parent for name in ("etc", "target", "home"))
    (etc.parent / "log").mkdir()
    (target_etc / "sshd_config.d").mkdir()
    host_key = await stage.key("host")
    (target_etc / "ssh_host_ed25519_key.pub").write_text(host_key.line + "\n")
    reloads = target_etc / "reloads"
    at_target = write_scripts(
        stage.path("at-target"),
        {name: line.replace("RELOADS", str(reloads)) for name, line in AT_TARGET.items()},
    )
    target = await stage.sshd(
        users=users,
        host_keys=[host_key],
        more=[f"SetEnv HOME={home} PATH={at_target}:{PATH}", f"Include {target_etc}/sshd_config.d/*.conf"],
    )
    proxy = Proxy(stage.path("unused"), {})
    proxy.config = etc / "config.yaml"
    proxy.audit_file = etc.parent / "log" / "audit.jsonl"
    proxy.recordings_directory = etc.parent / "state" / "recordings"
    stage.at_end(proxy.stop)
    scripts = write_scripts(stage.path("scripts"), SCRIPTS)
    return Machines(stage=stage, proxy=proxy, target=target, etc=etc, target_etc=target_etc, scripts=scripts)


def client_files(stage: Stage, name: str, snippet: str, key: Key) -> Path:
    """The ssh_config of a user who has pasted both parts of ``conchrec ssh-config``."""
    config, _, known = snippet.partition("# ~/.ssh/known_hosts\n")
    known_hosts = stage.file(f"{name}/known_hosts", known)
    rest = f"Host *\n    IdentityFile {key.path}\n    UserKnownHostsFile {known_hosts}\n"
    rest += "    GlobalKnownHostsFile none\n    StrictHostKeyChecking yes\n    BatchMode yes\n"
    return stage.file(f"{name}/ssh_config", config + rest)


def test_install_names_files_that_exist() -> None:
    (block,) = GUIDE.blocks_of("Install", "sh")
    sources = re.findall(r"^install -m \d+ (\S+)", block, re.MULTILINE)
    assert len(sources) == 2
    assert [name for name in sources if not (ROOT / name).exists()] == []
    unit = (ROOT / "etc" / "conchrec.service").read_text()
    for path in ("/opt/conchrec/bin/twistd", "/etc/conchrec/config.yaml", "User=conchrec"):
        assert path in unit


async def test_follows_administrators_guide(stage: Stage) -> None:
    ann, joe = await stage.key("ann"), await stage.key("joe")
    machines = await make_machines(stage, (ann, joe))
    proxy, etc = machines.proxy, machines.etc

    # Configure
    (etc / "ann.pub").write_text(ann.line + "\n")
    (configuration,) = GUIDE.blocks_of("Configure", "yaml")
    machines.configure(configuration)
    scan, check = GUIDE.blocks_of("Configure", "sh")
    assert "ED25519" in (await machines.shell(scan)).check().text
    assert (await machines.shell(check)).check().text.endswith(": ok\n")

    # Start
    await proxy.start()
    (example,) = GUIDE.blocks_of("Start", "text")
    start = re.escape(re.sub(r"^conchrec [\d.]+ listens on tcp:\d+", "", example.partition("@")[0]))
    await fact(lambda: re.search(start, proxy.log), lambda: proxy.log)

    # Your first session
    snippet, connect, look = GUIDE.blocks_of("Your first session", "sh")
    lines = (await machines.shell(snippet)).check().text
    ann_config = client_files(stage, "ann", lines, ann)
    ann_agent = await stage.agent(ann)
    answer = (await machines.shell(connect, ssh_config=ann_config, agent=ann_agent.socket)).check()
    assert "You are ann" in answer.text
    await proxy.finished_one()
    listing = (await machines.shell(look)).check().text
    assert f"ann {LOGIN}@web1.example.com" in listing

    # A second person
    (etc / "joe.pub").write_text(joe.line + "\n")
    (configuration,) = GUIDE.blocks_of("A second person", "yaml")
    machines.configure(configuration)
    reload_, snippet, connect, look = GUIDE.blocks_of("A second person", "sh")
    allowed = (await machines.shell(reload_)).check().text
    assert allowed.count("yes: joe may log in") == 1
    assert "joe: role web allows" in allowed
    lines = (await machines.shell(snippet)).check().text
    joe_config = client_files(stage, "joe", lines, joe)
    joe_agent = await stage.agent(joe)
    (await machines.shell(connect, ssh_config=joe_config, agent=joe_agent.socket)).check()
    await proxy.finished(2)
    seen = (await machines.shell(look)).check().text
    assert f"joe {LOGIN}@web1.example.com" in seen
    assert seen.count(": ok\n") == 2
    assert '"event":' in seen

    # Targets without keys of users
    export, at_target = GUIDE.blocks_of("Targets without keys of users", "sh")
    authority = (await machines.shell(export)).check().text
    (machines.target_etc / "conchrec_user_ca.pub").write_text(authority)
    path = f"PATH={stage.path('at-target')}:$PATH\n"
    (await machines.shell(path + at_target)).check()
    (machines.target.directory / "authorized_keys").write_text("")
    await machines.reload_target()
    await proxy.restart()  # it remembers that the target rejected its certificate
    result = await machines.shell(connect, ssh_config=joe_config)
    assert result.code == 0, f"{result}\n{machines.target.log}"
    await proxy.finished(3)

    # Roll-out to 300 hosts: here to two names of one
    collect, sign, distribute, try_all = GUIDE.blocks_of("Roll-out to 300 hosts", "sh")
    (host_key,) = machines.target.host_keys
    (settings,) = GUIDE.blocks_of("Roll-out to 300 hosts", "text")
    (etc / "hosts.txt").write_text("web2.example.com\nweb1.example.com\n")  # both are this target
    (etc / "conchrec.conf").write_text(machines.text(settings))
    (machines.target.directory / "authorized_keys").write_text(ann.line + "\n")
    direct = stage.file(
        "direct/ssh_config",
        f"Host web?.example.com\n    HostName 127.0.0.1\n    Port {machines.target.port}\n"
        f"    IdentityFile {ann.path}\n    BatchMode yes\n    StrictHostKeyChecking yes\n"
        f"    UserKnownHostsFile {stage.file('direct/known', host_key.known_as('web1.example.com'))}\n"
        "    GlobalKnownHostsFile none\n    HostKeyAlias web1.example.com\n",
    )
    for block in (collect, sign, distribute):
        result = (await machines.shell(block, ssh_config=direct)).check()
        assert "failed" not in result.text, str(result)
    assert (etc / "keys" / "web2.example.com-cert.pub").exists()
    await machines.reload_target()
    (etc / "known_hosts").write_text("")
    (etc / "hosts.txt").write_text("web1.example.com\n")
    (await machines.shell("systemctl reload conchrec")).check()
    tried = await machines.shell(try_all, ssh_config=joe_config)
    assert (tried.text, tried.code) == ("", 0), f"{tried}\n{proxy.log}"
    await proxy.finished(4)
    (start_event,) = proxy.audit("session.start", sid=max(proxy.sids()))
    assert str(start_event["trust"]).startswith("certificate 'web1.example.com node of example.com'")

    await serves_user(machines, joe_config, await stage.agent(joe))
    await answers_auditor(machines)


async def serves_user(machines: Machines, ssh_config: Path, agent: Agent) -> None:
    """Run the commands of the user's guide as joe."""
    files = machines.stage.path("srv/site/page").parent.parent
    (machines.etc / "release.tgz").write_text("release")
    (machines.etc / "site").mkdir()
    (machines.etc / "site" / "page").write_text("page")
    own = max(str(event["sid"]) for event in machines.proxy.audit("session.start", user="joe"))
    sections = ("Connecting", "A certificate for the day", "Your recordings")
    lines = [line for name in sections for block in USER.blocks_of(name, "sh") for line in block.splitlines()]
    outputs = {}
    for line in lines:
        command = re.sub(r"\bID\b", own, line.replace("/srv", str(files)))
        command = re.sub(r"\bweb1\b", "web1.example.com", command)
        outputs[line] = (
            (await machines.shell(command, ssh_config=ssh_config, agent=agent.socket)).check().text
        )
    assert (files / "release.tgz").read_text() == "release"
    assert (files / "site" / "page").read_text() == "page"
    assert f"joe {LOGIN}@web1.example.com" in outputs["ssh proxy recordings"]
    assert "conchrec:joe" in str(await agent.lines())


async def answers_auditor(machines: Machines) -> None:
    """Run each command of the auditor's guide on what is recorded by now."""
    heads = [
        (await machines.shell(f"conchrec {kind} verify")).check().text.rpartition("head: ")[2].strip()
        for kind in ("recordings", "audit")
    ]
    names = {
        "ID": max(machines.proxy.sids()),
        "NUMBER:DIGEST": heads[0],
        "CHAIN:SEQ:DIGEST": heads[1].partition("@")[0],
        "COPY": str(machines.proxy.recordings_directory),
        "recording_key.pub": str(machines.etc.parent / "state" / "recording_key.pub"),
        " audit.jsonl": f" {machines.proxy.audit_file}",
    }
    any_name = "|".join(rf"(?<![\w/]){re.escape(name)}\b" for name in names)
    outputs = {}
    for line in AUDITOR.shell_lines():
        command = re.sub(any_name, lambda match: names[match[0]], line)
        result = await machines.shell(command)
        # 1: nothing is found; that is an answer, too
        assert result.code == 0 or (result.code == 1 and result.errors.count("\n") <= 1), str(result)
        outputs[line] = result.text
    assert len(outputs) > 15
    assert "yes: joe may log in" in "".join(outputs.values())
    assert (machines.etc / "session.cast").exists()
