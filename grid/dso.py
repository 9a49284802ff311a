"""The distribution system operator: a query in, a response out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from peergrid.grid.errors import InvalidQuery, raise_faults
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import (
    OF_INJECTIONS,
    Injections,
    OpfProblem,
    OpfSolution,
    OpfStatus,
    UpperVoltage,
    flowing_pu2,
    relaxation_gap,
)
from peergrid.grid.parts import resolve
from peergrid.grid.power_flow import PowerFlow, PowerFlowStatus, solve_power_flow
from peergrid.grid.prices import PriceParts, price_parts

SOLVERS = {
    "interior_point": "peergrid.grid.opf.interior_point:InteriorPointOpf",
    "conic": "peergrid.grid.opf.conic:ConicOpf",
    "admm": "peergrid.grid.opf.admm:AdmmOpf",
}
TIGHT_PU = 1e-6

Coefficient = float | Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False, kw_only=True)
class Penalty:
    """What the DSO pays for touching trades and loads; numbers, or arrays that broadcast over trades or buses.

    A trade proposed at t and accepted at a costs `LMP (a - t) + kappa |a - t| + lambda_corr (a - t)^2` per hour. The
    LMP term makes the DSO indifferent to the energy itself, so that only losses, limits and shedding count. Shedding
    s of a load costs `voll s + c_ls s^2`.
    """

    kappa_per_kwh: Coefficient = 0.05
    lambda_corr_per_kw2h: Coefficient = 0.005
    voll_per_kwh: Coefficient = 3.0
    c_ls_per_kw2h: Coefficient = 0.0
    energy_at_lmp: bool = True

    @classmethod
    def quadratic_only(cls, lambda_corr_per_kw2h: Coefficient, c_ls_per_kw2h: Coefficient) -> Penalty:
        """The penalty of the P2P paper: pure quadratics. It curtails imports and sheds load where nothing binds."""
        return cls(
            kappa_per_kwh=0.0,
            lambda_corr_per_kw2h=lambda_corr_per_kw2h,
            voll_per_kwh=0.0,
            c_ls_per_kw2h=c_ls_per_kw2h,
            energy_at_lmp=False,
        )


def _none() -> Float[np.ndarray, " gen"]:
    return np.zeros(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Generators:
    """Generators that the DSO dispatches, at a cost of `a p^2 + b p` per hour."""

    bus: tuple[int, ...] = ()
    p_min_kw: Float[np.ndarray, " gen"] = field(default_factory=_none)
    p_max_kw: Float[np.ndarray, " gen"] = field(default_factory=_none)
    q_min_kvar: Float[np.ndarray, " gen"] = field(default_factory=_none)
    q_max_kvar: Float[np.ndarray, " gen"] = field(default_factory=_none)
    a_per_kw2h: Float[np.ndarray, " gen"] = field(default_factory=_none)
    b_per_kwh: Float[np.ndarray, " gen"] = field(default_factory=_none)

    def cost_per_hour(self, p_kw: Float[np.ndarray, "*batch gen"]) -> Float[np.ndarray, "*batch gen"]:
        """What each generator's output costs, in currency per hour."""
        return self.a_per_kw2h * p_kw**2 + self.b_per_kwh * p_kw


@dataclass(frozen=True, eq=False, kw_only=True)
class DsoQuery:
    """What the DSO is asked: the loads of an interval, the proposed trades, and the price of energy upstream.

    Limits are the feeder's own unless they are given here; the penalty is the DSO's own. Where a proposal was corrected
    and is made again, `first_proposed_kw` is what was wanted at first: curtailment is counted from there, so that what
    was accepted once is accepted again. `root_price_per_kwh` is where the transactive signal starts at the substation,
    for solvers that exchange it; their nodal price there if None.
    """

    load_kw: Float[np.ndarray, "*batch bus"]
    load_kvar: Float[np.ndarray, "*batch bus"]
    proposed_kw: Float[np.ndarray, "*batch trade"]
    lmp_per_kwh: Float[np.ndarray, "*batch"] | float
    first_proposed_kw: Float[np.ndarray, "*batch trade"] | None = None
    penalty: Penalty | None = None
    v_min_pu: Float[np.ndarray, "..."] | None = None
    v_max_pu: Float[np.ndarray, "..."] | None = None
    i_max_a: Float[np.ndarray, "..."] | None = None
    root_price_per_kwh: Float[np.ndarray, "..."] | None = None


