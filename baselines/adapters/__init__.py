"""Batches of markets as libraries of learning algorithms want them; each module needs its library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peergrid.grid.errors import MissingLibrary


@contextmanager
def needs(library: str, extra: str) -> Iterator[None]:
    """Says which extra of peergrid brings a library along, should an import of it fail."""
    try:
        yield
    except ModuleNotFoundError as error:
        advice = f"there is no module {error.name!r}; {library} comes with: pip install 'peergrid[{extra}]'"
        raise MissingLibrary(advice, name=error.name) from error
