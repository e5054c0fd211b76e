"""The reference of config.yaml, from the dataclasses of ``conchrec.config`` and ``conchrec.access``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from conchrec.access.command_patterns import CommandPattern
from conchrec.access.options import SHORTHANDS, SWITCHES, TABLE, OptionRow, RoleOptions
from conchrec.access.patterns import HostPattern
from conchrec.access.role import Role
from conchrec.access.time_windows import Window
from conchrec.config import loader
from conchrec.config.changes import waits
from conchrec.config.fields import names_in_file
from conchrec.config.model import (
    Audit,
    Config,
    ConfiguredUser,
    Limits,
    Recordings,
    Retention,
    Startups,
    TargetRule,
    TrustedHosts,
    Web,
)
from conchrec.config.roles import DENY, OPTIONS, ROLE
from conchrec.errors import ConfigErrors
from conchrec.yaml_cursor import Section, as_written
from tests.docs import markdown
from tests.docs.attribute_docs import AttributeDoc, attribute_docs

MINIMAL = b"state_dir: /STATE_DIR\nusers: {}\nroles: {}\n"
"""A configuration with nothing but its defaults."""
_FILE = Path("/etc/conchrec/config.yaml")
_NAMES = {"users": "joe", "roles": "ops", "targets": "db"}
"""In examples, the name below these keys."""
_SECTIONS: Mapping[str, type[Any]] = {
    "trusted_hosts": TrustedHosts,
    "users": ConfiguredUser,
    "roles": Role,
    "targets": TargetRule,
    "limits": Limits,
    "recordings": Recordings,
    "audit": Audit,
    "web": Web,
}
"""Keys whose value is a mapping with a section of its own, and what it becomes."""
_KINDS: Mapping[object, str] = {
    bool: "`yes` or `no`",
    timedelta: "[duration](#durations)",
    str: "text",
    bytes: "text",
    Path: "[path](#paths)",
    HostPattern: "host pattern",
    CommandPattern: "command pattern",
    Window: "time window",
    datetime: "time",
    Startups: "number, or `begin:percent:full`",
}
EXAMPLE_KEYS = "- ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIt2j4hDyf0ZpGYzmJ4xrO6kUwJ0QwEeDpDqfXGQ3s1V joe@laptop"
"""An example of lines of authorized_keys."""
_PLURALS: Mapping[str, str] = {
    "[path](#paths)": "[paths](#paths)",
    "address or network": "addresses and networks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key. ``path`` has NAME where the file has a name; ``default`` is empty for a required key.
    ``example`` is the value, as YAML; ``words`` explain the values of an enumeration."""

    path: str
    kind: str
    default: str
    about: str
    example: str
    required: bool = False
    words: tuple[tuple[str, str], ...]

    @property
    def waits(self) -> bool:
        """A change takes effect at the next start."""
        section, _, rest = self.path.partition(".")
        return waits(section) or waits(f"{section}.{rest.partition('.')[0]}")

    def example_yaml(self) -> str:
        """The example, with the keys above it."""
        parts = [_NAMES[above] if part == "NAME" else part for above, part in _with_parents(self.path)]
        text = "\n".join(f"{'  ' * depth}{part}:" for depth, part in enumerate(parts))
        lines = f"\n{'  ' * len(parts)}" if self.example.startswith("- ") else " "
        return f"{text}{lines}{self.example}\n"


def _with_parents(path: str) -> Iterator[tuple[str, str]]:
    parts = path.split(".")
    yield from zip(["", *parts], parts, strict=False)


# -- all settings


def sections() -> dict[Setting | None, list[Setting]]:
    """All settings, by the setting whose mapping they are in; None: at the top level."""
    top = {setting.path: setting for setting in _of_class(Config, "", without=("file", "warnings"))}
    by_section: dict[Setting | None, list[Setting]] = {
        None: [setting for path, setting in top.items() if path not in _SECTIONS]
    }
    for key, kind in _SECTIONS.items():
        prefix = f"{key}.NAME" if key in _NAMES else key
        below = list(_role(prefix) if kind is Role else _of_class(kind, prefix))
        nested = [setting for setting in below if setting.path in _NESTED]
        by_section[top[key]] = [setting for setting in below if setting not in nested]
        for setting in nested:
            by_section[setting] = list(_NESTED[setting.path](setting.path))
    return by_section


def settings() -> list[Setting]:
    """All settings, in the order of the page."""
    return [
        setting
        for section, group in sections().items()
        for setting in (*([] if section is None else [section]), *group)
    ]


def _of_class(kind: type[Any], prefix: str, *, without: tuple[str, ...] = ()) -> Iterator[Setting]:
    docs, hints = attribute_docs(kind), get_type_hints(kind)
    for item in fields(kind):
        if item.name in without or (item.name not in docs and prefix.endswith("NAME")):
            continue
        for number, key in enumerate(names_in_file(item)):
            path = f"{prefix}.{key}" if prefix else key
            doc = docs[item.name]
            if number > 0:
                doc = AttributeDoc(text=f"See `{names_in_file(item)[0]}`.", example=EXAMPLE_KEYS)
            yield _setting(path, hints[item.name], item, doc)


def _role(prefix: str) -> Iterator[Setting]:
    docs, hints = attribute_docs(Role), get_type_hints(Role)
    items = {item.name: item for item in fields(Role)}
    for key in ROLE:
        names = [(f"deny.{part}", f"deny_{part}") for part in DENY] if key == "deny" else [(key, key)]
        for path, name in names:
            yield _setting(f"{prefix}.{path}", hints[name], items[name], docs[name])


