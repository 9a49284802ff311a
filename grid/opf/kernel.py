"""The interior-point iteration of one optimal power flow, factorised along the tree; read `iterate` first.

A primal-dual method with Nesterov and Todd's scaling and Mehrotra's predictor and corrector, for the problem of
problem.py. Its linear system has the shape of the tree: from the leaves to the substation every line is eliminated and
leaves a small symmetric block on what its sending bus sees (both nodal prices and the voltage), and on the way back
follow the directions. The work is linear in the number of buses.

The same lines run on one problem or on eight side by side in the lanes of a vector register: workspaces with a third
axis hold lanes. What differs between the two, and arguments that are None or not, is decided when numba compiles.

Per line j with sending bus A, all in p.u.: flows P, Q, squared current l, squared voltage v of its receiving bus, the
cone variable s = (P, Q, l, v_A) in {v_A l >= P^2 + Q^2} with multiplier z. Flexible injections u, one column (cp, cq)
each, cost a/2 u^2 + b u. Lossless flows and voltage (`_hat`, H in names of fields) join only where they are asked for.

Numba notices an edit by the file that holds an entry point, so all that it calls stands in this file.

Sources: Nesterov and Todd, SIAM J. Optimization 8(2), 1998; Mehrotra, SIAM J. Optimization 2(4), 1992; the lanes are
LLVM vectors.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

from peergrid.grid.compiled import compiled, in_place

# --- Lanes: eight numbers in one register, with the operators of one number.

LANES = 8
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_FLAGS = ("contract", "nsz")


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes{LANES}")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@intrinsic
def _everywhere(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        to_all = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, first, to_all)

    return _lanes(types.float64), generate


def _two_lanes(instruction: str) -> Any:
    @intrinsic
    def combine(typing_context: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args, flags=_FLAGS)

        return _lanes(_lanes, _lanes), generate

    return combine


@intrinsic
def _negative(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fneg(args[0], flags=_FLAGS)

    return _lanes(_lanes), generate


@intrinsic
def _root(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = f"llvm.sqrt.v{LANES}f64"
        found = builder.module.globals.get(name)
        return builder.call(found or ir.Function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), name), args)

    return _lanes(_lanes), generate


@intrinsic
def _larger(typing_context: Any, x: Any, y: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return _lanes(_lanes, _lanes), generate


def _entry(context: Any, builder: Any, signature: Any, args: Any, kind: Any) -> Any:
    """Address of entry [i, f] of a workspace, of all its lanes if it has any."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    strides = [builder.extract_value(array.strides, axis) for axis in range(2)]
    offset = builder.add(builder.mul(args[1], strides[0]), builder.mul(args[2], strides[1]))
    place = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [offset])
    return builder.bitcast(place, kind.as_pointer())


def _load_and_store(kind: Any, value: Any, align: int) -> tuple[Any, Any]:
    @intrinsic
    def load(typing_context: Any, array: Any, i: Any, f: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_entry(context, builder, signature, args, kind), align=align)

        return value(array, types.intp, types.intp), generate

    @intrinsic
    def store(typing_context: Any, array: Any, i: Any, f: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[3], _entry(context, builder, signature, args, kind), align=align)
            return context.get_dummy_value()

        return types.none(array, types.intp, types.intp, value), generate

    return load, store


_load_lanes, _store_lanes = _load_and_store(_VECTOR, _lanes, align=8 * LANES)
_load_one, _store_one = _load_and_store(ir.DoubleType(), types.float64, align=8)


# A small matrix on the stack: once its loops are unrolled, LLVM keeps it in registers.
SCRATCH_COLUMNS = 16


class _ScratchType(types.Type):
    def __init__(self, of_lanes: bool) -> None:
        self.kind = _VECTOR if of_lanes else ir.DoubleType()
        self.value = _lanes if of_lanes else types.float64
        super().__init__(name=f"Scratch{LANES if of_lanes else 1}")


@register_model(_ScratchType)
class _ScratchModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.kind.as_pointer())


@intrinsic
def scratch(typing_context: Any, workspace: Any) -> Any:
    """A matrix of numbers or lanes, as the workspace has them."""
    kind = _ScratchType(workspace.ndim == 3)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entries = ir.Constant(ir.IntType(64), SCRATCH_COLUMNS * SCRATCH_COLUMNS)
        with builder.goto_entry_block():
            return builder.alloca(kind.kind, size=entries)

    return kind(workspace), generate


