"""Convex programs over a day: the microgrids' cooperative plan, and the perfect-foresight optimum with the network.

Both are compiled once, set for each day, and solved by Clarabel.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from peergrid.envs.devices.device import START, Course
from peergrid.envs.devices.terms import FleetTerms, stored_flow
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.envs.p2p_trading.simulation import Simulation, build_params
from peergrid.envs.p2p_trading.types import Days, Params
from peergrid.grid.errors import PeergridError
from peergrid.grid.opf.branch_flow import branch_flow
from peergrid.grid.opf.conic import LARGEST_RATING_PU
from peergrid.grid.opf.problem import UpperVoltage

# Money is counted in this many units of currency inside the solver, which brings the objective near 1.
MONEY_UNIT = 100.0
SLACK = 1e-6
REDUCED = ("reduced_tol_gap_abs", "reduced_tol_gap_rel", "reduced_tol_feas")


@dataclass(frozen=True, eq=False, kw_only=True)
class Schedule:
    """Batteries, exports and further devices of a day, and what the plan says it is worth, in currency."""

    battery_kw: Float[np.ndarray, "time agent"]
    export_kw: Float[np.ndarray, "time agent"]
    value: float
    fleet_kw: tuple[Float[np.ndarray, "time agent"], ...] = ()


class _Devices:
    """Variables, constraints and value of all microgrids' devices over a day: the part that both programs share.

    In p.u. of `unit_kw`, to keep the program well scaled.
    """

    def __init__(self, params: Params, unit_kw: float) -> None:
        grids, hours = params.microgrids, params.step_hours
        shape = (params.intervals, len(params.agent_bus))
        self.unit_kw = unit_kw
        self.pv, self.sqrt_alpha = cp.Parameter(shape, nonneg=True), cp.Parameter(shape, nonneg=True)
        self.satiation, self.floor = cp.Parameter(shape, nonneg=True), cp.Parameter(shape, nonneg=True)
        self.least_energy = cp.Parameter((shape[0] + 1, shape[1]))
        self.most_energy = cp.Parameter((shape[0] + 1, shape[1]))
        charge, discharge, pv, diesel, served, unserved = (cp.Variable(shape, nonneg=True) for _ in range(6))
        energy = cp.Variable((shape[0] + 1, shape[1]))

        def row(values: np.ndarray, scale: float = 1.0) -> np.ndarray:
            return np.tile(values * scale, (shape[0], 1))

        rating = row(grids.battery_rating_kw, 1 / unit_kw)
        diesel_max = row(grids.diesel_max_kw, 1 / unit_kw)
        self.fleets = [FleetTerms(fleet, shape[0], unit_kw) for fleet in params.fleets]
        self.battery = discharge - charge
        self.export = pv + diesel + self.battery - served + unserved
        self.constraints = [
            charge <= rating,
            discharge <= rating,
            pv <= self.pv,
            diesel <= diesel_max,
            served >= self.floor,
            served <= self.satiation,
            unserved <= self.floor,
            self.battery <= self.satiation,
            self.battery >= -(self.pv + diesel_max),
            energy[0] == params.initial_kwh / unit_kw,
            energy[1:] == energy[:-1] + hours * stored_flow(grids.battery, charge, discharge),
            energy >= self.least_energy,
            energy <= self.most_energy,
        ]
        others: Any = 0.0
        for terms in self.fleets:
            # Each leaves zero export feasible beside those before it, and the battery beside all.
            others = others + terms.power
            reach = (-(self.pv + diesel_max), self.satiation)
            self.constraints += [*terms.constraints, others >= reach[0], others <= reach[1]]
        if self.fleets:
            self.export = self.export + others
            self.constraints += [self.battery + others >= reach[0], self.battery + others <= reach[1]]
        u = unit_kw
        utility = cp.sum(cp.multiply(row(grids.utility_w_per_kwh, u), served)) - 0.5 * cp.sum_squares(
            cp.multiply(self.sqrt_alpha, served)
        )
        diesel_cost = cp.sum(cp.multiply(row(grids.diesel_b_per_kwh, u), diesel)) + cp.sum_squares(
            cp.multiply(row(np.sqrt(grids.diesel_a_per_kw2h), u), diesel)
        )
        wear = cp.sum(cp.multiply(row(grids.wear_per_kwh, u), charge + discharge))
        missing = cp.sum(cp.multiply(row(grids.unserved_per_kwh, u), unserved))
        # A day that terminates pays for the energy left, as the environment does.
        self.left_price = cp.Parameter(nonneg=True)
        left = cp.sum(cp.multiply(grids.discharge_efficiency, u * energy[-1] - params.initial_kwh))
        terminal = self.left_price * left if params.terminates else 0.0
        rate = utility - diesel_cost - wear - missing
        for terms in self.fleets:
            rate = rate - terms.cost
        self.value = hours * rate + terminal

    def set(
        self,
        simulation: Simulation,
        pv_kw: Float[np.ndarray, "time agent"],
        courses: tuple[Course, ...],
        first: int = 0,
    ) -> None:
        """Fill in a day, with what is expected of the sun and of further devices from the first interval on."""
        state, days = simulation.running()
        for terms, course, level in zip(self.fleets, courses, state.levels, strict=True):
            terms.set(course, level[0], first)
        grids, n, u = simulation.params.microgrids, simulation.params.intervals, self.unit_kw
        alpha, demand_kw = days.alpha_per_kw2h[0, :n], days.demand_kw[0, :n]
        floor = grids.must_serve_share * demand_kw / u
        satiation = np.maximum(grids.utility_w_per_kwh / alpha / u, floor)
        self.pv.value = pv_kw / u
        self.left_price.value = float(days.lmp_day_ahead_per_kwh[0, :n].mean())
        self.sqrt_alpha.value = np.sqrt(np.where(np.isfinite(alpha), alpha, 0.0)) * u
        self.floor.value, self.satiation.value = floor, satiation
        self.least_energy.value, self.most_energy.value = days.least_kwh[0] / u, days.most_kwh[0] / u

    def schedule(self, value: float) -> Schedule:
        return Schedule(
            battery_kw=self.battery.value * self.unit_kw,
            export_kw=self.export.value * self.unit_kw,
            value=value,
            fleet_kw=tuple(terms.power_kw() for terms in self.fleets),
        )


class DayPlan:
    """The microgrids' plan of a day, without the network: trading with the grid at the LMP +- half-spread.

    Together they are one; apart each trades with the grid alone.
    """

    def __init__(self, params: Params, together: bool = True) -> None:
        self.params = params
        self.devices = _Devices(params, unit_kw=float(params.microgrids.rating_kw.mean()))
        n = params.intervals
        self.buy_price, self.sell_price = cp.Parameter(n), cp.Parameter(n)
        shape = (n, 1 if together else len(params.agent_bus))
        bought, sold = cp.Variable(shape, nonneg=True), cp.Variable(shape, nonneg=True)
        money = params.step_hours * cp.sum(self.sell_price @ sold - self.buy_price @ bought)
        own = cp.sum(self.devices.export, axis=1, keepdims=True) if together else self.devices.export
        constraints = [*self.devices.constraints, own == sold - bought]
        self.program = cp.Problem(cp.Maximize((self.devices.value + money) / MONEY_UNIT), constraints)

    @staticmethod
    def of(scenario: Scenario, together: bool = True) -> DayPlan:
        """A plan to solve for days of the scenario; it keeps what it compiles, and serves one thread at a time."""
        return DayPlan(build_params(scenario), together)

    def solve(self, simulation: Simulation, stored_kwh: Float[np.ndarray, "boundary agent"] | None = None) -> Schedule:
        """The plan for the day that the simulation (of one row) has begun.

        The sun is forecast and prices are the day-ahead ones; the microgrids' own demand is known.

        Args:
            stored_kwh: Energies at the boundaries so far, to plan anew from the last of them on: with the sun and the
                price of the interval that begins there, and of those that are over, as they are.
        """
        _, days = simulation.running()
        n, spread, u = self.params.intervals, self.params.market.half_spread_per_kwh, self.devices.unit_kw
        lmp, pv_kw = days.lmp_day_ahead_per_kwh[0, :n].copy(), days.pv_forecast_kw[0, :n].copy()
        if stored_kwh is not None:
            known = len(stored_kwh)
            lmp[:known], pv_kw[:known] = days.lmp_per_kwh[0, :known], days.pv_kw[0, :known]
        first = 0 if stored_kwh is None else known - 1
        self.devices.set(simulation, pv_kw, expected_courses(days, n, first), first)
        if stored_kwh is not None:
            # What was stored is kept to within rounding, so that the way there stays feasible.
            for window, slack in ((self.devices.least_energy, -SLACK), (self.devices.most_energy, SLACK)):
                values = window.value.copy()
                values[:known] = stored_kwh / u + slack
                window.value = values
        self.buy_price.value, self.sell_price.value = (lmp + spread) * u, (lmp - spread) * u
        return self.devices.schedule(_solve(self.program, "cooperative day plan"))


class Optimum:
    """The perfect-foresight social optimum: everybody's resources, the DSO's generators and the network, over the day.

    The network is that of the DSO's own problem, lossless limits included, for every interval at once.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        feeder, hours = params.feeder, params.step_hours
        s, n_t, n = feeder.base_kva, params.intervals, feeder.n_bus
        self.devices = _Devices(params, unit_kw=s)
        self.lmp = cp.Parameter(n_t)
        self.load_p, self.load_q = cp.Parameter((n_t, n)), cp.Parameter((n_t, n))
        self.sheddable, self.tan_phi = cp.Parameter((n_t, n), nonneg=True), cp.Parameter((n_t, n))
        p_upstream, q_upstream = cp.Variable((n_t, 1)), cp.Variable((n_t, 1))
        shed = cp.Variable((n_t, n), nonneg=True)
        root = np.eye(1, n)
        p = p_upstream @ root + self.devices.export @ _at_buses(params.agent_bus, n) + shed - self.load_p
        q = q_upstream @ root + cp.multiply(self.tan_phi, shed) - self.load_q
        cost = s * (self.lmp @ p_upstream[:, 0] + params.voll_per_kwh * cp.sum(shed))
        cost += params.c_ls_per_kw2h * s**2 * cp.sum_squares(shed)
        limits = [shed <= self.sheddable]

        def rows(values: np.ndarray) -> np.ndarray:
            return np.tile(values, (n_t, 1))

        own = params.generators
        if own.bus:
            g, h = cp.Variable((n_t, len(own.bus))), cp.Variable((n_t, len(own.bus)))
            at_generators = _at_buses(np.array(own.bus), n)
            p, q = p + g @ at_generators, q + h @ at_generators
            limits += [g >= rows(own.p_min_kw / s), g <= rows(own.p_max_kw / s)]
            limits += [h >= rows(own.q_min_kvar / s), h <= rows(own.q_max_kvar / s)]
            quadratic = cp.sum_squares(cp.multiply(rows(np.sqrt(own.a_per_kw2h) * s), g))
            cost += cp.sum(cp.multiply(rows(own.b_per_kwh * s), g)) + quadratic
        rated = np.isfinite(feeder.i_max_a)
        flow = branch_flow(
            feeder,
            p,
            q,
            v_source=np.full((n_t, 1), feeder.v_source_pu**2),
            v_min=rows(feeder.v_min_pu[1:] ** 2),
            v_max=rows(feeder.v_max_pu[1:] ** 2),
            l_max=rows(np.minimum(feeder.i_max_a / feeder.base_a, LARGEST_RATING_PU)[rated] ** 2),
            upper_voltage=UpperVoltage.LOSSLESS,
        )
        constraints = [*flow.constraints.values(), *limits, *self.devices.constraints]
        self.program = cp.Problem(cp.Maximize((self.devices.value - hours * cost) / MONEY_UNIT), constraints)

    @staticmethod
    def of(scenario: Scenario) -> Optimum:
        """An optimum to solve for days of the scenario; it keeps what it compiles, and serves one thread at a time."""
        return Optimum(build_params(scenario))

    def solve(self, simulation: Simulation) -> Schedule:
        """The optimum of the day that the simulation (of one row) has begun; its value is the day's welfare."""
        _, days = simulation.running()
        n, s, feeder = self.params.intervals, self.params.feeder.base_kva, self.params.feeder
        load, q_load = days.load_kw[0, :n], days.load_kvar[0, :n]
        sheddable = np.maximum(load, 0.0)
        sheddable[:, 0] = 0.0
        self.devices.set(simulation, days.pv_kw[0, :n], expected_courses(days, n, n))
        self.lmp.value = days.lmp_per_kwh[0, :n]
        self.load_p.value = load / s
        self.load_q.value = (q_load - feeder.capacitor_kvar) / s
        self.sheddable.value = sheddable / s
        self.tan_phi.value = np.where(sheddable > 0, q_load / np.where(sheddable > 0, sheddable, 1.0), 0.0)
        return self.devices.schedule(_solve(self.program, "perfect-foresight optimum"))


