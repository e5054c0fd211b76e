"""The embedded default: its starter logs in with their own key, and reaches the hosts that they know."""

from __future__ import annotations

import re

from tests.support.client import AccessMethod, Person, make_client
from tests.support.proxy import ROOT, Proxy
from tests.support.sshd import LOGIN
from tests.support.stage import Stage


async def test_accepts_own_key_and_known_hosts_of_starter(stage: Stage) -> None:
    key, stranger = await stage.key("id"), await stage.key("stranger")
    target = await stage.sshd(users=[key])
    home = stage.path("home/.ssh/known_hosts").parent
    (home / "id_ed25519.pub").write_text(key.line + "\n")
    (home / "known_hosts").write_text(target.known_as())

    proxy = Proxy(stage.path("unused"), {})
    text = (ROOT / "etc" / "quickstart.yaml").read_text()
    assert text.count("127.0.0.1:3023") == text.count("tcp:3023:interface=127.0.0.1") == 1
    proxy.config = stage.file("etc/quickstart.yaml", text.replace("3023", str(proxy.port)))
    proxy.env["HOME"] = str(home.parent)
    proxy.recordings_directory = stage.directory / "var" / "recordings"
    proxy.audit_file = stage.directory / "var" / "audit.jsonl"
    stage.at_end(proxy.stop)

    snippet = (await proxy.command("ssh-config")).check().text
    assert f"HostName 127.0.0.1\n    Port {proxy.port}\n    User {LOGIN}\n" in snippet
    line = re.search("^@cert-authority .*$", snippet, flags=re.MULTILINE)
    assert line is not None
    await proxy.start()

    me = Person(name=LOGIN, key=key, agent=await stage.agent(key))
    client = make_client(stage, proxy, target, me, AccessMethod.OUTER_AGENT, authority=line[0] + "\n")
    result = await client.ssh("web1", "echo hello; exit 3")
    assert (result.stdout, result.code) == (b"hello\n", 3), str(result)
    recording = await proxy.finished_one()
    assert recording.text() == "hello\n"
    assert recording.path.is_relative_to(stage.directory / "var" / "recordings")

    other = Person(name=LOGIN, key=stranger, agent=await stage.agent(stranger))
    refused = await make_client(
        stage, proxy, target, other, AccessMethod.OUTER_AGENT, authority=line[0] + "\n"
    ).ssh("web1", "true")
    assert refused.code == 255
    assert "Permission denied" in refused.errors
