"""How agents plan: each maximises what it earns at its signals less what its resources cost, to the end of the day.

    min  sum_t dt (-psi_t p_t + cost_t(x_t, g_t, s_t)),      p_t = x_t + g_t + s_t + pv_t - load_t

over load put off x, generation g and storage power s, within their limits, such that shifted load has returned and
storage is as full as at the day's beginning when the day ends. Agents meet in nothing but the signals, so that one
program plans for all of them at once; each gets what a program of its own would give it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from peergrid.envs.devices.terms import stored_flow
from peergrid.envs.transactive.resources import Resources, SetPoints
from peergrid.grid.errors import PeergridError

# Money is counted in this many units of currency inside the solver, which brings the objective near 1.
MONEY_UNIT = 10.0
TOLERANCES = {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}


@dataclass(frozen=True, eq=False, kw_only=True)
class Outlook:
    """What agents plan with: of the hours that are over the entries are not read.

    Attributes:
        first: The interval to begin with; all before it are over.
        signal_per_kwh: What they expect to be paid at their buses.
        shift_most_kw: How much load they can put off or bring forward.
        stored_kwh: Energy in storage as interval `first` begins.
        shifted_kwh: Energy that shifting has delivered so far.
    """

    first: int
    signal_per_kwh: Float[np.ndarray, "interval agent"]
    shift_most_kw: Float[np.ndarray, "interval agent"]
    stored_kwh: Float[np.ndarray, " agent"]
    shifted_kwh: Float[np.ndarray, " agent"]


class AgentPlan:
    """The program of all agents over the rest of a day; compiled once, and for one thread at a time."""

    def __init__(
        self, resources: Resources, end_kwh: Float[np.ndarray, " agent"], intervals: int, step_hours: float
    ) -> None:
        """
        Args:
            end_kwh: What storage must hold when the day ends.
        """
        r, shape = resources, (intervals, len(resources.peak_kw))
        self._arguments = (resources, end_kwh, intervals, step_hours)
        self.resources, self.shape, self.unit_kw = r, shape, float(max(r.peak_kw.mean(), 1.0))
        u, hours = self.unit_kw, step_hours
        self._signal = cp.Parameter(shape)
        self._is_ahead = cp.Parameter((intervals, 1), nonneg=True)
        self._shift_most = cp.Parameter(shape, nonneg=True)
        self._stored, self._shifted = cp.Parameter(shape[1], nonneg=True), cp.Parameter(shape[1])
        self._shift = cp.Variable(shape)
        self._generator, charge, self._discharge = (cp.Variable(shape, nonneg=True) for _ in range(3))
        self._charge = charge

        def row(values: Float[np.ndarray, " agent"]) -> Float[np.ndarray, "interval agent"]:
            return np.tile(values, (intervals, 1))

        def limit(most_kw: Float[np.ndarray, " agent"]) -> cp.Expression:
            return self._is_ahead @ (most_kw[None, :] / u)

        energy = cp.cumsum(stored_flow(r.storage, charge, self._discharge), axis=0) * hours
        stored = energy + cp.reshape(self._stored, (1, shape[1]), order="C")
        constraints = [
            self._shift <= self._shift_most,
            self._shift >= -self._shift_most,
            self._generator <= limit(r.generator_max_kw),
            charge <= limit(r.storage_max_kw),
            self._discharge <= limit(r.storage_max_kw),
            stored[:-1] >= 0,
            stored[:-1] <= row(r.storage_max_kwh / u)[:-1],
            stored[-1] == end_kwh / u,
            hours * cp.sum(self._shift, axis=0) + self._shifted == 0,
        ]
        earned = cp.sum(cp.multiply(self._signal, self._shift + self._generator + self._discharge - charge)) * u
        linear = cp.sum(cp.multiply(row(r.generator_b_per_kwh), self._generator)) * u
        linear += cp.sum(cp.multiply(row(r.wear_per_kwh), charge + self._discharge)) * u
        quadratic = sum(
            cp.sum(cp.multiply(row(coefficient) * u**2, cp.square(power)))
            for coefficient, power in (
                (r.shift_per_kw2h, self._shift),
                (r.generator_a_per_kw2h, self._generator),
                (r.storage_per_kw2h, charge),
                (r.storage_per_kw2h, self._discharge),
            )
        )
        self._program = cp.Problem(cp.Minimize(hours * (linear + quadratic - earned) / MONEY_UNIT), constraints)

    def __reduce__(self) -> tuple[type[AgentPlan], tuple[Any, ...]]:
        """Copies compile a program of their own: a solver's can be neither copied nor pickled."""
        return AgentPlan, self._arguments

    def solve(self, outlook: Outlook) -> SetPoints:
        """What every agent does in each interval; nothing in those that are over.

        Raises:
            PeergridError: The day can no longer end as it began.
        """
        is_ahead = (np.arange(self.shape[0]) >= outlook.first).astype(float)[:, None]
        self._is_ahead.value = is_ahead
        self._signal.value = np.where(is_ahead, outlook.signal_per_kwh, 0.0)
        self._shift_most.value = np.where(is_ahead, outlook.shift_most_kw, 0.0) / self.unit_kw
        self._stored.value = outlook.stored_kwh / self.unit_kw
        self._shifted.value = outlook.shifted_kwh / self.unit_kw
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "solution may be inaccurate": where rounding stops it short of 1e-9
            try:
                self._program.solve(solver=cp.CLARABEL, warm_start=False, **TOLERANCES)
            except cp.SolverError as error:
                raise PeergridError(f"the agents' plan was not solved: {error}") from None
        if self._program.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            raise PeergridError(f"the agents' plan was not solved: {self._program.status}")
        u = self.unit_kw
        return SetPoints(
            shift_kw=self._shift.value * u,
            generator_kw=self._generator.value * u,
            storage_kw=(self._discharge.value - self._charge.value) * u,
        )
