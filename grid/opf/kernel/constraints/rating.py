"""The rating of a line: l <= l_max."""

from __future__ import annotations

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.cones import FIRST_MU, bound_step, longest, move_bound, open_bound, push, start_bound
from peergrid.grid.opf.kernel.lanes import get, ld, put, take
from peergrid.grid.opf.kernel.units import LARGEST_RATING_PU, TYPICAL_PRICE_PER_KWH


@in_place
def rating_pu(tree, given, row, j):
    """The largest current, in p.u."""
    return min(given.bus[row, at.I_MAX_A, j] / tree.base_a[j], LARGEST_RATING_PU)


@in_place
def start(b, tree, given, row, j, lane):
    """Put the limit, and l well below it; share of the gap."""
    rating = rating_pu(tree, given, row, j)
    l_max = rating * rating
    l = min(get(b, j, at.L, lane), 0.6 * l_max)
    put(b, j, at.L, lane, l)
    put(b, j, at.L_MAX, lane, l_max)
    return start_bound(b, j, at.RATING, lane, l_max - l, FIRST_MU)


@in_place
def curve(b, j):
    """Curvature on l."""
    return open_bound(b, j, at.RATING, ld(b, j, at.L_MAX) - ld(b, j, at.L))


@in_place
def force(b, t, j, rhs, smu):
    """What the corrector adds to the right-hand side."""
    take(t, 0, rhs, push(b, j, at.RATING, smu))


@in_place
def step(b, j, dx, smu, corrector, found):
    """Longest step and sum of ds dz."""
    return longest(found, bound_step(b, j, at.RATING, -dx[0], smu, corrector))


@in_place
def move(b, j, alpha):
    """Move the multiplier; share of the gap."""
    return move_bound(b, j, at.RATING, alpha, ld(b, j, at.L_MAX) - ld(b, j, at.L))


@in_place
def judge(b, tree, given, answer, row, j, of_l, primal, gap):
    """What it adds to the stationarity of l, how far it is violated, and multiplier times room; its published value."""
    l, z, rating = b[at.IN_L, j], b[at.IN_RATING, j], rating_pu(tree, given, row, j)
    l_max = rating**2
    answer.bus[at.OF_I_MAX, row, j] = z * TYPICAL_PRICE_PER_KWH * tree.base_kva
    return of_l + z, max(primal, l - l_max), gap + z * (l_max - l)


@in_place
def seed(b, j, lane):
    """No force of its own."""
    put(b, j, at.RATING + at.K, lane, 0.0)


@in_place
def worth(b, j, lane):
    """What a larger l_max is worth: curvature, multiplier over slack, times what l is worth."""
    slack = get(b, j, at.L_MAX, lane) - get(b, j, at.L, lane)
    return get(b, j, at.RATING, lane) / slack * get(b, j, at.DL, lane)
