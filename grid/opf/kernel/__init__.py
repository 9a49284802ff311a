"""The interior-point iteration of one optimal power flow, factorised along the tree; read `iteration.iterate` first.

A primal-dual method with Nesterov and Todd's scaling and Mehrotra's predictor and corrector, for the problem of
problem.py. Its linear system has the shape of the tree: from the leaves to the substation every line is eliminated and
leaves a small symmetric block on what its sending bus sees (both nodal prices and the voltage), and on the way back
follow the directions. The work is linear in the number of buses. docs/derivation.md derives all of it.

    lanes            eight numbers in one register, with the operators of one
    layout, tables   where everything stands, and the arrays
    cones            one bound, one cone
    constraints/     what an answer must keep, one module each, and their registry
    elimination      the linear system along the tree
    start            a problem and its starting point
    iteration        predict, correct, move; `solve`
    certificate      how good an answer is, or a proof that there is none
    differentiation  `adjoint`

The same lines run on one problem or on eight side by side in the lanes of a vector register: workspaces with a third
axis hold lanes. What differs between the two, and arguments that are None or not, is decided when numba compiles: the
entry points are compiled whole, everything else is inlined, and an edit anywhere in this folder compiles them anew.

Per line j with sending bus A, all in p.u.: flows P, Q, squared current l, squared voltage v of its receiving bus, the
cone variable s = (P, Q, l, v_A) in {v_A l >= P^2 + Q^2} with its multiplier. Flexible injections u, one column (cp, cq)
each, cost a/2 u^2 + b u. Lossless flows and voltage (`_hat`, H in names of fields) join only where they are asked for.

Sources: Nesterov and Todd, SIAM J. Optimization 8(2), 1998; Mehrotra, SIAM J. Optimization 2(4), 1992.
"""

from peergrid.grid.opf.kernel.certificate import INACCURATE, INFEASIBLE_PROBLEM, OPTIMAL
from peergrid.grid.opf.kernel.differentiation import adjoint
from peergrid.grid.opf.kernel.iteration import solve
from peergrid.grid.opf.kernel.lanes import LANES
from peergrid.grid.opf.kernel.tables import Answer, Given, Gradient, Loss, Point, Settings, Tree, Workspace

__all__ = [
    "INACCURATE",
    "INFEASIBLE_PROBLEM",
    "LANES",
    "OPTIMAL",
    "Answer",
    "Given",
    "Gradient",
    "Loss",
    "Point",
    "Settings",
    "Tree",
    "Workspace",
    "adjoint",
    "solve",
]
