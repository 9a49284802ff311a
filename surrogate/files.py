"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from peergrid.grid.errors import InvalidDataset, PeergridError


def write_whole(path: Path, write: Callable[[Path], Any], error: type[PeergridError] = InvalidDataset) -> None:
    """Write a file beside its place and move it there, so that it is there whole or not at all.

    Args:
        error: What is raised if it can't be written, as where the disk is full.
    """
    # A name of its own: workers of a run that was killed may still be writing what the next run begins anew.
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        unfinished.replace(path)
    except OSError as cause:
        raise error(
            f"{path} can't be written ({cause.strerror or cause}): make room and run again; what is there is kept"
        ) from None
    finally:
        with suppress(OSError):  # there is none where all went well
            unfinished.unlink()
