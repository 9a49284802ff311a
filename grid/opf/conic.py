"""The reference solver: the equations of problem.py written in CVXPY and solved by Clarabel. Anyone can read it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int

from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.branch_flow import BranchFlow, branch_flow
from peergrid.grid.opf.problem import (
    ANSWERED_OF_BUSES,
    ANSWERED_OF_DEVICES,
    OF_INJECTIONS,
    OpfProblem,
    OpfSolution,
    OpfStatus,
    UpperVoltage,
)

# Objectives are divided by the cost of serving the feeder's nominal load at this price, which brings them near 1.
TYPICAL_PRICE_PER_KWH = 0.1
# Tried in turn: the tolerance that Clarabel is asked for, the one that is accepted where rounding stops it earlier (as
# it does in most solves), and its step length. Too long a step can spoil the last digits, and a shorter one often does
# not; with a looser tolerance Clarabel stops before they are spoilt.
ATTEMPTS = (
    (1e-11, 1e-10, 0.99),
    (1e-11, 1e-10, 0.9),
    (1e-11, 1e-9, 0.8),
    (1e-9, 1e-8, 0.9),
    (1e-8, 1e-7, 0.99),
    (1e-7, 1e-6, 0.99),
)
# More refinement of its linear solves than Clarabel's default brings prices from 1e-5 to 1e-6 at the worst.
REFINEMENT = {"iterative_refinement_max_iter": 50, "iterative_refinement_stop_ratio": 1.1}
# Infinite ratings stall the solver; this many times the current of the nominal load never binds.
LARGEST_RATING_PU = 100.0
MULTIPLIERS = ("v_min_multiplier", "v_max_multiplier", "i_max_multiplier", "i_max_lossless_multiplier")
MEASURES = ("gap_abs", "gap_rel", "feas")
STATUS = {
    cp.OPTIMAL: OpfStatus.OPTIMAL,
    cp.OPTIMAL_INACCURATE: OpfStatus.OPTIMAL,
    cp.INFEASIBLE: OpfStatus.INFEASIBLE,
    cp.INFEASIBLE_INACCURATE: OpfStatus.INFEASIBLE,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class _Model:
    """The compiled program: parameters to set, variables to read, all in p.u."""

    parameters: dict[str, Any]
    p: Any
    q: Any
    flow: BranchFlow
    program: Any


def _model(
    feeder: Feeder,
    device_bus: Int[np.ndarray, " device"],
    has_free_q: Bool[np.ndarray, " device"],
    upper_voltage: UpperVoltage,
) -> _Model:
    n, n_device, n_free = feeder.n_bus, len(device_bus), int(has_free_q.sum())
    devices, freed = np.arange(n_device), np.flatnonzero(has_free_q)
    at_bus = sp.csr_array((np.ones(n_device), (devices, device_bus)), shape=(n_device, n))
    at_device = sp.csr_array((np.ones(n_free), (np.arange(n_free), freed)), shape=(n_free, n_device))
    n_rated = int(np.isfinite(feeder.i_max_a[1:]).sum())

    given: dict[str, Any] = {
        **{name: cp.Parameter((1, n)) for name in ("load_p", "load_q")},
        **{name: cp.Parameter((1, n_device)) for name in ("p_min", "tan_phi", "linear")},
        **{name: cp.Parameter((1, n_device), nonneg=True) for name in ("p_range", "sqrt_quadratic")},
        "h_min": cp.Parameter((1, n_free)),
        "h_range": cp.Parameter((1, n_free), nonneg=True),
        "v_source": cp.Parameter((1, 1)),
        **{name: cp.Parameter((1, n - 1)) for name in ("v_min", "v_max")},
        "l_max": cp.Parameter((1, n_rated), nonneg=True),
    }
    # An injection is a share of its range above its least value, so that a range of zero width is no special case.
    p, p_share, h_share = cp.Variable((1, n_device)), cp.Variable((1, n_device)), cp.Variable((1, n_free))
    h = given["h_min"] + cp.multiply(given["h_range"], h_share)
    q = cp.multiply(given["tan_phi"], p) + h @ at_device
    flow = branch_flow(
        feeder,
        p @ at_bus - given["load_p"],
        q @ at_bus - given["load_q"],
        **{name: given[name] for name in ("v_source", "v_min", "v_max", "l_max")},
        upper_voltage=upper_voltage,
    )
    within_range = [
        p == given["p_min"] + cp.multiply(given["p_range"], p_share),
        p_share >= 0,
        p_share <= 1,
        h_share >= 0,
        h_share <= 1,
    ]
    cost = cp.sum(cp.multiply(given["linear"], p)) + cp.sum_squares(cp.multiply(given["sqrt_quadratic"], p))
    program = cp.Problem(cp.Minimize(cost), [*flow.constraints.values(), *within_range])
    return _Model(parameters=given, p=p, q=q, flow=flow, program=program)


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
            has_free_q: Which of them have reactive power of their own, within bounds; at least one.
        """
        self.feeder = feeder
        self.device_bus = device_bus
        self.has_free_q = has_free_q
        self.upper_voltage = upper_voltage
        self._model = _model(feeder, device_bus, has_free_q, upper_voltage)

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
        s = self.feeder.base_kva
        self._set(row)
        status = self._run()
        if status is not OpfStatus.OPTIMAL:
            return self._no_answer(status)
        flow = self._model.flow
        p_kw = self._model.p.value[0] * s
        away = p_kw - row["reference_kw"]
        of_lines = {"flow_kw": flow.P.value[0] * s, "flow_kvar": flow.Q.value[0] * s, "current_pu2": flow.l.value[0]}
        return {
            "p_kw": p_kw,
            "q_kvar": self._model.q.value[0] * s,
            **{name: np.concatenate([[0.0], values]) for name, values in of_lines.items()},
            "voltage_pu": np.concatenate([[row["v_source_pu"]], np.sqrt(np.maximum(flow.v.value[0], 0.0))]),
            "price_per_kwh": self._price("p"),
            "reactive_price_per_kvarh": self._price("q"),
            **self._multipliers(),
            "cost_per_hour": (row["linear_per_kwh"] * away + row["quadratic_per_kw2h"] * away**2).sum(),
            "status": np.array(int(status)),
            "iterations": np.array(self._model.program.solver_stats.num_iters),
        }

    def _set(self, row: dict[str, np.ndarray]) -> None:
        feeder, s, given = self.feeder, self.feeder.base_kva, self._model.parameters
        linear = row["linear_per_kwh"] - 2 * row["quadratic_per_kw2h"] * row["reference_kw"]
        rating = np.minimum(row["i_max_a"] / feeder.base_a, LARGEST_RATING_PU)
        values = {
            "load_p": row["load_kw"] / s,
            "load_q": (row["load_kvar"] - feeder.capacitor_kvar) / s,
            "p_min": row["p_min_kw"] / s,
            "p_range": (row["p_max_kw"] - row["p_min_kw"]) / s,
            "h_min": row["q_min_kvar"][self.has_free_q] / s,
            "h_range": (row["q_max_kvar"] - row["q_min_kvar"])[self.has_free_q] / s,
            "tan_phi": row["tan_phi"],
            "linear": linear / TYPICAL_PRICE_PER_KWH,
            "sqrt_quadratic": np.sqrt(row["quadratic_per_kw2h"] * s / TYPICAL_PRICE_PER_KWH),
            "v_source": row["v_source_pu"] ** 2,
            "v_min": row["v_min_pu"][1:] ** 2,
            "v_max": row["v_max_pu"][1:] ** 2,
            "l_max": rating[1:][self._model.flow.rated] ** 2,
        }
        for name, parameter in given.items():
            parameter.value = np.reshape(values[name], parameter.shape)

    def _price(self, kind: str) -> np.ndarray:
        """Nodal prices of active ("p") or reactive ("q") power: a load enters both balances."""
        constraints = self._model.flow.constraints
        price = constraints[f"balance_{kind}"].dual_value[0].copy()
        if self.upper_voltage is UpperVoltage.LOSSLESS:
            price[1:] += constraints[f"lossless_balance_{kind}"].dual_value[0]
        return np.asarray(price * TYPICAL_PRICE_PER_KWH)

    def _multipliers(self) -> dict[str, np.ndarray]:
        flow, scale = self._model.flow, TYPICAL_PRICE_PER_KWH * self.feeder.base_kva
        found = {name: np.zeros(self.feeder.n_bus) for name in MULTIPLIERS}
        for limit in ("v_min", "v_max"):
            found[f"{limit}_multiplier"][1:] = flow.constraints[limit].dual_value[0]
        if "i_max" in flow.constraints:
            found["i_max_multiplier"][1 + flow.rated] = flow.constraints["i_max"].dual_value[0]
        if "i_max_lossless" in flow.constraints:
            # Of Ph^2 + Qh^2 - l_max v <= 0, from the duals of the cone that says the same: compare d / d v.
            top, legs = flow.constraints["i_max_lossless"].dual_value
            along_v = np.ravel(top) + np.asarray(legs).reshape(3, -1)[2]
            found["i_max_lossless_multiplier"][1 + flow.rated] = along_v / self._model.parameters["l_max"].value[0]
        return {name: np.maximum(values, 0.0) * scale for name, values in found.items()}

    def _run(self) -> OpfStatus:
        status = OpfStatus.INACCURATE
        for tolerance, accepted, step in ATTEMPTS:
            settings = {f"tol_{m}": tolerance for m in MEASURES} | {f"reduced_tol_{m}": accepted for m in MEASURES}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "solution may be inaccurate": the status says so
                try:
                    # A warm start would make an answer depend on the solves before it.
                    self._model.program.solve(
                        solver=cp.CLARABEL, warm_start=False, max_step_fraction=step, **settings, **REFINEMENT
                    )
                except cp.SolverError:
                    continue
            status = STATUS.get(self._model.program.status, OpfStatus.INACCURATE)
            if status is not OpfStatus.INACCURATE:
                break
        return status

    def _no_answer(self, status: OpfStatus) -> dict[str, np.ndarray]:
        device, bus = np.zeros(len(self.device_bus)), np.zeros(self.feeder.n_bus)
        scalars = {"cost_per_hour": np.array(0.0), "status": np.array(int(status)), "iterations": np.array(0)}
        return dict.fromkeys(ANSWERED_OF_DEVICES, device) | dict.fromkeys(ANSWERED_OF_BUSES, bus) | scalars


def _row(problem: OpfProblem, index: tuple[int, ...]) -> dict[str, np.ndarray]:
    injections = problem.injections
    of_network = ("load_kw", "load_kvar", "v_source_pu", "v_min_pu", "v_max_pu", "i_max_a")
    return {name: getattr(injections, name)[index] for name in OF_INJECTIONS} | {
        name: getattr(problem, name)[index] for name in of_network
    }
