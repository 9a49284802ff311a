"""The transactive signal of what the DSO answered, wherever it comes from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.grid.dso import DsoResponse, DsoStatus
from peergrid.grid.feeder import Feeder
from peergrid.grid.prices import te_price_per_kwh


def te_signal_per_kwh(
    feeder: Feeder, response: DsoResponse, root_price_per_kwh: Float[np.ndarray, " batch"]
) -> Float[np.ndarray, "batch bus"]:
    """psi of every bus, from its price at the substation.

    It is what the coordinators of a distributed solver exchanged, where the response holds that and the flows are
    theirs. Elsewhere it is the recursion along the flows: of solvers without coordinators, and where these found no
    power flow.

    Args:
        root_price_per_kwh: Where the recursion starts; the coordinators started from that of their query.
    """
    psi = te_price_per_kwh(feeder, response.flow_kw, response.voltage_pu, root_price_per_kwh)
    exchanged = response.te_signal_per_kwh
    if exchanged is None:
        return psi
    return np.where((response.status == DsoStatus.OPTIMAL)[..., None], exchanged, psi)
