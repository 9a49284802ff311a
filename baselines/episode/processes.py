"""Days spread over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
Answer = TypeVar("Answer")


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
