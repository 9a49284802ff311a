"""The problems that every optimal power flow solver is timed on: the same for all, drawn at random, realistic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.grid import DsoQuery, Feeder, OpfDso, feeder_from_tables, load_feeder
from peergrid.grid.dso import SOLVERS
from peergrid.grid.opf import UpperVoltage
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, OpfStatus
from peergrid.grid.parts import resolve

LOAD_SHARE = (0.3, 0.95)
LOAD_SPREAD = 0.2
LMP_PER_KWH = (0.06, 0.165)
PROPOSAL_KW = 1500.0
BINDS_PER_HOUR = 1e-4  # a multiplier above this binds
FAST = "interior_point"
REFERENCE = "conic"


@dataclass(frozen=True, eq=False)
class ProblemSet:
    """A batch of problems of one DSO, each of its rows, and the queries that they answer."""

    dso: OpfDso
    query: DsoQuery

    @cached_property
    def problems(self) -> OpfProblem:
        return self.dso.problem(self.query)

    @cached_property
    def rows(self) -> list[OpfProblem]:
        return [problem_row(self.problems, k) for k in range(len(self))]

    @cached_property
    def queries(self) -> list[DsoQuery]:
        return [query_rows(self.query, k) for k in range(len(self))]

    @cached_property
    def has_free_q(self) -> np.ndarray:
        injections = self.problems.injections
        return (injections.q_max_kvar > injections.q_min_kvar).any(axis=0)

    def __len__(self) -> int:
        return len(self.query.load_kw)

    def solver(self, name: str, **arguments: Any) -> Any:
        """A solver of the package for these problems."""
        shape = (self.dso.feeder, self.problems.injections.bus, self.has_free_q, self.dso.upper_voltage)
        return resolve(SOLVERS[name], "OPF solver", SOLVERS)(*shape, **arguments)


class Answer:
    """What other solvers found, under the names that an OpfSolution has."""

    def __init__(self, problem: OpfProblem, p_kw: np.ndarray, status: OpfStatus, iterations: float = np.nan) -> None:
        self.p_kw, self.status, self.iterations = p_kw, status, iterations
        self.cost_per_hour = problem.injections.cost(p_kw)


def query_rows(query: DsoQuery, chosen: Any) -> DsoQuery:
    """Some of a batch of queries, or one of them."""
    of_rows = ("load_kw", "load_kvar", "proposed_kw", "lmp_per_kwh")
    return replace(query, **{name: np.asarray(getattr(query, name))[chosen, ...] for name in of_rows})


def problem_row(problems: OpfProblem, k: int) -> OpfProblem:
    """One of a batch of problems."""
    of_network = ("load_kw", "load_kvar", "v_source_pu", "v_min_pu", "v_max_pu", "i_max_a")
    return replace(
        problems,
        injections=replace(problems.injections, table=problems.injections.table[k]),
        **{name: getattr(problems, name)[k, ...] for name in of_network},
    )


def draw_query(dso: OpfDso, n: int, rng: np.random.Generator, proposal_kw: float = PROPOSAL_KW) -> DsoQuery:
    """Loads between 0.3 and 0.95 of nominal, each bus 20 % up or down; proposals and prices uniform."""
    feeder = dso.feeder
    load = rng.uniform(*LOAD_SHARE, (n, 1)) * rng.uniform(1 - LOAD_SPREAD, 1 + LOAD_SPREAD, (n, feeder.n_bus))
    return DsoQuery(
        load_kw=load * feeder.load_kw,
        load_kvar=load * feeder.load_kvar,
        proposed_kw=rng.uniform(-proposal_kw, proposal_kw, (n, len(dso.trade_bus))),
        lmp_per_kwh=rng.uniform(*LMP_PER_KWH, n),
    )


def draw_sets(n: int, seed: int = 0) -> dict[str, ProblemSet]:
    """n problems of each kind on `ieee33`: the lossless upper limit not binding, binding, and the plain limit."""
    rng = np.random.default_rng(seed)
    scenario = load_scenario("ieee33")
    lossless, plain = (
        build_dso(replace(scenario, dso=replace(scenario.dso, upper_voltage=upper_voltage)))
        for upper_voltage in (UpperVoltage.LOSSLESS, UpperVoltage.PLAIN)
    )
    kinds: dict[str, list[DsoQuery]] = {"slack": [], "binding": []}
    while min(sum(len(part.load_kw) for part in parts) for parts in kinds.values()) < n:
        query = draw_query(lossless, n, rng)
        response = lossless(query)
        multiplier = np.maximum(response.v_max_multiplier, response.i_max_lossless_multiplier)
        binds = (multiplier > BINDS_PER_HOUR).any(axis=-1)
        kinds["slack"].append(query_rows(query, ~binds))
        kinds["binding"].append(query_rows(query, binds))
    return {
        "slack": ProblemSet(lossless, _first(kinds["slack"], n)),
        "binding": ProblemSet(lossless, _first(kinds["binding"], n)),
        "plain": ProblemSet(plain, draw_query(plain, n, rng)),
    }


def _first(parts: list[DsoQuery], n: int) -> DsoQuery:
    of_rows = ("load_kw", "load_kvar", "proposed_kw", "lmp_per_kwh")
    joined = {name: np.concatenate([getattr(part, name) for part in parts])[:n] for name in of_rows}
    return replace(parts[0], **joined)


def net_injections(problems: OpfProblem, solution: OpfSolution) -> tuple[np.ndarray, np.ndarray]:
    """Injections of every bus, in kW and kvar, at the optimum: the substation, which makes up the balance, left out."""
    p_kw, q_kvar = -problems.load_kw, -problems.load_kvar
    bus = problems.injections.bus
    for device in range(1, len(bus)):
        p_kw[..., bus[device]] += solution.p_kw[..., device]
        q_kvar[..., bus[device]] += solution.q_kvar[..., device]
    return p_kw, q_kvar


def feeders_by_size() -> dict[str, Feeder]:
    """Feeders of 33 to 8,500 buses; the largest is made up."""
    shipped = [load_feeder(name) for name in ("ieee33", "ieee69", "ieee123", "caracas141", "eulv906")]
    large = load_feeder(Path(__file__).parent / "data" / "ieee8500_primary")
    return {feeder.name: feeder for feeder in (*shipped, large, made_up_feeder(8500))}


def made_up_feeder(n_bus: int, seed: int = 0) -> Feeder:
    """A random tree at 12.66 kV that draws 3.7 MW and drops 6 % of its voltage at full load, neglecting losses.

    Each bus hangs on the one before it or, one time in twenty, on any earlier one, which gives laterals of all lengths.
    """
    rng = np.random.default_rng(seed)
    anywhere = (rng.random(n_bus) * np.arange(n_bus)).astype(int)
    parent = np.where(rng.random(n_bus) < 1 / 20, anywhere, np.arange(n_bus) - 1)
    share, length = rng.dirichlet(np.ones(n_bus - 1)), rng.uniform(0.5, 1.5, n_bus)
    limits = {"base_kv": 12.66, "capacitor_kvar": 0.0, "v_min_pu": 0.9, "v_max_pu": 1.05}
    feeder = feeder_from_tables(
        buses=[{"bus": 0, "load_kw": 0.0, "load_kvar": 0.0, **limits}]
        + [
            {"bus": j, "load_kw": 3700 * share[j - 1], "load_kvar": 2300 * share[j - 1], **limits}
            for j in range(1, n_bus)
        ],
        lines=[
            {"from_bus": int(parent[j]), "to_bus": j, "r_ohm": length[j], "x_ohm": 0.75 * length[j], "i_max_a": 400.0}
            for j in range(1, n_bus)
        ],
        name=f"made_up_{n_bus}",
        substation=0,
    )
    p_pu, q_pu = (feeder.downstream_sum(load) / feeder.base_kva for load in (feeder.load_kw, feeder.load_kvar))
    drop = feeder.path_sum(feeder.r_pu * p_pu + feeder.x_pu * q_pu).max()
    return replace(feeder, r_ohm=feeder.r_ohm * 0.06 / drop, x_ohm=feeder.x_ohm * 0.06 / drop)
