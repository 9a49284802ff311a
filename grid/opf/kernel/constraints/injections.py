"""Flexible injections of a bus: bounds, cost a/2 u^2 + b u, and what they bring to its balances, a column c = (cp, cq).

Each is eliminated by itself: du = (c'(LP, LQ) + force) / D with D = a + the bounds' curvatures.
"""

from __future__ import annotations

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.cones import bound_step, longest, move_bound, open_bounds, push, start_bound
from peergrid.grid.opf.kernel.lanes import get, ld, put, st
from peergrid.grid.opf.kernel.units import FIRST_PRICE, NARROWEST_PU, TYPICAL_PRICE_PER_KWH

# The start: complementarity, and how far from the middle between its bounds an injection begins.
FIRST_MU_OF_INJECTION, LEAN = 1.5, 0.12
# Complementarity below this counts as zero, in p.u.
NO_GAP = 1e-13


@in_place
def bounds(tree, given, row, i):
    """Of injection i, in p.u."""
    o, s = tree.origin[i], tree.base_kva
    if tree.reactive[i]:
        return given.device[row, at.Q_MIN, o] / s, given.device[row, at.Q_MAX, o] / s
    return given.device[row, at.P_MIN, o] / s, given.device[row, at.P_MAX, o] / s


@in_place
def column(tree, given, row, i):
    """What one p.u. of injection i brings to the balances."""
    if tree.reactive[i]:
        return 0.0, 1.0
    return 1.0, given.device[row, at.TAN_PHI, tree.origin[i]]


@in_place
def start(w, tree, given, row, j, lane, constant, gap):
    """Put them between their bounds. Returns the load of the bus, what they inject, constant cost and gap with theirs.

    A fixed injection is a part of the load.
    """
    d = w.device
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    p_load, q_load = given.bus[row, at.LOAD_KW, j] / s, given.bus[row, at.LOAD_KVAR, j] / s - tree.capacitor_pu[j]
    p_flex, q_flex = 0.0, 0.0
    for i in range(tree.first[j], tree.first[j + 1]):
        o = tree.origin[i]
        lo, hi = bounds(tree, given, row, i)
        cp, cq = column(tree, given, row, i)
        a, c = 0.0, 0.0
        if not tree.reactive[i]:
            linear, quadratic = given.device[row, at.LINEAR, o], given.device[row, at.QUADRATIC, o]
            reference = given.device[row, at.REFERENCE, o]
            a, c = 2.0 * quadratic * s / money, (linear - 2.0 * quadratic * reference) / money
            constant += (quadratic * reference - linear) * reference / (money * s)
        if hi - lo < NARROWEST_PU:
            # Nothing to decide: a stand-in that touches nothing.
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
        gap += start_bound(d, i, at.AT_LEAST, lane, u - lo, FIRST_MU_OF_INJECTION)
        gap += start_bound(d, i, at.AT_MOST, lane, hi - u, FIRST_MU_OF_INJECTION)
    return p_load, q_load, p_flex, q_flex, constant, gap


@in_place
def gather(w, tree, settings, j, smu, corrector):
    """S = sum c c' / D over the injections of bus j, and sum c force / D, which they add to the right-hand side."""
    d = w.device
    zero = 0.0 * smu
    s_pp, s_pq, s_qq, r_p, r_q = zero, zero, zero, zero, zero
    for i in range(tree.first[j], tree.first[j + 1]):
        cp, cq = ld(d, i, at.CP), ld(d, i, at.CQ)
        if corrector is None:
            u = ld(d, i, at.U)
            a = ld(d, i, at.A)
            least, most = open_bounds(d, i, at.AT_LEAST, at.AT_MOST, u - ld(d, i, at.LEAST), ld(d, i, at.MOST) - u)
            by_d = 1.0 / (a + least + most + settings.device_proximal)
            force = -(a * u + ld(d, i, at.B))
            st(d, i, at.INVERSE, by_d)
            s_pp, s_pq, s_qq = s_pp + cp * cp * by_d, s_pq + cp * cq * by_d, s_qq + cq * cq * by_d
        else:
            by_d = ld(d, i, at.INVERSE)
            force = ld(d, i, at.FORCE) + push(d, i, at.AT_LEAST, smu) - push(d, i, at.AT_MOST, smu)
        st(d, i, at.FORCE, force)
        r_p, r_q = r_p + cp * force * by_d, r_q + cq * force * by_d
    return s_pp, s_pq, s_qq, r_p, r_q


@in_place
def step(w, tree, j, price_p, price_q, smu, corrector, found):
    """Directions at the new prices of the bus; longest step and sum of ds dz."""
    d = w.device
    for i in range(tree.first[j], tree.first[j + 1]):
        du = (ld(d, i, at.CP) * price_p + ld(d, i, at.CQ) * price_q + ld(d, i, at.FORCE)) * ld(d, i, at.INVERSE)
        if corrector is not None:
            st(d, i, at.DU, du)
        found = longest(found, bound_step(d, i, at.AT_LEAST, du, smu, corrector))
        found = longest(found, bound_step(d, i, at.AT_MOST, -du, smu, corrector))
    return found


