"""The optimal power flow: one problem and one answer, for any solver."""

from peergrid.grid.opf.problem import Injections, OpfProblem, OpfSolution, OpfStatus, UpperVoltage
from peergrid.grid.opf.solver import OpfSolver

__all__ = ["Injections", "OpfProblem", "OpfSolution", "OpfSolver", "OpfStatus", "UpperVoltage"]
