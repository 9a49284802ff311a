"""The distribution system operator: a query in, a response out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from peergrid.grid.dso.answering import to_response, with_power_flow
from peergrid.grid.dso.formulation import constant_injections, formulate
from peergrid.grid.dso.layout import DeviceLayout, device_layout
from peergrid.grid.dso.query import DsoQuery, Generators, Penalty, check_operator, check_query
from peergrid.grid.dso.response import DsoResponse, DsoStatus
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, UpperVoltage
from peergrid.grid.opf.solver import SOLVERS, OpfSolver, OpfSolverClass
from peergrid.grid.parts import resolve


@runtime_checkable
class Dso(Protocol):
    """Anything that answers proposals: the OPF, a surrogate, or a network that checks nothing."""

    def __call__(self, query: DsoQuery) -> DsoResponse: ...


class OpfDso:
    """The DSO that solves an optimal power flow: accepts or curtails every trade, prices energy at every bus.

    It may curtail a proposal, never enlarge or reverse it.

    `layout` says which injection of its problems is which device; `solver` solves them.
    """

    layout: DeviceLayout
    solver: OpfSolver

    def __init__(
        self,
        feeder: Feeder,
        trade_bus: Sequence[int] | Int[np.ndarray, " trade"] | None = None,
        *,
        generators: Generators | None = None,
        penalty: Penalty | None = None,
        upper_voltage: UpperVoltage | str = UpperVoltage.LOSSLESS,
        substation_limit_kva: float | None = None,
        solver: str | OpfSolverClass = "interior_point",
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
        self.generators = generators or Generators()
        self.penalty = penalty or Penalty()
        self.upper_voltage = UpperVoltage(upper_voltage)
        self.substation_limit_kva = substation_limit_kva or 10.0 * feeder.base_kva
        places = np.arange(feeder.n_bus) if trade_bus is None else trade_bus
        check_operator(feeder, places, self.generators)
        self.layout = device_layout(feeder.n_bus, self.generators.bus, places)
        self.trade_bus = self.layout.trade_bus
        self.solver = self._made(solver)
        self._constant = constant_injections(self.layout, self.generators, self.substation_limit_kva)

    def __call__(self, query: DsoQuery) -> DsoResponse:
        start = time.perf_counter()
        problem = self.problem(query)
        return self.response(problem, self.solver(problem), start)

    def problem(self, query: DsoQuery) -> OpfProblem:
        """The optimal power flow that answers the query.

        Raises:
            InvalidQuery: Arrays of the wrong shape, NaN, or crossed limits, all named at once.
        """
        penalty = query.penalty or self.penalty
        check_query(query, penalty, self.feeder, len(self.trade_bus))
        return formulate(query, penalty, self.feeder, self.layout, self._constant, self.upper_voltage)

    def response(self, problem: OpfProblem, solution: OpfSolution, start: float) -> DsoResponse:
        """The response that a solution of one of its problems stands for.

        Args:
            start: When work on the query began, by `time.perf_counter`.
        """
        return to_response(self.layout, problem, solution, start)

    def with_solver(self, solver: str | OpfSolverClass) -> OpfDso:
        """The same operator with another solver, given as in the constructor."""
        return OpfDso(
            self.feeder,
            self.trade_bus,
            generators=self.generators,
            penalty=self.penalty,
            upper_voltage=self.upper_voltage,
            substation_limit_kva=self.substation_limit_kva,
            solver=solver,
        )

    def _made(self, solver: str | OpfSolverClass) -> OpfSolver:
        make: OpfSolverClass = resolve(solver, "OPF solver", SOLVERS)
        return make(self.feeder, self.layout.bus, self.layout.has_free_q, self.upper_voltage)


class UncheckedDso:
    """A network that checks nothing: every trade is carried out, and the AC power flow shows what that does.

    First a planner answers as an operator that curtails: generators, shedding and prices are those of its answer. Then
    all trades are carried out in full.
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
        return with_power_flow(self.planner.layout, carried_out, self.planner.problem(query), everywhere)
