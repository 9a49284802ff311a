"""How near the network is to its limits: figures that every environment reports."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from peergrid.grid.dso import DsoResponse
from peergrid.grid.feeder import Feeder

VOLTAGE_TOLERANCE_PU = 1e-5
LOADING_TOLERANCE = 1e-4

# name: (unit, meaning)
LIMIT_FIGURES: dict[str, tuple[str, str]] = {
    "voltage_min_pu": ("p.u.", "lowest voltage of any bus"),
    "voltage_max_pu": ("p.u.", "highest voltage of any bus"),
    "voltage_violations": ("buses", "buses beyond their voltage limits"),
    "loading_max": ("1", "highest current as a share of the rating"),
    "overloads": ("lines", "lines beyond their rating"),
}


def limit_figures(response: DsoResponse, feeder: Feeder) -> dict[str, Float[np.ndarray, " batch"]]:
    """The figures under the names of LIMIT_FIGURES."""
    voltage, loading = response.voltage_pu, response.current_a[:, 1:] / feeder.i_max_a[1:]
    return {
        "voltage_min_pu": voltage.min(axis=-1),
        "voltage_max_pu": voltage.max(axis=-1),
        "voltage_violations": beyond_limits(voltage, feeder)[:, 1:].sum(axis=-1).astype(float),
        "loading_max": loading.max(axis=-1),
        "overloads": (loading > 1.0 + LOADING_TOLERANCE).sum(axis=-1).astype(float),
    }


def beyond_limits(voltage_pu: Float[np.ndarray, "*batch bus"], feeder: Feeder) -> Bool[np.ndarray, "*batch bus"]:
    """The buses whose voltage is beyond its limits by more than a solver's tolerance."""
    low, high = feeder.v_min_pu - VOLTAGE_TOLERANCE_PU, feeder.v_max_pu + VOLTAGE_TOLERANCE_PU
    return (voltage_pu < low) | (voltage_pu > high)
