"""Judges answers to optimal power flows by their optimality conditions, in plain NumPy: nothing is solved here.

The problem is convex, so a point that is feasible, stationary and complementary is a global optimum, whoever found it:

    feasible        the equations and limits at the head of grid/opf/problem.py
    stationary      the derivative of the Lagrangian by every variable is 0, multipliers being in their cones:
                      P_j     lP_A(j) - lP_j + 2 r_j m_j - zP_j = 0             lP, lQ: of the balances, m: of the drop
                      Q_j     lQ_A(j) - lQ_j + 2 x_j m_j - zQ_j = 0             z: of the cone
                      l_j     r_j lP_j + x_j lQ_j - |r_j + i x_j|^2 m_j - zl_j + (of i_max) = 0
                      v_j     m_j - sum_k (m_k + zv_k + hv_k) - (of v_min) + (of v_max) = 0         k: children of j
                      Ph_j, Qh_j, vh_j   as P, Q, v, with lhP, lhQ, mh and h, the multiplier of lossless ratings
                      device             marginal cost - price - tan_phi * reactive price = 0 between its bounds
    complementary   sum of multiplier * room = 0: what another dispatch could save

Everything is in p.u., `v` for squared voltages and `l` for squared currents; money in PRICE_PER_KWH times the base.
docs/derivation.md derives the conditions, and has lP, lQ as L_P, L_Q, and zP as zeta_P.
`OpfSolution` leaves some multipliers out; `point_of` finds them by one sweep up the feeder and one down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from peergrid.grid.opf.problem import OpfProblem, OpfSolution, OpfStatus, UpperVoltage

PRICE_PER_KWH = 0.1
# A rating beyond this many times the current of the nominal load stands for none, as the solvers have it.
LARGEST_RATING_PU = 100.0
UNRATED = 1e300  # times a multiplier of 0 it is 0, unlike infinity
IDLE_PU = 1e-4
LEAST_V = 1e-6

ByBus = Float[np.ndarray, "*batch bus"]
ByDevice = Float[np.ndarray, "*batch device"]
ByRow = Float[np.ndarray, "*batch"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Cone:
    """Multipliers of P^2 + Q^2 <= l v, l and v not negative."""

    p: ByBus
    q: ByBus
    l: ByBus  # noqa: E741
    v: ByBus

    def violation(self) -> ByBus:
        """Of the dual cone, p^2 + q^2 <= 4 l v."""
        return np.maximum(np.sqrt(self.p**2 + self.q**2 + (self.l - self.v) ** 2) - self.l - self.v, 0.0)

    def gap(self, p: ByBus, q: ByBus, l: ByBus, v: ByBus) -> ByBus:  # noqa: E741
        """Multipliers times what they belong to."""
        return self.p * p + self.q * q + self.l * l + self.v * v


@dataclass(frozen=True, eq=False, kw_only=True)
class Lossless:
    """The lossless flow, in the variant that has one."""

    p: ByBus
    q: ByBus
    v: ByBus
    price: ByBus
    reactive_price: ByBus
    drop: ByBus
    i_max: Cone


@dataclass(frozen=True, eq=False, kw_only=True)
class Point:
    """Variables and their multipliers; what belongs to a line is 0 at the substation.

    `device_q` is the free reactive power of a device, beyond what its power factor ties to `device_p`. `price` and
    `reactive_price` are the multipliers of the balances with losses, which make the nodal price together with those of
    the lossless flow.
    """

    device_p: ByDevice
    device_q: ByDevice
    p: ByBus
    q: ByBus
    l: ByBus  # noqa: E741
    v: ByBus
    price: ByBus
    reactive_price: ByBus
    drop: ByBus
    cone: Cone
    v_min: ByBus
    v_max: ByBus
    i_max: ByBus
    lossless: Lossless | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Residuals:
    """How far a point is from optimal, by condition.

    primal: largest violation of an equation or a limit, in p.u. dual: of stationarity, relative to the largest price,
    or to the largest multiplier of a drop for voltages, if that is above 1. gap: what another dispatch could save,
    relative to the cost if that is above 1.
    """

    primal: dict[str, ByRow]
    dual: dict[str, ByRow]
    gap: dict[str, ByRow]

    def worst(self) -> tuple[ByRow, ByRow, ByRow]:
        """The largest primal and dual residual, and the whole gap; infinite where something is not a number."""
        primal, dual = (np.max(list(found.values()), axis=0) for found in (self.primal, self.dual))
        gap = np.abs(np.sum(list(self.gap.values()), axis=0))
        primal, dual, gap = (np.where(np.isnan(worst), np.inf, worst) for worst in (primal, dual, gap))
        return primal, dual, gap


@dataclass(frozen=True, eq=False, kw_only=True)
class _PerUnit:
    """A problem in p.u., and the sums over its tree."""

    problem: OpfProblem
    load_p: ByBus
    load_q: ByBus
    v_source: ByRow
    v_min: ByBus
    v_max: ByBus
    l_max: ByBus
    p_min: ByDevice
    p_max: ByDevice
    q_min: ByDevice
    q_max: ByDevice

    @property
    def r(self) -> Float[np.ndarray, " bus"]:
        return self.problem.feeder.r_pu

    @property
    def x(self) -> Float[np.ndarray, " bus"]:
        return self.problem.feeder.x_pu

    def at_parent(self, values: ByBus) -> ByBus:
        return values[..., np.maximum(self.problem.feeder.parent, 0)]

    def of_lines(self, values: ByBus) -> ByBus:
        return np.where(np.arange(self.problem.feeder.n_bus) > 0, values, 0.0)

    def over_children(self, values: ByBus) -> ByBus:
        """Sum over the children of each bus."""
        parent = self.problem.feeder.parent
        joins = np.zeros((len(parent), len(parent)))
        joins[np.arange(1, len(parent)), parent[1:]] = 1.0
        return values @ joins

    def injected(self, device_p: ByDevice, device_q: ByDevice) -> tuple[ByBus, ByBus]:
        """Net active and reactive injection of each bus."""
        injections = self.problem.injections
        at_bus = np.zeros((len(injections.bus), self.problem.feeder.n_bus))
        at_bus[np.arange(len(injections.bus)), injections.bus] = 1.0
        reactive = injections.tan_phi * device_p + device_q
        return device_p @ at_bus - self.load_p, reactive @ at_bus - self.load_q

    def drop_error(self, p: ByBus, q: ByBus, l: ByBus, v: ByBus) -> ByBus:  # noqa: E741
        r, x = self.r, self.x
        return self.of_lines(self.at_parent(v) - 2.0 * (r * p + x * q) + (r**2 + x**2) * l - v)

    def with_source(self, v: ByBus) -> ByBus:
        return np.where(np.arange(self.problem.feeder.n_bus) > 0, v, self.v_source[..., None])


def _per_unit(problem: OpfProblem) -> _PerUnit:
    feeder, injections = problem.feeder, problem.injections
    s = feeder.base_kva
    l_max = np.minimum(problem.i_max_a / feeder.base_a, LARGEST_RATING_PU) ** 2
    return _PerUnit(
        problem=problem,
        load_p=problem.load_kw / s,
        load_q=(problem.load_kvar - feeder.capacitor_kvar) / s,
        v_source=problem.v_source_pu**2,
        v_min=problem.v_min_pu**2,
        v_max=problem.v_max_pu**2,
        l_max=np.where(np.isfinite(feeder.i_max_a), l_max, UNRATED),
        p_min=injections.p_min_kw / s,
        p_max=injections.p_max_kw / s,
        q_min=injections.q_min_kvar / s,
        q_max=injections.q_max_kvar / s,
    )


def _worst(values: Float[np.ndarray, "*batch any"]) -> ByRow:
    return np.abs(values).max(axis=-1, initial=0.0)


def kkt_residuals(problem: OpfProblem, point: Point) -> Residuals:
    """The residuals of every row of a batch; a multiplier of the wrong sign counts as dual."""
    given = _per_unit(problem)
    price, reactive_price = _nodal_prices(point)
    price_scale = np.max([np.ones(price.shape[:-1]), *(_worst(values) for values in (price, reactive_price))], axis=0)
    cost = problem.injections.cost(point.device_p * problem.feeder.base_kva)
    cost_scale = np.maximum(np.abs(cost) / (PRICE_PER_KWH * problem.feeder.base_kva), 1.0)

    dual = _stationarity(given, point, price_scale) | {
        f"sign of {name}": _worst(values) / price_scale for name, values in _wrong_signs(point).items()
    }
    gap = _gaps(given, point)
    for name, (reduced, room) in _reduced_costs(given, point, price, reactive_price).items():
        # Far from its bound a device shows an error of the price, near to it one of the dispatch.
        is_inside = np.abs(reduced) < room * price_scale[..., None]
        dual[name] = _worst(np.where(is_inside, reduced, 0.0)) / price_scale
        gap[name] = np.where(is_inside, 0.0, np.abs(reduced) * room).sum(axis=-1)
    gap = {name: value / cost_scale for name, value in gap.items()}
    return Residuals(primal=primal_residuals(problem, point), dual=dual, gap=gap)


def primal_residuals(problem: OpfProblem, point: Point) -> dict[str, ByRow]:
    """The largest violation of every equation and limit, in p.u.; multipliers play no part."""
    return {name: _worst(values) for name, values in _violations(_per_unit(problem), point).items()}


def worth_of_violations(problem: OpfProblem, violating: Point, priced: Point) -> ByRow:
    """By how much cheaper a point may look for its violations, at the multipliers of another; in currency per hour.

    It settles which of two points is right where the cheaper one keeps limits a little less well, and prices are high.
    """
    given, lossless = _per_unit(problem), priced.lossless
    price, reactive_price = _nodal_prices(priced)
    v_from = np.maximum(given.at_parent(priced.v), LEAST_V)
    multipliers = {
        "balance_p": priced.price,
        "balance_q": priced.reactive_price,
        "voltage_drop": priced.drop,
        "cone": priced.cone.l / v_from,
        **{name: getattr(priced, name) for name in ("v_min", "v_max", "i_max")},
        **{name: reduced for name, (reduced, _) in _reduced_costs(given, priced, price, reactive_price).items()},
    }
    if lossless:
        multipliers |= {
            "lossless_balance_p": lossless.price,
            "lossless_balance_q": lossless.reactive_price,
            "lossless_voltage_drop": lossless.drop,
            "i_max_lossless": lossless.i_max.l / v_from,
        }
    found = _violations(given, violating)
    worth = sum(np.abs(values * found[name]).sum(axis=-1) for name, values in multipliers.items())
    return np.asarray(worth * PRICE_PER_KWH * problem.feeder.base_kva)


def _violations(given: _PerUnit, point: Point) -> dict[str, ByBus | ByDevice]:
    lossless = point.lossless
    net_p, net_q = given.injected(point.device_p, point.device_q)
    v_from = given.at_parent(point.v)

    def beyond(values: Any, most: Any) -> Any:
        return np.maximum(values - most, 0.0)

    found = {
        "balance_p": point.p - given.r * point.l + net_p - given.over_children(point.p),
        "balance_q": point.q - given.x * point.l + net_q - given.over_children(point.q),
        "voltage_drop": given.drop_error(point.p, point.q, point.l, point.v),
        "cone": beyond(point.p**2 + point.q**2, point.l * v_from),
        "l": beyond(0.0, point.l),
        "v_min": given.of_lines(beyond(given.v_min, point.v)),
        "v_max": given.of_lines(beyond(lossless.v if lossless else point.v, given.v_max)),
        "i_max": beyond(point.l, given.l_max),
        "device_p": beyond(point.device_p, given.p_max) + beyond(given.p_min, point.device_p),
        "device_q": beyond(point.device_q, given.q_max) + beyond(given.q_min, point.device_q),
    }
    if lossless:
        found |= {
            "lossless_balance_p": given.of_lines(lossless.p + net_p - given.over_children(lossless.p)),
            "lossless_balance_q": given.of_lines(lossless.q + net_q - given.over_children(lossless.q)),
            "lossless_voltage_drop": given.drop_error(lossless.p, lossless.q, np.zeros_like(point.l), lossless.v),
            "i_max_lossless": beyond(lossless.p**2 + lossless.q**2, given.l_max * v_from),
        }
    return found


def _nodal_prices(point: Point) -> tuple[ByBus, ByBus]:
    if not point.lossless:
        return point.price, point.reactive_price
    return point.price + point.lossless.price, point.reactive_price + point.lossless.reactive_price


def _stationarity(given: _PerUnit, point: Point, price_scale: ByRow) -> dict[str, ByRow]:
    r, x, lossless = given.r, given.x, point.lossless

    def along_flow(price: ByBus, z: ByBus, drop: ByBus, of_cone: ByBus) -> ByBus:
        return given.at_parent(price) - price + 2.0 * z * drop - of_cone

    of_flow = {
        "P": along_flow(point.price, r, point.drop, point.cone.p),
        "Q": along_flow(point.reactive_price, x, point.drop, point.cone.q),
        "l": r * point.price + x * point.reactive_price - (r**2 + x**2) * point.drop - point.cone.l + point.i_max,
    }
    passed_up = point.drop + point.cone.v
    of_voltage = {"v": point.drop - point.v_min + (0.0 if lossless else point.v_max)}
    if lossless:
        of_flow |= {
            "Ph": along_flow(lossless.price, r, lossless.drop, lossless.i_max.p),
            "Qh": along_flow(lossless.reactive_price, x, lossless.drop, lossless.i_max.q),
        }
        passed_up = passed_up + lossless.i_max.v
        of_voltage["vh"] = lossless.drop - given.over_children(lossless.drop) + point.v_max
    of_voltage["v"] = of_voltage["v"] - given.over_children(passed_up)
    drop_scale = np.maximum(price_scale, _worst(point.drop))
    return {name: _worst(given.of_lines(values)) / price_scale for name, values in of_flow.items()} | {
        name: _worst(given.of_lines(values)) / drop_scale for name, values in of_voltage.items()
    }


def _wrong_signs(point: Point) -> dict[str, ByBus]:
    found = {name: np.maximum(-getattr(point, name), 0.0) for name in ("v_min", "v_max", "i_max")}
    found["cone"] = point.cone.violation()
    if point.lossless:
        found["i_max_lossless"] = point.lossless.i_max.violation()
    return found


def _gaps(given: _PerUnit, point: Point) -> dict[str, ByRow]:
    v_from, lossless = given.at_parent(point.v), point.lossless
    found = {
        "cone": point.cone.gap(point.p, point.q, point.l, v_from),
        "v_min": point.v_min * (point.v - given.v_min),
        "v_max": point.v_max * (given.v_max - (lossless.v if lossless else point.v)),
        "i_max": point.i_max * (given.l_max - point.l),
    }
    if lossless:
        found["i_max_lossless"] = lossless.i_max.gap(lossless.p, lossless.q, given.l_max, v_from)
    return {name: given.of_lines(values).sum(axis=-1) for name, values in found.items()}


def _reduced_costs(
    given: _PerUnit, point: Point, price: ByBus, reactive_price: ByBus
) -> dict[str, tuple[ByDevice, ByDevice]]:
    """Reduced cost of the active and of the free reactive power of each device, and the room to where that saves."""
    injections = given.problem.injections
    away = point.device_p * given.problem.feeder.base_kva - injections.reference_kw
    marginal = (injections.linear_per_kwh + 2.0 * injections.quadratic_per_kw2h * away) / PRICE_PER_KWH
    at_device, reactive_at_device = (values[..., injections.bus] for values in (price, reactive_price))

    def with_room(reduced: ByDevice, value: ByDevice, low: ByDevice, high: ByDevice) -> tuple[ByDevice, ByDevice]:
        return reduced, np.maximum(np.where(reduced > 0, value - low, high - value), 0.0)

    of_p = marginal - at_device - injections.tan_phi * reactive_at_device
    return {
        "device_p": with_room(of_p, point.device_p, given.p_min, given.p_max),
        "device_q": with_room(-reactive_at_device, point.device_q, given.q_min, given.q_max),
    }


def point_of(problem: OpfProblem, solution: OpfSolution) -> Point:
    """The point that a published solution stands for, of any solver; it means nothing where there is no answer.

    The multiplier of a cone is taken along the cone's gradient, k (-2 P, -2 Q, v_A, l), with k from the equation of l.
    So an error of a nodal price shows at first order in the equations of P and Q, and invented losses in the gap.
    """
    given, feeder, s = _per_unit(problem), problem.feeder, problem.feeder.base_kva
    money = PRICE_PER_KWH * s
    p, q, l = solution.flow_kw / s, solution.flow_kvar / s, solution.current_pu2  # noqa: E741
    v = given.with_source(solution.voltage_pu**2)
    v_from = np.maximum(given.at_parent(v), LEAST_V)
    device_p = solution.p_kw / s
    device_q = solution.q_kvar / s - problem.injections.tan_phi * device_p
    price, reactive_price = solution.price_per_kwh / PRICE_PER_KWH, solution.reactive_price_per_kvarh / PRICE_PER_KWH
    v_min, v_max, i_max = (getattr(solution, f"{name}_multiplier") / money for name in ("v_min", "v_max", "i_max"))

    lossless = None
    if problem.upper_voltage is UpperVoltage.LOSSLESS:
        lossless = _lossless_flow(given, device_p, device_q, v_max, solution.i_max_lossless_multiplier / money, v_from)
        price, reactive_price = price - lossless.price, reactive_price - lossless.reactive_price
    drop = v_min - v_max if lossless is None else v_min + given.over_children(lossless.i_max.v)
    along = np.zeros_like(drop)
    z2 = given.r**2 + given.x**2
    for j in range(feeder.n_bus - 1, 0, -1):
        at_l = given.r[j] * price[..., j] + given.x[j] * reactive_price[..., j] - z2[j] * drop[..., j] + i_max[..., j]
        along[..., j] = at_l / v_from[..., j]
        drop[..., feeder.parent[j]] += drop[..., j] + along[..., j] * l[..., j]
    return Point(
        device_p=device_p,
        device_q=device_q,
        p=p,
        q=q,
        l=l,
        v=v,
        price=price,
        reactive_price=reactive_price,
        drop=given.of_lines(drop),
        cone=Cone(p=-2.0 * along * p, q=-2.0 * along * q, l=along * v_from, v=along * l),
        v_min=v_min,
        v_max=v_max,
        i_max=i_max,
        lossless=lossless,
    )


def _lossless_flow(
    given: _PerUnit, device_p: ByDevice, device_q: ByDevice, v_max: ByBus, of_rating: ByBus, v_from: ByBus
) -> Lossless:
    feeder = given.problem.feeder
    net_p, net_q = given.injected(device_p, device_q)
    p, q = (given.of_lines(-feeder.downstream_sum(net)) for net in (net_p, net_q))
    drop = given.of_lines(-feeder.downstream_sum(v_max))
    i_max = Cone(p=-2.0 * of_rating * p, q=-2.0 * of_rating * q, l=of_rating * v_from, v=of_rating * given.l_max)
    along_p, along_q = (2.0 * z * drop - of_cone for z, of_cone in ((given.r, i_max.p), (given.x, i_max.q)))
    return Lossless(
        p=p,
        q=q,
        v=given.v_source[..., None] - 2.0 * feeder.path_sum(given.r * p + given.x * q),
        price=feeder.path_sum(given.of_lines(along_p)),
        reactive_price=feeder.path_sum(given.of_lines(along_q)),
        drop=drop,
        i_max=i_max,
    )


class Verdict(IntEnum):
    """Which of two answers to the same problem is right, seen from the first."""

    SAME_COST = 0
    FIRST = 1
    SECOND = 2
    NEITHER_FEASIBLE = 3


def arbitrate(
    problem: OpfProblem, first: OpfSolution, second: OpfSolution, feasible_pu: float, tolerance: float
) -> Int[np.ndarray, "*batch"]:
    """The verdict without multipliers: of two feasible dispatches the cheaper is right.

    Args:
        feasible_pu: Largest violation of an equation or a limit that passes.
        tolerance: Costs that differ by less are the same; relative to max(1, |cost|), in currency per hour.
    """
    cost, feasible = [], []
    for solution in (first, second):
        violation = np.max(list(primal_residuals(problem, point_of(problem, solution)).values()), axis=0)
        feasible.append((violation <= feasible_pu) & (solution.status == OpfStatus.OPTIMAL))
        cost.append(problem.injections.cost(solution.p_kw))
    margin = tolerance * np.maximum(1.0, np.minimum(*np.abs(cost)))
    first_wins = feasible[0] & (~feasible[1] | (cost[0] < cost[1] - margin))
    second_wins = feasible[1] & (~feasible[0] | (cost[1] < cost[0] - margin))
    verdict = np.where(first_wins, Verdict.FIRST, np.where(second_wins, Verdict.SECOND, Verdict.SAME_COST))
    return np.where(feasible[0] | feasible[1], verdict, Verdict.NEITHER_FEASIBLE).astype(int)


def has_unique_price(problem: OpfProblem, solution: OpfSolution) -> Bool[np.ndarray, "*batch bus"]:
    """Where the conditions determine the nodal price; a bus whose load is wholly shed is the usual exception.

    Where nothing flows in the line to a bus, its voltage is its parent's: if both press against a limit, nothing says
    how much of the multiplier belongs to which. Likewise where nothing is drawn between two lines that reach their
    ratings together.
    """
    given = _per_unit(problem)
    point = point_of(problem, solution)
    idle_line = np.maximum(np.abs(point.p), np.abs(point.q)) < IDLE_PU
    idle_bus = np.maximum(*np.abs(given.injected(point.device_p, point.device_q))) < IDLE_PU
    of_rating = solution.i_max_multiplier + solution.i_max_lossless_multiplier
    reaches_rating = of_rating > IDLE_PU * PRICE_PER_KWH * problem.feeder.base_kva
    feeds_full_line = given.over_children(reaches_rating.astype(float)) > 0
    return ~((given.of_lines(idle_line) > 0) | (idle_bus & (reaches_rating | feeds_full_line)))


def rows(problem: OpfProblem, chosen: Any) -> OpfProblem:
    """Some of a batch of problems, by an index into it."""
    injections = replace(problem.injections, table=problem.injections.table[chosen])
    by_row = ("load_kw", "load_kvar", "v_source_pu", "v_min_pu", "v_max_pu", "i_max_a")
    return replace(
        problem, injections=injections, **{name: np.asarray(getattr(problem, name)[chosen]) for name in by_row}
    )
