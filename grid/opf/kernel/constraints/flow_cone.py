"""The relaxed current of a line: P^2 + Q^2 <= l v_A, of the sending bus's voltage."""

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
from peergrid.grid.opf.kernel.lanes import get, ld, put, st


@in_place
def start(b, tree, j, lane):
    """Shrink P and Q until they are well inside; share of the gap."""
    p, q, l, v_a = (
        get(b, j, at.P, lane),
        get(b, j, at.Q, lane),
        get(b, j, at.L, lane),
        get(b, tree.parent[j], at.V, lane),
    )
    shrink = inside(p, q, l, v_a)
    p, q = p * shrink, q * shrink
    put(b, j, at.P, lane, p)
    put(b, j, at.Q, lane, q)
    return start_cone(b, j, at.FLOW, lane, p, q, l, v_a)


@in_place
def open_line(b, tree, j):
    """Scaling."""
    v_a = ld(b, tree.parent[j], at.V)
    open_cone(b, j, at.FLOW, ld(b, j, at.P), ld(b, j, at.Q), ld(b, j, at.L), v_a)


@in_place
def scaling(b, j):
    """a on (P, Q, l, v_A) and h, of the curvature H."""
    a0, a1 = ld(b, j, at.FLOW + at.A0), ld(b, j, at.FLOW + at.A1)
    return a0, a1, ld(b, j, at.FLOW + at.A2), ld(b, j, at.FLOW + at.A3), ld(b, j, at.FLOW + at.H)


@in_place
def diagonal(scaled):
    """Curvature on l and on the sending bus's voltage, to which ratings add theirs."""
    a2, a3, h2 = scaled[2], scaled[3], 2.0 * scaled[4]
    return h2 * a2 * a2, h2 * a3 * a3


@in_place
def curve(t, v, scaled, on_l, proximal):
    """Curvature on (l, P, Q) and the sending bus's voltage, column v, but for the voltage's own.

    `on_l` is all curvature on l; `proximal` joins that of P and Q.
    """
    a0, a1, a2, a3, h = scaled
    h2 = 2.0 * h
    st(t, 0, 0, on_l)
    st(t, 0, 1, h2 * a2 * a0)
    st(t, 0, 2, h2 * a2 * a1)
    st(t, 1, 1, h2 * (a0 * a0 + 1.0) + proximal)
    st(t, 1, 2, h2 * a0 * a1)
    st(t, 2, 2, h2 * (a1 * a1 + 1.0) + proximal)
    st(t, 0, v, h2 * a2 * a3 - h)
    st(t, 1, v, h2 * a0 * a3)
    st(t, 2, v, h2 * a1 * a3)


@in_place
def force(b, t, tree, j, v, rhs, smu):
    """What the corrector adds to the right-hand side: the pull to the central path, and second-order terms."""
    p, q, l, v_a = ld(b, j, at.P), ld(b, j, at.Q), ld(b, j, at.L), ld(b, tree.parent[j], at.V)
    centre_cone(b, j, at.FLOW, p, q, l, v_a, smu)
    st(t, 0, rhs, ld(b, j, at.FLOW + at.KL))
    st(t, 1, rhs, ld(b, j, at.FLOW + at.KP))
    st(t, 2, rhs, ld(b, j, at.FLOW + at.KQ))
    st(t, v, rhs, ld(b, j, at.FLOW + at.KV))


@in_place
def step(b, j, dx, v_a, dv_a, corrector, found):
    """Longest step and sum of ds dz."""
    p, q, l = ld(b, j, at.P), ld(b, j, at.Q), ld(b, j, at.L)
    return longest(found, cone_step(b, j, at.FLOW, p, q, l, v_a, dx[1], dx[2], dx[0], dv_a, corrector))


@in_place
def move(b, tree, j, alpha):
    """Move the multiplier; share of the gap."""
    v_a = ld(b, tree.parent[j], at.V)
    return move_cone(b, j, at.FLOW, alpha, ld(b, j, at.P), ld(b, j, at.Q), ld(b, j, at.L), v_a)


@in_place
def judge(b, j, a, primal, gap):
    """How far it is violated, and multiplier times cone variable."""
    p, q, l, v_a = b[at.IN_P, j], b[at.IN_Q, j], b[at.IN_L, j], b[at.IN_V, a]
    return max(primal, p * p + q * q - v_a * l), gap + cone_gap(b, at.IN_FLOW, j, p, q, l, v_a)


@in_place
def align(b, tree, j, lane):
    """Give the multiplier the true curvature of the cone."""
    v_a = get(b, tree.parent[j], at.V, lane)
    align_cone(b, j, at.FLOW, lane, get(b, j, at.P, lane), get(b, j, at.Q, lane), get(b, j, at.L, lane), v_a)


@in_place
def seed(b, j, lane, on_p, on_q, on_l):
    """Forces on the flow and the current, where the corrector looks for second-order terms."""
    seed_cone(b, j, at.FLOW, lane, on_p, on_q, on_l, 0.0)
