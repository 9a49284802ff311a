"""What a small change of a query does to the DSO's response; `grid/opf/gradient.py` says where that is defined."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from peergrid.grid.dso.operators import OpfDso
from peergrid.grid.dso.query import DsoQuery
from peergrid.grid.dso.response import DsoResponse, DsoStatus
from peergrid.grid.errors import InvalidQuery
from peergrid.grid.opf.gradient import SolutionGradient, solve_with_gradient
from peergrid.grid.opf.interior_point import InteriorPointOpf


@dataclass(frozen=True, eq=False, kw_only=True)
class ResponseGradient:
    """Gradient of a loss with respect to fields of a `DsoResponse`; None where the loss doesn't use them."""

    accepted_kw: Float[np.ndarray, "*batch trade"] | None = None
    shed_kw: Float[np.ndarray, "*batch bus"] | None = None
    generator_kw: Float[np.ndarray, "*batch gen"] | None = None
    generator_kvar: Float[np.ndarray, "*batch gen"] | None = None
    substation_kw: Float[np.ndarray, "*batch"] | None = None
    substation_kvar: Float[np.ndarray, "*batch"] | None = None
    voltage_pu: Float[np.ndarray, "*batch bus"] | None = None
    flow_kw: Float[np.ndarray, "*batch bus"] | None = None
    flow_kvar: Float[np.ndarray, "*batch bus"] | None = None
    price_per_kwh: Float[np.ndarray, "*batch bus"] | None = None
    reactive_price_per_kvarh: Float[np.ndarray, "*batch bus"] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class QueryGradient:
    """Gradient of a loss with respect to the numbers of a `DsoQuery`, with limits as if they had been given."""

    load_kw: Float[np.ndarray, "*batch bus"]
    load_kvar: Float[np.ndarray, "*batch bus"]
    proposed_kw: Float[np.ndarray, "*batch trade"]
    lmp_per_kwh: Float[np.ndarray, "*batch"]
    v_min_pu: Float[np.ndarray, "*batch bus"]
    v_max_pu: Float[np.ndarray, "*batch bus"]
    i_max_a: Float[np.ndarray, "*batch bus"]


def respond_with_gradient(
    dso: OpfDso, query: DsoQuery
) -> tuple[DsoResponse, Callable[[ResponseGradient], QueryGradient]]:
    """The response, and its pull-back: from a loss's gradient in the response to that in the query's numbers.

    Gradients are zero for responses whose status is not OPTIMAL. First proposals and penalties are constants to them.

    Raises:
        InvalidQuery: The query is at fault, or the DSO's solver is not the interior-point method.
    """
    if not isinstance(dso.solver, InteriorPointOpf):
        raise InvalidQuery(
            f"gradients come from the solver 'interior_point'; this DSO's is {type(dso.solver).__name__}"
        )
    start = time.perf_counter()
    problem = dso.problem(query)
    solution, to_problem = solve_with_gradient(dso.solver, problem)
    response = dso.response(problem, solution, start)
    penalty, layout, asked = query.penalty or dso.penalty, dso.layout, problem.injections

    def pull_back(of_response: ResponseGradient) -> QueryGradient:
        is_optimal = (response.status == int(DsoStatus.OPTIMAL))[..., None]
        p_kw, q_kvar = np.zeros((2, *response.status.shape, layout.n_device))
        for of_devices, places, values in (
            (p_kw, layout.trades, of_response.accepted_kw),
            (p_kw, layout.generators, of_response.generator_kw),
            (q_kvar, layout.generators, of_response.generator_kvar),
            (p_kw, layout.sheddable, None if of_response.shed_kw is None else of_response.shed_kw[..., 1:]),
            (p_kw, layout.substation, of_response.substation_kw),
            (q_kvar, layout.substation, of_response.substation_kvar),
        ):
            if values is not None:
                of_devices[..., places] = values
        at_bus = ("voltage_pu", "flow_kw", "flow_kvar", "price_per_kwh", "reactive_price_per_kvarh")
        given = {"p_kw": p_kw, "q_kvar": q_kvar} | {name: getattr(of_response, name) for name in at_bus}
        of_solution = {name: np.where(is_optimal, v, 0.0) for name, v in given.items() if v is not None}
        found = to_problem(SolutionGradient(**of_solution))

        # A load is also what can be shed of it, and its reactive part goes with that.
        of_load, of_reactive_load = found.load_kw.copy(), found.load_kvar.copy()
        sheddable = layout.sheddable
        tan_phi, most = asked.tan_phi[..., sheddable], asked.p_max_kw[..., sheddable]
        of_tan_phi, of_most = found.tan_phi[..., sheddable], found.p_max_kw[..., sheddable]
        per_kw = np.divide(of_tan_phi, most, out=np.zeros(most.shape), where=most > 0)
        of_load[..., 1:] += np.where(most > 0, of_most, 0.0) - tan_phi * per_kw
        of_reactive_load[..., 1:] += per_kw
        # A proposal is the bound on its side of zero, and what curtailment is counted from unless that was said.
        proposed, trades = query.proposed_kw, layout.trades
        of_proposed = np.where(proposed < 0, found.p_min_kw[..., trades], 0.0)
        of_proposed += np.where(proposed > 0, found.p_max_kw[..., trades], 0.0)
        counts_from_itself = asked.reference_kw[..., trades] == proposed
        of_proposed += np.where(counts_from_itself, found.reference_kw[..., trades], 0.0)
        of_lmp = found.linear_per_kwh[..., layout.substation]
        if penalty.energy_at_lmp:
            of_lmp = of_lmp + found.linear_per_kwh[..., trades].sum(axis=-1)
        return QueryGradient(
            load_kw=of_load,
            load_kvar=of_reactive_load,
            proposed_kw=of_proposed,
            lmp_per_kwh=np.asarray(of_lmp),
            v_min_pu=found.v_min_pu,
            v_max_pu=found.v_max_pu,
            i_max_a=found.i_max_a,
        )

    return response, pull_back