class DsoStatus(IntEnum):
    """How the DSO came to its response; from INFEASIBLE on, it failed."""

    OPTIMAL = 0
    RELAXATION_NOT_TIGHT = 1
    UNCHECKED = 2
    INFEASIBLE = 3
    INACCURATE = 4
    POWER_FLOW_DIVERGED = 5

    @property
    def sentence(self) -> str:
        return {
            DsoStatus.OPTIMAL: "solved to the tolerance",
            DsoStatus.RELAXATION_NOT_TIGHT: "the optimum of the relaxation is no power flow: its prices are not to be "
            "trusted; voltages, flows and losses are those of the AC power flow at the accepted dispatch",
            DsoStatus.UNCHECKED: "every trade is carried out unchecked",
            DsoStatus.INFEASIBLE: "no dispatch keeps every bus and line within limits: "
            "every proposal is curtailed to zero, the DSO's generators stand still",
            DsoStatus.INACCURATE: "the solver stopped short of its tolerance: "
            "every proposal is curtailed to zero, the DSO's generators stand still",
            DsoStatus.POWER_FLOW_DIVERGED: "the AC power flow has no solution at the accepted dispatch",
        }[self]


# What the operator makes of each OpfStatus.
STATUS = np.array([DsoStatus.OPTIMAL, DsoStatus.INFEASIBLE, DsoStatus.INACCURATE], dtype=int)


@dataclass(frozen=True, eq=False, kw_only=True)
class DsoResponse:
    """What the DSO allows, what then flows, and what it is worth at every bus.

    Prices are d cost / d load. Multipliers of the squared limits in p.u., in currency per hour, are not negative. Flows
    are those at the substation's side of the line into each bus. Figures are finite whatever the status.
    `te_signal_per_kwh` is the transactive signal that the coordinators of a distributed solver came to among
    themselves; it belongs to the flows where the status is OPTIMAL, and is None of what exchanges no signals.
    """

    accepted_kw: Float[np.ndarray, "*batch trade"]
    shed_kw: Float[np.ndarray, "*batch bus"]
    generator_kw: Float[np.ndarray, "*batch gen"]
    generator_kvar: Float[np.ndarray, "*batch gen"]
    substation_kw: Float[np.ndarray, "*batch"]
    substation_kvar: Float[np.ndarray, "*batch"]
    voltage_pu: Float[np.ndarray, "*batch bus"]
    flow_kw: Float[np.ndarray, "*batch bus"]
    flow_kvar: Float[np.ndarray, "*batch bus"]
    current_a: Float[np.ndarray, "*batch bus"]
    losses_kw: Float[np.ndarray, "*batch"]
    price_per_kwh: Float[np.ndarray, "*batch bus"]
    reactive_price_per_kvarh: Float[np.ndarray, "*batch bus"]
    price_parts: PriceParts
    v_min_multiplier: Float[np.ndarray, "*batch bus"]
    v_max_multiplier: Float[np.ndarray, "*batch bus"]
    i_max_multiplier: Float[np.ndarray, "*batch bus"]
    i_max_lossless_multiplier: Float[np.ndarray, "*batch bus"]
    cost_per_hour: Float[np.ndarray, "*batch"]
    relaxation_gap_pu: Float[np.ndarray, "*batch"]
    status: Int[np.ndarray, "*batch"]
    solve_seconds: float
    te_signal_per_kwh: Float[np.ndarray, "*batch bus"] | None = None


@runtime_checkable
class Dso(Protocol):
    """Anything that answers proposals: the OPF, a surrogate, or a network that checks nothing."""

    def __call__(self, query: DsoQuery) -> DsoResponse: ...


