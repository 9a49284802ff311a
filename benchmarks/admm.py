"""The distributed solver beside the interior-point one: the same answers, and what the messages cost.

    python benchmarks/admm.py --problems 200
    python benchmarks/admm.py --problems 200 --rated
    python benchmarks/admm.py --problems 20 --feeders ieee37 ieee69

Random problems on four feeders: loads, proposals to import and export, generators with strictly convex costs, an upper
voltage limit that exports may reach; with --rated, ratings that lines may reach, loads being shed then. With the plain
upper voltage only problems whose relaxation is tight are compared, and the table says how many are.

Errors are relative: of costs to them, at least 1 per hour; of the exchange at the substation to itself, at least 1 % of
the nominal load. Exits with 1 if a compared problem is not solved, or an error is above 1e-4 for costs, or 1e-3 for the
exchange.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table

from peergrid.grid import load_feeder
from peergrid.grid.dso import DsoQuery, Generators, OpfDso
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf import OpfProblem, OpfSolution, OpfStatus, UpperVoltage
from peergrid.grid.opf.admm import AdmmOpf, AdmmResult
from peergrid.grid.opf.problem import relaxation_gap

FEEDERS = ("ieee33", "ieee37", "ieee69", "ieee123")
LOAD_SHARE, LOAD_SPREAD = (0.3, 1.1), 0.2
N_TRADE, N_GENERATOR = 4, 2
LARGEST_PROPOSAL, GENERATOR_SIZE = 0.2, (0.05, 0.2)  # of the nominal load
V_MIN_PU, V_MAX_PU = 0.90, (1.03, 1.05, 1.10)
LMP_PER_KWH = (0.03, 0.15)
RATING_SHARE, LEAST_RATING_SHARE = (1.0, 2.0), 0.05
OF_NETWORK = ("load_kw", "load_kvar", "v_source_pu", "v_min_pu", "v_max_pu", "i_max_a")

TIGHT_PU = 1e-6
SAME_COST, SAME_EXCHANGE = 1e-4, 1e-3
BINDS_PER_KVA = 1e-6  # a limit with a multiplier above this, per kVA of nominal load and hour, binds
ALONE = 50  # problems that are solved one by one as well


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What a feeder's problems show, by problem."""

    compared: Bool[np.ndarray, " row"]
    solved: Bool[np.ndarray, " row"]
    voltage_binds: Bool[np.ndarray, " row"]
    line_binds: Bool[np.ndarray, " row"]
    cost_error: Float[np.ndarray, " row"]
    exchange_error: Float[np.ndarray, " row"]
    price_error: Float[np.ndarray, " row"]
    result: AdmmResult
    seconds: float
    seconds_alone: float
    seconds_beside: float

    def holds(self) -> bool:
        errors = self.cost_error[self.compared] <= SAME_COST, self.exchange_error[self.compared] <= SAME_EXCHANGE
        return bool(self.solved[self.compared].all() and all(error.all() for error in errors))


