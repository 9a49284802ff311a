"""How the optimum moves with its problem, in reverse: read `adjoint` first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peergrid.grid.compiled import compiled, in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.elimination import backward, forward
from peergrid.grid.opf.kernel.lanes import get, in_both, n_lanes, put
from peergrid.grid.opf.kernel.start import load
from peergrid.grid.opf.kernel.units import LARGEST_RATING_PU, NARROWEST_PU, TYPICAL_PRICE_PER_KWH


@compiled(folder=Path(__file__).parent)
def adjoint(w, tree, given, point, rows, lossless, settings, loss, gradient):
    """Take a loss's gradient with respect to the answers of `rows` back to the numbers of their problems.

    The answer moves as its problem does by the linear system of the iteration, once the cones have their true curvature
    in place of Nesterov and Todd's. The system is symmetric, so one solve with the loss's gradient on the right-hand
    side says what moving any number is worth. Where it is singular the gradient stays zero.
    """
    lanes = n_lanes(w.bus)
    for start in range(0, len(rows), lanes):
        n_taken = min(lanes, len(rows) - start)
        for lane in range(lanes):
            row = rows[start + min(lane, n_taken - 1)]
            load(w, tree, given, row, lane, lossless)
            reload(w, tree, point, row, lane, lossless)
        backward(w, tree, settings, lossless, None)
        for lane in range(lanes):
            put_seed(w, tree, given, loss, rows[start + min(lane, n_taken - 1)], lane, lossless)
        backward(w, tree, settings, lossless, 1)
        forward(w, tree, lossless, 1)
        for lane in range(n_taken):
            row = rows[start + lane]
            total = take_lines(w, tree, given, gradient, row, lane, lossless)
            total += take_injections(w, tree, given, loss, gradient, row, lane, lossless)
            gradient.source[row] = 2.0 * given.source[row] * worth_of_source(w, lane, lossless)
            gradient.source[row] += loss.bus[at.OF_VOLTAGE, row, 0]
            if not np.isfinite(total + gradient.source[row]):
                gradient.bus[:, row] = 0.0
                gradient.device[:, row] = 0.0
                gradient.source[row] = 0.0


@in_place
def reload(w, tree, point, row, lane, lossless):
    """Put back the point of a row, with the multipliers of cones along their gradient (-2 P, -2 Q, v, l)."""
    b = w.bus
    n = tree.parent.shape[0]
    for j in range(n):
        for f in range(len(at.OF_BUS)):
            put(b, j, at.OF_BUS[f], lane, point.bus[row, f, j])
        if lossless is not None:
            for f in range(len(at.OF_BUS_LOSSLESS)):
                put(b, j, at.OF_BUS_LOSSLESS[f], lane, point.bus[row, len(at.OF_BUS) + f, j])
    for i in range(tree.origin.shape[0]):
        for f in range(len(at.OF_DEVICE)):
            put(w.device, i, at.OF_DEVICE[f], lane, point.device[row, f, i])
    for j in range(1, n):
        v_a = get(b, tree.parent[j], at.V, lane)
        align_cone(b, j, at.FLOW, lane, get(b, j, at.P, lane), get(b, j, at.Q, lane), get(b, j, at.L, lane), v_a)
        if lossless is not None and tree.rated[j]:
            p, q, l = get(b, j, at.PH, lane), get(b, j, at.QH, lane), get(b, j, at.L_MAX, lane)
            align_cone(b, j, at.FLOW_HAT, lane, p, q, l, v_a)


@in_place
def align_cone(a, j, c, lane, p, q, l, v):
    """Replace the multiplier by its part along (-2 P, -2 Q, v, l), which makes the scaling the true curvature."""
    z_p, z_q, z_l, z_v = get(a, j, c, lane), get(a, j, c + 1, lane), get(a, j, c + 2, lane), get(a, j, c + 3, lane)
    along = (v * z_l + l * z_v - 2.0 * (p * z_p + q * z_q)) / (v * v + l * l + 4.0 * (p * p + q * q))
    put(a, j, c + at.ZP, lane, -2.0 * p * along)
    put(a, j, c + at.ZQ, lane, -2.0 * q * along)
    put(a, j, c + at.ZL, lane, v * along)
    put(a, j, c + at.ZV, lane, l * along)


@in_place
def put_seed(w, tree, given, loss, row, lane, lossless):
    """Put the loss's gradient where the corrector looks for second-order terms and residuals."""
    b, d = w.bus, w.device
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    for i in range(tree.origin.shape[0]):
        o = tree.origin[i]
        force = s * loss.device[at.OF_Q, row, o]
        if not tree.reactive[i]:
            force = s * loss.device[at.OF_P, row, o] + given.device[row, at.TAN_PHI, o] * force
        put(d, i, at.FORCE, lane, force)
        put(d, i, at.AT_LEAST + at.K, lane, 0.0)
        put(d, i, at.AT_MOST + at.K, lane, 0.0)
    for j in range(tree.parent.shape[0]):
        voltage = np.sqrt(max(get(b, j, at.V, lane), 1e-12))
        of_price, of_reactive_price = (
            money * loss.bus[at.OF_PRICE, row, j],
            money * loss.bus[at.OF_REACTIVE_PRICE, row, j],
        )
        put(b, j, at.FLOW + at.KP, lane, s * loss.bus[at.OF_FLOW, row, j])
        put(b, j, at.FLOW + at.KQ, lane, s * loss.bus[at.OF_REACTIVE_FLOW, row, j])
        put(b, j, at.FLOW + at.KL, lane, loss.bus[at.OF_CURRENT, row, j])
        put(b, j, at.LOW + at.K, lane, -0.5 * loss.bus[at.OF_VOLTAGE, row, j] / voltage)
        put(b, j, at.FP, lane, of_price)
        put(b, j, at.FQ, lane, of_reactive_price)
        for f in (at.FLOW + at.KV, at.HIGH + at.K, at.RATING + at.K, at.FV):
            put(b, j, f, lane, 0.0)
        if lossless is not None:
            put(b, j, at.GP, lane, of_price)
            put(b, j, at.GQ, lane, of_reactive_price)
            for f in (at.GV, at.FLOW_HAT + at.KP, at.FLOW_HAT + at.KQ, at.FLOW_HAT + at.KL, at.FLOW_HAT + at.KV):
                put(b, j, f, lane, 0.0)


