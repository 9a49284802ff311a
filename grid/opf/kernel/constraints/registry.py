"""Which constraints there are: each is named once in every pass of the solver that it takes part in.

A constraint is a module beside this one. At a bus it stands with the injections, on a line with the others; `lossless`
is None, or 1 where lossless flows take part, and decides while numba compiles. To add one, write its module, give its
fields a place in `layout.py`, and name it here, in

    start       put limits, move the starting point inside them, multipliers on the central path; share of the gap
    open        scaling of cones, before anything is factorised
    curve       curvature, into the matrix or the block of a bus
    force       what the corrector adds to the right-hand side
    step        longest step that keeps slacks and multipliers positive, and the sum of ds dz
    move        move the multipliers; share of the gap
    count       number of bounds and cones
    judge       for the certificate: violation, stationarity, multiplier times room, and what is published
    align       true curvature for derivatives
    seed        derivatives: nothing where the corrector has second-order terms, or a loss's gradient
    take        derivatives of its limits

The order within a pass is the order of the sums.
"""

from __future__ import annotations

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.constraints import flow_cone, injections, lossless_rating, rating, voltage
from peergrid.grid.opf.kernel.lanes import get, ld, st
from peergrid.grid.opf.kernel.units import LARGEST_RATING_PU

# --- At a bus.


@in_place
def start_bus(w, tree, given, row, j, lane, constant, gap):
    """Load and injections of bus j, constant cost and gap with its share."""
    return injections.start(w, tree, given, row, j, lane, constant, gap)


@in_place
def gather_bus(w, tree, settings, j, smu, corrector):
    """What moves at bus j, eliminated: S on the multipliers of its balances, and the right-hand side."""
    return injections.gather(w, tree, settings, j, smu, corrector)


@in_place
def step_bus(w, tree, j, price_p, price_q, smu, corrector, found):
    """Directions of what moves at bus j, longest step and sum of ds dz."""
    return injections.step(w, tree, j, price_p, price_q, smu, corrector, found)


@in_place
def move_bus(w, tree, j, alpha, gap, cost):
    """Take the step; gap and cost with the share of bus j, and its net injection."""
    return injections.move(w, tree, j, alpha, gap, cost)


@in_place
def prices(b, j):
    """Prices of active and reactive power that injections at bus j see, at a point."""
    return b[at.IN_LP, j] + b[at.IN_HP, j], b[at.IN_LQ, j] + b[at.IN_HQ, j]


@in_place
def judge_bus(b, d, tree, given, answer, row, j, sums):
    """Net injection of bus j, and `sums` with its residuals: see `injections.judge`."""
    price_p, price_q = prices(b, j)
    return injections.judge(d, tree, given, answer, row, j, price_p, price_q, sums)


# --- On a line and its receiving bus.


@in_place
def count(tree, lossless):
    """Number of bounds and cones."""
    n_line, n_rated = tree.parent.shape[0] - 1, tree.rated.sum()
    found = 2 * tree.origin.shape[0] + 2 * n_line + n_line + n_rated
    if lossless is not None:
        found += n_rated
    return found


@in_place
def start_line(b, tree, given, row, j, lane, lossless):
    """Move a first guess of the line's variables inside all limits; share of the gap."""
    gap = voltage.start(b, given, row, j, lane, lossless)
    if tree.rated[j]:
        gap += rating.start(b, tree, given, row, j, lane)
        if lossless is not None:
            gap += lossless_rating.start(b, tree, j, lane)
    return gap + flow_cone.start(b, tree, j, lane)


@in_place
def open_line(b, tree, j, lossless):
    """Scaling of the line's cones."""
    flow_cone.open_line(b, tree, j)
    if lossless is not None and tree.rated[j]:
        lossless_rating.open_line(b, tree, j)


@in_place
def curve_bus(b, k, j, lossless):
    """Curvature on the voltages of the receiving bus, into its block."""
    voltage.curve(b, k, j, lossless)


@in_place
def force_bus(b, j, smu, lossless):
    """What the corrector adds to the right-hand sides of v and vh of the receiving bus."""
    return voltage.force(b, j, smu, lossless)


@in_place
def curve_line(b, t, tree, j, proximal, proximal_of_l, lossless):
    """Curvature on the line's variables, proximal terms included; returns that on the sending bus's voltage."""
    v = at.system(lossless).eliminated
    scaled = flow_cone.scaling(b, j)
    on_l, on_v = flow_cone.diagonal(scaled)
    if tree.rated[j]:
        on_l = on_l + rating.curve(b, j)
    flow_cone.curve(t, v, scaled, on_l + proximal_of_l, proximal)
    if lossless is not None:
        st(t, 3, 3, proximal)
        st(t, 4, 4, proximal)
        if tree.rated[j]:
            on_v = on_v + lossless_rating.curve(b, t, j, v, proximal)
    return on_v


@in_place
def force_line(b, t, tree, j, smu, lossless):
    """What the corrector adds to the right-hand sides of the line's variables and the sending bus's voltage."""
    v, rhs = at.system(lossless).eliminated, at.system(lossless).size
    flow_cone.force(b, t, tree, j, v, rhs, smu)
    if tree.rated[j]:
        rating.force(b, t, j, rhs, smu)
    if lossless is not None:
        st(t, 3, rhs, 0.0)
        st(t, 4, rhs, 0.0)
        if tree.rated[j]:
            lossless_rating.force(b, t, tree, j, v, rhs, smu)


