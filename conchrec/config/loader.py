"""Reads ``config.yaml`` into a frozen ``Config``. Every problem is reported with its path and line.

A new setting is added to ``model`` and ``etc/config.yaml``, and here if the type of its default does not say
how it is read. Settings of later versions are errors: nothing is accepted that is not enforced. An empty
setting allows nobody.

It reads the file and the key files that it names. It uses no reactor and no clock, and writes nothing.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from conchrec.access.authorized_keys import AuthorizedKey, parse_authorized_keys
from conchrec.access.options import Record
from conchrec.access.passwords import parse_hash, parse_secret
from conchrec.access.patterns import address_of
from conchrec.access.role import Role
from conchrec.config.endpoints import WEB_ENDPOINTS, parse_endpoints, parse_listen
from conchrec.config.fields import keys, read_fields
from conchrec.config.model import (
    AgentProbe,
    Audit,
    Config,
    ConfiguredUser,
    InnerAuth,
    Limits,
    Mode,
    Offer,
    Recordings,
    Retention,
    Startups,
    TargetOffer,
    TargetRule,
    TrustedHosts,
    UpstreamAuth,
    Web,
)
from conchrec.config.roles import read_grants, read_hosts, read_networks, read_roles
from conchrec.errors import ConfigError, ConfigErrors
from conchrec.model import MAX_PORT, parse_host_and_port
from conchrec.recording.storage.recipients import parse_recipient
from conchrec.yaml_cursor import Problems, Section, YamlText, read

__all__ = [
    "AgentProbe", "Audit", "Config", "ConfigErrors", "ConfiguredUser", "InnerAuth", "Limits", "Mode",
    "Offer", "Recordings", "TargetOffer", "TargetRule", "TrustedHosts", "UpstreamAuth", "Web", "load",
    "parse",
]  # fmt: skip

ME = "{me}"
"""As the name of a user: the account that runs the process."""


TOP = keys(Config, "file", "warnings")
USER = keys(ConfiguredUser, "name", "ends", "line")
TARGET = keys(TargetRule, "name")
LIMITS = keys(Limits)

DEFAULT_FILES = (Path("config.yaml"), Path("/etc/conchrec/config.yaml"))
"""The configuration files that are tried where the command line names none."""

DEFAULT_STATE_DIR = "/var/lib/conchrec"
_AUTH_SOCK = "SSH_AUTH_SOCK"
_SYSLOG = Path("/dev/log")
_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
_LATER_AUTH = ("key",)
_CLUSTER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
# These have a meaning in a login pattern, in principals of a certificate, in ProxyJump or in a listing.
_NOT_IN_NAMES = frozenset("*?[]{}!,:/\\\"'`$&;|<>()")
_LONGEST_NAME = 64

_NOT_CHECKED = (
    "host keys are not checked: an attacker between the proxy and a target can read and change sessions"
)

_Complain = Callable[[str], None]


def load(path: Path, *, me: str | None = None) -> Config:
    """The configuration in the file ``path``. Raises ConfigErrors with all of its problems.

    ``me`` is the name that ``{me}`` stands for: by default the account that runs the process.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigErrors(str(path), [ConfigError("", f"cannot be read: {error.strerror}")]) from error
    return parse(text, path, me=me)


def parse(text: bytes, path: Path, *, me: str | None = None) -> Config:
    """The configuration in ``text``, as if it were in the file ``path``. Raises ConfigErrors."""
    problems = Problems()
    top = read(text, problems, TOP)
    if top is None:
        raise ConfigErrors(str(path), problems.errors)
    config = _Reader(path, problems, me).config(top)
    if problems.errors:
        raise ConfigErrors(str(path), problems.errors)
    return config


