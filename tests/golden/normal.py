"""Audit lines and manifests with times, ids, keys and texts replaced by placeholders."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.golden.codes import Codes

#: Members whose value is another one in each run.
RANDOM = frozenset(
    {"time", "head", "signature", "pid", "version", "digest", "valid_until", "serial", "started", "ended"}
)
#: Members of the audit's chain, which has tests of its own.
CHAIN = frozenset({"chain", "seq", "prev"})
#: Parts of a manifest that describe the cast, which has times in it.
OF_CAST = frozenset({"cast", "stored"})
#: Members that are text of conchrec and have no code.
TEXTS = frozenset({"detail", "rule", "trust", "unhashed", "problem"})
#: Members that name one thing; the same thing has the same placeholder.
NAMED = frozenset({"cid", "sid", "request"})
#: Events whose ``reason`` is a text of ours without a code.
WITHOUT_CODE = frozenset({"hostkey.unchecked"})
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_SID = re.compile(r"\b0[0-9a-hjkmnp-tv-z]{25}\b")
_CID = re.compile(r"(?<=connection=)[0-9a-f]{16}\b")
_DATE = re.compile(r"\b\d{4}/\d\d/\d\d\b")


class Normaliser:
    """Of one scenario: things are numbered as they appear."""

    def __init__(self, codes: Codes, directory: str, requests: Sequence[str] = ()) -> None:
        self._codes = codes
        self._requests = requests
        self._directory = directory
        self._names: dict[tuple[str, str], str] = {}

    def audit(self, entry: dict[str, Any]) -> str:
        """One line of the audit log."""
        shown = {name: item for name, item in entry.items() if name not in CHAIN}
        if entry["event"] in WITHOUT_CODE and "reason" in entry:
            shown["reason"] = "<text>"
        shown = self._value("", shown)
        if "reason_code" in shown:
            shown["reason"] = f"<{shown['reason_code']}>"
        return json.dumps(shown, ensure_ascii=False)

    def manifest(self, manifest: dict[str, Any]) -> str:
        """A whole manifest."""
        shown = manifest | {"duration": "<duration>", "made_by": "<made_by>"}
        for name in OF_CAST & shown.keys():
            part = shown[name]
            shown[name] = {key: f"<{key}>" if key in ("size", "sha256") else part[key] for key in part}
        return json.dumps(self._value("", shown), ensure_ascii=False, indent=1)

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._value(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(name, item) for item in value]
        if value in ("", None) or isinstance(value, bool):
            return value
        if name in RANDOM:
            return f"<{name}>"
        if name in TEXTS:
            return f"<{name}>"
        if name in NAMED:
            return self._named(name, str(value))
        return self._text(name, value) if isinstance(value, str) else value

    def _text(self, name: str, value: str) -> str:
        if name == "reason":
            return self._codes.replace(value)
        return self.wire(value)

    def wire(self, value: str) -> str:
        """A line of the transcript, or any other text that ids may stand in."""
        for request in self._requests:
            value = value.replace(request, self._named("request", request))
        value = _FINGERPRINT.sub(lambda match: self._named("key", match[0]), value)
        value = _SID.sub(lambda match: self._named("sid", match[0]), value)
        value = _CID.sub(lambda match: self._named("cid", match[0]), value)
        return _DATE.sub("<date>", value.replace(self._directory, "<directory>"))

    def _named(self, kind: str, value: str) -> str:
        count = sum(known == kind for known, _ in self._names)
        return self._names.setdefault((kind, value), f"<{kind} {count + 1}>")
