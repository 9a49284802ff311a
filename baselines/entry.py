"""What entry points share: settings from Hydra, days spread over processes, results on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from tqdm import tqdm

from peergrid.grid.errors import PeergridError, raise_faults
from peergrid.grid.parts import import_faults

TABLE_WIDTH = 130
COUNTS = ("days", "rounds", "steps", "check_every", "threads")
Job = TypeVar("Job")
Answer = TypeVar("Answer")
Settings = TypeVar("Settings")


def settings_from(cfg: DictConfig, schema: type[Settings]) -> Settings:
    """Hydra's configuration as a typed settings object.

    Raises:
        PeergridError: It would import code from outside, or counts something below 1; every fault is named.
    """
    merged = OmegaConf.merge(OmegaConf.structured(schema), cfg)
    settings = OmegaConf.to_object(merged)
    assert isinstance(settings, schema)
    raise_faults(PeergridError, "settings", import_faults(settings) + _too_few(settings))
    return settings


def _too_few(settings: object) -> list[str]:
    known = {name: getattr(settings, name) for name in COUNTS if hasattr(settings, name)}
    return [f"{name} is {value}, below 1" for name, value in known.items() if value < 1]


def run_all(work: Callable[[Job], Answer], jobs: Sequence[Job], workers: int, what: str) -> list[Answer]:
    """The answer to every job in order, over several processes, with a progress bar where there is a terminal.

    Args:
        workers: Number of processes; 0 for one per core.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    with tqdm(total=len(jobs), desc=what, disable=None, leave=False) as bar:

        def counted(answers: Iterable[Answer]) -> Iterator[Answer]:
            for answer in answers:
                bar.update()
                yield answer

        if workers <= 1:
            return list(counted(map(work, jobs)))
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            return list(counted(pool.map(work, jobs)))


def console_for_tables() -> Console:
    """A console as wide as its terminal, and at least as wide as our tables."""
    width = Console().width
    return Console(width=max(width, TABLE_WIDTH))


def write_json(path: Path, content: Any) -> None:
    """Write numbers, arrays and nested mappings as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nobody else's name: jobs of a sweep share what they keep.
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
    try:
        unfinished.write_text(json.dumps(content, indent=2, default=_plain) + "\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a JSON of results")
