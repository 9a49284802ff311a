"""How good an answer is: residuals of all optimality conditions, or a proof that the problem has none.

Residuals are computed anew from the point that is returned. With multipliers of the voltage drops that make the
Lagrangian stationary in the voltages, what is left of stationarity is in the flows, currents and injections.
"""

from __future__ import annotations

import numpy as np

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.constraints import registry as constraints
from peergrid.grid.opf.kernel.units import TYPICAL_PRICE_PER_KWH

# Statuses, as `OpfStatus` has them.
OPTIMAL, INFEASIBLE_PROBLEM, INACCURATE = range(3)
# Tolerances within which an answer counts as optimal: primal residuals of power and squared voltage, in p.u.;
# stationarity, relative to the largest price; the duality gap, which bounds what another dispatch could save, relative
# to the cost or to LEAST_COST_PER_HOUR; and the balances' residuals times their multipliers, by which the cost may be
# underestimated, relative to the cost or to LEAST_COST_PU.
PRIMAL_ACCEPTED, DUAL_ACCEPTED, GAP_ACCEPTED, MISSED_ACCEPTED = 1e-7, 1e-6, 1e-8, 4.5e-7
LEAST_COST_PER_HOUR, LEAST_COST_PU = 50.0, 0.25
# An answer that falls short of that is carried on to a stricter tolerance, down to the least.
STRICTER, LEAST_TOLERANCE = 0.1, 1e-10
# Flows, currents, voltages and injections of a feasible point stay below this, in p.u.
REACH_PU = 10.0