class _Reader:
    """Reads one file. Problems are collected in ``problems``."""

    def __init__(self, path: Path, problems: Problems, me: str | None) -> None:
        self._file = Path(os.path.abspath(path))
        self._problems = problems
        self._me = me

    def config(self, top: Section) -> Config:
        for key in ("users", "roles"):
            if key not in top:
                top.problem(key, f"is missing. To allow no access, write {key}: {{}}")
        state_dir = self._path(top, "state_dir", Path(DEFAULT_STATE_DIR))
        targets = self._targets(top)
        roles = read_roles(top, targets, _is_name)
        users = self._users(top, roles)
        proxy_protocol_from = read_networks(top, "proxy_protocol_from") or ()
        checks = top.flag("proxy_checks_host_keys", True)
        if not checks:
            top.warn("proxy_checks_host_keys", _NOT_CHECKED)
        if any(user.password for user in users.values()) and self._others_can_read():
            top.warn(
                "users",
                "contains password hashes and secrets, but every account can read the file; run:"
                f" chmod 640 {self._file}",
            )
        if "users" in top and not users:
            top.warn("users", "is empty: nobody can log in")
        return Config(
            file=self._file,
            cluster_name=_cluster_name(top),
            state_dir=state_dir,
            ca_agent=self._agent(top),
            listen=parse_listen(top, bool(proxy_protocol_from)),
            public_address=_public_address(top),
            session_recording=top.word("session_recording", Mode, Mode.PROXY),
            proxy_checks_host_keys=checks,
            trusted_hosts=self._trusted_hosts(top),
            upstream_auth=_upstream_auth(top) or (UpstreamAuth.AGENT, UpstreamAuth.CERTIFICATE),
            agent_probe=top.word("agent_probe", AgentProbe, AgentProbe.LAST),
            inner_auth=top.word("inner_auth", InnerAuth, InnerAuth.KEY),
            notice=_notice(top),
            users=MappingProxyType(users),
            roles=MappingProxyType(roles),
            targets=targets,
            algorithms=top.word("algorithms", Offer, Offer.MODERN),
            limits=_limits(top.section("limits", LIMITS)),
            proxy_protocol_from=proxy_protocol_from,
            recordings=self._recordings(top.section("recordings", keys(Recordings)), state_dir),
            audit=self._audit(top.section("audit", keys(Audit)), state_dir),
            web=Web(
                listen=parse_endpoints(
                    top.section("web", keys(Web)), WEB_ENDPOINTS, proxies=bool(proxy_protocol_from)
                )
            ),
            warnings=tuple(ConfigErrors(str(self._file), self._problems.warnings).lines()),
        )

    # -- files

    def _absolute(self, text: str) -> Path:
        """A path relative to the file; ``~`` is the home directory of the account that runs the process."""
        return Path(os.path.normpath(self._file.parent / os.path.expanduser(text)))

    def _path(self, section: Section, key: str, default: Path) -> Path:
        entry = section.entry(key)
        return self._absolute(entry.text) if entry is not None and entry.is_path else default

    def _paths(self, entries: Iterable[YamlText]) -> tuple[Path, ...]:
        """Paths of known_hosts files. A missing file trusts no host, so it is only a warning."""
        paths = []
        for entry in entries:
            if not entry.is_path:
                continue
            path = self._absolute(entry.text)
            if not path.is_file() and not entry.text.startswith("~") and entry.text != _KNOWN_HOSTS:
                entry.warn(f"the file {path} does not exist, so no host key in it is trusted")
            elif path.is_file() and not os.access(path, os.R_OK):
                entry.warn(f"cannot read {path}, so no host key in it is trusted")
            paths.append(path)
        return tuple(paths)

    def _agent(self, top: Section) -> str:
        """The path of a socket; SSH_AUTH_SOCK stands for that of our own environment."""
        entry = top.entry("ca_agent")
        if entry is None or not entry.is_path:
            return ""
        if entry.text != _AUTH_SOCK:
            return str(self._absolute(entry.text))
        path = os.environ.get(_AUTH_SOCK, "")
        if not path:
            entry.problem(f"{_AUTH_SOCK} is not set; start an ssh-agent, or write the path of its socket")
        return path

    def _others_can_read(self) -> bool:
        try:
            return bool(self._file.stat().st_mode & 0o004)
        except OSError:
            return False

    # -- users

    def _users(self, top: Section, roles: Mapping[str, Role]) -> dict[str, ConfiguredUser]:
        users: dict[str, ConfiguredUser] = {}
        section = top.section("users", None)
        for key in section:
            name = self._my_name() if key == ME else key
            if name in users:
                section.problem(key, f"the user {name} is listed twice ({ME} stands for {name})")
            elif not _is_name(name):
                section.problem(
                    key, "invalid user name: use letters, digits and . _ @ + -; it must not begin with -"
                )
            user = section.section(key, USER)
            grants = read_grants(user, roles)
            users[name] = ConfiguredUser(
                name=name,
                keys=self._keys(user),
                roles=tuple(grants),
                ends={role: end for role, end in grants.items() if end is not None},
                password=_secret(user, "password", parse_hash),
                totp=_secret(user, "totp", parse_secret),
                line=section.line_of(key),
            )
            if not users[name].roles:
                section.warn(key, f"{name} has no role and can reach no target")
        return users

    def _my_name(self) -> str:
        if self._me is None:
            try:
                self._me = pwd.getpwuid(os.getuid()).pw_name
            except KeyError:
                self._me = str(os.getuid())
        return self._me

    def _keys(self, user: Section) -> tuple[AuthorizedKey, ...]:
        keys: list[AuthorizedKey] = []
        for entry in user.texts("authorized_keys"):
            keys += _parsed_keys(entry, entry.text, entry.path, entry.problem)
        for entry in user.texts("authorized_keys_file", or_one=True):
            keys += self._keys_in_files(entry)
        return tuple({(key.blob, key.sources, key.expires): key for key in keys}.values())

    def _keys_in_files(self, entry: YamlText) -> list[AuthorizedKey]:
        """The keys in a file, or in the files that match a pattern.

        A file that is named must exist and be valid. An invalid file that matches a pattern is skipped
        with a warning; certificates next to their keys are skipped.
        """
        if not entry.is_path:
            return []
        pattern = str(self._absolute(entry.text))
        if not glob.has_magic(entry.text):
            text = _contents(entry, Path(pattern), entry.problem)
            return [] if text is None else _parsed_keys(entry, text, pattern, entry.problem)
        keys: list[AuthorizedKey] = []
        for name in sorted(glob.glob(pattern)):
            if name.endswith("-cert.pub") or not os.path.isfile(name):
                continue
            text = _contents(entry, Path(name), entry.warn)
            if text is not None:
                keys += _parsed_keys(entry, text, name, entry.warn)
        if not keys:
            entry.warn(
                f"no public key in {entry.text}, so the user cannot log in with a key;"
                " create one with: ssh-keygen -t ed25519"
            )
        return keys

    # -- targets

    def _targets(self, top: Section) -> tuple[TargetRule, ...]:
        rules = []
        section = top.section("targets", None)
        for name in section:
            rule = section.section(name, TARGET)
            labels = rule.section("labels", None)
            rules.append(
                TargetRule(
                    name=name,
                    hosts=read_hosts(rule),
                    address=_addresses(rule),
                    port=rule.integer("port", 22, most=MAX_PORT) if "port" in rule else None,
                    labels=MappingProxyType({label: labels.text(label, "") for label in labels}),
                    algorithms=(
                        rule.word("algorithms", TargetOffer, TargetOffer.MODERN)
                        if "algorithms" in rule
                        else None
                    ),
                    upstream_auth=_upstream_auth(rule),
                    known_hosts=self._paths(rule.texts("known_hosts")),
                    check_host_keys=rule.flag("check_host_keys", True) if "check_host_keys" in rule else None,
                    record=rule.word("record", Record, Record.STRICT) if "record" in rule else None,
                )
            )
            if rules[-1].check_host_keys is False:
                rule.warn("check_host_keys", _NOT_CHECKED)
            port = rules[-1].port
            for pattern in rules[-1].hosts:
                if port is not None and pattern.port not in (None, port):
                    rule.problem(
                        "hosts",
                        f"remove the port of {pattern.text}: this group sets port {port}, and the proxy"
                        " connects to it when a user asks for port 22",
                    )
            if "hosts" not in rule:
                section.problem(name, "has no hosts: list the hosts that the rule is for")
        return tuple(rules)

    def _trusted_hosts(self, top: Section) -> TrustedHosts:
        section = top.section("trusted_hosts", keys(TrustedHosts))
        known_hosts: tuple[Path, ...] = (Path(_KNOWN_HOSTS),)
        if "known_hosts" in section:
            known_hosts = self._paths(section.texts("known_hosts"))
        authorities: dict[bytes, None] = {}
        for entry in section.texts("authorities"):
            if " " in entry.text.strip():
                authorities |= dict.fromkeys(_authorities(entry, entry.text))
            elif entry.is_path:
                lines = _contents(entry, self._absolute(entry.text), entry.problem) or ""
                authorities |= dict.fromkeys(_authorities(entry, lines))
        return TrustedHosts(known_hosts=known_hosts, authorities=tuple(authorities))

    # -- what is written

    def _audit(self, section: Section, state_dir: Path) -> Audit:
        syslog: Path | None = None
        if section.text("syslog", "no").startswith("/"):
            syslog = Path(section.text("syslog", ""))
        elif section.flag("syslog", False):
            syslog = _SYSLOG
        file = self._path(section, "file", state_dir / "audit.jsonl")
        return read_fields(section, Audit, file=file, syslog=syslog)

    def _recordings(self, section: Section, state_dir: Path) -> Recordings:
        recipients = []
        for entry in section.texts("encrypt_to"):
            try:
                parse_recipient(entry.text)
            except ValueError:
                entry.problem(
                    "invalid key: must be an age public key (age1…) or an SSH public key (ed25519 or RSA)"
                )
            recipients.append(entry.text)
        directory = self._path(section, "directory", state_dir / "recordings")
        if directory in (state_dir, *state_dir.parents):
            section.warn(
                "directory",
                "contains the files of state_dir: anyone who can read or copy this directory gets the keys."
                f" Use another directory, like {state_dir / 'recordings'}",
            )
        retention = section.section("retention", keys(Retention))
        return read_fields(
            section,
            Recordings,
            directory=directory,
            encrypt_to=tuple(recipients),
            retention=read_fields(retention, Retention, age=retention.optional_duration("age")),
        )


