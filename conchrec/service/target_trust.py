"""The host keys that are trusted at each target, by the configuration and the host CA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from conchrec.access.host_rules import rule_for
from conchrec.ca.authority import Authority, CaKind
from conchrec.config.model import Config
from conchrec.model import Target
from conchrec.ssh.certificate import Certificate
from conchrec.ssh.host_key_check import HostTrust
from conchrec.ssh.known_hosts import KnownHosts


class TargetTrust:
    """Finds the rule of a target. ``config`` gives the configuration in effect."""

    def __init__(self, authority: Authority, config: Callable[[], Config]) -> None:
        self._authority = authority
        self._config = config
        #: The contents of the files, by their paths.
        self._known_hosts: dict[tuple[str, ...], KnownHosts] = {}

    def forget(self) -> None:
        """Read the ``known_hosts`` files again when they are needed next."""
        self._known_hosts.clear()

    def trust(self, target: Target, addresses: Sequence[str]) -> HostTrust:
        """The host keys that are trusted at a target with these addresses."""
        config = self._config()
        rule = rule_for(config.targets, target, addresses)
        paths = (*(rule.known_hosts if rule is not None else ()), *config.trusted_hosts.known_hosts)
        key = tuple(str(path) for path in paths)
        known_hosts = self._known_hosts.get(key)
        if known_hosts is None:
            known_hosts = self._known_hosts[key] = KnownHosts.load(paths)
        return HostTrust(
            known_hosts,
            authorities=(*self._authority.trusted(CaKind.HOST), *config.trusted_hosts.authorities),
            revoked=self._revoked,
            check=config.proxy_checks_host_keys
            if rule is None or rule.check_host_keys is None
            else rule.check_host_keys,
        )

    def _revoked(self, key: bytes, certificate: Certificate | None) -> bool:
        """Whether this host key, or a certificate of our host CA for it, is revoked."""
        revoked = self._authority.revoked()
        is_ours = certificate is not None and certificate.authority in self._authority.trusted(CaKind.HOST)
        return key in revoked.keys or (is_ours and certificate is not None and revoked.has(certificate))
