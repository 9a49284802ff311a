"""One bound and one cone: start, curvature, step and move of its multiplier.

A bound is a slack s > 0 with multiplier z > 0; fields begin at b of row i. A cone is (p, q, l, v) with
v l >= p^2 + q^2 and multiplier z in the dual cone, z_l z_v >= (z_p^2 + z_q^2) / 4; fields begin at c.
"""

from __future__ import annotations

import numpy as np

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.lanes import get, larger, ld, put, root, st

# Complementarity s z of limits at the start.
FIRST_MU = 0.5


@in_place
def longest(found, of_one):
    """The longest step and the sum of ds dz, given those found so far and those of one bound or cone."""
    return larger(found[0], of_one[0]), found[1] + of_one[1]


@in_place
def start_bound(a, i, b, lane, slack, mu):
    """Put the multiplier on the central path; its share of the gap."""
    put(a, i, b + at.Z, lane, mu / slack)
    return mu


@in_place
def open_bound(a, i, b, slack):
    """Curvature z / s that a bound adds; keeps 1 / s and 1 / z."""
    z = ld(a, i, b + at.Z)
    inverse = 1.0 / (slack * z)
    st(a, i, b + at.INV_S, z * inverse)
    st(a, i, b + at.INV_Z, slack * inverse)
    return z * z * inverse


@in_place
def open_bounds(a, i, b, c, slack_b, slack_c):
    """`open_bound` for two bounds with one division, which takes as long as ten multiplications."""
    z_b, z_c = ld(a, i, b + at.Z), ld(a, i, c + at.Z)
    x_b, x_c = slack_b * z_b, slack_c * z_c
    inverse = 1.0 / (x_b * x_c)
    by_b, by_c = x_c * inverse, x_b * inverse
    st(a, i, b + at.INV_S, z_b * by_b)
    st(a, i, b + at.INV_Z, slack_b * by_b)
    st(a, i, c + at.INV_S, z_c * by_c)
    st(a, i, c + at.INV_Z, slack_c * by_c)
    return z_b * z_b * by_b, z_c * z_c * by_c


@in_place
def push(a, i, b, smu):
    """Force of a bound away from it, beyond its curvature, in the corrector."""
    return smu * ld(a, i, b + at.INV_S) - ld(a, i, b + at.K)


@in_place
def bound_step(a, i, b, ds, smu, corrector):
    """Inverse of the longest step that keeps slack and multiplier positive, and ds dz."""
    w = ds * ld(a, i, b + at.INV_S)
    z = ld(a, i, b + at.Z)
    if corrector is None:
        dz = -(z + z * w)
        st(a, i, b + at.K, w * dz)
        return larger(-w, 1.0 + w), ds * dz
    dz = push(a, i, b, smu) - (z + z * w)
    st(a, i, b + at.K, dz)
    return larger(-w, -dz * ld(a, i, b + at.INV_Z)), ds * dz


@in_place
def move_bound(a, i, b, alpha, slack):
    """Move the multiplier; its share of the gap."""
    z = ld(a, i, b + at.Z) + alpha * ld(a, i, b + at.K)
    st(a, i, b + at.Z, z)
    return z * slack


@in_place
def inside(p, q, l, v):
    """The factor that brings a flow well into its cone."""
    most = 0.5 * l * v
    return 1.0 if p * p + q * q <= most else np.sqrt(most / (p * p + q * q))


@in_place
def start_cone(a, i, c, lane, p, q, l, v):
    """Put the multiplier on the central path; its share of the gap."""
    by_det = FIRST_MU / (2.0 * (v * l - p * p - q * q))
    put(a, i, c + at.ZP, lane, -2.0 * p * by_det)
    put(a, i, c + at.ZQ, lane, -2.0 * q * by_det)
    put(a, i, c + at.ZL, lane, v * by_det)
    put(a, i, c + at.ZV, lane, l * by_det)
    return FIRST_MU


