"""The distribution system operator: what it is asked, how it answers, and what it answers.

Gradients of its responses stand in `peergrid.grid.dso.gradient`, which loads the solver that has them.
"""

from peergrid.grid.dso.acceptance import accepted_at_price, is_curtailed
from peergrid.grid.dso.answering import TIGHT_PU, dispatch_power_flow
from peergrid.grid.dso.layout import DeviceLayout
from peergrid.grid.dso.operators import Dso, OpfDso, UncheckedDso
from peergrid.grid.dso.query import Coefficient, DsoQuery, Generators, Penalty
from peergrid.grid.dso.response import DsoResponse, DsoStatus
from peergrid.grid.opf.solver import SOLVERS, OpfSolver

__all__ = [
    "SOLVERS",
    "TIGHT_PU",
    "Coefficient",
    "DeviceLayout",
    "Dso",
    "DsoQuery",
    "DsoResponse",
    "DsoStatus",
    "Generators",
    "OpfDso",
    "OpfSolver",
    "Penalty",
    "UncheckedDso",
    "accepted_at_price",
    "dispatch_power_flow",
    "is_curtailed",
]