@intrinsic
def _read(typing_context: Any, matrix: Any, i: Any, f: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = builder.add(builder.mul(args[1], ir.Constant(args[1].type, SCRATCH_COLUMNS)), args[2])
        return builder.load(builder.gep(args[0], [at]))

    return matrix.value(matrix, types.intp, types.intp), generate


@intrinsic
def _write(typing_context: Any, matrix: Any, i: Any, f: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = builder.add(builder.mul(args[1], ir.Constant(args[1].type, SCRATCH_COLUMNS)), args[2])
        builder.store(args[3], builder.gep(args[0], [at]))
        return context.get_dummy_value()

    return types.none(matrix, types.intp, types.intp, matrix.value), generate


def _overload_operator(symbol, combine):
    @overload(symbol)
    def choose(x, y):
        if isinstance(x, _LanesType) and isinstance(y, _LanesType):
            return lambda x, y: combine(x, y)
        if isinstance(x, _LanesType) and isinstance(y, types.Number):
            return lambda x, y: combine(x, _everywhere(float(y)))
        if isinstance(x, types.Number) and isinstance(y, _LanesType):
            return lambda x, y: combine(_everywhere(float(x)), y)
        return None


for _symbol, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _overload_operator(getattr(operator, _symbol), _two_lanes(_instruction))


@overload(operator.neg)
def _choose_neg(x):
    return (lambda x: _negative(x)) if isinstance(x, _LanesType) else None


def root(x):
    """Square root."""


@overload(root)
def _choose_root(x):
    return (lambda x: _root(x)) if isinstance(x, _LanesType) else (lambda x: np.sqrt(x))


def larger(x, y):
    """The larger of two, the second where either is NaN."""


@overload(larger)
def _choose_larger(x, y):
    if isinstance(x, _LanesType):
        return (lambda x, y: _larger(x, y)) if isinstance(y, _LanesType) else lambda x, y: _larger(x, _everywhere(y))
    return lambda x, y: x if x > y else y


def ld(array, i, f):
    """Field f of row i: a number, or lanes."""


@overload(ld)
def _choose_ld(array, i, f):
    if isinstance(array, _ScratchType):
        return lambda array, i, f: _read(array, i, f)
    return (
        (lambda array, i, f: _load_lanes(array, i, f))
        if array.ndim == 3
        else lambda array, i, f: _load_one(array, i, f)
    )


def st(array, i, f, x):
    """Write field f of row i."""


@overload(st)
def _choose_st(array, i, f, x):
    if isinstance(array, _ScratchType):
        if array.value is _lanes and not isinstance(x, _LanesType):
            return lambda array, i, f, x: _write(array, i, f, _everywhere(float(x)))
        return lambda array, i, f, x: _write(array, i, f, x)
    if array.ndim == 2:
        return lambda array, i, f, x: _store_one(array, i, f, float(x))
    if isinstance(x, _LanesType):
        return lambda array, i, f, x: _store_lanes(array, i, f, x)
    return lambda array, i, f, x: _store_lanes(array, i, f, _everywhere(float(x)))


def n_lanes(array):
    """How many problems a workspace holds."""


@overload(n_lanes)
def _choose_n_lanes(array):
    return (lambda array: LANES) if array.ndim == 3 else (lambda array: 1)


@in_place
def _put_in_lane(array, i, f, lane, x):
    array[i, f, lane] = x


@in_place
def _put(array, i, f, x):
    array[i, f] = x


def put(array, i, f, lane, x):
    """Write field f of row i in one lane."""


@overload(put)
def _choose_put(array, i, f, lane, x):
    if array.ndim == 3:
        return lambda array, i, f, lane, x: _put_in_lane(array, i, f, lane, x)
    return lambda array, i, f, lane, x: _put(array, i, f, x)


def get(array, i, f, lane):
    """Field f of row i in one lane."""


@overload(get)
def _choose_get(array, i, f, lane):
    return (lambda array, i, f, lane: array[i, f, lane]) if array.ndim == 3 else (lambda array, i, f, lane: array[i, f])


def in_both(lossless, plain, more):
    """`plain`, or `more` where lossless flows take part; a constant to the compiler."""


@overload(in_both)
def _choose_in_both(lossless, plain, more):
    if isinstance(lossless, types.NoneType):
        return lambda lossless, plain, more: plain
    return lambda lossless, plain, more: more


# --- What a workspace holds.

# Fields of a bus and the line into it. NP, NQ are the new multipliers of the balances, F. and G. residuals.
(P, Q, L, V, LP, LQ, P_LOAD, Q_LOAD, V_MIN, V_MAX, L_MAX, FP, FQ, FV, DP, DQ, DL, DV, NP, NQ) = range(20)
LOW, HIGH, RATING, FLOW = 20, 24, 28, 32  # a bound has 4 fields, a cone 15
PLAIN_FIELDS = 47
(PH, QH, VH, HP, HQ, GP, GQ, GV, DPH, DQH, DVH, NHP, NHQ) = range(47, 60)
FLOW_HAT = 60
ALL_FIELDS = 75
# Fields of a flexible injection, its column (CP, CQ), curvature and force in the linear system, and two bounds.
(U, LEAST, MOST, A, B, CP, CQ, INVERSE, FORCE, DU) = range(10)
AT_LEAST, AT_MOST, DEVICE_FIELDS = 10, 14, 18
# Of a bound: multiplier, inverses of slack and multiplier, second-order term (then the multiplier's step).
Z, INV_S, INV_Z, K = range(4)
# Of a cone: multiplier, scaling (a, h), inverse norms of s and z, second-order term (then the multiplier's step).
ZP, ZQ, ZL, ZV, A0, A1, A2, A3, H, INV_NS, INV_NZ, KP, KQ, KL, KV = range(15)
# Of a start and of an answer: what hangs on a bus, what is left of the balances, and the voltage.
(DRAWN_P, DRAWN_Q, LEFT_P, LEFT_Q, LEFT_HAT_P, LEFT_HAT_Q, START_V, START_FIELDS) = range(8)
# Of a problem, in the row after the last bus.
GAP, COST, CONSTANT, INFEASIBLE, DUAL_LEFT, CENTRING = range(6)

# Fields of `Given`.
P_MIN, P_MAX, LINEAR, QUADRATIC, REFERENCE, TAN_PHI, Q_MIN, Q_MAX = range(8)
LOAD_KW, LOAD_KVAR, V_MIN_PU, V_MAX_PU, I_MAX_A = range(5)
# Fields of `Point`: what is read out of a workspace for every bus, injection and problem.
OF_BUS = (P, Q, L, V, LP, LQ, LOW, HIGH, RATING, FLOW, FLOW + 1, FLOW + 2, FLOW + 3)
OF_BUS_LOSSLESS = (PH, QH, VH, HP, HQ, FLOW_HAT, FLOW_HAT + 1, FLOW_HAT + 2, FLOW_HAT + 3)
OF_DEVICE = (U, AT_LEAST, AT_MOST)
# Where they stand in a `Point` (P to LQ and U as in a workspace), with multipliers of the voltage drops from `judge`.
IN_LOW, IN_HIGH, IN_RATING, IN_CONE = 6, 7, 8, 9
IN_PH, IN_QH, IN_VH, IN_HP, IN_HQ, IN_CONE_HAT, IN_DROP, IN_DROP_HAT, POINT_FIELDS = 13, 14, 15, 16, 17, 18, 22, 23, 24
IN_LEAST, IN_MOST = 1, 2
# Fields of a `Loss`.
OF_P, OF_Q = range(2)
OF_FLOW, OF_REACTIVE_FLOW, OF_CURRENT, OF_VOLTAGE, OF_PRICE, OF_REACTIVE_PRICE = range(6)
# Statuses, as `OpfStatus` has them, and what is found about an answer.
OPTIMAL, INFEASIBLE_PROBLEM, INACCURATE = range(3)
FOUND_PRIMAL, FOUND_DUAL, FOUND_GAP, FOUND_EXCESS, FOUND_COST, FOUND_FIELDS = range(6)
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

# Money is divided by this, power by the feeder's base: what a usual injection costs comes out near 1.
TYPICAL_PRICE_PER_KWH = 0.1
LARGEST_RATING_PU = 100.0
NARROWEST_PU = 1e-10
# Multipliers grow without end where no point is feasible.
HOPELESS_GAP = 1e10
# The start: complementarity of limits and of injections' bounds, squared current, price of power, how far into its band
# a voltage begins, and how far an injection from the middle of its own. These and the next took the fewest iterations
# over random problems on four feeders.
FIRST_MU, FIRST_MU_OF_INJECTION, FIRST_L, FIRST_PRICE, INSIDE_BAND, LEAN = 0.5, 1.5, 0.3, 1.0, 0.2, 0.12
# What a step leaves of the way to the boundary: SHORTER times what the predictor left of the gap, at most MOST_LEFT.
SHORTER, MOST_LEFT = 0.1, 0.015
PROXIMAL_OF_L = 1e-2


class Settings(NamedTuple):
    """How a problem is solved."""

    tolerance: float
    """Of the gap relative to the cost; ten times that for balances and voltage drops, in p.u."""
    most_iterations: int
    proximal: float
    """On the directions of P and Q, and PROXIMAL_OF_L |z|^2 times that on l: keeps the pivots of cones that carry no
    force from vanishing. It doesn't move the solution, as directions vanish there; too little and rounding spoils the
    balances, too much and steps shorten."""
    device_proximal: float
    """The same for injections without a quadratic cost, inside their bounds."""
    least_left: float
    """What the longest step leaves of the way to the boundary."""


class Workspace(NamedTuple):
    """Arrays [row, field] or [row, field, lane], aligned to a vector register."""

    bus: Any  # n_bus + 1 rows
    device: Any
    block: Any  # symmetric block and right-hand side that a bus hands to its line
    factor: Any
    solved: Any
    start: Any  # [field, bus], for one problem


class Tree(NamedTuple):
    """What all problems share: the feeder, and its flexible injections sorted by bus.

    Injections at bus j are first[j] to first[j + 1]: the active or, where `reactive`, the free reactive part of the
    problem's injection `origin`.
    """

    parent: Any
    r: Any
    x: Any
    rated: Any
    capacitor_pu: Any
    base_a: Any
    base_kva: float
    first: Any
    origin: Any
    reactive: Any


class Given(NamedTuple):
    """Problems, one per row, in kW, kvar, amperes and currency."""

    device: Any  # [row, field, injection]
    bus: Any  # [row, field, bus]
    source: Any  # [row] voltage of the substation


class Point(NamedTuple):
    """Primal and dual answers in p.u.: one per row, or one that every row overwrites."""

    bus: Any  # [row, field, bus]
    device: Any  # [row, field, injection sorted by bus]
    is_lossless: Any  # [row] whether lossless flows took part


class Loss(NamedTuple):
    """Gradient of a loss with respect to the answers, in the units of `OpfSolution`."""

    device: Any  # [p_kw and q_kvar, row, injection]
    bus: Any  # [flows, squared current, voltage and prices, row, bus]


class Gradient(NamedTuple):
    """Gradient of a loss with respect to the problems, in the units and with the fields of `Given`."""

    device: Any  # [field, row, injection]
    bus: Any  # [field, row, bus]
    source: Any  # [row]


class Answer(NamedTuple):
    """Answers, one per row, in the units of `OpfSolution`, and how good they are."""

    device: Any  # [p_kw and q_kvar, row, injection]
    bus: Any  # [field of OpfSolution, row, bus]: flows to reactive prices, then multipliers
    row: Any  # [primal and dual residual, gap, excess of lossless limits, cost per hour; row]
    status: Any  # [row] OpfStatus
    iterations: Any  # [row]


# --- Bounds and cones.


@in_place
def open_bound(a, i, b, slack):
    """Curvature z / s that a bound adds; keeps 1 / s and 1 / z."""
    z = ld(a, i, b + Z)
    inverse = 1.0 / (slack * z)
    st(a, i, b + INV_S, z * inverse)
    st(a, i, b + INV_Z, slack * inverse)
    return z * z * inverse


@in_place
def open_bounds(a, i, b, c, slack_b, slack_c):
    """`open_bound` for two bounds with one division, which takes as long as ten multiplications."""
    z_b, z_c = ld(a, i, b + Z), ld(a, i, c + Z)
    x_b, x_c = slack_b * z_b, slack_c * z_c
    inverse = 1.0 / (x_b * x_c)
    by_b, by_c = x_c * inverse, x_b * inverse
    st(a, i, b + INV_S, z_b * by_b)
    st(a, i, b + INV_Z, slack_b * by_b)
    st(a, i, c + INV_S, z_c * by_c)
    st(a, i, c + INV_Z, slack_c * by_c)
    return z_b * z_b * by_b, z_c * z_c * by_c


@in_place
def push(a, i, b, smu):
    """Force of a bound away from it, beyond its curvature, in the corrector."""
    return smu * ld(a, i, b + INV_S) - ld(a, i, b + K)


@in_place
def bound_step(a, i, b, ds, smu, corrector):
    """Inverse of the longest step that keeps slack and multiplier positive, and ds dz."""
    w = ds * ld(a, i, b + INV_S)
    z = ld(a, i, b + Z)
    if corrector is None:
        dz = -(z + z * w)
        st(a, i, b + K, w * dz)
        return larger(-w, 1.0 + w), ds * dz
    dz = push(a, i, b, smu) - (z + z * w)
    st(a, i, b + K, dz)
    return larger(-w, -dz * ld(a, i, b + INV_Z)), ds * dz


@in_place
def move_bound(a, i, b, alpha, slack):
    """Move the multiplier; its share of the gap."""
    z = ld(a, i, b + Z) + alpha * ld(a, i, b + K)
    st(a, i, b + Z, z)
    return z * slack


@in_place
def open_cone(a, i, c, p, q, l, v):
    """Scaling of Nesterov and Todd: H = h (2 a a' + 2 (eP eP' + eQ eQ') - (el ev' + ev el')) takes ds to -dz."""
    z_p, z_q, z_l, z_v = ld(a, i, c + ZP), ld(a, i, c + ZQ), ld(a, i, c + ZL), ld(a, i, c + ZV)
    ns2 = 2.0 * (v * l - p * p - q * q)
    nz2 = 2.0 * (z_l * z_v - 0.25 * (z_p * z_p + z_q * z_q))
    inverse = 1.0 / (ns2 * nz2)
    rs, rz = root(nz2 * inverse), root(ns2 * inverse)
    between = (p * z_p + q * z_q + l * z_l + v * z_v) * rs * rz
    k = 1.0 / root(2.0 * (1.0 + between))
    h = nz2 * rz * rs
    a0, a1 = k * (z_p * rz - 2.0 * p * rs), k * (z_q * rz - 2.0 * q * rs)
    a2, a3 = k * (v * rs + z_l * rz), k * (l * rs + z_v * rz)
    st(a, i, c + A0, a0)
    st(a, i, c + A1, a1)
    st(a, i, c + A2, a2)
    st(a, i, c + A3, a3)
    st(a, i, c + H, h)
    st(a, i, c + INV_NS, rs)
    st(a, i, c + INV_NZ, rz)
    return a0, a1, a2, a3, h


@in_place
def centre_cone(a, i, c, p, q, l, v, smu):
    """Add the pull towards the central path to the second-order terms."""
    rs = ld(a, i, c + INV_NS)
    pull = smu * rs * rs
    st(a, i, c + KP, ld(a, i, c + KP) - 2.0 * pull * p)
    st(a, i, c + KQ, ld(a, i, c + KQ) - 2.0 * pull * q)
    st(a, i, c + KL, ld(a, i, c + KL) + pull * v)
    st(a, i, c + KV, ld(a, i, c + KV) + pull * l)


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
    a0, a1, a2, a3 = ld(a, i, c + A0), ld(a, i, c + A1), ld(a, i, c + A2), ld(a, i, c + A3)
    h, rs, rz = ld(a, i, c + H), ld(a, i, c + INV_NS), ld(a, i, c + INV_NZ)
    z_p, z_q, z_l, z_v = ld(a, i, c + ZP), ld(a, i, c + ZQ), ld(a, i, c + ZL), ld(a, i, c + ZV)
    d = 2.0 * (a0 * dp + a1 * dq + a2 * dl + a3 * dv)
    h_p, h_q, h_l, h_v = h * (a0 * d + 2.0 * dp), h * (a1 * d + 2.0 * dq), h * (a2 * d - dv), h * (a3 * d - dl)
    e_p, e_q, e_l, e_v = -h_p - z_p, -h_q - z_q, -h_l - z_l, -h_v - z_v
    if corrector is None:
        t_p, t_q, t_l, t_v = second_order(a0, a1, a2, a3, h, rs, rz, z_p, z_q, z_l, z_v, dp, dq, dl, dv)
        st(a, i, c + KP, h_p + t_p)
        st(a, i, c + KQ, h_q + t_q)
        st(a, i, c + KL, h_l + t_l)
        st(a, i, c + KV, h_v + t_v)
    else:
        e_p = e_p + ld(a, i, c + KP)
        e_q = e_q + ld(a, i, c + KQ)
        e_l = e_l + ld(a, i, c + KL)
        e_v = e_v + ld(a, i, c + KV)
        st(a, i, c + KP, e_p)
        st(a, i, c + KQ, e_q)
        st(a, i, c + KL, e_l)
        st(a, i, c + KV, e_v)
    of_s = to_boundary(p, q, l, v, dp, dq, dl, dv, 1.0, 2.0 * rs * rs)
    of_z = to_boundary(z_p, z_q, z_l, z_v, e_p, e_q, e_l, e_v, 0.25, 2.0 * rz * rz)
    return larger(of_s, of_z), dp * e_p + dq * e_q + dl * e_l + dv * e_v


@in_place
def move_cone(a, i, c, alpha, p, q, l, v):
    """Move the multiplier; its share of the gap."""
    z_p, z_q = ld(a, i, c + ZP) + alpha * ld(a, i, c + KP), ld(a, i, c + ZQ) + alpha * ld(a, i, c + KQ)
    z_l, z_v = ld(a, i, c + ZL) + alpha * ld(a, i, c + KL), ld(a, i, c + ZV) + alpha * ld(a, i, c + KV)
    st(a, i, c + ZP, z_p)
    st(a, i, c + ZQ, z_q)
    st(a, i, c + ZL, z_l)
    st(a, i, c + ZV, z_v)
    return p * z_p + q * z_q + l * z_l + v * z_v


# --- The linear system along the tree.
#
# Line j eliminates x = (l, P, Q [, Ph, Qh]) and its bus's multipliers y = (LP, LQ [, HP, HQ]); what stays is a block
# on the sending bus's voltages and y. The bus's own block is on (v [, vh], y); its voltages are substituted:
# dv = FV + dv_A - c'x with c = (-z^2, 2r, 2x) on (l, P, Q), and dvh = GV + dvh_A - 2r dPh - 2x dQh.
# Columns stand in the order x, y, v_A [, vh_A], y_A: l touches none of y_A, P only LP_A, Q only these two, and so on,
# so that row i of the factors ends where `reach` says.


@in_place
def reach(i, size, n_y):
    """One past the last column that row i of the matrix touches."""
    return size - n_y + min(i, n_y)


@in_place
def gather(w, tree, settings, j, smu, corrector):
    """The flexible injections of bus j: S = sum c c' / D, and what they add to the right-hand side."""
    d = w.device
    zero = 0.0 * smu
    s_pp, s_pq, s_qq, r_p, r_q = zero, zero, zero, zero, zero
    for i in range(tree.first[j], tree.first[j + 1]):
        cp, cq = ld(d, i, CP), ld(d, i, CQ)
        if corrector is None:
            u = ld(d, i, U)
            a = ld(d, i, A)
            least, most = open_bounds(d, i, AT_LEAST, AT_MOST, u - ld(d, i, LEAST), ld(d, i, MOST) - u)
            by_d = 1.0 / (a + least + most + settings.device_proximal)
            force = -(a * u + ld(d, i, B))
            st(d, i, INVERSE, by_d)
            s_pp, s_pq, s_qq = s_pp + cp * cp * by_d, s_pq + cp * cq * by_d, s_qq + cq * cq * by_d
        else:
            by_d = ld(d, i, INVERSE)
            force = ld(d, i, FORCE) + push(d, i, AT_LEAST, smu) - push(d, i, AT_MOST, smu)
        st(d, i, FORCE, force)
        r_p, r_q = r_p + cp * force * by_d, r_q + cq * force * by_d
    return s_pp, s_pq, s_qq, r_p, r_q


@in_place
def open_cones(b, tree, lossless):
    """Scaling of all cones, in a pass of its own: its divisions then don't wait for the factors of other lines."""
    for j in range(1, tree.parent.shape[0]):
        v_a = ld(b, tree.parent[j], V)
        open_cone(b, j, FLOW, ld(b, j, P), ld(b, j, Q), ld(b, j, L), v_a)
        if lossless is not None and tree.rated[j]:
            open_cone(b, j, FLOW_HAT, ld(b, j, PH), ld(b, j, QH), ld(b, j, L_MAX), v_a)


@in_place
def backward(w, tree, settings, lossless, corrector):
    """Leaves to substation: scaling, factors and the predictor's right-hand side, or the corrector's alone."""
    b, k, t = w.bus, w.block, scratch(w.bus)
    n = tree.parent.shape[0]
    n_x, n_y, n_v = in_both(lossless, 3, 5), in_both(lossless, 2, 4), in_both(lossless, 1, 2)
    m, p = n_x + n_y, n_v + n_y
    size, rhs, yy = m + p, p * p, n_v * (p + 1)
    zero = 0.0 * ld(b, n, GAP)
    smu = zero if corrector is None else ld(b, n, CENTRING)
    for i in range(p):
        st(k, 0, rhs + i, 0.0)
        if corrector is None:
            for c in range(p):
                st(k, 0, i * p + c, 0.0)
    if corrector is None:
        open_cones(b, tree, lossless)
    for j in range(n - 1, -1, -1):
        s_pp, s_pq, s_qq, r_p, r_q = gather(w, tree, settings, j, smu, corrector)
        if corrector is None:
            st(k, j, yy, ld(k, j, yy) - s_pp)
            st(k, j, yy + 1, ld(k, j, yy + 1) - s_pq)
            st(k, j, yy + p + 1, ld(k, j, yy + p + 1) - s_qq)
        st(k, j, rhs + n_v, ld(k, j, rhs + n_v) + ld(b, j, FP) + r_p)
        st(k, j, rhs + n_v + 1, ld(k, j, rhs + n_v + 1) + ld(b, j, FQ) + r_q)
        if j == 0:
            continue
        a = tree.parent[j]
        r, x = tree.r[j], tree.x[j]
        flow, flow_hat = (-(r * r + x * x), 2.0 * r, 2.0 * x), (2.0 * r, 2.0 * x)
        v, v_a, l = ld(b, j, V), ld(b, a, V), ld(b, j, L)
        # The injections enter the lossless balances as well, and the voltage bounds join the block.
        if lossless is not None:
            if corrector is None:
                for o in (yy + 2, yy + 2 * (p + 1)):
                    st(k, j, o, ld(k, j, o) - s_pp)
                    st(k, j, o + 1, ld(k, j, o + 1) - s_pq)
                    st(k, j, o + p + 1, ld(k, j, o + p + 1) - s_qq)
                st(k, j, yy + p + 2, ld(k, j, yy + p + 2) - s_pq)
            st(k, j, rhs + n_v + 2, ld(k, j, rhs + n_v + 2) + ld(b, j, GP) + r_p)
            st(k, j, rhs + n_v + 3, ld(k, j, rhs + n_v + 3) + ld(b, j, GQ) + r_q)
        if corrector is None:
            bounded = v
            if lossless is not None:
                bounded = ld(b, j, VH)
            low, high = open_bounds(b, j, LOW, HIGH, v - ld(b, j, V_MIN), ld(b, j, V_MAX) - bounded)
            n_vv = ld(k, j, 0) + low
            if lossless is not None:
                st(k, j, p + 1, ld(k, j, p + 1) + high)
            else:
                n_vv = n_vv + high
            st(k, j, 0, n_vv)
            r_v, r_h = zero, zero
        else:
            n_vv = ld(k, j, 0)
            r_v, r_h = push(b, j, LOW, smu), -push(b, j, HIGH, smu)
            if lossless is None:
                r_v = r_v + r_h
        f_v = ld(b, j, FV)
        e_v = ld(k, j, rhs) + r_v - n_vv * f_v
        if lossless is not None:
            g_v = ld(b, j, GV)
            n_vh, n_hh = ld(k, j, 1), ld(k, j, p + 1)
            e_v = e_v - n_vh * g_v
            e_h = ld(k, j, rhs + 1) + r_h - n_vh * f_v - n_hh * g_v
        if corrector is None:
            fill(w, t, tree, settings, j, lossless, v_a, l)
        # The right-hand side, in the column after the matrix.
        if corrector is None:
            k_p, k_q, k_l, k_v = zero, zero, zero, zero
        else:
            centre_cone(b, j, FLOW, ld(b, j, P), ld(b, j, Q), l, v_a, smu)
            k_p, k_q, k_l, k_v = ld(b, j, FLOW + KP), ld(b, j, FLOW + KQ), ld(b, j, FLOW + KL), ld(b, j, FLOW + KV)
            if tree.rated[j]:
                k_l = k_l - push(b, j, RATING, smu)
        st(t, 0, size, k_l - flow[0] * e_v)
        st(t, 1, size, k_p - flow[1] * e_v)
        st(t, 2, size, k_q - flow[2] * e_v)
        if lossless is not None:
            h_p, h_q = zero, zero
            if corrector is not None and tree.rated[j]:
                centre_cone(b, j, FLOW_HAT, ld(b, j, PH), ld(b, j, QH), ld(b, j, L_MAX), v_a, smu)
                h_p, h_q = ld(b, j, FLOW_HAT + KP), ld(b, j, FLOW_HAT + KQ)
                k_v = k_v + ld(b, j, FLOW_HAT + KV)
            st(t, 3, size, h_p - flow_hat[0] * e_h)
            st(t, 4, size, h_q - flow_hat[1] * e_h)
            st(t, m + 1, size, e_h)
        st(t, m, size, k_v + e_v)
        for y in range(n_y):
            r_y = ld(k, j, rhs + n_v + y) - ld(k, j, n_v + y) * f_v
            if lossless is not None:
                r_y = r_y - ld(k, j, p + n_v + y) * g_v
            st(t, n_x + y, size, r_y)
            st(t, m + n_v + y, size, zero)
        if corrector is None:
            eliminate(w, t, j, a, lossless)
        for i in range(m):
            r_i = ld(t, i, size)
            st(w.solved, j, i, r_i)
            for c in range(i + 1, reach(i, size, n_y)):
                st(t, c, size, ld(t, c, size) - ld(w.factor, j, i * size + c) * r_i)
        for i in range(p):
            st(k, a, rhs + i, ld(k, a, rhs + i) + ld(t, m + i, size))
            st(k, j, rhs + i, 0.0)
        if corrector is not None:
            for i in range(p):
                for c in range(i, p):
                    st(k, j, i * p + c, 0.0)


@in_place
def fill(w, t, tree, settings, j, lossless, v_a, l):
    """The upper triangle of the matrix of line j: x, y, the sending bus's voltages and y."""
    b, k = w.bus, w.block
    n_x, n_y, n_v = in_both(lossless, 3, 5), in_both(lossless, 2, 4), in_both(lossless, 1, 2)
    m, p = n_x + n_y, n_v + n_y
    size, yy = m + p, n_v * (p + 1)
    a = tree.parent[j]
    r, x = tree.r[j], tree.x[j]
    flow, flow_hat, drop = (-(r * r + x * x), 2.0 * r, 2.0 * x), (2.0 * r, 2.0 * x), (r, x)
    zero = 0.0 * l
    for i in range(size):
        for c in range(i, size):
            st(t, i, c, zero)
    # Cones and ratings on x and the sending bus's voltage.
    a0, a1, a2, a3, h = (
        ld(b, j, FLOW + A0),
        ld(b, j, FLOW + A1),
        ld(b, j, FLOW + A2),
        ld(b, j, FLOW + A3),
        ld(b, j, FLOW + H),
    )
    h2 = 2.0 * h
    h_ll, h_vv = h2 * a2 * a2, h2 * a3 * a3
    if tree.rated[j]:
        h_ll = h_ll + open_bound(b, j, RATING, ld(b, j, L_MAX) - l)
    st(t, 0, 0, h_ll + PROXIMAL_OF_L * settings.proximal * (r * r + x * x))
    st(t, 0, 1, h2 * a2 * a0)
    st(t, 0, 2, h2 * a2 * a1)
    st(t, 1, 1, h2 * (a0 * a0 + 1.0) + settings.proximal)
    st(t, 1, 2, h2 * a0 * a1)
    st(t, 2, 2, h2 * (a1 * a1 + 1.0) + settings.proximal)
    st(t, 0, m, h2 * a2 * a3 - h)
    st(t, 1, m, h2 * a0 * a3)
    st(t, 2, m, h2 * a1 * a3)
    if lossless is not None:
        st(t, 3, 3, zero + settings.proximal)
        st(t, 4, 4, zero + settings.proximal)
        if tree.rated[j]:
            g0, g1, g3 = ld(b, j, FLOW_HAT + A0), ld(b, j, FLOW_HAT + A1), ld(b, j, FLOW_HAT + A3)
            g = 2.0 * ld(b, j, FLOW_HAT + H)
            st(t, 3, 3, g * (g0 * g0 + 1.0) + settings.proximal)
            st(t, 3, 4, g * g0 * g1)
            st(t, 4, 4, g * (g1 * g1 + 1.0) + settings.proximal)
            st(t, 3, m, g * g0 * g3)
            st(t, 4, m, g * g1 * g3)
            h_vv = h_vv + g * g3 * g3
    # The bus's own block, its voltages substituted.
    n_vv = ld(k, j, 0)
    for i in range(3):
        for c in range(i, 3):
            st(t, i, c, ld(t, i, c) + flow[i] * flow[c] * n_vv)
        for y in range(n_y):
            st(t, i, n_x + y, -flow[i] * ld(k, j, n_v + y))
        st(t, i, m, ld(t, i, m) - flow[i] * n_vv)
    st(t, m, m, h_vv + n_vv)
    if lossless is not None:
        n_vh, n_hh = ld(k, j, 1), ld(k, j, p + 1)
        for i in range(3):
            for c in range(2):
                st(t, i, 3 + c, flow[i] * flow_hat[c] * n_vh)
            st(t, i, m + 1, -flow[i] * n_vh)
        for i in range(2):
            for c in range(i, 2):
                st(t, 3 + i, 3 + c, ld(t, 3 + i, 3 + c) + flow_hat[i] * flow_hat[c] * n_hh)
            for y in range(n_y):
                st(t, 3 + i, n_x + y, -flow_hat[i] * ld(k, j, p + n_v + y))
            st(t, 3 + i, m, ld(t, 3 + i, m) - flow_hat[i] * n_vh)
            st(t, 3 + i, m + 1, -flow_hat[i] * n_hh)
        st(t, m, m + 1, n_vh)
        st(t, m + 1, m + 1, n_hh)
    for y in range(n_y):
        for c in range(y, n_y):
            st(t, n_x + y, n_x + c, ld(k, j, yy + y * p + c))
        st(t, n_x + y, m, ld(k, j, n_v + y))
        if lossless is not None:
            st(t, n_x + y, m + 1, ld(k, j, p + n_v + y))
    # What the line takes out of the balances at its two ends.
    for i in range(2):
        st(t, 0, n_x + i, ld(t, 0, n_x + i) + drop[i])
        st(t, 1 + i, n_x + i, ld(t, 1 + i, n_x + i) - 1.0)
        st(t, 1 + i, m + n_v + i, zero + 1.0)
        if lossless is not None:
            st(t, 3 + i, n_x + 2 + i, ld(t, 3 + i, n_x + 2 + i) - 1.0)
            if a > 0:
                st(t, 3 + i, m + n_v + 2 + i, zero + 1.0)


@intrinsic
def _factorise(typing_context: Any, t: Any, factor: Any, j: Any, lossless: Any) -> Any:
    """Factorise x and y out of a matrix, in registers: LLVM doesn't unroll these loops by itself."""
    m, n_y = (5, 2) if isinstance(lossless, types.NoneType) else (9, 4)
    size = m + n_y + n_y // 2

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix, of_factor, line, _ = args

        def constant(i: int) -> Any:
            return ir.Constant(ir.IntType(64), i)

        def keep(f: int, x: Any) -> None:
            place = _entry(context, builder, types.none(factor), (of_factor, line, constant(f)), t.kind)
            builder.store(x, place, align=8)

        ends = [size - n_y + min(i, n_y) for i in range(m)] + [size] * (size - m)  # as `reach` has it
        at = {
            (i, c): builder.gep(matrix, [constant(i * SCRATCH_COLUMNS + c)])
            for i in range(size)
            for c in range(i, ends[i])
        }
        x = {place: builder.load(address) for place, address in at.items()}
        one = ir.Constant(t.kind, [1.0] * LANES if t.value is _lanes else 1.0)
        for i in range(m):
            by_pivot = builder.fdiv(one, x[i, i], flags=_FLAGS)
            keep(m * size + i, by_pivot)
            for c in range(i + 1, ends[i]):
                f = builder.fmul(x[i, c], by_pivot, flags=_FLAGS)
                keep(i * size + c, f)
                for e in range(c, ends[i]):
                    x[c, e] = builder.fsub(x[c, e], builder.fmul(f, x[i, e], flags=_FLAGS), flags=_FLAGS)
        for i in range(m, size):
            for c in range(i, size):
                builder.store(x[i, c], at[i, c])
        return context.get_dummy_value()

    return types.none(t, factor, j, lossless), generate


@in_place
def eliminate(w, t, j, a, lossless):
    """Factorise x and y out of the matrix of line j and add what stays to the block of its sending bus."""
    m, p = in_both(lossless, 5, 9), in_both(lossless, 3, 6)
    _factorise(t, w.factor, j, lossless)
    for i in range(p):
        for c in range(i, p):
            st(w.block, a, i * p + c, ld(w.block, a, i * p + c) + ld(t, m + i, m + c))


@in_place
def directions(w, tree, j, lossless):
    """Directions of line j (l, P, Q, Ph, Qh) and its receiving bus, given those of its sending bus."""
    b, t = w.bus, scratch(w.bus)
    n_x, n_y, n_v = in_both(lossless, 3, 5), in_both(lossless, 2, 4), in_both(lossless, 1, 2)
    m, p = n_x + n_y, n_v + n_y
    size, y_a = m + p, m + n_v
    a = tree.parent[j]
    r, x = tree.r[j], tree.x[j]
    st(t, 0, m, ld(b, a, DV))
    st(t, 0, y_a, ld(b, a, NP))
    st(t, 0, y_a + 1, ld(b, a, NQ))
    if lossless is not None:
        st(t, 0, m + 1, ld(b, a, DVH))
        st(t, 0, y_a + 2, ld(b, a, NHP))
        st(t, 0, y_a + 3, ld(b, a, NHQ))
    for i in range(m - 1, -1, -1):
        d = ld(w.solved, j, i) * ld(w.factor, j, m * size + i)
        for c in range(i + 1, reach(i, size, n_y)):
            d = d - ld(w.factor, j, i * size + c) * ld(t, 0, c)
        st(t, 0, i, d)
    dl, dp, dq = ld(t, 0, 0), ld(t, 0, 1), ld(t, 0, 2)
    st(b, j, DV, ld(b, j, FV) + ld(b, a, DV) - 2.0 * (r * dp + x * dq) + (r * r + x * x) * dl)
    st(b, j, NP, ld(t, 0, n_x))
    st(b, j, NQ, ld(t, 0, n_x + 1))
    dp_h, dq_h = dp, dq
    if lossless is not None:
        dp_h, dq_h = ld(t, 0, 3), ld(t, 0, 4)
        st(b, j, DVH, ld(b, j, GV) + ld(b, a, DVH) - 2.0 * (r * dp_h + x * dq_h))
        st(b, j, NHP, ld(t, 0, n_x + 2))
        st(b, j, NHQ, ld(t, 0, n_x + 3))
    return dl, dp, dq, dp_h, dq_h


@in_place
def directions_at_root(w, lossless):
    """New multipliers at the substation, whose voltage is given."""
    b, k = w.bus, w.block
    p, n_v = in_both(lossless, 3, 6), in_both(lossless, 1, 2)
    yy, rhs = n_v * (p + 1), p * p + n_v
    pp, pq, qq = ld(k, 0, yy), ld(k, 0, yy + 1), ld(k, 0, yy + p + 1)
    r_p, r_q = ld(k, 0, rhs), ld(k, 0, rhs + 1)
    by_det = 1.0 / (pp * qq - pq * pq)
    st(b, 0, NP, (qq * r_p - pq * r_q) * by_det)
    st(b, 0, NQ, (pp * r_q - pq * r_p) * by_det)
    st(b, 0, DV, 0.0)
    if lossless is not None:
        st(b, 0, NHP, 0.0)
        st(b, 0, NHQ, 0.0)
        st(b, 0, DVH, 0.0)


@in_place
def direction_of_injection(w, i, price_p, price_q):
    """How far a flexible injection moves at its bus's new prices."""
    d = w.device
    return (ld(d, i, CP) * price_p + ld(d, i, CQ) * price_q + ld(d, i, FORCE)) * ld(d, i, INVERSE)


@in_place
def forward(w, tree, lossless, corrector):
    """Substation to leaves: directions; the inverse of the longest step, and the sum of ds dz."""
    b, d = w.bus, w.device
    n = tree.parent.shape[0]
    smu = ld(b, n, CENTRING)
    inverse = 0.0 * smu
    cross = 0.0 * smu
    dl, dp, dq, dp_h, dq_h = inverse, inverse, inverse, inverse, inverse
    for j in range(n):
        if j > 0:
            dl, dp, dq, dp_h, dq_h = directions(w, tree, j, lossless)
        else:
            directions_at_root(w, lossless)
        price_p, price_q = ld(b, j, NP), ld(b, j, NQ)
        if lossless is not None:
            price_p, price_q = price_p + ld(b, j, NHP), price_q + ld(b, j, NHQ)
        for i in range(tree.first[j], tree.first[j + 1]):
            du = direction_of_injection(w, i, price_p, price_q)
            if corrector is not None:
                st(d, i, DU, du)
            step, product = bound_step(d, i, AT_LEAST, du, smu, corrector)
            inverse, cross = larger(inverse, step), cross + product
            step, product = bound_step(d, i, AT_MOST, -du, smu, corrector)
            inverse, cross = larger(inverse, step), cross + product
        if j == 0:
            continue
        a = tree.parent[j]
        if corrector is not None:
            st(b, j, DL, dl)
            st(b, j, DP, dp)
            st(b, j, DQ, dq)
            if lossless is not None:
                st(b, j, DPH, dp_h)
                st(b, j, DQH, dq_h)
        dv, v_a, dv_a = ld(b, j, DV), ld(b, a, V), ld(b, a, DV)
        step, product = bound_step(b, j, LOW, dv, smu, corrector)
        inverse, cross = larger(inverse, step), cross + product
        bounded = dv
        if lossless is not None:
            bounded = ld(b, j, DVH)
        step, product = bound_step(b, j, HIGH, -bounded, smu, corrector)
        inverse, cross = larger(inverse, step), cross + product
        p, q, l = ld(b, j, P), ld(b, j, Q), ld(b, j, L)
        step, product = cone_step(b, j, FLOW, p, q, l, v_a, dp, dq, dl, dv_a, corrector)
        inverse, cross = larger(inverse, step), cross + product
        if tree.rated[j]:
            step, product = bound_step(b, j, RATING, -dl, smu, corrector)
            inverse, cross = larger(inverse, step), cross + product
            if lossless is not None:
                p, q, l = ld(b, j, PH), ld(b, j, QH), ld(b, j, L_MAX)
                step, product = cone_step(b, j, FLOW_HAT, p, q, l, v_a, dp_h, dq_h, 0.0 * dp_h, dv_a, corrector)
                inverse, cross = larger(inverse, step), cross + product
    return inverse, cross


@in_place
def move(w, tree, lossless, alpha):
    """Take the step; gap, cost, and the largest residual of the linear constraints at the new point."""
    b, d = w.bus, w.device
    n = tree.parent.shape[0]
    gap, cost, worst = 0.0 * alpha, 0.0 * alpha, 0.0 * alpha
    for j in range(n):
        f_p, f_q = -ld(b, j, P_LOAD), -ld(b, j, Q_LOAD)
        for i in range(tree.first[j], tree.first[j + 1]):
            u = ld(d, i, U) + alpha * ld(d, i, DU)
            st(d, i, U, u)
            gap = gap + move_bound(d, i, AT_LEAST, alpha, u - ld(d, i, LEAST))
            gap = gap + move_bound(d, i, AT_MOST, alpha, ld(d, i, MOST) - u)
            cost = cost + (0.5 * ld(d, i, A) * u + ld(d, i, B)) * u
            f_p, f_q = f_p + ld(d, i, CP) * u, f_q + ld(d, i, CQ) * u
        st(b, j, LP, ld(b, j, LP) + alpha * (ld(b, j, NP) - ld(b, j, LP)))
        st(b, j, LQ, ld(b, j, LQ) + alpha * (ld(b, j, NQ) - ld(b, j, LQ)))
        st(b, j, FP, f_p)
        st(b, j, FQ, f_q)
        if lossless is not None:
            st(b, j, HP, ld(b, j, HP) + alpha * (ld(b, j, NHP) - ld(b, j, HP)))
            st(b, j, HQ, ld(b, j, HQ) + alpha * (ld(b, j, NHQ) - ld(b, j, HQ)))
            st(b, j, GP, f_p)
            st(b, j, GQ, f_q)
        if j == 0:
            continue
        a = tree.parent[j]
        v_a = ld(b, a, V)
        p = ld(b, j, P) + alpha * ld(b, j, DP)
        q = ld(b, j, Q) + alpha * ld(b, j, DQ)
        l = ld(b, j, L) + alpha * ld(b, j, DL)
        v = ld(b, j, V) + alpha * ld(b, j, DV)
        st(b, j, P, p)
        st(b, j, Q, q)
        st(b, j, L, l)
        st(b, j, V, v)
        gap = gap + move_cone(b, j, FLOW, alpha, p, q, l, v_a)
        gap = gap + move_bound(b, j, LOW, alpha, v - ld(b, j, V_MIN))
        if tree.rated[j]:
            gap = gap + move_bound(b, j, RATING, alpha, ld(b, j, L_MAX) - l)
        if lossless is not None:
            p = ld(b, j, PH) + alpha * ld(b, j, DPH)
            q = ld(b, j, QH) + alpha * ld(b, j, DQH)
            v = ld(b, j, VH) + alpha * ld(b, j, DVH)
            st(b, j, PH, p)
            st(b, j, QH, q)
            st(b, j, VH, v)
            if tree.rated[j]:
                gap = gap + move_cone(b, j, FLOW_HAT, alpha, p, q, ld(b, j, L_MAX), v_a)
        gap = gap + move_bound(b, j, HIGH, alpha, ld(b, j, V_MAX) - v)
        residuals(b, tree, j, lossless)
    for j in range(n):
        worst = largest(worst, ld(b, j, FP), ld(b, j, FQ))
        if j > 0:
            worst = largest(worst, ld(b, j, FV), 0.0 * worst)
            if lossless is not None:
                worst = largest(largest(worst, ld(b, j, GP), ld(b, j, GQ)), ld(b, j, GV), 0.0 * worst)
    return gap, cost, worst


@in_place
def largest(found, x, y):
    """The largest magnitude."""
    return larger(larger(larger(larger(found, x), -x), y), -y)


@in_place
def residuals(b, tree, j, lossless):
    """What line j adds to the balances of its ends, and its voltage drop."""
    a = tree.parent[j]
    r, x = tree.r[j], tree.x[j]
    p, q, l = ld(b, j, P), ld(b, j, Q), ld(b, j, L)
    st(b, j, FP, ld(b, j, FP) + p - r * l)
    st(b, j, FQ, ld(b, j, FQ) + q - x * l)
    st(b, a, FP, ld(b, a, FP) - p)
    st(b, a, FQ, ld(b, a, FQ) - q)
    st(b, j, FV, ld(b, a, V) - 2.0 * (r * p + x * q) + (r * r + x * x) * l - ld(b, j, V))
    if lossless is not None:
        p, q = ld(b, j, PH), ld(b, j, QH)
        st(b, j, GP, ld(b, j, GP) + p)
        st(b, j, GQ, ld(b, j, GQ) + q)
        st(b, a, GP, ld(b, a, GP) - p)
        st(b, a, GQ, ld(b, a, GQ) - q)
        st(b, j, GV, ld(b, a, VH) - 2.0 * (r * p + x * q) - ld(b, j, VH))


# --- Problems in and out of a workspace.


@in_place
def load(w, tree, given, row, lane, lossless):
    """Put a problem and its starting point into a lane: inside every bound and cone, balances not yet met."""
    b, d, t = w.bus, w.device, w.start
    n = tree.parent.shape[0]
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    constant, gap = 0.0, 0.0
    for j in range(n):
        p_load = given.bus[row, LOAD_KW, j] / s
        q_load = given.bus[row, LOAD_KVAR, j] / s - tree.capacitor_pu[j]
        p_flex, q_flex = 0.0, 0.0
        for i in range(tree.first[j], tree.first[j + 1]):
            o = tree.origin[i]
            if tree.reactive[i]:
                lo, hi = given.device[row, Q_MIN, o] / s, given.device[row, Q_MAX, o] / s
                a, c, cp, cq = 0.0, 0.0, 0.0, 1.0
            else:
                lo, hi = given.device[row, P_MIN, o] / s, given.device[row, P_MAX, o] / s
                linear, quadratic = given.device[row, LINEAR, o], given.device[row, QUADRATIC, o]
                reference = given.device[row, REFERENCE, o]
                a, c = 2.0 * quadratic * s / money, (linear - 2.0 * quadratic * reference) / money
                constant += (quadratic * reference - linear) * reference / (money * s)
                cp, cq = 1.0, given.device[row, TAN_PHI, o]
            if hi - lo < NARROWEST_PU:
                # Nothing to decide: a part of the load, and a stand-in that touches nothing.
                p_load, q_load = p_load - cp * lo, q_load - cq * lo
                constant += (0.5 * a * lo + c) * lo
                lo, hi, a, c, cp, cq = -1.0, 1.0, 1.0, 0.0, 0.0, 0.0
            u = 0.5 * (lo + hi)
            # Towards the side that the price favours.
            saving = FIRST_PRICE * cp - a * u - c
            u += LEAN * (hi - lo) * saving / (1.0 + abs(saving))
            p_flex, q_flex = p_flex + cp * u, q_flex + cq * u
            put(d, i, U, lane, u)
            put(d, i, LEAST, lane, lo)
            put(d, i, MOST, lane, hi)
            put(d, i, A, lane, a)
            put(d, i, B, lane, c)
            put(d, i, CP, lane, cp)
            put(d, i, CQ, lane, cq)
            put(d, i, AT_LEAST, lane, FIRST_MU_OF_INJECTION / (u - lo))
            put(d, i, AT_MOST, lane, FIRST_MU_OF_INJECTION / (hi - u))
            gap += 2.0 * FIRST_MU_OF_INJECTION
        put(b, j, P_LOAD, lane, p_load)
        put(b, j, Q_LOAD, lane, q_load)
        put(b, j, LP, lane, FIRST_PRICE)
        put(b, j, LQ, lane, 0.0)
        t[DRAWN_P, j], t[DRAWN_Q, j] = p_load - p_flex, q_load - q_flex
        for f in (LEFT_P, LEFT_HAT_P):
            t[f, j], t[f + 1, j] = p_flex - p_load, q_flex - q_load
        if lossless is not None:
            put(b, j, HP, lane, 0.0)
            put(b, j, HQ, lane, 0.0)
    for j in range(n - 1, 0, -1):
        t[DRAWN_P, tree.parent[j]] += t[DRAWN_P, j]
        t[DRAWN_Q, tree.parent[j]] += t[DRAWN_Q, j]
    t[START_V, 0] = given.source[row] ** 2
    put(b, 0, V, lane, t[START_V, 0])
    if lossless is not None:
        put(b, 0, VH, lane, t[START_V, 0])
    for j in range(1, n):
        above, r, x = tree.parent[j], tree.r[j], tree.x[j]
        v_a, p, q = t[START_V, above], t[DRAWN_P, j], t[DRAWN_Q, j]
        lo, hi = given.bus[row, V_MIN_PU, j] ** 2, given.bus[row, V_MAX_PU, j] ** 2
        room = INSIDE_BAND * (hi - lo)
        v = max(lo + room, min(hi - room, v_a - 2.0 * (r * p + x * q)))
        t[START_V, j] = v
        put(b, j, V, lane, v)
        put(b, j, V_MIN, lane, lo)
        put(b, j, V_MAX, lane, hi)
        put(b, j, LOW, lane, FIRST_MU / (v - lo))
        put(b, j, HIGH, lane, FIRST_MU / (hi - v))
        gap += 2.0 * FIRST_MU
        if lossless is not None:
            put(b, j, VH, lane, v)
        l = 5.0 * (p * p + q * q) / v_a + FIRST_L
        rating = min(given.bus[row, I_MAX_A, j] / tree.base_a[j], LARGEST_RATING_PU)
        l_max = rating * rating
        if tree.rated[j]:
            l = min(l, 0.6 * l_max)
            put(b, j, L_MAX, lane, l_max)
            put(b, j, RATING, lane, FIRST_MU / (l_max - l))
            gap += FIRST_MU
        shrink = inside(p, q, l, v_a)
        p_in, q_in = p * shrink, q * shrink
        put(b, j, P, lane, p_in)
        put(b, j, Q, lane, q_in)
        put(b, j, L, lane, l)
        gap += start_cone(b, j, FLOW, lane, p_in, q_in, l, v_a)
        balance(t, LEFT_P, j, above, p_in, q_in, r * l, x * l)
        put(b, j, FV, lane, v_a - 2.0 * (r * p_in + x * q_in) + (r * r + x * x) * l - v)
        if lossless is not None:
            if tree.rated[j]:
                shrink = inside(p, q, l_max, v_a)
                p, q = p * shrink, q * shrink
                gap += start_cone(b, j, FLOW_HAT, lane, p, q, l_max, v_a)
            put(b, j, PH, lane, p)
            put(b, j, QH, lane, q)
            balance(t, LEFT_HAT_P, j, above, p, q, 0.0, 0.0)
            put(b, j, GV, lane, v_a - 2.0 * (r * p + x * q) - v)
    for j in range(n):
        put(b, j, FP, lane, t[LEFT_P, j])
        put(b, j, FQ, lane, t[LEFT_P + 1, j])
        if lossless is not None:
            put(b, j, GP, lane, t[LEFT_HAT_P, j])
            put(b, j, GQ, lane, t[LEFT_HAT_P + 1, j])
    put(b, n, GAP, lane, gap)
    put(b, n, CONSTANT, lane, constant)
    put(b, n, DUAL_LEFT, lane, 1.0)
    put(b, n, CENTRING, lane, 0.0)
    put(b, n, COST, lane, 0.0)
    put(b, n, INFEASIBLE, lane, 1.0)


@in_place
def inside(p, q, l, v):
    """The factor that brings a flow well into its cone."""
    most = 0.5 * l * v
    return 1.0 if p * p + q * q <= most else np.sqrt(most / (p * p + q * q))


@in_place
def start_cone(b, j, c, lane, p, q, l, v):
    """Put the multiplier on the central path; its share of the gap."""
    by_det = FIRST_MU / (2.0 * (v * l - p * p - q * q))
    put(b, j, c + ZP, lane, -2.0 * p * by_det)
    put(b, j, c + ZQ, lane, -2.0 * q * by_det)
    put(b, j, c + ZL, lane, v * by_det)
    put(b, j, c + ZV, lane, l * by_det)
    return FIRST_MU


@in_place
def balance(t, f, j, above, p, q, p_lost, q_lost):
    """What line j adds to the balances of its ends."""
    t[f, j] += p - p_lost
    t[f + 1, j] += q - q_lost
    t[f, above] -= p
    t[f + 1, above] -= q


@in_place
def unload(w, point, row, lane, lossless):
    """Copy the point of a lane to its row."""
    for j in range(w.bus.shape[0] - 1):
        for f in range(len(OF_BUS)):
            point.bus[row, f, j] = get(w.bus, j, OF_BUS[f], lane)
        if lossless is not None:
            for f in range(len(OF_BUS_LOSSLESS)):
                point.bus[row, len(OF_BUS) + f, j] = get(w.bus, j, OF_BUS_LOSSLESS[f], lane)
    for i in range(w.device.shape[0]):
        for f in range(len(OF_DEVICE)):
            point.device[row, f, i] = get(w.device, i, OF_DEVICE[f], lane)


# --- How good an answer is.


@in_place
def judge(w, tree, given, point, at, answer, row, lossless):
    """Residuals of all optimality conditions of a row's problem at a point, and the answer in kW and currency.

    Without lossless flows in the problem it also says by how much they would pass their limits.
    """
    n = tree.parent.shape[0]
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    t = w.start
    f_p, f_q, g_p, g_q, v_free = t[LEFT_P], t[LEFT_Q], t[LEFT_HAT_P], t[LEFT_HAT_Q], t[START_V]
    b, d = point.bus[at], point.device[at]
    primal, dual, gap, change, cost, excess, ray = 0.0, 0.0, 0.0, 0.0, 0.0, -np.inf, 0.0
    value, missed = 0.0, 0.0
    # Injections: within bounds, at a marginal cost that is the price.
    for j in range(n):
        f_p[j] = -given.bus[row, LOAD_KW, j] / s
        f_q[j] = tree.capacitor_pu[j] - given.bus[row, LOAD_KVAR, j] / s
        price_p, price_q = b[LP, j] + b[IN_HP, j], b[LQ, j] + b[IN_HQ, j]
        for i in range(tree.first[j], tree.first[j + 1]):
            o = tree.origin[i]
            if tree.reactive[i]:
                lo, hi = given.device[row, Q_MIN, o] / s, given.device[row, Q_MAX, o] / s
                marginal, cp, cq = 0.0, 0.0, 1.0
            else:
                lo, hi = given.device[row, P_MIN, o] / s, given.device[row, P_MAX, o] / s
                cp, cq = 1.0, given.device[row, TAN_PHI, o]
            is_fixed = hi - lo < NARROWEST_PU
            u = lo if is_fixed else d[U, i]
            if tree.reactive[i]:
                answer.device[1, row, o] += u * s
            else:
                away = u * s - given.device[row, REFERENCE, o]
                linear, quadratic = given.device[row, LINEAR, o], given.device[row, QUADRATIC, o]
                marginal = (linear + 2.0 * quadratic * away) / money
                cost += (linear + quadratic * away) * away
                answer.device[0, row, o] = u * s
                answer.device[1, row, o] = cq * u * s
            f_p[j] += cp * u
            f_q[j] += cq * u
            if not is_fixed:
                at_least, at_most = d[IN_LEAST, i], d[IN_MOST, i]
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
        b[IN_DROP, j], b[IN_DROP_HAT, j] = 0.0, 0.0
    # Multipliers of the voltage drops, from the leaves; flows as the injections make them without losses.
    for j in range(n - 1, 0, -1):
        a = tree.parent[j]
        b[IN_DROP, j] += b[IN_LOW, j]
        if lossless is not None:
            b[IN_DROP_HAT, j] -= b[IN_HIGH, j]
            b[IN_DROP_HAT, a] += b[IN_DROP_HAT, j]
        else:
            b[IN_DROP, j] -= b[IN_HIGH, j]
        b[IN_PH, j], b[IN_QH, j] = -g_p[j], -g_q[j]
        g_p[a] += g_p[j]
        g_q[a] += g_q[j]
        b[IN_DROP, a] += b[IN_DROP, j] + b[IN_CONE + 3, j] + b[IN_CONE_HAT + 3, j]
    # Lines: balances, voltages, cones and ratings.
    largest = 1.0
    v_free[0] = b[V, 0]
    for j in range(n):
        largest = max(largest, abs(b[LP, j] + b[IN_HP, j]), abs(b[LQ, j] + b[IN_HQ, j]))
        answer.bus[4, row, j] = (b[LP, j] + b[IN_HP, j]) * money
        answer.bus[5, row, j] = (b[LQ, j] + b[IN_HQ, j]) * money
        answer.bus[3, row, j] = np.sqrt(max(b[V, j], 0.0))
        if j == 0:
            continue
        a = tree.parent[j]
        r, x = tree.r[j], tree.x[j]
        z2 = r * r + x * x
        p, q, l, v, v_a = b[P, j], b[Q, j], b[L, j], b[V, j], b[V, a]
        v_lo, v_hi = given.bus[row, V_MIN_PU, j] ** 2, given.bus[row, V_MAX_PU, j] ** 2
        f_p[j] += p - r * l
        f_q[j] += q - x * l
        f_p[a] -= p
        f_q[a] -= q
        f_v = v_a - 2.0 * (r * p + x * q) + z2 * l - v
        value -= b[IN_DROP, j] * f_v
        missed += abs(b[IN_DROP, j] * f_v)
        primal = max(primal, abs(f_v), v_lo - v, p * p + q * q - v_a * l)
        of_p = b[LP, a] - b[LP, j] + 2.0 * r * b[IN_DROP, j] - b[IN_CONE, j]
        of_q = b[LQ, a] - b[LQ, j] + 2.0 * x * b[IN_DROP, j] - b[IN_CONE + 1, j]
        of_l = r * b[LP, j] + x * b[LQ, j] - z2 * b[IN_DROP, j] - b[IN_CONE + 2, j]
        gap += b[IN_CONE, j] * p + b[IN_CONE + 1, j] * q + b[IN_CONE + 2, j] * l + b[IN_CONE + 3, j] * v_a
        gap += b[IN_LOW, j] * (v - v_lo)
        p_hat, q_hat = b[IN_PH, j], b[IN_QH, j]
        v_free[j] = v_free[a] - 2.0 * (r * p_hat + x * q_hat)
        l_max = np.inf
        if tree.rated[j]:
            l_max = min(given.bus[row, I_MAX_A, j] / tree.base_a[j], LARGEST_RATING_PU) ** 2
            of_l += b[IN_RATING, j]
            gap += b[IN_RATING, j] * (l_max - l)
            primal = max(primal, l - l_max)
        # What a residual could save, at most: a line with hardly any resistance lets much current through for nothing.
        gap += abs(of_l) * l + abs(of_p * p) + abs(of_q * q)
        worst = max(abs(of_p), abs(of_q), abs(of_l))
        dual, ray = max(dual, worst), max(ray, worst)
        if lossless is not None:
            primal = max(primal, v_free[j] - v_hi)
            of_p = b[IN_HP, a] - b[IN_HP, j] + 2.0 * r * b[IN_DROP_HAT, j] - b[IN_CONE_HAT, j]
            of_q = b[IN_HQ, a] - b[IN_HQ, j] + 2.0 * x * b[IN_DROP_HAT, j] - b[IN_CONE_HAT + 1, j]
            gap += abs(of_p * p_hat) + abs(of_q * q_hat)
            worst = max(abs(of_p), abs(of_q))
            dual, ray = max(dual, worst), max(ray, worst)
            # Of flows made anew from the injections: rounding leaves more here than elsewhere.
            room = b[IN_HIGH, j] * (v_hi - v_free[j])
            value -= room
            missed += abs(room)
            if tree.rated[j]:
                room = b[IN_CONE_HAT, j] * p_hat + b[IN_CONE_HAT + 1, j] * q_hat
                room += b[IN_CONE_HAT + 2, j] * l_max + b[IN_CONE_HAT + 3, j] * v_a
                value -= room
                missed += abs(room)
                primal = max(primal, p_hat * p_hat + q_hat * q_hat - l_max * v_a)
        else:
            excess = max(excess, v_free[j] - v_hi)
            if tree.rated[j]:
                excess = max(excess, p_hat * p_hat + q_hat * q_hat - l_max * v_a)
            primal = max(primal, v - v_hi)
            gap += b[IN_HIGH, j] * (v_hi - v)
        answer.bus[0, row, j], answer.bus[1, row, j], answer.bus[2, row, j] = p * s, q * s, l
        answer.bus[6, row, j] = b[IN_LOW, j] * money * s
        answer.bus[7, row, j] = b[IN_HIGH, j] * money * s
        answer.bus[8, row, j] = b[IN_RATING, j] * money * s
        # Of Ph^2 + Qh^2 - l_max v <= 0, from the cone's multiplier along v.
        answer.bus[9, row, j] = b[IN_CONE_HAT + 3, j] / l_max * money * s
    for j in range(n):
        value -= b[LP, j] * f_p[j] + b[LQ, j] * f_q[j]
        missed += abs(b[LP, j] * f_p[j]) + abs(b[LQ, j] * f_q[j])
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
    is_infeasible = not is_optimal and value > REACH_PU * (n + len(d[U])) * ray
    answer.status[row] = OPTIMAL if is_optimal else INFEASIBLE_PROBLEM if is_infeasible else INACCURATE
    answer.row[FOUND_PRIMAL, row], answer.row[FOUND_DUAL, row], answer.row[FOUND_GAP, row] = (
        primal,
        dual / largest,
        gap,
    )
    answer.row[FOUND_EXCESS, row] = excess if is_optimal else np.inf
    answer.row[FOUND_COST, row] = cost
    if not is_optimal:
        answer.device[:, row] = 0.0
        answer.bus[:, row] = 0.0
        answer.row[FOUND_COST, row] = 0.0


# --- The solver.


@in_place
def iterate(w, tree, settings, lossless):
    """One step towards the optimum: predict, choose how much to centre, correct, move."""
    b = w.bus
    n = tree.parent.shape[0]
    backward(w, tree, settings, lossless, None)
    inverse, cross = forward(w, tree, lossless, None)
    gap = ld(b, n, GAP)
    step = 1.0 / larger(inverse, 1.0)
    left = larger(((1.0 - step) * gap + step * step * cross) / gap, 0.0)
    st(b, n, CENTRING, left * left * left * gap * (1.0 / n_complementary(tree, lossless)))
    backward(w, tree, settings, lossless, 1)
    inverse, cross = forward(w, tree, lossless, 1)
    short = -larger(-larger(SHORTER * left, settings.least_left), -MOST_LEFT)
    alpha = 1.0 / larger(inverse / (1.0 - short), 1.0)
    gap, cost, infeasible = move(w, tree, lossless, alpha)
    st(b, n, GAP, gap)
    st(b, n, COST, cost)
    st(b, n, INFEASIBLE, infeasible)
    st(b, n, DUAL_LEFT, ld(b, n, DUAL_LEFT) * (1.0 - alpha))


@in_place
def n_complementary(tree, lossless):
    """Number of bounds and cones."""
    n = tree.parent.shape[0]
    return 2 * tree.origin.shape[0] + 3 * (n - 1) + tree.rated.sum() * in_both(lossless, 1, 2)


@compiled
def solve(w, tree, given, point, rows, lossless, settings, answer):
    """Solve and judge the problems of `rows`, lane by lane: a lane that has converged takes the next problem.

    Rounding aside, lanes never touch each other, so an answer does not depend on its neighbours.
    """
    b = w.bus
    n = tree.parent.shape[0]
    lanes = n_lanes(b)
    row_of = np.full(lanes, -1)
    count, last_infeasible, tolerance = np.zeros(lanes, np.int64), np.zeros(lanes), np.full(lanes, settings.tolerance)
    taken = 0
    for lane in range(lanes):
        load(w, tree, given, rows[min(taken, len(rows) - 1)], lane, lossless)
        last_infeasible[lane] = np.inf
        if taken < len(rows):
            row_of[lane] = rows[taken]
            taken += 1
    active = taken
    while active > 0:
        iterate(w, tree, settings, lossless)
        for lane in range(lanes):
            row = row_of[lane]
            if row < 0:
                continue
            count[lane] += 1
            gap, infeasible = get(b, n, GAP, lane), get(b, n, INFEASIBLE, lane)
            cost = get(b, n, COST, lane) + get(b, n, CONSTANT, lane)
            # Where rounding stops the balances short of the tolerance, that is as good as it gets.
            is_feasible = infeasible <= 10.0 * tolerance[lane] or 2.0 * infeasible > last_infeasible[lane]
            last_infeasible[lane] = infeasible
            converged = (
                gap <= tolerance[lane] * max(1.0, abs(cost))
                and get(b, n, DUAL_LEFT, lane) <= tolerance[lane]
                and is_feasible
            )
            if not converged and count[lane] < settings.most_iterations and gap < HOPELESS_GAP:
                continue
            at = row if point.is_lossless.shape[0] > 1 else 0
            unload(w, point, at, lane, lossless)
            point.is_lossless[at] = in_both(lossless, False, True)
            judge(w, tree, given, point, at, answer, row, lossless)
            answer.iterations[row] = count[lane]
            if converged and answer.status[row] == INACCURATE and tolerance[lane] > LEAST_TOLERANCE:
                tolerance[lane] *= STRICTER
            elif taken < len(rows):
                load(w, tree, given, rows[taken], lane, lossless)
                row_of[lane], count[lane], last_infeasible[lane] = rows[taken], 0, np.inf
                tolerance[lane] = settings.tolerance
                taken += 1
            else:
                row_of[lane] = -1
                active -= 1


# --- How the optimum moves.


@compiled
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
            gradient.source[row] += loss.bus[OF_VOLTAGE, row, 0]
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
        for f in range(len(OF_BUS)):
            put(b, j, OF_BUS[f], lane, point.bus[row, f, j])
        if lossless is not None:
            for f in range(len(OF_BUS_LOSSLESS)):
                put(b, j, OF_BUS_LOSSLESS[f], lane, point.bus[row, len(OF_BUS) + f, j])
    for i in range(tree.origin.shape[0]):
        for f in range(len(OF_DEVICE)):
            put(w.device, i, OF_DEVICE[f], lane, point.device[row, f, i])
    for j in range(1, n):
        v_a = get(b, tree.parent[j], V, lane)
        align_cone(b, j, FLOW, lane, get(b, j, P, lane), get(b, j, Q, lane), get(b, j, L, lane), v_a)
        if lossless is not None and tree.rated[j]:
            p, q, l = get(b, j, PH, lane), get(b, j, QH, lane), get(b, j, L_MAX, lane)
            align_cone(b, j, FLOW_HAT, lane, p, q, l, v_a)


@in_place
def align_cone(a, j, c, lane, p, q, l, v):
    """Replace the multiplier by its part along (-2 P, -2 Q, v, l), which makes the scaling the true curvature."""
    z_p, z_q, z_l, z_v = get(a, j, c, lane), get(a, j, c + 1, lane), get(a, j, c + 2, lane), get(a, j, c + 3, lane)
    along = (v * z_l + l * z_v - 2.0 * (p * z_p + q * z_q)) / (v * v + l * l + 4.0 * (p * p + q * q))
    put(a, j, c + ZP, lane, -2.0 * p * along)
    put(a, j, c + ZQ, lane, -2.0 * q * along)
    put(a, j, c + ZL, lane, v * along)
    put(a, j, c + ZV, lane, l * along)


@in_place
def put_seed(w, tree, given, loss, row, lane, lossless):
    """Put the loss's gradient where the corrector looks for second-order terms and residuals."""
    b, d = w.bus, w.device
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    for i in range(tree.origin.shape[0]):
        o = tree.origin[i]
        force = s * loss.device[OF_Q, row, o]
        if not tree.reactive[i]:
            force = s * loss.device[OF_P, row, o] + given.device[row, TAN_PHI, o] * force
        put(d, i, FORCE, lane, force)
        put(d, i, AT_LEAST + K, lane, 0.0)
        put(d, i, AT_MOST + K, lane, 0.0)
    for j in range(tree.parent.shape[0]):
        voltage = np.sqrt(max(get(b, j, V, lane), 1e-12))
        of_price, of_reactive_price = money * loss.bus[OF_PRICE, row, j], money * loss.bus[OF_REACTIVE_PRICE, row, j]
        put(b, j, FLOW + KP, lane, s * loss.bus[OF_FLOW, row, j])
        put(b, j, FLOW + KQ, lane, s * loss.bus[OF_REACTIVE_FLOW, row, j])
        put(b, j, FLOW + KL, lane, loss.bus[OF_CURRENT, row, j])
        put(b, j, LOW + K, lane, -0.5 * loss.bus[OF_VOLTAGE, row, j] / voltage)
        put(b, j, FP, lane, of_price)
        put(b, j, FQ, lane, of_reactive_price)
        for f in (FLOW + KV, HIGH + K, RATING + K, FV):
            put(b, j, f, lane, 0.0)
        if lossless is not None:
            put(b, j, GP, lane, of_price)
            put(b, j, GQ, lane, of_reactive_price)
            for f in (GV, FLOW_HAT + KP, FLOW_HAT + KQ, FLOW_HAT + KL, FLOW_HAT + KV):
                put(b, j, f, lane, 0.0)


@in_place
def worth_of_price(w, j, lane, lossless):
    """What a mismatch of the active and the reactive balance of a bus is worth."""
    active, reactive = get(w.bus, j, NP, lane), get(w.bus, j, NQ, lane)
    if lossless is not None:
        active += get(w.bus, j, NHP, lane)
        reactive += get(w.bus, j, NHQ, lane)
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
        of[LOAD_KW, row, j], of[LOAD_KVAR, row, j] = -price / tree.base_kva, -reactive_price / tree.base_kva
        total += price + reactive_price
        if j == 0:
            continue
        v, dv = get(b, j, V, lane), get(b, j, DV, lane)
        low = get(b, j, LOW, lane) / (v - get(b, j, V_MIN, lane)) * dv
        if lossless is not None:
            v, dv = get(b, j, VH, lane), get(b, j, DVH, lane)
        high = get(b, j, HIGH, lane) / (get(b, j, V_MAX, lane) - v) * dv
        of[V_MIN_PU, row, j] = 2.0 * given.bus[row, V_MIN_PU, j] * low
        of[V_MAX_PU, row, j] = 2.0 * given.bus[row, V_MAX_PU, j] * high
        total += low + high
        rating = given.bus[row, I_MAX_A, j] / tree.base_a[j]
        if tree.rated[j] and rating < LARGEST_RATING_PU:
            l_max = get(b, j, L_MAX, lane)
            worth = get(b, j, RATING, lane) / (l_max - get(b, j, L, lane)) * get(b, j, DL, lane)
            if lossless is not None:
                # The cone of lossless flows holds the rating: its curvature couples the two.
                p, q, dv_a = get(b, j, PH, lane), get(b, j, QH, lane), get(b, tree.parent[j], DV, lane)
                v_a = get(b, tree.parent[j], V, lane)
                along = l_max * dv_a - 2.0 * (p * get(b, j, DPH, lane) + q * get(b, j, DQH, lane))
                by_det = v_a / (v_a * l_max - p * p - q * q)
                worth -= get(b, j, FLOW_HAT + ZL, lane) / v_a * (by_det * along - dv_a)
            of[I_MAX_A, row, j] = 2.0 * rating / tree.base_a[j] * worth
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
        lq = get(b, j, LQ, lane)
        if lossless is not None:
            lq += get(b, j, HQ, lane)
        for i in range(tree.first[j], tree.first[j + 1]):
            o = tree.origin[i]
            tan_phi, of_q = given.device[row, TAN_PHI, o], loss.device[OF_Q, row, o]
            first, last = (Q_MIN, Q_MAX) if tree.reactive[i] else (P_MIN, P_MAX)
            lo, hi = given.device[row, first, o] / s, given.device[row, last, o] / s
            u, du = get(d, i, U, lane), get(d, i, DU, lane)
            if hi - lo < NARROWEST_PU:
                # Fixed: to move it moves the balances and the answer itself; half by either bound.
                u, du = lo, 0.0
                directly = reactive_price / s + of_q
                if not tree.reactive[i]:
                    directly = price / s + loss.device[OF_P, row, o] + tan_phi * directly
                of_least, of_most = 0.5 * directly, 0.5 * directly
            else:
                of_least = get(d, i, AT_LEAST, lane) / (u - lo) * du / s
                of_most = get(d, i, AT_MOST, lane) / (hi - u) * du / s
            of[first, row, o], of[last, row, o] = of_least, of_most
            total += of_least + of_most + du
            if not tree.reactive[i]:
                away = s * u - given.device[row, REFERENCE, o]
                of[LINEAR, row, o] = -du / money
                of[QUADRATIC, row, o] = -2.0 * away * du / money
                of[REFERENCE, row, o] = 2.0 * given.device[row, QUADRATIC, o] * du / money
                of[TAN_PHI, row, o] = lq * du + u * reactive_price + s * u * of_q
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
            worth -= get(k, 0, v * p + n_v + c, lane) * get(b, 0, NP + c, lane)
    return worth
