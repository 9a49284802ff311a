"""What a small change of a problem does to its optimum: gradients in reverse, one linear system for all inputs.

Where the binding limits stay the same, the optimality conditions can be differentiated (implicit function theorem).
Their linear system is the one of the last interior-point iteration, with the true curvature of the cones.

Not defined, as the optimum itself has a kink or is not unique there: where a limit is just reached, at a proposal of
zero, for the prices of a bus whose load is all shed, and where the relaxation is not tight. There the figures are one
side's or large, but finite; for problems without an answer, or where the linear system is singular, all are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from peergrid.grid.opf import kernel
from peergrid.grid.opf.interior_point import InteriorPointOpf, Solved
from peergrid.grid.opf.kernel import Adjoint, Point, Tree
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, OpfStatus

FIELDS = (*kernel.OF_BUS, *kernel.OF_BUS_LOSSLESS)


@dataclass(frozen=True, eq=False, kw_only=True)
class SolutionGradient:
    """Gradient of a loss with respect to each field of an `OpfSolution`; None where the loss doesn't use it."""

    p_kw: Float[np.ndarray, "*batch device"] | None = None
    q_kvar: Float[np.ndarray, "*batch device"] | None = None
    flow_kw: Float[np.ndarray, "*batch bus"] | None = None
    flow_kvar: Float[np.ndarray, "*batch bus"] | None = None
    current_pu2: Float[np.ndarray, "*batch bus"] | None = None
    voltage_pu: Float[np.ndarray, "*batch bus"] | None = None
    price_per_kwh: Float[np.ndarray, "*batch bus"] | None = None
    reactive_price_per_kvarh: Float[np.ndarray, "*batch bus"] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ProblemGradient:
    """Gradient of a loss with respect to each number of an `OpfProblem` and its injections.

    Where an injection is fixed, its lower and upper bound get half each of what moving both does.
    """

    load_kw: Float[np.ndarray, "*batch bus"]
    load_kvar: Float[np.ndarray, "*batch bus"]
    v_source_pu: Float[np.ndarray, "*batch"]
    v_min_pu: Float[np.ndarray, "*batch bus"]
    v_max_pu: Float[np.ndarray, "*batch bus"]
    i_max_a: Float[np.ndarray, "*batch bus"]
    p_min_kw: Float[np.ndarray, "*batch device"]
    p_max_kw: Float[np.ndarray, "*batch device"]
    linear_per_kwh: Float[np.ndarray, "*batch device"]
    quadratic_per_kw2h: Float[np.ndarray, "*batch device"]
    reference_kw: Float[np.ndarray, "*batch device"]
    tan_phi: Float[np.ndarray, "*batch device"]
    q_min_kvar: Float[np.ndarray, "*batch device"]
    q_max_kvar: Float[np.ndarray, "*batch device"]


def solve_with_gradient(
    solver: InteriorPointOpf, problem: OpfProblem
) -> tuple[OpfSolution, Callable[[SolutionGradient], ProblemGradient]]:
    """The optimum, and the function that takes a loss's gradient with respect to it back to the problem's numbers."""
    solved = solver.solve(problem)
    batch = problem.load_kw.shape[:-1]

    def pull_back(of_solution: SolutionGradient) -> ProblemGradient:
        return _pull_back(solver, solved, batch, of_solution)

    return solver.solution(solved.answer, batch), pull_back


def _pull_back(
    solver: InteriorPointOpf, solved: Solved, batch: tuple[int, ...], of_solution: SolutionGradient
) -> ProblemGradient:
    tree = solver.tree
    loss = _in_rows(solver, of_solution, len(solved.given.source))
    worth = solver.adjoint(solved, _seed(tree, solved, loss))
    is_defined = (solved.answer.status == int(OpfStatus.OPTIMAL)) & np.isfinite(worth.source)
    is_defined &= np.isfinite(worth.bus.sum(axis=(1, 2))) & np.isfinite(worth.device.sum(axis=1))
    if not is_defined.all():
        for values in (*loss.values(), *worth):
            values[~is_defined] = 0.0
    of_problem = _of_buses(solver, solved, loss, worth) | _of_devices(tree, solved, loss, worth)
    return ProblemGradient(**{name: values.reshape((*batch, *values.shape[1:])) for name, values in of_problem.items()})


