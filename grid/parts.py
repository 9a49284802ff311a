"""Swappable parts: given as an object, by a registered name, or as "module:attribute"."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from peergrid.grid.errors import PeergridError, UnknownName


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
    try:
        return getattr(import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise PeergridError(f"{kind} {part!r}: there is no module {error.name!r}") from None
        raise
    except AttributeError:
        raise PeergridError(f"{kind} {part!r}: module {module_name!r} has no {attribute!r}") from None
