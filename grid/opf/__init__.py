"""The optimal power flow: one problem and one answer, for any solver."""

from peergrid.grid.opf.problem import Injections, OpfProblem, OpfSolution, OpfStatus, UpperVoltage

__all__ = ["Injections", "OpfProblem", "OpfSolution", "OpfStatus", "UpperVoltage"]
