"""The transactive signal psi beside the nodal price (DLMP): how far apart, and why.

    python benchmarks/signals.py --days 5 --problems 100

On closed hours of held-out days of the transactive scenario `ieee37`, with optimising agents; and on the random
problems of benchmarks/admm.py, by what binds in them. Only problems whose relaxation is tight count.

Of the parts of a nodal price (energy, loss, reactive, voltage, congestion: `price_parts`) psi has none of the last
three. From the first two it differs by its root, where the transactive loop has moved that from the LMP, and by its
losses. Where these alone count, nodal prices go from A to its child j by (see `_parts_of_rows` in grid/prices.py)

    a_j = a_A - 2 r m + (2 P / v_A) k,   b_j = b_A - 2 x m + (2 Q / v_A) k,   k = r a_j + x b_j + |z|^2 m

with a, b the worth of active and reactive power at a bus and m that of the squared voltage at j, which is negative
where current flows beyond j. Leave m out, solve for k, and put v_A - 2 (r P + x Q) = v_j - |z|^2 l into it:

    a_j = a_A + 2 P (r a_A + x b_A) / (v_j - |z|^2 l)

and psi_j = psi_A (1 + 2 r P / v_j) is that without |z|^2 l and b_A. So what a line's losses, active and reactive, lose
again in the line itself is in psi, because it divides by the voltage of the receiving end. What it neglects:

    own drop           |z|^2 l beside v_j: of third order
    reactive losses    the x l of a line is carried by all lines above it: x b_A
    falling voltage    what is drawn at j lowers the voltage beyond line j, and all currents there rise: m

The last never makes psi too high; the one before it does where active power flows back while reactive power does not.

Exits with 1 if the causes do not add up, or if psi is not within 2 % of the LMP where nothing binds.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, fields, replace

import numpy as np
from admm import FEEDERS, binding, draw, is_tight
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from peergrid.baselines.policies.transactive import Optimising
from peergrid.envs.common.rollout import rollout
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid.dso import DsoResponse, DsoStatus
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf import OpfProblem, OpfSolution, UpperVoltage
from peergrid.grid.prices import PriceParts, price_parts, te_price_per_kwh

SCENARIO = "ieee37"
NOTHING, SHED = "nothing binds", ", shed"
AT_LMP, OF_LOOP = "psi_0 is the LMP", "psi_0 of the loop"
CAUSES = ("root", "voltage", "congestion", "reactive", "losses")
OF_LOSSES = ("own_drop", "reactive_losses", "falling_voltage")
NARROWED, LEAST_RISE_PU = 0.9, 1e-3
LEAST_KVAR_SHARE, LEAST_SHED_SHARE = 1e-3, 1e-5  # of the LMP, of the nominal load
SAME = 1e-4
ABOVE, NEAR = 1e-3, 2.0  # % of the LMP


@dataclass(frozen=True, eq=False, kw_only=True)
class Differences:
    """psi less the nodal price by cause, and the part of the price that psi stands for, in % of the LMP.

    `difference` is what is to be explained; the three of OF_LOSSES add up to `losses`.
    """

    difference: Float[np.ndarray, "row bus"]
    root: Float[np.ndarray, "row bus"]
    voltage: Float[np.ndarray, "row bus"]
    congestion: Float[np.ndarray, "row bus"]
    reactive: Float[np.ndarray, "row bus"]
    losses: Float[np.ndarray, "row bus"]
    own_drop: Float[np.ndarray, "row bus"]
    reactive_losses: Float[np.ndarray, "row bus"]
    falling_voltage: Float[np.ndarray, "row bus"]
    loss_price: Float[np.ndarray, "row bus"]

    def of(self, rows: Bool[np.ndarray, " row"]) -> Differences:
        return Differences(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def unexplained(self) -> float:
        """The largest difference that the causes leave, beside itself and the LMP."""
        left = sum(getattr(self, name) for name in CAUSES) - self.difference
        return float(np.abs(left / (100.0 + np.abs(self.difference))).max(initial=0.0))


def loss_prices(
    feeder: Feeder, answer: OpfSolution | DsoResponse, root_per_kwh: Float[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, "row bus"], Float[np.ndarray, "row bus"]]:
    """Energy with losses at constant worth of voltage (m = 0): without what reactive losses cost further up, and with.

    The first differs from psi by |z|^2 l in the denominator alone.
    """
    p, q = answer.flow_kw / feeder.base_kva, answer.flow_kvar / feeder.base_kva
    v_above = answer.voltage_pu[..., feeder.parent] ** 2
    lossless_v = v_above - 2.0 * (feeder.r_pu * p + feeder.x_pu * q)
    plain, a, b = np.zeros((3, *p.shape))
    plain[..., 0] = a[..., 0] = root_per_kwh
    for j in range(1, feeder.n_bus):
        above, r, x = feeder.parent[j], feeder.r_pu[j], feeder.x_pu[j]
        worth = (r * a[..., above] + x * b[..., above]) / lossless_v[..., j]
        plain[..., j] = plain[..., above] * (1.0 + 2.0 * r * p[..., j] / lossless_v[..., j])
        a[..., j] = a[..., above] + 2.0 * p[..., j] * worth
        b[..., j] = b[..., above] + 2.0 * q[..., j] * worth
    return plain, a


def differences(
    feeder: Feeder,
    answer: OpfSolution | DsoResponse,
    parts: PriceParts,
    lmp_per_kwh: Float[np.ndarray, " row"],
    root_per_kwh: Float[np.ndarray, " row"],
) -> Differences:
    """Where and why psi, from `root_per_kwh` at the substation, differs from the nodal prices of an answer."""
    psi, at_lmp = (
        te_price_per_kwh(feeder, answer.flow_kw, answer.voltage_pu, root) for root in (root_per_kwh, lmp_per_kwh)
    )
    plain, with_reactive = loss_prices(feeder, answer, lmp_per_kwh)
    exact = parts.energy + parts.loss
    found = {
        "difference": psi - answer.price_per_kwh,
        "root": psi - at_lmp,
        "voltage": -parts.voltage,
        "congestion": -parts.congestion,
        "reactive": -parts.reactive,
        "losses": at_lmp - exact,
        "own_drop": at_lmp - plain,
        "reactive_losses": plain - with_reactive,
        "falling_voltage": with_reactive - exact,
        "loss_price": parts.loss,
    }
    return Differences(**{name: 100.0 * values / lmp_per_kwh[:, None] for name, values in found.items()})


def of_problems(name: str, n: int, seed: int) -> dict[str, Differences]:
    """Random problems on a feeder by what binds; apart from the others those in which load is shed, at its high price.

    Voltages and the reactive power of the substation are limited to NARROWED of what they would be.
    """
    dso, problem = draw(name, UpperVoltage.LOSSLESS, n, seed, is_rated=False)
    free = dso.solver(problem)
    cases = {
        NOTHING: (dso, problem),
        "voltages bind": (dso, with_narrow_voltages(problem, free)),
        "kvar bind": (dso, with_narrow_substation(problem, free)),
        "ratings bind": draw(name, UpperVoltage.LOSSLESS, n, seed, is_rated=True),
    }
    found: dict[str, Differences] = {}
    for case, (operator, asked) in cases.items():
        solution, lmp_per_kwh = operator.solver(asked), asked.injections.linear_per_kwh[:, 0]
        parts = price_parts(operator.feeder, solution, operator.upper_voltage)
        of_all = differences(operator.feeder, solution, parts, lmp_per_kwh, lmp_per_kwh)
        voltage, line = binding(operator.feeder, solution)
        kvar = np.abs(solution.reactive_price_per_kvarh[:, 0]) > LEAST_KVAR_SHARE * lmp_per_kwh
        binds = dict(zip(cases, (~voltage & ~line, voltage, kvar & ~voltage, line), strict=True))[case]
        chosen = binds & is_tight(operator.feeder, solution)
        shed_kw = solution.p_kw[:, operator.layout.sheddable]
        is_shed = (shed_kw > LEAST_SHED_SHARE * operator.feeder.base_kva).any(axis=-1)
        found |= {case: of_all.of(chosen & ~is_shed), case + SHED: of_all.of(chosen & is_shed)}
    return {case: of_case for case, of_case in found.items() if len(of_case.difference)}


def with_narrow_voltages(problem: OpfProblem, free: OpfSolution) -> OpfProblem:
    """The problem with limits that cut the voltages of its free solution short."""
    low, high = free.voltage_pu.min(axis=-1, keepdims=True), free.voltage_pu.max(axis=-1, keepdims=True)
    source = problem.v_source_pu[:, None]
    least, most = (np.broadcast_to(source + NARROWED * (end - source), free.voltage_pu.shape) for end in (low, high))
    return replace(problem, v_min_pu=least, v_max_pu=np.maximum(most, source + LEAST_RISE_PU))


def with_narrow_substation(problem: OpfProblem, free: OpfSolution) -> OpfProblem:
    """The problem with less reactive power from upstream than its free solution draws, or with less going there."""
    limits = {}
    for bound in ("q_min_kvar", "q_max_kvar"):
        limits[bound] = getattr(problem.injections, bound).copy()
        limits[bound][:, 0] = np.sign(limits[bound][:, 0]) * NARROWED * np.abs(free.q_kvar[:, 0])
    return replace(problem, injections=replace(problem.injections, **limits))


def of_days(n_day: int) -> dict[str, Differences]:
    """Closed hours of held-out days, with psi from the LMP and with psi as the transactive loop left it."""
    simulation, agents = Transactive(SCENARIO, num_envs=n_day), Optimising()
    simulation.reset(options={"evaluation_day": 0})
    by_root: dict[str, list[Differences]] = {AT_LMP: [], OF_LOOP: []}
    with tqdm(total=n_day * simulation.params.intervals, desc="hours", leave=False, disable=None) as bar:
        for step in rollout(simulation, lambda: agents.answer(simulation), simulation.answer):
            outcome = step.outcome
            closed = outcome.is_closed & (outcome.response.status == DsoStatus.OPTIMAL)
            bar.update(int(outcome.is_closed.sum()))
            answer, lmp_per_kwh = outcome.response, outcome.lmp_per_kwh
            for one, root in zip(by_root.values(), (lmp_per_kwh, outcome.root_per_kwh), strict=True):
                of_all = differences(simulation.params.feeder, answer, answer.price_parts, lmp_per_kwh, root)
                one.append(of_all.of(closed))
    return {name: joined(one) for name, one in by_root.items()}


def joined(each: list[Differences]) -> Differences:
    return Differences(**{f.name: np.concatenate([getattr(d, f.name) for d in each]) for f in fields(Differences)})


def show(console: Console, cases: dict[tuple[str, str], Differences]) -> None:
    """A table of the causes, and one of what makes the losses differ."""
    plain = {case: d for case, d in cases.items() if case[1] != OF_LOOP and not case[1].endswith(SHED)}
    for title, columns, of_table in (
        ("psi less the nodal price, by cause", ("difference", *CAUSES), cases),
        ("the losses in psi less the exact ones, by what psi neglects", ("loss_price", "losses", *OF_LOSSES), plain),
    ):
        table = Table("", "", title=f"{title}: worst / mean size at a bus, in % of the LMP")
        for column in ("problems", *columns, "psi above"):
            table.add_column(column.replace("_", " "), justify="right")
        for case, d in of_table.items():
            above = getattr(d, "difference" if of_table is cases else "losses")[:, 1:] > ABOVE
            cells = [worst_and_mean(getattr(d, column)) for column in columns]
            table.add_row(*case, f"{len(d.difference)}", *cells, f"{100.0 * above.mean():.1f} %")
        console.print(table)


def worst_and_mean(percent: Float[np.ndarray, "row bus"]) -> str:
    """Over all buses but the substation."""
    size = np.abs(percent[:, 1:])
    return " / ".join(f"{number:.3f}" if number < 100.0 else f"{number:.0f}" for number in (size.max(), size.mean()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=5, help="held-out days; none are played for 0")
    parser.add_argument("--problems", type=int, default=100, help="random problems of each kind and feeder")
    parser.add_argument("--feeders", nargs="+", choices=FEEDERS, default=FEEDERS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cases: dict[tuple[str, str], Differences] = {}
    if args.days:
        cases |= {(f"{SCENARIO}, days", root): d for root, d in of_days(args.days).items()}
    for feeder in args.feeders:
        cases |= {(feeder, binds): d for binds, d in of_problems(feeder, args.problems, args.seed).items()}
    show(Console(width=None if sys.stdout.isatty() else 160), cases)
    adds_up = all(d.unexplained() <= SAME for d in cases.values())
    is_near = all(np.abs(d.difference).max() <= NEAR for (_, case), d in cases.items() if case in (NOTHING, AT_LMP))
    return int(not (adds_up and is_near))


if __name__ == "__main__":
    sys.exit(main())
