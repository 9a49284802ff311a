"""What an interval is reported as: numbers under constant names, one per microgrid.

The time that the DSO took is not among them, as the same seed gives the same infos: it is in
`env.last_outcome.response.solve_seconds`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.limits import LIMIT_FIGURES, limit_figures
from peergrid.envs.p2p_trading.types import Outcome, Params

# name: (unit, meaning); figures of the whole network are the same for every microgrid.
INFOS: dict[str, tuple[str, str]] = {
    "dlmp_per_kwh": ("currency/kWh", "nodal price at the own bus, the sum of the five parts below"),
    "dlmp_energy_per_kwh": ("currency/kWh", "price of energy at the substation"),
    "dlmp_loss_per_kwh": ("currency/kWh", "marginal losses"),
    "dlmp_reactive_per_kwh": ("currency/kWh", "marginal reactive power at the substation, where that is bound"),
    "dlmp_voltage_per_kwh": ("currency/kWh", "voltage limits"),
    "dlmp_congestion_per_kwh": ("currency/kWh", "line ratings"),
    "te_price_per_kwh": ("currency/kWh", "transactive signal at the own bus"),
    "lmp_per_kwh": ("currency/kWh", "real-time price upstream"),
    "contract_kw": ("kW", "own contract, positive sold"),
    "contract_price_per_kwh": ("currency/kWh", "price of the own contract"),
    "first_proposed_kw": ("kW", "own proposal as first submitted"),
    "first_accepted_kw": ("kW", "what the DSO accepted of that"),
    "proposed_kw": ("kW", "own proposal as last submitted"),
    "accepted_kw": ("kW", "what the DSO accepted of it: the own injection"),
    "is_curtailed": ("0 or 1", "the last proposal was curtailed by more than 1 % of the rating"),
    "curtailed_kwh": ("kWh", "energy of the last proposal that was curtailed"),
    "stored_kwh": ("kWh", "energy in the battery at the interval's end"),
    "load_kw": ("kW", "own consumption"),
    "diesel_kw": ("kW", "own generation"),
    "pv_kw": ("kW", "PV fed in"),
    "battery_kw": ("kW", "battery power, positive discharged"),
    "bill": ("currency", "paid for the interval: contract, network charge, deviation"),
    "gain": ("currency", "utility less generation, wear and bill"),
    "clipped_kw": ("kW", "by how much the action asked for the physically impossible"),
    **LIMIT_FIGURES,
    "shed_kwh": ("kWh", "load shed in the whole network"),
    "losses_kwh": ("kWh", "losses of the whole network"),
    "substation_kw": ("kW", "drawn from upstream"),
    "generation_kw": ("kW", "generation dispatched by the DSO"),
    "welfare": ("currency", "what the interval is worth to all"),
    "dso_result": ("currency", "what the DSO keeps"),
    "dso_status": ("code", "DsoStatus: 0 optimal, 1 relaxation not tight, 2 unchecked, from 3 on failed"),
    "relaxation_gap_pu": ("p.u.", "largest loss that the relaxation invents"),
    "dso_calls": ("1", "proposals that the DSO answered, correction rounds included"),
}


_PLACE = {name: k for k, name in enumerate(INFOS)}


def infos_of(params: Params) -> dict[str, tuple[str, str]]:
    """INFOS, and what is reported of devices beside the standard ones."""
    found = dict(INFOS)
    for fleet in params.fleets:
        kind, name = fleet.kind, fleet.name
        found[f"{name}_kw"] = ("kW", f"power of the {name}, positive given")
        found[f"{name}_{kind.level_suffix}"] = (
            kind.level_unit,
            f"{kind.level_name} of the {name} at the interval's end",
        )
        found[f"{name}_cost"] = ("currency", f"what the {name} cost beside its energy")
    return found


def nothing_yet(n_row: int, params: Params) -> Float[np.ndarray, "info batch agent"]:
    """The infos before the first interval: zero throughout."""
    return np.zeros((len(infos_of(params)), n_row, len(params.agent_bus)))


def measure(outcome: Outcome, params: Params) -> Float[np.ndarray, "info batch agent"]:
    """The infos of an interval, in the order and the units of `infos_of`."""
    response, feeder, hours = outcome.response, params.feeder, params.step_hours
    parts = response.price_parts

    def at_own(values: Float[np.ndarray, "batch bus"]) -> Float[np.ndarray, "batch agent"]:
        return values.take(params.agent_bus, axis=-1)

    of_network = {
        "lmp_per_kwh": outcome.lmp_per_kwh,
        **limit_figures(response, feeder),
        "shed_kwh": response.shed_kw.sum(axis=-1) * hours,
        "losses_kwh": response.losses_kw * hours,
        "substation_kw": response.substation_kw,
        "generation_kw": response.generator_kw.sum(axis=-1),
        "welfare": outcome.welfare,
        "dso_result": outcome.dso_result,
        "dso_status": response.status,
        "relaxation_gap_pu": response.relaxation_gap_pu,
        "dso_calls": outcome.dso_calls,
    }
    of_microgrid = {
        "dlmp_per_kwh": at_own(response.price_per_kwh),
        "dlmp_energy_per_kwh": at_own(parts.energy),
        "dlmp_loss_per_kwh": at_own(parts.loss),
        "dlmp_reactive_per_kwh": at_own(parts.reactive),
        "dlmp_voltage_per_kwh": at_own(parts.voltage),
        "dlmp_congestion_per_kwh": at_own(parts.congestion),
        "te_price_per_kwh": outcome.te_price_per_kwh,
        "contract_kw": outcome.contracts.quantity_kw,
        "contract_price_per_kwh": outcome.contracts.price_per_kwh,
        "first_proposed_kw": outcome.first_proposed_kw,
        "first_accepted_kw": outcome.first_accepted_kw,
        "proposed_kw": outcome.proposed_kw,
        "accepted_kw": response.accepted_kw,
        "is_curtailed": outcome.is_curtailed,
        "curtailed_kwh": np.abs(outcome.proposed_kw - response.accepted_kw) * hours,
        "stored_kwh": outcome.stored_kwh,
        "load_kw": outcome.dispatch.load_kw,
        "diesel_kw": outcome.dispatch.diesel_kw,
        "pv_kw": outcome.dispatch.pv_kw,
        "battery_kw": outcome.dispatch.battery_kw,
        "bill": outcome.bills.total,
        "gain": outcome.gain,
        "clipped_kw": outcome.clipped_kw,
    }
    of_fleets = [
        values
        for power_kw, level, cost in zip(outcome.decisions.fleet_kw, outcome.levels, outcome.fleet_costs, strict=True)
        for values in (power_kw, level, cost)
    ]
    measured = np.empty((len(INFOS) + len(of_fleets), *outcome.gain.shape))
    measured[len(INFOS) :] = np.reshape(of_fleets, measured[len(INFOS) :].shape)
    for name, values in of_microgrid.items():
        measured[_PLACE[name]] = values
    for name, values in of_network.items():
        measured[_PLACE[name]] = values[:, None]
    return measured
