"""Generator: a G^2 + b G per hour, from nothing to its most; it runs where its marginal cost is below the price.

G(mu) = clip((mu - b) / 2a, 0, G_max)
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.envs.devices.curve import Rung
from peergrid.grid.compiled import inlined


@inlined
def rung(max_kw: float, a_per_kw2h: float, b_per_kwh: float) -> Rung:
    """What it can generate, as a step of an export curve: from b to b + 2 a G_max."""
    return b_per_kwh, b_per_kwh + 2 * a_per_kw2h * max_kw, max_kw


def cost(
    a_per_kw2h: Float[np.ndarray, " agent"],
    b_per_kwh: Float[np.ndarray, " agent"],
    power_kw: Float[np.ndarray, "*batch agent"],
) -> Float[np.ndarray, "*batch agent"]:
    """Cost of generation, currency per hour."""
    of_power: Float[np.ndarray, "*batch agent"] = (a_per_kw2h * power_kw + b_per_kwh) * power_kw
    return of_power
