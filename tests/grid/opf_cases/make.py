"""Writes `expected.json` of the cases beside this file; those whose source is "by hand" it compares only.

    python tests/grid/opf_cases/make.py [case ...]

The equations of grid/opf/problem.py are written once more, as a quadratic program without cones or a modelling
language, and solved from a cold start by SciPy's SLSQP. Newton's method on the optimality conditions, with the limits
that SLSQP found to bind, brings the last digits, and benchmarks/kkt.py judges the result in a formulation of its own.
No solver of the package takes part.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cases import FOLDERS, Case, read_case
from jaxtyping import Float, Int
from scipy.linalg import null_space
from scipy.optimize import lsq_linear, minimize

from peergrid.grid.opf.problem import OpfSolution, OpfStatus, UpperVoltage, relaxation_gap

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
import kkt

BINDS = 1e-6
LARGEST_RESIDUAL = 1e-9
TOLERANCE = {"per_hour": 1e-7, "kw": 1e-2, "pu": 1e-6, "per_kwh": 1e-5, "multiplier": 1e-3}
WIDTH = 118
EVERY_FLOW = 8  # buses, up to which flows are listed as well
DIGITS = 10

Vector = Float[np.ndarray, "*batch x"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Quadratic:
    """Rows constant + linear x + x' bend x / 2; the bends as entries (row, k, l, value), for k, l in both orders."""

    constant: Float[np.ndarray, " row"]
    linear: Float[np.ndarray, "row x"]
    entries: tuple[Int[np.ndarray, " entry"], ...]
    values: Float[np.ndarray, " entry"]

    def __call__(self, x: Float[np.ndarray, " x"]) -> Float[np.ndarray, " row"]:
        row, k, l = self.entries  # noqa: E741
        bent = np.bincount(row, self.values * x[k] * x[l], minlength=len(self.constant))
        return self.constant + self.linear @ x + bent / 2.0

    def slope(self, x: Float[np.ndarray, " x"]) -> Float[np.ndarray, "row x"]:
        row, k, l = self.entries  # noqa: E741
        slope = self.linear.copy()
        np.add.at(slope, (row, k), self.values * x[l])
        return slope

    def bend(self, weights: Float[np.ndarray, " row"]) -> Float[np.ndarray, "x x"]:
        """The second derivative of a weighted sum of rows."""
        row, k, l = self.entries  # noqa: E741
        bend = np.zeros((self.linear.shape[1],) * 2)
        np.add.at(bend, (k, l), self.values * weights[row])
        return bend