def _in_rows(solver: InteriorPointOpf, of_solution: SolutionGradient, n_row: int) -> dict[str, np.ndarray]:
    """The gradient in one row per problem, zeros where it is None."""
    rows = {}
    for f in fields(SolutionGradient):
        n = len(solver.device_bus) if f.name in ("p_kw", "q_kvar") else solver.feeder.n_bus
        values = getattr(of_solution, f.name)
        rows[f.name] = np.zeros((n_row, n)) if values is None else np.array(values, dtype=float).reshape(n_row, n)
    return rows


def _seed(tree: Tree, solved: Solved, loss: dict[str, np.ndarray]) -> Adjoint:
    """The loss's gradient in p.u., as the right-hand side of the kernel's linear system."""
    s, money = tree.base_kva, kernel.TYPICAL_PRICE_PER_KWH
    squared_voltage = np.maximum(_of(solved.point, kernel.V), 1e-12)
    active, reactive = _parts(tree)
    of_p = loss["p_kw"] + solved.given.device[:, kernel.TAN_PHI] * loss["q_kvar"]
    of_u = np.zeros((len(of_p), len(tree.origin)))
    of_u[:, active] = s * of_p
    of_u[:, reactive] = s * loss["q_kvar"][:, tree.origin[reactive]]
    of_bus = (
        s * loss["flow_kw"],
        s * loss["flow_kvar"],
        loss["current_pu2"],
        loss["voltage_pu"] / (2.0 * np.sqrt(squared_voltage)),
        money * loss["price_per_kwh"],
        money * loss["reactive_price_per_kvarh"],
    )
    return Adjoint(bus=np.stack(of_bus, axis=1), device=of_u, source=np.zeros(len(of_p)))


def _of_buses(
    solver: InteriorPointOpf, solved: Solved, loss: dict[str, np.ndarray], worth: Adjoint
) -> dict[str, np.ndarray]:
    """What loads, voltages and ratings are worth."""
    tree, given, point = solver.tree, solved.given, solved.point
    s, parent = tree.base_kva, tree.parent
    _, _, w_l, w_v, w_price, w_reactive_price, w_ph, w_qh, w_vh, w_price_h, w_reactive_price_h = (
        worth.bus[:, f] for f in range(worth.bus.shape[1])
    )
    v, v_min, v_max = _of(point, kernel.V), given.bus[:, kernel.V_MIN_PU], given.bus[:, kernel.V_MAX_PU]
    # A bound adds its curvature, multiplier over slack, times what the variable is worth.
    of_v_min = _over(_of(point, kernel.LOW), v - v_min**2) * w_v
    is_lossless = point.is_lossless[:, None]
    bounded, w_bounded = np.where(is_lossless, _of(point, kernel.VH), v), np.where(is_lossless, w_vh, w_v)
    of_v_max = _over(_of(point, kernel.HIGH), v_max**2 - bounded) * w_bounded
    rating = np.minimum(given.bus[:, kernel.I_MAX_A] / tree.base_a, kernel.LARGEST_RATING_PU)
    v_a, l_max = v[:, parent], rating**2
    of_l_max = _over(_of(point, kernel.RATING), l_max - _of(point, kernel.L)) * w_l
    # The cone of lossless flows holds the rating: its curvature couples the rating to flows and voltage.
    p_h, q_h = _of(point, kernel.PH), _of(point, kernel.QH)
    multiplier = _of(point, kernel.FLOW_HAT + kernel.ZL)
    det = v_a * l_max - p_h**2 - q_h**2
    along = -2.0 * (p_h * w_ph + q_h * w_qh) + l_max * w_v[:, parent]
    of_l_max -= np.where(is_lossless, _over(multiplier, det) * along - multiplier / v_a * w_v[:, parent], 0.0)
    of_rating = np.where(tree.rated & (rating < kernel.LARGEST_RATING_PU), of_l_max * 2.0 * rating / tree.base_a, 0.0)
    of_source = worth.source * 2.0 * given.source + loss["voltage_pu"][:, 0]
    is_line = np.arange(len(parent)) > 0
    return {
        "load_kw": -(w_price + w_price_h) / s,
        "load_kvar": -(w_reactive_price + w_reactive_price_h) / s,
        "v_source_pu": of_source,
        "v_min_pu": np.where(is_line, of_v_min * 2.0 * v_min, 0.0),
        "v_max_pu": np.where(is_line, of_v_max * 2.0 * v_max, 0.0),
        "i_max_a": of_rating,
    }


