"""The composition root: a Config becomes objects, the objects a service."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from conchrec import __version__
from conchrec.access.credentials import Credentials
from conchrec.access.lock_file import Locks
from conchrec.access.passwords import Passwords
from conchrec.access.policy import rule_for
from conchrec.access.rate_limit import Guesses
from conchrec.audit import events
from conchrec.audit.open import open_log
from conchrec.audit.throttle import AuditThrottle
from conchrec.ca.authority import Authority, CaKind
from conchrec.clock import utc_now
from conchrec.config.changes import changed, effective, waits
from conchrec.config.loader import ConfigErrors, load
from conchrec.config.model import Config, Offer
from conchrec.disk_space import Disks, Level, Volume
from conchrec.errors import ConfigError, WriteFailed
from conchrec.keys import SIGNING_KEY, open_authority, open_signer, public_signing_key
from conchrec.model import Target
from conchrec.ownership import act_as, foreign_owner
from conchrec.proxy.approvals import Approvals
from conchrec.proxy.commands.reading_queue import THREADS, ReadingQueue
from conchrec.proxy.context import ProxyContext, Refusals, Services, Settings
from conchrec.proxy.dial import resolver
from conchrec.proxy.dial.bandwidth import Bandwidth
from conchrec.proxy.dial.dialer import Dialer
from conchrec.proxy.outer.server import JumpFactory
from conchrec.proxy.password_login import AT_ONCE, PasswordLogin
from conchrec.proxy.refusals import PROXY_STOPPING
from conchrec.proxy.registry import LiveConnection
from conchrec.proxy.user_limits import SessionRate, TunnelMemory
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording import retention
from conchrec.recording.catalogue.indexer import Indexer
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.evidence.heads import HeadFile
from conchrec.recording.recovery import Recovered
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.store import LocalStore, let_others_run
from conchrec.service import watch
from conchrec.service.listen import arguments_of, listener
from conchrec.service.process import (
    keep_freed_memory,
    keep_secrets,
    knows_aes,
    raise_file_limit,
    share_lock_often,
    spare_permanent_objects,
)
from conchrec.service.watch import LedgerWatch
from conchrec.ssh.algorithms import BULK, COMPATIBLE, MODERN, Algorithms
from conchrec.ssh.certificate import Certificate
from conchrec.ssh.dh_helper import DiffieHellmanHelper
from conchrec.ssh.fair_turns import Turns
from conchrec.ssh.hostkeys import HostTrust, KnownHosts
from conchrec.web import export

_log = Logger()
T = TypeVar("T")

#: How long a stop waits for the last words to reach the users.
GRACE_SECONDS = 1.0
#: How often recordings that are too old, or too many, are removed.
PRUNE_SECONDS = 3600.0
#: Recordings that were completed at a start and are audited in one turn of the reactor.
RECOVERED_AT_ONCE = 20
#: How soon what another process has changed is noticed.
WATCH_SECONDS = 1.0


def offered(offer: Offer, *, aes: bool) -> Algorithms:
    """What our servers offer; ``aes``: the processor makes AES quicker than anything else."""
    algorithms = COMPATIBLE if offer is Offer.COMPATIBLE else MODERN
    return replace(algorithms, bulk=BULK) if aes else algorithms


class Proxy(MultiService):
    """The proxy as a service. Raises ConchrecError or OSError where it can not be.

    ``reactor`` is Twisted's; nothing below this file knows the global one.
    """

    def __init__(self, config: Config, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._config = config
        self._reactor = reactor
        keep_secrets()
        raise_file_limit()
        keep_freed_memory()
        # Names may take long to resolve, and disks to write: neither waits for the other.
        self._disk = ThreadPool(0, 4, name="disk")
        self._names = ThreadPool(0, resolver.PLACES, name="names")
        self._sealing = ThreadPool(0, 2, name="sealing")
        self._reading = ThreadPool(0, THREADS, name="reading")
        self._hashing = ThreadPool(0, AT_ONCE, name="hashing")
        self._authority = open_authority(config)
        self._locks = Locks(config.state_dir, utc_now)
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
        self._sealer = Finisher(
            RecordingTree(config.recordings.directory),
            signer,
            utc_now,
            keys=keys,
            recipients=config.recordings.encrypt_to,
            heads=HeadFile(config.state_dir),
            on_break=lambda found: reactor.callFromThread(self._ledger_watch.report, found),
        )
        self._store = LocalStore(
            sealer=self._sealer,
            clock=reactor,
            in_thread=self._on_disk,
            to_seal=self._in_background,
            on_sealed=lambda _: self._indexer.poke(),
            compress=config.recordings.compress,
            min_free=config.recordings.min_free,
            policy=config.recordings.input,
            fsync=config.recordings.fsync,
        )
        self._indexer = Indexer(
            reactor, config.recordings.directory, lambda line: _log.warn("index: {line}", line=line)
        )
        self._unwritable = make_private(config.recordings.directory)
        self._guesses: Guesses | None = None
        self._known_hosts: dict[tuple[str, ...], KnownHosts] = {}
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
            trust=self._trust,
            clock=reactor,
            now=utc_now,
            resolve=resolver.Lookups(
                addresses_of, lambda work: deferToThreadPool(self._reactor, self._names, work)
            ),
            signing=self._signing,
            reading=ReadingQueue(
                self._reactor, lambda work: deferToThreadPool(self._reactor, self._reading, work)
            ).run,
            started=utc_now(),
            outer_names=outer_names(config),
            refusals=Refusals(reactor),
            approvals=Approvals(reactor),
            bandwidth=Bandwidth(reactor),
            disks=_disks(config),
            turns=Turns(reactor),
            diffie_hellman=DiffieHellmanHelper(reactor),
            tunnel_memory=TunnelMemory(),
            session_rate=SessionRate(reactor),
        )
        self.context = ProxyContext(self._settings(), services)
        self._complaints: dict[str, str] = {}
        #: Who waits for a new configuration, and whether one is being read.
        self._reloads: list[Deferred[None]] = []
        self._reading_anew = False
        self._enforced = self._authority.revocations.current
        self._authority.outer_host_keys(self.context.services.outer_names)
        self._watching = LoopingCall(self._watch)
        self._watching.clock = reactor
        self._ledger_watch = LedgerWatch(self._sealer.ledger, self._on_disk, self.context.emit)
        self._ledger_check = LoopingCall(self._ledger_watch.check)
        self._ledger_check.clock = reactor
        self._pruning = LoopingCall(self._prune)
        self._pruning.clock = reactor
        for description in config.listen:
            listener(
                description, JumpFactory(self.context), config.proxy_protocol_from, reactor
            ).setServiceParent(self)
        for description in config.web.listen:
            web = export.factory(self._authority, reactor)
            listener(description, web, config.proxy_protocol_from, reactor).setServiceParent(self)

    # --- life

    def privilegedStartService(self) -> None:
        """Listen. Ends the process with 1, and a line that says where, if that can not be."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            where = f"{error.interface or '*'}:{error.port}" if error.port else str(error.interface)
            why = getattr(error.socketError, "strerror", None) or error.socketError
            raise SystemExit(f"conchrec: can not listen on {where}: {why}") from None

    def startService(self) -> None:
        """Root was needed to listen, if at all; the directories are their owner's (``ownership``)."""
        config = self._config
        if (owner := foreign_owner(config.state_dir)) is not None:
            act_as(owner, for_good=True)
        self._disk.start()
        self._names.start()
        self._sealing.start()
        self._reading.start()
        self._hashing.start()
        for path in (*self._authority.created, *self._made):
            _log.info("made {path}", path=str(path))
        for warning in config.warnings:
            _log.warn("{warning}", warning=warning)
        if self._unwritable:
            _log.error(
                "NO SESSION CAN BE RECORDED: {directory}: {why}; sessions are refused until this is mended",
                directory=str(config.recordings.directory),
                why=self._unwritable,
            )
        if os.geteuid() == 0:
            _log.warn(
                "running as root: not needed, and not wise; see etc/conchrec.service for a user of its own"
            )
        self.context.emit(
            events.ServiceStart(
                version=__version__, mode=config.session_recording.value, listen=config.listen
            )
        )
        self._store.recover().addCallbacks(
            self._recovered, lambda failure: _log.failure("while recordings are recovered", failure=failure)
        )
        self._indexer.poke()
        self._reactor.addSystemEventTrigger("after", "shutdown", self._close_audit)
        for loop, seconds in (
            (self._watching, WATCH_SECONDS),
            (self._ledger_check, watch.SECONDS),
            (self._pruning, PRUNE_SECONDS),
        ):
            loop.start(seconds).addErrback(lambda failure: _log.failure("in a loop", failure=failure))
        super().startService()  # type: ignore[no-untyped-call]
        spare_permanent_objects()
        share_lock_often()
        _log.info(
            "conchrec {version} listens on {listen}; recording: {mode}; certificates: @cert-authority * {ca}",
            version=__version__,
            listen=", ".join(config.listen),
            mode=config.session_recording.value,
            ca=self._authority.host_ca_line,
        )
        self.context.services.diffie_hellman.start()

    async def _stop(self) -> None:
        context = self.context
        context.registry.stop()
        if self._watching.running:
            self._watching.stop()
        if self._pruning.running:
            self._pruning.stop()
        if self._ledger_check.running:
            self._ledger_check.stop()
        await _settled(super().stopService())  # type: ignore[no-untyped-call]
        live = context.registry.connections
        for one in live:
            one.tell_and_end(PROXY_STOPPING)
        if live:
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(GRACE_SECONDS, pause.callback, None)
            await pause
        await self._store.shutdown(Reason(ReasonCode.PROXY_STOPPING, "the proxy was stopped"))
        await self._ledger_watch.check()
        self._indexer.stop()
        if self._guesses is not None:
            await self._guesses.close()
        context.services.diffie_hellman.stop()
        book = self._sealer.ledger
        stopped = Reason(ReasonCode.PROXY_STOPPING, "stopped")
        context.emit(events.ServiceStop(reason=stopped, ledger=str(book.path), head=book.head))
        self._disk.stop()
        self._names.stop()
        self._sealing.stop()
        self._reading.stop()
        self._hashing.stop()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    def _recovered(self, found: tuple[Recovered, ...]) -> None:
        self._indexer.poke()
        for one in found[:RECOVERED_AT_ONCE]:
            self.context.emit(
                events.RecordingRecovered(
                    sid=one.sid,
                    status=one.manifest.status.value if one.manifest is not None else "",
                    recording=str(self._store.path(one.sid)),
                    problem=one.problem,
                    head=one.head,
                )
            )
        if rest := found[RECOVERED_AT_ONCE:]:
            self._reactor.callLater(0, self._recovered, rest)

    # --- what others change

    def _warm(self) -> None:
        """Sign what every login shows, where that may take long: not while somebody logs in."""
        self._signing(lambda: self._authority.outer_host_keys(self.context.services.outer_names)).addErrback(
            lambda failure: _log.error("{why}", why=failure.getErrorMessage())
        )

    def _watch(self) -> None:
        """Another process may have revoked or locked something, or have gone on with a rotation; and what was
        allowed until now is over."""
        moment = utc_now()
        self._with_each(lambda live: live.look(moment))
        self._look_at_disks()
        self._tick_audit()
        for name, refresh in (
            ("authority", self._refresh_authority),
            ("revocations", self._refresh_revocations),
            ("locks", self._refresh_locks),
        ):
            # What is wrong with one of them must not hide the others.
            try:
                refresh()
                self._complaints.pop(name, None)
            except Exception as error:
                self._complain(name, error)

    def _look_at_disks(self) -> None:
        disks = self.context.services.disks
        changes = disks.look()
        for change in changes:
            volume = change.volume
            say = _log.info if change.level is Level.OK else _log.error
            say(
                "{words}: {path} ({what}): {free} bytes are free, {least} must be",
                words=_LEVELS[change.level],
                path=str(volume.path),
                what=volume.what,
                free=change.free,
                least=volume.least,
            )
            self.context.emit(
                events.DiskLow(
                    what=volume.what,
                    path=str(volume.path),
                    state=change.level.value,
                    free=change.free,
                    least=volume.least,
                )
            )
        self._audit.is_tight = disks.is_low
        if disks.critical and changes:
            self._rejudge()

    def _tick_audit(self) -> None:
        try:
            self._audit.tick()
            self._audit_log.tick()
            self._complaints.pop("audit", None)
        except WriteFailed as error:
            if self._complaints.get("audit") != error.detail:
                self._complaints["audit"] = error.detail
                _log.error("{why}: {detail}", why=error.public, detail=error.detail)

    def _close_audit(self) -> None:
        self._audit.flush()
        self._audit_log.close()

    def _complain(self, name: str, error: Exception) -> None:
        """Once for each thing that is wrong."""
        if self._complaints.get(name) == repr(error):
            return
        self._complaints[name] = repr(error)
        if not isinstance(error, (ConfigError, OSError)):
            _log.failure("while the {name} are looked at", name=name)
        _log.error("{error}; what was known before is still in force", error=str(error))

    def _refresh_authority(self) -> None:
        if self._authority.refresh():
            self._warm()

    def _refresh_revocations(self) -> None:
        revocations = self._authority.revocations
        revocations.refresh()
        if revocations.current is not self._enforced:
            self._enforced = revocations.current
            self._rejudge()

    def _refresh_locks(self) -> None:
        if self._locks.refresh():
            settings = self.context.settings
            policy = replace(settings.policy, locks=self._locks.current)
            self.context.settings = replace(settings, policy=policy)
            self._rejudge()

    def _rejudge(self) -> None:
        self._with_each(lambda live: live.rejudge())

    def _with_each(self, judge: Callable[[LiveConnection], None]) -> None:
        """One that can't be judged ends, and keeps nobody else from being judged."""
        for live in self.context.registry.connections:
            try:
                judge(live)
            except Exception:
                _log.failure("while a connection of {user} is judged", user=live.identity.user)
                live.drop()

    def _locked(self, user: str) -> str:
        lock = self.context.settings.policy.lock_on(utc_now(), lambda lock: lock.is_of_user(user))
        return str(lock) if lock is not None else ""

    # --- a new configuration

    def _settings(self) -> Settings:
        """The settings that the configuration of now asks for."""
        config = self._config
        return Settings(
            config=config,
            policy=replace(config.policy, locks=self._locks.current),
            algorithms=offered(config.algorithms, aes=knows_aes()),
            credentials=credentials(config, self._authority, self._locked),
            passwords=self._passwords(),
        )

    def reload(self) -> Deferred[None]:
        """Read the configuration anew (SIGHUP). Where it is wrong, the old one stays. Never fails.

        One at a time: a file that changes while it is being read is read once more after that.
        """
        done: Deferred[None] = Deferred()
        self._reloads.append(done)
        if not self._reading_anew:
            self._read_anew()
        return done

    def _read_anew(self) -> None:
        self._reading_anew = True
        waiting, self._reloads = self._reloads, []
        reading = self._in_background(lambda: load(self._config.file))
        reading.addCallbacks(self._reloaded, self._not_reloaded).addErrback(
            lambda failure: _log.failure("while the configuration is read anew", failure=failure)
        ).addCallback(self._read_anew_once, waiting)

    def _read_anew_once(self, _: None, waiting: list[Deferred[None]]) -> None:
        self._reading_anew = False
        for done in waiting:
            done.callback(None)
        if self._reloads and not self._reading_anew:
            self._read_anew()

    def _not_reloaded(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, ConfigErrors):
            failure.raiseException()
        lines = tuple(error.lines()) if isinstance(error, ConfigErrors) else ()
        for line in lines:
            _log.error("{line}", line=line)
        _log.error("the configuration is wrong, so nothing changes: what was known before is in force")
        self.context.emit(events.ConfigReload(result="failed", problems=lines))

    def _reloaded(self, config: Config) -> None:
        context, before = self.context, self._config
        names = changed(before, config)
        waiting = tuple(name for name in names if waits(name))
        self._config = config = effective(before, config)
        for warning in config.warnings:
            _log.warn("{warning}", warning=warning)
        if waiting:
            _log.warn("{names}: changed, and in force from the next start on", names=", ".join(waiting))
        self._known_hosts.clear()
        context.settings = self._settings()
        limits = config.limits
        context.services.dialer.limit(handshakes=limits.target_handshakes, timeout=limits.connect_timeout)
        context.emit(events.ConfigReload(result="ok", changed=names, waiting=waiting))
        _log.info("the configuration was read anew; changed: {names}", names=", ".join(names) or "nothing")
        self._rejudge()

    # --- retention

    def _prune(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._remove_old()).addErrback(
            lambda failure: _log.failure("while old recordings are removed", failure=failure)
        )

    async def _remove_old(self) -> None:
        kept, sealer = self._config.recordings.retention, self._sealer
        if kept.age is None and not kept.size:
            return

        def find() -> tuple[retention.Expired, ...]:
            # First: the ledger has to know every hold that is made while the rest is read.
            sealer.ledger.refresh()
            return tuple(
                retention.expired(
                    sealer.tree, sealer.keys, utc_now(), age=kept.age, size=kept.size, pause=let_others_run
                )
            )

        found = await self._in_background(find)
        for one in found:
            if self.context.registry.stopping:
                return
            if await self._in_background(partial(sealer.ledger.is_held, one.sid)):
                continue
            # What can not be audited stays.
            self._audit.emit(events.RecordingRemoved(sid=one.sid, by="conchrec", reason=one.reason))
            await self._in_background(partial(self._remove, one))
        if found:
            self._indexer.poke()

    def _remove(self, one: retention.Expired) -> None:
        """In a thread."""
        sealer = self._sealer
        retention.remove(sealer.tree, sealer.ledger, one.sid, reason=one.reason, by="conchrec")

    # --- threads

    def _on_disk(self, work: Callable[[], T], /) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._disk, work)

    def _in_background(self, work: Callable[[], T], /) -> Deferred[T]:
        """What may take long, and nobody waits for."""
        return deferToThreadPool(self._reactor, self._sealing, work)

    def _signing(self, work: Callable[[], T]) -> Deferred[T]:
        if self._authority.blocks:
            return self._on_disk(work)
        return maybeDeferred(work)

    # --- passwords

    def _passwords(self) -> PasswordLogin | None:
        """None where nobody has one, or a code."""
        config = self._config
        hashes = {name: user.password for name, user in config.users.items() if user.password}
        totp = {name: user.totp for name, user in config.users.items() if user.totp}
        if not hashes and not totp:
            return None
        guesses = self._guesses = self._guesses or Guesses(
            config.state_dir / "guesses.json",
            users=config.users,
            now=utc_now,
            clock=self._reactor,
            in_thread=self._on_disk,
        )
        guesses.keep(config.users)
        return PasswordLogin(
            Passwords(hashes, totp, guesses.salt),
            guesses,
            identify=lambda user: self.context.settings.credentials.by_password(user),
            clock=self._reactor,
            now=utc_now,
            in_thread=lambda work: deferToThreadPool(self._reactor, self._hashing, work),
        )

    # --- trust

    def _trust(self, target: Target, addresses: Sequence[str]) -> HostTrust:
        config = self._config
        rule = rule_for(config.targets, target, addresses)
        paths = (*(rule.known_hosts if rule is not None else ()), *config.trusted_hosts.known_hosts)
        key = tuple(str(path) for path in paths)
        known = self._known_hosts.get(key)
        if known is None:
            known = self._known_hosts[key] = KnownHosts.load(paths)
        return HostTrust(
            known,
            authorities=(*self._authority.trusted(CaKind.HOST), *config.trusted_hosts.authorities),
            revoked=self._revoked,
            check=config.proxy_checks_host_keys
            if rule is None or rule.check_host_keys is None
            else rule.check_host_keys,
        )

    def _revoked(self, key: bytes, certificate: Certificate | None) -> bool:
        """Is this host key, or this certificate of ours for it, revoked?"""
        revoked = self._authority.revoked()
        ours = certificate is not None and certificate.authority in self._authority.trusted(CaKind.HOST)
        return key in revoked.keys or (ours and certificate is not None and revoked.has(certificate))


