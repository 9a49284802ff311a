"""What the operator answers, and how it came to that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int

from peergrid.grid.prices import PriceParts


class DsoStatus(IntEnum):
    """How the DSO came to its response; from INFEASIBLE on, it failed."""

    OPTIMAL = 0
    RELAXATION_NOT_TIGHT = 1
    UNCHECKED = 2
    INFEASIBLE = 3
    INACCURATE = 4
    POWER_FLOW_DIVERGED = 5

    @property
    def sentence(self) -> str:
        return {
            DsoStatus.OPTIMAL: "solved to the tolerance",
            DsoStatus.RELAXATION_NOT_TIGHT: "the optimum of the relaxation is no power flow: its prices are not to be "
            "trusted; voltages, flows and losses are those of the AC power flow at the accepted dispatch",
            DsoStatus.UNCHECKED: "every trade is carried out unchecked",
            DsoStatus.INFEASIBLE: "no dispatch keeps every bus and line within limits: "
            "every proposal is curtailed to zero, the DSO's generators stand still",
            DsoStatus.INACCURATE: "the solver stopped short of its tolerance: "
            "every proposal is curtailed to zero, the DSO's generators stand still",
            DsoStatus.POWER_FLOW_DIVERGED: "the AC power flow has no solution at the accepted dispatch",
        }[self]


@dataclass(frozen=True, eq=False, kw_only=True)
class DsoResponse:
    """What the DSO allows, what then flows, and what it is worth at every bus.

    Prices are d cost / d load. Multipliers of the squared limits in p.u., in currency per hour, are not negative. Flows
    are those at the substation's side of the line into each bus. All numbers are finite, whatever the status.
    `te_signal_per_kwh` is the transactive signal that the coordinators of a distributed solver came to among
    themselves; it belongs to the flows where the status is OPTIMAL, and is None of what exchanges no signals.
    """

    accepted_kw: Float[np.ndarray, "*batch trade"]
    shed_kw: Float[np.ndarray, "*batch bus"]
    generator_kw: Float[np.ndarray, "*batch gen"]
    generator_kvar: Float[np.ndarray, "*batch gen"]
    substation_kw: Float[np.ndarray, "*batch"]
    substation_kvar: Float[np.ndarray, "*batch"]
    voltage_pu: Float[np.ndarray, "*batch bus"]
    flow_kw: Float[np.ndarray, "*batch bus"]
    flow_kvar: Float[np.ndarray, "*batch bus"]
    current_a: Float[np.ndarray, "*batch bus"]
    losses_kw: Float[np.ndarray, "*batch"]
    price_per_kwh: Float[np.ndarray, "*batch bus"]
    reactive_price_per_kvarh: Float[np.ndarray, "*batch bus"]
    price_parts: PriceParts
    v_min_multiplier: Float[np.ndarray, "*batch bus"]
    v_max_multiplier: Float[np.ndarray, "*batch bus"]
    i_max_multiplier: Float[np.ndarray, "*batch bus"]
    i_max_lossless_multiplier: Float[np.ndarray, "*batch bus"]
    cost_per_hour: Float[np.ndarray, "*batch"]
    relaxation_gap_pu: Float[np.ndarray, "*batch"]
    status: Int[np.ndarray, "*batch"]
    solve_seconds: float
    te_signal_per_kwh: Float[np.ndarray, "*batch bus"] | None = None
