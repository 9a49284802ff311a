"""How good an answer is: residuals of all optimality conditions, or a proof that there is none."""

from __future__ import annotations

import numpy as np

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.units import LARGEST_RATING_PU, NARROWEST_PU, TYPICAL_PRICE_PER_KWH

# Statuses, as `OpfStatus` has them.
OPTIMAL, INFEASIBLE_PROBLEM, INACCURATE = range(3)
# What an answer must keep to count as one: power and squared voltage in p.u.; prices relative to the largest; what
# another dispatch could save, relative to the cost or to LEAST_COST_PER_HOUR; what this one saves by balances that it
# misses, relative to the cost or to LEAST_COST_PU.
PRIMAL_ACCEPTED, DUAL_ACCEPTED, GAP_ACCEPTED, MISSED_ACCEPTED = 1e-7, 1e-6, 1e-8, 4.5e-7
LEAST_COST_PER_HOUR, LEAST_COST_PU = 50.0, 0.25
NO_GAP = 1e-13
# An answer that falls short of that is carried on to a stricter tolerance, down to the least.
STRICTER, LEAST_TOLERANCE = 0.1, 1e-10
# Flows, voltages and injections of a feasible point stay below this, in p.u.
REACH_PU = 10.0


@in_place
def judge(w, tree, given, point, place, answer, row, lossless):
    """Residuals of all optimality conditions of a row's problem at a point, and the answer in kW and currency.

    Without lossless flows in the problem it also says by how much they would pass their limits.
    """
    n = tree.parent.shape[0]
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    t = w.start
    f_p, f_q, g_p, g_q, v_free = t[at.LEFT_P], t[at.LEFT_Q], t[at.LEFT_HAT_P], t[at.LEFT_HAT_Q], t[at.START_V]
    b, d = point.bus[place], point.device[place]
    primal, dual, gap, change, cost, excess, ray = 0.0, 0.0, 0.0, 0.0, 0.0, -np.inf, 0.0
    value, missed = 0.0, 0.0
    # Injections: within bounds, at a marginal cost that is the price.
    for j in range(n):
        f_p[j] = -given.bus[row, at.LOAD_KW, j] / s
        f_q[j] = tree.capacitor_pu[j] - given.bus[row, at.LOAD_KVAR, j] / s
        price_p, price_q = b[at.LP, j] + b[at.IN_HP, j], b[at.LQ, j] + b[at.IN_HQ, j]
        for i in range(tree.first[j], tree.first[j + 1]):
            o = tree.origin[i]
            if tree.reactive[i]:
                lo, hi = given.device[row, at.Q_MIN, o] / s, given.device[row, at.Q_MAX, o] / s
                marginal, cp, cq = 0.0, 0.0, 1.0
            else:
                lo, hi = given.device[row, at.P_MIN, o] / s, given.device[row, at.P_MAX, o] / s
                cp, cq = 1.0, given.device[row, at.TAN_PHI, o]
            is_fixed = hi - lo < NARROWEST_PU
            u = lo if is_fixed else d[at.U, i]
            if tree.reactive[i]:
                answer.device[1, row, o] += u * s
            else:
                away = u * s - given.device[row, at.REFERENCE, o]
                linear, quadratic = given.device[row, at.LINEAR, o], given.device[row, at.QUADRATIC, o]
                marginal = (linear + 2.0 * quadratic * away) / money
                cost += (linear + quadratic * away) * away
                answer.device[0, row, o] = u * s
                answer.device[1, row, o] = cq * u * s
            f_p[j] += cp * u
            f_q[j] += cq * u
            if not is_fixed:
                at_least, at_most = d[at.IN_LEAST, i], d[at.IN_MOST, i]
                worth = cp * price_p + cq * price_q + at_least - at_most
                own = at_least * (u - lo) + at_most * (hi - u)
                gap, ray = gap + own, max(ray, abs(worth))
                # Or with the multipliers that fit its price exactly, where its bounds leave it no room for more.
                reduced = marginal - worth + at_least - at_most
                exact = max(reduced, 0.0) * (u - lo) + max(-reduced, 0.0) * (hi - u)
                if exact <= own + NO_GAP:
                    change += exact - own
                else:
                    dual = max(dual, abs(marginal - worth))
                primal = max(primal, lo - u, u - hi)
        g_p[j], g_q[j] = f_p[j], f_q[j]
        b[at.IN_DROP, j], b[at.IN_DROP_HAT, j] = 0.0, 0.0
    # Multipliers of the voltage drops, from the leaves; flows as the injections make them without losses.
    for j in range(n - 1, 0, -1):
        a = tree.parent[j]
        b[at.IN_DROP, j] += b[at.IN_LOW, j]
        if lossless is not None:
            b[at.IN_DROP_HAT, j] -= b[at.IN_HIGH, j]
            b[at.IN_DROP_HAT, a] += b[at.IN_DROP_HAT, j]
        else:
            b[at.IN_DROP, j] -= b[at.IN_HIGH, j]
        b[at.IN_PH, j], b[at.IN_QH, j] = -g_p[j], -g_q[j]
        g_p[a] += g_p[j]
        g_q[a] += g_q[j]
        b[at.IN_DROP, a] += b[at.IN_DROP, j] + b[at.IN_CONE + 3, j] + b[at.IN_CONE_HAT + 3, j]
    # Lines: balances, voltages, cones and ratings.
    largest = 1.0
    v_free[0] = b[at.V, 0]
    for j in range(n):
        largest = max(largest, abs(b[at.LP, j] + b[at.IN_HP, j]), abs(b[at.LQ, j] + b[at.IN_HQ, j]))
        answer.bus[4, row, j] = (b[at.LP, j] + b[at.IN_HP, j]) * money
        answer.bus[5, row, j] = (b[at.LQ, j] + b[at.IN_HQ, j]) * money
        answer.bus[3, row, j] = np.sqrt(max(b[at.V, j], 0.0))
        if j == 0:
            continue
        a = tree.parent[j]
        r, x = tree.r[j], tree.x[j]
        z2 = r * r + x * x
        p, q, l, v, v_a = b[at.P, j], b[at.Q, j], b[at.L, j], b[at.V, j], b[at.V, a]
        v_lo, v_hi = given.bus[row, at.V_MIN_PU, j] ** 2, given.bus[row, at.V_MAX_PU, j] ** 2
        f_p[j] += p - r * l
        f_q[j] += q - x * l
        f_p[a] -= p
        f_q[a] -= q
        f_v = v_a - 2.0 * (r * p + x * q) + z2 * l - v
        value -= b[at.IN_DROP, j] * f_v
        missed += abs(b[at.IN_DROP, j] * f_v)
        primal = max(primal, abs(f_v), v_lo - v, p * p + q * q - v_a * l)
        of_p = b[at.LP, a] - b[at.LP, j] + 2.0 * r * b[at.IN_DROP, j] - b[at.IN_CONE, j]
        of_q = b[at.LQ, a] - b[at.LQ, j] + 2.0 * x * b[at.IN_DROP, j] - b[at.IN_CONE + 1, j]
        of_l = r * b[at.LP, j] + x * b[at.LQ, j] - z2 * b[at.IN_DROP, j] - b[at.IN_CONE + 2, j]
        gap += b[at.IN_CONE, j] * p + b[at.IN_CONE + 1, j] * q + b[at.IN_CONE + 2, j] * l + b[at.IN_CONE + 3, j] * v_a
        gap += b[at.IN_LOW, j] * (v - v_lo)
        p_hat, q_hat = b[at.IN_PH, j], b[at.IN_QH, j]
        v_free[j] = v_free[a] - 2.0 * (r * p_hat + x * q_hat)
        l_max = np.inf
        if tree.rated[j]:
            l_max = min(given.bus[row, at.I_MAX_A, j] / tree.base_a[j], LARGEST_RATING_PU) ** 2
            of_l += b[at.IN_RATING, j]
            gap += b[at.IN_RATING, j] * (l_max - l)
            primal = max(primal, l - l_max)
        # What a residual could save, at most: a line with hardly any resistance lets much current through for nothing.
        gap += abs(of_l) * l + abs(of_p * p) + abs(of_q * q)
        worst = max(abs(of_p), abs(of_q), abs(of_l))
        dual, ray = max(dual, worst), max(ray, worst)
        if lossless is not None:
            primal = max(primal, v_free[j] - v_hi)
            of_p = b[at.IN_HP, a] - b[at.IN_HP, j] + 2.0 * r * b[at.IN_DROP_HAT, j] - b[at.IN_CONE_HAT, j]
            of_q = b[at.IN_HQ, a] - b[at.IN_HQ, j] + 2.0 * x * b[at.IN_DROP_HAT, j] - b[at.IN_CONE_HAT + 1, j]
            gap += abs(of_p * p_hat) + abs(of_q * q_hat)
            worst = max(abs(of_p), abs(of_q))
            dual, ray = max(dual, worst), max(ray, worst)
            # Of flows made anew from the injections: rounding leaves more here than elsewhere.
            room = b[at.IN_HIGH, j] * (v_hi - v_free[j])
            value -= room
            missed += abs(room)
            if tree.rated[j]:
                room = b[at.IN_CONE_HAT, j] * p_hat + b[at.IN_CONE_HAT + 1, j] * q_hat
                room += b[at.IN_CONE_HAT + 2, j] * l_max + b[at.IN_CONE_HAT + 3, j] * v_a
                value -= room
                missed += abs(room)
                primal = max(primal, p_hat * p_hat + q_hat * q_hat - l_max * v_a)
        else:
            excess = max(excess, v_free[j] - v_hi)
            if tree.rated[j]:
                excess = max(excess, p_hat * p_hat + q_hat * q_hat - l_max * v_a)
            primal = max(primal, v - v_hi)
            gap += b[at.IN_HIGH, j] * (v_hi - v)
        answer.bus[0, row, j], answer.bus[1, row, j], answer.bus[2, row, j] = p * s, q * s, l
        answer.bus[6, row, j] = b[at.IN_LOW, j] * money * s
        answer.bus[7, row, j] = b[at.IN_HIGH, j] * money * s
        answer.bus[8, row, j] = b[at.IN_RATING, j] * money * s
        # Of Ph^2 + Qh^2 - l_max v <= 0, from the cone's multiplier along v.
        answer.bus[9, row, j] = b[at.IN_CONE_HAT + 3, j] / l_max * money * s
    for j in range(n):
        value -= b[at.LP, j] * f_p[j] + b[at.LQ, j] * f_q[j]
        missed += abs(b[at.LP, j] * f_p[j]) + abs(b[at.LQ, j] * f_q[j])
        primal = max(primal, abs(f_p[j]), abs(f_q[j]))
    value -= gap
    cost_pu = abs(cost) / (money * s)
    gap = (gap + change) / max(LEAST_COST_PER_HOUR / (money * s), cost_pu)
    # Written so that NaN fails.
    is_optimal = (
        primal <= PRIMAL_ACCEPTED
        and dual <= DUAL_ACCEPTED * largest
        and gap <= GAP_ACCEPTED
        and missed <= MISSED_ACCEPTED * max(LEAST_COST_PU, cost_pu)
    )
    # Multipliers alone, free of cost: with them the Lagrangian of a feasible point is not above zero, whatever the
    # point, so a value above it proves that there is none; unless what `ray` leaves open could make up for it.
    is_infeasible = not is_optimal and value > REACH_PU * (n + len(d[at.U])) * ray
    answer.status[row] = OPTIMAL if is_optimal else INFEASIBLE_PROBLEM if is_infeasible else INACCURATE
    answer.row[at.FOUND_PRIMAL, row], answer.row[at.FOUND_DUAL, row], answer.row[at.FOUND_GAP, row] = (
        primal,
        dual / largest,
        gap,
    )
    answer.row[at.FOUND_EXCESS, row] = excess if is_optimal else np.inf
    answer.row[at.FOUND_COST, row] = cost
    if not is_optimal:
        answer.device[:, row] = 0.0
        answer.bus[:, row] = 0.0
        answer.row[at.FOUND_COST, row] = 0.0
