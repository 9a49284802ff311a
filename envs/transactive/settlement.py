"""Who pays whom: what was scheduled at the day-ahead signal, what differs from it at the real-time one.

At the bus of agent m with scheduled exchange e_Sch and delivered exchange e, both positive if injected, the bill is

    B_m = -psi_DA e_Sch - psi_RT (e - e_Sch)        per hour

and so it is for the loads without an agent. The DSO pays the transmission system for what was scheduled at the
day-ahead LMP, and for the gap G = P_RT - P_Sch at the real-time LMP: (1 + s) LMP for what is missing, (1 - s) LMP for
what is left over. The spread s is as wide as the bounds of the signal. Where that starts at the real-time LMP, no
signal in between costs more than it saves: a gap is worth closing exactly as far as the bounds allow. Where it starts
at the day-ahead LMP, this holds but for the difference of the two.

Source: two-settlement markets with two prices for imbalances, as in Morales, Conejo, Madsen, Pinson and Zugno,
Integrating Renewables in Electricity Markets, 2014; the spread is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False, kw_only=True)
class Bills:
    """What each agent pays at the two markets, in currency; negative where it is paid."""

    day_ahead: Float[np.ndarray, "*batch agent"]
    real_time: Float[np.ndarray, "*batch agent"]

    @property
    def total(self) -> Float[np.ndarray, "*batch agent"]:
        total: Float[np.ndarray, "*batch agent"] = self.day_ahead + self.real_time
        return total


def bills(
    scheduled_kw: Float[np.ndarray, "*batch place"],
    delivered_kw: Float[np.ndarray, "*batch place"],
    day_ahead_per_kwh: Float[np.ndarray, "*batch place"],
    real_time_per_kwh: Float[np.ndarray, "*batch place"],
    step_hours: float,
) -> Bills:
    """What is paid at each place for an interval, injections positive."""
    return Bills(
        day_ahead=-day_ahead_per_kwh * scheduled_kw * step_hours,
        real_time=-real_time_per_kwh * (delivered_kw - scheduled_kw) * step_hours,
    )


def upstream_cost(
    scheduled_kw: Float[np.ndarray, "*batch"],
    gap_kw: Float[np.ndarray, "*batch"],
    day_ahead_lmp_per_kwh: Float[np.ndarray, "*batch"],
    lmp_per_kwh: Float[np.ndarray, "*batch"],
    spread: float,
    step_hours: float,
) -> Float[np.ndarray, "*batch"]:
    """What the transmission system is paid for an interval at both markets, in currency.

    Args:
        spread: s, by which missing energy costs more than the LMP and surplus earns less.
    """
    per_hour = day_ahead_lmp_per_kwh * scheduled_kw + lmp_per_kwh * gap_kw + spread_cost(gap_kw, lmp_per_kwh, spread)
    return np.asarray(per_hour * step_hours)


def spread_cost(
    gap_kw: Float[np.ndarray, "*batch"], lmp_per_kwh: Float[np.ndarray, "*batch"], spread: float
) -> Float[np.ndarray, "*batch"]:
    """What a gap costs beyond its energy at the LMP, in currency per hour."""
    return np.asarray(spread * lmp_per_kwh * np.abs(gap_kw))
