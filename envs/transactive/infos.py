"""What a TE iteration is reported as: numbers under constant names, one per agent.

Money is zero until the hour is closed. The time that the DSO took is not among them, as the same seed gives the same
infos: it is in `env.last_outcome.response.solve_seconds`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.limits import LIMIT_FIGURES, limit_figures
from peergrid.envs.transactive.types import Outcome, Params

# name: (unit, meaning); of the agent itself, then of the whole network, which is the same for everybody.
OWN_INFOS: dict[str, tuple[str, str]] = {
    "signal_per_kwh": ("currency/kWh", "transactive signal at the own bus with the flows of this iteration"),
    "dlmp_per_kwh": ("currency/kWh", "exact nodal price at the own bus"),
    "exchange_kw": ("kW", "own net injection, load included"),
    "scheduled_kw": ("kW", "what of it was scheduled the day before"),
    "asked_kw": ("kW", "what the own resources were to inject"),
    "accepted_kw": ("kW", "what of it the DSO carried"),
    "shift_kw": ("kW", "load put off, negative if brought forward"),
    "generator_kw": ("kW", "own generation"),
    "storage_kw": ("kW", "storage power, positive discharged"),
    "pv_kw": ("kW", "PV fed in"),
    "load_kw": ("kW", "own load before shifting"),
    "stored_kwh": ("kWh", "energy in storage after the iteration"),
    "shifted_kwh": ("kWh", "energy that shifting has delivered so far and that must return"),
    "bill_day_ahead": ("currency", "paid for what was scheduled"),
    "bill_real_time": ("currency", "paid for what differs from it"),
    "operating_cost": ("currency", "cost of the own resources"),
    "clipped_kw": ("kW", "by how much the action asked for the physically impossible"),
}
NETWORK_INFOS: dict[str, tuple[str, str]] = {
    "interval": ("1", "the hour that was open"),
    "iteration": ("1", "how many iterations it had had before this"),
    "closing": ("code", "Closing: 0 goes on, 1 within threshold, 2 signal stands, 3 out of iterations"),
    "root_per_kwh": ("currency/kWh", "signal at the substation that was answered"),
    "base_per_kwh": ("currency/kWh", "price from which that started, and around which its bounds lie"),
    "lmp_per_kwh": ("currency/kWh", "real-time price upstream"),
    "import_kw": ("kW", "drawn from the transmission system"),
    "scheduled_import_kw": ("kW", "what of it was scheduled the day before"),
    "gap_kw": ("kW", "what was not"),
    "upstream_cost": ("currency", "paid to the transmission system at both markets"),
    "total_cost": ("currency", "energy upstream, resources and load shed"),
    "dso_result": ("currency", "what the DSO keeps"),
    "dso_reward": ("currency", "what the gap costs beyond its energy, negative"),
    **LIMIT_FIGURES,
    "shed_kw": ("kW", "load shed in the whole network"),
    "losses_kw": ("kW", "losses of the whole network"),
    "dso_status": ("code", "DsoStatus: 0 optimal, 1 relaxation not tight, from 3 on failed"),
}
INFOS = OWN_INFOS | NETWORK_INFOS


def measure(
    outcome: Outcome, params: Params
) -> tuple[Float[np.ndarray, "own batch agent"], Float[np.ndarray, "net batch"]]:
    """The infos of an iteration: each agent's own, in the order of OWN_INFOS, and those of the network."""
    response, feeder, agents = outcome.response, params.feeder, params.agent_bus
    own = {
        "signal_per_kwh": outcome.signal_per_kwh[:, agents],
        "dlmp_per_kwh": response.price_per_kwh[:, agents],
        "exchange_kw": outcome.exchange_kw,
        "scheduled_kw": outcome.scheduled_exchange_kw,
        "asked_kw": outcome.asked_kw,
        "accepted_kw": response.accepted_kw,
        "shift_kw": outcome.set_points.shift_kw,
        "generator_kw": outcome.set_points.generator_kw,
        "storage_kw": outcome.set_points.storage_kw,
        "pv_kw": outcome.pv_kw,
        "load_kw": outcome.load_kw,
        "stored_kwh": outcome.stored_kwh,
        "shifted_kwh": outcome.shifted_kwh,
        "bill_day_ahead": outcome.bills.day_ahead,
        "bill_real_time": outcome.bills.real_time,
        "operating_cost": outcome.operating_cost,
        "clipped_kw": outcome.clipped_kw,
    }
    network = {
        "interval": outcome.interval,
        "iteration": outcome.iteration,
        "closing": outcome.closing,
        "root_per_kwh": outcome.root_per_kwh,
        "base_per_kwh": outcome.base_per_kwh,
        "lmp_per_kwh": outcome.lmp_per_kwh,
        "import_kw": outcome.import_kw,
        "scheduled_import_kw": outcome.scheduled_kw,
        "gap_kw": outcome.gap_kw,
        "upstream_cost": outcome.upstream_cost,
        "total_cost": outcome.total_cost,
        "dso_result": outcome.dso_result,
        "dso_reward": outcome.dso_reward,
        **limit_figures(response, feeder),
        "shed_kw": response.shed_kw.sum(axis=-1),
        "losses_kw": response.losses_kw,
        "dso_status": response.status,
    }
    of_agents = np.array([own[name] for name in OWN_INFOS], dtype=float)
    of_network = np.array([network[name] for name in NETWORK_INFOS], dtype=float)
    return of_agents, of_network


def nothing_yet(
    n_row: int, n_agent: int
) -> tuple[Float[np.ndarray, "own batch agent"], Float[np.ndarray, "net batch"]]:
    """The infos before the first iteration: zero throughout."""
    return np.zeros((len(OWN_INFOS), n_row, n_agent)), np.zeros((len(NETWORK_INFOS), n_row))
