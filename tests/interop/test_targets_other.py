"""Targets that are not OpenSSH: dropbear, and servers that were made with asyncssh, paramiko and Conch."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from tests.support import speak as speaker
from tests.support.client import AccessMethod, Client
from tests.support.dropbear import start_dropbear
from tests.support.house import House, build
from tests.support.keys import all_lines
from tests.support.ports import free_port
from tests.support.process import Process, run
from tests.support.proxy import our_environment
from tests.support.stage import Stage
from tests.support.wait import block, fact

AGENT_WAYS = (AccessMethod.INNER_AGENT, AccessMethod.OUTER_AGENT, AccessMethod.SUBSYSTEM)


class Kind(Enum):
    DROPBEAR = "dropbear"
    ASYNCSSH = "asyncssh"
    PARAMIKO = "paramiko"
    CONCH = "twisted"


#: Those that know files and forwards.
FULL = pytest.mark.parametrize(
    "kind", [Kind.DROPBEAR, Kind.ASYNCSSH, Kind.CONCH], ids=lambda kind: kind.value
)


@pytest.fixture(params=list(Kind), ids=lambda kind: kind.value)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each of the servers."""
    param = request.param
    assert isinstance(param, Kind)
    return param


@dataclass(kw_only=True)
class Street:
    """A house with neighbours: a proxy, and a target of each kind that lets joe's agent in."""

    house: House
    ports: dict[Kind, int]
    servers: dict[Kind, Process]

    def client(self, kind: Kind, method: AccessMethod = AccessMethod.INNER_AGENT) -> Client:
        return self.house.client(method, port=self.ports[kind])


async def _build(stage: Stage) -> Street:
    known = ""
    ports, servers, files = {}, {}, []
    for kind in Kind:
        key, port = await stage.key("host"), free_port()
        authorized = stage.file(f"{kind.value}/authorized_keys", "")
        where = (str(port), key.path, authorized)
        if kind is Kind.DROPBEAR:
            server, authorized = await start_dropbear(stage.path("dropbear"), host_key=key, port=port)
            stage.at_end(server.stop)
        else:
            module = ["tests.support.otherservers", kind.value]
            if kind is Kind.CONCH:
                module = ["tests.support.conchserver"]
            server = stage.process(sys.executable, "-m", *module, *where, env=our_environment())
            await server.says("listening")
        known += key.known_as("localhost", port)
        ports[kind], servers[kind] = port, server
        files.append(authorized)
    trusted = {"known_hosts": [str(stage.file("known_hosts", known))]}
    allowed = {"port_forwarding": True, "forward_agent": True}
    house = await build(stage, settings={"trusted_hosts": trusted}, options=allowed)
    for file in files:
        file.write_text(all_lines((house.joe.key,)))
    with stage.path(f"{Kind.ASYNCSSH.value}/authorized_keys").open("a") as more:
        more.write(f"cert-authority {await house.proxy.authority('user')}")
    return Street(house=house, ports=ports, servers=servers)


@pytest.fixture(scope="module")
def street(shared_stage: Stage) -> Street:
    """For all tests of this file."""
    return block(_build(shared_stage))


# -- commands


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_runs_command_at_other_server(street: Street, kind: Kind, code: int) -> None:
    proxy = street.house.proxy
    before = proxy.sids()
    command = f"echo out; cat; echo err >&2; exit {code}"
    result = await street.client(kind).ssh("web1", command, stdin=b"typed\n")
    assert (result.stdout, result.stderr, result.code) == (b"out\ntyped\n", b"err\n", code), str(result)
    recording = await proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["exit"] == {"status": code}
    assert recording.header["command"] == command
    assert sorted(recording.text().splitlines()) == ["err", "out", "typed"]
    (connected,) = proxy.audit("upstream.connect", cid=recording.manifest["cid"])
    assert kind.value in str(connected["server"]).lower(), "it is the server that is meant"


@pytest.mark.parametrize("method", AGENT_WAYS, ids=lambda method: method.name.lower())
async def test_reaches_other_server_by_each_path(street: Street, kind: Kind, method: AccessMethod) -> None:
    result = await street.client(kind, method).ssh("web1", "echo there; exit 4")
    assert (result.stdout, result.stderr, result.code) == (b"there\n", b"", 4), str(result)


async def test_logs_in_at_asyncssh_with_certificate(street: Street) -> None:
    """asyncssh takes those of the user CA."""
    result = await street.client(Kind.ASYNCSSH, AccessMethod.CERTIFICATE).ssh("web1", "echo there")
    assert (result.stdout, result.stderr, result.code) == (b"there\n", b"", 0), str(result)


