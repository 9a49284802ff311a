"""Swappable parts: given as an object, by a registered name, or as "module:attribute".

Configuration may come from others, and importing a module runs its code. So a name that a file or a command line gives
may be "module:attribute" only within peergrid, unless the environment variable PEERGRID_ALLOW_IMPORTS is 1. What Python
code hands over is not restricted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from importlib import import_module
from typing import Any

from peergrid.grid.errors import PeergridError, UnknownName

ALLOW_IMPORTS = "PEERGRID_ALLOW_IMPORTS"
NAMES_A_PART = {"names_a_part": True}  # metadata of a dataclass field, of one name or a list of them


def part_name(default: str) -> Any:
    """A dataclass field that names a part; `import_faults` looks at it when configuration fills it."""
    return field(default=default, metadata=NAMES_A_PART)


def import_faults(settings: Any, where: str = "") -> list[str]:
    """What a dataclass that configuration filled would import from outside peergrid; nothing if that is allowed.

    Args:
        where: What stands before the names of its fields, for the message.
    """
    if os.environ.get(ALLOW_IMPORTS) == "1":
        return []
    faults = []
    for f in fields(settings):
        value = getattr(settings, f.name)
        if is_dataclass(value):
            faults += import_faults(value, f"{where}{f.name}.")
        elif "names_a_part" in f.metadata:
            for name in value if isinstance(value, list) else [value]:
                if ":" in name and name.partition(":")[0].split(".")[0] != "peergrid":
                    told = f"{where}{f.name} = {name!r} would import code from outside peergrid"
                    faults.append(f"{told}: if you trust it, set {ALLOW_IMPORTS}=1 in the environment")
    return faults


def resolve(part: Any, kind: str, registered: Mapping[str, str]) -> Any:
    """The part itself: an object as it is, a name or "module:attribute" after importing its module.

    Naming a part by a string keeps its module unloaded until it is needed, and lets a lower layer name a higher one.

    Args:
        kind: What the part is, for error messages.
        registered: "module:attribute" of each known name.

    Raises:
        UnknownName: A string that is neither.
    """
    if not isinstance(part, str):
        return part
    path = registered.get(part, part)
    if ":" not in path:
        raise UnknownName(kind, part, registered, hint='An object or "module:attribute" will do as well.')
    module_name, _, attribute = path.partition(":")
    if not all(name.isidentifier() for name in (*module_name.split("."), attribute)):
        raise PeergridError(f"{kind} {part!r} is not of the form 'module:attribute'")
    try:
        return getattr(import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise PeergridError(f"{kind} {part!r}: there is no module {error.name!r}") from None
        raise
    except AttributeError:
        raise PeergridError(f"{kind} {part!r}: module {module_name!r} has no {attribute!r}") from None
