"""What is agreed the day before: agents plan on forecasts and signals, the network's losses move the signals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.signals import te_signal_per_kwh
from peergrid.envs.transactive.plans import AgentPlan, Outlook
from peergrid.envs.transactive.resources import carried, operating_cost
from peergrid.envs.transactive.types import DayAhead, Forecast, Params
from peergrid.grid.dso import DsoQuery

# Signals follow the losses, which follow the plans: rounds until no signal moves by more than this share.
SAME_SIGNAL, MOST_ROUNDS = 1e-4, 6


def agree(
    forecast: Forecast, shift_most_kw: Float[np.ndarray, "interval agent"], plan: AgentPlan, params: Params
) -> DayAhead:
    """The schedule of a day: signals on which the agents plan, and the exchange that their plans give.

    The signal at the substation is the day-ahead LMP; at first it holds at every bus. Then agents plan, the DSO solves
    the power flow of every hour, and signals follow from its flows, until they stand.
    """
    feeder, agents = params.feeder, params.agent_bus
    signal = np.repeat(forecast.lmp_per_kwh[:, None], feeder.n_bus, axis=1)
    for _ in range(MOST_ROUNDS):
        outlook = Outlook(
            first=0,
            signal_per_kwh=signal[:, agents],
            shift_most_kw=shift_most_kw,
            stored_kwh=params.initial_kwh,
            shifted_kwh=np.zeros(len(agents)),
        )
        chosen = plan.solve(outlook)
        response = params.dso(
            DsoQuery(
                load_kw=forecast.load_kw,
                load_kvar=forecast.load_kvar,
                proposed_kw=chosen.total_kw + forecast.pv_kw,
                lmp_per_kwh=forecast.lmp_per_kwh,
                root_price_per_kwh=forecast.lmp_per_kwh,
            )
        )
        before, signal = signal, te_signal_per_kwh(feeder, response, forecast.lmp_per_kwh)
        if np.abs(signal / before - 1.0).max() < SAME_SIGNAL:
            break
    done, _ = carried(chosen, forecast.pv_kw, response.accepted_kw)
    upstream = (forecast.lmp_per_kwh * response.substation_kw).sum()
    return DayAhead(
        import_kw=response.substation_kw,
        signal_per_kwh=signal,
        exchange_kw=response.accepted_kw - params.own_of(forecast.load_kw),
        set_points=done,
        cost=np.asarray(params.step_hours * (upstream + operating_cost(params.resources, done).sum())),
    )
