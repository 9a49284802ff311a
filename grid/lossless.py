"""The power flow without losses, which is linear in what is injected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from peergrid.grid.feeder import Feeder


@dataclass(frozen=True, eq=False, kw_only=True)
class LosslessMaps:
    """What a kW or kvar injected at a bus does to flows and squared voltages without losses, in p.u. per kW or kvar.

    Flows, at either end of the line into a bus, fall by `below`; squared voltages rise by `rise_p` and `rise_q`.
    """

    below: Float[np.ndarray, "line bus"]
    rise_p: Float[np.ndarray, "at bus"]
    rise_q: Float[np.ndarray, "at bus"]


class LosslessFlow(NamedTuple):
    """Squared voltages, and active and reactive flows towards the leaves in the line into each bus, all in p.u."""

    squared_voltage: Any
    p: Any
    q: Any


def lossless_maps(feeder: Feeder) -> LosslessMaps:
    """The maps of a feeder.

    Source: simplified DistFlow, Baran and Wu, IEEE Trans. Power Delivery 4(2), 1989.
    """
    is_below = feeder.downstream_sum(np.eye(feeder.n_bus)).T  # [line, bus] whether the bus hangs on the line
    is_below[0] = 0.0
    is_on_path = is_below.T  # [bus, line]
    return LosslessMaps(
        below=is_below / feeder.base_kva,
        rise_p=2.0 * (is_on_path * feeder.r_pu) @ is_below / feeder.base_kva,
        rise_q=2.0 * (is_on_path * feeder.x_pu) @ is_below / feeder.base_kva,
    )


def lossless_flow(
    net_kw: Any, net_kvar: Any, v_source_pu: float, *, below: Any, rise_p: Any, rise_q: Any
) -> LosslessFlow:
    """The flow at net injections `[*batch, bus]`, capacitors included.

    Args:
        net_kw: Like the maps, arrays of NumPy or tensors of torch: only what both can do is used.
        below: This and the others are those of `lossless_maps`.
    """
    return LosslessFlow(
        squared_voltage=v_source_pu**2 + net_kw @ rise_p.T + net_kvar @ rise_q.T,
        p=-net_kw @ below.T,
        q=-net_kvar @ below.T,
    )
