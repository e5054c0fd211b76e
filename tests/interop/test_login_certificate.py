"""``login``, ``sign`` and ``status``: certificates of the user's own, with stock ssh, ssh-agent and sshd."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conchrec.access.certificate_grant import PROXY_ONLY
from conchrec.access.certificate_permits import SELF_SERVICE
from conchrec.access.passwords import new_hash
from conchrec.proxy.commands.certificate import NO_AGENT
from conchrec.ssh import agent_messages as a
from conchrec.ssh.certificate import SK_ECDSA, SK_ED25519, public_line
from conchrec.ssh.wire import string
from tests.support.agent import Agent
from tests.support.client import AccessMethod, Client, Person
from tests.support.fakeagent import FakeAgent, Habit
from tests.support.house import House, build
from tests.support.keyboard import Keyboard
from tests.support.keys import Key, sign_user
from tests.support.process import Result, environment, run
from tests.support.sshd import LOGIN, Sshd
from tests.support.stage import Stage
from tests.support.wait import becomes, block, fact

OURS = "conchrec:joe"


@pytest.fixture(scope="module")
def direct(shared_stage: Stage) -> House:
    """The role lets its users have its logins."""
    options = {"direct": True, "port_forwarding": True, "max_session_ttl": "1h"}
    return block(build(shared_stage, options=options))


async def somebody(house: House, name: str = "joe") -> Person:
    """joe with an agent of this test's own."""
    return Person(name=name, key=house.joe.key, agent=await house.stage.agent(house.joe.key))


def at(person: Person) -> Agent:
    assert person.agent is not None
    return person.agent


async def log_in(house: House, person: Person, *words: str) -> Client:
    """The certificate is in the agent."""
    client = house.client(person=person)
    (await client.ssh("proxy", "login", *words)).check()
    return client


async def ours(person: Person) -> list[str]:
    """The lines of ``ssh-add -L`` that are of our making."""
    return [line for line in await at(person).lines() if line.endswith(f" conchrec:{person.name}")]


async def only_certificate(person: Person) -> str:
    """The agent forgets the key that it began with."""
    env = environment(SSH_AUTH_SOCK=str(at(person).socket))
    (await run("ssh-add", "-d", person.key.path, env=env)).check()
    (line,) = await at(person).lines()
    return line


async def shown(line: str) -> str:
    """What ssh-keygen says of a certificate."""
    env = environment(TZ="UTC")
    text = (await run("ssh-keygen", "-L", "-f", "-", stdin=line.encode() + b"\n", env=env)).check().text
    return text.removeprefix("(stdin):1:\n")


def field(text: str, name: str) -> list[str]:
    """The value on the line, or those on the lines below it."""
    match = re.search(rf"^ {{8}}{name}: (.*)\n((?: {{16}}.*\n)*)", text, re.MULTILINE)
    assert match is not None, text
    return [match[1]] if match[1] else [line.strip() for line in match[2].splitlines()]


def validity(text: str) -> tuple[datetime, datetime]:
    _, after, _, before = field(text, "Valid")[0].split()
    return datetime.fromisoformat(after), datetime.fromisoformat(before)


async def straight(house: House, person: Person, sshd: Sshd | None = None) -> Result:
    """To the target without the proxy."""
    sshd = sshd or house.target
    known = house.stage.file(house.stage.unique("known"), sshd.known_as())
    options = (
        "BatchMode=yes",
        f"UserKnownHostsFile={known}",
        "IdentityFile=none",
        "PreferredAuthentications=publickey",
    )
    words = [word for option in options for word in ("-o", option)]
    env = environment(SSH_AUTH_SOCK=str(at(person).socket))
    return await run(
        "ssh", "-F", "none", *words, "-p", str(sshd.port), f"{LOGIN}@127.0.0.1", "echo straight", env=env
    )


# --- login


async def test_adds_certificate_to_agent(house: House) -> None:
    joe = await somebody(house)
    client = house.client(person=joe)
    result = (await client.ssh("proxy", "login", "--ttl", "8h")).check()
    assert result.stderr == b""
    assert OURS in result.text and "(7h 59m left)" in result.text
    (line,) = await ours(joe)
    text = await shown(line)
    assert field(text, "Type") == ["ssh-ed25519-cert-v01@openssh.com user certificate"]
    assert field(text, "Key ID") == ['"joe"']
    assert field(text, "Principals") == ["joe"]
    assert field(text, "Extensions") == ["permit-pty", f"{SELF_SERVICE} UNKNOWN FLAG OPTION"]
    assert field(text, "Critical Options") == [f"{PROXY_ONLY} UNKNOWN FLAG OPTION"]
    after, before = validity(text)
    assert before - after == timedelta(hours=8, minutes=5)
    (event,) = await house.proxy.audited("cert.create", purpose="login", serial=field(text, "Serial")[0])
    assert (event["user"], event["key_id"], event["principals"]) == ("joe", "joe", ["joe"])
    assert event["valid_until"] == f"{before:%Y-%m-%dT%H:%M:%SZ}"
    assert str(event["key"]) in text


