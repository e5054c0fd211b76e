"""A new key in the place of an authority's old one, in phases in none of which anybody is locked out.

``init``: both are trusted, the old one signs, and everybody can be told of the new one. ``update``: the new
one signs. ``finish``: the old one is dropped. ``rollback``: the old one signs again, and once the
certificates of the new one have run out, ``finish`` drops that. Pure values.
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
    """Where a rotation is."""

    IDLE = "idle"
    INIT = "init"
    UPDATE = "update"
    ROLLBACK = "rollback"


class RotationStep(Enum):
    """What can be asked for."""

    INIT = "init"
    UPDATE = "update"
    FINISH = "finish"
    ROLLBACK = "rollback"


class OutOfStep(ConchrecError):
    """That is not what comes next."""

    default_code = ReasonCode.ROTATION_OUT_OF_ORDER


#: Which step leads where. What was never signed with can be dropped at once.
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
    """One authority's keys, by the names of their files. ``new`` is empty where there is one key only;
    ``generation`` counts the keys that there ever were."""

    phase: RotationPhase = RotationPhase.IDLE
    old: str
    new: str = ""
    generation: int = 1

    @property
    def signs(self) -> str:
        return self.new if self.phase is RotationPhase.UPDATE else self.old

    @property
    def trusted(self) -> tuple[str, ...]:
        """All whose certificates count; the one that signs is the first."""
        return tuple(dict.fromkeys(name for name in (self.signs, self.old, self.new) if name))

    def after(self, step: RotationStep, name: str) -> Rotation:
        """What comes of ``step``, where ``name`` is what a new key's name begins with. Raises OutOfStep."""
        phase = NEXT.get((self.phase, step))
        if phase is None:
            now = f"the phase is {self.phase.value}"
            can = " or ".join(step.value for (phase, step) in NEXT if phase is self.phase)
            raise OutOfStep(f"{step.value} can not come now: {now}; what can: {can}")
        if step is RotationStep.INIT:
            number = self.generation + 1
            return Rotation(phase=phase, old=self.old, new=f"{name}-{number}", generation=number)
        if phase is RotationPhase.IDLE:
            kept = self.new if self.phase is RotationPhase.UPDATE else self.old
            return Rotation(old=kept, generation=self.generation)
        return replace(self, phase=phase)

    def to_json(self) -> dict[str, object]:
        return {
            "phase": self.phase.value,
            "old": self.old,
            "new": self.new,
            "generation": self.generation,
        }

    @classmethod
    def from_json(cls, fields: object) -> Rotation:
        """Raises ValueError for what ``to_json`` cannot have made."""
        if not isinstance(fields, dict) or set(fields) != {"phase", "old", "new", "generation"}:
            raise ValueError("not the fields of a rotation")
        phase, generation = RotationPhase(fields["phase"]), fields["generation"]
        names = [fields["old"]] if phase is RotationPhase.IDLE else [fields["old"], fields["new"]]
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise ValueError("not the name of a key")
        if type(generation) is not int or generation < 1:
            raise ValueError("not a number of keys")
        return cls(phase=phase, old=names[0], new=(*names, "")[1], generation=generation)
