"""Reads the folders beside this file: an optimal power flow each, with its answer from another source than the solvers.

    README.md       the corner, and where the answer comes from
    problem.json    the question to the operator, see `read_problem`
    feeder.toml, buses.csv, lines.csv    the feeder, if it is not a shipped one
    expected.json   status, numbers by bus name or in the order of the question, tolerances

What is null in `expected.json` is not determined: other optima have other values. Of sheddings and multipliers only
those are listed that are not 0. Tolerances of costs and prices are relative to them where they are above 1, those of
multipliers to the largest of a kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from peergrid.grid import load_feeder
from peergrid.grid.dso import DsoQuery, Generators, OpfDso, Penalty
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import (
    ANSWERED_OF_BUSES,
    Injections,
    OpfProblem,
    OpfSolution,
    OpfStatus,
    UpperVoltage,
    relaxation_gap,
)

FOLDERS = sorted(file.parent for file in Path(__file__).parent.glob("*/problem.json"))
GENERATOR_FIELDS = [f.name for f in fields(Generators) if f.name != "bus"]
KINDS = (
    ("cost_per_hour", "per_hour"),
    ("_kw", "kw"),
    ("_kvar", "kw"),
    ("_pu", "pu"),
    ("per_kwh", "per_kwh"),
    ("per_kvarh", "per_kwh"),
    ("_multiplier", "multiplier"),
)
OF_NETWORK = ("load_kw", "load_kvar", "v_source_pu", "v_min_pu", "v_max_pu", "i_max_a")


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """A problem and which of its flexible injections are what."""

    name: str
    problem: OpfProblem
    n_generator: int
    n_trade: int
    expected: dict[str, Any]

    @property
    def feeder(self) -> Feeder:
        return self.problem.feeder

    @property
    def has_free_q(self) -> np.ndarray:
        return np.arange(len(self.problem.injections.bus)) <= self.n_generator

    def shape(self) -> tuple[Any, ...]:
        """Cases of equal shape can be solved by one solver, in one batch."""
        arrays = tuple(v.tobytes() for f in fields(Feeder) if isinstance(v := getattr(self.feeder, f.name), np.ndarray))
        return *arrays, self.problem.injections.bus.tobytes(), self.n_generator, self.problem.upper_voltage

    def differences(self, solution: OpfSolution) -> list[str]:
        """What of a solution is not as expected."""
        expected, tolerance = self.expected, self.expected["tolerance"]
        status = OpfStatus(int(solution.status)).name
        if status != expected["status"]:
            return [f"{self.name}: {status}, not {expected['status']}"]
        found = self.quantities(solution)
        is_tight = bool(relaxation_gap(self.feeder, solution) < tolerance["pu"])
        wrong = [] if expected.get("relaxation_is_tight") in (is_tight, None) else [f"relaxation is tight: {is_tight}"]
        for name in [name for name in expected if name in found]:
            kind = next(unit for suffix, unit in KINDS if name.endswith(suffix))
            values, right = _listed(found[name]), _listed(expected[name])
            largest = max((abs(value) for value in right.values() if value), default=0.0)
            for where, value in values.items():
                sought = right.get(where, 0.0)
                if sought is None:
                    continue
                size = {"kw": 1.0, "pu": 1.0, "multiplier": max(1.0, largest)}.get(kind, max(1.0, abs(sought)))
                if not abs(value - sought) <= tolerance[kind] * size:
                    wrong.append(f"{name} at {where}: {value:.10g}, not {sought:.10g}")
        return [f"{self.name}: {what}" for what in wrong]

    def quantities(self, solution: OpfSolution) -> dict[str, Any]:
        """A solution in the terms of `expected.json`: numbers by bus name, or in the order of the question."""
        generators, trades = slice(1, 1 + self.n_generator), slice(len(solution.p_kw) - self.n_trade, None)
        shed = np.concatenate([[0.0], solution.p_kw[1 + self.n_generator : trades.start]])
        of_lines = np.arange(self.feeder.n_bus) > 0
        by_bus = {
            "shed_kw": shed,
            "flow_kw": solution.flow_kw,
            "flow_kvar": solution.flow_kvar,
            "voltage_pu": solution.voltage_pu,
            "price_per_kwh": solution.price_per_kwh,
            "reactive_price_per_kvarh": solution.reactive_price_per_kvarh,
            **{name: getattr(solution, name) for name in ANSWERED_OF_BUSES if "multiplier" in name},
        }
        of_the_substation_too = {"voltage_pu", "price_per_kwh", "reactive_price_per_kvarh"}
        return {
            "cost_per_hour": float(solution.cost_per_hour),
            "substation_kw": float(solution.p_kw[0]),
            "substation_kvar": float(solution.q_kvar[0]),
            "generator_kw": solution.p_kw[generators].tolist(),
            "generator_kvar": solution.q_kvar[generators].tolist(),
            "accepted_kw": solution.p_kw[trades].tolist(),
        } | {
            name: {b: float(v) for b, v, line in zip(self.feeder.bus, values, of_lines, strict=True)
                   if line or name in of_the_substation_too}
            for name, values in by_bus.items()
        }  # fmt: skip


def _listed(values: Any) -> dict[str, float | None]:
    if isinstance(values, list):
        return {str(k): value for k, value in enumerate(values)}
    return values if isinstance(values, dict) else {"the feeder": values}


def read_case(folder: Path) -> Case:
    expected = folder / "expected.json"
    asked = json.loads((folder / "problem.json").read_text(encoding="utf-8"))
    return Case(
        name=folder.name,
        problem=read_problem(folder, asked),
        n_generator=len(asked.get("generators", [])),
        n_trade=len(asked.get("trades", [])),
        expected=json.loads(expected.read_text(encoding="utf-8")) if expected.exists() else {},
    )


def read_problem(folder: Path, asked: dict[str, Any]) -> OpfProblem:
    """The problem that a question stands for.

    feeder: a shipped one, or "." for the one in the folder. upper_voltage, lmp_per_kwh, penalty: as the operator's.
    load_share: of the feeder's loads. v_min_pu, v_max_pu, i_max_a: instead of the feeder's limits. The last four are
    numbers, or bus names with a number each, "others" for the rest. trades: bus and proposed_kw each. generators: bus
    and the fields of `Generators` each.
    """
    feeder = load_feeder(folder if asked["feeder"] == "." else asked["feeder"])
    limits = {name: _by_bus(feeder, asked[name]) for name in ("v_min_pu", "v_max_pu", "i_max_a") if name in asked}
    feeder = replace(feeder, **limits)
    trades, generators = asked.get("trades", []), asked.get("generators", [])
    dso = OpfDso(
        feeder,
        [feeder.index(trade["bus"]) for trade in trades],
        generators=Generators(
            bus=tuple(feeder.index(generator["bus"]) for generator in generators),
            **{name: np.array([float(g[name]) for g in generators]) for name in GENERATOR_FIELDS},
        ),
        penalty=Penalty(**asked["penalty"]),
        upper_voltage=UpperVoltage(asked["upper_voltage"]),
        substation_limit_kva=asked.get("substation_limit_kva"),
    )
    share = _by_bus(feeder, asked["load_share"])
    return dso.problem(
        DsoQuery(
            load_kw=share * feeder.load_kw,
            load_kvar=share * feeder.load_kvar,
            proposed_kw=np.array([float(trade["proposed_kw"]) for trade in trades]),
            lmp_per_kwh=float(asked["lmp_per_kwh"]),
        )
    )


def _by_bus(feeder: Feeder, given: float | dict[str, float | None] | None) -> np.ndarray:
    values = given if isinstance(given, dict) else {"others": given}
    if unknown := set(values) - {*feeder.bus, "others"}:
        raise KeyError(f"{feeder.name} has no buses {sorted(unknown)}")
    at_bus = [values.get(bus, values.get("others")) for bus in feeder.bus]
    # An unrated line is null in JSON.
    return np.array([np.inf if value is None else float(value) for value in at_bus])


def stack(problems: Sequence[OpfProblem]) -> OpfProblem:
    """Problems of one shape as a batch."""
    first = problems[0]
    injections = {
        f.name: np.stack([getattr(problem.injections, f.name) for problem in problems])
        for f in fields(Injections)
        if f.name != "bus"
    }
    return replace(
        first,
        injections=replace(first.injections, **injections),
        **{name: np.stack([getattr(problem, name) for problem in problems]) for name in OF_NETWORK},
    )


def row(solution: OpfSolution, index: int) -> OpfSolution:
    """One answer of a batch."""
    found = {f.name: values for f in fields(solution) if (values := getattr(solution, f.name)) is not None}
    return OpfSolution(**{name: np.asarray(values[index]) for name, values in found.items()})