def _contents(entry: YamlText, path: Path, complain: _Complain) -> str | None:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        complain(f"cannot read {path}: {error.strerror}")
    except UnicodeDecodeError:
        complain(f"{path} is not UTF-8 text")
    return None


def _parsed_keys(entry: YamlText, text: str, where: str, complain: _Complain) -> list[AuthorizedKey]:
    try:
        return list(parse_authorized_keys(text, where))
    except ConfigErrors as errors:
        for error in errors.errors:
            complain(error.problem if where == entry.path else f"{where}:{error.line}: {error.problem}")
    return []


def _authorities(entry: YamlText, text: str) -> list[bytes]:
    """The blobs of the CA keys in ``text``. A certificate is not a CA key."""
    if text.lstrip().startswith("@"):
        entry.problem(
            "expected a public key, not a line with a marker (@cert-authority); put such lines into a file"
            " of trusted_hosts.known_hosts"
        )
        return []
    keys = _parsed_keys(entry, text, entry.path, entry.problem)
    for key in keys:
        if key.sources is not None or key.expires is not None:
            entry.problem("a CA key cannot have options (from=, expiry-time=); remove them")
    return [key.blob for key in keys]


def _secret(user: Section, key: str, parse: Callable[[str], bytes]) -> bytes:
    """The value of ``password`` or ``totp``; empty where it is missing. A problem never shows the value."""
    entry = user.entry(key)
    if entry is None:
        return b""
    try:
        return parse(entry.text)
    except ValueError as error:
        entry.problem(f"{error}; create it with: conchrec passwd USER")
        return b""


