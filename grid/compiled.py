"""Numba functions: kept on disk between processes where possible, with a line in the log when one is compiled."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache

logger = logging.getLogger(__name__)

# `contract` lets a multiplication and an addition round once; nothing that changes what NaN and infinity do.
OPTIONS = {"error_model": "numpy", "fastmath": {"contract": True, "nsz": True}}


def compiled(function: Callable[..., Any] | None = None, *, folder: Path | None = None) -> Any:
    """The function compiled at its first call for each kind of arguments, and kept on disk for the next process.

    Numba compiles anew when the file of the function has changed. So all that a compiled function calls must be in the
    same file, or in files below `folder`, whose contents are part of the cache's key. Where neither the function's
    folder nor the user's cache folder can be written, it is compiled anew in every process.
    """
    if function is None:
        return partial(compiled, folder=folder)
    function = inspect.unwrap(function)  # tests wrap functions to check shapes, which numba can't compile
    dispatcher = numba.njit(nogil=True, **OPTIONS)(function)
    try:
        dispatcher._cache = _Cache(function)
        dispatcher._cache.sources = "" if folder is None else digest(folder)
    except RuntimeError as error:  # no place to keep it: a read-only installation without a home directory
        logger.warning("%s will be compiled anew in every process: %s", function.__name__, error)
    _ANNOUNCED[dispatcher] = function.__name__
    return dispatcher


@cache
def digest(folder: Path) -> str:
    """A digest of all Python files below a folder, by name and content."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        found.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


class _Cache(FunctionCache):
    """Numba's cache, which a full disk or a damaged file makes slow rather than useless."""

    sources = ""
    """Digest of the files that are compiled into the function beside its own."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever unpickling meets: a cut file, or a class that the code has no more
            logger.warning("%s: what was compiled before cannot be read (%r)", self._py_func.__name__, error)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            logger.warning("%s will be compiled again in the next process: %s", self._py_func.__name__, error)

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), str(OPTIONS), self.sources)


def inlined(function: Callable[..., Any]) -> Any:
    """A function to be called by compiled ones of the same file or folder, and compiled into them."""
    return numba.njit(forceinline=True, **OPTIONS)(inspect.unwrap(function))


def in_place(function: Callable[..., Any]) -> Any:
    """As `inlined`, for a function that makes no arrays: it then need not count references to those that it is given.

    In the kernel of the optimal power flow the counting took 7 to 9 % of an iteration.
    """
    return numba.njit(forceinline=True, _nrt=False, **OPTIONS)(inspect.unwrap(function))


_ANNOUNCED: dict[Any, str] = {}


class _Announcer(event.Listener):
    """Says what takes so long when one of our functions is compiled, rather than found on disk."""

    def on_start(self, event: Any) -> None:
        name = _ANNOUNCED.get(event.data["dispatcher"])
        if name:
            logger.info("compiling %s for this processor", name)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announcer())
