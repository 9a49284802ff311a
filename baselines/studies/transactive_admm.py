"""The day's power flows solved by ADMM, hour by hour, beside the central solver."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from peergrid.baselines.episode.transactive import TransactiveDay
from peergrid.envs.transactive.scenario import TransactiveScenario, build_dso
from peergrid.grid.dso import DsoQuery
from peergrid.grid.opf.admm import AdmmIterates, AdmmOpf
from peergrid.grid.opf.interior_point import InteriorPointOpf

MOST_RECORDED = 5000


@dataclass(frozen=True, eq=False, kw_only=True)
class AdmmDay:
    """How ADMM solved each hour; errors are relative to the central solver's cost and exchange."""

    iterations: Int[np.ndarray, " hour"]
    rho: Float[np.ndarray, " hour"]
    power_residual_pu: Float[np.ndarray, " hour"]
    voltage_residual_pu: Float[np.ndarray, " hour"]
    dual_residual: Float[np.ndarray, " hour"]
    cost_error: Float[np.ndarray, " hour"]
    exchange_error: Float[np.ndarray, " hour"]
    messages: Int[np.ndarray, " hour"]
    message_bytes: Int[np.ndarray, " hour"]
    exchange_kw: Float[np.ndarray, " hour"]
    seconds: float
    central_seconds: float
    iterates: AdmmIterates

    def figures(self) -> dict[str, Any]:
        """Everything but the iterates."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "iterates"}


def solve_hours(scenario: TransactiveScenario, day: TransactiveDay) -> AdmmDay:
    """Solve the hours of a day as they were closed, each from nothing; psi starts from the root signal."""
    dso = build_dso(scenario)
    query = DsoQuery(
        load_kw=day.bus_load_kw,
        load_kvar=day.bus_load_kvar,
        proposed_kw=day.asked_kw,
        lmp_per_kwh=day.lmp_per_kwh,
        root_price_per_kwh=day.root_per_kwh,
    )
    problem = dso.problem(query)
    shape = (dso.feeder, dso.layout.bus, dso.layout.has_free_q, dso.upper_voltage)
    admm, central = AdmmOpf(*shape), InteriorPointOpf(*shape)
    admm.solve(problem, record=1), central(problem)  # compiled, or read from disk
    start = time.perf_counter()
    right = central(problem)
    between = time.perf_counter()
    admm.solve(problem)
    end = time.perf_counter()
    result = admm.solve(problem, record=MOST_RECORDED)
    assert result.iterates is not None
    exchange, cost = right.p_kw[:, 0], right.cost_per_hour
    return AdmmDay(
        iterations=result.iterations,
        rho=result.rho,
        power_residual_pu=result.power_residual_pu,
        voltage_residual_pu=result.voltage_residual_pu,
        dual_residual=result.dual_residual,
        cost_error=np.abs(result.solution.cost_per_hour / cost - 1.0),
        exchange_error=np.abs(result.solution.p_kw[:, 0] / exchange - 1.0),
        messages=result.messages,
        message_bytes=result.message_bytes,
        exchange_kw=exchange,
        seconds=end - between,
        central_seconds=between - start,
        iterates=result.iterates,
    )
