"""Nodal prices: what they are made of, and the transactive signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import OpfSolution, UpperVoltage


@dataclass(frozen=True, eq=False, kw_only=True)
class PriceParts:
    """The nodal price (DLMP) of each bus by cause, in currency per kWh; the parts add up to it."""

    energy: Float[np.ndarray, "*batch bus"]
    loss: Float[np.ndarray, "*batch bus"]
    reactive: Float[np.ndarray, "*batch bus"]
    voltage: Float[np.ndarray, "*batch bus"]
    congestion: Float[np.ndarray, "*batch bus"]

    def total(self) -> Float[np.ndarray, "*batch bus"]:
        """Sum of the parts."""
        return self.energy + self.loss + self.reactive + self.voltage + self.congestion


def price_parts(feeder: Feeder, solution: OpfSolution, upper_voltage: UpperVoltage) -> PriceParts:
    """What one more kWh drawn at each bus costs, by cause, if the substation alone delivers it.

    With d_j a withdrawal at j and everything fixed but the substation, the price there is

        lambda_0 + lambda_0 (dP_0/dd_j - 1) + mu_0 dQ_0/dd_j + sum_i nu_i dv_i/dd_j + sum_i sigma_i dl_i/dd_j

    energy, loss, reactive, voltage and congestion, with nu and sigma the multipliers of the squared limits (the ratings
    of lossless flows included: sum_i sigmah_i d(Ph_i^2 + Qh_i^2 - i_max_i^2 v_A(i))/dd_j). The
    derivatives are those of the power flow at the solution: all four sums by one linear solve with n right-hand sides'
    adjoint, O(n^3). Where the relaxation is not tight the solution is no power flow, and the parts do not add up.
    """
    r, x = feeder.r_pu[1:], feeder.x_pu[1:]
    on_path = feeder.on_path[1:, 1:].astype(float)
    fed = on_path.T  # row j marks the buses fed through line j
    # Squared voltages by withdrawals and, at fixed withdrawals, by squared currents.
    v_by_d = -2.0 * (on_path * r) @ fed
    v_by_l = -on_path @ (2.0 * (r[:, None] * fed * r + x[:, None] * fed * x) - np.diag(r**2 + x**2))

    def at_parent(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(rows[:1]), rows])[feeder.parent[1:]]

    def times(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        # Row by row: the last bits of a product of many rows at once depend on how many there are.
        return (rows[..., None, :] @ matrix)[..., 0, :]

    s = feeder.base_kva
    p, q = solution.flow_kw[..., 1:, None] / s, solution.flow_kvar[..., 1:, None] / s
    l = solution.current_pu2[..., 1:, None]  # noqa: E741
    v_from = solution.voltage_pu[..., feeder.parent[1:]] ** 2
    # l v_A = P^2 + Q^2 differentiated: by_l dl = by_d dd.
    by_l = v_from[..., None] * np.eye(len(r)) + l * at_parent(v_by_l) - 2.0 * (p * fed * r + q * fed * x)
    by_d = 2.0 * p * fed - l * at_parent(v_by_d)

    # Lossless flows, and the squared rating where it binds them; elsewhere its multiplier is zero.
    p_hat, q_hat = (flow[..., 0] - times(l[..., 0] * z, on_path) for flow, z in ((p, r), (q, x)))
    of_lossless = solution.i_max_lossless_multiplier[..., 1:] / s
    by_v_from = -of_lossless * (p_hat**2 + q_hat**2) / v_from

    lambda_0 = solution.price_per_kwh[..., :1]
    mu_0 = solution.reactive_price_per_kvarh[..., :1]
    v_min, v_max = -solution.v_min_multiplier[..., 1:] / s, solution.v_max_multiplier[..., 1:] / s
    lossless = upper_voltage is UpperVoltage.LOSSLESS
    of_true_voltage = v_min if lossless else v_min + v_max
    direct = times(v_min + v_max, v_by_d)
    direct_congestion = times(2.0 * of_lossless * p_hat, fed) + times(by_v_from, at_parent(v_by_d))
    by_current = np.stack(
        [
            lambda_0 * r,
            mu_0 * x,
            times(of_true_voltage, v_by_l),
            solution.i_max_multiplier[..., 1:] / s + times(by_v_from, at_parent(v_by_l)),
        ],
        axis=-1,
    )
    adjoint = np.linalg.solve(np.swapaxes(by_l, -1, -2), by_current)
    loss, reactive, voltage, congestion = np.moveaxis(np.swapaxes(by_d, -1, -2) @ adjoint, -1, 0)

    def with_root(part: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(part[..., :1]), part], axis=-1)

    return PriceParts(
        energy=np.broadcast_to(lambda_0, solution.price_per_kwh.shape).copy(),
        loss=with_root(loss),
        reactive=with_root(reactive),
        voltage=with_root(voltage + direct),
        congestion=with_root(congestion + direct_congestion),
    )


def te_price_per_kwh(
    feeder: Feeder,
    flow_kw: Float[np.ndarray, "*batch bus"],
    voltage_pu: Float[np.ndarray, "*batch bus"],
    root_price_per_kwh: Float[np.ndarray, "*batch"],
) -> Float[np.ndarray, "*batch bus"]:
    """The transactive signal: psi_j = psi_A(j) (1 + 2 r_j P_j / v_j), from the substation to the leaves.

    It prices the marginal losses of active power alone.

    Args:
        flow_kw: Active power at the sending end of the line into each bus.

    Source: the loss-based nodal price of the decentralised transactive-energy framework, with P_j and v_j in per unit.
    """
    per_line = 2.0 * feeder.r_pu * flow_kw / feeder.base_kva / voltage_pu**2
    return root_price_per_kwh[..., None] * np.exp(feeder.path_sum(np.log1p(per_line)))
