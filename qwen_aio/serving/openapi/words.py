"""What stands below the fields of the shapes, for the document.

Read from the sources once the document is asked for. pydantic's `use_attribute_docstrings` reads them whenever a
program is imported, which takes 0.1 s of each start.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Collection
from itertools import pairwise
from types import ModuleType

from pydantic import BaseModel

FieldWords = dict[str, str]  # field -> what it is


def words_of_fields(names: Collection[str]) -> dict[str, FieldWords]:
    """Class name -> the words below its fields, inherited ones too, for classes of the package among `names`."""
    own: dict[type, FieldWords] = {}
    ours = [module for name, module in sys.modules.items() if name.startswith("qwen_aio.")]
    for module in ours:
        if getattr(module, "__file__", None):  # not a folder that holds no package, such as bundling/top
            own |= _own_words(module)
    return {
        kind.__name__: {
            _name_on_the_wire(kind, field): text
            for base in reversed(kind.__mro__)
            for field, text in own.get(base, {}).items()
        }
        for kind in own
        if kind.__name__ in names
    }


def _name_on_the_wire(kind: type, field: str) -> str:
    known = kind.model_fields.get(field) if issubclass(kind, BaseModel) else None
    return (known.alias if known else None) or field


def _own_words(module: ModuleType) -> dict[type, FieldWords]:
    """Class of `module` -> the words below the fields that it declares itself."""
    nodes = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
    return {kind: found for node in nodes if (found := _words_below(node)) and (kind := vars(module)[node.name])}


def _words_below(node: ast.ClassDef) -> FieldWords:
    found = {}
    for field, below in pairwise(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(text, str):
                found[field.target.id] = inspect.cleandoc(text)
    return found