@pytest.mark.parametrize("kind", [Kind.DROPBEAR, Kind.PARAMIKO, Kind.CONCH], ids=lambda kind: kind.value)
async def test_tells_user_that_server_knows_no_certificates(street: Street, kind: Kind) -> None:
    """The others know of none: the user reads what to do."""
    result = await street.client(kind, AccessMethod.CERTIFICATE).ssh("web1", "echo there")
    assert (result.stdout, result.code) == (b"", 255), str(result)
    (line,) = [line for line in result.errors.splitlines() if line.startswith("conchrec: ")]
    assert line.startswith("conchrec: no agent: connect with ssh -A"), line


@pytest.mark.parametrize("kind", [Kind.DROPBEAR, Kind.ASYNCSSH, Kind.CONCH], ids=lambda kind: kind.value)
async def test_relays_death_by_signal_of_other_server(street: Street, kind: Kind) -> None:
    before = street.house.proxy.sids()
    result = await street.client(kind).ssh("web1", "echo out; kill -TERM $$")
    assert (result.stdout, result.code) == (b"out\n", 255), str(result)
    recording = await street.house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["exit"] == {"signal": "TERM"}


async def test_relays_large_data_to_other_server(street: Street, kind: Kind) -> None:
    """Windows and packets of other sizes than OpenSSH's; and the input ends, and the output goes on."""
    before = street.house.proxy.sids()
    contents = os.urandom(3_000_001)
    client = street.client(kind)
    result = await client.ssh("web1", "cat; echo after >&2", stdin=contents, within=120)
    assert (result.stdout == contents, result.stderr, result.code) == (True, b"after\n", 0), result.errors
    recording = await street.house.proxy.finished_one(after=before)
    (end,) = await street.house.proxy.audited("session.end", sid=recording.sid)
    assert (end["stdin"], end["stdout"], end["stderr"]) == (len(contents), len(contents), len(b"after\n"))


async def test_serves_ten_sessions_at_other_server(street: Street, kind: Kind) -> None:
    """None ends before all have begun: Dropbear 2022.83 closes a session that has no command yet if the
    process of another one ends (mended by https://github.com/mkj/dropbear/pull/326)."""
    proxy = street.house.proxy
    before = proxy.sids()
    client = street.client(kind)
    control = street.house.stage.short / street.house.stage.unique("control")
    shared = ("-o", f"ControlPath={control}")
    master = client.start("-N", "-M", *shared, "web1")
    await fact(lambda: control.is_socket() or not master.is_running, lambda: f"no master:\n{master}")
    contents = [os.urandom(100_000 + number) for number in range(10)]
    processes = [client.start(*shared, "web1", f"echo begun; cat; exit {number}") for number in range(10)]
    for process in processes:
        await process.says("begun\n")
    for process, data in zip(processes, contents, strict=True):
        process.write(data)
        process.close_input()
    for number, process in enumerate(processes):
        result = await process.wait()
        assert (result.stdout == b"begun\n" + contents[number], result.code) == (True, number), (
            f"{result}\n{master}\n{street.servers[kind]}\n{proxy.log}"
        )
    recordings = await proxy.finished(10, after=before)
    assert len({recording.manifest and recording.manifest["cid"] for recording in recordings}) == 1
    (await client.ssh(*shared, "-O", "exit", "web1")).check()
    await master.wait()


# -- terminals


@pytest.mark.parametrize("kind", [Kind.DROPBEAR, Kind.CONCH], ids=lambda kind: kind.value)
async def test_runs_shell_at_other_server(street: Street, kind: Kind) -> None:
    before = street.house.proxy.sids()
    process = street.client(kind).start("-q", "-tt", "web1", terminal=(97, 31))
    await process.takes_keys()
    process.write(b"stty -echo; PS1=; stty size; echo rea''dy\r")
    at = await process.says("ready\r\n")
    assert b"31 97\r\n" in process.stdout
    process.write(b"trap 'stty size' WINCH; echo trap''ped\r")
    at = await process.says("trapped\r\n", after=at)
    process.resize(120, 40)
    process.write(b"while ! stty size | grep '^40 120'; do :; done; exit 11\r")
    await process.says("40 120\r\n", after=at)
    result = await process.wait()
    assert result.code == 11, str(result)
    recording = await street.house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["kind"] == "shell"
    assert recording.manifest["exit"] == {"status": 11}
    assert (recording.header["width"], recording.header["height"]) == (97, 31)
    assert recording.listed("r") == ["120x40"]
    assert recording.text().encode() == result.stdout


async def test_records_shell_with_line_editor_of_server(street: Street) -> None:
    """asyncssh edits lines in the server: there is no terminal of the kernel's behind it."""
    before = street.house.proxy.sids()
    process = street.client(Kind.ASYNCSSH).start("-q", "-tt", "web1", terminal=(97, 31))
    at = await process.says("xterm 31 97\r\n")
    await process.takes_keys()
    process.resize(120, 40)
    at = await process.says("xterm 40 120\r\n", after=at)
    process.write(b"wordz\x7f\r")
    at = await process.says("> word\r\n", after=at)
    process.write(b"exit 11\r")
    result = await process.wait()
    assert result.code == 11, str(result)
    recording = await street.house.proxy.finished_one(after=before)
    assert recording.listed("r") == ["120x40"]
    assert recording.text().encode() == result.stdout


