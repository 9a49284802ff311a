"""A batch of optimal power flows on more than one thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure
from speed_common import Contender, Found, Table, against, alternate, duration, run_section, table, three_digits, timing
from speed_problems import FAST, ProblemSet, draw_sets

from peergrid.grid.dso import SOLVERS

BATCH = 1024
ROUNDS = 30


def measure(quick: bool) -> Found:
    """Time per problem of the same batch on 1, 2, ... threads."""
    if FAST not in SOLVERS:
        return {"rows": []}
    chosen = draw_sets(64 if quick else BATCH)["slack"]
    counts = [n for n in (1, 2, 4, 8, 16) if n <= (os.cpu_count() or 1)]
    contenders = [Contender(f"{n} threads", on_threads(chosen, n), len(chosen)) for n in counts]
    alternate(contenders, 3 if quick else ROUNDS, "threads")
    return {"rows": against([timing(c) for c in contenders], contenders[0].name)}


def on_threads(chosen: ProblemSet, n: int) -> Callable[[int], Any]:
    solve = chosen.solver(FAST, threads=n)
    return lambda k: solve(chosen.problems)


def tables(found: Found) -> list[Table]:
    """A line for each number of threads."""
    columns = {
        "threads": lambda row: row["name"].split()[0],
        "per problem": lambda row: duration(row["seconds"]),
        "10-90 %": lambda row: f"{duration(row['low'])} - {duration(row['high'])}",
        "CPU": lambda row: duration(row["cpu_seconds"]),
        "times as fast as one": lambda row: three_digits(row["times_as_fast"]),
    }
    return [table(f"`{FAST}` in batch on ieee33", columns, found["rows"])]


def figures(found: Found) -> dict[str, Figure]:
    """None."""
    return {}


if __name__ == "__main__":
    run_section(measure)