def draw(name: str, upper_voltage: UpperVoltage, n: int, seed: int, is_rated: bool) -> tuple[OpfDso, OpfProblem]:
    """Random problems on a feeder, the same whenever they are drawn and with either upper voltage."""
    rng = np.random.default_rng([seed, FEEDERS.index(name)])
    feeder = load_feeder(name)
    size_kva = feeder.base_kva
    apparent_kva = np.abs(feeder.downstream_sum(feeder.load_kw + 1j * feeder.load_kvar))
    least_kva = np.maximum(2.0 * feeder.downstream_sum(feeder.capacitor_kvar), LEAST_RATING_SHARE * apparent_kva[0])
    nominal_a = np.maximum(apparent_kva, least_kva) / (np.sqrt(3.0) * feeder.base_kv)
    if is_rated:
        feeder = replace(feeder, i_max_a=nominal_a)
    p_max_kw = rng.uniform(*GENERATOR_SIZE, N_GENERATOR) * size_kva
    generators = Generators(
        bus=tuple(int(b) for b in rng.integers(1, feeder.n_bus, N_GENERATOR)),
        p_min_kw=np.zeros(N_GENERATOR),
        p_max_kw=p_max_kw,
        q_min_kvar=-0.4 * p_max_kw,
        q_max_kvar=0.4 * p_max_kw,
        a_per_kw2h=10.0 ** rng.uniform(-5.0, -4.0, N_GENERATOR),
        b_per_kwh=rng.uniform(0.03, 0.12, N_GENERATOR),
    )
    dso = OpfDso(feeder, rng.integers(1, feeder.n_bus, N_TRADE), generators=generators, upper_voltage=upper_voltage)
    load = rng.uniform(*LOAD_SHARE, (n, 1)) * rng.uniform(1 - LOAD_SPREAD, 1 + LOAD_SPREAD, (n, feeder.n_bus))
    by_bus = np.ones(feeder.n_bus)
    query = DsoQuery(
        load_kw=load * feeder.load_kw,
        load_kvar=load * feeder.load_kvar,
        proposed_kw=rng.uniform(-LARGEST_PROPOSAL, LARGEST_PROPOSAL, (n, N_TRADE)) * size_kva,
        lmp_per_kwh=rng.uniform(*LMP_PER_KWH, n),
        v_min_pu=V_MIN_PU * by_bus,
        v_max_pu=rng.choice(V_MAX_PU, (n, 1)) * by_bus,
        i_max_a=rng.uniform(*RATING_SHARE, (n, 1)) * nominal_a if is_rated else None,
    )
    return dso, dso.problem(query)


def compare(name: str, upper_voltage: UpperVoltage, n: int, seed: int, is_rated: bool) -> Comparison:
    dso, problem = draw(name, upper_voltage, n, seed, is_rated)
    feeder, bus = dso.feeder, problem.injections.bus
    solver = AdmmOpf(feeder, bus, np.arange(len(bus)) <= N_GENERATOR, upper_voltage)
    solver(row(problem, 0)), dso.solver(problem)  # compiled, or read from disk
    start = time.perf_counter()
    right = dso.solver(problem)
    between = time.perf_counter()
    result = solver.solve(problem)
    seconds, seconds_beside = time.perf_counter() - between, between - start
    start = time.perf_counter()
    for index in range(min(n, ALONE)):
        solver(row(problem, index))
    seconds_alone = (time.perf_counter() - start) / min(n, ALONE)

    found = result.solution
    exchange_kw = right.p_kw[:, 0]
    voltage_binds, line_binds = binding(feeder, right)
    return Comparison(
        compared=is_tight(feeder, right),
        solved=found.status == OpfStatus.OPTIMAL,
        voltage_binds=voltage_binds,
        line_binds=line_binds,
        cost_error=np.abs(found.cost_per_hour - right.cost_per_hour) / np.maximum(np.abs(right.cost_per_hour), 1.0),
        exchange_error=np.abs(found.p_kw[:, 0] - exchange_kw) / np.maximum(np.abs(exchange_kw), 0.01 * feeder.base_kva),
        price_error=np.quantile(np.abs(found.price_per_kwh - right.price_per_kwh), 0.9, axis=-1),
        result=result,
        seconds=seconds / n,
        seconds_alone=seconds_alone,
        seconds_beside=seconds_beside / n,
    )


def is_tight(feeder: Feeder, solution: OpfSolution) -> Bool[np.ndarray, " row"]:
    """The problems that are solved and whose optimum is a power flow."""
    return np.asarray((solution.status == OpfStatus.OPTIMAL) & (relaxation_gap(feeder, solution) <= TIGHT_PU))