@in_place
def step_line(b, tree, j, dx, smu, corrector, lossless, found):
    """Longest step and sum of ds dz, given the directions (l, P, Q, Ph, Qh)."""
    a = tree.parent[j]
    dv, v_a, dv_a = ld(b, j, at.DV), ld(b, a, at.V), ld(b, a, at.DV)
    found = voltage.step(b, j, dv, smu, corrector, lossless, found)
    found = flow_cone.step(b, j, dx, v_a, dv_a, corrector, found)
    if tree.rated[j]:
        found = rating.step(b, j, dx, smu, corrector, found)
        if lossless is not None:
            found = lossless_rating.step(b, j, dx, v_a, dv_a, corrector, found)
    return found


@in_place
def move_line(b, tree, j, alpha, lossless, gap):
    """Move the multipliers; the gap with the share of the line and its receiving bus."""
    gap = gap + flow_cone.move(b, tree, j, alpha)
    gap = gap + voltage.move_lower(b, j, alpha)
    if tree.rated[j]:
        gap = gap + rating.move(b, j, alpha)
        if lossless is not None:
            gap = gap + lossless_rating.move(b, tree, j, alpha)
    return gap + voltage.move_upper(b, j, alpha, lossless)


@in_place
def judge_line(b, tree, given, answer, row, j, of_l, primal, gap):
    """Stationarity of l, violation, and multiplier times room, of limits on flows with losses."""
    primal, gap = flow_cone.judge(b, j, tree.parent[j], primal, gap)
    primal, gap = voltage.judge_lower(b, tree, given, answer, row, j, primal, gap)
    if tree.rated[j]:
        of_l, primal, gap = rating.judge(b, tree, given, answer, row, j, of_l, primal, gap)
    return of_l, primal, gap


@in_place
def judge_plain(b, tree, given, answer, row, j, primal, gap):
    """Violation and multiplier times room of limits that bind lossless quantities where these take part."""
    return voltage.judge_upper(b, tree, given, answer, row, j, primal, gap)


@in_place
def judge_lossless(b, tree, given, answer, row, j, v_free, primal, value, missed):
    """Violation and multiplier times room of limits on lossless flows and voltage.

    Those flows are computed anew from the injections, so that rounding leaves more here than elsewhere. So these
    products are added to `missed`, the sum for residuals, and not to the gap.
    """
    primal, value, missed = voltage.judge_lossless(b, tree, given, answer, row, j, v_free, primal, value, missed)
    if tree.rated[j]:
        l_max = rating.rating_pu(tree, given, row, j) ** 2
        primal, value, missed = lossless_rating.judge(b, tree, answer, row, j, l_max, primal, value, missed)
    return primal, value, missed


@in_place
def lossless_excess(b, tree, given, row, j, v_free, excess):
    """By how much limits on lossless flows and voltage would be passed, where they don't take part."""
    excess = max(excess, voltage.excess(given, row, j, v_free))
    if tree.rated[j]:
        excess = max(excess, lossless_rating.excess(b, tree, j, rating.rating_pu(tree, given, row, j) ** 2))
    return excess


# --- Derivatives.


@in_place
def align(b, tree, j, lane, lossless):
    """Give the cones of bus j and of the line into it their true curvature."""
    if j > 0:
        flow_cone.align(b, tree, j, lane)
        if lossless is not None and tree.rated[j]:
            lossless_rating.align(b, tree, j, lane)


@in_place
def seed_line(b, tree, loss, row, j, lane, lossless):
    """The loss's gradient with respect to flows, current and voltage, as a force."""
    s, of = tree.base_kva, loss.bus
    flow_cone.seed(
        b, j, lane, s * of[at.OF_FLOW, row, j], s * of[at.OF_REACTIVE_FLOW, row, j], of[at.OF_CURRENT, row, j]
    )
    voltage.seed(b, j, lane, of[at.OF_VOLTAGE, row, j])
    rating.seed(b, j, lane)
    if lossless is not None:
        lossless_rating.seed(b, j, lane)


@in_place
def seed_bus(w, tree, given, loss, row, j, lane):
    """The loss's gradient with respect to the dispatch, as a force."""
    injections.seed(w, tree, given, loss, row, j, lane)


@in_place
def worth_of_bus(b, j, lane, lossless):
    """What one more p.u. of active and of reactive injection at bus j is worth."""
    active, reactive = get(b, j, at.NP, lane), get(b, j, at.NQ, lane)
    if lossless is not None:
        active += get(b, j, at.NHP, lane)
        reactive += get(b, j, at.NHQ, lane)
    return active, reactive


@in_place
def take_bus(w, tree, given, loss, gradient, row, j, lane, price, reactive_price, lossless):
    """Gradients of the injections' numbers, given what the balances of bus j are worth; their sum."""
    reactive_multiplier = get(w.bus, j, at.LQ, lane)
    if lossless is not None:
        reactive_multiplier += get(w.bus, j, at.HQ, lane)
    return injections.take(w, tree, given, loss, gradient, row, j, lane, price, reactive_price, reactive_multiplier)


@in_place
def take_line(b, tree, given, gradient, row, j, lane, lossless):
    """Gradients of the limits; their sum, for the sake of NaN."""
    total = voltage.take(b, given, gradient, row, j, lane, lossless)
    if tree.rated[j] and rating.rating_pu(tree, given, row, j) < LARGEST_RATING_PU:
        worth = rating.worth(b, j, lane)
        if lossless is not None:
            worth += lossless_rating.worth(b, tree, j, lane)
        gradient.bus[at.I_MAX_A, row, j] = 2.0 * rating.rating_pu(tree, given, row, j) / tree.base_a[j] * worth
        total += worth
    return total
