"""What the speed benchmarks share: alternating measurement, tables, and what machine and versions they ran on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

PACKAGES = (
    "peergrid",
    "numpy",
    "numba",
    "clarabel",
    "cvxpy",
    "qoco",
    "pandapower",
    "power-grid-model",
    "lightsim2grid",
    "grid2op",
    "gym-anm",
    "gymnasium",
    "pettingzoo",
)
NOT_INSTALLED = "not installed"

Found = dict[str, Any]


@dataclass
class Contender:
    """Something to time: `run(k)` does `units` of work in round k."""

    name: str
    run: Callable[[int], Any]
    units: int = 1
    note: str = ""
    rounds: int | None = None  # fewer than the others, for the slow
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def once(self, k: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.run(k)
        self.wall.append((time.perf_counter() - wall) / self.units)
        self.cpu.append((time.process_time() - cpu) / self.units)


def alternate(contenders: Sequence[Contender], rounds: int, what: str) -> None:
    """Every round runs each contender once, so that what slows the machine for a while slows all of them.

    Before each it repeats the round before, untimed: who is timed has had the processor's cache to himself.
    """
    for k in tqdm(range(rounds), desc=what, leave=False, disable=None):
        for contender in contenders:
            if contender.rounds is None or k < contender.rounds:
                contender.run(max(k - 1, 0))
                contender.once(k)


def timing(contender: Contender) -> Found:
    """Seconds per unit: median and 10-90 % range over the rounds, and the median of CPU time."""
    low, middle, high = np.quantile(contender.wall, (0.1, 0.5, 0.9))
    return {
        "name": contender.name,
        "note": contender.note,
        "seconds": float(middle),
        "low": float(low),
        "high": float(high),
        "cpu_seconds": float(np.median(contender.cpu)),
        "units": contender.units,
        "rounds": len(contender.wall),
    }


def against(rows: Sequence[Found], name: str) -> list[Found]:
    """The rows, each with how many times as fast as the one of that name it was."""
    its = next(row["seconds"] for row in rows if row["name"] == name)
    return [row | ({"times_as_fast": its / row["seconds"]} if "seconds" in row else {}) for row in rows]


def missing(name: str, note: str = NOT_INSTALLED) -> Found:
    """The row of a contender that can't be run here."""
    return {"name": name, "note": note}


@dataclass(frozen=True)
class Table:
    """A table as shown and as written down: words to the left, figures to the right."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @property
    def is_words(self) -> list[bool]:
        """Whether a column holds words: the first does, and "what" says what a row is."""
        return [k == 0 or heading == "what" for k, heading in enumerate(self.columns)]

    def markdown(self) -> str:
        rule = "|".join("---" if words else "---:" for words in self.is_words)
        lines = [" | ".join(row) for row in (self.columns, *self.rows)]
        return "\n".join(
            [f"**{self.title}**", "", f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])]
        )


def table(title: str, columns: Mapping[str, Callable[[Found], str]], rows: Sequence[Found]) -> Table:
    """A table from what was found; a row that lacks a figure shows a dash."""

    def cell(show: Callable[[Found], str], row: Found) -> str:
        try:
            return show(row)
        except KeyError:
            return "-"

    return Table(title, tuple(columns), [tuple(cell(show, row) for show in columns.values()) for row in rows])


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{three_digits(seconds / size)} {unit}"
    raise AssertionError


def three_digits(value: float) -> str:
    """A number to three digits."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 or rounded == 0 else f"{rounded:#.3g}"


def order_of(error: float) -> str:
    """The order of an error."""
    return f"{error:.0e}" if error else "0"


def machine() -> Found:
    """Processor, cores, memory and versions: what the figures depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _cpuinfo("model name") or platform.processor() or "unknown",
        "vectors": next((name for name in ("avx512f", "avx2") if name in _cpuinfo("flags").split()), ""),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def _cpuinfo(key: str) -> str:
    """What Linux says of the first processor; nothing on other systems."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def run_section(measure: Callable[[bool], Found]) -> None:
    """The command line of one section: measure and write what was found as JSON."""
    parser = argparse.ArgumentParser(description="Measure one section of speed.py, and print or write it as JSON.")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    parser.add_argument("--to", type=Path, help="file to write; printed if left out")
    args = parser.parse_args()
    here, start = machine(), time.perf_counter()
    found = {"machine": here, "quick": args.quick} | measure(args.quick)
    found["took_seconds"] = time.perf_counter() - start
    text = json.dumps(found, indent=1)
    if args.to is None:
        sys.stdout.write(text + "\n")
    else:
        args.to.write_text(text + "\n", encoding="utf-8")
