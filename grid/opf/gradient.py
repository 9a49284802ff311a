"""What a small change of a problem does to its optimum: gradients in reverse, one linear system for all inputs.

Where the binding limits stay the same, the optimality conditions can be differentiated (implicit function theorem).
Their linear system is the one of the last interior-point iteration, with the true curvature of the cones.

Not defined, as the optimum itself has a kink or is not unique there: where a limit is just reached, at a proposal of
zero, for the prices of a bus whose load is all shed, and where the relaxation is not tight. There the numbers are the
derivative on one side, or large, but finite; for problems without an answer, or where the linear system is singular,
all are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from peergrid.grid.opf.interior_point import InteriorPointOpf
from peergrid.grid.opf.kernel import Loss, layout
from peergrid.grid.opf.problem import OF_INJECTIONS, OpfProblem, OpfSolution

# What a loss may use of a solution, in the order of `Loss`.
OF_DEVICES = layout.OF_DEVICES
OF_BUSES = layout.OF_BUSES[: layout.N_OF_LOSS]


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
    """The optimum, and its pull-back: from a loss's gradient in the solution to that in the problem's numbers."""
    solved = solver.solve(problem)
    batch = problem.load_kw.shape[:-1]

    def pull_back(of_solution: SolutionGradient) -> ProblemGradient:
        n_row, n_device = len(solved.given.source), len(solver.device_bus)
        loss = Loss(
            device=np.zeros((len(OF_DEVICES), n_row, n_device)),
            bus=np.zeros((len(OF_BUSES), n_row, solver.feeder.n_bus)),
        )
        for rows, names in ((loss.device, OF_DEVICES), (loss.bus, OF_BUSES)):
            for row, name in zip(rows, names, strict=True):
                if (values := getattr(of_solution, name)) is not None:
                    row[:] = np.reshape(values, row.shape)
        found = solver.pull_back(solved, loss)
        of_injections = found.device.reshape((len(OF_INJECTIONS), *batch, n_device))
        load_kw, load_kvar, v_min_pu, v_max_pu, i_max_a = found.bus.reshape(
            (len(found.bus), *batch, solver.feeder.n_bus)
        )
        return ProblemGradient(
            load_kw=load_kw,
            load_kvar=load_kvar,
            v_source_pu=found.source.reshape(batch),
            v_min_pu=v_min_pu,
            v_max_pu=v_max_pu,
            i_max_a=i_max_a,
            **dict(zip(OF_INJECTIONS, of_injections, strict=True)),
        )

    return solver.solution(solved.answer, batch), pull_back
