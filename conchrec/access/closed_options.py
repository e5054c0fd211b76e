"""Says why an option of a login is closed: which role closes it, or the user's certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conchrec.access.certificate_permits import permit_of
from conchrec.access.options import SHORTHANDS, SWITCHES
from conchrec.access.policy import CERTIFICATE
from conchrec.access.role import Role


@dataclass(frozen=True, slots=True)
class ClosedOption:
    """Why an option is closed: the ``setting`` as it is written, and the ``rule`` for the audit.

    ``permit`` is the missing extension, if the user's certificate closes the option.
    """

    setting: str
    rule: str
    permit: str = ""

    @property
    def why(self) -> str:
        """The reason, for the user."""
        if self.permit:
            return f"your certificate has no {self.permit}"
        if self.setting != "commands":
            return f"{self.setting}: no"
        return "commands: the role allows only listed commands"


def find_closed_option(roles: Sequence[Role], option: str) -> ClosedOption:
    """Return which of the roles that together allow a login closes an option, a switch or ``commands``."""
    settings = (option, *(short for short, names in SHORTHANDS.items() if option in names))

    def find_setting(role: Role) -> str:
        """The setting with which this role alone closes the option; empty where it does not."""
        if role.options.switches.get(option) is False:
            return next((name for name in settings if f"options.{name}" in role.lines), option)
        has_commands = role.options.commands is not None
        # A role with commands closes some options that are open by default.
        closes = option == "commands" or (SWITCHES[option] and not role.options.opens(option))
        return "commands" if has_commands and closes else ""

    closing = [(role, setting) for role in roles if (setting := find_setting(role))]
    # A role that says no comes before one that lists commands.
    for role, setting in sorted(closing, key=lambda item: item[1] == "commands"):
        if role.name == CERTIFICATE:
            permit = permit_of(option)
            return ClosedOption(setting, f"certificate: no {permit}", permit)
        line = role.line(f"options.{setting}")
        return ClosedOption(setting, f"role {role.name}: {setting}" + (f" (line {line})" if line else ""))
    names = ", ".join(role.name for role in roles if role.name != CERTIFICATE)
    return ClosedOption(option, f"{option}: no active role allows it ({names})")