@in_place
def open_cone(a, i, c, p, q, l, v):
    """Scaling of Nesterov and Todd: H = h (2 a a' + 2 (eP eP' + eQ eQ') - (el ev' + ev el')) takes ds to -dz."""
    z_p, z_q, z_l, z_v = ld(a, i, c + at.ZP), ld(a, i, c + at.ZQ), ld(a, i, c + at.ZL), ld(a, i, c + at.ZV)
    ns2 = 2.0 * (v * l - p * p - q * q)
    nz2 = 2.0 * (z_l * z_v - 0.25 * (z_p * z_p + z_q * z_q))
    inverse = 1.0 / (ns2 * nz2)
    rs, rz = root(nz2 * inverse), root(ns2 * inverse)
    between = (p * z_p + q * z_q + l * z_l + v * z_v) * rs * rz
    k = 1.0 / root(2.0 * (1.0 + between))
    h = nz2 * rz * rs
    a0, a1 = k * (z_p * rz - 2.0 * p * rs), k * (z_q * rz - 2.0 * q * rs)
    a2, a3 = k * (v * rs + z_l * rz), k * (l * rs + z_v * rz)
    st(a, i, c + at.A0, a0)
    st(a, i, c + at.A1, a1)
    st(a, i, c + at.A2, a2)
    st(a, i, c + at.A3, a3)
    st(a, i, c + at.H, h)
    st(a, i, c + at.INV_NS, rs)
    st(a, i, c + at.INV_NZ, rz)
    return a0, a1, a2, a3, h


@in_place
def centre_cone(a, i, c, p, q, l, v, smu):
    """Add the pull towards the central path to the second-order terms."""
    rs = ld(a, i, c + at.INV_NS)
    pull = smu * rs * rs
    st(a, i, c + at.KP, ld(a, i, c + at.KP) - 2.0 * pull * p)
    st(a, i, c + at.KQ, ld(a, i, c + at.KQ) - 2.0 * pull * q)
    st(a, i, c + at.KL, ld(a, i, c + at.KL) + pull * v)
    st(a, i, c + at.KV, ld(a, i, c + at.KV) + pull * l)


@in_place
def second_order(a0, a1, a2, a3, h, rs, rz, z_p, z_q, z_l, z_v, dp, dq, dl, dv):
    """T' W^-1 (lambda \\ (y o y)) with y = W^-1 T ds: what the predictor neglected, in the cone's own coordinates."""
    two, half = 1.4142135623730951, 0.7071067811865476
    w0, w1, w2, w3 = (a3 + a2) * half, -a0 * half, -a1 * half, (a2 - a3) * half
    scale = root(h)
    unscale = 1.0 / scale
    fold = 1.0 / (1.0 + w0)
    s0, s1, s2, s3 = (dv + dl) * half, two * dp, two * dq, (dv - dl) * half
    ws = w1 * s1 + w2 * s2 + w3 * s3
    f = ws * fold - s0
    y0, y1, y2, y3 = scale * (w0 * s0 - ws), scale * (s1 + f * w1), scale * (s2 + f * w2), scale * (s3 + f * w3)
    z0, z1, z2, z3 = (z_v + z_l) * half, z_p * half, z_q * half, (z_v - z_l) * half
    wz = w1 * z1 + w2 * z2 + w3 * z3
    g = z0 + wz * fold
    l0, l1, l2, l3 = (w0 * z0 + wz) * unscale, (z1 + g * w1) * unscale, (z2 + g * w2) * unscale, (z3 + g * w3) * unscale
    q0, q1, q2, q3 = y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3, 2.0 * y0 * y1, 2.0 * y0 * y2, 2.0 * y0 * y3
    x0 = (l0 * q0 - (l1 * q1 + l2 * q2 + l3 * q3)) * rs * rz
    by_l0 = 1.0 / l0
    x1, x2, x3 = (q1 - x0 * l1) * by_l0, (q2 - x0 * l2) * by_l0, (q3 - x0 * l3) * by_l0
    wx = w1 * x1 + w2 * x2 + w3 * x3
    t0 = scale * (w0 * x0 - wx)
    e = wx * fold - x0
    t1, t2, t3 = scale * (x1 + e * w1), scale * (x2 + e * w2), scale * (x3 + e * w3)
    return two * t1, two * t2, (t0 - t3) * half, (t0 + t3) * half


@in_place
def to_boundary(p, q, l, v, dp, dq, dl, dv, quarter, by_det):
    """Inverse of the step at which v l - quarter (p^2 + q^2) vanishes; by_det: the inverse of what it is now."""
    now = v * l - quarter * (p * p + q * q)
    half = 0.5 * (v * dl + l * dv) - quarter * (p * dp + q * dq)
    full = dv * dl - quarter * (dp * dp + dq * dq)
    return (root(larger(half * half - full * now, 0.0 * now)) - half) * by_det