def binding(feeder: Feeder, solution: OpfSolution) -> tuple[Bool[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
    """The problems in which a limit of a voltage binds, and those in which a rating does."""
    pairs = (
        (solution.v_min_multiplier, solution.v_max_multiplier),
        (solution.i_max_multiplier, solution.i_max_lossless_multiplier),
    )
    voltage, line = ((one + other > BINDS_PER_KVA * feeder.base_kva).any(axis=-1) for one, other in pairs)
    return voltage, line


def row(problem: OpfProblem, index: int) -> OpfProblem:
    """One problem of a batch."""
    injections = replace(problem.injections, table=problem.injections.table[index])
    return replace(
        problem, injections=injections, **{name: np.asarray(getattr(problem, name)[index]) for name in OF_NETWORK}
    )


def worst(name: str) -> Callable[[Comparison], float]:
    """The largest of an error over the problems compared, NaN if there is none."""
    return lambda c: max(getattr(c, name)[c.compared], default=np.nan)


def iterations(share: float) -> Callable[[Comparison], float]:
    """A quantile of the iterations that the problems took."""
    return lambda c: np.quantile(c.result.iterations, share)


# Rows of the table: what, how it is written, and where it is found.
ROWS: tuple[tuple[str, str, Callable[[Comparison], Any]], ...] = (
    ("problems", "d", lambda c: c.solved.size),
    ("solved", "d", lambda c: c.solved.sum()),
    ("relaxation tight, compared", "d", lambda c: c.compared.sum()),
    ("solved, of those", "d", lambda c: c.solved[c.compared].sum()),
    ("a voltage limit binds", "d", lambda c: c.voltage_binds.sum()),
    ("a rating binds", "d", lambda c: c.line_binds.sum()),
    ("needed lossless copies", "d", lambda c: c.result.state.is_lossless.sum()),
    ("cost, worst relative error", ".1e", worst("cost_error")),
    ("exchange, worst relative error", ".1e", worst("exchange_error")),
    ("price per kWh at 9 of 10 buses", ".1e", worst("price_error")),
    ("power residual, worst", ".1e", lambda c: c.result.power_residual_pu.max()),
    ("voltage residual, worst", ".1e", lambda c: c.result.voltage_residual_pu.max()),
    ("dual residual, worst", ".1e", lambda c: c.result.dual_residual.max()),
    ("rho at the end, least", ".2g", lambda c: c.result.rho.min()),
    ("rho at the end, most", ".2g", lambda c: c.result.rho.max()),
    ("iterations, median", ".0f", iterations(0.5)),
    ("iterations, 90 %", ".0f", iterations(0.9)),
    ("iterations, most", ".0f", iterations(1.0)),
    ("ms per problem, in a batch", ".1f", lambda c: 1e3 * c.seconds),
    ("ms per problem, alone", ".1f", lambda c: 1e3 * c.seconds_alone),
    ("ms per problem, interior_point in a batch", ".2f", lambda c: 1e3 * c.seconds_beside),
    ("messages per iteration", ".0f", lambda c: (c.result.messages / c.result.iterations).mean()),
    ("kB per iteration", ".1f", lambda c: (c.result.message_bytes / c.result.iterations).mean() / 1e3),
    ("messages per problem, median", ".2g", lambda c: np.median(c.result.messages)),
    ("MB per problem, median", ".1f", lambda c: np.median(c.result.message_bytes) / 1e6),
)


def show(console: Console, comparisons: dict[tuple[str, UpperVoltage], Comparison], title: str) -> None:
    table = Table(title=title)
    table.add_column("")
    for name, upper_voltage in comparisons:
        table.add_column(f"{name}\n{upper_voltage}", justify="right")
    for label, form, value in ROWS:
        table.add_row(label, *(f"{value(c):{form}}" for c in comparisons.values()))
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--rated", action="store_true", help="lines have ratings")
    parser.add_argument("--feeders", nargs="+", choices=FEEDERS, default=FEEDERS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    comparisons = {
        (name, upper_voltage): compare(name, upper_voltage, args.problems, args.seed, args.rated)
        for upper_voltage in (UpperVoltage.PLAIN, UpperVoltage.LOSSLESS)
        for name in args.feeders
    }
    title = f"admm beside interior_point, {'with' if args.rated else 'without'} ratings"
    show(Console(width=None if sys.stdout.isatty() else 150), comparisons, title)
    return int(not all(c.holds() for c in comparisons.values()))


if __name__ == "__main__":
    sys.exit(main())
