"""Speed of the optimal power flow on `ieee33`, against CVXPY, Clarabel, QOCO and pandapower, and of power flows.

Every solver gets the same problems, in turns, on one thread. What is timed begins with the problem as arrays and ends
with the solution as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import speed_grids as grids
from matplotlib.figure import Figure
from speed_common import (
    Contender,
    Found,
    Table,
    against,
    alternate,
    duration,
    missing,
    order_of,
    run_section,
    table,
    three_digits,
    timing,
)
from speed_cones import Qoco, RawClarabel, qoco
from speed_figures import bars
from speed_problems import FAST, REFERENCE, ProblemSet, draw_sets, net_injections

from peergrid.grid import solve_power_flow
from peergrid.grid.dso import SOLVERS

BATCH = 1024
SLICE = 16  # problems of a round, of those who solve one after the other
ROUNDS = 30
CHECKED = 256  # problems whose costs are compared
RUNOPP_ROUNDS = 15
SHEDS_KW = 1e-3

RAW = "Clarabel, raw"
CONIC = "peergrid `conic`"
RUNOPP = "pandapower `runopp`"
SETS = {
    "slack": "Lossless voltage limit, not binding",
    "binding": "Lossless voltage limit, binding",
    "plain": "Plain voltage limit",
}


def measure(quick: bool) -> Found:
    """Times and costs of every solver on every set of problems."""
    batch, rounds, runopp_rounds = (64, 3, 2) if quick else (BATCH, ROUNDS, RUNOPP_ROUNDS)
    sets = draw_sets(batch)
    found: Found = {"batch": batch}
    found |= {name: optimal_power_flows(chosen, rounds, name) for name, chosen in sets.items()}
    return found | {"ac": ac_optimum(sets["slack"], runopp_rounds), "flows": power_flows(sets["slack"], rounds)}


def optimal_power_flows(chosen: ProblemSet, rounds: int, what: str) -> list[Found]:
    """Each solver's time per problem, and how far its costs are from those of the reference, solved to 1e-11."""
    n, rows = len(chosen), chosen.rows
    single: dict[str, tuple[Callable[[Any], Any], str]] = {}
    if FAST in SOLVERS:
        single[f"peergrid `{FAST}`"] = chosen.solver(FAST), "one by one"
    single[RAW] = RawClarabel(chosen.problems, chosen.has_free_q), "fill in, update, solve to 1e-8"
    if qoco is not None:
        single["QOCO"] = Qoco(chosen.problems, chosen.has_free_q), "fill in, set up, solve to 1e-8"
    single[CONIC] = chosen.solver(REFERENCE), "CVXPY compiled once, Clarabel to 1e-11"

    contenders = [Contender(name, one_by_one(solve, rows), SLICE, note) for name, (solve, note) in single.items()]
    dso = chosen.dso
    contenders.append(Contender("peergrid DSO", one_by_one(dso, chosen.queries), SLICE, "OPF, checks, prices by cause"))
    contenders.append(Contender("peergrid DSO, batch", lambda k: dso(chosen.query), n, f"the same, {n} at once"))
    if FAST in SOLVERS:
        fast = single[f"peergrid `{FAST}`"][0]
        contenders.insert(0, Contender(f"peergrid `{FAST}`, batch", lambda k: fast(chosen.problems), n, f"{n} at once"))
    alternate(contenders, rounds, what)

    answers = {name: np.array([cost(solve(row)) for row in rows[:CHECKED]]).T for name, (solve, _) in single.items()}
    if FAST in SOLVERS:
        answers[f"peergrid `{FAST}`, batch"] = cost(fast(chosen.problems))
    right = answers[CONIC][0]
    timed = [timing(c) | (judged(answers[c.name], right) if c.name in answers else {}) for c in contenders]
    return against(timed + ([] if qoco is not None else [missing("QOCO")]), RAW)


def one_by_one(solve: Callable[[Any], Any], given: Sequence[Any], size: int = SLICE) -> Callable[[int], Any]:
    """Round k solves the k-th slice of what is given."""
    return lambda k: [solve(given[i % len(given)]) for i in range(k * size, (k + 1) * size)]


def cost(answer: Any) -> np.ndarray:
    """Cost, NaN where there is no answer, and iterations."""
    return np.stack([np.where(np.equal(answer.status, 0), answer.cost_per_hour, np.nan), answer.iterations])


def judged(answers: np.ndarray, right: np.ndarray) -> Found:
    """Iterations, the problems left unsolved, and the largest difference of the cost, relative but to less than 1."""
    costs, iterations = answers[:, : len(right)]
    difference = np.abs(costs - right) / np.maximum(1.0, np.abs(right))
    judgement = {"unsolved": int(np.isnan(costs).sum()), "cost_difference": float(np.nanmax(difference))}
    return judgement | ({"iterations": float(iterations.mean())} if np.isfinite(iterations).all() else {})


