"""The composition root: creates all objects of the service from a Config."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from conchrec import __version__
from conchrec.access.lock_file import Locks
from conchrec.audit import events
from conchrec.audit.open import open_log
from conchrec.audit.throttle import AuditThrottle
from conchrec.clock import utc_now
from conchrec.config.model import Config
from conchrec.disk_space import Disks, Volume
from conchrec.keys import SIGNING_KEY, open_authority, open_signer, public_signing_key
from conchrec.ownership import act_as, foreign_owner
from conchrec.proxy.approvals import Approvals
from conchrec.proxy.commands.reading_queue import ReadingQueue
from conchrec.proxy.context import CertificateRejections, ProxyContext, Services
from conchrec.proxy.dial import resolver
from conchrec.proxy.dial.bandwidth import Bandwidth
from conchrec.proxy.dial.dialer import Dialer
from conchrec.proxy.outer.factory import OuterFactory
from conchrec.proxy.refusals import PROXY_STOPPING
from conchrec.proxy.session_rate import SessionRate
from conchrec.proxy.tunnel_memory import TunnelMemory
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.catalogue.indexer import Indexer
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.evidence.heads import HeadFile
from conchrec.recording.recovery import Recovered
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.store import LocalStore
from conchrec.service import freed_memory, prune, state_watch, watch
from conchrec.service.freed_memory import FreedMemory, return_memory
from conchrec.service.garbage import bound_collections
from conchrec.service.listen import arguments_of, listener
from conchrec.service.notify import ServiceNotifier
from conchrec.service.pools import Pools
from conchrec.service.process import (
    keep_freed_memory,
    keep_secrets,
    raise_file_limit,
    share_lock_often,
)
from conchrec.service.prune import Pruner
from conchrec.service.reload import Reloader
from conchrec.service.settings import SettingsBuilder
from conchrec.service.state_watch import StateWatch
from conchrec.service.target_trust import TargetTrust
from conchrec.service.watch import LedgerWatch
from conchrec.ssh.fair_turns import TurnScheduler
from conchrec.ssh.kex_helper import KeyExchangeHelper
from conchrec.text import count_of
from conchrec.web import export

_log = Logger()
T = TypeVar("T")

#: How long a stop waits until the last messages have reached the users.
GRACE_SECONDS = 1.0
#: How many recovered recordings are audited in one turn of the reactor.
RECOVERED_AT_ONCE = 20


class Proxy(MultiService):
    """The proxy as a service. Raises ConchrecError or OSError where it cannot start.

    ``reactor`` is Twisted's; no module below this one uses the global one.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        pools: Pools | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._config = config
        self._reactor = reactor
        keep_secrets()
        raise_file_limit()
        keep_freed_memory()
        self._pools = pools or Pools(reactor)
        self._authority = open_authority(config)
        self._locks = Locks(config.state_dir, now)
        made = not public_signing_key(config.state_dir).exists()
        signer, keys = open_signer(config.state_dir, make=True)
        self._audit_log = open_log(
            config,
            signer=signer,
            dropped=lambda why: _log.error("AUDIT EVENTS DO NOT REACH SYSLOG: {why}", why=why),
            complain=lambda why: _log.error("THE HEAD OF THE AUDIT LOG IS NOT KEPT: {why}", why=why),
        )
        self._audit = AuditThrottle(
            self._audit_log, lost=lambda why: _log.error("AUDIT EVENT LOST: repeated: {why}", why=why)
        )
        self._made = (config.state_dir / SIGNING_KEY,) if made else ()
        self._finisher = Finisher(
            RecordingTree(config.recordings.directory),
            signer,
            now,
            keys=keys,
            recipients=config.recordings.encrypt_to,
            heads=HeadFile(config.state_dir),
            on_break=lambda tampering: reactor.callFromThread(self._ledger_watch.report, tampering),
        )
        self._store = LocalStore(
            finisher=self._finisher,
            clock=reactor,
            in_thread=self._pools.on_disk,
            to_seal=self._pools.in_background,
            on_sealed=lambda _: self._indexer.schedule(),
            compress=config.recordings.compress,
            min_free=config.recordings.min_free,
            policy=config.recordings.input,
            fsync=config.recordings.fsync,
        )
        self._indexer = Indexer(
            reactor, config.recordings.directory, lambda line: _log.warn("index: {line}", line=line)
        )
        self._unwritable = make_private(config.recordings.directory)
        self._trust = TargetTrust(self._authority, lambda: self.context.settings.config)
        services = Services(
            authority=self._authority,
            store=self._store,
            audit=self._audit,
            dialer=Dialer(
                reactor,
                reactor,
                handshakes=config.limits.target_handshakes,
                timeout=config.limits.connect_timeout,
            ),
            trust=self._trust.trust,
            clock=reactor,
            now=now,
            resolve=resolver.Lookups(addresses_of, self._pools.resolve),
            signing=self._signing,
            reading=ReadingQueue(reactor, self._pools.read_recordings).run,
            started=now(),
            outer_names=outer_names(config),
            certificate_rejections=CertificateRejections(reactor),
            approvals=Approvals(reactor),
            bandwidth=Bandwidth(reactor),
            disks=_disks(config),
            turns=TurnScheduler(reactor),
            kex_helper=KeyExchangeHelper(reactor),
            tunnel_memory=TunnelMemory(),
            session_rate=SessionRate(reactor),
        )
        self._settings_builder = SettingsBuilder(
            self._authority, self._locks, self._pools, reactor, now, lambda: self.context.settings
        )
        self.context = ProxyContext(self._settings_builder.build(config), services)
        self._authority.outer_host_keys(services.outer_names)
        self._state_watch = StateWatch(
            self.context, self._authority, self._locks, self._audit, self._audit_log
        )
        self._reload = Reloader(
            self.context, self._settings_builder.build, self._pools.in_background, self._reloaded
        )
        self._ledger_watch = LedgerWatch(self._finisher.ledger, self._pools.on_disk, self.context.emit)
        pruner = Pruner(self.context, self._finisher, self._pools.in_background, self._indexer.schedule)
        self._notifier = ServiceNotifier(os.environ, self._status)
        memory = FreedMemory(
            lambda: self.context.registry.connection_count, reactor.seconds, partial(return_memory, reactor)
        )
        #: The repeated checks, in this order, with their intervals in seconds.
        self._loops = (
            (LoopingCall(self._state_watch.check), state_watch.SECONDS),
            (LoopingCall(self._ledger_watch.check), watch.SECONDS),
            (LoopingCall(pruner.prune), prune.SECONDS),
            (LoopingCall(memory.check), freed_memory.SECONDS),
            (LoopingCall(self._notifier.report), self._notifier.interval),
        )
        for loop, _ in self._loops:
            loop.clock = reactor
        for description in config.listen:
            listener(
                description, OuterFactory(self.context), config.proxy_protocol_from, reactor
            ).setServiceParent(self)
        for description in config.web.listen:
            web = export.factory(self._authority, reactor)
            listener(description, web, config.proxy_protocol_from, reactor).setServiceParent(self)

    # --- life

    def privilegedStartService(self) -> None:
        """Listen. If that fails, exits with 1 and prints the address and the reason."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            where = f"{error.interface or '*'}:{error.port}" if error.port else str(error.interface)
            why = getattr(error.socketError, "strerror", None) or error.socketError
            advice = (
                ". Another program uses this port: stop it, or change listen"
                if getattr(error.socketError, "errno", None) == errno.EADDRINUSE
                else ""
            )
            raise SystemExit(f"conchrec: cannot listen on {where}: {why}{advice}") from None

    def startService(self) -> None:
        """Give up root's rights (``ownership``), which only listening may need, and start everything."""
        config = self._config
        if (owner := foreign_owner(config.state_dir)) is not None:
            act_as(owner, for_good=True)
        self._pools.start()
        for path in (*self._authority.created, *self._made):
            _log.info("created {path}", path=str(path))
        for warning in config.warnings:
            _log.warn("{warning}", warning=warning)
        if self._unwritable:
            _log.error(
                "NO SESSION CAN BE RECORDED: {directory}: {why}; sessions are refused until this is fixed",
                directory=str(config.recordings.directory),
                why=self._unwritable,
            )
        if os.geteuid() == 0:
            _log.warn(
                "running as root, which is unnecessary and dangerous; etc/conchrec.service shows how to use"
                " an account of its own"
            )
        self.context.emit(
            events.ServiceStart(
                version=__version__, mode=config.session_recording.value, listen=config.listen
            )
        )
        self._store.recover().addCallbacks(
            self._recovered, lambda failure: _log.failure("cannot recover recordings", failure=failure)
        )
        self._indexer.schedule()
        self._reactor.addSystemEventTrigger("after", "shutdown", self._close_audit)
        for loop, seconds in self._loops:
            loop.start(seconds).addErrback(lambda failure: _log.failure("a check stopped", failure=failure))
        super().startService()  # type: ignore[no-untyped-call]
        bound_collections()
        share_lock_often()
        _log.info(
            "conchrec {version} listens on {listen}; recording: {mode}; certificates: @cert-authority * {ca}",
            version=__version__,
            listen=", ".join(config.listen),
            mode=config.session_recording.value,
            ca=self._authority.host_ca_line,
        )
        self.context.services.kex_helper.start()
        self._notifier.ready()

    async def _stop(self) -> None:
        context = self.context
        self._notifier.report_stop()
        context.registry.stop()
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        await _settled(super().stopService())  # type: ignore[no-untyped-call]
        live = context.registry.connections
        for connection in live:
            connection.end_with_reason(PROXY_STOPPING)
        if live:
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(GRACE_SECONDS, pause.callback, None)
            await pause
        await self._store.shutdown(Reason(ReasonCode.PROXY_STOPPING, "the proxy was stopped"))
        await self._ledger_watch.check()
        self._indexer.stop()
        await self._settings_builder.close()
        context.services.kex_helper.stop()
        book = self._finisher.ledger
        stopped = Reason(ReasonCode.PROXY_STOPPING, "stopped")
        context.emit(events.ServiceStop(reason=stopped, ledger=str(book.path), head=book.head))
        self._pools.stop()

    def stopService(self) -> Deferred[None]:
        """End all connections and recordings. Fires when everything is written."""
        return Deferred.fromCoroutine(self._stop())

    def _recovered(self, recordings: tuple[Recovered, ...]) -> None:
        self._indexer.schedule()
        for recording in recordings[:RECOVERED_AT_ONCE]:
            self.context.emit(
                events.RecordingRecovered(
                    sid=recording.sid,
                    status=recording.manifest.status.value if recording.manifest is not None else "",
                    recording=str(self._store.path(recording.sid)),
                    problem=recording.problem,
                    head=recording.head,
                )
            )
        if rest := recordings[RECOVERED_AT_ONCE:]:
            self._reactor.callLater(0, self._recovered, rest)

    # --- while it runs

    def reload(self) -> Deferred[None]:
        """Reload the configuration (SIGHUP). With an invalid file the old one stays. Never fails."""
        self._notifier.reload_begins()
        return self._reload.request().addCallback(lambda _: self._notifier.reload_ends())

    def _status(self) -> str:
        """One line for ``systemctl status``, which every user of the machine may read: no text of the
        configuration is in it."""
        live = self.context.registry.connections
        sessions = sum(connection.session_count for connection in live)
        status = f"{count_of(len(live), 'connection')}, {count_of(sessions, 'session')}"
        if self._reload.is_refused:
            status += "; THE LAST RELOAD WAS REFUSED: see the log"
        return status

    def _reloaded(self) -> None:
        self._trust.forget()
        self._state_watch.recheck()

    def _signing(self, work: Callable[[], T], /) -> Deferred[T]:
        if self._authority.blocks:
            return self._pools.on_disk(work)
        return maybeDeferred(work)

    def _close_audit(self) -> None:
        self._audit.flush()
        self._audit_log.close()


