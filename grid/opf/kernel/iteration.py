"""The iteration: predict, choose how much to centre, correct, move; read `iterate` first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peergrid.grid.compiled import compiled, in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.certificate import INACCURATE, LEAST_TOLERANCE, STRICTER, judge
from peergrid.grid.opf.kernel.constraints import registry as constraints
from peergrid.grid.opf.kernel.elimination import backward, forward
from peergrid.grid.opf.kernel.lanes import get, larger, ld, n_lanes, st
from peergrid.grid.opf.kernel.start import load

# Multipliers grow without end where no point is feasible.
HOPELESS_GAP = 1e10
# What a step leaves of the way to the boundary: SHORTER times what the predictor left of the gap, at most MOST_LEFT.
SHORTER, MOST_LEFT = 0.1, 0.015


@in_place
def iterate(w, tree, settings, lossless):
    """One step towards the optimum: predict, choose how much to centre, correct, move."""
    b = w.bus
    n = tree.parent.shape[0]
    backward(w, tree, settings, lossless, None)
    inverse, cross = forward(w, tree, lossless, None)
    gap = ld(b, n, at.GAP)
    step = 1.0 / larger(inverse, 1.0)
    left = larger(((1.0 - step) * gap + step * step * cross) / gap, 0.0)
    st(b, n, at.CENTRING, left * left * left * gap * (1.0 / constraints.count(tree, lossless)))
    backward(w, tree, settings, lossless, 1)
    inverse, cross = forward(w, tree, lossless, 1)
    short = -larger(-larger(SHORTER * left, settings.least_left), -MOST_LEFT)
    alpha = 1.0 / larger(inverse / (1.0 - short), 1.0)
    gap, cost, infeasible = move(w, tree, lossless, alpha)
    st(b, n, at.GAP, gap)
    st(b, n, at.COST, cost)
    st(b, n, at.INFEASIBLE, infeasible)
    st(b, n, at.DUAL_LEFT, ld(b, n, at.DUAL_LEFT) * (1.0 - alpha))


@compiled(folder=Path(__file__).parent)
def solve(w, tree, given, point, rows, lossless, settings, answer):
    """Solve and judge the problems of `rows`, lane by lane: a lane that has converged takes the next problem.

    Rounding aside, lanes never touch each other, so an answer does not depend on its neighbours.
    """
    b = w.bus
    n = tree.parent.shape[0]
    lanes = n_lanes(b)
    row_of = np.full(lanes, -1)
    count, last_infeasible, tolerance = np.zeros(lanes, np.int64), np.zeros(lanes), np.full(lanes, settings.tolerance)
    taken = 0
    for lane in range(lanes):
        load(w, tree, given, rows[min(taken, len(rows) - 1)], lane, lossless)
        last_infeasible[lane] = np.inf
        if taken < len(rows):
            row_of[lane] = rows[taken]
            taken += 1
    active = taken
    while active > 0:
        iterate(w, tree, settings, lossless)
        for lane in range(lanes):
            row = row_of[lane]
            if row < 0:
                continue
            count[lane] += 1
            gap, infeasible = get(b, n, at.GAP, lane), get(b, n, at.INFEASIBLE, lane)
            cost = get(b, n, at.COST, lane) + get(b, n, at.CONSTANT, lane)
            # Where rounding stops the balances short of the tolerance, that is as good as it gets.
            is_feasible = infeasible <= 10.0 * tolerance[lane] or 2.0 * infeasible > last_infeasible[lane]
            last_infeasible[lane] = infeasible
            converged = (
                gap <= tolerance[lane] * max(1.0, abs(cost))
                and get(b, n, at.DUAL_LEFT, lane) <= tolerance[lane]
                and is_feasible
            )
            if not converged and count[lane] < settings.most_iterations and gap < HOPELESS_GAP:
                continue
            place = row if point.is_lossless.shape[0] > 1 else 0
            unload(w, point, place, lane, lossless)
            point.is_lossless[place] = lossless is not None
            judge(w, tree, given, point, place, answer, row, lossless)
            answer.iterations[row] = count[lane]
            if converged and answer.status[row] == INACCURATE and tolerance[lane] > LEAST_TOLERANCE:
                tolerance[lane] *= STRICTER
            elif taken < len(rows):
                load(w, tree, given, rows[taken], lane, lossless)
                row_of[lane], count[lane], last_infeasible[lane] = rows[taken], 0, np.inf
                tolerance[lane] = settings.tolerance
                taken += 1
            else:
                row_of[lane] = -1
                active -= 1


@in_place
def unload(w, point, row, lane, lossless):
    """Copy the point of a lane to its row."""
    for j in range(w.bus.shape[0] - 1):
        for f in range(len(at.KEPT)):
            point.bus[row, f, j] = get(w.bus, j, at.KEPT[f], lane)
        if lossless is not None:
            for f in range(len(at.KEPT_HAT)):
                point.bus[row, len(at.KEPT) + f, j] = get(w.bus, j, at.KEPT_HAT[f], lane)
    for i in range(w.device.shape[0]):
        for f in range(len(at.KEPT_OF_DEVICE)):
            point.device[row, f, i] = get(w.device, i, at.KEPT_OF_DEVICE[f], lane)


@in_place
def move(w, tree, lossless, alpha):
    """Take the step; gap, cost, and the largest residual of the linear constraints at the new point."""
    b = w.bus
    n = tree.parent.shape[0]
    gap, cost, worst = 0.0 * alpha, 0.0 * alpha, 0.0 * alpha
    for j in range(n):
        gap, cost, f_p, f_q = constraints.move_bus(w, tree, j, alpha, gap, cost)
        towards(b, j, at.LP, at.NP, alpha)
        towards(b, j, at.LQ, at.NQ, alpha)
        st(b, j, at.FP, f_p)
        st(b, j, at.FQ, f_q)
        if lossless is not None:
            towards(b, j, at.HP, at.NHP, alpha)
            towards(b, j, at.HQ, at.NHQ, alpha)
            st(b, j, at.GP, f_p)
            st(b, j, at.GQ, f_q)
        if j == 0:
            continue
        along(b, j, at.P, at.DP, alpha)
        along(b, j, at.Q, at.DQ, alpha)
        along(b, j, at.L, at.DL, alpha)
        along(b, j, at.V, at.DV, alpha)
        if lossless is not None:
            along(b, j, at.PH, at.DPH, alpha)
            along(b, j, at.QH, at.DQH, alpha)
            along(b, j, at.VH, at.DVH, alpha)
        gap = constraints.move_line(b, tree, j, alpha, lossless, gap)
        residuals(b, tree, j, lossless)
    for j in range(n):
        worst = largest(worst, ld(b, j, at.FP), ld(b, j, at.FQ))
        if j > 0:
            worst = largest(worst, ld(b, j, at.FV), 0.0 * worst)
            if lossless is not None:
                worst = largest(largest(worst, ld(b, j, at.GP), ld(b, j, at.GQ)), ld(b, j, at.GV), 0.0 * worst)
    return gap, cost, worst


@in_place
def along(b, j, f, df, alpha):
    """Move a variable along its direction."""
    st(b, j, f, ld(b, j, f) + alpha * ld(b, j, df))


@in_place
def towards(b, j, f, new, alpha):
    """Move a multiplier towards its new value."""
    st(b, j, f, ld(b, j, f) + alpha * (ld(b, j, new) - ld(b, j, f)))


@in_place
def largest(found, x, y):
    """The largest magnitude."""
    return larger(larger(larger(larger(found, x), -x), y), -y)


@in_place
def residuals(b, tree, j, lossless):
    """What line j adds to the balances of its ends, and its voltage drop."""
    a = tree.parent[j]
    r, x = tree.r[j], tree.x[j]
    p, q, l = ld(b, j, at.P), ld(b, j, at.Q), ld(b, j, at.L)
    st(b, j, at.FP, ld(b, j, at.FP) + p - r * l)
    st(b, j, at.FQ, ld(b, j, at.FQ) + q - x * l)
    st(b, a, at.FP, ld(b, a, at.FP) - p)
    st(b, a, at.FQ, ld(b, a, at.FQ) - q)
    st(b, j, at.FV, ld(b, a, at.V) - 2.0 * (r * p + x * q) + (r * r + x * x) * l - ld(b, j, at.V))
    if lossless is not None:
        p, q = ld(b, j, at.PH), ld(b, j, at.QH)
        st(b, j, at.GP, ld(b, j, at.GP) + p)
        st(b, j, at.GQ, ld(b, j, at.GQ) + q)
        st(b, a, at.GP, ld(b, a, at.GP) - p)
        st(b, a, at.GQ, ld(b, a, at.GQ) - q)
        st(b, j, at.GV, ld(b, a, at.VH) - 2.0 * (r * p + x * q) - ld(b, j, at.VH))