async def test_accepts_login_certificate_without_other_keys(house: House) -> None:
    """And no try at the target is wasted on it: it is no certificate for there."""
    joe = await somebody(house)
    client = await log_in(house, joe)
    line = await only_certificate(joe)
    before = len(house.target.log)
    result = await client.ssh("web1", "echo in")
    assert (result.stdout, result.code) == (b"in\n", 0), str(result)
    (*_, event) = house.proxy.audit("upstream.connect", user="joe")
    assert event["key"] == "certificate of the user CA"
    log = house.target.log[before:]
    assert "Certificate does not contain an authorized principal" not in log and "Failed" not in log, log
    # What it is, as the proxy saw it, is what ssh-keygen sees.
    status = (await client.ssh("proxy", "status")).check().text
    assert await shown(line) in status
    assert re.search(r"Your login is valid until .* UTC \(11h 59m left\)\.", status)
    assert f"role ops: as {LOGIN} on localhost" in status and "roles: ops" in status


async def test_issues_certificate_that_target_rejects(house: House) -> None:
    joe = await somebody(house)
    await log_in(house, joe)
    await only_certificate(joe)
    result = await straight(house, joe)
    assert (result.stdout, result.code) == (b"", 255), str(result)


async def test_issues_certificate_that_target_rejects_for_equal_names(shared_stage: Stage) -> None:
    """The user's name is the principal, and at the target an account has that name."""
    house = await build(shared_stage, options={"source": ["127.0.0.0/8"]})
    user = {"authorized_keys": [house.ann.key.line], "roles": ["ops"]}
    house.proxy.configure({"users": {LOGIN: user}})
    await house.proxy.restart()
    agent = await house.stage.agent(house.ann.key)
    same = Person(name=LOGIN, key=house.ann.key, agent=agent)
    client = await log_in(house, same)
    line = await only_certificate(same)
    text = await shown(line)
    assert field(text, "Principals") == [LOGIN]
    assert field(text, "Critical Options") == [
        f"{PROXY_ONLY} UNKNOWN FLAG OPTION",
        "source-address 127.0.0.0/8",
    ]
    result = await straight(house, same)
    assert (result.stdout, result.code) == (b"", 255), str(result)
    (await client.ssh("web1", "true")).check()
    await house.proxy.stop()


async def test_logs_in_with_certificate_after_one_password(shared_stage: Stage) -> None:
    """It is asked for once; from then on the certificate comes in, and leads on."""
    users = {"pat": {"password": new_hash("correct horse", 10), "roles": ["ops"]}}
    house = await build(shared_stage, settings={"users": users})
    agent = await house.stage.agent()
    pat = Person(name="pat", key=house.joe.key, agent=agent)
    asking = house.client(person=pat, more="BatchMode no\nPreferredAuthentications keyboard-interactive")
    keyboard = Keyboard(house.stage.path(house.stage.unique("keyboard")), "correct horse")
    asking.env |= keyboard.env
    (await asking.ssh("proxy", "login", "--ttl", "8h")).check()
    assert len(keyboard.prompts) == 1
    (line,) = await ours(pat)
    client = house.client(person=pat)
    assert await shown(line) in (await client.ssh("proxy", "status")).check().text
    assert (await client.ssh("web1", "echo in")).check().text == "in\n"
    await house.proxy.stop()


async def test_adds_certificate_over_direct_connection(direct: House) -> None:
    joe = await somebody(direct)
    client = direct.client(person=joe)
    result = (await client.ssh("proxy", "login", "--ttl=8h")).check()
    assert f"unrecorded, as {LOGIN}." in result.text
    text = await shown(await only_certificate(joe))
    assert field(text, "Principals") == ["joe", LOGIN]
    assert field(text, "Extensions")[:2] == ["permit-port-forwarding", "permit-pty"]
    assert field(text, "Critical Options") == ["(none)"]
    after, before = validity(text)
    assert before - after == timedelta(hours=1, minutes=5)
    assert (await straight(direct, joe)).check().text == "straight\n"
    # Through the proxy it is a key like any other of the agent's.
    assert (await client.ssh("web1", "echo in")).check().text == "in\n"
    (*_, event) = direct.proxy.audit("upstream.connect", user="joe")
    assert event["key"] == f"agent certificate {OURS}"


