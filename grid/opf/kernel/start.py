"""A problem and its starting point, put into a lane of a workspace.

The numbers of a start, here and in the constraints (FIRST_MU and others), are those that took the fewest iterations
over random problems on four feeders.
"""

from __future__ import annotations

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.constraints import registry as constraints
from peergrid.grid.opf.kernel.lanes import get, put
from peergrid.grid.opf.kernel.units import FIRST_PRICE

# Squared current without a flow.
FIRST_L = 0.3


@in_place
def load(w, tree, given, row, lane, lossless):
    """Put a problem and its starting point into a lane: inside every bound and cone, balances not yet met.

    Flows begin as the injections make them without losses.
    """
    b, t = w.bus, w.start
    n = tree.parent.shape[0]
    constant, gap = 0.0, 0.0
    for j in range(n):
        p_load, q_load, p_flex, q_flex, constant, gap = constraints.start_bus(
            w, tree, given, row, j, lane, constant, gap
        )
        put(b, j, at.P_LOAD, lane, p_load)
        put(b, j, at.Q_LOAD, lane, q_load)
        for y in range(at.system(lossless).y):
            put(b, j, at.Y[y], lane, 0.0)
        put(b, j, at.LP, lane, FIRST_PRICE)
        t[at.DRAWN_P, j], t[at.DRAWN_Q, j] = p_load - p_flex, q_load - q_flex
        for f in (at.LEFT_P, at.LEFT_HAT_P):
            t[f, j], t[f + 1, j] = p_flex - p_load, q_flex - q_load
    for j in range(n - 1, 0, -1):
        t[at.DRAWN_P, tree.parent[j]] += t[at.DRAWN_P, j]
        t[at.DRAWN_Q, tree.parent[j]] += t[at.DRAWN_Q, j]
    put(b, 0, at.V, lane, given.source[row] ** 2)
    put(b, 0, at.system(lossless).upper, lane, given.source[row] ** 2)
    for j in range(1, n):
        a, r, x = tree.parent[j], tree.r[j], tree.x[j]
        v_a, p, q = get(b, a, at.V, lane), t[at.DRAWN_P, j], t[at.DRAWN_Q, j]
        put(b, j, at.P, lane, p)
        put(b, j, at.Q, lane, q)
        put(b, j, at.L, lane, 5.0 * (p * p + q * q) / v_a + FIRST_L)
        put(b, j, at.V, lane, v_a - 2.0 * (r * p + x * q))
        if lossless is not None:
            put(b, j, at.PH, lane, p)
            put(b, j, at.QH, lane, q)
        gap += constraints.start_line(b, tree, given, row, j, lane, lossless)
        p, q, l, v = get(b, j, at.P, lane), get(b, j, at.Q, lane), get(b, j, at.L, lane), get(b, j, at.V, lane)
        balance(t, at.LEFT_P, j, a, p, q, r * l, x * l)
        put(b, j, at.FV, lane, v_a - 2.0 * (r * p + x * q) + (r * r + x * x) * l - v)
        if lossless is not None:
            p, q = get(b, j, at.PH, lane), get(b, j, at.QH, lane)
            balance(t, at.LEFT_HAT_P, j, a, p, q, 0.0, 0.0)
            put(b, j, at.GV, lane, v_a - 2.0 * (r * p + x * q) - v)
    for j in range(n):
        put(b, j, at.FP, lane, t[at.LEFT_P, j])
        put(b, j, at.FQ, lane, t[at.LEFT_Q, j])
        if lossless is not None:
            put(b, j, at.GP, lane, t[at.LEFT_HAT_P, j])
            put(b, j, at.GQ, lane, t[at.LEFT_HAT_Q, j])
    put(b, n, at.GAP, lane, gap)
    put(b, n, at.CONSTANT, lane, constant)
    put(b, n, at.DUAL_LEFT, lane, 1.0)
    put(b, n, at.CENTRING, lane, 0.0)
    put(b, n, at.COST, lane, 0.0)
    put(b, n, at.INFEASIBLE, lane, 1.0)


@in_place
def balance(t, f, j, a, p, q, p_lost, q_lost):
    """What line j adds to the balances of its ends."""
    t[f, j] += p - p_lost
    t[f + 1, j] += q - q_lost
    t[f, a] -= p
    t[f + 1, a] -= q
