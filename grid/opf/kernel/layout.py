"""What stands where: fields of a workspace, of problems, points and answers, and the sizes of a line's matrix.

Every position is declared here and nowhere else. Workspaces are arrays [row, field] or [row, field, lane].
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from numba import types
from numba.extending import overload


def _blocks(first: int, *sizes: int) -> tuple[int, ...]:
    """Where blocks begin that stand one after the other, and where the last ends."""
    return tuple(accumulate(sizes, initial=first))


# --- A workspace.

# Of a bound: multiplier, inverses of slack and multiplier, second-order term (then the multiplier's step).
Z, INV_S, INV_Z, K, BOUND = range(5)
# Of a cone: multiplier, scaling (a, h), inverse norms of s and z, second-order term (then the multiplier's step).
ZP, ZQ, ZL, ZV, A0, A1, A2, A3, H, INV_NS, INV_NZ, KP, KQ, KL, KV, CONE = range(16)

# Of a bus and the line into it: variables, multipliers of the balances, what is given, residuals of the balances and of
# the voltage drop, directions, and the new multipliers of the balances.
(P, Q, L, V, LP, LQ, P_LOAD, Q_LOAD, V_MIN, V_MAX, L_MAX, FP, FQ, FV, DP, DQ, DL, DV, NP, NQ, _END) = range(21)
# Then its constraints: voltage from below and above, rating, and the cone of the flow.
LOW, HIGH, RATING, FLOW, PLAIN_FIELDS = _blocks(_END, BOUND, BOUND, BOUND, CONE)
# With lossless flows also those: flows and voltage, multipliers, residuals, directions, new multipliers; and their
# ratings.
(PH, QH, VH, HP, HQ, GP, GQ, GV, DPH, DQH, DVH, NHP, NHQ, _END) = range(PLAIN_FIELDS, PLAIN_FIELDS + 14)
FLOW_HAT, LOSSLESS_FIELDS = _blocks(_END, CONE)

# Of a flexible injection: value, bounds, cost a/2 u^2 + b u, column in the balances, inverse curvature and force in the
# linear system, direction, and its two bounds.
U, LEAST, MOST, A, B, CP, CQ, INVERSE, FORCE, DU, _END = range(11)
AT_LEAST, AT_MOST, DEVICE_FIELDS = _blocks(_END, BOUND, BOUND)

# Of a problem, in the row after the last bus.
GAP, COST, CONSTANT, INFEASIBLE, DUAL_LEFT, CENTRING = range(6)
# Of one problem that is loaded or judged, as [field, bus]: what is drawn below a bus, what is left of the balances, and
# the squared voltage without losses.
DRAWN_P, DRAWN_Q, LEFT_P, LEFT_Q, LEFT_HAT_P, LEFT_HAT_Q, V_FREE, SCRATCH_FIELDS = range(8)


class System(NamedTuple):
    """Sizes of the matrix of one line, whose columns are x, y, and the sending bus's v and y: see elimination.py."""

    x: int
    """Variables of a line: l, P, Q [, Ph, Qh]."""
    y: int
    """Multipliers of a bus's balances: LP, LQ [, HP, HQ]."""
    v: int
    """Voltages of a bus: v [, vh]."""
    eliminated: int
    """x and y."""
    kept: int
    """v and y of the sending bus."""
    size: int
    """All columns; the right-hand side stands in the one after them."""
    first_y: int
    """Of the block [kept, kept] of a bus, row by row: the first diagonal entry of y."""
    rhs: int
    """The block's right-hand side, after it."""
    fields: int
    """Of a bus in the workspace."""
    upper: int
    """Field of the voltage that v_max binds: V or VH."""
    d_upper: int
    """Field of its direction."""
    n_upper: int
    """Of the block: the diagonal entry of that voltage."""


