"""What the names of a Python module mean: imports, aliases, constants, and the calls that hide a name."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from stanchion.detectors.code_rules import code_rules

_DEEPEST = 30  # steps through attributes, calls and aliases
_LONGEST_CONSTANT = 10_000  # characters of a text that is put together; a longer one is not followed
_BUILTIN_MODULES = frozenset({"builtins", "__builtins__", "__builtin__"})


class Names:
    """Meanings of names in one module, whatever the scope: the last word is with the reader of the finding.

    Aliases are followed (`import os as o`, `from os import system as s`, `run = os.system`), so are
    `from os import *`, `getattr(os, "sys" + "tem")`, `__import__("os")`, `importlib.import_module("os")`,
    `globals()["eval"]`, `os.__dict__["system"]`, `[eval][0]`, `(lambda: eval)()` and `(e := eval)`.
    """

    def __init__(self, nodes: Sequence[ast.AST]) -> None:
        self._aliases: dict[str, str] = {}
        self._values: dict[str, ast.expr] = {}
        self._own: set[str] = set()
        self._meanings: dict[tuple[str, int], str] = {}  # by name and depth: names may go round in circles
        self._constants: dict[tuple[str, int], object] = {}
        self._open_modules: dict[str, None] = {}  # whose names are all imported
        for node in nodes:
            self._learn(node)

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                self._aliases[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if alias.name == "*":
                    self._open_modules[node.module] = None
                    continue
                self._aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._own.add(node.name)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._learn_value(node.targets[0], node.value)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self._learn_value(item.optional_vars, item.context_expr)

    def _learn_value(self, target: ast.expr | None, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._values[target.id] = value

    def meaning(self, node: ast.AST, depth: int = 0) -> str:
        """The dotted name of what an expression refers to; empty when it cannot be told."""
        if depth > _DEEPEST:
            return ""
        if isinstance(node, ast.Name):
            at = (node.id, depth)
            if at not in self._meanings:
                self._meanings[at] = self._of_name(node.id, depth)
            return self._meanings[at]
        if isinstance(node, ast.Attribute):
            return self._joined(self.meaning(node.value, depth + 1), node.attr)
        if isinstance(node, ast.Subscript):
            return self._of_subscript(node, depth)
        if isinstance(node, ast.Call):
            return self._of_call(node, depth)
        if isinstance(node, ast.NamedExpr):
            return self.meaning(node.value, depth + 1)
        if isinstance(node, ast.IfExp):
            return self.meaning(node.body, depth + 1) or self.meaning(node.orelse, depth + 1)
        return ""

    def _of_name(self, name: str, depth: int) -> str:
        if name in self._aliases:
            return self._aliases[name]
        if name in self._values:
            value = self._values[name]
            if isinstance(value, ast.Attribute | ast.Name | ast.Subscript | ast.Call):
                return self.meaning(value, depth + 1) or name
            return name
        if name in self._own:
            return ""
        known = code_rules().calls
        return next((f"{each}.{name}" for each in self._open_modules if f"{each}.{name}" in known), name)

    def _written(self, node: ast.expr) -> ast.expr:
        """What a name was last assigned, where it is one; else the expression itself."""
        return self._values.get(node.id, node) if isinstance(node, ast.Name) else node

    @staticmethod
    def _joined(base: str, attribute: str) -> str:
        if not base:
            return ""
        return attribute if base in _BUILTIN_MODULES else f"{base}.{attribute}"

    def _of_subscript(self, node: ast.Subscript, depth: int) -> str:
        """`os.__dict__["system"]`, `globals()["eval"]`, `sys.modules["os"]`, `[eval][0]`."""
        key = self.constant(node.slice, depth + 1)
        listed = self._written(node.value)
        if isinstance(listed, ast.List | ast.Tuple):
            is_there = isinstance(key, int) and -len(listed.elts) <= key < len(listed.elts)
            return self.meaning(listed.elts[key], depth + 1) if is_there and isinstance(key, int) else ""
        if isinstance(listed, ast.Dict):
            named = (
                v for k, v in zip(listed.keys, listed.values, strict=True) if k and self.constant(k) == key
            )
            found = next(named, None)
            return self.meaning(found, depth + 1) if found and key is not None else ""
        if not isinstance(key, str):
            return ""
        base = self.meaning(node.value, depth + 1)
        if base == "sys.modules":
            return key
        if base in ("globals", "locals", "vars", "__dict__", *_BUILTIN_MODULES):
            return self._of_name(key, depth + 1) if key != "__builtins__" else "__builtins__"
        return self._joined(base.removesuffix(".__dict__"), key) if base.endswith(".__dict__") else ""

    def _of_call(self, node: ast.Call, depth: int) -> str:
        """What a call gives back, where that can be told: a module, an attribute, a class's instance."""
        called = self._written(node.func)
        if isinstance(called, ast.Lambda):
            return self.meaning(called.body, depth + 1)
        function = self.meaning(node.func, depth + 1)
        first = self.constant(node.args[0], depth + 1) if node.args else None
        if function in ("__import__", "importlib.import_module") and isinstance(first, str):
            return first
        if function == "getattr" and len(node.args) >= 2:
            attribute = self.constant(node.args[1], depth + 1)
            base = self.meaning(node.args[0], depth + 1)
            return self._joined(base, attribute) if isinstance(attribute, str) else ""
        if function in ("globals", "locals", "vars"):
            if function == "vars" and node.args:
                return f"{self.meaning(node.args[0], depth + 1)}.__dict__"
            return function
        if function == "functools.partial" and node.args:
            return self.meaning(node.args[0], depth + 1)
        return function

    def constant(self, node: ast.AST, depth: int = 0) -> object:
        """The value of a constant expression (texts put together included); None when it is not one."""
        if depth > _DEEPEST:
            return None
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in self._values and node.id not in self._aliases:
            at = (node.id, depth)
            if at not in self._constants:
                self._constants[at] = self.constant(self._values[node.id], depth + 1)
            return self._constants[at]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.constant(node.left, depth + 1), self.constant(node.right, depth + 1)
            if isinstance(left, str) and isinstance(right, str):
                return left + right if len(left) + len(right) <= _LONGEST_CONSTANT else None
        if isinstance(node, ast.JoinedStr):
            return _put_together("", [self.constant(value, depth + 1) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.constant(node.operand, depth + 1)
            return -value if isinstance(value, int) else None
        if isinstance(node, ast.FormattedValue):
            return self.constant(node.value, depth + 1)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            return self._reversed(node.value, node.slice.step, depth)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return self._join(node.func, node.args, depth)
        return None

    def _reversed(self, text: ast.expr, step: ast.expr | None, depth: int) -> object:
        """`"metsys"[::-1]`."""
        is_back = isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub)
        value = self.constant(text, depth + 1) if is_back else None
        return value[::-1] if isinstance(value, str) else None

    def _join(self, method: ast.Attribute, arguments: Sequence[ast.expr], depth: int) -> object:
        """`"".join(["sys", "tem"])`."""
        glue = self.constant(method.value, depth + 1) if method.attr == "join" else None
        if not isinstance(glue, str) or len(arguments) != 1:
            return None
        listed = arguments[0].elts if isinstance(arguments[0], ast.List | ast.Tuple) else []
        return _put_together(glue, [self.constant(each, depth + 1) for each in listed])

    def value_of(self, name: str) -> ast.expr | None:
        """What was last assigned to a name, as written."""
        return self._values.get(name)

    def is_constant(self, node: ast.AST) -> bool:
        """Whether an argument is written out in the code, lists and tuples of such included."""
        if isinstance(node, ast.List | ast.Tuple):
            return all(self.is_constant(each) for each in node.elts)
        if isinstance(node, ast.Starred):
            return False
        return self.constant(node) is not None or (isinstance(node, ast.Constant) and node.value is None)


def _put_together(glue: str, parts: Sequence[object]) -> str | None:
    texts = [part for part in parts if isinstance(part, str)]
    if not texts or len(texts) < len(parts):
        return None
    size = sum(map(len, texts)) + len(glue) * (len(texts) - 1)
    return glue.join(texts) if size <= _LONGEST_CONSTANT else None