async def _settled(stopping: Deferred[Any] | None) -> None:
    if stopping is not None:
        await stopping


def _disks(config: Config) -> Disks:
    """The file systems that we write to. Sessions require room for the audit log and the state too."""
    recordings = Volume(what="recordings", path=config.recordings.directory, least=config.recordings.min_free)
    least = config.audit.min_free
    log = Volume(what="the audit log", path=config.audit.file.parent, least=least)
    state = Volume(what="the state directory", path=config.state_dir, least=least)
    return Disks((recordings,), required=(log, state))


def addresses_of(host: str) -> tuple[str, ...]:
    """The addresses of a host; none where it cannot be resolved. Runs in a thread."""
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in answers))


def outer_names(config: Config) -> tuple[str, ...]:
    """The names by which users may reach the proxy: its public address, this host, and its interfaces.

    Clients look for the bare name. An agent that holds a destination-constrained key (``ssh-add -h``) looks
    for the name as in known_hosts, so that is included too.
    """
    names = [config.public.host] if config.public is not None else []
    ports = {config.public.port} if config.public is not None else set()
    names += [socket.gethostname().lower(), socket.getfqdn().lower(), "localhost", "127.0.0.1", "::1"]
    for description in config.listen:
        kind, arguments = arguments_of(description)
        for argument in arguments:
            if argument.startswith("interface="):
                names.append(argument.removeprefix("interface=").replace("\\", ""))
        if kind.startswith("tcp") and arguments and arguments[0].isdigit():
            ports.add(int(arguments[0]))
    bare = [name for name in dict.fromkeys(names) if name and "," not in name]
    return (*bare, *(f"[{name}]:{port}" for port in sorted(ports - {22}) for name in bare))


def make_private(directory: Path) -> str:
    """Create the directory if it is missing. Returns why it is not writable; empty where it is."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(directory, os.W_OK | os.X_OK) else "not writable"
