"""How agents answer transactive signals: by a plan to the end of the day, by the signal of the hour alone, or not.

Each plays `transactive_v0` for all agents, and every row of a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from pettingzoo import ParallelEnv

from peergrid.envs.common.policy import Observations
from peergrid.envs.transactive.env import DSO, TransactiveMarket
from peergrid.envs.transactive.plans import Outlook
from peergrid.envs.transactive.resources import SetPoints
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.transition import encode


class TransactivePolicy:
    """What the policies share: from set-points to actions. Abstract: `answer` is what differs."""

    market: TransactiveMarket

    def begin(self, env: ParallelEnv[Any, Any, Any]) -> None:
        market = env.unwrapped
        if not isinstance(market, TransactiveMarket):
            raise TypeError(f"{type(self).__name__} plays transactive_v0 only, not {type(market).__name__}")
        self.market = market

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        """One action for every agent; the DSO, where it is one, leaves the signal where it starts."""
        simulation = self.market.simulation
        actions = dict(zip(simulation.agents, self.act_rows(simulation, simulation.seen)[0], strict=True))
        return actions | ({DSO: np.zeros(1)} if DSO in observations else {})

    def begin_rows(self, simulation: Transactive, rows: Bool[np.ndarray, " batch"]) -> None:
        """Nothing is kept from one episode to the next."""

    def act_rows(
        self, simulation: Transactive, seen: Float32[np.ndarray, "batch agent entry"]
    ) -> Float[np.ndarray, "batch agent number"]:
        return encode(self.answer(simulation), simulation.params)

    def answer(self, simulation: Transactive) -> SetPoints:
        """What every agent does in the open hour of each row."""
        raise NotImplementedError


class Optimising(TransactivePolicy):
    """Every agent's own optimum to the end of the day: at its signal now, and at the day-ahead signals for later."""

    def answer(self, simulation: Transactive) -> SetPoints:
        state, days = simulation.running()
        agents, none = simulation.params.agent_bus, np.zeros((len(state.steps), simulation.n_agent))
        chosen = SetPoints(shift_kw=none.copy(), generator_kw=none.copy(), storage_kw=none.copy())
        for i, t in enumerate(state.interval.tolist()):
            if t >= simulation.params.intervals:
                continue  # the day is over: nobody answers
            signal = days.day_ahead.signal_per_kwh[i][:, agents].copy()
            signal[t] = state.signal_per_kwh[i, agents]
            # What the DSO cut, be it by its solver's tolerance, may have left a day that can't end as it began.
            stored = state.stored_kwh[i].clip(days.stored_least_kwh[i, t], days.stored_most_kwh[i, t])
            shifted = state.shifted_kwh[i].clip(-days.shifted_most_kwh[i, t], days.shifted_most_kwh[i, t])
            plan = simulation.plan.solve(
                Outlook(
                    first=t,
                    signal_per_kwh=signal,
                    shift_most_kw=days.shift_most_kw[i],
                    stored_kwh=stored,
                    shifted_kwh=shifted,
                )
            )
            for name in ("shift_kw", "generator_kw", "storage_kw"):
                getattr(chosen, name)[i] = getattr(plan, name)[t]
        return chosen


class Myopic(TransactivePolicy):
    """Looks at the signal of the hour alone, beside the mean of the day-ahead signals of the day.

    Generates up to where marginal cost meets the signal; puts off load and discharges while the signal is above the
    mean, brings load forward and charges while it is below, each up to where its marginal cost meets the difference.
    """

    def answer(self, simulation: Transactive) -> SetPoints:
        (state, days), r = simulation.running(), simulation.params.resources
        agents = simulation.params.agent_bus
        signal = state.signal_per_kwh[:, agents]
        mean = days.day_ahead.signal_per_kwh[:, :, agents].mean(axis=1)
        # What a kWh drawn from storage must earn, and what one that is charged may cost, for it to pay at the mean.
        drawn = signal - mean / r.discharge_efficiency - r.wear_per_kwh
        charged = mean * r.charge_efficiency - r.wear_per_kwh - signal
        storage = np.where(drawn > 0, drawn, -np.maximum(charged, 0.0))
        margin = np.maximum(signal - r.generator_b_per_kwh, 0.0)
        return SetPoints(
            shift_kw=_up_to(signal - mean, r.shift_per_kw2h, r.shiftable_share * r.peak_kw),
            generator_kw=_up_to(margin, r.generator_a_per_kw2h, r.generator_max_kw),
            storage_kw=_up_to(storage, r.storage_per_kw2h, r.storage_max_kw),
        )


class Scheduled(TransactivePolicy):
    """Does what was planned the day before, whatever the signal says."""

    def answer(self, simulation: Transactive) -> SetPoints:
        state, days = simulation.running()
        rows, t = np.arange(len(state.steps)), np.minimum(state.interval, simulation.params.intervals - 1)
        planned = days.day_ahead.set_points
        return SetPoints(
            shift_kw=planned.shift_kw[rows, t],
            generator_kw=planned.generator_kw[rows, t],
            storage_kw=planned.storage_kw[rows, t],
        )


def _up_to(
    margin_per_kwh: Float[np.ndarray, "batch agent"], quadratic: Float[np.ndarray, " agent"], most_kw: np.ndarray
) -> Float[np.ndarray, "batch agent"]:
    """The power at which a margin is used up by a quadratic cost, within what there is."""
    power = np.divide(margin_per_kwh, 2.0 * quadratic, out=np.zeros_like(margin_per_kwh), where=quadratic > 0)
    return np.clip(power, -most_kw, most_kw)
