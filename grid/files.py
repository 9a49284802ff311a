"""Files that are there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from peergrid.grid.errors import PeergridError

UNFINISHED = ".partial"  # how the name of a file ends that is being written


def write_whole(path: Path, write: Callable[[Path], Any], error: type[PeergridError] = PeergridError) -> None:
    """Write a file beside its place and move it there, so that it is there whole or not at all.

    Args:
        write: Writes it to the path that it is given.
        error: What is raised if it can't be written, as where the disk is full.
    """
    # A name of its own: jobs share what they keep, and workers of a run that was killed may still be writing.
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}{UNFINISHED}")
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


def write_json(path: Path, content: Any) -> None:
    """Write numbers, arrays and nested mappings as JSON."""
    text = json.dumps(content, indent=2, default=_plain) + "\n"
    write_whole(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def remove_unfinished(folder: Path) -> None:
    """Remove from a folder what runs that were killed have left half written; no other run may be writing there."""
    for left in folder.glob(f"*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a JSON of results")