@in_place
def cone_step(a, i, c, p, q, l, v, dp, dq, dl, dv, corrector):
    """Inverse of the longest step that keeps s and z inside their cones, and ds'dz."""
    a0, a1, a2, a3 = ld(a, i, c + at.A0), ld(a, i, c + at.A1), ld(a, i, c + at.A2), ld(a, i, c + at.A3)
    h, rs, rz = ld(a, i, c + at.H), ld(a, i, c + at.INV_NS), ld(a, i, c + at.INV_NZ)
    z_p, z_q, z_l, z_v = ld(a, i, c + at.ZP), ld(a, i, c + at.ZQ), ld(a, i, c + at.ZL), ld(a, i, c + at.ZV)
    d = 2.0 * (a0 * dp + a1 * dq + a2 * dl + a3 * dv)
    h_p, h_q, h_l, h_v = h * (a0 * d + 2.0 * dp), h * (a1 * d + 2.0 * dq), h * (a2 * d - dv), h * (a3 * d - dl)
    e_p, e_q, e_l, e_v = -h_p - z_p, -h_q - z_q, -h_l - z_l, -h_v - z_v
    if corrector is None:
        t_p, t_q, t_l, t_v = second_order(a0, a1, a2, a3, h, rs, rz, z_p, z_q, z_l, z_v, dp, dq, dl, dv)
        st(a, i, c + at.KP, h_p + t_p)
        st(a, i, c + at.KQ, h_q + t_q)
        st(a, i, c + at.KL, h_l + t_l)
        st(a, i, c + at.KV, h_v + t_v)
    else:
        e_p = e_p + ld(a, i, c + at.KP)
        e_q = e_q + ld(a, i, c + at.KQ)
        e_l = e_l + ld(a, i, c + at.KL)
        e_v = e_v + ld(a, i, c + at.KV)
        st(a, i, c + at.KP, e_p)
        st(a, i, c + at.KQ, e_q)
        st(a, i, c + at.KL, e_l)
        st(a, i, c + at.KV, e_v)
    of_s = to_boundary(p, q, l, v, dp, dq, dl, dv, 1.0, 2.0 * rs * rs)
    of_z = to_boundary(z_p, z_q, z_l, z_v, e_p, e_q, e_l, e_v, 0.25, 2.0 * rz * rz)
    return larger(of_s, of_z), dp * e_p + dq * e_q + dl * e_l + dv * e_v


@in_place
def move_cone(a, i, c, alpha, p, q, l, v):
    """Move the multiplier; its share of the gap."""
    z_p, z_q = ld(a, i, c + at.ZP) + alpha * ld(a, i, c + at.KP), ld(a, i, c + at.ZQ) + alpha * ld(a, i, c + at.KQ)
    z_l, z_v = ld(a, i, c + at.ZL) + alpha * ld(a, i, c + at.KL), ld(a, i, c + at.ZV) + alpha * ld(a, i, c + at.KV)
    st(a, i, c + at.ZP, z_p)
    st(a, i, c + at.ZQ, z_q)
    st(a, i, c + at.ZL, z_l)
    st(a, i, c + at.ZV, z_v)
    return p * z_p + q * z_q + l * z_l + v * z_v


@in_place
def align_cone(a, i, c, lane, p, q, l, v):
    """Replace the multiplier by its part along (-2 p, -2 q, v, l), which makes the scaling the true curvature."""
    z_p, z_q = get(a, i, c + at.ZP, lane), get(a, i, c + at.ZQ, lane)
    z_l, z_v = get(a, i, c + at.ZL, lane), get(a, i, c + at.ZV, lane)
    along = (v * z_l + l * z_v - 2.0 * (p * z_p + q * z_q)) / (v * v + l * l + 4.0 * (p * p + q * q))
    put(a, i, c + at.ZP, lane, -2.0 * p * along)
    put(a, i, c + at.ZQ, lane, -2.0 * q * along)
    put(a, i, c + at.ZL, lane, v * along)
    put(a, i, c + at.ZV, lane, l * along)


@in_place
def seed_cone(a, i, c, lane, on_p, on_q, on_l, on_v):
    """Put forces where the corrector looks for second-order terms."""
    put(a, i, c + at.KP, lane, on_p)
    put(a, i, c + at.KQ, lane, on_q)
    put(a, i, c + at.KL, lane, on_l)
    put(a, i, c + at.KV, lane, on_v)


@in_place
def cone_gap(of, c, j, p, q, l, v):
    """Multiplier times cone variable, at a point [field, bus]."""
    return of[c + at.ZP, j] * p + of[c + at.ZQ, j] * q + of[c + at.ZL, j] * l + of[c + at.ZV, j] * v
