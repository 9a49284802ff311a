"""Nodal prices: what they are made of, and the transactive signal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from peergrid.grid.compiled import compiled
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import OpfSolution, UpperVoltage
from peergrid.grid.opf.table import plain


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
    of lossless flows included: sum_i sigmah_i d(Ph_i^2 + Qh_i^2 - i_max_i^2 v_A(i))/dd_j). The derivatives are those of
    the power flow at the solution. Where the relaxation is not tight the solution is no power flow, and the parts do
    not add up; at the nose of the power flow, which has no derivatives, they are zero but for energy.
    """
    *batch, kinds, n_bus = solution.of_buses.shape
    given = plain(solution.of_buses.reshape(math.prod(batch), kinds, n_bus).swapaxes(0, 1))
    lossless = upper_voltage is UpperVoltage.LOSSLESS
    parts = _parts_of_rows(feeder.parent, feeder.r_pu, feeder.x_pu, feeder.base_kva, lossless, given)
    energy, loss, reactive, voltage, congestion = parts.reshape(5, *batch, n_bus)
    return PriceParts(energy=energy, loss=loss, reactive=reactive, voltage=voltage, congestion=congestion)


@compiled
def _parts_of_rows(
    parent: Int[np.ndarray, " bus"],
    r_pu: Float[np.ndarray, " bus"],
    x_pu: Float[np.ndarray, " bus"],
    base_kva: float,
    lossless: bool,
    given: Float[np.ndarray, "kind row bus"],
) -> Float[np.ndarray, "part row bus"]:
    """Energy, loss, reactive, voltage and congestion in currency per kWh, by the adjoint of the power flow in O(bus).

    What one more p.u. costs, everything else following, of active withdrawal (a_j), reactive withdrawal (b_j), squared
    voltage (m_j) and squared current (k_j), with A the parent of j and z2 = r^2 + x^2:

        a_j = a_A - 2 r_j m_j + 2 P_j / v_A k_j                     from P_j; a_0 = lambda_0
        b_j = b_A - 2 x_j m_j + 2 Q_j / v_A k_j                     from Q_j; b_0 = mu_0
        k_j = r_j a_j + x_j b_j + z2_j m_j + sigma_j                from l_j
        m_j = nu_j + sum_{c in C(j)} (m_c - l_c / v_j k_c)          from v_j

    This is linear in lambda_0, mu_0, nu and sigma: each part is a_j with one of them alone. On the way up m_j is known
    as affine in (a_j, b_j), so that the line gives (a_j, b_j) as affine in (a_A, b_A), and with them what it adds to
    m_A; on the way down they get their values. What a withdrawal does to lossless voltages and flows is a sum along its
    path, whatever l does, and so are their multipliers nuh and sigmah in its price:

        sum_i -2 r_i (sum_{c fed through i} nuh_c)  and  sum_i 2 sigmah_i Ph_i,  besides -sigmah_i i_max_i^2 in nu_A(i)

    Source: elimination from the leaves, which fills in nothing, Parter, SIAM Review 3(2), 1961; nodal prices by such
    recursions from the multipliers of the branch flow model, Papavasiliou, IEEE Trans. Smart Grid 9(5), 2018.
    """
    flow_kw, flow_kvar, current_pu2, voltage_pu, price_per_kwh, reactive_price_per_kvarh = given[:6]
    v_min_multiplier, v_max_multiplier, i_max_multiplier, i_max_lossless_multiplier = given[6:]
    _, n_row, n_bus = given.shape
    parts = np.empty((5, n_row, n_bus))
    of_bus = np.empty((7, n_bus))
    m_by_a, m_by_b, m_voltage, m_congestion, fed_nu, fed_loss_p, fed_loss_q = of_bus
    # (a_j, b_j) by (a_A, b_A), then their constants; those of loss and reactive stay zero: these start at the root.
    a_by_a, a_by_b, b_by_a, b_by_b = np.empty((4, n_bus))
    a_constant, b_constant, a, b = np.zeros((4, 4, n_bus))
    direct = np.zeros((4, n_bus))
    for row in range(n_row):
        of_bus[:] = 0.0
        for j in range(n_bus - 1, 0, -1):
            above, r, x, current = parent[j], r_pu[j], x_pu[j], current_pu2[row, j]
            v_above = voltage_pu[row, above] ** 2
            p, q = flow_kw[row, j] / base_kva, flow_kvar[row, j] / base_kva
            nu_upper = v_max_multiplier[row, j] / base_kva
            m_voltage[j] -= v_min_multiplier[row, j] / base_kva
            if lossless:
                fed_nu[j] += nu_upper
            else:
                m_voltage[j] += nu_upper

            fed_loss_p[j] += r * current
            fed_loss_q[j] += x * current
            p_hat, q_hat = p - fed_loss_p[j], q - fed_loss_q[j]
            sigma_hat = i_max_lossless_multiplier[row, j] / base_kva
            direct[2, j], direct[3, j] = -2.0 * r * fed_nu[j], 2.0 * sigma_hat * p_hat
            # Where sigma_hat is not zero the limit binds, and gives i_max^2.
            m_congestion[above] -= sigma_hat * (p_hat**2 + q_hat**2) / v_above
            fed_nu[above] += fed_nu[j]
            fed_loss_p[above] += fed_loss_p[j]
            fed_loss_q[above] += fed_loss_q[j]

            z2 = r * r + x * x
            l_by_p, l_by_q, l_by_v = 2.0 * p / v_above, 2.0 * q / v_above, -current / v_above
            k_by_a, k_by_b = r + z2 * m_by_a[j], x + z2 * m_by_b[j]
            # own_aa a_j + own_ab b_j = a_A + into_a,  own_ba a_j + own_bb b_j = b_A + into_b
            own_aa = 1.0 + 2.0 * r * m_by_a[j] - l_by_p * k_by_a
            own_ab = 2.0 * r * m_by_b[j] - l_by_p * k_by_b
            own_ba = 2.0 * x * m_by_a[j] - l_by_q * k_by_a
            own_bb = 1.0 + 2.0 * x * m_by_b[j] - l_by_q * k_by_b
            determinant = own_aa * own_bb - own_ab * own_ba
            a_by_a[j], a_by_b[j] = own_bb / determinant, -own_ab / determinant
            b_by_a[j], b_by_b[j] = -own_ba / determinant, own_aa / determinant
            up_by_a, up_by_b = m_by_a[j] + l_by_v * k_by_a, m_by_b[j] + l_by_v * k_by_b
            m_by_a[above] += up_by_a * a_by_a[j] + up_by_b * b_by_a[j]
            m_by_b[above] += up_by_a * a_by_b[j] + up_by_b * b_by_b[j]
            for part, m in ((2, m_voltage), (3, m_congestion)):
                k = z2 * m[j]
                if part == 3:
                    k += i_max_multiplier[row, j] / base_kva
                into_a, into_b = l_by_p * k - 2.0 * r * m[j], l_by_q * k - 2.0 * x * m[j]
                a_constant[part, j] = a_by_a[j] * into_a + a_by_b[j] * into_b
                b_constant[part, j] = b_by_a[j] * into_a + b_by_b[j] * into_b
                m[above] += m[j] + l_by_v * k + up_by_a * a_constant[part, j] + up_by_b * b_constant[part, j]

        lambda_0 = price_per_kwh[row, 0]
        a[0, 0], b[1, 0] = lambda_0, reactive_price_per_kvarh[row, 0]
        parts[0, row] = lambda_0
        parts[1:, row, 0] = 0.0
        total = 0.0
        for j in range(1, n_bus):
            above = parent[j]
            for part in range(4):
                a[part, j] = a_constant[part, j] + a_by_a[j] * a[part, above] + a_by_b[j] * b[part, above]
                b[part, j] = b_constant[part, j] + b_by_a[j] * a[part, above] + b_by_b[j] * b[part, above]
                direct[part, j] += direct[part, above]
                parts[1 + part, row, j] = a[part, j] + direct[part, j]
            parts[1, row, j] -= lambda_0
            total += parts[1, row, j] + parts[2, row, j] + parts[3, row, j] + parts[4, row, j]
        if not np.isfinite(total):
            parts[1:, row] = 0.0
    return parts


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

    Source: the loss-based nodal price of "Transactive Energy Management Framework for Active Distribution Systems",
    with P_j and v_j in per unit.
    """
    shape = flow_kw.shape
    flow, voltage = (np.array(values, dtype=float).reshape(-1, shape[-1]) for values in (flow_kw, voltage_pu))
    root = np.array(root_price_per_kwh, dtype=float).reshape(-1)
    return np.asarray(_signal_of_rows(feeder.parent, feeder.r_pu / feeder.base_kva, flow, voltage, root).reshape(shape))


@compiled
def _signal_of_rows(
    parent: Int[np.ndarray, " bus"],
    r_per_kva: Float[np.ndarray, " bus"],
    flow_kw: Float[np.ndarray, "row bus"],
    voltage_pu: Float[np.ndarray, "row bus"],
    root_price: Float[np.ndarray, " row"],
) -> Float[np.ndarray, "row bus"]:
    signal = np.empty_like(flow_kw)
    for row in range(len(flow_kw)):
        signal[row, 0] = root_price[row]
        for j in range(1, len(parent)):
            marginal_loss = 2.0 * r_per_kva[j] * flow_kw[row, j] / voltage_pu[row, j] ** 2
            signal[row, j] = signal[row, parent[j]] * (1.0 + marginal_loss)
    return signal