class OpfDso:
    """The DSO that solves an optimal power flow: accepts or curtails every trade, prices energy at every bus.

    It may curtail a proposal, never enlarge or reverse it.
    """

    def __init__(
        self,
        feeder: Feeder,
        trade_bus: Sequence[int] | Int[np.ndarray, " trade"] | None = None,
        *,
        generators: Generators | None = None,
        penalty: Penalty | None = None,
        upper_voltage: UpperVoltage | str = UpperVoltage.LOSSLESS,
        substation_limit_kva: float | None = None,
        solver: Any = "interior_point",
    ) -> None:
        """
        Args:
            trade_bus: Where trades are proposed, one entry per trade; every bus if None.
            substation_limit_kva: Largest exchange with the upstream network, for active and reactive power each, either
                way; ten times the nominal load if None.
            solver: Class of an OPF solver, "module:attribute", or a name: "interior_point"; "conic", the reference;
                "admm", distributed.
        """
        self.feeder = feeder
        places = np.arange(feeder.n_bus) if trade_bus is None else np.asarray(trade_bus)
        if len(places) and not np.issubdtype(places.dtype, np.integer):
            raise InvalidQuery(f"trade_bus is {places.tolist()}, not positions of buses: feeder.index(name) gives one")
        self.trade_bus = places.astype(int)
        self.generators = generators or Generators()
        self.penalty = penalty or Penalty()
        self.upper_voltage = UpperVoltage(upper_voltage)
        self.substation_limit_kva = substation_limit_kva or 10.0 * feeder.base_kva
        unknown = [b for b in (*self.trade_bus, *self.generators.bus) if not 0 <= b < feeder.n_bus]
        raise_faults(InvalidQuery, f"DSO of {feeder.name!r}", [f"there is no bus at position {b}" for b in unknown])
        # Flexible injections in this order: the substation, generators, shedding at every bus but the root, trades.
        shedding = np.arange(1, feeder.n_bus)
        self._device_bus = np.concatenate([[0], np.array(self.generators.bus, dtype=int), shedding, self.trade_bus])
        n_gen, n_device = len(self.generators.bus), len(self._device_bus)
        self._of_generators = slice(1, 1 + n_gen)
        self._of_shedding = slice(1 + n_gen, n_gen + feeder.n_bus)
        self._of_trades = slice(n_gen + feeder.n_bus, n_device)
        has_free_q = np.arange(n_device) <= n_gen
        self._limits = np.stack([feeder.v_min_pu, feeder.v_max_pu, feeder.i_max_a])
        # What no query changes of the injections, in the order of OF_INJECTIONS; zero elsewhere.
        self._injections = np.zeros((len(OF_INJECTIONS), n_device))
        most, own = self.substation_limit_kva, self.generators
        wrong = [
            f"{f.name} of the generators has shape {np.shape(getattr(own, f.name))}, not ({n_gen},)"
            for f in fields(own)
            if f.name != "bus" and np.shape(getattr(own, f.name)) != (n_gen,)
        ]
        raise_faults(InvalidQuery, f"DSO of {feeder.name!r}", wrong)
        self._injections[:, 0] = (-most, most, 0.0, 0.0, 0.0, 0.0, -most, most)
        p_and_cost: tuple[Any, ...] = (own.p_min_kw, own.p_max_kw, own.b_per_kwh, own.a_per_kw2h, 0.0, 0.0)
        for row, values in zip(self._injections, (*p_and_cost, own.q_min_kvar, own.q_max_kvar), strict=True):
            row[self._of_generators] = values
        self._solve = resolve(solver, "OPF solver", SOLVERS)(feeder, self._device_bus, has_free_q, self.upper_voltage)

    def __call__(self, query: DsoQuery) -> DsoResponse:
        start = time.perf_counter()
        problem = self.problem(query)
        return self._respond(problem, self._solve(problem), start)

    def problem(self, query: DsoQuery) -> OpfProblem:
        """The optimal power flow that answers the query.

        Raises:
            InvalidQuery: Arrays of the wrong shape, NaN, or crossed limits, all named at once.
        """
        penalty = query.penalty or self.penalty
        batch = self._check(query)
        load, proposed = query.load_kw, query.proposed_kw
        lmp = np.asarray(query.lmp_per_kwh, dtype=float)[..., None]

        def at_load(coefficient: Coefficient) -> Coefficient:
            # One value per bus: shedding exists at every bus but the root.
            one_each = isinstance(coefficient, np.ndarray) and coefficient.ndim and coefficient.shape[-1] > 1
            return np.asarray(coefficient)[..., 1:] if one_each else coefficient

        def copies(table: Float[np.ndarray, "field entry"]) -> Float[np.ndarray, "field *batch entry"]:
            values = np.empty((len(table), *batch, table.shape[-1]))
            values[:] = table.reshape(len(table), *[1] * len(batch), -1)
            return values

        sheddable = np.maximum(load[..., 1:], 0.0)
        wanted = proposed
        if (first := query.first_proposed_kw) is not None:
            wanted = np.where((first * proposed > 0) & (np.abs(first) > np.abs(proposed)), first, proposed)
        shedding, trades = self._of_shedding, self._of_trades
        injections = copies(self._injections)
        p_min, p_max, linear, quadratic, reference, tan_phi, _, _ = injections
        np.minimum(proposed, 0.0, out=p_min[..., trades])
        np.maximum(proposed, 0.0, out=p_max[..., trades])
        p_max[..., shedding] = sheddable
        linear[..., :1] = lmp
        linear[..., shedding] = at_load(penalty.voll_per_kwh)
        linear[..., trades] = lmp * penalty.energy_at_lmp - penalty.kappa_per_kwh * np.sign(wanted)
        quadratic[..., shedding] = at_load(penalty.c_ls_per_kw2h)
        quadratic[..., trades] = penalty.lambda_corr_per_kw2h
        reference[..., trades] = wanted
        # Reactive load goes with the active load that is shed, at the same power factor.
        np.divide(query.load_kvar[..., 1:], sheddable, out=tan_phi[..., shedding], where=sheddable > 0)
        limits = copies(self._limits)
        for own, given in zip(limits, (query.v_min_pu, query.v_max_pu, query.i_max_a), strict=True):
            if given is not None:
                own[:] = given
        v_min, v_max, i_max = limits
        return OpfProblem(
            feeder=self.feeder,
            upper_voltage=self.upper_voltage,
            injections=Injections(bus=self._device_bus, **dict(zip(OF_INJECTIONS, injections, strict=True))),
            load_kw=load,
            load_kvar=query.load_kvar,
            v_source_pu=np.full(batch, self.feeder.v_source_pu),
            v_min_pu=v_min,
            v_max_pu=v_max,
            i_max_a=i_max,
            root_price_per_kwh=query.root_price_per_kwh,
        )

    def _check(self, query: DsoQuery) -> tuple[int, ...]:
        batch = query.load_kw.shape[:-1]
        expected = {
            "load_kw": (*batch, self.feeder.n_bus),
            "load_kvar": (*batch, self.feeder.n_bus),
            "proposed_kw": (*batch, len(self.trade_bus)),
        }
        faults = []
        if query.first_proposed_kw is not None:
            expected["first_proposed_kw"] = expected["proposed_kw"]
        if query.root_price_per_kwh is not None:
            expected["root_price_per_kwh"] = batch
        for name, shape in expected.items():
            array = getattr(query, name)
            if array.shape != shape:
                faults.append(f"{name} has shape {array.shape}, not {shape}")
            elif not np.isfinite(array).all():
                faults.append(f"{name} is not finite at {np.argwhere(~np.isfinite(array))[0].tolist()}")
        if not np.isfinite(query.lmp_per_kwh).all():
            faults.append("lmp_per_kwh is not finite")
        penalty = query.penalty or self.penalty
        by_bus, by_trade = expected["load_kw"], expected["proposed_kw"]
        broadcast = {
            "lmp_per_kwh": (query.lmp_per_kwh, batch),
            "v_min_pu": (query.v_min_pu, by_bus),
            "v_max_pu": (query.v_max_pu, by_bus),
            "i_max_a": (query.i_max_a, by_bus),
            "kappa_per_kwh": (penalty.kappa_per_kwh, by_trade),
            "lambda_corr_per_kw2h": (penalty.lambda_corr_per_kw2h, by_trade),
            "voll_per_kwh": (penalty.voll_per_kwh, by_bus),
            "c_ls_per_kw2h": (penalty.c_ls_per_kw2h, by_bus),
        }
        faults += [
            f"{name} has shape {np.shape(given)}, which does not broadcast to {shape}"
            for name, (given, shape) in broadcast.items()
            if given is not None and not isinstance(given, float) and not _broadcasts(np.shape(given), shape)
        ]
        if query.i_max_a is not None and not np.isfinite(self.feeder.i_max_a[1:]).all():
            faults.append(
                "i_max_a is given, but lines of the feeder have no rating: give the feeder finite ratings first"
            )
        raise_faults(InvalidQuery, f"query to the DSO of {self.feeder.name!r}", faults)
        return batch

    def _respond(self, problem: OpfProblem, solution: OpfSolution, start: float) -> DsoResponse:
        solved = np.asarray(solution.status == int(OpfStatus.OPTIMAL))
        if not solved.all():
            # Where there is no answer, energy alone makes the price, and voltages of 1 keep its parts finite.
            price = np.where(solved[..., None], solution.price_per_kwh, problem.injections.linear_per_kwh[..., :1])
            voltage = np.where(solved[..., None], solution.voltage_pu, 1.0)
            solution = replace(solution, voltage_pu=voltage, price_per_kwh=price)
        flowing = flowing_pu2(self.feeder, solution)
        gap = relaxation_gap(self.feeder, solution, flowing)
        tight = np.asarray(solved & (gap <= TIGHT_PU))
        p, q = solution.p_kw, solution.q_kvar
        # The solver stays within the bounds to its tolerance; the promise (never enlarged, never reversed) is exact.
        bounded = p.clip(problem.injections.p_min_kw, problem.injections.p_max_kw)
        shed = np.zeros(problem.load_kw.shape)
        shed[..., 1:] = bounded[..., self._of_shedding]
        response = DsoResponse(
            accepted_kw=bounded[..., self._of_trades],
            shed_kw=shed,
            generator_kw=p[..., self._of_generators],
            generator_kvar=q[..., self._of_generators],
            substation_kw=p[..., 0],
            substation_kvar=q[..., 0],
            voltage_pu=solution.voltage_pu,
            flow_kw=solution.flow_kw,
            flow_kvar=solution.flow_kvar,
            # Not from current_pu2, which stays loose on lines of a milliohm.
            current_a=np.sqrt(flowing) * self.feeder.base_a,
            losses_kw=np.asarray((self.feeder.r_pu * solution.current_pu2).sum(axis=-1) * self.feeder.base_kva),
            price_per_kwh=solution.price_per_kwh,
            reactive_price_per_kvarh=solution.reactive_price_per_kvarh,
            price_parts=price_parts(self.feeder, solution, self.upper_voltage),
            v_min_multiplier=solution.v_min_multiplier,
            v_max_multiplier=solution.v_max_multiplier,
            i_max_multiplier=solution.i_max_multiplier,
            i_max_lossless_multiplier=solution.i_max_lossless_multiplier,
            cost_per_hour=solution.cost_per_hour,
            relaxation_gap_pu=gap,
            status=np.where(solved & ~tight, int(DsoStatus.RELAXATION_NOT_TIGHT), STATUS[solution.status]),
            solve_seconds=time.perf_counter() - start,
            te_signal_per_kwh=solution.te_signal_per_kwh,
        )
        return response if tight.all() else with_power_flow(self, response, problem, where=np.asarray(~tight))