async def test_issues_certificate_for_logins_of_unrecorded_targets(shared_stage: Stage) -> None:
    """``node``: the user's own client logs in at the target, with the certificate."""
    house = await build(shared_stage, settings={"session_recording": "node"})
    joe = await somebody(house)
    client = house.client(person=joe, authority=house.authority + house.target.known_as())
    (await client.ssh("proxy", "login")).check()
    await only_certificate(joe)
    assert (await client.ssh("web1", "echo in")).check().text == "in\n"
    await house.proxy.stop()


async def test_replaces_certificate_of_earlier_login(house: House) -> None:
    joe = await somebody(house)
    stranger = await sign_user(
        await house.stage.key("authority"), Key(path=(await house.stage.key()).path), "joe", "joe"
    )
    # By another authority, whatever it is called: not ours to take away.
    renamed = house.stage.path(OURS)
    renamed.write_bytes(stranger.path.read_bytes())
    env = environment(SSH_AUTH_SOCK=str(at(joe).socket))
    (await run("ssh-keygen", "-q", "-c", "-C", OURS, "-P", "", "-f", stranger.path)).check()
    assert stranger.certificate is not None
    words = stranger.certificate.read_text().split()
    stranger.certificate.write_text(f"{words[0]} {words[1]} {OURS}\n")
    (await run("ssh-add", stranger.path, env=env)).check()
    before = await at(joe).lines()
    await log_in(house, joe)
    first = set(await at(joe).lines()) - set(before)
    assert len(first) == 1
    await log_in(house, joe)
    second = set(await at(joe).lines()) - set(before)
    assert len(second) == 1
    assert first != second
    assert set(before) < set(await at(joe).lines())


async def test_removes_certificate_from_agent_when_it_expires(house: House) -> None:
    joe = await somebody(house)
    for ttl in (3, 6, 12, 24):
        await log_in(house, joe, "--ttl", f"{ttl}s")
        if listed := await ours(joe):
            break  # otherwise it has expired before we asked
    assert len(listed) == 1
    await becomes(lambda: ours(joe), [], "the agent does not forget it")
    assert len(await at(joe).lines()) == 1


async def test_refuses_certificate_for_login_by_certificate(house: House) -> None:
    """It would outlive what is done to the first one, or to the key that that was made with."""
    joe = await somebody(house)
    client = await log_in(house, joe, "--ttl", "1h")
    first = await only_certificate(joe)
    for command, stdin in (("login", b""), ("sign", house.ann.key.line.encode())):
        refused = await client.ssh("proxy", command, stdin=stdin)
        assert (refused.code, refused.stdout) == (1, b""), str(refused)
        assert "you logged in with a certificate" in refused.errors, str(refused)
    assert await ours(joe) == [first]


async def test_adds_certificate_over_shared_connection(house: House) -> None:
    """ControlMaster: the agent is announced on one session channel, and the command comes on another."""
    joe = await somebody(house)
    path = house.stage.short / house.stage.unique("master")
    client = house.client(person=joe, more=f"ControlPath {path}\n")
    master = client.start("-M", "-N", "proxy", stdin=b"")
    await fact(path.exists, lambda: f"no master: {master}")
    (await client.ssh("proxy", "login")).check()
    assert len(await ours(joe)) == 1
    (await client.ssh("-O", "exit", "proxy")).check()


async def test_fails_over_shared_connection_without_agent_forwarding(house: House) -> None:
    joe = await somebody(house)
    path = house.stage.short / house.stage.unique("master")
    client = house.client(person=joe, more=f"ControlPath {path}\n")
    master = client.start("-a", "-M", "-N", "proxy", stdin=b"")
    await fact(path.exists, lambda: f"no master: {master}")
    result = await client.ssh("proxy", "login")
    assert (result.stdout, result.code) == (b"", 1), str(result)
    assert result.errors == f"conchrec: {NO_AGENT}\n"
    (await client.ssh("-O", "exit", "proxy")).check()


async def test_shows_certificate_in_agent_as_unused(house: House) -> None:
    """joe came with his key: the certificate is there, and not in use."""
    joe = await somebody(house)
    client = await log_in(house, joe, "--ttl", "2h")
    (line,) = await ours(joe)
    status = (await client.ssh("proxy", "status")).check().text
    assert "You logged in with the key SHA256:" in status and "In your agent, valid until" in status
    assert await shown(line) in status


