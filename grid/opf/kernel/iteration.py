"""The iteration: predict, choose how much to centre, correct, move; read `iterate` first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peergrid.grid.compiled import compiled, in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.certificate import INACCURATE, LEAST_TOLERANCE, STRICTER, judge
from peergrid.grid.opf.kernel.cones import move_bound, move_cone
from peergrid.grid.opf.kernel.elimination import backward, forward
from peergrid.grid.opf.kernel.lanes import get, in_both, larger, ld, n_lanes, st
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
    st(b, n, at.CENTRING, left * left * left * gap * (1.0 / n_complementary(tree, lossless)))
    backward(w, tree, settings, lossless, 1)
    inverse, cross = forward(w, tree, lossless, 1)
    short = -larger(-larger(SHORTER * left, settings.least_left), -MOST_LEFT)
    alpha = 1.0 / larger(inverse / (1.0 - short), 1.0)
    gap, cost, infeasible = move(w, tree, lossless, alpha)
    st(b, n, at.GAP, gap)
    st(b, n, at.COST, cost)
    st(b, n, at.INFEASIBLE, infeasible)
    st(b, n, at.DUAL_LEFT, ld(b, n, at.DUAL_LEFT) * (1.0 - alpha))


@in_place
def n_complementary(tree, lossless):
    """Number of bounds and cones."""
    n = tree.parent.shape[0]
    return 2 * tree.origin.shape[0] + 3 * (n - 1) + tree.rated.sum() * in_both(lossless, 1, 2)


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
            point.is_lossless[place] = in_both(lossless, False, True)
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
        for f in range(len(at.OF_BUS)):
            point.bus[row, f, j] = get(w.bus, j, at.OF_BUS[f], lane)
        if lossless is not None:
            for f in range(len(at.OF_BUS_LOSSLESS)):
                point.bus[row, len(at.OF_BUS) + f, j] = get(w.bus, j, at.OF_BUS_LOSSLESS[f], lane)
    for i in range(w.device.shape[0]):
        for f in range(len(at.OF_DEVICE)):
            point.device[row, f, i] = get(w.device, i, at.OF_DEVICE[f], lane)


@in_place
def move(w, tree, lossless, alpha):
    """Take the step; gap, cost, and the largest residual of the linear constraints at the new point."""
    b, d = w.bus, w.device
    n = tree.parent.shape[0]
    gap, cost, worst = 0.0 * alpha, 0.0 * alpha, 0.0 * alpha
    for j in range(n):
        f_p, f_q = -ld(b, j, at.P_LOAD), -ld(b, j, at.Q_LOAD)
        for i in range(tree.first[j], tree.first[j + 1]):
            u = ld(d, i, at.U) + alpha * ld(d, i, at.DU)
            st(d, i, at.U, u)
            gap = gap + move_bound(d, i, at.AT_LEAST, alpha, u - ld(d, i, at.LEAST))
            gap = gap + move_bound(d, i, at.AT_MOST, alpha, ld(d, i, at.MOST) - u)
            cost = cost + (0.5 * ld(d, i, at.A) * u + ld(d, i, at.B)) * u
            f_p, f_q = f_p + ld(d, i, at.CP) * u, f_q + ld(d, i, at.CQ) * u
        st(b, j, at.LP, ld(b, j, at.LP) + alpha * (ld(b, j, at.NP) - ld(b, j, at.LP)))
        st(b, j, at.LQ, ld(b, j, at.LQ) + alpha * (ld(b, j, at.NQ) - ld(b, j, at.LQ)))
        st(b, j, at.FP, f_p)
        st(b, j, at.FQ, f_q)
        if lossless is not None:
            st(b, j, at.HP, ld(b, j, at.HP) + alpha * (ld(b, j, at.NHP) - ld(b, j, at.HP)))
            st(b, j, at.HQ, ld(b, j, at.HQ) + alpha * (ld(b, j, at.NHQ) - ld(b, j, at.HQ)))
            st(b, j, at.GP, f_p)
            st(b, j, at.GQ, f_q)
        if j == 0:
            continue
        a = tree.parent[j]
        v_a = ld(b, a, at.V)
        p = ld(b, j, at.P) + alpha * ld(b, j, at.DP)
        q = ld(b, j, at.Q) + alpha * ld(b, j, at.DQ)
        l = ld(b, j, at.L) + alpha * ld(b, j, at.DL)
        v = ld(b, j, at.V) + alpha * ld(b, j, at.DV)
        st(b, j, at.P, p)
        st(b, j, at.Q, q)
        st(b, j, at.L, l)
        st(b, j, at.V, v)
        gap = gap + move_cone(b, j, at.FLOW, alpha, p, q, l, v_a)
        gap = gap + move_bound(b, j, at.LOW, alpha, v - ld(b, j, at.V_MIN))
        if tree.rated[j]:
            gap = gap + move_bound(b, j, at.RATING, alpha, ld(b, j, at.L_MAX) - l)
        if lossless is not None:
            p = ld(b, j, at.PH) + alpha * ld(b, j, at.DPH)
            q = ld(b, j, at.QH) + alpha * ld(b, j, at.DQH)
            v = ld(b, j, at.VH) + alpha * ld(b, j, at.DVH)
            st(b, j, at.PH, p)
            st(b, j, at.QH, q)
            st(b, j, at.VH, v)
            if tree.rated[j]:
                gap = gap + move_cone(b, j, at.FLOW_HAT, alpha, p, q, ld(b, j, at.L_MAX), v_a)
        gap = gap + move_bound(b, j, at.HIGH, alpha, ld(b, j, at.V_MAX) - v)
        residuals(b, tree, j, lossless)
    for j in range(n):
        worst = largest(worst, ld(b, j, at.FP), ld(b, j, at.FQ))
        if j > 0:
            worst = largest(worst, ld(b, j, at.FV), 0.0 * worst)
            if lossless is not None:
                worst = largest(largest(worst, ld(b, j, at.GP), ld(b, j, at.GQ)), ld(b, j, at.GV), 0.0 * worst)
    return gap, cost, worst


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