# -- files


@FULL
async def test_copies_files_at_other_server(street: Street, kind: Kind, tmp_path: Path) -> None:
    """By sftp, and by scp in both of its protocols (asyncssh's sftp ends without a status, which is a
    failure to scp, and Conch's does not know what scp asks first). Conch takes the names of a symbolic link
    in the draft's order, which is not that of OpenSSH's client, on a direct connection, too."""
    before = street.house.proxy.sids()
    client = street.client(kind)
    here = tmp_path / "here"
    here.write_bytes(os.urandom(1_000_001))
    here.chmod(0o640)
    protocols = (("-O",), ()) if kind is Kind.DROPBEAR else (("-O",),)
    for number, protocol in enumerate(protocols):
        there, back = tmp_path / f"there{number}", tmp_path / f"back{number}"
        scp = ("scp", *client.options, *protocol, "-q", "-p")
        (await client.program(*scp, here, f"web1:{there}")).check()
        (await client.program(*scp, f"web1:{there}", back)).check()
        assert here.read_bytes() == there.read_bytes() == back.read_bytes()
        assert there.stat().st_mode & 0o777 == 0o640
    link = "" if kind is Kind.CONCH else f'ln -s put "{tmp_path}/symbolic"\n'
    batch = street.house.stage.file(
        street.house.stage.unique("batch"),
        f'put "{here}" "{tmp_path}/put"\n{link}rename "{tmp_path}/put" '
        f'"{tmp_path}/renamed"\nget "{tmp_path}/renamed" "{tmp_path}/got"\nls -l "{tmp_path}"\n',
    )
    result = (await client.program("sftp", *client.options, "-b", batch, "web1")).check()
    assert " renamed" in result.text or "/renamed" in result.text, str(result)
    assert (tmp_path / "got").read_bytes() == here.read_bytes()
    if link:
        assert os.readlink(tmp_path / "symbolic") == "put", "not the wrong way round"
    recordings = await street.house.proxy.finished(2 * len(protocols) + 1, after=before)
    kinds = [recording.manifest and recording.manifest["kind"] for recording in recordings]
    assert kinds == ["exec"] * 2 + ["subsystem"] * (len(kinds) - 2)
    whole = {"size": 1_000_001, "sha256": hashlib.sha256(here.read_bytes()).hexdigest(), "result": "ok"}
    proxy = street.house.proxy
    copied = (("scp", "write", "there0"), ("scp", "read", "there0"), ("sftp", "write", "put"))
    for event, operation, name in (*copied, ("sftp", "read", "renamed")):
        (event_,) = proxy.audit(event, operation=operation, path=str(tmp_path / name))
        assert event_.items() >= whole.items(), event_
    if link:
        (event_,) = proxy.audit("sftp", operation="symlink", path=str(tmp_path / "symbolic"))
        assert event_["other"] == "put"
    assert proxy.audit("transfer.lost") == []


# -- forwards and the agent


@FULL
async def test_forwards_ports_at_other_server(street: Street, kind: Kind) -> None:
    """To where the target gets, and from there."""
    local, proxy = free_port(), street.house.proxy
    flags = ("-L", f"{local}:127.0.0.1:{street.house.target.port}", "-R", f"0:127.0.0.1:{proxy.port}")
    process = street.client(kind).start("-N", "-v", "-o", "ExitOnForwardFailure=yes", *flags, "web1")
    await process.says("Allocated port ")
    await process.says("remote forward success for")
    remote = int(process.stderr.decode().partition("Allocated port ")[2].split()[0])
    for port in (local, remote, local):
        result_ = await run(sys.executable, Path(speaker.__file__), "tcp", "127.0.0.1", str(port))
        assert result_.stdout == b"SSH-\n", f"{result_}\n{process}"
    await process.stop()


async def test_forwards_agent_to_other_server(street: Street) -> None:
    client = street.client(Kind.DROPBEAR)
    result = await client.ssh("web1", "ssh-add -L")
    assert result.text.splitlines() == [street.house.joe.key.line], str(result)


# -- ends


async def test_ends_session_when_other_server_is_killed(street: Street) -> None:
    """dropbear has a process for each connection: the user is told, and nothing waits for it."""
    before = street.house.proxy.sids()
    process = street.client(Kind.DROPBEAR).start("web1", "echo begun $PPID; cat; exit 5")
    await process.says("begun ")
    await fact(lambda: process.stdout.endswith(b"\n"), lambda: str(process))
    os.kill(int(process.stdout.split()[1]), 9)
    result = await process.wait()
    assert result.code == 255, str(result)
    assert f"conchrec: localhost:{street.ports[Kind.DROPBEAR]} closed the connection" in result.errors
    recording = await street.house.proxy.finished_one(after=before)
    assert recording.text() == result.text
