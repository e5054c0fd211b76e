"""``approval``: a session that somebody else has to approve, with real clients on both sides."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.interop.test_relay_forwards import speak
from tests.support.client import AccessMethod, Client, Person
from tests.support.house import House, build
from tests.support.keyboard import Keyboard
from tests.support.ports import free_port
from tests.support.process import Process, Result
from tests.support.stage import Stage
from tests.support.wait import becomes, fact
from tests.system.test_live_change import reloaded

ANSWERING = "BatchMode no\nPreferredAuthentications publickey,keyboard-interactive\nNumberOfPasswordPrompts 1"


async def at_home(stage: Stage) -> House:
    """joe needs the approval of a lead, which ann is; he is one, too, and tom is not."""
    tom = await stage.key("tom")
    house = await build(
        stage,
        options={"approval": ["lead"], "port_forwarding": True},
        settings={
            "roles": {"lead": {"logins": ["nobody"], "hosts": ["nowhere.example.com"]}},
            "users": {
                "joe": {"roles": ["ops", "lead"]},
                "ann": {"roles": ["lead"]},
                "tom": {"authorized_keys": [tom.line], "roles": ["ops"]},
            },
        },
    )
    house.stage.file("tom", str(tom.path))
    return house


class KeyboardClient:
    """joe, who is asked for a reason and gives these."""

    def __init__(self, house: House, *reasons: str) -> None:
        self.client: Client = house.client(AccessMethod.INNER_AGENT, inner=ANSWERING)
        self._keyboard = Keyboard(house.stage.path(house.stage.unique("keyboard")), *reasons)
        self.client.env |= self._keyboard.env

    @property
    def prompts(self) -> list[str]:
        return self._keyboard.prompts


async def says(house: House, *command: str, by: Person | None = None) -> Result:
    """A command of the proxy, by ann unless it is somebody else."""
    person = by or house.ann
    method = AccessMethod.INNER_AGENT if person.agent is not None else AccessMethod.CERTIFICATE
    return await house.client(method, person=person).ssh("proxy", *command)


async def pending(house: House, process: Process | None = None, count: int = 1) -> str:
    """The id of the newest request."""
    events = await house.proxy.audited("access.request", count=count)
    name = str(events[-1]["request"])
    if process is not None:
        await process.says(f"request {name} is pending. Role lead can approve it")
    return name


async def test_starts_session_when_approved(stage: Stage) -> None:
    house = await at_home(stage)
    joe = KeyboardClient(house, "disk \x1b[31mfull")
    process = joe.client.start("web1", "echo in")
    name = await pending(house, process)
    assert [question.rpartition(") ")[2] for question in joe.prompts] == [
        f"Reason for root@localhost:{house.target.port}: "
    ]
    assert not house.proxy.audit("upstream.connect")
    listed = (await says(house, "requests")).check().text
    assert listed.startswith(name) and "joe → root@localhost" in listed and "\x1b" not in listed
    own = await says(house, "approve", name, by=house.joe)
    assert own.code == 1 and "you cannot decide on your own request" in own.errors
    tom = Person(name="tom", key=type(house.ann.key)(path=Path(stage.path("tom").read_text())))
    stranger = await says(house, "approve", name, by=tom)
    assert stranger.code == 1 and f"no pending request '{name}'" in stranger.errors
    assert (await says(house, "requests", by=tom)).check().text == ""
    approved = await says(house, "approve", name.lower(), "go", "on")
    assert f"Approved {name}: joe may connect to root@localhost" in approved.check().text
    result = await process.wait()
    assert (result.code, result.stdout) == (0, b"in\n"), str(result)
    assert f"conchrec: ann approved request {name}: go on" in result.errors
    (start,) = await house.proxy.audited("session.start")
    assert (start["approved_by"], start["request"]) == ("ann", name)
    (event,) = await house.proxy.audited("access.approve", by="ann", user="joe", request=name)
    assert event["note"] == "go on"
    late = await says(house, "deny", name)
    assert late.code == 1 and f"no pending request '{name}'" in late.errors
    await recorded_provenance(house, name)


async def recorded_provenance(house: House, request: str) -> None:
    """The manifest, the header and the audit say what sshd, ssh-keygen and the clients know."""
    cast = await house.proxy.finished_one()
    manifest = json.loads((await house.proxy.command("recordings", "show", cast.sid, "--json")).check().text)
    host_keys = [fingerprint_of(key.public) for key in house.target.host_keys]
    target, login, approval = (manifest["provenance"][name] for name in ("target", "login", "approval"))
    assert target["dialled"].rpartition(":")[0].strip("[]") in ("127.0.0.1", "::1")
    assert target["dialled"].endswith(f":{house.target.port}")
    assert target["host_key"] in host_keys
    assert target["trust"] and target["target_method"] == "publickey"
    assert login["proxy_address"].endswith(f":{house.proxy.port}")
    assert (login["method"], login["key"]) == ("publickey", fingerprint_of(house.joe.key.public))
    assert approval["request"] == request
    assert (approval["approved_by"], approval["approval_note"]) == ("ann", "go on")
    assert approval["approval_reason"].startswith("disk ") and "full" in approval["approval_reason"]
    assert cast.header["conchrec"]["provenance"] == manifest["provenance"]
    (start,) = await house.proxy.audited("session.start")
    assert {**target, **login, **approval}.items() <= start.items()
    for filters in (
        ("--target", "localhost"),
        ("--target", target["dialled"]),
        ("--target", target["dialled"].rpartition(":")[0].strip("[]")),
        ("--approved-by", "ann"),
    ):
        assert cast.sid in (await house.proxy.command("recordings", "ls", *filters)).check().text
        others = (filters[0], "nobody")
        assert (await house.proxy.command("recordings", "ls", *others)).check().text == ""
    (await house.proxy.command("recordings", "rebuild-index")).check()
    assert cast.sid in (await house.proxy.command("recordings", "search", "disk")).check().text


def fingerprint_of(public: Path) -> str:
    listed = subprocess.run(["ssh-keygen", "-l", "-f", public], check=True, capture_output=True, text=True)
    return listed.stdout.split()[1]


async def test_refuses_session_when_denied_expired_or_withdrawn(stage: Stage) -> None:
    house = await at_home(stage)
    process = KeyboardClient(house, "why not").client.start("web1", "echo never")
    name = await pending(house, process)
    (await says(house, "deny", name, "not", "today")).check()
    result = await process.wait()
    assert (result.code, result.stdout) == (
        255,
        b"",
    ) and f"conchrec: ann denied request {name}: not today" in result.errors
    house.proxy.configure({"limits": {"approval_time": "2s"}})
    await reloaded(house, result="ok")
    process = KeyboardClient(house, "again").client.start("web1", "echo never")
    name = await pending(house, process, 2)
    result = await process.wait()
    assert (result.code, result.stdout) == (
        255,
        b"",
    ) and f"request {name} was not approved in time" in result.errors
    house.proxy.configure({"limits": {"approval_time": None}})
    await reloaded(house, result="ok")
    process = KeyboardClient(house, "once more").client.start("web1", "echo never")
    name = await pending(house, process, 3)
    process.kill()
    await house.proxy.audited("access.withdraw", request=name, reason_code="approval_withdrawn")
    assert (await says(house, "requests")).text == ""
    empty = await KeyboardClient(house, "", " ", "").client.ssh("web1", "echo never")
    assert "no approval was requested: you gave no reason" in empty.errors, str(empty)
    assert not house.proxy.audit("session.start") and not house.proxy.audit("upstream.connect")


async def test_uses_approval_given_in_advance_once(stage: Stage, tmp_path: Path) -> None:
    """For what can't be asked: good once, and for that place alone."""
    house = await at_home(stage)
    plain = house.client(AccessMethod.INNER_AGENT)
    target = f"root@localhost:{house.target.port}"
    refused = await plain.ssh("web1", "echo never")
    assert refused.code == 255 and f"request {target} REASON" in refused.errors, str(refused)
    result = await says(house, "request", "--no-wait", target, "a", "deploy", by=house.joe)
    assert "is pending. It can be approved by role lead." in result.check().text
    (await says(house, "approve", await pending(house))).check()
    elsewhere = await house.client(AccessMethod.INNER_AGENT, host="127.0.0.1").ssh("web1", "echo never")
    assert (elsewhere.code, elsewhere.stdout) == (255, b"")
    (tmp_path / "one").write_text("1")
    copied = await plain.program("scp", *plain.options, str(tmp_path / "one"), f"web1:{tmp_path}/two")
    copied.check()
    again = await plain.ssh("web1", "echo never")
    assert (again.code, again.stdout) == (255, b""), str(again)
    waiting = house.client(AccessMethod.INNER_AGENT).start("proxy", "request", target, "a", "forward")
    name = await pending(house, count=2)
    (await says(house, "approve", name)).check()
    assert f"ann approved request {name}. Open one connection" in (await waiting.wait()).check().text
    port = free_port()
    forward = plain.start("-v", "-N", "-L", f"{port}:127.0.0.1:{house.target.port}", "web1")
    await forward.says("Local forwarding listening on ")
    assert (await speak("tcp", "127.0.0.1", port)).stdout == b"SSH-\n"
    await forward.stop()