def quadratic(rows: Callable[[Vector], Any], n_x: int) -> Quadratic:
    """Functions of degree two, whose central differences are exact, taken apart."""
    step = np.eye(n_x)

    def slope(x: Float[np.ndarray, " x"]) -> Any:
        return (rows(x + step) - rows(x - step)).T / 2.0

    entries, values = [], []
    for l, e in enumerate(step):  # noqa: E741
        bend = (slope(e) - slope(-e)) / 2.0
        row, k = np.nonzero(np.abs(bend) > 1e-12)
        entries.append(np.stack([row, k, np.full_like(k, l)]))
        values.append(bend[row, k])
    origin = np.zeros(n_x)
    return Quadratic(
        constant=rows(origin),
        linear=slope(origin),
        entries=tuple(np.concatenate(entries, axis=1)),
        values=np.concatenate(values),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """min cost(x) with equal(x) = 0 and room(x) >= 0, and which entries of x and of the rows are what."""

    variables: dict[str, slice]
    equal_rows: dict[str, slice]
    room_rows: dict[str, slice]
    cost: Quadratic
    equal: Quadratic
    room: Quadratic
    dispatch: Callable[[Vector], Any]
    moves_p: Int[np.ndarray, " device"]
    moves_q: Int[np.ndarray, " device"]
    rated: Int[np.ndarray, " rated"]
    start: Float[np.ndarray, " x"]
    per_kwh: float  # costs are divided by this times the base


def program_of(case: Case) -> Program:
    problem, feeder, injections = case.problem, case.feeder, case.problem.injections
    s, n = feeder.base_kva, feeder.n_bus
    parent, r, x_pu = feeder.parent[1:], feeder.r_pu[1:], feeder.x_pu[1:]
    load_p, load_q = problem.load_kw / s, (problem.load_kvar - feeder.capacitor_kvar) / s
    rated = np.flatnonzero(np.isfinite(problem.i_max_a[1:]))
    l_max = (problem.i_max_a / feeder.base_a)[1:][rated] ** 2
    # What cannot move is no variable.
    moves_p = np.flatnonzero(injections.p_max_kw > injections.p_min_kw)
    moves_q = np.flatnonzero(injections.q_max_kvar > injections.q_min_kvar)
    steepest = 2.0 * injections.quadratic_per_kw2h * (injections.p_max_kw - injections.p_min_kw)
    per_kwh = max(0.1, 0.01 * steepest.max())
    lossless = problem.upper_voltage is UpperVoltage.LOSSLESS
    names = ["P", "Q", "l", "v"] + ["Ph", "Qh", "vh"] * lossless
    sizes = {"p": len(moves_p), "h": len(moves_q)} | dict.fromkeys(names, n - 1)
    variables = _slices(sizes)

    def spread(values: Any, at: Int[np.ndarray, " some"], size: int, rest: Any = 0.0) -> Any:
        out = np.zeros((*values.shape[:-1], size)) + rest
        out[..., at] = values
        return out

    def dispatch(x: Vector) -> tuple[Any, Any]:
        """Active and reactive power of every device."""
        p = spread(x[..., variables["p"]], moves_p, len(injections.bus), injections.p_min_kw / s)
        h = spread(x[..., variables["h"]], moves_q, len(injections.bus), injections.q_min_kvar / s)
        return p, injections.tan_phi * p + h

    def cost(x: Vector) -> Any:
        away = dispatch(x)[0] * s - injections.reference_kw
        return (injections.linear_per_kwh * away + injections.quadratic_per_kw2h * away**2).sum(axis=-1) / (per_kwh * s)

    def sent_on(flow: Any) -> Any:
        """What leaves each bus towards its children."""
        out = np.zeros((*flow.shape[:-1], n))
        for j, a in enumerate(parent):
            out[..., a] += flow[..., j]
        return out

    def arrives(flow: Any, loss: Any) -> Any:
        return np.concatenate([np.zeros_like(flow[..., :1]), flow - loss], axis=-1)

    def at_parent(v: Any) -> Any:
        return np.concatenate([np.full_like(v[..., :1], problem.v_source_pu**2), v], axis=-1)[..., parent]

    def equal_parts(x: Vector) -> dict[str, Any]:
        y = {name: x[..., of] for name, of in variables.items()}
        p, q = dispatch(x)
        net_p, net_q = -load_p + np.zeros((*x.shape[:-1], n)), -load_q + np.zeros((*x.shape[:-1], n))
        for d, b in enumerate(injections.bus):
            net_p[..., b] += p[..., d]
            net_q[..., b] += q[..., d]
        rows = {
            "balance_p": arrives(y["P"], r * y["l"]) + net_p - sent_on(y["P"]),
            "balance_q": arrives(y["Q"], x_pu * y["l"]) + net_q - sent_on(y["Q"]),
            "drop": at_parent(y["v"]) - 2 * (r * y["P"] + x_pu * y["Q"]) + (r**2 + x_pu**2) * y["l"] - y["v"],
        }
        if lossless:
            rows |= {
                "lossless_p": (arrives(y["Ph"], 0.0) + net_p - sent_on(y["Ph"]))[..., 1:],
                "lossless_q": (arrives(y["Qh"], 0.0) + net_q - sent_on(y["Qh"]))[..., 1:],
                "lossless_drop": at_parent(y["vh"]) - 2 * (r * y["Ph"] + x_pu * y["Qh"]) - y["vh"],
            }
        return rows

    def room_parts(x: Vector) -> dict[str, Any]:
        y = {name: x[..., of] for name, of in variables.items()}
        v_from = at_parent(y["v"])
        rows = {
            "p_min": y["p"] - (injections.p_min_kw / s)[moves_p],
            "p_max": (injections.p_max_kw / s)[moves_p] - y["p"],
            "q_min": y["h"] - (injections.q_min_kvar / s)[moves_q],
            "q_max": (injections.q_max_kvar / s)[moves_q] - y["h"],
            "cone": y["l"] * v_from - y["P"] ** 2 - y["Q"] ** 2,
            "v_min": y["v"] - problem.v_min_pu[1:] ** 2,
            "v_max": problem.v_max_pu[1:] ** 2 - y["vh" if lossless else "v"],
            "i_max": l_max - y["l"][..., rated],
        }
        if lossless:
            within = l_max * v_from[..., rated]
            rows["i_max_lossless"] = within - y["Ph"][..., rated] ** 2 - y["Qh"][..., rated] ** 2
        return rows

    def joined(parts: Callable[[Vector], dict[str, Any]]) -> Callable[[Vector], Any]:
        return lambda x: np.concatenate(list(parts(x).values()), axis=-1)

    start = np.zeros(sum(sizes.values()))
    for name in ("v", "vh"):
        start[variables.get(name, slice(0, 0))] = problem.v_source_pu**2
    start[variables["l"]] = 0.1
    n_x = len(start)
    return Program(
        variables=variables,
        equal_rows=_slices({name: len(part) for name, part in equal_parts(start).items()}),
        room_rows=_slices({name: len(part) for name, part in room_parts(start).items()}),
        cost=quadratic(lambda x: cost(x)[..., None], n_x),
        equal=quadratic(joined(equal_parts), n_x),
        room=quadratic(joined(room_parts), n_x),
        dispatch=dispatch,
        moves_p=moves_p,
        moves_q=moves_q,
        rated=rated,
        start=start,
        per_kwh=per_kwh,
    )


def _slices(sizes: dict[str, int]) -> dict[str, slice]:
    ends = np.cumsum([0, *sizes.values()])
    return {name: slice(*ends[k : k + 2]) for k, name in enumerate(sizes)}


def cold_start(program: Program) -> Float[np.ndarray, " x"]:
    """SLSQP's answer, from no flow at the voltage of the source."""
    best = minimize(
        lambda x: program.cost(x)[0],
        program.start,
        jac=lambda x: program.cost.slope(x)[0],
        constraints=[
            {"type": kind, "fun": rows, "jac": rows.slope}
            for kind, rows in (("eq", program.equal), ("ineq", program.room))
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    if np.abs(program.equal(best.x)).max() > 1e-6 or program.room(best.x).min() < -1e-6:
        raise RuntimeError(f"SLSQP: {best.message}")
    return best.x


@dataclass(frozen=True, eq=False, kw_only=True)
class Optimum:
    """x, the multipliers of all rows, and the directions in which the conditions leave them open."""

    x: Float[np.ndarray, " x"]
    of_equal: Float[np.ndarray, " equal"]
    of_room: Float[np.ndarray, " room"]
    open_x: Float[np.ndarray, "x direction"]
    open_equal: Float[np.ndarray, "equal direction"]
    open_room: Float[np.ndarray, "room direction"]


def polish(program: Program, x: Float[np.ndarray, " x"], is_tight: bool) -> Optimum:
    """Newton's method on stationarity, the equations, and the limits that bind at x, among them all cones if tight.

    SLSQP leaves the cone of a line of a milliohm open, where current costs hardly anything.
    """
    n_x, n_equal = len(x), len(program.equal.constant)
    is_cone = np.zeros(len(program.room.constant), dtype=bool)
    is_cone[program.room_rows["cone"]] = is_tight
    near = np.flatnonzero((program.room(x) < BINDS) | is_cone)
    rows = np.concatenate([program.equal.slope(x), program.room.slope(x)[near]])
    least = np.concatenate([np.full(n_equal, -np.inf), np.zeros(len(near))])
    y = lsq_linear(rows.T, program.cost.slope(x)[0], (least, np.inf), tol=1e-14, max_iter=1000).x
    presses = (y[n_equal:] > BINDS) | is_cone[near]
    binding, y = near[presses], np.concatenate([y[:n_equal], y[n_equal:][presses]])

    def conditions() -> tuple[Any, Any]:
        slopes = np.concatenate([program.equal.slope(x), program.room.slope(x)[binding]])
        of_room = np.zeros(len(program.room.constant))
        of_room[binding] = y[n_equal:]
        bend = program.cost.bend(np.ones(1)) - program.equal.bend(y[:n_equal]) - program.room.bend(of_room)
        stationary = program.cost.slope(x)[0] - slopes.T @ y
        error = np.concatenate([stationary, program.equal(x), program.room(x)[binding]])
        return error, np.block([[bend, -slopes.T], [slopes, np.zeros((len(y), len(y)))]])

    for _ in range(8):
        error, matrix = conditions()
        step = np.linalg.lstsq(matrix, -error, rcond=1e-13)[0]
        x, y = x + step[:n_x], y + step[n_x:]
    open_x, open_equal, open_binding = np.split(null_space(conditions()[1], rcond=1e-11), [n_x, n_x + n_equal])
    of_room, open_room = np.zeros(len(program.room.constant)), np.zeros((len(program.room.constant), open_x.shape[1]))
    of_room[binding], open_room[binding] = y[n_equal:], open_binding
    return Optimum(
        x=x, of_equal=y[:n_equal], of_room=of_room, open_x=open_x, open_equal=open_equal, open_room=open_room
    )


def parts(
    case: Case, program: Program, x: Vector, of_equal: Float[np.ndarray, " row"], of_room: Float[np.ndarray, " row"]
) -> dict[str, Float[np.ndarray, " any"]]:
    """The names of a solution in p.u., linear in x and the multipliers: of a point, or of a direction."""
    n_device, n_bus = len(case.problem.injections.bus), case.feeder.n_bus

    def at(size: int, where: Any, values: Any) -> Float[np.ndarray, " any"]:
        out = np.zeros(size)
        out[where] = values
        return out

    def of_limit(name: str, where: Any = slice(1, None)) -> Float[np.ndarray, " bus"]:
        rows = program.room_rows.get(name)
        return np.zeros(n_bus) if rows is None else at(n_bus, where, of_room[rows])

    def price(kind: str) -> Float[np.ndarray, " bus"]:
        lossless = program.equal_rows.get(f"lossless_{kind}", slice(0, 0))
        with_losses = of_equal[program.equal_rows[f"balance_{kind}"]]
        return with_losses + at(n_bus, slice(n_bus - len(of_equal[lossless]), None), of_equal[lossless])

    flow = {name: at(n_bus, slice(1, None), x[program.variables[name]]) for name in ("P", "Q", "l", "v")}
    device_p, device_h = (
        at(n_device, where, x[program.variables[name]])
        for name, where in (("p", program.moves_p), ("h", program.moves_q))
    )
    return {
        "p_kw": device_p,
        "q_kvar": case.problem.injections.tan_phi * device_p + device_h,
        "flow_kw": flow["P"],
        "flow_kvar": flow["Q"],
        "current_pu2": flow["l"],
        "voltage_pu": flow["v"],
        "price_per_kwh": price("p"),
        "reactive_price_per_kvarh": price("q"),
        "v_min_multiplier": of_limit("v_min"),
        "v_max_multiplier": of_limit("v_max"),
        "i_max_multiplier": of_limit("i_max", 1 + program.rated),
        "i_max_lossless_multiplier": of_limit("i_max_lossless", 1 + program.rated),
    }


def solution_of(case: Case, program: Program, optimum: Optimum) -> OpfSolution:
    s, injections = case.feeder.base_kva, case.problem.injections
    values = parts(case, program, optimum.x, optimum.of_equal, optimum.of_room)
    p, q = program.dispatch(optimum.x)
    values |= {"p_kw": p * s, "q_kvar": q * s, "flow_kw": values["flow_kw"] * s, "flow_kvar": values["flow_kvar"] * s}
    values["voltage_pu"] = np.sqrt(values["voltage_pu"])
    values["voltage_pu"][0] = case.problem.v_source_pu
    values |= {name: value * program.per_kwh for name, value in values.items() if "price" in name}
    values |= {name: value * program.per_kwh * s for name, value in values.items() if "multiplier" in name}
    return OpfSolution(
        **values,
        cost_per_hour=np.asarray(injections.cost(p * s)),
        status=np.array(int(OpfStatus.OPTIMAL)),
        iterations=np.array(0),
    )


def left_open(case: Case, program: Program, optimum: Optimum) -> OpfSolution:
    """1 where the conditions do not determine a number, else 0."""
    found = parts(case, program, np.zeros_like(optimum.x), np.zeros_like(optimum.of_equal), optimum.of_room * 0)
    for direction in zip(optimum.open_x.T, optimum.open_equal.T, optimum.open_room.T, strict=True):
        for name, value in parts(case, program, *direction).items():
            found[name] = np.maximum(found[name], np.abs(value) > 1e-6)
    one = np.zeros(())
    return OpfSolution(**found, cost_per_hour=one, status=one.astype(int), iterations=one.astype(int))


def expected_of(case: Case) -> dict[str, Any]:
    program = program_of(case)
    start = cold_start(program)
    for is_tight in (True, False):
        optimum = polish(program, start, is_tight)
        solution = solution_of(case, program, optimum)
        residuals = kkt.kkt_residuals(case.problem, kkt.point_of(case.problem, solution))
        if max(residuals.worst()) < LARGEST_RESIDUAL:
            break
    else:
        raise RuntimeError(f"{case.name}: no optimum, {residuals}")
    if case.expected.get("source") == "by hand" and (wrong := case.differences(solution)):
        raise RuntimeError(f"not as calculated by hand: {wrong}")
    found, is_open = case.quantities(solution), case.quantities(left_open(case, program, optimum))
    is_tight = bool(relaxation_gap(case.feeder, solution) < BINDS)
    expected: dict[str, Any] = {
        "source": Path(__file__).name,
        "status": OpfStatus.OPTIMAL.name,
        "relaxation_is_tight": None if is_tight and any(is_open["flow_kw"].values()) else is_tight,
    }
    for name, values in found.items():
        if name.startswith("flow") and case.feeder.n_bus > EVERY_FLOW:
            continue
        if isinstance(values, dict):
            shown = {bus: _shown(value, is_open[name][bus]) for bus, value in values.items()}
            if name == "shed_kw" or "multiplier" in name:
                shown = {bus: value for bus, value in shown.items() if value != 0}
        elif isinstance(values, list):
            shown = [_shown(value, unknown) for value, unknown in zip(values, is_open[name], strict=True)]
        else:
            shown = _shown(values, is_open[name])
        if shown not in ([], {}):
            expected[name] = shown
    return expected | {"tolerance": TOLERANCE | case.expected.get("tolerance", {})}


def _shown(value: float, is_open: float) -> float | None:
    return None if is_open else 0.0 if abs(value) < 1e-9 else float(f"{value:.{DIGITS}g}")


def written(expected: dict[str, Any]) -> str:
    """JSON with a line per quantity, or a few where it doesn't fit."""
    lines = []
    for name, value in expected.items():
        whole_pairs = f'"{name}": {json.dumps(value)}'.replace(": ", ":\N{NO-BREAK SPACE}")
        wrapped = textwrap.wrap(
            whole_pairs, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False
        )
        lines.append("\n".join(wrapped).replace("\N{NO-BREAK SPACE}", " "))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    wanted = sys.argv[1:]
    for folder in FOLDERS:
        case = read_case(folder)
        if (wanted and case.name not in wanted) or case.expected.get("status", "OPTIMAL") != "OPTIMAL":
            continue
        expected = expected_of(case)
        print(f"{case.name}: {expected['cost_per_hour']} per hour")
        if case.expected.get("source") != "by hand":
            (folder / "expected.json").write_text(written(expected), encoding="utf-8")


if __name__ == "__main__":
    main()
