"""A problem and its starting point, put into a lane of a workspace."""

from __future__ import annotations

import numpy as np

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.lanes import put
from peergrid.grid.opf.kernel.units import LARGEST_RATING_PU, NARROWEST_PU, TYPICAL_PRICE_PER_KWH

# The start: complementarity of limits and of injections' bounds, squared current, price of power, how far into its band
# a voltage begins, and how far an injection from the middle of its own. These and the next took the fewest iterations
# over random problems on four feeders.
FIRST_MU, FIRST_MU_OF_INJECTION, FIRST_L, FIRST_PRICE, INSIDE_BAND, LEAN = 0.5, 1.5, 0.3, 1.0, 0.2, 0.12


@in_place
def load(w, tree, given, row, lane, lossless):
    """Put a problem and its starting point into a lane: inside every bound and cone, balances not yet met."""
    b, d, t = w.bus, w.device, w.start
    n = tree.parent.shape[0]
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    constant, gap = 0.0, 0.0
    for j in range(n):
        p_load = given.bus[row, at.LOAD_KW, j] / s
        q_load = given.bus[row, at.LOAD_KVAR, j] / s - tree.capacitor_pu[j]
        p_flex, q_flex = 0.0, 0.0
        for i in range(tree.first[j], tree.first[j + 1]):
            o = tree.origin[i]
            if tree.reactive[i]:
                lo, hi = given.device[row, at.Q_MIN, o] / s, given.device[row, at.Q_MAX, o] / s
                a, c, cp, cq = 0.0, 0.0, 0.0, 1.0
            else:
                lo, hi = given.device[row, at.P_MIN, o] / s, given.device[row, at.P_MAX, o] / s
                linear, quadratic = given.device[row, at.LINEAR, o], given.device[row, at.QUADRATIC, o]
                reference = given.device[row, at.REFERENCE, o]
                a, c = 2.0 * quadratic * s / money, (linear - 2.0 * quadratic * reference) / money
                constant += (quadratic * reference - linear) * reference / (money * s)
                cp, cq = 1.0, given.device[row, at.TAN_PHI, o]
            if hi - lo < NARROWEST_PU:
                # Nothing to decide: a part of the load, and a stand-in that touches nothing.
                p_load, q_load = p_load - cp * lo, q_load - cq * lo
                constant += (0.5 * a * lo + c) * lo
                lo, hi, a, c, cp, cq = -1.0, 1.0, 1.0, 0.0, 0.0, 0.0
            u = 0.5 * (lo + hi)
            # Towards the side that the price favours.
            saving = FIRST_PRICE * cp - a * u - c
            u += LEAN * (hi - lo) * saving / (1.0 + abs(saving))
            p_flex, q_flex = p_flex + cp * u, q_flex + cq * u
            put(d, i, at.U, lane, u)
            put(d, i, at.LEAST, lane, lo)
            put(d, i, at.MOST, lane, hi)
            put(d, i, at.A, lane, a)
            put(d, i, at.B, lane, c)
            put(d, i, at.CP, lane, cp)
            put(d, i, at.CQ, lane, cq)
            put(d, i, at.AT_LEAST, lane, FIRST_MU_OF_INJECTION / (u - lo))
            put(d, i, at.AT_MOST, lane, FIRST_MU_OF_INJECTION / (hi - u))
            gap += 2.0 * FIRST_MU_OF_INJECTION
        put(b, j, at.P_LOAD, lane, p_load)
        put(b, j, at.Q_LOAD, lane, q_load)
        put(b, j, at.LP, lane, FIRST_PRICE)
        put(b, j, at.LQ, lane, 0.0)
        t[at.DRAWN_P, j], t[at.DRAWN_Q, j] = p_load - p_flex, q_load - q_flex
        for f in (at.LEFT_P, at.LEFT_HAT_P):
            t[f, j], t[f + 1, j] = p_flex - p_load, q_flex - q_load
        if lossless is not None:
            put(b, j, at.HP, lane, 0.0)
            put(b, j, at.HQ, lane, 0.0)
    for j in range(n - 1, 0, -1):
        t[at.DRAWN_P, tree.parent[j]] += t[at.DRAWN_P, j]
        t[at.DRAWN_Q, tree.parent[j]] += t[at.DRAWN_Q, j]
    t[at.START_V, 0] = given.source[row] ** 2
    put(b, 0, at.V, lane, t[at.START_V, 0])
    if lossless is not None:
        put(b, 0, at.VH, lane, t[at.START_V, 0])
    for j in range(1, n):
        above, r, x = tree.parent[j], tree.r[j], tree.x[j]
        v_a, p, q = t[at.START_V, above], t[at.DRAWN_P, j], t[at.DRAWN_Q, j]
        lo, hi = given.bus[row, at.V_MIN_PU, j] ** 2, given.bus[row, at.V_MAX_PU, j] ** 2
        room = INSIDE_BAND * (hi - lo)
        v = max(lo + room, min(hi - room, v_a - 2.0 * (r * p + x * q)))
        t[at.START_V, j] = v
        put(b, j, at.V, lane, v)
        put(b, j, at.V_MIN, lane, lo)
        put(b, j, at.V_MAX, lane, hi)
        put(b, j, at.LOW, lane, FIRST_MU / (v - lo))
        put(b, j, at.HIGH, lane, FIRST_MU / (hi - v))
        gap += 2.0 * FIRST_MU
        if lossless is not None:
            put(b, j, at.VH, lane, v)
        l = 5.0 * (p * p + q * q) / v_a + FIRST_L
        rating = min(given.bus[row, at.I_MAX_A, j] / tree.base_a[j], LARGEST_RATING_PU)
        l_max = rating * rating
        if tree.rated[j]:
            l = min(l, 0.6 * l_max)
            put(b, j, at.L_MAX, lane, l_max)
            put(b, j, at.RATING, lane, FIRST_MU / (l_max - l))
            gap += FIRST_MU
        shrink = inside(p, q, l, v_a)
        p_in, q_in = p * shrink, q * shrink
        put(b, j, at.P, lane, p_in)
        put(b, j, at.Q, lane, q_in)
        put(b, j, at.L, lane, l)
        gap += start_cone(b, j, at.FLOW, lane, p_in, q_in, l, v_a)
        balance(t, at.LEFT_P, j, above, p_in, q_in, r * l, x * l)
        put(b, j, at.FV, lane, v_a - 2.0 * (r * p_in + x * q_in) + (r * r + x * x) * l - v)
        if lossless is not None:
            if tree.rated[j]:
                shrink = inside(p, q, l_max, v_a)
                p, q = p * shrink, q * shrink
                gap += start_cone(b, j, at.FLOW_HAT, lane, p, q, l_max, v_a)
            put(b, j, at.PH, lane, p)
            put(b, j, at.QH, lane, q)
            balance(t, at.LEFT_HAT_P, j, above, p, q, 0.0, 0.0)
            put(b, j, at.GV, lane, v_a - 2.0 * (r * p + x * q) - v)
    for j in range(n):
        put(b, j, at.FP, lane, t[at.LEFT_P, j])
        put(b, j, at.FQ, lane, t[at.LEFT_P + 1, j])
        if lossless is not None:
            put(b, j, at.GP, lane, t[at.LEFT_HAT_P, j])
            put(b, j, at.GQ, lane, t[at.LEFT_HAT_P + 1, j])
    put(b, n, at.GAP, lane, gap)
    put(b, n, at.CONSTANT, lane, constant)
    put(b, n, at.DUAL_LEFT, lane, 1.0)
    put(b, n, at.CENTRING, lane, 0.0)
    put(b, n, at.COST, lane, 0.0)
    put(b, n, at.INFEASIBLE, lane, 1.0)


@in_place
def inside(p, q, l, v):
    """The factor that brings a flow well into its cone."""
    most = 0.5 * l * v
    return 1.0 if p * p + q * q <= most else np.sqrt(most / (p * p + q * q))


@in_place
def start_cone(b, j, c, lane, p, q, l, v):
    """Put the multiplier on the central path; its share of the gap."""
    by_det = FIRST_MU / (2.0 * (v * l - p * p - q * q))
    put(b, j, c + at.ZP, lane, -2.0 * p * by_det)
    put(b, j, c + at.ZQ, lane, -2.0 * q * by_det)
    put(b, j, c + at.ZL, lane, v * by_det)
    put(b, j, c + at.ZV, lane, l * by_det)
    return FIRST_MU


@in_place
def balance(t, f, j, above, p, q, p_lost, q_lost):
    """What line j adds to the balances of its ends."""
    t[f, j] += p - p_lost
    t[f + 1, j] += q - q_lost
    t[f, above] -= p
    t[f + 1, above] -= q
