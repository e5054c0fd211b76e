"""How a session came to be: what an auditor asks first about a recording. Pure.

Who logged in and how, at which address of the proxy, which machine was reached, what vouched for it, and who
approved it for which reason. It is in the cast's header (so an interrupted recording has it, too) and in the
signed manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LONGEST = 512
"""Characters of one field; the rest of a longer one is replaced by an ellipsis."""
_GROUPS = {
    "target": ("dialled", "host_key", "trust", "target_method", "target_key"),
    "login": ("proxy_address", "method", "key", "certificate", "second_factor"),
    "approval": ("request", "approved_by", "approval_reason", "approval_note"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Texts, empty without one.

    ``dialled`` is the target's IP address and port; ``host_key`` the fingerprint of its host key, ``trust``
    what vouched for that; ``target_method`` and ``target_key`` how the proxy logged in there.
    ``proxy_address`` is the address and port that the user connected to; ``method``, ``key`` (a fingerprint),
    ``certificate`` (its key id and serial) and ``second_factor`` how the user logged in.
    """

    dialled: str = ""
    host_key: str = ""
    trust: str = ""
    target_method: str = ""
    target_key: str = ""
    proxy_address: str = ""
    method: str = ""
    key: str = ""
    certificate: str = ""
    second_factor: str = ""
    request: str = ""
    approved_by: str = ""
    approval_reason: str = ""
    approval_note: str = ""

    def fields(self) -> dict[str, dict[str, str]]:
        """As JSON has it: ``{"target": {"dialled": …}, "login": {…}, "approval": {…}}``, without what is
        empty."""
        groups = {
            group: {name: _cut(value) for name in names if (value := getattr(self, name))}
            for group, names in _GROUPS.items()
        }
        return {group: fields for group, fields in groups.items() if fields}

    @classmethod
    def parse(cls, value: object) -> Provenance:
        """What ``fields`` has made; what is not understood is left out."""
        found: dict[str, str] = {}
        for group, names in _GROUPS.items():
            fields = value.get(group) if isinstance(value, Mapping) else None
            for name in names:
                text = fields.get(name) if isinstance(fields, Mapping) else None
                if isinstance(text, str):
                    found[name] = _cut(text)
        return cls(**found)


NOTHING_KNOWN = Provenance()


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def host_and_port(host: str, port: int) -> str:
    """``192.0.2.1:22``, ``[2001:db8::1]:22``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