def _of_devices(tree: Tree, solved: Solved, loss: dict[str, np.ndarray], worth: Adjoint) -> dict[str, np.ndarray]:
    """What costs, bounds and power factors of the flexible injections are worth."""
    s, money = tree.base_kva, kernel.TYPICAL_PRICE_PER_KWH
    given, point = solved.given.device, solved.point
    active, reactive = _parts(tree)
    bus = np.repeat(np.arange(len(tree.parent)), np.diff(tree.first))
    w_price = worth.bus[:, 4] + worth.bus[:, 9]
    w_reactive_price = worth.bus[:, 5] + worth.bus[:, 10]
    reactive_price = _of(point, kernel.LQ) + _of(point, kernel.HQ)

    def of_bounds(
        part: np.ndarray, lowest: np.ndarray, highest: np.ndarray, directly: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        # A bound adds its curvature; moving an injection that is fixed moves the balances and the answer itself.
        u, at_least, at_most = (point.device[:, f, part] for f in range(3))
        is_fixed = highest - lowest < kernel.NARROWEST_PU * s
        w_u = np.where(is_fixed, 0.0, worth.device[:, part])
        of_least = np.where(is_fixed, 0.5 * directly, _over(at_least, u - lowest / s) * w_u / s)
        of_most = np.where(is_fixed, 0.5 * directly, _over(at_most, highest / s - u) * w_u / s)
        return of_least, of_most, w_u, np.where(is_fixed, lowest, s * u)

    tan_phi, at = given[:, kernel.TAN_PHI], bus[active]
    directly = (w_price[:, at] + tan_phi * w_reactive_price[:, at]) / s + loss["p_kw"] + tan_phi * loss["q_kvar"]
    of_p_min, of_p_max, w_u, p_kw = of_bounds(active, given[:, kernel.P_MIN], given[:, kernel.P_MAX], directly)
    of_linear = -w_u / money
    of_reference = -2.0 * given[:, kernel.QUADRATIC] * of_linear
    of_tan_phi = reactive_price[:, at] * w_u + p_kw / s * w_reactive_price[:, at] + p_kw * loss["q_kvar"]

    of_q_min, of_q_max = np.zeros_like(of_p_min), np.zeros_like(of_p_min)
    free, at = tree.origin[reactive], bus[reactive]
    directly = w_reactive_price[:, at] / s + loss["q_kvar"][:, free]
    lowest, highest = given[:, kernel.Q_MIN, free], given[:, kernel.Q_MAX, free]
    of_q_min[:, free], of_q_max[:, free], *_ = of_bounds(reactive, lowest, highest, directly)
    return {
        "p_min_kw": of_p_min,
        "p_max_kw": of_p_max,
        "linear_per_kwh": of_linear,
        "quadratic_per_kw2h": 2.0 * (p_kw - given[:, kernel.REFERENCE]) * of_linear,
        "reference_kw": of_reference,
        "tan_phi": of_tan_phi,
        "q_min_kvar": of_q_min,
        "q_max_kvar": of_q_max,
    }


def _parts(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Where the tree's order has each injection's active part, and where it has free reactive parts."""
    active = np.flatnonzero(~tree.reactive)
    return active[np.argsort(tree.origin[active])], np.flatnonzero(tree.reactive)


def _of(point: Point, field: int) -> np.ndarray:
    """A field of the workspace, as the point has it for every bus."""
    return point.bus[:, FIELDS.index(field)]


def _over(multiplier: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """Multiplier over slack; zero where there is no bound, and so no multiplier."""
    return multiplier / np.maximum(slack, 1e-30)
