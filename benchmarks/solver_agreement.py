"""Tries to prove the interior-point solver wrong: on random problems, against the reference and by KKT residuals.

    python benchmarks/solver_agreement.py --problems 20000 --beside conic --seed 0
    python benchmarks/solver_agreement.py --problems 200000 --beside none

Problems come in groups that share feeder, upper voltage, places of trades and generators, so that a group is a batch.
Every finished group is kept on disk: a run that was interrupted goes on where it stopped. Where two solvers disagree,
the cheaper feasible dispatch has the right cost, and prices are right where all optimality conditions hold; if they
hold for both, there is more than one set of prices. Without a reference solver these conditions alone decide, see
kkt.py. Exits with 1 if an answer that passed for OPTIMAL is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from kkt import Verdict, arbitrate, has_unique_price, kkt_residuals, point_of, worth_of_violations
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import peergrid.grid.opf
from peergrid.grid import load_feeder
from peergrid.grid.dso import SOLVERS, DsoQuery, Generators, OpfDso, Penalty
from peergrid.grid.feeder import Feeder
from peergrid.grid.files import write_whole
from peergrid.grid.opf import OpfProblem, OpfSolution, OpfStatus, UpperVoltage
from peergrid.grid.opf.problem import relaxation_gap
from peergrid.grid.parts import resolve

FEEDERS = ("ieee33", "ieee69", "ieee123", "caracas141")
VARIANTS = tuple(UpperVoltage)
GROUP_ALONE, GROUP_BESIDE = 500, 25  # problems in a group: fewer beside a slow solver, for finer steps on disk
MOST_REPORTS = 20

LOAD_SHARE = (0.3, 1.6)
LOAD_SPREAD = 0.2
PROPOSAL_KW, PROPOSAL_SHARE = 1500.0, 0.3  # up to the larger of this and this share of the nominal load
ALL_EXPORT = 0.25
ZERO_PROPOSALS = 0.03
V_MIN_PU = (0.90, 0.95, 0.97)
V_MAX_PU = (1.03, 1.05, 1.10)
LMP_PER_KWH = (0.01, 0.2)
ZERO_PRICES = 0.05
RATED = 0.5
WITH_GENERATORS = 0.4
RATING_SHARE = (0.6, 3.0)  # of the current of the nominal load, tight where it is below the drawn load
LEAST_RATING_SHARE = 0.05  # of the feeder's current: a lateral's line is no thinner

FULLY_SHED = 1e-4
TYPICAL_PRICE_PER_KWH = 0.1
SAME_COST = 1e-6
SAME_PRICE = 1e-4
# What an answer must keep to be right. Where a bound only just binds, multiplier and room are both the root of the gap
# that a solver stops at, 3e-5 of 1e-9.
FEASIBLE_PU, STATIONARY, COMPLEMENTARY = 1e-6, 5e-5, 1e-6
PURPOSES = ("judged", "beside")


def draw(seed: int, group: int, n: int) -> tuple[OpfDso, OpfProblem]:
    """A group of random problems, the same whenever it is drawn."""
    rng = np.random.default_rng([seed, group])
    feeder = load_feeder(FEEDERS[group % len(FEEDERS)])
    upper_voltage = VARIANTS[group // len(FEEDERS) % len(VARIANTS)]
    apparent_kva = np.abs(feeder.downstream_sum(feeder.load_kw + 1j * feeder.load_kvar))
    # Capacitors cannot be turned off: a line too thin for theirs has no dispatch within its rating.
    least_kva = np.maximum(2.0 * feeder.downstream_sum(feeder.capacitor_kvar), LEAST_RATING_SHARE * apparent_kva[0])
    nominal_a = np.maximum(apparent_kva, least_kva) / (np.sqrt(3.0) * feeder.base_kv)
    is_rated = rng.random() < RATED
    if is_rated:
        feeder = replace(feeder, i_max_a=nominal_a)
    trade_bus = rng.integers(1, feeder.n_bus, rng.integers(3, 7))
    generators = draw_generators(feeder, rng) if rng.random() < WITH_GENERATORS else None
    dso = OpfDso(feeder, trade_bus, generators=generators, upper_voltage=upper_voltage, solver=_unsolved)

    load = rng.uniform(*LOAD_SHARE, (n, 1)) * rng.uniform(1 - LOAD_SPREAD, 1 + LOAD_SPREAD, (n, feeder.n_bus))
    largest_kw = max(PROPOSAL_KW, PROPOSAL_SHARE * feeder.load_kw.sum())
    proposed_kw = rng.uniform(-largest_kw, largest_kw, (n, len(trade_bus)))
    proposed_kw = np.where(rng.random((n, 1)) < ALL_EXPORT, np.abs(proposed_kw), proposed_kw)
    by_bus = np.ones(feeder.n_bus)
    query = DsoQuery(
        load_kw=load * feeder.load_kw,
        load_kvar=load * feeder.load_kvar,
        proposed_kw=np.where(rng.random(proposed_kw.shape) < ZERO_PROPOSALS, 0.0, proposed_kw),
        lmp_per_kwh=np.where(rng.random(n) < ZERO_PRICES, 0.0, rng.uniform(*LMP_PER_KWH, n)),
        penalty=draw_penalty(n, rng),
        v_min_pu=rng.choice(V_MIN_PU, (n, 1)) * by_bus,
        v_max_pu=rng.choice(V_MAX_PU, (n, 1)) * by_bus,
        i_max_a=rng.uniform(*RATING_SHARE, (n, 1)) * nominal_a if is_rated else None,
    )
    return dso, dso.problem(query)


def _unsolved(*_: object) -> None:
    """Stands for the solver of an operator that only writes problems."""


def draw_generators(feeder: Feeder, rng: np.random.Generator) -> Generators:
    n = int(rng.integers(1, 3))
    p_max_kw = rng.uniform(200.0, 1500.0, n)
    return Generators(
        bus=tuple(int(b) for b in rng.integers(1, feeder.n_bus, n)),
        p_min_kw=np.zeros(n),
        p_max_kw=p_max_kw,
        q_min_kvar=-rng.uniform(0.0, 0.5, n) * p_max_kw,
        q_max_kvar=rng.uniform(0.0, 0.5, n) * p_max_kw,
        a_per_kw2h=10.0 ** rng.uniform(-6.0, -4.0, n),
        b_per_kwh=rng.uniform(0.0, 0.2, n),
    )


def draw_penalty(n: int, rng: np.random.Generator) -> Penalty:
    """The default one, pure quadratics of many sizes, or any mixture."""
    kind = rng.choice(["default", "quadratic only", "mixed"])
    lambda_corr, c_ls = 10.0 ** rng.uniform(-4.0, 0.0, (n, 1)), 10.0 ** rng.uniform(-2.0, 1.0, (n, 1))
    if kind == "default":
        return Penalty()
    if kind == "quadratic only":
        return Penalty.quadratic_only(lambda_corr, c_ls)
    return Penalty(
        kappa_per_kwh=rng.uniform(0.0, 0.1, (n, 1)),
        lambda_corr_per_kw2h=lambda_corr,
        voll_per_kwh=rng.uniform(0.5, 5.0, (n, 1)),
        c_ls_per_kw2h=c_ls * (rng.random((n, 1)) < 0.5),
    )


def examine(group: int, *, seed: int, n: int, solvers: tuple[str, ...]) -> tuple[int, dict[str, np.ndarray]]:
    """What a group shows: by row, prefixed with the solver's purpose where it is one solver's."""
    dso, problem = draw(seed, group, n)
    layout = dso.layout
    solutions, found = [], {"group": np.full(n, group), "row": np.arange(n)}
    for purpose, name in zip(PURPOSES, solvers, strict=False):
        solver = resolve(name, "OPF solver", SOLVERS)(dso.feeder, layout.bus, layout.has_free_q, dso.upper_voltage)
        start = time.perf_counter()
        solution = solver(problem)
        seconds = time.perf_counter() - start
        primal, dual, gap = kkt_residuals(problem, point_of(problem, solution)).worst()
        shown = {
            "status": solution.status,
            "cost": solution.cost_per_hour,
            "primal": primal,
            "dual": dual,
            "gap": gap,
            "iterations": solution.iterations,
            "seconds": np.full(n, seconds / n),
        }
        found |= {f"{purpose}_{what}": values for what, values in shown.items()}
        solutions.append(solution)
    found |= binds(problem, solutions[0])
    if len(solutions) == 2:
        found |= compare(problem, layout.sheddable, *solutions)
    return group, found


def binds(problem: OpfProblem, solution: OpfSolution) -> dict[str, np.ndarray]:
    """Which corner a problem is in, for the table."""
    scale = TYPICAL_PRICE_PER_KWH * problem.feeder.base_kva
    above = {name: getattr(solution, f"{name}_multiplier") > 1e-4 * scale for name in ("v_min", "v_max", "i_max")}
    above["i_max"] |= solution.i_max_lossless_multiplier > 1e-4 * scale
    return {f"binds_{name}": flags.any(axis=-1) for name, flags in above.items()} | {
        "is_loose": relaxation_gap(problem.feeder, solution) > 1e-6
    }


def compare(problem: OpfProblem, sheds: slice, judged: OpfSolution, beside: OpfSolution) -> dict[str, np.ndarray]:
    most = problem.injections.p_max_kw[..., sheds]
    unique = has_unique_price(problem, judged) & has_unique_price(problem, beside)
    fully_shed = (most > 0) & (beside.p_kw[..., sheds] > (1.0 - FULLY_SHED) * most)
    usual = unique.copy()
    usual[..., 1:] &= ~fully_shed
    away = np.abs(judged.price_per_kwh - beside.price_per_kwh)
    size = np.abs(beside.price_per_kwh)

    def worst(error: Float[np.ndarray, "row bus"], where: Bool[np.ndarray, "row bus"]) -> Float[np.ndarray, " row"]:
        return np.where(where, error, 0.0).max(axis=-1)

    scale = np.maximum(1.0, np.abs(beside.cost_per_hour))
    cost_error = np.abs(judged.cost_per_hour - beside.cost_per_hour) / scale
    points = [point_of(problem, solution) for solution in (judged, beside)]
    worth = sum(worth_of_violations(problem, point, points[0]) for point in points) / scale
    return {
        "cost_error": cost_error,
        "unexplained_error": np.maximum(cost_error - worth, 0.0),
        "price_error": worst(away / np.maximum(1.0, size), usual),
        "price_error_of_typical": worst(away / np.maximum(TYPICAL_PRICE_PER_KWH, size), usual),
        "price_error_of_typical_if_shed": worst(away / np.maximum(TYPICAL_PRICE_PER_KWH, size), unique),
        "left_out": (~usual).sum(axis=-1),
        "verdict": arbitrate(problem, judged, beside, FEASIBLE_PU, SAME_COST),
    }


@dataclass(frozen=True, eq=False, kw_only=True)
class Ruling:
    """Which problems are what, one flag each per problem."""

    answered: Bool[np.ndarray, " row"]
    judged_wrong: Bool[np.ndarray, " row"]
    beside_wrong: Bool[np.ndarray, " row"]
    several_prices: Bool[np.ndarray, " row"]
    undecided: Bool[np.ndarray, " row"]


def keeps_conditions(found: dict[str, np.ndarray], purpose: str) -> Bool[np.ndarray, " row"]:
    primal, dual, gap = (found[f"{purpose}_{kind}"] for kind in ("primal", "dual", "gap"))
    return (primal <= FEASIBLE_PU) & (dual <= STATIONARY) & (gap <= COMPLEMENTARY)


def rule(found: dict[str, np.ndarray]) -> Ruling:
    answered = found["judged_status"] == OpfStatus.OPTIMAL
    wrong = answered & ~keeps_conditions(found, "judged")
    none = np.zeros_like(answered)
    if "beside_status" not in found:
        claims_none = found["judged_status"] == OpfStatus.INFEASIBLE
        return Ruling(
            answered=answered, judged_wrong=wrong, beside_wrong=none, several_prices=none, undecided=claims_none
        )
    beside_answered = found["beside_status"] == OpfStatus.OPTIMAL
    both = answered & beside_answered
    # A dispatch that breaks a limit by 1e-8 is cheaper by that times a price, which can be high.
    other_cost = both & (found["unexplained_error"] > SAME_COST)
    wrong |= other_cost & (found["verdict"] == Verdict.SECOND)
    # A feasible dispatch is proof that there is one.
    found_one = beside_answered & (found["beside_primal"] <= FEASIBLE_PU)
    wrong |= (found["judged_status"] == OpfStatus.INFEASIBLE) & found_one
    beside_wrong = both & ((other_cost & (found["verdict"] == Verdict.FIRST)) | ~keeps_conditions(found, "beside"))
    beside_wrong |= (
        (found["beside_status"] == OpfStatus.INFEASIBLE) & answered & (found["judged_primal"] <= FEASIBLE_PU)
    )
    differ = other_cost | (both & (found["price_error_of_typical"] > SAME_PRICE))
    settled = wrong | beside_wrong
    return Ruling(
        answered=answered,
        judged_wrong=wrong,
        beside_wrong=beside_wrong,
        several_prices=differ & ~settled & ~other_cost,
        undecided=differ & ~settled & other_cost,
    )


def show(console: Console, found: dict[str, np.ndarray], solvers: tuple[str, ...]) -> None:
    ruling = rule(found)
    place = found["group"] % (len(FEEDERS) * len(VARIANTS))
    columns = {
        f"{feeder}\n{variant}": place == f + len(FEEDERS) * v
        for f, feeder in enumerate(FEEDERS)
        for v, variant in enumerate(VARIANTS)
    } | {"all": np.ones(len(place), dtype=bool)}

    def count(flags: np.ndarray) -> Callable[[np.ndarray], str]:
        return lambda chosen: f"{int(flags[chosen].sum())}"

    def share(flags: np.ndarray) -> Callable[[np.ndarray], str]:
        return lambda chosen: f"{100 * flags[chosen].mean():.0f} %"

    def quantile(values: np.ndarray, q: float, among: np.ndarray) -> Callable[[np.ndarray], str]:
        return lambda chosen: f"{np.quantile(values[chosen & among], q):.1e}" if (chosen & among).any() else "-"

    def mean(values: np.ndarray, among: np.ndarray, digits: int) -> Callable[[np.ndarray], str]:
        return lambda chosen: f"{values[chosen & among].mean():.{digits}f}" if (chosen & among).any() else "-"

    def spread(label: str, values: np.ndarray, among: np.ndarray) -> dict[str, Callable[[np.ndarray], str]]:
        return {
            f"{label}, {name}": quantile(values, q, among)
            for name, q in (("median", 0.5), ("99 %", 0.99), ("worst", 1))
        }

    cells: dict[str, Callable[[np.ndarray], str]] = {"problems": lambda chosen: f"{int(chosen.sum())}"}
    for name, label in (
        ("binds_v_min", "lower voltage binds"),
        ("binds_v_max", "upper voltage binds"),
        ("binds_i_max", "a line binds"),
        ("is_loose", "relaxation not tight"),
    ):
        cells[label] = share(found[name])
    for purpose, name in zip(PURPOSES, solvers, strict=False):
        for status in OpfStatus:
            cells[f"{name}: {status.name}"] = count(found[f"{purpose}_status"] == status)
        solved = found[f"{purpose}_status"] == OpfStatus.OPTIMAL
        for kind in ("primal", "dual", "gap"):
            cells |= spread(f"{name}: {kind}", found[f"{purpose}_{kind}"], solved)
        cells[f"{name}: iterations"] = mean(found[f"{purpose}_iterations"], solved, 1)
        cells[f"{name}: us per problem, median"] = quantile(1e6 * found[f"{purpose}_seconds"], 0.5, solved)
    cells[f"{solvers[0]} wrong, and unflagged"] = count(ruling.judged_wrong)
    if len(solvers) == 2:
        both = ruling.answered & (found["beside_status"] == OpfStatus.OPTIMAL)
        neither = ~ruling.answered & (found["beside_status"] != OpfStatus.OPTIMAL)
        cells["both without an answer"] = count(neither)
        cells |= spread("cost", found["cost_error"], both)
        cells[f"cost, above {SAME_COST:.0e}"] = count(both & (found["cost_error"] > SAME_COST))
        cells["cost, the same and not by violations"] = count(both & (found["unexplained_error"] > SAME_COST))
        cells |= spread("price", found["price_error"], both)
        cells |= spread(f"price, of {TYPICAL_PRICE_PER_KWH}", found["price_error_of_typical"], both)
        cells[f"price, of {TYPICAL_PRICE_PER_KWH}, above {SAME_PRICE:.0e}"] = count(
            both & (found["price_error_of_typical"] > SAME_PRICE)
        )
        cells["the same with fully shed buses, worst"] = quantile(found["price_error_of_typical_if_shed"], 1, both)
        cells["buses left out"] = count(np.where(both, found["left_out"], 0))
        cells[f"{solvers[1]} wrong"] = count(ruling.beside_wrong)
        cells["more than one set of prices"] = count(ruling.several_prices)
    cells["undecided"] = count(ruling.undecided)
    title = f"{solvers[0]} {'beside ' + solvers[1] if len(solvers) == 2 else 'by optimality conditions'}"
    table = Table(title=f"{title}: costs relative to max(1, |cost|), prices to max(1, |price|) or max(0.1, |price|)")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for label, cell in cells.items():
        table.add_row(label, *(cell(chosen) for chosen in columns.values()))
    console.print(table)


def reports(found: dict[str, np.ndarray]) -> Iterator[str]:
    """The problems that need a look; `draw` gives them back."""
    ruling = rule(found)
    unanswered = found["judged_status"] != OpfStatus.OPTIMAL
    if "beside_status" in found:
        unanswered &= found["beside_status"] == OpfStatus.OPTIMAL
    kinds = {
        "wrong": ruling.judged_wrong,
        "the reference is wrong": ruling.beside_wrong,
        "undecided": ruling.undecided,
        "unanswered": unanswered,
    }
    figures = [name for name in found if name.endswith(("status", "primal", "dual", "gap", "error", "verdict"))]
    for kind, flags in kinds.items():
        for k in np.flatnonzero(flags)[:MOST_REPORTS]:
            values = ", ".join(f"{name} {found[name][k]:.2g}" for name in figures)
            yield f"{kind}: group {found['group'][k]}, row {found['row'][k]}: {values}"
        if flags.sum() > MOST_REPORTS:
            yield f"{kind}: and {flags.sum() - MOST_REPORTS} more"


def folder_of(args: argparse.Namespace) -> Path:
    """One per question and per state of the solvers, so that old answers are not taken for new ones."""
    sources = [Path(__file__), *Path(peergrid.grid.opf.__file__).parent.glob("*.py")]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(sources))).hexdigest()[:8]
    return args.folder / f"{args.judged}-beside-{args.beside}-seed-{args.seed}-{state}"


def save(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file of any name."""
    with path.open("wb") as file:
        np.savez(file, **found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20000)
    parser.add_argument("--judged", default="interior_point", help="the solver in question")
    parser.add_argument("--beside", default="conic", help='a solver to compare with, or "none"')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("outputs") / "solver_agreement")
    args = parser.parse_args()

    solvers = (args.judged,) if args.beside == "none" else (args.judged, args.beside)
    size = GROUP_ALONE if len(solvers) == 1 else GROUP_BESIDE
    groups = range(-(-args.problems // size))
    folder = folder_of(args)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [group for group in groups if not (folder / f"{group}.npz").exists()]
    work = partial(examine, seed=args.seed, n=size, solvers=solvers)
    bar = tqdm(total=len(groups) * size, initial=(len(groups) - len(missing)) * size, unit="problem")
    with bar, multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for group, found in pool.imap_unordered(work, missing):
            write_whole(folder / f"{group}.npz", partial(save, found=found))
            bar.update(size)

    files = [dict(np.load(folder / f"{group}.npz", allow_pickle=False)) for group in groups]
    found = {name: np.concatenate([file[name] for file in files]) for name in files[0]}
    console = Console(width=None if sys.stdout.isatty() else 200)
    show(console, found, solvers)
    for line in reports(found):
        console.print(line, style="red", highlight=False)
    return int(rule(found).judged_wrong.any())


if __name__ == "__main__":
    sys.exit(main())
