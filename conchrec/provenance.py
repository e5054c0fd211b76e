"""The provenance of a session: who logged in and how, which machine was reached, and who approved it. Pure.

It is in the header of the cast (so an interrupted recording has it too) and in the signed manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conchrec.text import cut

LONGEST = 512
"""The most characters of a field; a longer one is cut and ends in an ellipsis."""
_GROUPS = {
    "target": ("dialled", "host_key", "trust", "target_method", "target_key"),
    "login": ("proxy_address", "method", "key", "certificate", "second_factor"),
    "approval": ("request", "approved_by", "approval_reason", "approval_note"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The provenance of one session, as texts; each is empty where it is unknown.

    ``dialled`` is the target's IP address and port; ``host_key`` the fingerprint of its host key, ``trust``
    what made the proxy trust it; ``target_method`` and ``target_key`` how the proxy logged in there.
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
        """The object ``{"target": {"dialled": …}, "login": {…}, "approval": {…}}``, without empty fields."""
        groups = {
            group: {name: cut(value, LONGEST) for name in names if (value := getattr(self, name))}
            for group, names in _GROUPS.items()
        }
        return {group: fields for group, fields in groups.items() if fields}

    @classmethod
    def parse(cls, value: object) -> Provenance:
        """The provenance in an object of ``fields``. Invalid fields are ignored."""
        texts: dict[str, str] = {}
        for group, names in _GROUPS.items():
            fields = value.get(group) if isinstance(value, Mapping) else None
            for name in names:
                text = fields.get(name) if isinstance(fields, Mapping) else None
                if isinstance(text, str):
                    texts[name] = cut(text, LONGEST)
        return cls(**texts)


NOTHING_KNOWN = Provenance()