def _broadcasts(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return given == shape or np.broadcast_shapes(given, shape) == shape
    except ValueError:
        return False


def with_power_flow(dso: OpfDso, response: DsoResponse, problem: OpfProblem, where: np.ndarray) -> DsoResponse:
    """The response with voltages, flows and losses of the AC power flow at its dispatch, in the rows marked."""
    flow = dispatch_power_flow(dso, response, problem)
    diverged = where & (flow.status == PowerFlowStatus.DIVERGED)
    by_bus = {name: getattr(flow, name) for name in ("voltage_pu", "flow_kw", "flow_kvar", "current_a")}
    by_row = {name: getattr(flow, name) for name in ("losses_kw", "substation_kw", "substation_kvar")}
    return replace(
        response,
        **{name: np.where(where[..., None], values, getattr(response, name)) for name, values in by_bus.items()},
        **{name: np.where(where, values, getattr(response, name)) for name, values in by_row.items()},
        status=np.where(diverged, int(DsoStatus.POWER_FLOW_DIVERGED), response.status),
    )


def dispatch_power_flow(dso: OpfDso, response: DsoResponse, problem: OpfProblem) -> PowerFlow:
    """The AC power flow at the dispatch of a response."""
    p_kw, q_kvar = response.shed_kw - problem.load_kw, -problem.load_kvar
    q_kvar[..., 1:] += problem.injections.tan_phi[..., dso._of_shedding] * response.shed_kw[..., 1:]
    for injected, bus, values in (
        (p_kw, dso.trade_bus, response.accepted_kw),
        (p_kw, dso.generators.bus, response.generator_kw),
        (q_kvar, dso.generators.bus, response.generator_kvar),
    ):
        for k, b in enumerate(bus):
            injected[..., b] += values[..., k]
    return solve_power_flow(dso.feeder, p_kw, q_kvar)


class UncheckedDso:
    """A network that checks nothing: every trade is carried out, and the AC power flow shows what that does.

    The operator answers as ever: it runs its generators, sheds loads and sets prices for the trades that were
    submitted, as far as it would accept them. Only that it curtails them is missing.
    """

    def __init__(self, planner: OpfDso) -> None:
        """
        Args:
            planner: The DSO whose generators, shedding, prices, multipliers and cost these are.
        """
        self.planner = planner

    def __call__(self, query: DsoQuery) -> DsoResponse:
        plan = self.planner(query)
        unchecked = np.full_like(plan.status, int(DsoStatus.UNCHECKED))
        carried_out = replace(plan, accepted_kw=query.proposed_kw, status=unchecked, te_signal_per_kwh=None)
        everywhere = np.ones(plan.status.shape, dtype=bool)
        return with_power_flow(self.planner, carried_out, self.planner.problem(query), everywhere)
