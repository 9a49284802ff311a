"""The reference solver: the equations of problem.py written in CVXPY and solved by Clarabel. Anyone can read it."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int

from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, OpfStatus, UpperVoltage

# Objectives are divided by the cost of serving the feeder's nominal load at this price, which brings them near 1.
TYPICAL_PRICE_PER_KWH = 0.1
# Tried in turn. Rounding stops Clarabel short of the first in some percent of all solves, and it then returns a point
# past its best; asked for less it stops in time. The second figure is what is accepted where it stops short all the
# same.
TOLERANCES = ((1e-10, 1e-8), (1e-9, 1e-8), (1e-8, 1e-7), (1e-7, 1e-6))
# Infinite ratings stall the solver; this many times the current of the nominal load never binds.
LARGEST_RATING_PU = 100.0
MEASURES = ("gap_abs", "gap_rel", "feas")
STATUS = {
    cp.OPTIMAL: OpfStatus.OPTIMAL,
    cp.OPTIMAL_INACCURATE: OpfStatus.OPTIMAL,
    cp.INFEASIBLE: OpfStatus.INFEASIBLE,
    cp.INFEASIBLE_INACCURATE: OpfStatus.INFEASIBLE,
}


class ConicOpf:
    """Solves optimal power flows of one shape: the same feeder, the same buses with flexible injections.

    The program is compiled once; what changes from one interval to the next are its parameters.
    """

    def __init__(
        self,
        feeder: Feeder,
        device_bus: Int[np.ndarray, " device"],
        has_free_q: Bool[np.ndarray, " device"],
        upper_voltage: UpperVoltage = UpperVoltage.LOSSLESS,
    ) -> None:
        """
        Args:
            device_bus: Bus of each flexible injection.
            has_free_q: Which of them have reactive power of their own, within bounds.
        """
        self.feeder = feeder
        self.device_bus = device_bus
        self.has_free_q = has_free_q
        self.upper_voltage = upper_voltage
        n, n_device, n_free = feeder.n_bus, len(device_bus), int(has_free_q.sum())
        r, x = feeder.r_pu[1:], feeder.x_pu[1:]
        lines = np.arange(n - 1)
        feeds = sp.csr_array((np.ones(n - 1), (feeder.parent[1:], lines)), shape=(n, n - 1))  # sum over children
        fed = sp.csr_array((np.ones(n - 1), (lines + 1, lines)), shape=(n, n - 1))  # the line into a bus
        at_bus = sp.csr_array((np.ones(n_device), (device_bus, np.arange(n_device))), shape=(n, n_device))
        free = sp.csr_array(
            (np.ones(n_free), (np.flatnonzero(has_free_q), np.arange(n_free))), shape=(n_device, n_free)
        )
        from_bus = sp.csr_array((np.ones(n - 1), (lines, feeder.parent[1:])), shape=(n - 1, n))

        # An injection is a share of its range above its least value, so that a range of zero width is no special case.
        self._load_p, self._load_q = cp.Parameter(n), cp.Parameter(n)
        self._p_min, self._p_range = cp.Parameter(n_device), cp.Parameter(n_device, nonneg=True)
        self._h_min, self._h_range = cp.Parameter(n_free), cp.Parameter(n_free, nonneg=True)
        self._tan_phi = cp.Parameter(n_device)
        self._linear, self._sqrt_quadratic = cp.Parameter(n_device), cp.Parameter(n_device, nonneg=True)
        self._v_source, self._v_min, self._v_max = cp.Parameter(), cp.Parameter(n - 1), cp.Parameter(n - 1)
        self._rated = np.isfinite(feeder.i_max_a[1:])
        self._l_max = cp.Parameter(int(self._rated.sum()), nonneg=True)

        self._p, p_share = cp.Variable(n_device), cp.Variable(n_device)
        h_share = cp.Variable(n_free)
        self._q = cp.multiply(self._tan_phi, self._p) + free @ (self._h_min + cp.multiply(self._h_range, h_share))
        self._P, self._Q, self._l, self._v = (cp.Variable(n - 1) for _ in range(4))
        v_from = from_bus @ cp.hstack([self._v_source, self._v])
        injected_p, injected_q = at_bus @ self._p - self._load_p, at_bus @ self._q - self._load_q

        self._balance_p = feeds @ self._P == fed @ (self._P - cp.multiply(r, self._l)) + injected_p
        self._balance_q = feeds @ self._Q == fed @ (self._Q - cp.multiply(x, self._l)) + injected_q
        drop = cp.multiply(r, self._P) + cp.multiply(x, self._Q)
        cone = cp.SOC(v_from + self._l, cp.vstack([2 * self._P, 2 * self._Q, v_from - self._l]), axis=0)
        self._above_v_min = self._v >= self._v_min
        self._below_l_max = self._l[np.flatnonzero(self._rated)] <= self._l_max
        constraints = [
            self._balance_p,
            self._balance_q,
            self._v == v_from - 2 * drop + cp.multiply(r**2 + x**2, self._l),
            cone,
            self._above_v_min,
            self._p == self._p_min + cp.multiply(self._p_range, p_share),
            p_share >= 0,
            p_share <= 1,
        ]
        if n_free:
            constraints += [h_share >= 0, h_share <= 1]
        if self._rated.any():
            constraints.append(self._below_l_max)
        self._lossless_cone: cp.SOC | None = None
        if upper_voltage is UpperVoltage.LOSSLESS:
            P_hat, Q_hat, v_hat = (cp.Variable(n - 1) for _ in range(3))
            v_hat_from = from_bus @ cp.hstack([self._v_source, v_hat])
            self._hat_balance_p = (feeds @ P_hat)[1:] == P_hat + injected_p[1:]
            self._hat_balance_q = (feeds @ Q_hat)[1:] == Q_hat + injected_q[1:]
            self._below_v_max = v_hat <= self._v_max
            constraints += [
                self._hat_balance_p,
                self._hat_balance_q,
                v_hat == v_hat_from - 2 * (cp.multiply(r, P_hat) + cp.multiply(x, Q_hat)),
                self._below_v_max,
            ]
            if self._rated.any():
                at = np.flatnonzero(self._rated)
                legs = cp.vstack([2 * P_hat[at], 2 * Q_hat[at], v_from[at] - self._l_max])
                self._lossless_cone = cp.SOC(v_from[at] + self._l_max, legs, axis=0)
                constraints.append(self._lossless_cone)
        else:
            self._below_v_max = self._v <= self._v_max
            constraints.append(self._below_v_max)
        cost = self._linear @ self._p + cp.sum_squares(cp.multiply(self._sqrt_quadratic, self._p))
        self._program = cp.Problem(cp.Minimize(cost), constraints)

    def __reduce__(self) -> tuple[type[ConicOpf], tuple[object, ...]]:
        # A compiled program can be neither pickled nor copied; it holds no state, so a copy compiles its own.
        return type(self), (self.feeder, self.device_bus, self.has_free_q, self.upper_voltage)

    def __call__(self, problem: OpfProblem) -> OpfSolution:
        """The optimum of every problem in the batch, one after the other."""
        batch = problem.load_kw.shape[:-1]
        rows = [self._solve(_row(problem, index)) for index in np.ndindex(batch)]
        blank = self._no_answer(OpfStatus.INACCURATE)  # the shapes, for a batch of none as well
        return OpfSolution(
            **{
                name: np.array([row[name] for row in rows], dtype=value.dtype).reshape(batch + value.shape)
                for name, value in blank.items()
            }
        )

    def _solve(self, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeder, s = self.feeder, self.feeder.base_kva
        scale = TYPICAL_PRICE_PER_KWH * s
        linear = row["linear_per_kwh"] - 2 * row["quadratic_per_kw2h"] * row["reference_kw"]
        self._load_p.value = row["load_kw"] / s
        self._load_q.value = (row["load_kvar"] - feeder.capacitor_kvar) / s
        self._p_min.value = row["p_min_kw"] / s
        self._p_range.value = (row["p_max_kw"] - row["p_min_kw"]) / s
        self._h_min.value = row["q_min_kvar"][self.has_free_q] / s
        self._h_range.value = (row["q_max_kvar"] - row["q_min_kvar"])[self.has_free_q] / s
        self._tan_phi.value = row["tan_phi"]
        self._linear.value = linear * s / scale
        self._sqrt_quadratic.value = np.sqrt(row["quadratic_per_kw2h"] * s**2 / scale)
        self._v_source.value = row["v_source_pu"] ** 2
        self._v_min.value, self._v_max.value = row["v_min_pu"][1:] ** 2, row["v_max_pu"][1:] ** 2
        self._l_max.value = np.minimum(row["i_max_a"] / feeder.base_a, LARGEST_RATING_PU)[1:][self._rated] ** 2

        status = self._run()
        if status is not OpfStatus.OPTIMAL:
            return self._no_answer(status)
        multipliers = {
            "v_min_multiplier": self._above_v_min.dual_value,
            "v_max_multiplier": self._below_v_max.dual_value,
            "i_max_multiplier": np.zeros(feeder.n_bus - 1),
        }
        if self._rated.any():
            multipliers["i_max_multiplier"][self._rated] = self._below_l_max.dual_value
        multipliers["i_max_lossless_multiplier"] = np.zeros(feeder.n_bus - 1)
        if self._lossless_cone is not None:
            # Of Ph^2 + Qh^2 - l_max v <= 0, from the duals of the cone that says the same: compare d / d v.
            top, legs = self._lossless_cone.dual_value
            along_v = np.ravel(top) + np.asarray(legs).reshape(3, -1)[2]
            multipliers["i_max_lossless_multiplier"][self._rated] = along_v / self._l_max.value
        price, reactive_price = self._balance_p.dual_value.copy(), self._balance_q.dual_value.copy()
        if self.upper_voltage is UpperVoltage.LOSSLESS:
            price[1:] += self._hat_balance_p.dual_value
            reactive_price[1:] += self._hat_balance_q.dual_value
        p_kw = self._p.value * s
        away = p_kw - row["reference_kw"]
        lines = {"flow_kw": self._P.value * s, "flow_kvar": self._Q.value * s, "current_pu2": self._l.value}
        return {
            "p_kw": p_kw,
            "q_kvar": self._q.value * s,
            **{name: np.concatenate([[0.0], values]) for name, values in lines.items()},
            "voltage_pu": np.concatenate([[row["v_source_pu"]], np.sqrt(np.maximum(self._v.value, 0.0))]),
            "price_per_kwh": price * scale / s,
            "reactive_price_per_kvarh": reactive_price * scale / s,
            **{name: np.concatenate([[0.0], np.maximum(values, 0.0) * scale]) for name, values in multipliers.items()},
            "cost_per_hour": (row["linear_per_kwh"] * away + row["quadratic_per_kw2h"] * away**2).sum(),
            "status": np.array(int(status)),
            "iterations": np.array(self._program.solver_stats.num_iters),
        }

    def _run(self) -> OpfStatus:
        status = OpfStatus.INACCURATE
        for tolerance, accepted in TOLERANCES:
            settings = {f"tol_{m}": tolerance for m in MEASURES} | {f"reduced_tol_{m}": accepted for m in MEASURES}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "solution may be inaccurate": the status says so
                try:
                    # A warm start would make an answer depend on the solves before it.
                    self._program.solve(solver=cp.CLARABEL, warm_start=False, **settings)
                except cp.SolverError:
                    continue
            status = STATUS.get(self._program.status, OpfStatus.INACCURATE)
            if status is not OpfStatus.INACCURATE:
                break
        return status

    def _no_answer(self, status: OpfStatus) -> dict[str, np.ndarray]:
        device, bus = np.zeros(len(self.device_bus)), np.zeros(self.feeder.n_bus)
        by_device = {"p_kw", "q_kvar"}
        scalars = {"cost_per_hour": np.array(0.0), "status": np.array(int(status)), "iterations": np.array(0)}
        names = OpfSolution.__dataclass_fields__
        return {name: scalars.get(name, device if name in by_device else bus) for name in names}


def _row(problem: OpfProblem, index: tuple[int, ...]) -> dict[str, np.ndarray]:
    injections = problem.injections
    of_devices = [name for name in type(injections).__dataclass_fields__ if name != "bus"]
    of_network = ("load_kw", "load_kvar", "v_source_pu", "v_min_pu", "v_max_pu", "i_max_a")
    return {name: getattr(injections, name)[index] for name in of_devices} | {
        name: getattr(problem, name)[index] for name in of_network
    }
