"""The default solver: an interior-point method that factorises along the tree, for one problem or for a batch.

`kernel.py` has the iteration. Here problems are laid out for it, and its answers are judged by the residuals of all
optimality conditions, computed anew from what is returned, and translated back into kW and currency.

The upper limit on lossless voltages costs time and seldom binds. So every problem is first solved with the limit on the
true voltage, which is the weaker one: where the lossless voltages and flows of that answer keep their limits too, it is
the answer. The other problems are solved again with all constraints.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from peergrid.grid.compiled import compiled
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.kernel import (
    ALL_FIELDS,
    DEVICE_FIELDS,
    I_MAX_A,
    LANES,
    LARGEST_RATING_PU,
    LINEAR,
    LOAD_KVAR,
    LOAD_KW,
    NARROWEST_PU,
    P_MAX,
    P_MIN,
    PLAIN_FIELDS,
    Q_MAX,
    Q_MIN,
    QUADRATIC,
    REFERENCE,
    TAN_PHI,
    TYPICAL_PRICE_PER_KWH,
    V_MAX_PU,
    V_MIN_PU,
    Given,
    Point,
    Settings,
    Tree,
    Workspace,
    solve,
)
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, OpfStatus, UpperVoltage

# Tried in turn, on the problems that the attempt before left short of what is accepted.
ATTEMPTS = (
    Settings(tolerance=1e-9, most_iterations=60, proximal=1e-3, device_proximal=1e-4),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-4, device_proximal=1e-4),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-4, device_proximal=1e-6),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-2, device_proximal=1e-4),
)
# Eight problems side by side on more buses than this fall out of the processor's cache, and gain nothing.
MOST_BUSES_IN_LANES = 1500
REGISTER_BYTES = 64

# What an answer must keep to count as one: power and squared voltage in p.u.; prices relative to the largest; what
# another dispatch could save, relative to the cost.
PRIMAL_ACCEPTED, DUAL_ACCEPTED, GAP_ACCEPTED = 1e-7, 1e-6, 1e-8
# Flows, voltages and injections of a feasible point stay below this, in p.u.
REACH_PU = 10.0
# How far lossless voltages and flows may pass their limits before a problem is solved again with those limits.
LOSSLESS_SLACK = 1e-9

# Fields of `Point`, as the kernel reads them out, and the multipliers of the voltage drops, added here.
P, Q, L, V, LP, LQ, LOW, HIGH, RATING, CONE_P, CONE_Q, CONE_L, CONE_V = range(13)
PH, QH, VH, HP, HQ, HAT_P, HAT_Q, HAT_L, HAT_V, DROP, DROP_HAT = range(13, 24)
BUS_FIELDS = 24
U, AT_LEAST, AT_MOST = range(3)
ITERATIONS, GAP_LEFT, COST_PU, HAS_CONVERGED = range(4)
# What is found about an answer.
PRIMAL, DUAL, GAP, LOSSLESS_EXCESS, COST = range(5)
OPTIMAL, INFEASIBLE, INACCURATE = (int(status) for status in OpfStatus)

OF_DEVICE = ("p_kw", "q_kvar")
OF_BUS = ("flow_kw", "flow_kvar", "current_pu2", "voltage_pu", "price_per_kwh", "reactive_price_per_kvarh")
MULTIPLIERS = ("v_min_multiplier", "v_max_multiplier", "i_max_multiplier", "i_max_lossless_multiplier")


class InteriorPointOpf:
    """Solves optimal power flows of one shape: the same feeder, the same buses with flexible injections."""

    def __init__(
        self,
        feeder: Feeder,
        device_bus: Int[np.ndarray, " device"],
        has_free_q: Bool[np.ndarray, " device"],
        upper_voltage: UpperVoltage = UpperVoltage.LOSSLESS,
        threads: int = 1,
    ) -> None:
        """
        Args:
            device_bus: Bus of each flexible injection.
            has_free_q: Which of them have reactive power of their own, within bounds.
            threads: Among how many threads a batch is divided; answers don't depend on it.
        """
        self.feeder = feeder
        self.device_bus = device_bus
        self.has_free_q = has_free_q
        self.upper_voltage = upper_voltage
        self.threads = threads
        self._tree = _tree(feeder, device_bus, has_free_q)
        # By (in lanes, with lossless flows): a solve takes an idle workspace or makes one, so that none is shared.
        self._idle: dict[tuple[bool, bool], list[Workspace]] = {}

    def __reduce__(self) -> tuple[type[InteriorPointOpf], tuple[object, ...]]:
        # Workspaces are scratch, and stay behind.
        return type(self), (self.feeder, self.device_bus, self.has_free_q, self.upper_voltage, self.threads)

    def __call__(self, problem: OpfProblem) -> OpfSolution:
        """The optimum of every problem in the batch."""
        _, point, answer = self.solve(problem)
        batch = problem.load_kw.shape[:-1]
        n, n_device = self.feeder.n_bus, len(self.device_bus)

        def shaped(values: np.ndarray, *shape: int) -> np.ndarray:
            return values.reshape((*batch, *shape))

        return OpfSolution(
            **{name: shaped(answer.device[:, f], n_device) for f, name in enumerate(OF_DEVICE)},
            **{name: shaped(answer.bus[:, f], n) for f, name in enumerate((*OF_BUS, *MULTIPLIERS))},
            cost_per_hour=shaped(answer.row[:, COST]),
            status=shaped(answer.status),
            iterations=shaped(point.row[:, ITERATIONS].astype(int)),
        )

    def solve(self, problem: OpfProblem) -> tuple[Given, Point, Answer]:
        """The problems as the kernel reads them, their primal-dual points in p.u., and the answers."""
        given = _given(problem)
        n_row, n, n_device = len(given.source), self.feeder.n_bus, len(self.device_bus)
        point = Point(
            bus=np.zeros((n_row, BUS_FIELDS, n)),
            device=np.zeros((n_row, 3, len(self._tree.origin))),
            row=np.zeros((n_row, 4)),
        )
        answer = Answer(
            device=np.zeros((n_row, len(OF_DEVICE), n_device)),
            bus=np.zeros((n_row, len(OF_BUS) + len(MULTIPLIERS), n)),
            row=np.zeros((n_row, 5)),
            status=np.zeros(n_row, dtype=int),
        )
        in_lanes = n_row > 1 and n <= MOST_BUSES_IN_LANES
        lossless = self.upper_voltage is UpperVoltage.LOSSLESS
        self._attempt(given, point, answer, np.arange(n_row), in_lanes, with_lossless=False)
        if lossless:
            is_open = (answer.row[:, LOSSLESS_EXCESS] > LOSSLESS_SLACK) & (answer.status != INFEASIBLE)
            self._attempt(given, point, answer, np.flatnonzero(is_open), in_lanes, with_lossless=True)
        return given, point, answer

    def _attempt(
        self, given: Given, point: Point, answer: Answer, rows: np.ndarray, in_lanes: bool, with_lossless: bool
    ) -> None:
        """Solve the problems of `rows`, and those that come out inaccurate once more."""
        for settings in ATTEMPTS:
            if not len(rows):
                break
            self._run(given, point, rows, in_lanes, with_lossless, settings)
            judge(self._tree, given, point, answer, rows, with_lossless)
            rows = rows[answer.status[rows] == INACCURATE]

    def _run(
        self, given: Given, point: Point, rows: np.ndarray, in_lanes: bool, with_lossless: bool, settings: Settings
    ) -> None:
        """Run the kernel on `rows`, divided among the threads in advance."""
        flag = 1 if with_lossless else None

        def run(part: np.ndarray) -> None:
            idle = self._idle.setdefault((in_lanes, with_lossless), [])
            workspace = idle.pop() if idle else _workspace(self._tree, in_lanes, with_lossless)
            solve(workspace, self._tree, given, point, part, flag, settings)
            idle.append(workspace)

        parts = np.array_split(rows, min(self.threads, len(rows)))
        if len(parts) == 1:
            run(rows)
        else:
            # Made for this call alone, so that no thread is alive when the process forks.
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(run, parts))


class Answer(NamedTuple):
    """Answers, one per row, in the units of `OpfSolution`, and how good they are."""

    device: np.ndarray  # [row, field of OF_DEVICE, injection]
    bus: np.ndarray  # [row, field of OF_BUS and MULTIPLIERS, bus]
    row: np.ndarray  # [row, primal and dual residual, gap, excess of lossless limits, cost per hour]
    status: np.ndarray  # [row] OpfStatus


def _tree(feeder: Feeder, device_bus: Int[np.ndarray, " device"], has_free_q: Bool[np.ndarray, " device"]) -> Tree:
    devices, freed = np.arange(len(device_bus)), np.flatnonzero(has_free_q)
    at = np.concatenate([device_bus, device_bus[freed]])
    by_bus = np.argsort(at, kind="stable")
    rated = np.isfinite(feeder.i_max_a)
    rated[0] = False
    return Tree(
        parent=feeder.parent.astype(np.int64),
        r=feeder.r_pu.copy(),
        x=feeder.x_pu.copy(),
        rated=rated,
        capacitor_pu=feeder.capacitor_kvar / feeder.base_kva,
        base_a=feeder.base_a.copy(),
        base_kva=feeder.base_kva,
        first=np.searchsorted(at[by_bus], np.arange(feeder.n_bus + 1)).astype(np.int64),
        origin=np.concatenate([devices, freed])[by_bus].astype(np.int64),
        reactive=(by_bus >= len(devices)),
    )


def _given(problem: OpfProblem) -> Given:
    n = problem.load_kw.shape[-1]
    injections, n_row = problem.injections, problem.load_kw.size // n
    of_devices = (
        injections.p_min_kw,
        injections.p_max_kw,
        injections.linear_per_kwh,
        injections.quadratic_per_kw2h,
        injections.reference_kw,
        injections.tan_phi,
        injections.q_min_kvar,
        injections.q_max_kvar,
    )
    of_buses = (problem.load_kw, problem.load_kvar, problem.v_min_pu, problem.v_max_pu, problem.i_max_a)
    given = Given(
        device=np.empty((n_row, len(of_devices), len(injections.bus))),
        bus=np.empty((n_row, len(of_buses), n)),
        source=np.array(problem.v_source_pu, dtype=float).reshape(n_row),
    )
    for table, columns in ((given.device, of_devices), (given.bus, of_buses)):
        for f, column in enumerate(columns):
            table[:, f] = column.reshape(n_row, table.shape[-1])
    return given


def _workspace(tree: Tree, in_lanes: bool, with_lossless: bool) -> Workspace:
    n, lanes = len(tree.parent), (LANES,) if in_lanes else ()
    m, p = (9, 6) if with_lossless else (5, 3)

    def aligned(*shape: int) -> np.ndarray:
        size = int(np.prod((*shape, *lanes)))
        raw = np.zeros(size + REGISTER_BYTES // 8)
        start = -raw.ctypes.data % REGISTER_BYTES // 8
        return raw[start : start + size].reshape(*shape, *lanes)

    return Workspace(
        bus=aligned(n + 1, ALL_FIELDS if with_lossless else PLAIN_FIELDS),
        device=aligned(len(tree.origin), DEVICE_FIELDS),
        block=aligned(n, p * p + p),
        factor=aligned(n, m * (m + p) + m),
        solved=aligned(n, m),
    )


@compiled
def judge(tree, given, point, answer, rows, with_lossless):
    """Residuals of all optimality conditions at the points of `rows`, and the answers in kW and currency.

    Without lossless flows in the problem it also says by how much they would pass their limits.
    """
    n = tree.parent.shape[0]
    s, money = tree.base_kva, TYPICAL_PRICE_PER_KWH
    f_p, f_q, g_p, g_q, v_free = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for row in rows:
        b, d = point.bus[row], point.device[row]
        primal, dual, gap, cost, excess, ray, value = 0.0, 0.0, 0.0, 0.0, -np.inf, 0.0, 0.0
        # Injections: within bounds, at a marginal cost that is the price.
        for j in range(n):
            f_p[j] = -given.bus[row, LOAD_KW, j] / s
            f_q[j] = tree.capacitor_pu[j] - given.bus[row, LOAD_KVAR, j] / s
            price_p, price_q = b[LP, j] + b[HP, j], b[LQ, j] + b[HQ, j]
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
                    answer.device[row, 1, o] += u * s
                else:
                    away = u * s - given.device[row, REFERENCE, o]
                    linear, quadratic = given.device[row, LINEAR, o], given.device[row, QUADRATIC, o]
                    marginal = (linear + 2.0 * quadratic * away) / money
                    cost += (linear + quadratic * away) * away
                    answer.device[row, 0, o] = u * s
                    answer.device[row, 1, o] = cq * u * s
                f_p[j] += cp * u
                f_q[j] += cq * u
                if not is_fixed:
                    at_least, at_most = d[AT_LEAST, i], d[AT_MOST, i]
                    worth = cp * price_p + cq * price_q + at_least - at_most
                    dual, ray = max(dual, abs(marginal - worth)), max(ray, abs(worth))
                    gap += at_least * (u - lo) + at_most * (hi - u)
                    primal = max(primal, lo - u, u - hi)
            g_p[j], g_q[j] = f_p[j], f_q[j]
            b[DROP, j], b[DROP_HAT, j] = 0.0, 0.0
        # Multipliers of the voltage drops, from the leaves; flows as they were without losses.
        for j in range(n - 1, 0, -1):
            a = tree.parent[j]
            b[DROP, j] += b[LOW, j]
            if with_lossless:
                b[DROP_HAT, j] -= b[HIGH, j]
                b[DROP_HAT, a] += b[DROP_HAT, j]
            else:
                b[DROP, j] -= b[HIGH, j]
                b[PH, j], b[QH, j] = -g_p[j], -g_q[j]
                g_p[a] += g_p[j]
                g_q[a] += g_q[j]
            b[DROP, a] += b[DROP, j] + b[CONE_V, j] + b[HAT_V, j]
        # Lines: balances, voltages, cones and ratings.
        largest = 1.0
        v_free[0] = b[V, 0]
        for j in range(n):
            largest = max(largest, abs(b[LP, j] + b[HP, j]), abs(b[LQ, j] + b[HQ, j]))
            answer.bus[row, 4, j] = (b[LP, j] + b[HP, j]) * money
            answer.bus[row, 5, j] = (b[LQ, j] + b[HQ, j]) * money
            answer.bus[row, 3, j] = np.sqrt(max(b[V, j], 0.0))
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
            value -= b[DROP, j] * f_v
            primal = max(primal, abs(f_v), v_lo - v, p * p + q * q - v_a * l)
            of_p = b[LP, a] - b[LP, j] + 2.0 * r * b[DROP, j] - b[CONE_P, j]
            of_q = b[LQ, a] - b[LQ, j] + 2.0 * x * b[DROP, j] - b[CONE_Q, j]
            of_l = r * b[LP, j] + x * b[LQ, j] - z2 * b[DROP, j] - b[CONE_L, j]
            gap += b[CONE_P, j] * p + b[CONE_Q, j] * q + b[CONE_L, j] * l + b[CONE_V, j] * v_a
            gap += b[LOW, j] * (v - v_lo)
            p_hat, q_hat = b[PH, j], b[QH, j]
            l_max = np.inf
            if tree.rated[j]:
                l_max = min(given.bus[row, I_MAX_A, j] / tree.base_a[j], LARGEST_RATING_PU) ** 2
                of_l += b[RATING, j]
                gap += b[RATING, j] * (l_max - l)
                primal = max(primal, l - l_max)
            worst = max(abs(of_p), abs(of_q), abs(of_l))
            dual, ray = max(dual, worst), max(ray, worst)
            if with_lossless:
                v_free[j] = b[VH, j]
                g_p[j] += p_hat
                g_q[j] += q_hat
                g_p[a] -= p_hat
                g_q[a] -= q_hat
                f_v = v_free[a] - 2.0 * (r * p_hat + x * q_hat) - v_free[j]
                value -= b[DROP_HAT, j] * f_v
                primal = max(primal, abs(f_v), v_free[j] - v_hi)
                of_p = b[HP, a] - b[HP, j] + 2.0 * r * b[DROP_HAT, j] - b[HAT_P, j]
                of_q = b[HQ, a] - b[HQ, j] + 2.0 * x * b[DROP_HAT, j] - b[HAT_Q, j]
                worst = max(abs(of_p), abs(of_q))
                dual, ray = max(dual, worst), max(ray, worst)
                gap += b[HIGH, j] * (v_hi - v_free[j])
                if tree.rated[j]:
                    gap += b[HAT_P, j] * p_hat + b[HAT_Q, j] * q_hat + b[HAT_L, j] * l_max + b[HAT_V, j] * v_a
                    primal = max(primal, p_hat * p_hat + q_hat * q_hat - l_max * v_a)
            else:
                v_free[j] = v_free[a] - 2.0 * (r * p_hat + x * q_hat)
                excess = max(excess, v_free[j] - v_hi)
                if tree.rated[j]:
                    excess = max(excess, p_hat * p_hat + q_hat * q_hat - l_max * v_a)
                primal = max(primal, v - v_hi)
                gap += b[HIGH, j] * (v_hi - v)
            answer.bus[row, 0, j], answer.bus[row, 1, j], answer.bus[row, 2, j] = p * s, q * s, l
            answer.bus[row, 6, j] = b[LOW, j] * money * s
            answer.bus[row, 7, j] = b[HIGH, j] * money * s
            answer.bus[row, 8, j] = b[RATING, j] * money * s
            # Of Ph^2 + Qh^2 - l_max v <= 0, from the cone's multiplier along v.
            answer.bus[row, 9, j] = b[HAT_V, j] / l_max * money * s
        for j in range(n):
            value -= b[LP, j] * f_p[j] + b[LQ, j] * f_q[j]
            primal = max(primal, abs(f_p[j]), abs(f_q[j]))
            if with_lossless and j > 0:
                value -= b[HP, j] * g_p[j] + b[HQ, j] * g_q[j]
                primal = max(primal, abs(g_p[j]), abs(g_q[j]))
        value -= gap
        gap /= max(1.0, abs(cost) / (money * s))
        # Written so that NaN fails.
        is_optimal = primal <= PRIMAL_ACCEPTED and dual <= DUAL_ACCEPTED * largest and gap <= GAP_ACCEPTED
        # Multipliers alone, free of cost: with them the Lagrangian of a feasible point is not above zero, whatever the
        # point, so a value above it proves that there is none; unless what `ray` leaves open could make up for it.
        is_infeasible = not is_optimal and value > REACH_PU * (n + len(d[U])) * ray
        answer.status[row] = OPTIMAL if is_optimal else INFEASIBLE if is_infeasible else INACCURATE
        answer.row[row, PRIMAL], answer.row[row, DUAL], answer.row[row, GAP] = primal, dual / largest, gap
        answer.row[row, LOSSLESS_EXCESS] = excess if is_optimal else np.inf
        answer.row[row, COST] = cost
        if not is_optimal:
            answer.device[row] = 0.0
            answer.bus[row] = 0.0
            answer.row[row, COST] = 0.0
