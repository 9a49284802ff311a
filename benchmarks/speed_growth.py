"""Growth of an optimal power flow's time with the number of buses, next to raw Clarabel's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from speed_common import (
    Contender,
    Found,
    Table,
    alternate,
    duration,
    order_of,
    run_section,
    table,
    three_digits,
    timing,
)
from speed_cones import RawClarabel
from speed_figures import lines
from speed_opf import cost, judged, one_by_one
from speed_problems import FAST, ProblemSet, draw_query, feeders_by_size

from peergrid.grid import Feeder, OpfDso
from peergrid.grid.dso import SOLVERS

BUSES_PER_TRADE = 12
ROUNDS, ROUNDS_OF_LARGE = 12, 4
SLICE, SLICE_OF_LARGE = 8, 1  # problems of a round
LARGE = 1000  # buses
LARGEST_BATCH, BUSES_IN_BATCH = 1024, 200_000
RAW = "Clarabel, raw"
SINGLE, BATCH = f"peergrid `{FAST}`", f"peergrid `{FAST}`, batch"


def measure(quick: bool) -> Found:
    """Time, iterations and costs on every feeder; on the smaller ones alone if it is to be quick."""
    rows: list[Found] = []
    for name, feeder in feeders_by_size().items():
        is_large = feeder.n_bus > LARGE
        if not (quick and is_large):
            rounds = ROUNDS_OF_LARGE if quick or is_large else ROUNDS
            found = on_feeder(feeder, rounds, SLICE_OF_LARGE if is_large else SLICE)
            rows += [{"feeder": name, "n_bus": feeder.n_bus} | row for row in found]
    return {"rows": rows}


def on_feeder(feeder: Feeder, rounds: int, size: int) -> list[Found]:
    """Each solver on the same problems; a trade on every twelfth bus, and load to shed wherever there is some."""
    batch = int(np.clip(BUSES_IN_BATCH // feeder.n_bus, rounds * size, LARGEST_BATCH))
    trade_bus = np.arange(BUSES_PER_TRADE // 2, feeder.n_bus, BUSES_PER_TRADE)
    dso = OpfDso(feeder, trade_bus, solver=unsolved)
    proposal_kw = 2.0 * feeder.base_kva / len(trade_bus)
    chosen = ProblemSet(dso, draw_query(dso, batch, np.random.default_rng(0), proposal_kw))
    solvers: dict[str, Any] = {RAW: RawClarabel(chosen.problems, chosen.has_free_q)}
    if FAST in SOLVERS:
        solvers[SINGLE] = chosen.solver(FAST)
    contenders = [Contender(name, one_by_one(solve, chosen.rows, size), size) for name, solve in solvers.items()]
    if FAST in SOLVERS:
        contenders.append(Contender(BATCH, lambda k: solvers[SINGLE](chosen.problems), batch, f"{batch} at once"))
    alternate(contenders, rounds, feeder.name)
    checked = chosen.rows[: rounds * size]
    answers = {name: np.array([cost(solve(row)) for row in checked]).T for name, solve in solvers.items()}
    if FAST in SOLVERS:
        answers[BATCH] = cost(solvers[SINGLE](chosen.problems))
    return [timing(c) | judged(answers[c.name], answers[RAW][0]) for c in contenders]


def unsolved(*shape: Any) -> None:
    """Stands in for a solver where a DSO is asked for its problems alone."""


def tables(found: Found) -> list[Table]:
    """Two tables of a line for each feeder."""
    of_feeder: dict[str, dict[str, Found]] = {}
    for row in found["rows"]:
        of_feeder.setdefault(row["feeder"], {})[row["name"]] = row

    def per_iteration_and_bus(row: Found) -> str:
        return f"{three_digits(1e9 * row['seconds'] / (row['iterations'] * row['n_bus']))} ns"

    name: dict[str, Callable[[Any], str]] = {
        "feeder": lambda rows: rows[RAW]["feeder"],
        "buses": lambda rows: f"{rows[RAW]['n_bus']:,}",
    }
    times = name | {
        "raw Clarabel": lambda rows: duration(rows[RAW]["seconds"]),
        "one by one": lambda rows: duration(rows[SINGLE]["seconds"]),
        "batch": lambda rows: duration(rows[BATCH]["seconds"]),
        "of": lambda rows: str(rows[BATCH]["units"]),
        "raw Clarabel / one by one": lambda rows: three_digits(rows[RAW]["seconds"] / rows[SINGLE]["seconds"]),
        "raw Clarabel / batch": lambda rows: three_digits(rows[RAW]["seconds"] / rows[BATCH]["seconds"]),
        "one by one / batch": lambda rows: three_digits(rows[SINGLE]["seconds"] / rows[BATCH]["seconds"]),
    }
    iterations = name | {
        "iterations": lambda rows: f"{rows[SINGLE]['iterations']:.1f}",
        "Clarabel's": lambda rows: f"{rows[RAW]['iterations']:.1f}",
        "per iteration and bus": lambda rows: per_iteration_and_bus(rows[SINGLE]),
        "in batch": lambda rows: per_iteration_and_bus(rows[BATCH]),
        "Clarabel's time": lambda rows: per_iteration_and_bus(rows[RAW]),
        "cost off by": lambda rows: order_of(rows[SINGLE]["cost_difference"]),
        "unsolved": lambda rows: str(rows[SINGLE]["unsolved"] + rows[BATCH]["unsolved"]),
        "Clarabel's unsolved": lambda rows: str(rows[RAW]["unsolved"]),
    }
    shown = list(of_feeder.values())
    return [
        table(f"Time per OPF, `{FAST}` next to raw Clarabel", times, shown),
        table("Iterations, and time per iteration and bus", iterations, shown),
    ]


def figures(found: Found) -> dict[str, Figure]:
    """Time over buses."""
    names = dict.fromkeys(row["name"] for row in found["rows"])
    chosen = {name: [row for row in found["rows"] if row["name"] == name] for name in names}
    series = {
        name: ([row["n_bus"] for row in rows], [1e3 * row["seconds"] for row in rows]) for name, rows in chosen.items()
    }
    title = f"Growth with the feeder, one thread of {found['machine']['processor']}"
    return {"speed_growth": lines(series, "buses", "time per optimal power flow [ms]", title)}


if __name__ == "__main__":
    run_section(measure)