def expected_courses(days: Days, intervals: int, known: int) -> tuple[Course, ...]:
    """What the first row's day brings to further devices: as it is up to interval `known`, as forecast after it."""

    def mixed(course: Course, forecast: Course) -> Course:
        values = {}
        for f in fields(Course):
            actual, expected = getattr(course, f.name)[0], getattr(forecast, f.name)[0]
            values[f.name] = (
                actual if f.name == START else np.concatenate([actual[: known + 1], expected[known + 1 :]])[:intervals]
            )
        return Course(**values)

    return tuple(mixed(*both) for both in zip(days.courses, days.forecast_courses, strict=True))


def _at_buses(bus: np.ndarray, n_bus: int) -> Any:
    return sp.csr_array((np.ones(len(bus)), (np.arange(len(bus)), bus)), shape=(len(bus), n_bus))


def _solve(program: Any, what: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "solution may be inaccurate": where rounding stops it short of 1e-8
        try:
            program.solve(solver=cp.CLARABEL, warm_start=False, **dict.fromkeys(REDUCED, 1e-6))
        except cp.SolverError as error:
            raise PeergridError(f"the {what} was not solved: {error}") from None
    if program.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise PeergridError(f"the {what} was not solved: {program.status}")
    return float(program.value) * MONEY_UNIT
