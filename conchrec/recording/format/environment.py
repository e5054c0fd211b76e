"""The environment variables that a user requests for a session, as its recording keeps them.

A variable can carry a command (``LC_X='…'``, then ``exec 'eval "$LC_X"'``), so values are kept up to a size
and hashed beyond it.
"""

from __future__ import annotations

import hashlib

from conchrec.recording.format.kept_text import NAME_MOST, VARIABLE_MOST, VARIABLES_MOST, KeptText, keep

#: sshd takes 128 variables of one session.
VARIABLES = 128


class Environment:
    """The variables of one session, in the order in which they were requested."""

    def __init__(self) -> None:
        self._values: dict[str, KeptText] = {}
        self._left = VARIABLES_MOST
        self._more = 0
        self._more_hash = hashlib.sha256()
        self._replaced = 0
        self._lost = False

    @property
    def is_complete(self) -> bool:
        """Every value is kept whole."""
        return not (self._more or self._lost or any(value.is_cut for value in self._values.values()))

    def set(self, name: bytes, value: bytes) -> tuple[str, KeptText, KeptText | None]:
        """A variable is requested; returns what is kept of its name and value, and the value that it
        replaces. sshd takes the last one, but refuses it where it has too many: either may be what counts."""
        kept_name = keep(name, NAME_MOST)
        label = kept_name.text if not kept_name.sha256 else f"{kept_name.text} sha256:{kept_name.sha256}"
        kept = keep(value, min(VARIABLE_MOST, self._left))
        before = self._values.get(label)
        if before == kept:
            return label, kept, None
        if (len(self._values) if before is None else self._replaced) >= VARIABLES:
            self._more += 1
            for part in (name, value):
                self._more_hash.update(len(part).to_bytes(4, "big") + part)
            return label, kept, None
        self._left -= min(kept.size, VARIABLE_MOST, self._left)
        self._values[label] = kept
        if before is not None:
            self._replaced += 1
            self._lost |= before.is_cut
        return label, kept, before

    def fields(self) -> dict[str, object]:
        """For the header: ``env`` has the values, ``env_digests`` size and SHA-256 of those that the value
        there does not give back (cut, or not UTF-8), ``env_more`` how many further ones there were, and
        SHA-256 over their names and values, each with its length as a uint32 before it."""
        fields: dict[str, object] = {}
        if self._values:
            fields["env"] = {name: value.text for name, value in self._values.items()}
        digests = {
            name: {"bytes": value.size, "sha256": value.sha256}
            for name, value in self._values.items()
            if value.sha256
        }
        if digests:
            fields["env_digests"] = digests
        if self._more:
            fields["env_more"] = {"count": self._more, "sha256": self._more_hash.hexdigest()}
        return fields