def _system(x: int, y: int, v: int, fields: int, upper: int, d_upper: int) -> System:
    eliminated, kept = x + y, v + y
    return System(
        x=x,
        y=y,
        v=v,
        eliminated=eliminated,
        kept=kept,
        size=eliminated + kept,
        first_y=v * (kept + 1),
        rhs=kept * kept,
        fields=fields,
        upper=upper,
        d_upper=d_upper,
        n_upper=(v - 1) * (kept + 1),
    )


PLAIN = _system(x=3, y=2, v=1, fields=PLAIN_FIELDS, upper=V, d_upper=DV)
LOSSLESS = _system(x=5, y=4, v=2, fields=LOSSLESS_FIELDS, upper=VH, d_upper=DVH)
# Of each balance, with losses and without: multiplier, its new value, residual.
Y, NEW_Y, F_Y = (LP, LQ, HP, HQ), (NP, NQ, NHP, NHQ), (FP, FQ, GP, GQ)


def system(lossless):
    """The sizes, with lossless flows or without (None); constants to the compiler."""
    return PLAIN if lossless is None else LOSSLESS


@overload(system)
def _choose_system(lossless):
    if isinstance(lossless, types.NoneType):
        return lambda lossless: PLAIN
    return lambda lossless: LOSSLESS


# --- Problems, points and answers.

# Fields of `Given`.
P_MIN, P_MAX, LINEAR, QUADRATIC, REFERENCE, TAN_PHI, Q_MIN, Q_MAX = range(8)
LOAD_KW, LOAD_KVAR, V_MIN_PU, V_MAX_PU, I_MAX_A = range(5)

# Fields of `Point`: what is read out of a workspace for every bus and injection, then the multipliers of the voltage
# drops, which the certificate adds.
KEPT = (P, Q, L, V, LP, LQ, LOW, HIGH, RATING, FLOW + ZP, FLOW + ZQ, FLOW + ZL, FLOW + ZV)
KEPT_HAT = (PH, QH, VH, HP, HQ, FLOW_HAT + ZP, FLOW_HAT + ZQ, FLOW_HAT + ZL, FLOW_HAT + ZV)
KEPT_OF_DEVICE = (U, AT_LEAST, AT_MOST)
(IN_P, IN_Q, IN_L, IN_V, IN_LP, IN_LQ, IN_LOW, IN_HIGH, IN_RATING, IN_FLOW) = (
    KEPT.index(field) for field in (P, Q, L, V, LP, LQ, LOW, HIGH, RATING, FLOW)
)
IN_PH, IN_QH, IN_VH, IN_HP, IN_HQ, IN_FLOW_HAT = range(len(KEPT), len(KEPT) + 6)
IN_DROP, IN_DROP_HAT, POINT_FIELDS = range(len(KEPT) + len(KEPT_HAT), len(KEPT) + len(KEPT_HAT) + 3)
IN_U, IN_LEAST, IN_MOST, POINT_FIELDS_OF_DEVICE = range(4)

# Fields of `Answer`, under the names that `OpfSolution` has for them; a `Loss` has those before the multipliers.
OF_DEVICES = ("p_kw", "q_kvar")
OF_P, OF_Q = range(2)
OF_BUSES = (
    "flow_kw",
    "flow_kvar",
    "current_pu2",
    "voltage_pu",
    "price_per_kwh",
    "reactive_price_per_kvarh",
    "v_min_multiplier",
    "v_max_multiplier",
    "i_max_multiplier",
    "i_max_lossless_multiplier",
)
(OF_FLOW, OF_REACTIVE_FLOW, OF_CURRENT, OF_VOLTAGE, OF_PRICE, OF_REACTIVE_PRICE) = range(6)
(OF_V_MIN, OF_V_MAX, OF_I_MAX, OF_I_MAX_HAT) = range(6, 10)
N_OF_LOSS = OF_REACTIVE_PRICE + 1
# What is found about an answer: residuals, gap, how far lossless limits are passed, and cost.
FOUND_PRIMAL, FOUND_DUAL, FOUND_GAP, FOUND_EXCESS, FOUND_COST, FOUND_FIELDS = range(6)
