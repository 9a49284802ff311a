"""Limits of a bus's squared voltage: v_min^2 <= v and w <= v_max^2.

w is v, or the lossless vh where lossless flows take part. The two share a division, so they stand together.
"""

from __future__ import annotations

import numpy as np

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.cones import FIRST_MU, bound_step, longest, move_bound, open_bounds, push, start_bound
from peergrid.grid.opf.kernel.lanes import get, ld, put, st
from peergrid.grid.opf.kernel.units import TYPICAL_PRICE_PER_KWH

# How far into its band a voltage begins.
INSIDE_BAND = 0.2


@in_place
def start(b, given, row, j, lane, lossless):
    """Put the limits, and the voltage well between them; share of the gap."""
    lo, hi = given.bus[row, at.V_MIN_PU, j] ** 2, given.bus[row, at.V_MAX_PU, j] ** 2
    room = INSIDE_BAND * (hi - lo)
    v = max(lo + room, min(hi - room, get(b, j, at.V, lane)))
    put(b, j, at.V, lane, v)
    put(b, j, at.system(lossless).upper, lane, v)
    put(b, j, at.V_MIN, lane, lo)
    put(b, j, at.V_MAX, lane, hi)
    return start_bound(b, j, at.LOW, lane, v - lo, FIRST_MU) + start_bound(b, j, at.HIGH, lane, hi - v, FIRST_MU)


@in_place
def curve(b, k, j, lossless):
    """Curvature on v, or on v and vh, in the block of the bus."""
    s = at.system(lossless)
    v, w = ld(b, j, at.V), ld(b, j, s.upper)
    low, high = open_bounds(b, j, at.LOW, at.HIGH, v - ld(b, j, at.V_MIN), ld(b, j, at.V_MAX) - w)
    st(k, j, 0, ld(k, j, 0) + low)
    st(k, j, s.n_upper, ld(k, j, s.n_upper) + high)


@in_place
def force(b, j, smu, lossless):
    """What the corrector adds to the right-hand sides of v and vh."""
    r_v, r_h = push(b, j, at.LOW, smu), -push(b, j, at.HIGH, smu)
    if lossless is None:
        r_v = r_v + r_h
    return r_v, r_h


@in_place
def step(b, j, dv, smu, corrector, lossless, found):
    """Longest step and sum of ds dz."""
    found = longest(found, bound_step(b, j, at.LOW, dv, smu, corrector))
    return longest(found, bound_step(b, j, at.HIGH, -ld(b, j, at.system(lossless).d_upper), smu, corrector))


@in_place
def move_lower(b, j, alpha):
    """Move the multiplier of v_min; share of the gap."""
    return move_bound(b, j, at.LOW, alpha, ld(b, j, at.V) - ld(b, j, at.V_MIN))


@in_place
def move_upper(b, j, alpha, lossless):
    """Move the multiplier of v_max; share of the gap."""
    return move_bound(b, j, at.HIGH, alpha, ld(b, j, at.V_MAX) - ld(b, j, at.system(lossless).upper))


@in_place
def judge_lower(b, tree, given, answer, row, j, primal, gap):
    """How far v_min is violated, and multiplier times room; its published value."""
    v, z, v_min = b[at.IN_V, j], b[at.IN_LOW, j], given.bus[row, at.V_MIN_PU, j] ** 2
    answer.bus[at.OF_V_MIN, row, j] = z * TYPICAL_PRICE_PER_KWH * tree.base_kva
    return max(primal, v_min - v), gap + z * (v - v_min)


@in_place
def judge_upper(b, tree, given, answer, row, j, primal, gap):
    """The same of v_max, where it binds the voltage itself."""
    v, z, v_max = b[at.IN_V, j], b[at.IN_HIGH, j], given.bus[row, at.V_MAX_PU, j] ** 2
    answer.bus[at.OF_V_MAX, row, j] = z * TYPICAL_PRICE_PER_KWH * tree.base_kva
    return max(primal, v - v_max), gap + z * (v_max - v)


@in_place
def judge_lossless(b, tree, given, answer, row, j, v_free, primal, value, missed):
    """The same of v_max where it binds the lossless voltage, here of lossless flows made anew from the injections."""
    z = b[at.IN_HIGH, j]
    answer.bus[at.OF_V_MAX, row, j] = z * TYPICAL_PRICE_PER_KWH * tree.base_kva
    room = z * (given.bus[row, at.V_MAX_PU, j] ** 2 - v_free)
    return max(primal, excess(given, row, j, v_free)), value - room, missed + abs(room)


@in_place
def excess(given, row, j, v_free):
    """By how much a lossless voltage passes v_max."""
    return v_free - given.bus[row, at.V_MAX_PU, j] ** 2


@in_place
def seed(b, j, lane, on_v):
    """A force on v^0.5, where the corrector looks for second-order terms."""
    put(b, j, at.LOW + at.K, lane, -0.5 * on_v / np.sqrt(max(get(b, j, at.V, lane), 1e-12)))
    put(b, j, at.HIGH + at.K, lane, 0.0)


@in_place
def take(b, given, gradient, row, j, lane, lossless):
    """Gradients of the limits: curvature, multiplier over slack, times what the voltage is worth; their sum."""
    s = at.system(lossless)
    v, w = get(b, j, at.V, lane), get(b, j, s.upper, lane)
    low = get(b, j, at.LOW, lane) / (v - get(b, j, at.V_MIN, lane)) * get(b, j, at.DV, lane)
    high = get(b, j, at.HIGH, lane) / (get(b, j, at.V_MAX, lane) - w) * get(b, j, s.d_upper, lane)
    gradient.bus[at.V_MIN_PU, row, j] = 2.0 * given.bus[row, at.V_MIN_PU, j] * low
    gradient.bus[at.V_MAX_PU, row, j] = 2.0 * given.bus[row, at.V_MAX_PU, j] * high
    return low + high
