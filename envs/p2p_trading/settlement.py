"""Who pays whom for an interval.

With contracts c at prices pi (sum c = sum pi c = 0), accepted exports a, q = a - c, half-spread delta, and nodal prices
l capped to [-cap, cap] (l_0 at the substation), microgrid m pays per hour

    B_m = -pi_m c_m  +  (l_0 - l_m) c_m  -  (l_m - delta) max(q_m, 0) + (l_m + delta) max(-q_m, 0)
          contract      network charge      deviation: more than the contract, less than the contract

so that sum B_m = -sum l_m a_m + delta sum |q_m|. What was proposed to the DSO never enters.

A further kWh contracted but not delivered costs a seller l_0 + delta - pi and a buyer pi - l_0 + delta, together
2 delta, whatever the nodal price and its cap. Each is between 0 and 2 delta exactly if pi is within l_0 +- delta.
Contract prices are within LMP +- delta, so that is certain where l_0 is the LMP. Where it is not, because the cap is
below the LMP or the substation is at a bound, an empty promise may earn up to |l_0 - LMP|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from peergrid.envs.p2p_trading.mechanisms import Contracts


@dataclass(frozen=True, eq=False, kw_only=True)
class Bills:
    """What each microgrid pays for an interval, in currency; negative where it is paid."""

    contract: Float[np.ndarray, "*batch agent"]
    network_charge: Float[np.ndarray, "*batch agent"]
    deviation: Float[np.ndarray, "*batch agent"]

    @property
    def total(self) -> Float[np.ndarray, "*batch agent"]:
        total: Float[np.ndarray, "*batch agent"] = self.contract + self.network_charge + self.deviation
        return total


def bills(
    contracts: Contracts,
    accepted_kw: Float[np.ndarray, "*batch agent"],
    price_per_kwh: Float[np.ndarray, "*batch agent"],
    substation_price_per_kwh: Float[np.ndarray, "*batch"],
    *,
    half_spread_per_kwh: float,
    cap_per_kwh: float,
    step_hours: float,
) -> Bills:
    """The bill of every microgrid in its three parts: contract, network charge, deviation.

    Args:
        accepted_kw: What the DSO lets each export.
        price_per_kwh: Nodal price at each microgrid, before the cap.
        substation_price_per_kwh: Nodal price at the substation, before the cap.
        half_spread_per_kwh: delta: more than the contract earns that much below the nodal price, less costs it above.
    """
    nodal = _capped(price_per_kwh, cap_per_kwh)
    substation = _capped(substation_price_per_kwh[..., None], cap_per_kwh)
    contract_kwh = contracts.quantity_kw * step_hours
    excess_kwh = accepted_kw * step_hours - contract_kwh
    return Bills(
        contract=-contracts.price_per_kwh * contract_kwh,
        network_charge=(substation - nodal) * contract_kwh,
        deviation=-nodal * excess_kwh + half_spread_per_kwh * np.abs(excess_kwh),
    )


def dso_result(
    bill: Float[np.ndarray, "*batch agent"],
    served_kw: Float[np.ndarray, "*batch bus"],
    lmp_per_kwh: Float[np.ndarray, "*batch"],
    substation_kw: Float[np.ndarray, "*batch"],
    generator_price_per_kwh: Float[np.ndarray, "*batch generator"],
    generator_kw: Float[np.ndarray, "*batch generator"],
    *,
    retail_per_kwh: float,
    cap_per_kwh: float,
    step_hours: float,
) -> Float[np.ndarray, "*batch"]:
    """What the DSO keeps of an interval, in currency: sum B_m + rho sum (load - s) - LMP g_0 - sum l_g g_g.

    Args:
        bill: What each microgrid pays, in currency.
        served_kw: Load at each bus less what was shed.
        generator_price_per_kwh: Nodal price at each of the DSO's generators, before the cap.
    """
    retail = retail_per_kwh * served_kw.sum(axis=-1)
    imports = lmp_per_kwh * substation_kw
    generation = (_capped(generator_price_per_kwh, cap_per_kwh) * generator_kw).sum(axis=-1)
    return np.asarray(bill.sum(axis=-1) + (retail - imports - generation) * step_hours)


def welfare(
    gain: Float[np.ndarray, "*batch agent"],
    bill: Float[np.ndarray, "*batch agent"],
    lmp_per_kwh: Float[np.ndarray, "*batch"],
    substation_kw: Float[np.ndarray, "*batch"],
    generator_cost_per_hour: Float[np.ndarray, "*batch generator"],
    shed_kw: Float[np.ndarray, "*batch bus"],
    *,
    voll_per_kwh: Float[np.ndarray, "*#batch #bus"] | float,
    shed_per_kw2h: Float[np.ndarray, "*#batch #bus"] | float,
    step_hours: float,
) -> Float[np.ndarray, "*batch"]:
    """What an interval is worth to all, in currency.

    W = sum gain_m + sum B_m - LMP g_0 - C(g) - voll sum s - c_ls sum s^2; bills only move money, and cancel.

    Args:
        gain: U(x) - C(G) - wear - B_m of each microgrid, in currency: its reward before any sharing.
        bill: What each microgrid pays, in currency.
        generator_cost_per_hour: Cost of each of the DSO's generators, as a rate.
    """
    shedding = ((voll_per_kwh + shed_per_kw2h * shed_kw) * shed_kw).sum(axis=-1)
    cost_per_hour = lmp_per_kwh * substation_kw + generator_cost_per_hour.sum(axis=-1) + shedding
    return np.asarray((gain + bill).sum(axis=-1) - cost_per_hour * step_hours)


def _capped(price_per_kwh: Float[np.ndarray, "*any"], cap_per_kwh: float) -> Float[np.ndarray, "*any"]:
    capped: Float[np.ndarray, "*any"] = price_per_kwh.clip(-cap_per_kwh, cap_per_kwh)
    return capped
