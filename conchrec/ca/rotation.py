"""The rotation of an authority's key, in phases that never lock anyone out. Pure values.

- ``init``: both keys are trusted and the old one signs, so that the new one can be distributed.
- ``update``: the new key signs.
- ``finish``: the old key is removed.
- ``rollback``: the old key signs again. When the certificates of the new key have expired, ``finish`` removes
  that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from conchrec.errors import ConchrecError
from conchrec.reasons import ReasonCode

_NAME = re.compile(r"(user|host)_ca(-[0-9]+)?")


class RotationPhase(Enum):
    """The current phase of a rotation."""

    IDLE = "idle"
    INIT = "init"
    UPDATE = "update"
    ROLLBACK = "rollback"


class RotationStep(Enum):
    """A step that changes the phase."""

    INIT = "init"
    UPDATE = "update"
    FINISH = "finish"
    ROLLBACK = "rollback"


class OutOfStep(ConchrecError):
    """The step is not possible in the current phase."""

    default_code = ReasonCode.ROTATION_OUT_OF_ORDER


#: The next phase after each step. A key that never signed can be removed at once.
NEXT: Mapping[tuple[RotationPhase, RotationStep], RotationPhase] = {
    (RotationPhase.IDLE, RotationStep.INIT): RotationPhase.INIT,
    (RotationPhase.INIT, RotationStep.UPDATE): RotationPhase.UPDATE,
    (RotationPhase.INIT, RotationStep.ROLLBACK): RotationPhase.IDLE,
    (RotationPhase.UPDATE, RotationStep.FINISH): RotationPhase.IDLE,
    (RotationPhase.UPDATE, RotationStep.ROLLBACK): RotationPhase.ROLLBACK,
    (RotationPhase.ROLLBACK, RotationStep.FINISH): RotationPhase.IDLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The keys of one authority, by the names of their files.

    ``new`` is empty where there is only one key. ``generation`` is the number of keys that were ever created.
    """

    phase: RotationPhase = RotationPhase.IDLE
    old: str
    new: str = ""
    generation: int = 1

    @property
    def signs(self) -> str:
        """The key that signs."""
        return self.new if self.phase is RotationPhase.UPDATE else self.old

    @property
    def trusted(self) -> tuple[str, ...]:
        """The keys whose certificates are accepted; the key that signs is the first."""
        return tuple(dict.fromkeys(name for name in (self.signs, self.old, self.new) if name))

    def after(self, step: RotationStep, name: str) -> Rotation:
        """The rotation after ``step``. ``name`` is the prefix of a new key's name. Raises OutOfStep."""
        phase = NEXT.get((self.phase, step))
        if phase is None:
            possible = " or ".join(step.value for (phase, step) in NEXT if phase is self.phase)
            raise OutOfStep(
                f"--phase {step.value} is not possible now: the phase is {self.phase.value}; use --phase"
                f" {possible}"
            )
        if step is RotationStep.INIT:
            number = self.generation + 1
            return Rotation(phase=phase, old=self.old, new=f"{name}-{number}", generation=number)
        if phase is RotationPhase.IDLE:
            kept = self.new if self.phase is RotationPhase.UPDATE else self.old
            return Rotation(old=kept, generation=self.generation)
        return replace(self, phase=phase)

    def to_json(self) -> dict[str, object]:
        """The fields for the file."""
        return {
            "phase": self.phase.value,
            "old": self.old,
            "new": self.new,
            "generation": self.generation,
        }

    @classmethod
    def from_json(cls, fields: object) -> Rotation:
        """The rotation with these fields. Raises ValueError for anything that ``to_json`` does not return."""
        if not isinstance(fields, dict) or set(fields) != {"phase", "old", "new", "generation"}:
            raise ValueError("not the fields of a rotation")
        phase, generation = RotationPhase(fields["phase"]), fields["generation"]
        names = [fields["old"]] if phase is RotationPhase.IDLE else [fields["old"], fields["new"]]
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise ValueError("not the name of a key")
        if type(generation) is not int or generation < 1:
            raise ValueError("not a number of keys")
        return cls(phase=phase, old=names[0], new=(*names, "")[1], generation=generation)