async def _settled(stopping: Deferred[Any] | None) -> None:
    if stopping is not None:
        await stopping


_LEVELS = {
    Level.OK: "DISK HAS ROOM AGAIN",
    Level.LOW: "DISK ALMOST FULL, NO SESSION BEGINS",
    Level.CRITICAL: "DISK FULL, SESSIONS END",
}


def _disks(config: Config) -> Disks:
    """All that we write to. What cannot be audited must not happen, so the recordings are not all."""
    recordings = Volume(what="recordings", path=config.recordings.directory, least=config.recordings.min_free)
    least = config.audit.min_free
    log = Volume(what="the audit log", path=config.audit.file.parent, least=least)
    state = Volume(what="the state directory", path=config.state_dir, least=least)
    return Disks((recordings,), required=(log, state))


def credentials(config: Config, authority: Authority, locked: Callable[[str], str]) -> Credentials:
    """Who may log in to the proxy. ``locked`` says why a user may not, now."""
    return Credentials(
        users={name: user.keys for name, user in config.users.items()},
        roles={name: user.roles for name, user in config.users.items()},
        authorities=lambda: authority.trusted(CaKind.USER),
        revoked=authority.revoked,
        locked=locked,
        passwords=frozenset(name for name, user in config.users.items() if user.password),
    )


def addresses_of(host: str) -> tuple[str, ...]:
    """In a thread."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def outer_names(config: Config) -> tuple[str, ...]:
    """What users may call the proxy: its public address, this host, and where it listens.

    Clients look for the bare name. An agent that holds a key for one way only (``ssh-add -h``) looks for
    the name as known_hosts has it, so that is there, too.
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
    """Make it where it is missing; why it can't be written, or the empty string."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(directory, os.W_OK | os.X_OK) else "not writable"