@in_place
def judge(w, tree, given, point, place, answer, row, lossless):
    """Status, residuals and published answer of a row's problem at a point.

    Without lossless flows in the problem it also says by how much they would pass their limits.
    """
    n = tree.parent.shape[0]
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    t = w.start
    f_p, f_q, g_p, g_q, v_free = t[at.LEFT_P], t[at.LEFT_Q], t[at.LEFT_HAT_P], t[at.LEFT_HAT_Q], t[at.V_FREE]
    b, d = point.bus[place], point.device[place]
    sums = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for j in range(n):
        f_p[j], f_q[j], sums = constraints.judge_bus(b, d, tree, given, answer, row, j, sums)
        g_p[j], g_q[j] = f_p[j], f_q[j]
        b[at.IN_DROP, j], b[at.IN_DROP_HAT, j] = 0.0, 0.0
    primal, dual, gap, change, cost, ray = sums
    sum_drops(b, tree, g_p, g_q, lossless)
    # `value`: the least of the Lagrangian without costs; `missed`: the balances' residuals times their multipliers.
    value, missed, excess, largest = 0.0, 0.0, -np.inf, 1.0
    v_free[0] = b[at.IN_V, 0]
    for j in range(n):
        price, reactive_price = constraints.prices(b, j)
        largest = max(largest, abs(price), abs(reactive_price))
        answer.bus[at.OF_PRICE, row, j] = price * money
        answer.bus[at.OF_REACTIVE_PRICE, row, j] = reactive_price * money
        answer.bus[at.OF_VOLTAGE, row, j] = np.sqrt(max(b[at.IN_V, j], 0.0))
        if j == 0:
            continue
        a = tree.parent[j]
        r, x = tree.r[j], tree.x[j]
        z2 = r * r + x * x
        p, q, l, v, v_a = b[at.IN_P, j], b[at.IN_Q, j], b[at.IN_L, j], b[at.IN_V, j], b[at.IN_V, a]
        f_p[j] += p - r * l
        f_q[j] += q - x * l
        f_p[a] -= p
        f_q[a] -= q
        drop, drop_hat = b[at.IN_DROP, j], b[at.IN_DROP_HAT, j]
        f_v = v_a - 2.0 * (r * p + x * q) + z2 * l - v
        value -= drop * f_v
        missed += abs(drop * f_v)
        primal = max(primal, abs(f_v))
        of_p = along_flow(b, at.IN_LP, at.IN_FLOW + at.ZP, j, a, r, drop)
        of_q = along_flow(b, at.IN_LQ, at.IN_FLOW + at.ZQ, j, a, x, drop)
        of_l = r * b[at.IN_LP, j] + x * b[at.IN_LQ, j] - z2 * drop - b[at.IN_FLOW + at.ZL, j]
        of_l, primal, gap = constraints.judge_line(b, tree, given, answer, row, j, of_l, primal, gap)
        # The most that a residual could save: in a line with hardly any resistance, much current costs next to nothing.
        gap += abs(of_l) * l + abs(of_p * p) + abs(of_q * q)
        worst = max(abs(of_p), abs(of_q), abs(of_l))
        dual, ray = max(dual, worst), max(ray, worst)
        p_hat, q_hat = b[at.IN_PH, j], b[at.IN_QH, j]
        v_free[j] = v_free[a] - 2.0 * (r * p_hat + x * q_hat)
        if lossless is not None:
            of_p = along_flow(b, at.IN_HP, at.IN_FLOW_HAT + at.ZP, j, a, r, drop_hat)
            of_q = along_flow(b, at.IN_HQ, at.IN_FLOW_HAT + at.ZQ, j, a, x, drop_hat)
            gap += abs(of_p * p_hat) + abs(of_q * q_hat)
            worst = max(abs(of_p), abs(of_q))
            dual, ray = max(dual, worst), max(ray, worst)
            primal, value, missed = constraints.judge_lossless(
                b, tree, given, answer, row, j, v_free[j], primal, value, missed
            )
        else:
            excess = constraints.lossless_excess(b, tree, given, row, j, v_free[j], excess)
            primal, gap = constraints.judge_plain(b, tree, given, answer, row, j, primal, gap)
        answer.bus[at.OF_FLOW, row, j], answer.bus[at.OF_REACTIVE_FLOW, row, j] = p * s, q * s
        answer.bus[at.OF_CURRENT, row, j] = l
    for j in range(n):
        value -= b[at.IN_LP, j] * f_p[j] + b[at.IN_LQ, j] * f_q[j]
        missed += abs(b[at.IN_LP, j] * f_p[j]) + abs(b[at.IN_LQ, j] * f_q[j])
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
    # Infeasibility certificate. Without costs the Lagrangian of a feasible point is at most zero. It is linear, with
    # slopes of at most `ray`; so it can fall from `value` by at most REACH_PU times `ray` for each variable. Where it
    # stays above zero even so, no point is feasible.
    is_infeasible = not is_optimal and value > REACH_PU * (n + len(d[at.IN_U])) * ray
    answer.status[row] = OPTIMAL if is_optimal else INFEASIBLE_PROBLEM if is_infeasible else INACCURATE
    answer.row[at.FOUND_PRIMAL, row], answer.row[at.FOUND_DUAL, row] = primal, dual / largest
    answer.row[at.FOUND_GAP, row] = gap
    answer.row[at.FOUND_EXCESS, row] = excess if is_optimal else np.inf
    answer.row[at.FOUND_COST, row] = cost
    if not is_optimal:
        answer.device[:, row] = 0.0
        answer.bus[:, row] = 0.0
        answer.row[at.FOUND_COST, row] = 0.0


@in_place
def along_flow(b, price, z, j, a, r, drop):
    """What is left of stationarity of a flow, given the fields of its balance's multiplier and its cone's."""
    return b[price, a] - b[price, j] + 2.0 * r * drop - b[z, j]


@in_place
def sum_drops(b, tree, g_p, g_q, lossless):
    """Multipliers of the voltage drops, from the leaves; flows as the injections make them without losses."""
    for j in range(tree.parent.shape[0] - 1, 0, -1):
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
        b[at.IN_DROP, a] += b[at.IN_DROP, j] + b[at.IN_FLOW + at.ZV, j] + b[at.IN_FLOW_HAT + at.ZV, j]