async def test_ends_pending_request_when_user_is_locked(stage: Stage) -> None:
    house = await at_home(stage)
    process = KeyboardClient(house, "please").client.start("web1", "echo never")
    name = await pending(house, process)
    (await house.proxy.command("lock", "--target", "localhost")).check()
    result = await process.wait()
    assert (result.code, result.stdout) == (255, b""), str(result)
    await house.proxy.audited("access.withdraw", request=name)
    await fact(lambda: not house.proxy.audit("upstream.connect"), "nobody was let in")


async def test_prints_usage_of_approval_commands(stage: Stage) -> None:
    house = await at_home(stage)
    for command in (("approve",), ("deny",), ("request",), ("request", "root@web1"), ("requests", "all")):
        assert (await says(house, *command)).code == 64
    nobody = await says(house, "request", "nobody@nowhere.example.com", "why")
    assert "requires no approval" in nobody.check().text
    never = await says(house, "request", "root@localhost", "why")
    assert never.code == 1 and "ann may not reach localhost" in never.errors


async def test_asks_new_reviewers_after_reload(stage: Stage) -> None:
    """What the lead approves is not enough any more: the boss is asked, with the reason that was given."""
    house = await at_home(stage)
    roles = {"boss": {"logins": ["nobody"], "hosts": ["nowhere.example.com"]}}
    house.proxy.configure({"roles": roles, "users": {"tom": {"roles": ["boss"]}}})
    await reloaded(house, result="ok")
    joe = KeyboardClient(house, "please")
    process = joe.client.start("web1", "echo in")
    first = await pending(house, process)
    house.proxy.configure({"roles": {"ops": {"options": {"approval": ["boss"]}}}})
    await reloaded(house, result="ok")
    await house.proxy.audited("access.withdraw", request=first, reason="another role must approve now")
    second = str((await house.proxy.audited("access.request", count=2))[-1]["request"])
    await process.says(f"request {second} is pending. Role boss can approve it")
    assert (await says(house, "approve", first)).code == 1
    assert (await says(house, "approve", second)).code == 1, "ann is a lead, and no boss"
    tom = Person(name="tom", key=type(house.ann.key)(path=Path(stage.path("tom").read_text())))
    (await says(house, "approve", second, by=tom)).check()
    assert (await process.wait()).check().stdout == b"in\n"
    assert len(joe.prompts) == 1
    again = KeyboardClient(house, "again").client.start("web1", "echo in; cat", stdin=None)
    third = str((await house.proxy.audited("access.request", count=3))[-1]["request"])
    house.proxy.configure({"roles": {"ops": {"options": {"approval": None}}}})
    await reloaded(house, result="ok")
    await again.says("in\n")
    assert not house.proxy.audit("access.approve", request=third)
    house.proxy.configure({"roles": {"ops": {"options": {"approval": ["lead"]}}}})
    await reloaded(house, result="ok")
    assert "conchrec: this access now requires an approval" in (await again.wait()).errors


