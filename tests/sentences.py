"""Every sentence that operators may read, found in the source: what is raised, said, or a help text.

A sentence is a template, as in startup/messages.zh.toml: `no settings file at {file}`. What stands in a hole may be
one as well: words of a condition, of a variable set in the same function, or returned by a function of the package.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

from qwen_aio import errors
from qwen_aio.cli.parser import COMMANDS, module_of
from qwen_aio.config import Settings

PACKAGE = Path("qwen_aio")
ERRORS = {name: each for name, each in vars(errors).items() if isinstance(each, type)}
SETUP_ERRORS = {name for name, each in ERRORS.items() if issubclass(each, errors.SetupError)}
# Where errors of any kind are printed. Others reach clients, in a language of their own.
PRINTED = ("cli/", "client/async_client.py", "routing.py", "startup/", "visible.py")
SAID = {
    "say",
    "phase",
    "report",
    "_report",
    "_progress",
    "translated",
    "line_of",
    "warn",
    "_note",
    "add_argument_group",
}
REPORTS_ELSEWHERE = ("balancer/", "worker/")  # to other programs
KEYWORDS = {"help", "announce", "memory"}
PASSED_ON = {"one_line", "str", "translated"}  # return what they are given
# Functions that make lists of sentences, and properties.
LISTS = {
    "_difference",
    "differences",
    "_hints",
    "_problems",
    "_overruling",
    "_compare_same",
    "_compare_changed",
    "examine",
    "some_names",
    "_judged",
    "find_model",
    "choose_kernel",
    "why_foreign",
    "_check",
    "_token_hint",
    "_describe_engine",
    "_describe_origin",
    "best",
    "savings",
    "described_server",
    "_owner",
    "_why_unwritable",
    "hash_findings",
}
# What is printed, and which field is its first text.
RECORDS = {"EngineChoice": 1, "Finding": 1, "HashState": 0, "KernelChoice": 1, "PrecisionRecord": 1}
# The installer of a bundle runs before this package is there, so its sentences, in both languages, lie in itself.
STAND_ALONE = PACKAGE / "bundling/top"
STRINGS_OF_REPLIES = {"bounds.py"}  # whose __str__ is for the messages of requests
NO_SENTENCES = ("http{", "curl ", "--host", "chmod ", "export ", "torch {")  # what is the same in every language
WORDS = re.compile(r"[a-z]{3,}")
SEVERAL_WORDS = re.compile(r"[A-Za-z]{2,} [a-z]{2,}|[a-z]{2,} [A-Za-z]{2,}")


@dataclass
class Module:
    path: Path
    tree: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)
    functions: dict[str, ast.AST] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Module:
        module = cls(path, ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(module.tree):
            module.parents |= dict.fromkeys(ast.iter_child_nodes(node), node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                module.functions[node.name] = node
        return module

    def function_around(self, node: ast.AST) -> ast.AST | None:
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return node
        return None


class Sentences:
    """All of the package; `found` is template -> where."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.printed: dict[str, str] = {}  # in English whatever the language is
        self._modules = [Module.read(path) for path in sorted(PACKAGE.rglob("*.py")) if STAND_ALONE not in path.parents]
        self._open: list[ast.AST] = []  # what is being read: variables and functions may lead to themselves
        for module in self._modules:
            for node in ast.walk(module.tree):
                self._read_node(module, node)
        self._read_help()

    @cached_property
    def shapes(self) -> set[tuple[str, ...]]:
        """The texts around the holes of every string in the source, whatever it is for."""
        nodes = [node for module in self._modules for node in ast.walk(module.tree)]
        strings = [node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)]
        plain = {texts_of(template) for node in strings for template in _literal(node)}
        raw = [node.value for node in strings if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        docstrings = {(line,) for text in raw for line in text.splitlines()[:1]}
        return plain | docstrings | {texts_of(text) for text in raw if _is_template(text)} | self._concatenated

    @cached_property
    def _concatenated(self) -> set[tuple[str, ...]]:
        return {texts_of(template) for template in self.found}

    def _read_node(self, module: Module, node: ast.AST) -> None:
        where = f"{module.path}:{getattr(node, 'lineno', 0)}"
        place = module.path.relative_to(PACKAGE).as_posix()
        if isinstance(node, ast.Call):
            name = _name_called(node)
            is_raised = name in SETUP_ERRORS or (name in ERRORS and place.startswith(PRINTED))
            is_said = name in SAID and not ("report" in name and place.startswith(REPORTS_ELSEWHERE))
            is_ours = is_said or is_raised or (name == "ValueError" and place == "config.py")
            for text in node.args if name == "say" and is_said else node.args[:1] if is_ours else ():
                self._add(module, text, where)
            for text in node.args[RECORDS[name] :] if name in RECORDS else ():
                self._add(module, text, where)
            if name == "ArgumentParser":
                self._add(
                    module, next((each.value for each in node.keywords if each.arg == "description"), None), where
                )
            for text in node.args if name == "print" else ():
                words = [
                    each for each in self._alternatives(module, text, where) if WORDS.search(" ".join(texts_of(each)))
                ]
                self.printed |= dict.fromkeys(words, where)
            for keyword in node.keywords:
                if keyword.arg in KEYWORDS:
                    value = keyword.value
                    self._add(module, value.body if isinstance(value, ast.Lambda) else value, where)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == "__str__" and place not in STRINGS_OF_REPLIES:
                for returned in _returned(node):
                    self._add(module, returned, where)
            if node.name in LISTS:
                for text in _strings_in(node):
                    self._add(module, text, where)

    def _read_help(self) -> None:
        for name, setting in Settings.model_fields.items():
            self.found.setdefault(_escaped(setting.description or ""), f"config.py: {name}")
        for command in COMMANDS:
            text = module_of(command).__doc__ or ""
            for each in (text, text.splitlines()[0]):
                self.found.setdefault(_escaped(each), f"the docstring of {command}")

    def _add(self, module: Module, node: ast.expr | None, where: str, *, needs: re.Pattern[str] = WORDS) -> None:
        for template in self._alternatives(module, node, where):
            if needs.search(" ".join(texts_of(template))) and not template.startswith(NO_SENTENCES):
                self.found.setdefault(template, where)

    def _alternatives(self, module: Module, node: ast.expr | None, where: str) -> list[str]:
        """The templates that `node` may be; what stands in their holes is added."""
        if node is None or node in self._open:
            return []
        self._open.append(node)
        found = self._read(module, node, where)
        self._open.pop()
        return found

    def _read(self, module: Module, node: ast.expr, where: str) -> list[str]:
        match node:
            case ast.Constant(value=str(text)):
                return [_escaped(text)]
            case ast.JoinedStr(values=values):
                for value in values:
                    if isinstance(value, ast.FormattedValue):
                        self._add_inner(module, value.value, where)
                return [*_literal(node)]
            case ast.IfExp(body=one, orelse=other):
                return [each for part in (one, other) for each in self._alternatives(module, part, where)]
            case ast.BoolOp(values=values):
                return [each for value in values for each in self._alternatives(module, value, where)]
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                both = (self._alternatives(module, part, where) for part in (left, right))
                return ["".join(pair) for pair in product(*both)]
            case ast.Await(value=value):
                return self._alternatives(module, value, where)
            case ast.Name(id=name):
                found = _assigned(module.function_around(node) or module.tree, name) or self._constants(module, name)
                return [each for value in found for each in self._alternatives(module, value, where)]
            case ast.Call():
                return self._of_call(module, node, where)
        return []

    def _of_call(self, module: Module, node: ast.Call, where: str) -> list[str]:
        name = _name_called(node)
        if name in PASSED_ON and node.args:
            return self._alternatives(module, node.args[0], where)
        if name == "format" and isinstance(node.func, ast.Attribute):
            for keyword in node.keywords:
                self._add_inner(module, keyword.value, where)
            templates = self._alternatives(module, node.func.value, where)
            return [each.replace("{{", "{").replace("}}", "}") for each in templates]
        is_method = isinstance(node.func, ast.Attribute)
        if is_method and getattr(node.func.value, "id", "") != "self":
            return []
        others = [] if is_method or name.startswith("_") else self._modules
        places = [each for each in (module, *others) if name in each.functions]
        return [
            each
            for place in places[:1]
            for value in _returned(place.functions[name])
            for each in self._alternatives(place, value, where)
        ]

    def _add_inner(self, module: Module, node: ast.expr, where: str) -> None:
        self._add(module, node, where, needs=SEVERAL_WORDS)

    def _constants(self, module: Module, name: str) -> list[ast.expr]:
        """What a name of a module stands for: of this one, or of another that it may come from."""
        if not name.isupper():
            return []
        own = _assigned(module.tree, name, is_deep=False)
        return own or [value for each in self._modules for value in _assigned(each.tree, name, is_deep=False)]


def texts_of(template: str) -> tuple[str, ...]:
    """What stands around the holes."""
    parts = re.split(r"(?<!\{)((?:\{\{)*)\{\w*\}(?!\})", template)
    texts = [parts[0]]
    for escaped, text in zip(parts[1::2], parts[2::2], strict=True):
        texts[-1] += escaped
        texts.append(text)
    return tuple(text.replace("{{", "{").replace("}}", "}") for text in texts)


def _is_template(text: str) -> bool:
    return bool(re.search(r"\{\w+\}", text))


def _literal(node: ast.AST) -> Iterator[str]:
    """The template that a string in the source is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield _escaped(node.value)
    elif isinstance(node, ast.JoinedStr):
        names: list[str] = []
        parts = []
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                names.append(_hole_name(value.value, names))
                parts.append(f"{{{names[-1]}}}")
            else:
                assert isinstance(value, ast.Constant)
                parts.append(_escaped(str(value.value)))
        yield "".join(parts)


def _hole_name(node: ast.expr, taken: list[str]) -> str:
    """A word for what stands there: a proposal for the table."""
    words = [each for each in re.findall(r"[a-z_][a-z_0-9]*", ast.unparse(node)) if len(each) > 1]
    chosen = words[-1].strip("_") if words else "value"
    return chosen if chosen not in taken else f"{chosen}_{len(taken)}"


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _name_called(node: ast.Call) -> str:
    return getattr(node.func, "id", "") or getattr(node.func, "attr", "")


def _returned(function: ast.AST) -> list[ast.expr]:
    return [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]


def _assigned(scope: ast.AST, name: str, *, is_deep: bool = True) -> list[ast.expr]:
    nodes = ast.walk(scope) if is_deep else ast.iter_child_nodes(scope)
    found: list[ast.expr] = []
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                found.append(value)
            case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                found.append(value)
    return found


def _strings_in(function: ast.AST) -> list[ast.expr]:
    """But the docstring, and the parts of others."""
    body = getattr(function, "body", [])
    nodes = [node for statement in body[1:] for node in ast.walk(statement)]
    inner = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node}
    strings = [node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant) and node not in inner]
    return [each for each in strings if isinstance(each, ast.JoinedStr) or SEVERAL_WORDS.search(ast.unparse(each))]