async def test_adds_certificate_on_terminal(house: House) -> None:
    joe = await somebody(house)
    process = house.client(person=joe).start("-t", "proxy", "login", terminal=(80, 24))
    result = await process.wait()
    assert result.code == 0, str(result)
    assert b"valid until" in result.stdout
    assert len(await ours(joe)) == 1


# --- where it can't be


async def test_fails_without_agent(house: House) -> None:
    for person, arguments in ((house.joe, ()), (house.keyless, ("-T",)), (house.keyless, ("-A",))):
        client = house.client(AccessMethod.CERTIFICATE, person=person)
        result = await client.ssh(*arguments, "proxy", "login")
        assert (result.stdout, result.code) == (b"", 1), str(result)
        assert result.errors == f"conchrec: {NO_AGENT}\n"


@pytest.mark.parametrize("habit", [Habit.REFUSES, Habit.DROPS_CERTIFICATE, Habit.FORGETS])
async def test_fails_when_agent_rejects_certificates(house: House, habit: Habit) -> None:
    fake = FakeAgent(house.stage, habit)
    result = await _with(house, fake.socket).ssh("proxy", "login")
    assert (result.stdout, result.code) == (b"", 1), str(result)
    (line,) = result.errors.splitlines()
    assert line.startswith(
        "conchrec: your agent did not accept the certificate. GNOME Keyring and gpg-agent cannot hold"
    )
    assert "OpenSSH's ssh-agent" in line and "`sign`" in line
    assert a.ADD_ID_CONSTRAINED in fake.requests
    assert fake.keys == []


PINENTRY = """#!/bin/sh
echo OK
while read command rest; do
    case $command in
        GETPIN) echo "D secret"; echo OK ;;
        BYE) echo OK; exit ;;
        *) echo OK ;;
    esac
done
"""


async def test_explains_failure_of_gpg_agent(house: House) -> None:
    """It asks for a passphrase, drops the certificate, keeps the key for good, and says that all is well."""
    stage = house.stage
    home = stage.short / "gpg"
    home.mkdir(mode=0o700)
    pinentry = stage.file("pinentry", PINENTRY)
    pinentry.chmod(0o700)
    words = ("--homedir", home, "--daemon", "--enable-ssh-support", "--pinentry-program", pinentry, "--")
    gpg = stage.process("gpg-agent", *words, "sh", "-c", "echo ready; exec cat", stdin=None)
    await gpg.says("ready")
    client = _with(house, home / "S.gpg-agent.ssh")
    result = await client.ssh("proxy", "login")
    assert (result.stdout, result.code) == (b"", 1), str(result)
    (line,) = result.errors.splitlines()
    assert line.startswith("conchrec: your agent did not accept the certificate")
    kept = re.search(r"\. It kept the key (SHA256:\S+), which has no use", line)
    assert kept is not None, line
    assert kept[1].encode() in (await client.program("ssh-add", "-l")).check().stdout


def _with(house: House, socket: Path) -> Client:
    """joe with his key in a file, and this agent forwarded."""
    client = house.client(AccessMethod.CERTIFICATE, more="IdentitiesOnly yes\nForwardAgent yes\n")
    client.env["SSH_AUTH_SOCK"] = str(socket)
    return client


