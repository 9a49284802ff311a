"""Learning through the operator: a day is differentiated, and the policy climbs what it finds.

The operator's answer tells what one kilowatt more would have been worth at every bus: its price. Dispatch, batteries
and settlement are closed forms. So the slope of what a day gives with respect to every action is known, without trying:

    d welfare / d t_m = l_m - mu_m        a proposal t_m: the nodal price above the own marginal value
    d gain_m / d t_m  = the same, less the half-spread if more is sold than was contracted, plus it if more is bought,
                        + a_m d l_m / d t_m       what the own injection does to its own price, by the adjoint
    d t_m / d price_m                     the smoothed slope of the own offer curve around the dispatch price
    d t_m / d battery_m                   1, or 0 where the contract is kept whatever the battery does, or curtailed

and energy that is stored now is worth what it gives later. Batches play whole days in the true market, with noise on
the actions, and take one step up the slope of the mean. Held constant: what others do, contracts, and all that is seen
but the stored energy and its limits, through which an action now moves those that follow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from peergrid.baselines.training.lesson import Progress, player_of
from peergrid.baselines.training.ppo import Learner, PpoSettings
from peergrid.envs.configuration import from_mapping
from peergrid.envs.microgrid import battery_reach, export_band, marginal_value
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval
from peergrid.envs.p2p_trading.types import Now, Outcome, Params
from peergrid.grid.dso import DsoQuery, DsoStatus, OpfDso
from peergrid.grid.dso_gradient import ResponseGradient, respond_with_gradient
from peergrid.grid.errors import PeergridError

BATTERY, PRICE = 0, 3  # the numbers of an action that are learned; offers follow from them
STORED = ("state of charge", "least battery power", "most battery power")  # what is seen of the stored energy


@dataclass(frozen=True, kw_only=True)
class GradientSettings:
    """The numbers of the algorithm."""

    learning_rate: float = 3.0e-3
    deviation: float = 0.1
    """Of the noise on the actions, which falls to nought with the learning rate."""
    smoothing_per_kwh: float = 0.03
    """How far around the dispatch price the slope of the offer curve is taken."""
    max_gradient: float = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Slopes:
    """What an interval would have given more for each unit of an action, in currency per unit."""

    per_battery_kw: Float[np.ndarray, "market agent"]
    per_price: Float[np.ndarray, "market agent"]


def learn_with_gradients(progress: Progress) -> None:
    """Train by climbing the slope of the days that are played."""
    lesson = progress.lesson
    settings: GradientSettings = from_mapping(GradientSettings, lesson.algo.arguments)
    if lesson.player != "shared":
        raise PeergridError(f"learning through the operator trains with player=shared, not player={lesson.player}")
    simulation = Simulation(
        lesson.scenario,
        num_envs=lesson.algo.num_envs,
        predictor=lesson.predictor,
        predicted_intervals=lesson.predicted_intervals,
    )
    if not isinstance(simulation.params.dso, OpfDso):
        raise PeergridError("learning through the operator needs one that solves the optimal power flow")
    torch.manual_seed(lesson.seed)
    learner = Learner(
        PpoSettings(learning_rate=settings.learning_rate), player_of("shared", simulation), lesson.algo.net_arch
    )
    per_batch = simulation.num_envs * simulation.params.intervals
    n_batch, every = -(-lesson.steps // per_batch), max(1, -(-lesson.check_every // per_batch))
    first, spent = learner.resume(lesson.folder), 0.0
    if first:
        progress.go_on(first * per_batch)
    else:
        progress.measure(0, learner.actor_alone(), 0.0)
    for k in range(first, n_batch):
        share_left = 1.0 - k / n_batch
        for group in learner.optimiser.param_groups:
            group["lr"] = settings.learning_rate * share_left
        value, seen, seconds = play_day(
            simulation, learner, settings, settings.deviation * share_left, [lesson.seed, k]
        )
        spent += seconds
        learner.optimiser.zero_grad(set_to_none=True)
        (-value).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learner.actor.parameters(), settings.max_gradient)
        learner.optimiser.step()
        learner.scale_by(seen, seen[..., :0])
        if (k + 1) % every == 0 or k + 1 == n_batch:
            progress.measure((k + 1) * per_batch, learner.actor_alone(), spent)
            learner.save(lesson.folder, k + 1)


def play_day(
    simulation: Simulation, learner: Learner, settings: GradientSettings, deviation: float, seeds: list[int]
) -> tuple[Tensor, Tensor, float]:
    """Play a day in every market; a number whose gradient is that of what the day gave, what was seen, and seconds."""
    drawing = np.random.default_rng(seeds)
    noise = torch.Generator().manual_seed(int(drawing.integers(2**62)))
    start, learning = time.perf_counter(), 0.0
    simulation.reset(seed=int(drawing.integers(2**62)))
    params = simulation.params
    stored = torch.tensor(simulation.running()[0].stored_kwh)
    value, seen = torch.zeros((), dtype=torch.float64), []
    while not simulation.is_over.all():
        state, days = simulation.running()
        now = current_interval(state, days, params)
        before = time.perf_counter()
        limits = battery_limits(stored, now, params)
        seen.append(torch.tensor(simulation.seen))
        looked = with_stored(seen[-1], stored, limits, simulation)
        meant = learner.actor(learner.scale(looked))
        drawn = meant + deviation * torch.randn(meant.shape, generator=noise)
        learning += time.perf_counter() - before
        _, outcome = simulation.step(drawn.detach().numpy().astype(np.float64))
        slopes = slopes_of(outcome, now, params, settings)
        before = time.perf_counter()
        numbers = drawn.to(torch.float64)
        rating = torch.tensor(params.microgrids.battery_rating_kw)
        battery_kw = held_within(numbers[..., BATTERY] * rating, *limits)
        price = held_within(numbers[..., PRICE], torch.tensor(-1.0).double(), torch.tensor(1.0).double())
        # First-order: slopes are constants, so that only their gradient means something.
        value = value + (torch.tensor(slopes.per_battery_kw) * battery_kw).sum()
        value = value + (torch.tensor(slopes.per_price) * price).sum()
        stored = energy_after(stored, battery_kw, params)
        learning += time.perf_counter() - before
    seconds = time.perf_counter() - start - learning
    return value / simulation.num_envs, torch.stack(seen), seconds


class _Held(torch.autograd.Function):
    """A value held between two ends: it is moved by what moves its end, or back inside by what would move it there."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.below, ctx.above = value < low, value > high
        ctx.shapes = low.shape, high.shape
        return torch.minimum(torch.maximum(value, low), high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        inside = ~(ctx.below | ctx.above)
        # The loss is descended: below the low end, a negative gradient leads back.
        back = inside | (ctx.below & (gradient < 0)) | (ctx.above & (gradient > 0))
        low, high = gradient * ctx.below, gradient * ctx.above
        low, high = (g.sum() if shape == () else g for g, shape in zip((low, high), ctx.shapes, strict=True))
        return gradient * back, low, high


def held_within(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The value clipped to its ends, with a gradient that can lead back inside."""
    held: Tensor = _Held.apply(value, low, high)  # type: ignore[no-untyped-call]
    return held


def battery_limits(stored: Tensor, now: Now, params: Params) -> tuple[Tensor, Tensor]:
    """The least and the most battery power, as `envs.microgrid` has them, as functions of what is stored."""
    grids = params.microgrids
    least, most = (torch.tensor(kw) for kw in battery_reach(grids, now.interval))
    eta_c, eta_d = torch.tensor(grids.charge_efficiency), torch.tensor(grids.discharge_efficiency)

    def to_reach(energy_kwh: np.ndarray) -> Tensor:
        gain_kw = (torch.tensor(energy_kwh) - stored) / params.step_hours
        return torch.clamp(-torch.maximum(gain_kw / eta_c, gain_kw * eta_d), least, most)

    return to_reach(now.most_kwh), to_reach(now.least_kwh)


def energy_after(stored: Tensor, battery_kw: Tensor, params: Params) -> Tensor:
    """The energy after an interval at a power within the limits, as `envs.microgrid.store` has it."""
    grids = params.microgrids
    eta_c, eta_d = torch.tensor(grids.charge_efficiency), torch.tensor(grids.discharge_efficiency)
    charged_kw = eta_c * torch.relu(-battery_kw) - torch.relu(battery_kw) / eta_d
    return stored + charged_kw * params.step_hours


def with_stored(seen: Tensor, stored: Tensor, limits: tuple[Tensor, Tensor], simulation: Simulation) -> Tensor:
    """What is seen, with the entries that tell of the stored energy as functions of it."""
    grids = simulation.params.microgrids
    names = [entry.name for entry in simulation.entries]
    usable = torch.tensor(np.maximum(grids.energy_max_kwh - grids.energy_min_kwh, 1e-9))
    rating = torch.tensor(np.maximum(grids.battery_rating_kw, 1e-9))
    told = ((stored - torch.tensor(grids.energy_min_kwh)) / usable, limits[0] / rating, limits[1] / rating)
    columns = list(seen.unbind(-1))
    for name, values in zip(STORED, told, strict=True):
        columns[names.index(name)] = values.to(seen.dtype)
    return torch.stack(columns, dim=-1)


def slopes_of(outcome: Outcome, now: Now, params: Params, settings: GradientSettings) -> Slopes:
    """What each microgrid would have been paid more for each unit of battery power and of the price's number."""
    grids, response, hours = params.microgrids, outcome.response, params.step_hours
    decisions, accepted_kw = outcome.decisions, response.accepted_kw
    interval = replace(now.interval, battery_kw=decisions.battery_kw)
    nodal = response.price_per_kwh.take(params.trade_bus, axis=-1)
    value = marginal_value(grids, interval, accepted_kw)
    spread, contract_kw = params.market.half_spread_per_kwh, outcome.contracts.quantity_kw

    def proposed_kw(price: np.ndarray) -> np.ndarray:
        least_kw, most_kw = export_band(grids, interval, price - spread, price + spread)
        return contract_kw.clip(least_kw, most_kw)

    price, step = decisions.dispatch_price_per_kwh, settings.smoothing_per_kwh
    per_price_kw = (proposed_kw(price + step) - proposed_kw(price - step)) / (2.0 * step)
    least_kw, most_kw = export_band(grids, interval, price - spread, price + spread)
    solved = (response.status < DsoStatus.INFEASIBLE)[:, None]
    counts = solved & ~outcome.is_curtailed
    moves = counts & ~((contract_kw > least_kw) & (contract_kw < most_kw))

    share = params.cooperation
    per_kw = (share / nodal.shape[-1] + 1.0 - share) * (nodal - value)
    of_battery = (share / nodal.shape[-1] + 1.0 - share) * value
    if share < 1.0:
        beyond_kw = accepted_kw - contract_kw
        own = own_price_slope(outcome, now, params) * accepted_kw - spread * np.sign(beyond_kw)
        per_kw = per_kw + (1.0 - share) * own
    wear = (share / nodal.shape[-1] + 1.0 - share) * grids.wear_per_kwh * np.sign(decisions.battery_kw)
    cap = params.market.price_cap_per_kwh
    # d price / d number: the price is bent, by asinh(price / 0.1).
    per_number = np.sqrt(0.1**2 + price**2) * np.arcsinh(cap / 0.1)
    return Slopes(
        per_battery_kw=(of_battery * solved + per_kw * moves - wear) * hours,
        per_price=np.where(counts, per_kw * per_price_kw, 0.0) * per_number * hours,
    )


def own_price_slope(outcome: Outcome, now: Now, params: Params) -> Float[np.ndarray, "market agent"]:
    """What a kilowatt more of one's own does to the own nodal price, others as they are, by the operator's adjoint."""
    dso = params.dso
    assert isinstance(dso, OpfDso)
    query = DsoQuery(
        load_kw=now.load_kw,
        load_kvar=now.load_kvar,
        proposed_kw=outcome.proposed_kw,
        lmp_per_kwh=now.lmp_per_kwh,
        root_price_per_kwh=now.lmp_per_kwh,
    )
    _, pull_back = respond_with_gradient(dso, query)
    slope = np.zeros_like(outcome.proposed_kw)
    for m, bus in enumerate(params.trade_bus):
        of_price = np.zeros_like(outcome.response.price_per_kwh)
        of_price[:, bus] = 1.0
        slope[:, m] = pull_back(ResponseGradient(price_per_kwh=of_price)).proposed_kw[:, m]
    return slope
