"""What modules, classes and functions say of themselves, read from their source: nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

PACKAGE = "peergrid"


def docstring(target: str) -> str:
    """The docstring of a module of peergrid, or of one of its classes or functions as "module:attribute"."""
    module, _, attribute = target.partition(":")
    tree = _tree(module)
    if not attribute:
        return ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.ImportFrom) and attribute in [a.asname or a.name for a in node.names]:
            original = next(a.name for a in node.names if (a.asname or a.name) == attribute)
            return docstring(f"{node.module}:{original}")
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            return docstring(f"{module}:{ast.unparse(node.value)}")
    return ""


def first_sentence(text: str) -> str:
    """The first sentence of a docstring or comment, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    found = re.match(r".*?[.?!](?=\s|$)", paragraph)
    return (found.group() if found else paragraph).rstrip(".")


def commands() -> tuple[str, ...]:
    """The modules that `python -m` runs, apart from peergrid itself."""
    found = [f"{PACKAGE}.{name}" for name, file in _modules(resources.files(PACKAGE)) if _is_command(file)]
    return tuple(sorted(found))


def _is_command(file: Traversable) -> bool:
    return file.name != "__main__.py" and '\nif __name__ == "__main__":' in file.read_text(encoding="utf-8")


def _modules(folder: Traversable, above: str = "") -> Iterator[tuple[str, Traversable]]:
    for part in folder.iterdir():
        if part.is_dir() and part.name.isidentifier():
            yield from _modules(part, f"{above}{part.name}.")
        elif part.name.endswith(".py"):
            yield f"{above}{part.name.removesuffix('.py')}", part


@lru_cache
def _tree(module: str) -> ast.Module:
    above, name = module.split(".")[1:-1], module.split(".")[-1]
    folder = resources.files(PACKAGE).joinpath(*above)
    file = folder / name / "__init__.py" if (folder / name).is_dir() else folder / f"{name}.py"
    return ast.parse(file.read_text(encoding="utf-8"))
