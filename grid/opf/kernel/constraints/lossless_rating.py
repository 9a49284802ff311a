"""The rating of a line's lossless flow: Ph^2 + Qh^2 <= l_max v_A, a cone whose l is given."""

from __future__ import annotations

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.cones import (
    align_cone,
    centre_cone,
    cone_gap,
    cone_step,
    inside,
    longest,
    move_cone,
    open_cone,
    seed_cone,
    start_cone,
)
from peergrid.grid.opf.kernel.lanes import add, get, ld, put, st
from peergrid.grid.opf.kernel.units import TYPICAL_PRICE_PER_KWH


@in_place
def start(b, tree, j, lane):
    """Shrink Ph and Qh until they are well inside; share of the gap."""
    p, q, l_max = get(b, j, at.PH, lane), get(b, j, at.QH, lane), get(b, j, at.L_MAX, lane)
    v_a = get(b, tree.parent[j], at.V, lane)
    shrink = inside(p, q, l_max, v_a)
    p, q = p * shrink, q * shrink
    put(b, j, at.PH, lane, p)
    put(b, j, at.QH, lane, q)
    return start_cone(b, j, at.FLOW_HAT, lane, p, q, l_max, v_a)


@in_place
def open_line(b, tree, j):
    """Scaling."""
    v_a = ld(b, tree.parent[j], at.V)
    open_cone(b, j, at.FLOW_HAT, ld(b, j, at.PH), ld(b, j, at.QH), ld(b, j, at.L_MAX), v_a)


@in_place
def curve(b, t, j, v, proximal):
    """Curvature on (Ph, Qh) and with the sending bus's voltage, column v; returns that on the voltage itself."""
    g0, g1 = ld(b, j, at.FLOW_HAT + at.A0), ld(b, j, at.FLOW_HAT + at.A1)
    g3, g = ld(b, j, at.FLOW_HAT + at.A3), 2.0 * ld(b, j, at.FLOW_HAT + at.H)
    st(t, 3, 3, g * (g0 * g0 + 1.0) + proximal)
    st(t, 3, 4, g * g0 * g1)
    st(t, 4, 4, g * (g1 * g1 + 1.0) + proximal)
    st(t, 3, v, g * g0 * g3)
    st(t, 4, v, g * g1 * g3)
    return g * g3 * g3


@in_place
def force(b, t, tree, j, v, rhs, smu):
    """What the corrector adds to the right-hand side."""
    p, q, l_max, v_a = ld(b, j, at.PH), ld(b, j, at.QH), ld(b, j, at.L_MAX), ld(b, tree.parent[j], at.V)
    centre_cone(b, j, at.FLOW_HAT, p, q, l_max, v_a, smu)
    st(t, 3, rhs, ld(b, j, at.FLOW_HAT + at.KP))
    st(t, 4, rhs, ld(b, j, at.FLOW_HAT + at.KQ))
    add(t, v, rhs, ld(b, j, at.FLOW_HAT + at.KV))


@in_place
def step(b, j, dx, v_a, dv_a, corrector, found):
    """Longest step and sum of ds dz; l_max doesn't move."""
    p, q, l = ld(b, j, at.PH), ld(b, j, at.QH), ld(b, j, at.L_MAX)
    return longest(found, cone_step(b, j, at.FLOW_HAT, p, q, l, v_a, dx[3], dx[4], 0.0 * dx[3], dv_a, corrector))


@in_place
def move(b, tree, j, alpha):
    """Move the multiplier; share of the gap."""
    v_a = ld(b, tree.parent[j], at.V)
    return move_cone(b, j, at.FLOW_HAT, alpha, ld(b, j, at.PH), ld(b, j, at.QH), ld(b, j, at.L_MAX), v_a)


@in_place
def judge(b, tree, answer, row, j, l_max, primal, value, missed):
    """How far it is violated, and multiplier times cone variable, at the lossless flows of the injections."""
    a = tree.parent[j]
    p, q, v_a = b[at.IN_PH, j], b[at.IN_QH, j], b[at.IN_V, a]
    room = cone_gap(b, at.IN_FLOW_HAT, j, p, q, l_max, v_a)
    # Of Ph^2 + Qh^2 - l_max v <= 0, from the cone's multiplier along v.
    z = b[at.IN_FLOW_HAT + at.ZV, j] / l_max * TYPICAL_PRICE_PER_KWH * tree.base_kva
    answer.bus[at.OF_I_MAX_HAT, row, j] = z
    return max(primal, excess(b, tree, j, l_max)), value - room, missed + abs(room)


@in_place
def excess(b, tree, j, l_max):
    """By how much the lossless flows of the injections pass the rating."""
    p, q = b[at.IN_PH, j], b[at.IN_QH, j]
    return p * p + q * q - l_max * b[at.IN_V, tree.parent[j]]


@in_place
def align(b, tree, j, lane):
    """Give the multiplier the true curvature of the cone."""
    p, q, l_max = get(b, j, at.PH, lane), get(b, j, at.QH, lane), get(b, j, at.L_MAX, lane)
    align_cone(b, j, at.FLOW_HAT, lane, p, q, l_max, get(b, tree.parent[j], at.V, lane))


@in_place
def seed(b, j, lane):
    """No force of its own."""
    seed_cone(b, j, at.FLOW_HAT, lane, 0.0, 0.0, 0.0, 0.0)


@in_place
def worth(b, tree, j, lane):
    """What a larger l_max is worth: the cone's curvature couples it with the flows and the sending bus's voltage."""
    a = tree.parent[j]
    p, q, l_max = get(b, j, at.PH, lane), get(b, j, at.QH, lane), get(b, j, at.L_MAX, lane)
    v_a, dv_a = get(b, a, at.V, lane), get(b, a, at.DV, lane)
    along = l_max * dv_a - 2.0 * (p * get(b, j, at.DPH, lane) + q * get(b, j, at.DQH, lane))
    by_det = v_a / (v_a * l_max - p * p - q * q)
    return -(get(b, j, at.FLOW_HAT + at.ZL, lane) / v_a * (by_det * along - dv_a))
