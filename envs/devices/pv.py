"""PV: it costs nothing, so that it is fed in at any positive price, and curtailed at none."""

from __future__ import annotations

from peergrid.envs.devices.curve import Rung
from peergrid.grid.compiled import inlined


@inlined
def rung(available_kw: float) -> Rung:
    """What is available, as a step of an export curve: all of it opens at a marginal value of 0."""
    return 0.0, 0.0, available_kw