@in_place
def worth_of_price(w, j, lane, lossless):
    """What a mismatch of the active and the reactive balance of a bus is worth."""
    active, reactive = get(w.bus, j, at.NP, lane), get(w.bus, j, at.NQ, lane)
    if lossless is not None:
        active += get(w.bus, j, at.NHP, lane)
        reactive += get(w.bus, j, at.NHQ, lane)
    return active, reactive


@in_place
def take_lines(w, tree, given, gradient, row, lane, lossless):
    """Gradients of loads, voltages and ratings; their sum, for the sake of NaN.

    A bound adds its curvature, multiplier over slack, times what its variable is worth.
    """
    b, of = w.bus, gradient.bus
    total = 0.0
    for j in range(tree.parent.shape[0]):
        price, reactive_price = worth_of_price(w, j, lane, lossless)
        of[at.LOAD_KW, row, j], of[at.LOAD_KVAR, row, j] = -price / tree.base_kva, -reactive_price / tree.base_kva
        total += price + reactive_price
        if j == 0:
            continue
        v, dv = get(b, j, at.V, lane), get(b, j, at.DV, lane)
        low = get(b, j, at.LOW, lane) / (v - get(b, j, at.V_MIN, lane)) * dv
        if lossless is not None:
            v, dv = get(b, j, at.VH, lane), get(b, j, at.DVH, lane)
        high = get(b, j, at.HIGH, lane) / (get(b, j, at.V_MAX, lane) - v) * dv
        of[at.V_MIN_PU, row, j] = 2.0 * given.bus[row, at.V_MIN_PU, j] * low
        of[at.V_MAX_PU, row, j] = 2.0 * given.bus[row, at.V_MAX_PU, j] * high
        total += low + high
        rating = given.bus[row, at.I_MAX_A, j] / tree.base_a[j]
        if tree.rated[j] and rating < LARGEST_RATING_PU:
            l_max = get(b, j, at.L_MAX, lane)
            worth = get(b, j, at.RATING, lane) / (l_max - get(b, j, at.L, lane)) * get(b, j, at.DL, lane)
            if lossless is not None:
                # The cone of lossless flows holds the rating: its curvature couples the two.
                p, q, dv_a = get(b, j, at.PH, lane), get(b, j, at.QH, lane), get(b, tree.parent[j], at.DV, lane)
                v_a = get(b, tree.parent[j], at.V, lane)
                along = l_max * dv_a - 2.0 * (p * get(b, j, at.DPH, lane) + q * get(b, j, at.DQH, lane))
                by_det = v_a / (v_a * l_max - p * p - q * q)
                worth -= get(b, j, at.FLOW_HAT + at.ZL, lane) / v_a * (by_det * along - dv_a)
            of[at.I_MAX_A, row, j] = 2.0 * rating / tree.base_a[j] * worth
            total += worth
    return total


@in_place
def take_injections(w, tree, given, loss, gradient, row, lane, lossless):
    """Gradients of the injections' costs, bounds and power factors; their sum, for the sake of NaN."""
    b, d, of = w.bus, w.device, gradient.device
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    total = 0.0
    for j in range(tree.parent.shape[0]):
        price, reactive_price = worth_of_price(w, j, lane, lossless)
        lq = get(b, j, at.LQ, lane)
        if lossless is not None:
            lq += get(b, j, at.HQ, lane)
        for i in range(tree.first[j], tree.first[j + 1]):
            o = tree.origin[i]
            tan_phi, of_q = given.device[row, at.TAN_PHI, o], loss.device[at.OF_Q, row, o]
            first, last = (at.Q_MIN, at.Q_MAX) if tree.reactive[i] else (at.P_MIN, at.P_MAX)
            lo, hi = given.device[row, first, o] / s, given.device[row, last, o] / s
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
                of[at.TAN_PHI, row, o] = lq * du + u * reactive_price + s * u * of_q
    return total


@in_place
def worth_of_source(w, lane, lossless):
    """What is left of the substation's voltages in the block that its lines hand to it."""
    b, k = w.bus, w.block
    p, n_v = in_both(lossless, 3, 6), in_both(lossless, 1, 2)
    worth = 0.0
    for v in range(n_v):
        worth += get(k, 0, p * p + v, lane)
        for c in range(2):
            worth -= get(k, 0, v * p + n_v + c, lane) * get(b, 0, at.NP + c, lane)
    return worth
