"""What a solver of optimal power flows is, and those that have names."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, UpperVoltage

SOLVERS = {
    "interior_point": "peergrid.grid.opf.interior_point:InteriorPointOpf",
    "conic": "peergrid.grid.opf.conic:ConicOpf",
    "admm": "peergrid.grid.opf.admm:AdmmOpf",
}


@runtime_checkable
class OpfSolver(Protocol):
    """Solves optimal power flows of one shape: a problem in, or a batch of them, and its optimum out."""

    def __call__(self, problem: OpfProblem) -> OpfSolution: ...


@runtime_checkable
class OpfSolverClass(Protocol):
    """Makes a solver for problems of one shape: the same feeder, the same buses with flexible injections."""

    def __call__(
        self,
        feeder: Feeder,
        device_bus: Int[np.ndarray, " device"],
        has_free_q: Bool[np.ndarray, " device"],
        upper_voltage: UpperVoltage,
        /,
    ) -> OpfSolver: ...
