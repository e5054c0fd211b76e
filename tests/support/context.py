"""A ProxyContext and a TargetAccess in memory: real objects on a fake clock, without sockets and threads."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from twisted.internet.defer import execute, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from conchrec.access.credentials import Credentials
from conchrec.access.options import SessionOptions
from conchrec.access.policy import Allow, Policy
from conchrec.audit.events import AuditSink
from conchrec.ca.authority import Authority
from conchrec.config.loader import load
from conchrec.config.model import Config
from conchrec.disk_space import Disks
from conchrec.model import Identity, Target
from conchrec.proxy.agents import AgentSource, UserAgents
from conchrec.proxy.approvals import Approvals
from conchrec.proxy.context import CertificateRejections, ProxyContext, Services, Settings
from conchrec.proxy.dial.bandwidth import Bandwidth
from conchrec.proxy.dial.dialer import Dialer
from conchrec.proxy.session_rate import SessionRate
from conchrec.proxy.target_access import Destination, OneTimeProof, Origin, TargetAccess
from conchrec.proxy.tunnel_memory import TunnelMemory
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.storage.spool import SpoolFile
from conchrec.recording.storage.spool import create as create_spool
from conchrec.recording.store import LocalStore
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.fair_turns import TurnScheduler
from conchrec.ssh.host_key_check import HostTrust
from conchrec.ssh.kex_helper import KeyExchangeHelper
from conchrec.ssh.known_hosts import KnownHosts
from tests.support.auditlog import AuditMemory

WEB1 = Target(host="web1")
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc)

CONFIG = """
cluster_name: example.com
users: {joe: {}}
roles: {ops: {logins: [root], hosts: ["*"]}}
"""


@functools.cache
def _directory() -> Path:
    """A directory for what the objects keep on disk; it goes with the process."""
    directory = tempfile.TemporaryDirectory(prefix="conchrec-test-")
    _DIRECTORIES.append(directory)
    return Path(directory.name)


_DIRECTORIES: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def memory_config() -> Config:
    """The defaults, with a user and a role."""
    file = _directory() / "config.yaml"
    file.write_text(CONFIG)
    return load(file)


@functools.cache
def _authority() -> Authority:
    return Authority.open(_directory() / "state", "example.com", now=lambda: NOON)


def memory_settings(
    *, config: Config | None = None, policy: Policy | None = None, credentials: Credentials | None = None
) -> Settings:
    """Settings with nobody's keys and passwords."""
    config = config or memory_config()
    return Settings(
        config=config,
        policy=policy or config.policy,
        algorithms=MODERN,
        credentials=credentials or Credentials(users={}, authorities=lambda: ()),
        passwords=None,
    )


def memory_context(
    *,
    clock: Clock | None = None,
    audit: AuditSink | None = None,
    now: Callable[[], datetime] | None = None,
    settings: Settings | None = None,
    store: LocalStore | None = None,
    authority: Authority | None = None,
    create: Callable[[str, int], SpoolFile] = create_spool,
) -> ProxyContext:
    """A context whose parts are real, except for the clock and the audit log. Threads are ordinary calls.

    The recordings of the default store go to a directory that tests share; ``create`` creates their files.
    """
    clock = clock or Clock()
    now = now or (lambda: NOON + timedelta(seconds=clock.seconds()))
    reactor: Any = MemoryReactorClock()
    services = Services(
        authority=authority or _authority(),
        store=store
        or LocalStore(
            finisher=Finisher(RecordingTree(_directory() / "recordings"), RecordingSigner.generate(), now),
            clock=clock,
            in_thread=execute,
            monotonic=clock.seconds,
            now=now,
            create=create,
        ),
        audit=audit or AuditMemory(),
        dialer=Dialer(reactor, clock, handshakes=8, timeout=timedelta(seconds=30)),
        trust=lambda target, addresses: HostTrust(KnownHosts.load(()), authorities=()),
        clock=clock,
        now=now,
        resolve=lambda user, host: succeed(()),
        signing=execute,
        reading=lambda user, work: execute(work),
        started=now(),
        outer_names=("proxy",),
        certificate_rejections=CertificateRejections(clock),
        approvals=Approvals(clock),
        bandwidth=Bandwidth(clock),
        disks=Disks(()),
        turns=TurnScheduler(clock),
        kex_helper=KeyExchangeHelper(reactor),
        tunnel_memory=TunnelMemory(),
        session_rate=SessionRate(clock),
    )
    return ProxyContext(settings or memory_settings(), services)


def access_to_web1(
    context: ProxyContext, identity: Identity, addresses: tuple[str, ...] = ()
) -> TargetAccess:
    """The access of a user who has reached web1 and not named a login."""
    return TargetAccess(
        context,
        Origin(
            cid="c",
            source="192.0.2.7",
            address="192.0.2.7:1",
            agents=UserAgents(outer=AgentSource("outer")),
            proofs=OneTimeProof(),
        ),
        Destination(target=WEB1, requested=WEB1, resolved=addresses, addresses=addresses),
        identity=identity,
    )


def root_at_web1(context: ProxyContext, identity: Identity, options: SessionOptions) -> TargetAccess:
    """The access of a user who may be root there, with these options."""
    access = access_to_web1(context, identity)
    access.set_login("root")
    set_options(access, options)
    return access


def set_options(access: TargetAccess, options: SessionOptions) -> None:
    """The policy is asked again, and this is what it allows now."""
    access.set_allowed(Allow(rule="ops", options=options, addresses=access.destination.addresses))