def ac_optimum(chosen: ProblemSet, rounds: int) -> list[Found]:
    """pandapower's AC optimum of problems in which nothing is shed; where the relaxation is tight it costs the same."""
    if grids.pandapower is None:
        return [missing(RUNOPP)]
    right = chosen.solver(REFERENCE)
    shedding = chosen.dso.layout.sheddable
    rows = [row for row in chosen.rows[: 4 * rounds] if right(row).p_kw[shedding].max() < SHEDS_KW][:rounds]
    solve = grids.PandapowerOpf(chosen.dso)
    contender = Contender(RUNOPP, lambda k: solve(rows[k]), 1, "nothing shed; the AC problem itself")
    alternate([contender], len(rows), "runopp")
    answers = np.array([cost(solve(row)) for row in rows]).T
    return [timing(contender) | judged(answers, np.array([float(right(row).cost_per_hour) for row in rows]))]


def power_flows(chosen: ProblemSet, rounds: int) -> list[Found]:
    """Each library's time for the AC power flow at the optimum of each problem, and its difference from ours."""
    feeder, n = chosen.dso.feeder, len(chosen)
    p_kw, q_kvar = net_injections(
        chosen.problems, chosen.solver(FAST if FAST in SOLVERS else REFERENCE)(chosen.problems)
    )

    def flow(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return solve_power_flow(feeder, p, q, tolerance_pu=grids.TOLERANCE).voltage_pu

    solvers: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], int, str]] = {
        "peergrid, batch": (flow, n, "sweeps in NumPy"),
        "peergrid": (flow, SLICE, "sweeps in NumPy"),
    }
    absent = []
    if grids.pgm is not None:
        solvers["power-grid-model, batch"] = grids.PowerGridModelFlow(feeder), n, "Newton"
    else:
        absent.append(missing("power-grid-model, batch"))
    if grids.init_from_pandapower is not None and grids.pandapower is not None:
        solvers["lightsim2grid, batch"] = grids.LightsimSweep(feeder), n, "Newton with KLU"
        solvers["lightsim2grid"] = grids.LightsimFlow(feeder), SLICE, "Newton with KLU"
    else:
        absent.append(missing("lightsim2grid"))
    if grids.pandapower is not None:
        solvers["pandapower `runpp`"] = grids.PandapowerFlow(feeder), SLICE, "Newton with numba"
    else:
        absent.append(missing("pandapower `runpp`"))

    def work(solve: Callable[..., np.ndarray], size: int) -> Callable[[int], Any]:
        if size == n:
            return lambda k: solve(p_kw, q_kvar)
        return one_by_one(lambda i: solve(p_kw[i : i + 1], q_kvar[i : i + 1]), range(n))

    contenders = [Contender(name, work(solve, size), size, note) for name, (solve, size, note) in solvers.items()]
    alternate(contenders, rounds, "power flow")
    right = solve_power_flow(feeder, p_kw, q_kvar).voltage_pu
    some = slice(0, min(n, 20))
    found = []
    for contender, (solve, _, _) in zip(contenders, solvers.values(), strict=True):
        difference = np.abs(solve(p_kw[some], q_kvar[some]) - right[some]).max()
        found.append(timing(contender) | {"voltage_difference": float(difference)})
    return found + absent


def tables(found: Found) -> list[Table]:
    """One table of each set of problems, one of power flows."""
    time_columns: dict[str, Callable[[Found], str]] = {
        "solver": lambda row: row["name"],
        "per problem": lambda row: duration(row["seconds"]),
        "10-90 %": lambda row: f"{duration(row['low'])} - {duration(row['high'])}",
        "CPU": lambda row: duration(row["cpu_seconds"]),
    }
    columns = time_columns | {
        "times as fast as raw Clarabel": lambda row: three_digits(row["times_as_fast"]),
        "iterations": lambda row: f"{row['iterations']:.1f}",
        "cost off by": lambda row: order_of(row["cost_difference"]),
        "unsolved": lambda row: str(row["unsolved"]),
        "what": lambda row: row["note"],
    }
    made = [table(f"OPF on ieee33. {title}", columns, found[name]) for name, title in SETS.items()]
    ac = against([*found["ac"], *found["slack"]], RAW)[:1]
    made[0].rows.extend(table("", columns, ac).rows)
    flow_columns = time_columns | {
        "voltage off by, p.u.": lambda row: order_of(row["voltage_difference"]),
        "what": lambda row: row["note"],
    }
    return [*made, table("AC power flow on ieee33", flow_columns, found["flows"])]


def figures(found: Found) -> dict[str, Figure]:
    """Time per problem of every optimal power flow solver."""
    series = {SETS[name]: {row["name"]: row for row in found[name] if "seconds" in row} for name in SETS}
    series[SETS["slack"]] |= {row["name"]: row for row in found["ac"] if "seconds" in row}
    machine = found["machine"]["processor"]
    return {
        "speed_opf": bars(
            series, "time per optimal power flow [µs]", 1e6, f"IEEE 33-bus feeder, one thread of {machine}"
        )
    }


if __name__ == "__main__":
    run_section(measure)