@in_place
def move(w, tree, j, alpha, gap, cost):
    """Take the step. Returns gap and cost with theirs, and the net injection of the bus."""
    d = w.device
    p, q = -ld(w.bus, j, at.P_LOAD), -ld(w.bus, j, at.Q_LOAD)
    for i in range(tree.first[j], tree.first[j + 1]):
        u = ld(d, i, at.U) + alpha * ld(d, i, at.DU)
        st(d, i, at.U, u)
        gap = gap + move_bound(d, i, at.AT_LEAST, alpha, u - ld(d, i, at.LEAST))
        gap = gap + move_bound(d, i, at.AT_MOST, alpha, ld(d, i, at.MOST) - u)
        cost = cost + (0.5 * ld(d, i, at.A) * u + ld(d, i, at.B)) * u
        p, q = p + ld(d, i, at.CP) * u, q + ld(d, i, at.CQ) * u
    return gap, cost, p, q


@in_place
def judge(d, tree, given, answer, row, j, price_p, price_q, sums):
    """Within bounds, at a marginal cost that is the price; dispatch and cost as published, and the net injection.

    `sums` are primal and dual residual, the gap, its change by exact multipliers, the cost, and the residual of the
    infeasibility certificate (the ray).
    """
    primal, dual, gap, change, cost, ray = sums
    s = tree.base_kva
    p = -given.bus[row, at.LOAD_KW, j] / s
    q = tree.capacitor_pu[j] - given.bus[row, at.LOAD_KVAR, j] / s
    for i in range(tree.first[j], tree.first[j + 1]):
        o = tree.origin[i]
        lo, hi = bounds(tree, given, row, i)
        cp, cq = column(tree, given, row, i)
        marginal = 0.0
        is_fixed = hi - lo < NARROWEST_PU
        u = lo if is_fixed else d[at.IN_U, i]
        if tree.reactive[i]:
            answer.device[at.OF_Q, row, o] += u * s
        else:
            away = u * s - given.device[row, at.REFERENCE, o]
            linear, quadratic = given.device[row, at.LINEAR, o], given.device[row, at.QUADRATIC, o]
            marginal = (linear + 2.0 * quadratic * away) / TYPICAL_PRICE_PER_KWH
            cost += (linear + quadratic * away) * away
            answer.device[at.OF_P, row, o] = u * s
            answer.device[at.OF_Q, row, o] = cq * u * s
        p += cp * u
        q += cq * u
        if not is_fixed:
            at_least, at_most = d[at.IN_LEAST, i], d[at.IN_MOST, i]
            worth = cp * price_p + cq * price_q + at_least - at_most
            own = at_least * (u - lo) + at_most * (hi - u)
            gap, ray = gap + own, max(ray, abs(worth))
            # Or with the multipliers that make it stationary at its price exactly, if these add no more to the gap.
            reduced = marginal - worth + at_least - at_most
            exact = max(reduced, 0.0) * (u - lo) + max(-reduced, 0.0) * (hi - u)
            if exact <= own + NO_GAP:
                change += exact - own
            else:
                dual = max(dual, abs(marginal - worth))
            primal = max(primal, lo - u, u - hi)
    return p, q, (primal, dual, gap, change, cost, ray)


@in_place
def seed(w, tree, given, loss, row, j, lane):
    """The loss's gradient with respect to the dispatch, as a force."""
    d, s = w.device, tree.base_kva
    for i in range(tree.first[j], tree.first[j + 1]):
        o = tree.origin[i]
        force = s * loss.device[at.OF_Q, row, o]
        if not tree.reactive[i]:
            force = s * loss.device[at.OF_P, row, o] + given.device[row, at.TAN_PHI, o] * force
        put(d, i, at.FORCE, lane, force)
        put(d, i, at.AT_LEAST + at.K, lane, 0.0)
        put(d, i, at.AT_MOST + at.K, lane, 0.0)


@in_place
def take(w, tree, given, loss, gradient, row, j, lane, price, reactive_price, reactive_multiplier):
    """Gradients of costs, bounds and power factors, given what the balances are worth; their sum shows NaN."""
    d, of = w.device, gradient.device
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    total = 0.0
    for i in range(tree.first[j], tree.first[j + 1]):
        o = tree.origin[i]
        tan_phi, of_q = given.device[row, at.TAN_PHI, o], loss.device[at.OF_Q, row, o]
        first, last = (at.Q_MIN, at.Q_MAX) if tree.reactive[i] else (at.P_MIN, at.P_MAX)
        lo, hi = bounds(tree, given, row, i)
        u, du = get(d, i, at.U, lane), get(d, i, at.DU, lane)
        if hi - lo < NARROWEST_PU:
            # Fixed: to move it moves the balances and the answer itself; half by either bound.
            u, du = lo, 0.0
            directly = reactive_price / s + of_q
            if not tree.reactive[i]:
                directly = price / s + loss.device[at.OF_P, row, o] + tan_phi * directly
            of_least, of_most = 0.5 * directly, 0.5 * directly
        else:
            of_least = get(d, i, at.AT_LEAST, lane) / (u - lo) * du / s
            of_most = get(d, i, at.AT_MOST, lane) / (hi - u) * du / s
        of[first, row, o], of[last, row, o] = of_least, of_most
        total += of_least + of_most + du
        if not tree.reactive[i]:
            away = s * u - given.device[row, at.REFERENCE, o]
            of[at.LINEAR, row, o] = -du / money
            of[at.QUADRATIC, row, o] = -2.0 * away * du / money
            of[at.REFERENCE, row, o] = 2.0 * given.device[row, at.QUADRATIC, o] * du / money
            of[at.TAN_PHI, row, o] = reactive_multiplier * du + u * reactive_price + s * u * of_q
    return total