async def test_keeps_advance_approval_when_inner_login_proves_no_key(stage: Stage) -> None:
    """What was approved in advance stays, where somebody comes along the tunnel without a key of joe's."""
    house = await at_home(stage)
    target = f"root@localhost:{house.target.port}"
    (await says(house, "request", "--no-wait", target, "a", "deploy", by=house.joe)).check()
    (await says(house, "approve", await pending(house))).check()
    other = house.client(
        AccessMethod.CERTIFICATE, person=house.keyless, inner_person=house.ann, inner="IdentitiesOnly yes"
    )
    refused = await other.ssh("web1", "echo never")
    assert (refused.code, refused.stdout) == (255, b""), str(refused)
    assert (await house.client(AccessMethod.INNER_AGENT).ssh("web1", "echo in")).check().stdout == b"in\n"


async def test_withdraws_advance_approval(stage: Stage) -> None:
    house = await at_home(stage)
    target = f"root@localhost:{house.target.port}"
    (await says(house, "request", "--no-wait", target, "deploy", by=house.joe)).check()
    name = await pending(house)
    (await says(house, "approve", name)).check()
    again = await says(house, "approve", name)
    assert again.code == 1 and f"request {name} was already approved by ann" in again.errors
    (await says(house, "deny", name, "too late")).check()
    await house.proxy.audited("access.deny", by="ann", request=name, note="too late")
    result = await house.client(AccessMethod.INNER_AGENT).ssh("web1", "echo never")
    assert (result.code, result.stdout) == (255, b"") and "requires an approval" in result.errors


async def test_ignores_approval_by_locked_reviewer(stage: Stage) -> None:
    house = await at_home(stage)
    target = f"root@localhost:{house.target.port}"
    (await says(house, "request", "--no-wait", target, "deploy", by=house.joe)).check()
    (await says(house, "approve", await pending(house))).check()
    (await house.proxy.command("lock", "--user", "ann")).check()
    await becomes(lambda: is_heard(house), False, "ann is not locked")
    client = house.client(AccessMethod.INNER_AGENT)
    refused = await client.ssh("web1", "echo never")
    assert refused.code == 255 and "requires an approval" in refused.errors, str(refused)
    (await house.proxy.command("unlock", "--user", "ann")).check()
    await becomes(lambda: is_heard(house), True, "ann is locked")
    assert (await client.ssh("web1", "echo in")).check().stdout == b"in\n", "it was not used"


async def is_heard(house: House) -> bool:
    """Is ann?"""
    return (await says(house, "requests")).code == 0
