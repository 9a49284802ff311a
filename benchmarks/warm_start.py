"""What a start from the last interval's problem would save the interior-point solver: iterations, cold and warm.

    python benchmarks/warm_start.py

Loads, prices and proposals of a problem are changed by a random share, and the solver starts from an iterate of the
problem before: the k-th, as the last one hugs its bounds. Injections keep their relative place between their bounds,
and their multipliers what they contribute to the gap. The solver itself does not do this: answers would depend on what
was asked before, for a third of the iterations.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table
from speed_problems import draw_sets

from peergrid.grid.compiled import compiled
from peergrid.grid.opf.interior_point import ATTEMPTS, _given, _points, _workspace
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.iteration import iterate, move, unload
from peergrid.grid.opf.kernel.lanes import ld, st
from peergrid.grid.opf.kernel.start import load
from peergrid.grid.opf.kernel.units import NARROWEST_PU

CHANGES = (0.01, 0.05, 0.2)
ITERATES = (2, 3, 4, 5, 6)
PROBLEMS = 300
SETTINGS = ATTEMPTS[0]


@compiled
def advance(w, tree, given, point, row, count, settings):
    """Load a problem, take some iterations, keep the point."""
    load(w, tree, given, row, 0, None)
    for _ in range(count):
        iterate(w, tree, settings, None)
    unload(w, point, row, 0, None)


@compiled
def iterations_from(w, tree, given, before, point, row, settings, is_warm):
    """Iterations until a problem is solved, cold or from a point of the problem before."""
    b, d = w.bus, w.device
    n = tree.parent.shape[0]
    load(w, tree, given, row, 0, None)
    if is_warm:
        for j in range(n):
            for f in range(len(at.KEPT)):
                st(b, j, at.KEPT[f], point.bus[row, f, j])
            st(b, j, at.NP, ld(b, j, at.LP))
            st(b, j, at.NQ, ld(b, j, at.LQ))
            for f in (at.DP, at.DQ, at.DL, at.DV):
                st(b, j, f, 0.0)
        for i in range(tree.origin.shape[0]):
            o = tree.origin[i]
            low, high = (at.Q_MIN, at.Q_MAX) if tree.reactive[i] else (at.P_MIN, at.P_MAX)
            s = tree.base_kva
            lo, hi = before.device[row, low, o] / s, before.device[row, high, o] / s
            new_lo, new_hi = given.device[row, low, o] / s, given.device[row, high, o] / s
            if hi - lo < NARROWEST_PU or new_hi - new_lo < NARROWEST_PU:
                continue
            stretch = (new_hi - new_lo) / (hi - lo)
            st(d, i, at.U, new_lo + (point.device[row, 0, i] - lo) * stretch)
            st(d, i, at.AT_LEAST, point.device[row, 1, i] / stretch)
            st(d, i, at.AT_MOST, point.device[row, 2, i] / stretch)
            st(d, i, at.DU, 0.0)
        gap, cost, infeasible = move(w, tree, None, 0.0)
        st(b, n, at.GAP, gap)
        st(b, n, at.INFEASIBLE, infeasible)
    for count in range(1, settings.most_iterations + 1):
        iterate(w, tree, settings, None)
        cost = ld(b, n, at.COST) + ld(b, n, at.CONSTANT)
        is_feasible = ld(b, n, at.INFEASIBLE) <= 10.0 * settings.tolerance
        is_optimal = ld(b, n, at.GAP) <= settings.tolerance * max(1.0, abs(cost))
        if is_feasible and is_optimal and ld(b, n, at.DUAL_LEFT) <= settings.tolerance:
            return count
    return settings.most_iterations


def changed(problem, share, rng):
    """The problem an interval later: each number moved by up to `share` of itself."""
    injections = problem.injections

    def moved(values):
        return values * (1.0 + rng.uniform(-share, share, values.shape))

    proposals = 1.0 + rng.uniform(-share, share, injections.p_min_kw.shape)
    at_root = (injections.bus == 0)[None, :]
    return replace(
        problem,
        load_kw=moved(problem.load_kw),
        load_kvar=moved(problem.load_kvar),
        injections=replace(
            injections,
            p_min_kw=np.where(at_root, injections.p_min_kw, injections.p_min_kw * proposals),
            p_max_kw=np.where(at_root, injections.p_max_kw, injections.p_max_kw * proposals),
            reference_kw=injections.reference_kw * proposals,
        ),
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    chosen = draw_sets(PROBLEMS)["plain"]
    problems = chosen.problems() if callable(chosen.problems) else chosen.problems
    tree = chosen.solver("interior_point").tree
    w = _workspace(tree, in_lanes=False, with_lossless=False)
    before, point = _given(problems), _points(tree, PROBLEMS)
    table = Table("change", "cold", *(f"from iterate {c}" for c in ITERATES), title="iterations: mean (most)")
    for share in CHANGES:
        after = _given(changed(problems, share, np.random.default_rng(0)))
        row = [[iterations_from(w, tree, after, before, point, r, SETTINGS, False) for r in range(PROBLEMS)]]
        for count in ITERATES:
            for r in range(PROBLEMS):
                advance(w, tree, before, point, r, count, SETTINGS)
            row.append([iterations_from(w, tree, after, before, point, r, SETTINGS, True) for r in range(PROBLEMS)])
        table.add_row(f"{share:.0%}", *(f"{np.mean(found):.1f} ({np.max(found)})" for found in row))
    Console().print(table)


if __name__ == "__main__":
    main()
