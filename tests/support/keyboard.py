"""Somebody at the keyboard of a client that asks, by SSH_ASKPASS."""

from __future__ import annotations

from pathlib import Path

#: Answers each question with the next line of a file, and writes down what was asked.
_ASKPASS = """#!/bin/sh
printf '%s\\n' "$1" >> "$ASKED"
head -n 1 "$ANSWERS"
sed -i 1d "$ANSWERS"
"""


class Keyboard:
    """The answers that will be given, and the questions that were asked. ``directory`` is its own."""

    def __init__(self, directory: Path, *answers: str) -> None:
        directory.mkdir(parents=True)
        self._prompts = directory / "asked"
        self._prompts.touch()
        program, given = directory / "askpass", directory / "answers"
        program.write_text(_ASKPASS)
        program.chmod(0o700)
        given.write_text("".join(f"{answer}\n" for answer in answers))
        self.env = {
            "SSH_ASKPASS": str(program),
            "SSH_ASKPASS_REQUIRE": "force",
            "ASKED": str(self._prompts),
            "ANSWERS": str(given),
        }

    @property
    def prompts(self) -> list[str]:
        """Return the prompts that were shown so far."""
        return self._prompts.read_text().splitlines()