def _addresses(rule: Section) -> tuple[str, ...]:
    """The addresses that are dialled instead of those that the names resolve to."""
    entries = rule.texts("address", or_one=True)
    for entry in entries:
        if address_of(entry.text) is None:
            entry.problem(f"invalid address {entry.text!r}: must be an IP address, like 10.0.0.5")
    return tuple(entry.text for entry in entries)


def _upstream_auth(section: Section) -> tuple[UpstreamAuth, ...] | None:
    """The methods; None where the key is missing or invalid."""
    if "upstream_auth" not in section:
        return None
    methods = section.words("upstream_auth", UpstreamAuth, (), later=_LATER_AUTH)
    if not section.texts("upstream_auth") and not section.is_wrong("upstream_auth"):
        section.problem("upstream_auth", "is empty: list at least one method, like [agent, certificate]")
    if UpstreamAuth.PROMPT in methods[:-1]:
        section.problem(
            "upstream_auth", "prompt must be last: users are asked only after all other methods have failed"
        )
    return methods or None


def _limits(section: Section) -> Limits:
    return read_fields(section, Limits, unauthenticated=_startups(section, Limits().unauthenticated))


def _startups(section: Section, default: Startups) -> Startups:
    entry = section.entry("unauthenticated")
    if entry is None:
        return default
    try:
        return Startups.parse(entry.text)
    except ValueError as error:
        entry.problem(f"invalid value {entry.text!r}: {error}")
        return default


def _public_address(top: Section) -> str:
    entry = top.entry("public_address")
    if entry is None or not entry.text:
        return ""
    if parse_host_and_port(entry.text) is None:
        entry.problem(
            f"invalid address {entry.text!r}: must be HOST or HOST:PORT, like proxy.example.com:3023"
        )
    return entry.text


def _notice(top: Section) -> str:
    entry = top.entry("notice")
    if entry is None:
        return "Sessions are recorded."
    if any(not letter.isprintable() and letter not in "\n\t" for letter in entry.text):
        entry.problem("contains control characters: only text, tabs and line breaks are allowed")
    return entry.text


def _cluster_name(top: Section) -> str:
    entry = top.entry("cluster_name")
    if entry is None:
        return "conchrec"
    if not _CLUSTER.fullmatch(entry.text):
        entry.problem(f"invalid name {entry.text!r}: use letters, digits, dots, _ and -, like example.com")
    return entry.text


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= _LONGEST_NAME
        and name.isprintable()
        and not name.startswith("-")
        and not any(letter.isspace() or letter in _NOT_IN_NAMES for letter in name)
    )