async def test_fails_with_locked_agent(house: House, tmp_path: Path) -> None:
    agent = await house.stage.agent()
    askpass = house.stage.file("askpass", "#!/bin/sh\necho secret\n")
    askpass.chmod(0o700)
    env = environment(SSH_AUTH_SOCK=str(agent.socket), SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    (await run("ssh-add", "-x", env=env)).check()
    client = _with(house, agent.socket)
    result = await client.ssh("proxy", "login")
    assert (result.stdout, result.code) == (b"", 1), str(result)
    assert "unlock it (ssh-add -X) if it is locked" in result.errors


async def test_releases_login_when_user_disconnects(house: House) -> None:
    """The agent never answers, or no key comes; the user gives up. Nothing is left of it."""
    fake = FakeAgent(house.stage, Habit.SILENT)
    await house.proxy.deserted()
    before, logins = house.proxy.open_files(), len(house.proxy.audit("user.login"))
    waiting = house.client(person=house.joe).start("proxy", "sign")
    waiting.write(b"ssh-ed25519 ")
    await house.proxy.audited("user.login", count=logins + 1)
    waiting.kill()
    await waiting.wait()
    process = _with(house, fake.socket).start("proxy", "login", stdin=b"")
    await fact(lambda: a.ADD_ID_CONSTRAINED in fake.requests, lambda: f"the agent is not asked: {process}")
    process.kill()
    await process.wait()
    await house.proxy.deserted()
    await fact(lambda: house.proxy.open_files() <= before, "its connection stays")
    assert "Traceback" not in house.proxy.log and "Unhandled" not in house.proxy.log


# --- sign


def hardware_keys() -> dict[str, bytes]:
    """Public keys of security keys, as `ssh-keygen -t ed25519-sk` makes them (PROTOCOL.u2f)."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {
        "ed25519-sk": string(SK_ED25519) + string(bytes(range(32))) + string(b"ssh:"),
        "ecdsa-sk": string(SK_ECDSA) + string(b"nistp256") + string(encoded) + string(b"ssh:"),
    }


async def signed(house: House, public: Path, *words: str) -> str:
    result = (await house.client(person=house.joe).ssh("proxy", "sign", *words, stdin=public)).check()
    assert result.stderr == b""
    (line,) = result.text.splitlines()
    return line


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_signs_public_key(house: House, kind: str) -> None:
    """The certificate logs in, with the key in its file."""
    key = await house.stage.key("mine", kind)
    line = await signed(house, key.public, "--ttl", "30m")
    certificate = key.path.with_name(key.path.name + "-cert.pub")
    certificate.write_text(line + "\n")
    text = await shown(line)
    assert field(text, "Principals") == ["joe"]
    after, before = validity(text)
    assert before - after == timedelta(minutes=35)
    assert await house.proxy.audited("cert.create", purpose="sign", serial=field(text, "Serial")[0])
    mine = Person(name="joe", key=Key(path=key.path, certificate=certificate))
    client = house.client(AccessMethod.CERTIFICATE, person=mine)
    client.config.write_text(f"CertificateFile {certificate}\n" + client.config.read_text())
    assert (await client.ssh("web1", "echo in")).check().text == "in\n"


@pytest.mark.parametrize("kind", ["ed25519-sk", "ecdsa-sk"])
async def test_signs_hardware_key(house: House, kind: str) -> None:
    public = house.stage.file(f"{kind}.pub", f"{public_line(hardware_keys()[kind])} token\r\n")
    text = await shown(await signed(house, public))
    assert field(text, "Type")[0].startswith("sk-")
    assert field(text, "Public key")[0].startswith(f"{kind.upper()}-CERT SHA256:")


INVALID = "invalid public key on standard input"


async def test_refuses_invalid_public_keys(house: House) -> None:
    stage = house.stage
    key, small = await stage.key(), stage.path("small")
    certified = await sign_user(await stage.key("authority"), await stage.key(), "joe", "joe")
    assert certified.certificate is not None
    (await run("ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", small)).check()
    client = house.client(person=house.joe)
    for stdin, why in (
        (b"", "expected one public key on standard input, got 0: use sign < key.pub"),
        (b"\xff\x00", "invalid public key on standard input: must be one line like ssh-ed25519 AAAA\u2026 "),
        (b"what\x1b[2J is this\n", "invalid public key on standard input"),
        (key.path.read_bytes(), f"{INVALID}: this is a private key"),
        (f"{key.line}\n{key.line}\n".encode(), "expected one public key on standard input, got 2"),
        (f'from="10.0.0.1" {key.line}\n'.encode(), "invalid public key on standard input"),
        (certified.certificate.read_bytes(), f"{INVALID}: this is a certificate"),
        (Path(f"{small}.pub").read_bytes(), f"{INVALID}: an RSA key of 1024 bits is not accepted"),
        (b"x" * 70_000, "standard input is too long: at most 64 KiB"),
    ):
        result = await client.ssh("proxy", "sign", stdin=stdin)
        assert (result.stdout, result.code) == (b"", 1), str(result)
        (line,) = result.errors.splitlines()
        assert line.startswith(f"conchrec: {why}"), line
        assert line.isprintable()


async def test_limits_length_of_stdin(house: House) -> None:
    process = house.client(person=house.joe).start("proxy", "sign")
    process.write(b"x" * 70_000)
    result = await process.wait()
    line = "conchrec: standard input is too long: at most 64 KiB\n"
    assert (result.code, result.errors) == (1, line), str(result)


async def test_rejects_wrong_usage(house: House) -> None:
    client = house.client(person=house.joe)
    for words in (
        ("login", "8h"),
        ("login", "--ttl"),
        ("login", "--ttl", "8"),
        ("login", "--ttl", "1h", "2h"),
        ("sign", "--ttl=never"),
        ("status", "--ttl", "8h"),
        ("logni",),
        ("'",),
        ("x" * 5000,),
    ):
        result = await client.ssh("proxy", *words)
        assert (result.stdout, result.code) == (b"", 64), str(result)
        (line,) = result.errors.splitlines()
        assert line.startswith("conchrec: ")
