"""One job of a sweep: a folder of its own, found again by what the job is, with what it was and how it ended.

`run.json` says what was run, by which version, when and on what; `DONE` or `FAILED` (with the traceback) how it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from threadpoolctl import threadpool_limits

import peergrid
from peergrid.grid.files import write_json

RUN, RESULT, DONE, FAILED = "run.json", "result.json", "DONE", "FAILED"
# Where libraries look, when they are loaded, how many threads they may have.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# What changes nothing of what a job finds.
NOT_OF_THE_JOB = ("output", "cache", "redo", "threads")


def run_job(
    name: str, settings: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]], say: Callable[[str], None]
) -> dict[str, Any]:
    """Do a job in its folder unless it is done there, and write how it ended; returns what it found.

    Args:
        name: What the folder's name begins with.
        settings: All of the job's settings.
        work: Does the job in the folder, going on with what an interrupted run left there, and returns its result.
        say: Tells a person how it goes.
    """
    own = {key: value for key, value in settings.items() if key not in NOT_OF_THE_JOB}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(settings["output"]) / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}-{digest}"
    if (folder / DONE).is_file() and not settings["redo"]:
        say(f"{folder} is done")
        return _result(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for mark in (DONE, FAILED):
        (folder / mark).unlink(missing_ok=True)
    about = {
        "name": name,
        "settings": dict(settings),
        "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "version": peergrid.__version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    write_json(folder / RUN, about)
    start = time.perf_counter()
    try:
        with _limited_to(int(settings["threads"])):
            result = work(folder)
    except Exception:
        (folder / FAILED).write_text(traceback.format_exc(), encoding="utf-8")
        raise
    write_json(folder / RESULT, dict(result))
    write_json(folder / DONE, {"seconds": time.perf_counter() - start, "ended": time.strftime("%Y-%m-%d %H:%M:%S")})
    say(f"{folder} is done, in {time.perf_counter() - start:.0f} s")
    return _result(folder)


@contextmanager
def _limited_to(threads: int) -> Iterator[None]:
    """Keeps libraries to so many threads: those that are loaded, and by the environment those that the work loads."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ |= dict.fromkeys(THREADS, str(threads))
    try:
        with threadpool_limits(threads):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return found
