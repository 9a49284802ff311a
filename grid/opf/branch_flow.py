"""The equations of problem.py as CVXPY constraints, for any number of intervals at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import UpperVoltage


@dataclass(frozen=True, eq=False, kw_only=True)
class BranchFlow:
    """Variables [interval, line], lines being those into buses 1, 2, ..., and the constraints, by what they say.

    `balance_*` has an entry per bus, `lossless_balance_*` one per bus but the substation, ratings one per rated line.
    """

    P: Any
    Q: Any
    l: Any  # noqa: E741
    v: Any
    rated: np.ndarray
    constraints: dict[str, Any]


def branch_flow(
    feeder: Feeder,
    p: Any,
    q: Any,
    *,
    v_source: Any,
    v_min: Any,
    v_max: Any,
    l_max: Any,
    upper_voltage: UpperVoltage,
) -> BranchFlow:
    """The relaxed branch flow that carries net injections p and q, in p.u., within limits.

    Args:
        p: Net active injection, an affine expression [interval, bus].
        v_source: Squared voltage at the substation [interval, 1].
        v_min: Lower limit of the squared voltage [interval, line].
        l_max: Squared ratings [interval, rated line]; rated are the lines whose rating in the feeder is finite.
    """
    n_t, n_line = p.shape[0], feeder.n_bus - 1
    parent, lines, ones = feeder.parent[1:], np.arange(n_line), np.ones(n_line)
    # Matrices that take values of lines to buses: the line that leaves a bus, and the one that feeds it.
    leaving = sp.csr_array((ones, (lines, parent)), shape=(n_line, n_line + 1))
    feeding = sp.csr_array((ones, (lines, lines + 1)), shape=(n_line, n_line + 1))
    r, x = (np.tile(z[1:], (n_t, 1)) for z in (feeder.r_pu, feeder.x_pu))
    rated = np.flatnonzero(np.isfinite(feeder.i_max_a[1:]))
    P, Q, l, v = (cp.Variable((n_t, n_line)) for _ in range(4))  # noqa: E741

    def at_parent(squared_voltage: Any) -> Any:
        return cp.hstack([v_source, squared_voltage]) @ leaving.T

    def drop(active: Any, reactive: Any) -> Any:
        return 2 * (cp.multiply(r, active) + cp.multiply(x, reactive))

    def below_product(active: Any, reactive: Any, a: Any, b: Any) -> Any:
        """active^2 + reactive^2 <= a b, elementwise, as second-order cones."""
        flat = partial(cp.vec, order="C")
        return cp.SOC(flat(a + b), cp.vstack([flat(2 * active), flat(2 * reactive), flat(a - b)]), axis=0)

    v_from = at_parent(v)
    constraints = {
        "balance_p": P @ leaving == (P - cp.multiply(r, l)) @ feeding + p,
        "balance_q": Q @ leaving == (Q - cp.multiply(x, l)) @ feeding + q,
        "voltage_drop": v == v_from - drop(P, Q) + cp.multiply(r**2 + x**2, l),
        "cone": below_product(P, Q, v_from, l),
        "v_min": v >= v_min,
    }
    if rated.size:
        constraints["i_max"] = l[:, rated] <= l_max
    if upper_voltage is UpperVoltage.PLAIN:
        constraints["v_max"] = v <= v_max
    else:
        P_hat, Q_hat, v_hat = (cp.Variable((n_t, n_line)) for _ in range(3))
        constraints |= {
            "lossless_balance_p": (P_hat @ leaving)[:, 1:] == P_hat + p[:, 1:],
            "lossless_balance_q": (Q_hat @ leaving)[:, 1:] == Q_hat + q[:, 1:],
            "lossless_voltage_drop": v_hat == at_parent(v_hat) - drop(P_hat, Q_hat),
            "v_max": v_hat <= v_max,
        }
        if rated.size:
            constraints["i_max_lossless"] = below_product(P_hat[:, rated], Q_hat[:, rated], v_from[:, rated], l_max)
    return BranchFlow(P=P, Q=Q, l=l, v=v, rated=rated, constraints=constraints)
