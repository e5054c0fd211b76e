"""The texts of all reasons in conchrec's sources, with ``{}`` for what is filled in, by their codes.

The scenarios show what users read; this shows all that they could read. Names of variables and modules do
not matter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent.parent / "conchrec"
#: What is filled in.
GAP = "{}"
#: What a refused login says, whatever the reason; the audit has the second text.
DENIED = "Permission denied"
#: What variables were set to.
Names = dict[str, list[ast.expr]]
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Sources:
    """All modules, parsed."""

    def __init__(self) -> None:
        self.trees = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
        self._bases: dict[str, tuple[str, ...]] = {}
        self._defaults: dict[str, str] = {}
        for node in self.nodes(ast.ClassDef):
            bases = tuple(name for name in map(name_of, node.bases) if name != node.name)
            self._bases[node.name] = (*self._bases.get(node.name, ()), *bases)
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and statement.value is not None:
                    self._default(node.name, statement.target, statement.value)
                elif isinstance(statement, ast.Assign):
                    self._default(node.name, statement.targets[0], statement.value)
        self.errors = {name for name in self._bases if self._is_error(name)}

    def nodes(self, kind: type[ast.ClassDef]) -> Iterator[ast.ClassDef]:
        """All nodes of this kind."""
        for tree in self.trees.values():
            yield from (node for node in ast.walk(tree) if isinstance(node, kind))

    def _default(self, owner: str, target: ast.expr, value: ast.expr) -> None:
        if name_of(target) == "default_code":
            self._defaults[owner] = name_of(value).lower()

    def _is_error(self, name: str) -> bool:
        return name == "ConchrecError" or any(map(self._is_error, self._bases.get(name, ())))

    def default_code(self, name: str) -> str:
        """Of an error's class, or of the first class above it that has one."""
        code = self._defaults.get(name)
        return code or next((self.default_code(base) for base in self._bases.get(name, ())), "")


def name_of(node: ast.expr) -> str:
    """The last part of a dotted name; empty for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def template(node: ast.expr, names: Names) -> list[str]:
    """The texts that an expression can be; ``names`` are what variables were set to in the same function."""
    if isinstance(node, ast.Constant):
        return [node.value if isinstance(node.value, str) else GAP]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)]
    if isinstance(node, ast.IfExp):
        return template(node.body, names) + template(node.orelse, names)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template(node.left, names), template(node.right, names)
        return [prefix + suffix for prefix in left for suffix in right]
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in template(value, names)]
    if isinstance(node, ast.Name) and node.id in names:
        before = [value for value in names[node.id] if value.lineno <= node.lineno]
        nearest = max(before or names[node.id], key=lambda value: value.lineno)
        return template(nearest, {name: nodes for name, nodes in names.items() if name != node.id})
    return [GAP]


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, Names]]:
    """Each call, with what variables of its function, and of its module, were set to."""
    outer = _assigned(tree.body)

    def walk(node: ast.AST, names: Names) -> Iterator[tuple[ast.Call, Names]]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = outer | _assigned(node.body)
        if isinstance(node, ast.Call):
            yield node, names
        for child in ast.iter_child_nodes(node):
            yield from walk(child, names)

    yield from walk(tree, outer)


def _assigned(body: list[ast.stmt]) -> Names:
    names: Names = {}
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, _FUNCTION) and node is not statement:
                continue
            if (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], ast.Name)
            ):
                names.setdefault(node.targets[0].id, []).append(node.value)
    return names


def reasons(sources: Sources) -> list[str]:
    """Lines ``code | text``, sorted."""
    texts: set[str] = set()
    for path, tree in sources.trees.items():
        if path.name in ("reasons.py", "errors.py"):
            continue
        for call, names in calls(tree):
            texts.update(f"{code} | {text}" for code, text in _of(sources, call, names))
    return sorted(texts)


def _of(sources: Sources, call: ast.Call, names: Names) -> Iterator[tuple[str, str]]:
    name = name_of(call.func)
    codes = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    given = [value for value in call.args if _is_code(value)]
    texts = [value for value in call.args if not _is_code(value)]
    code: ast.expr
    if name == "ConfigError":
        code, text = ast.Name(id=sources.default_code(name)), call.args[1]
    elif name in sources.errors and call.args:
        is_denied = isinstance(call.args[0], ast.Constant) and call.args[0].value == DENIED
        text = call.args[1] if is_denied and len(call.args) > 1 else call.args[0]
        code = codes[0] if codes else ast.Name(id=sources.default_code(name))
    elif name == "Deny":
        text = next(keyword.value for keyword in call.keywords if keyword.arg == "reason")
        code = codes[0]
    elif name == "NotFollowed":
        code, text = ast.Name(id="transfer_not_followed"), call.args[0]
    elif given and texts:
        code, text = given[0], texts[0]
    else:
        return
    shown = name_of(code).lower() if name_of(code) not in ("code", "") else GAP
    for shown_text in template(text, names):
        if shown_text != GAP:
            yield shown, shown_text.replace("\n", "\\n")


def _is_code(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and name_of(node.value) == "ReasonCode"
