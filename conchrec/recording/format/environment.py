"""The environment variables that a user requests for a session, as its recording keeps them.

A variable can carry a command (``LC_X='…'``, then ``exec 'eval "$LC_X"'``), so values are kept up to a size,
and longer ones are hashed.
"""

from __future__ import annotations

import hashlib

from conchrec.recording.format.kept_text import NAME_MOST, VARIABLE_MOST, VARIABLES_MOST, KeptText, keep

#: sshd accepts 128 variables in one session.
VARIABLES = 128


class Environment:
    """The variables of one session, in the order in which they were requested."""

    def __init__(self) -> None:
        self._values: dict[str, KeptText] = {}
        self._bytes_left = VARIABLES_MOST
        self._more_count = 0
        self._more_hash = hashlib.sha256()
        self._replaced = 0
        self._is_value_lost = False

    @property
    def is_complete(self) -> bool:
        """Whether every value is kept completely."""
        return not (
            self._more_count or self._is_value_lost or any(value.is_cut for value in self._values.values())
        )

    def set(self, name: bytes, value: bytes) -> tuple[str, KeptText, KeptText | None]:
        """Add a variable. Returns what is kept of its name and its value, and the value that it replaces.
        sshd takes the last value, but refuses it where there are too many variables: either may be the one in
        effect."""
        kept_name = keep(name, NAME_MOST)
        label = kept_name.text if not kept_name.sha256 else f"{kept_name.text} sha256:{kept_name.sha256}"
        kept = keep(value, min(VARIABLE_MOST, self._bytes_left))
        before = self._values.get(label)
        if before == kept:
            return label, kept, None
        if (len(self._values) if before is None else self._replaced) >= VARIABLES:
            self._more_count += 1
            for part in (name, value):
                self._more_hash.update(len(part).to_bytes(4, "big") + part)
            return label, kept, None
        self._bytes_left -= min(kept.size, VARIABLE_MOST, self._bytes_left)
        self._values[label] = kept
        if before is not None:
            self._replaced += 1
            self._is_value_lost |= before.is_cut
        return label, kept, before

    def fields(self) -> dict[str, object]:
        """Return the fields of the header. ``env`` has the values. ``env_digests`` has size and SHA-256 of
        values that were cut or are not UTF-8. ``env_more`` has the number of further variables, and SHA-256
        of their names and values, each after its length as a uint32."""
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
        if self._more_count:
            fields["env_more"] = {"count": self._more_count, "sha256": self._more_hash.hexdigest()}
        return fields
