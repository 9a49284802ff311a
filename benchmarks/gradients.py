"""Gradients of the optimal power flow against central differences over random problems, and what they cost.

    python benchmarks/gradients.py

Where a limit just binds, or is about to, the optimum has a kink: left out is where the differences ahead and behind
disagree by more than 1 %, what is too small to be seen above the solver's tolerance, prices of buses that are shed
entirely, and problems whose relaxation is not tight.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table
from solver_agreement import draw
from tqdm import tqdm

from peergrid.grid.opf.gradient import SolutionGradient, solve_with_gradient
from peergrid.grid.opf.interior_point import InteriorPointOpf
from peergrid.grid.opf.problem import relaxation_gap

GROUPS, PROBLEMS, REPEATS = 16, 256, 10
TIGHT_PU = 1e-6
# What is moved, and by how much of a random direction: kW, kvar, currency, p.u., amperes.
STEPS = {
    "load_kw": 1e-2,
    "load_kvar": 1e-2,
    "p_min_kw": 1e-1,
    "p_max_kw": 1e-1,
    "reference_kw": 1e-1,
    "linear_per_kwh": 1e-5,
    "v_min_pu": 1e-6,
    "v_max_pu": 1e-6,
    "i_max_a": 1e-1,
}
OUTPUTS = {"dispatch": ("p_kw", 1.0), "price": ("price_per_kwh", 1e2), "voltage": ("voltage_pu", 1e3)}


def compare(group: int) -> tuple[dict[tuple[str, str], np.ndarray], list[tuple[float, float]]]:
    """Relative errors by output and input in one group of problems, and seconds of solve and gradient."""
    rng = np.random.default_rng(group)
    dso, problem = draw(0, group, PROBLEMS)
    injections = problem.injections
    solver = InteriorPointOpf(problem.feeder, dso.layout.bus, dso.layout.has_free_q, problem.upper_voltage)
    solution, pull_back = solve_with_gradient(solver, problem)
    usable = (solution.status == 0) & (relaxation_gap(problem.feeder, solution) < TIGHT_PU)
    shedding = dso.layout.sheddable
    is_shed = np.zeros(problem.load_kw.shape, dtype=bool)
    is_shed[:, 1:] = solution.p_kw[:, shedding] >= injections.p_max_kw[:, shedding] * (1.0 - 1e-4)

    errors, times = {}, []
    for output, (name, scale) in OUTPUTS.items():
        weight = rng.normal(size=getattr(solution, name).shape) * scale
        if output == "price":
            weight = np.where(is_shed, 0.0, weight)
        of_solution = SolutionGradient(**{name: weight})
        gradient = pull_back(of_solution)
        for _ in range(REPEATS):
            start = time.process_time()
            pull_back(of_solution)
            between = time.process_time()
            solver(problem)
            times.append((time.process_time() - between, between - start))
        at = (getattr(solution, name) * weight).sum(axis=-1)
        for moved, step in STEPS.items():
            owner = problem if hasattr(problem, moved) else injections
            values = getattr(owner, moved)
            direction = rng.normal(size=values.shape)
            if moved in ("p_min_kw", "p_max_kw"):
                direction = np.where(injections.p_max_kw - injections.p_min_kw > 1.0, direction, 0.0)
            ends = []
            for sign in (1.0, -1.0):
                changed = {moved: values + sign * step * direction}
                if owner is injections:
                    changed = {"injections": replace(injections, **changed)}
                end = solver(replace(problem, **changed))
                ends.append((getattr(end, name) * weight).sum(axis=-1))
            difference = ends[0] - ends[1]
            straight = np.abs(ends[0] + ends[1] - 2.0 * at) < 1e-2 * np.abs(difference)
            seen = usable & straight & (np.abs(difference) > 1e-4 * np.maximum(1.0, 1e-3 * np.abs(at)))
            slope = 2.0 * step * np.where(direction == 0, 0.0, getattr(gradient, moved) * direction).sum(axis=-1)
            errors[output, moved] = np.abs(slope[seen] / difference[seen] - 1.0)
    return errors, times


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    shares = []
    for group in tqdm(range(GROUPS), desc="groups", disable=None):
        errors, times = compare(group)
        for key, values in errors.items():
            found.setdefault(key, []).append(values)
        if group % 4 == 0:
            shares += [gradient / solve for solve, gradient in times]
    table = Table("of", "with respect to", "compared", "median", "75 %", "90 %", title="relative errors")
    for (output, moved), parts in found.items():
        values = np.concatenate(parts)
        quantiles = np.quantile(values, (0.5, 0.75, 0.9)) if len(values) else [np.nan] * 3
        table.add_row(output, moved, str(len(values)), *(f"{q:.1e}" for q in quantiles))
    everything = np.concatenate([values for parts in found.values() for values in parts])
    table.add_row("all", "", str(len(everything)), *(f"{q:.1e}" for q in np.quantile(everything, (0.5, 0.75, 0.9))))
    console = Console()
    console.print(table)
    console.print(f"a gradient takes {np.median(shares):.2f} of the solve it belongs to (ieee33, {PROBLEMS} at once)")


if __name__ == "__main__":
    main()