def _options(prefix: str) -> Iterator[Setting]:
    docs, hints = attribute_docs(Role), get_type_hints(Role)
    items = {item.name: item for item in fields(Role)}
    rows = {row.name: row for row in TABLE}
    for key in OPTIONS:
        path = f"{prefix}.{key}"
        if key in rows:
            yield _option(path, rows[key])
        else:
            yield _setting(path, hints[key], items[key], docs[key])


def _option(path: str, row: OptionRow) -> Setting:
    switch = row.name in SWITCHES or row.name in SHORTHANDS
    hint: object = bool if switch else get_type_hints(RoleOptions)[row.name]
    words = _words(hint)
    opposite = "no" if row.default == "yes" else "yes"
    return Setting(
        path=path,
        kind=_kind(hint, {}),
        default=row.default if " " in row.default else markdown.code(row.default),
        about=f"{row.about[0].upper()}{row.about[1:]}. Of several roles: {row.adds.value}.",
        example=row.example or (opposite if switch else row.default),
        words=words,
    )


def _setting(path: str, hint: object, item: Field[Any], doc: AttributeDoc) -> Setting:
    section = path in _SECTIONS or path in _NESTED
    default = "" if section else _default(path, item)
    return Setting(
        path=path,
        kind=doc.type or ("mapping" if section else _kind(hint, item.metadata)),
        default=default,
        about=doc.text,
        example=doc.example or ("" if section else default.strip("`")),
        required=path in _required(),
        words=_words(hint),
    )


_NESTED: Mapping[str, Callable[[str], Iterator[Setting]]] = {
    "roles.NAME.options": _options,
    "recordings.retention": partial(_of_class, Retention),
}
"""Mappings inside of a section, with sections of their own."""


# -- types and defaults


def _kind(hint: object, metadata: Mapping[str, Any]) -> str:
    parts = [part for part in get_args(hint) if part not in (NoneType, ...)]
    if get_origin(hint) in (Union, UnionType):
        return _kind(parts[0], metadata) if len(set(map(str, parts))) == 1 else "address or network"
    if get_origin(hint) in (tuple, frozenset):
        kind = "address or network" if "IPv4Network" in str(parts[0]) else _kind(parts[0], metadata)
        return f"list of {kind if kind.startswith('`') else _PLURALS.get(kind, f'{kind}s')}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        *words, last = (f"`{word.value}`" for word in hint)
        return f"{', '.join(words)} or {last}"
    if hint is int:
        if metadata.get("size"):
            return "[size](#sizes)"
        bounds = inspect.signature(Section.integer).parameters
        least, most = (metadata.get(name, bounds[name].default) for name in ("least", "most"))
        return f"number from {least} to {most}"
    if get_origin(hint) is not None:
        return "mapping"
    return _KINDS.get(hint, "text")


def _words(hint: object) -> tuple[tuple[str, str], ...]:
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and issubclass(part, Enum):
            docs = attribute_docs(part)
            return tuple((str(word.value), docs[word.name].text) for word in part)
    return ()


def _default(path: str, item: Field[Any]) -> str:
    """What counts without the key: from a configuration of defaults, or from the field."""
    if "NAME" in path:
        value = item.default if item.default is not MISSING else None
    else:
        value = loader.parse(MINIMAL, _FILE)
        for part in path.split("."):
            value = getattr(value, part)
        if path == "state_dir":
            value = loader.parse(MINIMAL.partition(b"\n")[2], _FILE).state_dir
    return _written(value, item)


def _written(value: object, item: Field[Any]) -> str:
    if value is None or value in ("", b"") or (isinstance(value, tuple | Mapping) and not value):
        return "none"
    if isinstance(value, bool):
        return "`yes`" if value else "`no`"
    if isinstance(value, timedelta):
        return f"`{as_written(value)}`"
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(_written(part, item).strip('`') for part in value)}]`"
    if isinstance(value, Startups):
        return f"`{value.begin}:{value.rate}:{value.full}`"
    if item.metadata.get("size") and value:
        return f"`{_size(int(str(value)))}`"
    text = str(value).replace("/STATE_DIR", "STATE_DIR")
    return f'`"{text}"`' if " " in text else f"`{text}`"


def _size(value: int) -> str:
    unit = next(unit for unit in (2**30, 2**20, 2**10) if value % unit == 0)
    return f"{value // unit}{ {2**30: 'GiB', 2**20: 'MiB', 2**10: 'KiB'}[unit] }"


def _required() -> frozenset[str]:
    """The keys without which a configuration is refused."""
    try:
        loader.parse(b"cluster_name: example.com\n", _FILE)
    except ConfigErrors as errors:
        return frozenset(error.path for error in errors.errors)
    raise AssertionError("nothing is required")


# -- the page


def contents() -> str:
    """Links to all sections."""
    return markdown.contents(map(_heading, sections()))


def page() -> str:
    """All settings, section by section."""
    parts = []
    for section, group in sections().items():
        parts.append(f"## {_heading(section)}\n")
        if section is not None:
            parts.append(_description(section))
        for setting in group:
            parts += [f"### `{setting.path}`\n", _description(setting)]
    return "\n".join(parts)


def _heading(section: Setting | None) -> str:
    return "Top level" if section is None else f"`{section.path}`"


def _description(setting: Setting) -> str:
    facts = f"Type: {setting.kind}."
    if setting.required:
        facts += " Required."
    elif setting.default and not (setting.default == "none" and "default" in setting.about):
        facts += f" Default: {setting.default}."
    if setting.waits:
        facts += " A change takes effect at the next start."
    parts = [markdown.from_docstring(setting.about), markdown.wrap(facts) + "\n"]
    if setting.words:
        words = (f"`{word}`: {text}" for word, text in setting.words)
        parts.append("".join(markdown.item(word) for word in words))
    if setting.example:
        parts.append(markdown.yaml(setting.example_yaml()))
    return "\n".join(parts)
