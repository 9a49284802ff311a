"""Learning through the operator: days are differentiated, and the policy climbs the slope of what they give.

The operator's answer has an exact adjoint; dispatch, batteries and settlement are closed forms. So what a day gives has
a slope with respect to every action in it, and nothing has to be tried out. With a proposal t_m, the operator's answer
(accepted a, prices l), battery power b_m, marginal value mu_m and the contract c_m, per hour:

    d welfare / d t_m  =  sum_k dW/da_k da_k/dt_m + what the operator's own devices cost more, by the adjoint
                       =  l_m - mu_m                                where nobody is curtailed
    d gain_m / d t_m   =  (l_m - mu_m - delta sign(a_m - c_m)) da_m/dt_m + a_m dl_m/dt_m - c_m dl_0/dt_m
    d t_m / d price_m  =  slope of the export curve where the dispatch price bounds the proposal, else 0
    d t_m / d b_m      =  1 there, else 0
    d . / d b_m        =  mu_m - wear sign(b_m), at a given export

Each microgrid climbs its own reward, (1 - cooperation) gain_m + cooperation W / n, with the others' actions held. From
one interval to the next the slope follows the stored energy: through its limits, and through what is seen of it. All
else that is seen is held constant, and so are contracts: the auction is not differentiated. Actions carry noise, which
smooths what has kinks. One batch is a day in each of some markets, and one step of the optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from peergrid.baselines.training.lesson import CHECKPOINT, Progress, from_checkpoint
from peergrid.baselines.training.ppo import Network, Scale, actor_of
from peergrid.envs.configuration import from_mapping
from peergrid.envs.entries import PRICE_UNIT_PER_KWH, bent
from peergrid.envs.microgrid import battery_reach, export_band, marginal_value
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval
from peergrid.envs.p2p_trading.types import N_ACTIONS, Now, Outcome, Params, State
from peergrid.grid.dso import DsoQuery, DsoResponse, DsoStatus, OpfDso
from peergrid.grid.dso_gradient import QueryGradient, ResponseGradient, respond_with_gradient
from peergrid.grid.errors import PeergridError
from peergrid.grid.opf.interior_point import InteriorPointOpf

BATTERY, QUANTITY, LIMIT, PRICE = range(N_ACTIONS)
STORED = ("state of charge", "least battery power", "most battery power")  # what is seen of the stored energy


@dataclass(frozen=True, kw_only=True)
class GradientSettings:
    """The numbers of the algorithm."""

    learning_rate: float = 3.0e-3
    deviation: float = 0.1
    """Of the noise on battery power and dispatch price; it falls to nought with the learning rate."""
    smoothing_per_kwh: float = 0.01
    """How far to both sides of the dispatch price the slope of the export curve is taken."""
    max_gradient: float = 1.0
    inner: int = 1
    prox: float = 1.0
    see_stored: bool = True
    beta2: float = 0.999


class DifferentiableDso:
    """An operator that keeps, of its last answer, how to take slopes back to the proposals."""

    def __init__(self, dso: OpfDso) -> None:
        self.dso = dso
        self.pull_back: Callable[[ResponseGradient], QueryGradient] | None = None

    def __call__(self, query: DsoQuery) -> DsoResponse:
        response, self.pull_back = respond_with_gradient(self.dso, query)
        return response

    def of_proposals(self, **of_response: np.ndarray) -> Float[np.ndarray, "batch trade"]:
        """What a slope with respect to the last answer is with respect to its proposals."""
        assert self.pull_back is not None, "there is no answer yet"
        return self.pull_back(ResponseGradient(**of_response)).proposed_kw


@dataclass(frozen=True, eq=False, kw_only=True)
class Slopes:
    """What the own reward gains for each unit of one's own decision, in currency per kW and per currency / kWh."""

    per_battery_kw: Float[np.ndarray, "market agent"]
    per_price: Float[np.ndarray, "market agent"]


def learn_with_gradients(progress: Progress) -> None:
    """Train by climbing the slopes of the days that are played."""
    lesson = progress.lesson
    settings: GradientSettings = from_mapping(GradientSettings, lesson.algo.arguments)
    if lesson.player != "shared":
        raise PeergridError(f"learning through the operator is for player=shared, not player={lesson.player}")
    # A constant less, such as what no trade gives, has no slope.
    scenario = replace(lesson.scenario, over_no_trade=False)
    simulation = market_with_slopes(scenario, lesson.algo.num_envs, lesson.predictor, lesson.predicted_intervals)
    torch.manual_seed(lesson.seed)
    climber = Climber(settings, simulation, lesson.algo.net_arch)
    per_batch = simulation.num_envs * simulation.params.intervals
    n_batch, every = -(-lesson.steps // per_batch), max(1, -(-lesson.check_every // per_batch))
    first, spent = climber.resume(lesson.folder), 0.0
    if first:
        progress.go_on(first * per_batch)
    else:
        climber.look(simulation, [lesson.seed])
        progress.measure(0, climber.actor_alone(), 0.0)
    for k in range(first, n_batch):
        share_left = 1.0 - k / n_batch
        spent += climber.climb(simulation, share_left, [lesson.seed, k])
        if (k + 1) % every == 0 or k + 1 == n_batch:
            progress.measure((k + 1) * per_batch, climber.actor_alone(), spent)
            climber.save(lesson.folder, k + 1)


def market_with_slopes(scenario, num_envs, predictor, predicted_intervals):
    simulation = Simulation(scenario, num_envs=num_envs, predictor=predictor, predicted_intervals=predicted_intervals)
    dso = simulation.params.dso
    if not isinstance(dso, OpfDso) or not isinstance(dso._solve, InteriorPointOpf):
        raise PeergridError("learning through the operator needs one that solves with 'interior_point'")
    if simulation.params.market.correction_rounds != 1:
        raise PeergridError("learning through the operator is for correction_rounds=1")
    simulation.params = replace(simulation.params, dso=DifferentiableDso(dso))
    return simulation


class Climber:
    """The actor, its optimiser and its view."""

    def __init__(self, settings: GradientSettings, simulation: Simulation, hidden: list[int]) -> None:
        self.settings = settings
        n_seen = len(simulation.entries)
        self.actor = Network(n_seen, hidden, N_ACTIONS, 1, 0.01)
        with torch.no_grad():  # no offers but at the LMP: their limit has no slope
            self.actor.weight[:, LIMIT] = 0.0
            self.actor.weight[:, QUANTITY] = 0.0
        self.optimiser = torch.optim.Adam(self.actor.parameters(), lr=settings.learning_rate, eps=1e-7, betas=(0.9, settings.beta2), fused=True)
        self.scale = Scale(n_seen)

    def look(self, simulation: Simulation, seeds: list[int]) -> None:
        """Begin with the scale of one day on which nothing is done."""
        drawing = np.random.default_rng(seeds)
        simulation.reset(seed=int(drawing.integers(2**62)))
        seen = [simulation.seen.copy()]
        nothing = np.zeros((simulation.num_envs, simulation.n_agent, N_ACTIONS))
        while not simulation.is_over.all():
            simulation.step(nothing)
            seen.append(simulation.seen.copy())
        self.scale.update(torch.from_numpy(np.stack(seen[:-1])))

    def climb(self, simulation: Simulation, share_left: float, seeds: list[int]) -> float:
        """Play a day in every market and go one step up its slope; the seconds that the environment took."""
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * share_left
        value, seen, seconds = self.play_day(simulation, settings.deviation * share_left, seeds)
        self.optimiser.zero_grad(set_to_none=True)
        (-value).backward()
        self.norm = nn.utils.clip_grad_norm_(self.actor.parameters(), settings.max_gradient)
        self.optimiser.step()
        self.scale.update(seen)
        return seconds

    def play_day(self, simulation: Simulation, deviation: float, seeds: list[int]) -> tuple[Tensor, Tensor, float]:
        settings, params = self.settings, simulation.params
        drawing = np.random.default_rng(seeds)
        noise = torch.Generator().manual_seed(int(drawing.integers(2**62)))
        start, learning = time.perf_counter(), 0.0
        simulation.reset(seed=int(drawing.integers(2**62)))
        stored = torch.from_numpy(simulation.running()[0].stored_kwh)
        spread = torch.tensor([deviation, 0.0, 0.0, deviation])
        rating = torch.from_numpy(params.microgrids.battery_rating_kw)
        value, seen = torch.zeros((), dtype=torch.float64), []
        while not simulation.is_over.all():
            state, days = simulation.running()
            now = current_interval(state, days, params)
            before = time.perf_counter()
            limits = battery_limits(stored, now, params)
            seen.append(torch.from_numpy(simulation.seen))
            looked = with_stored(seen[-1], stored, limits, simulation) if settings.see_stored else seen[-1]
            meant = self.actor(self.scale(looked))
            drawn = meant + spread * torch.randn(meant.shape, generator=noise)
            learning += time.perf_counter() - before
            _, outcome = simulation.step(drawn.detach().numpy().astype(np.float64))
            slopes = slopes_of(outcome, now, params, settings.smoothing_per_kwh)
            before = time.perf_counter()
            numbers = drawn.to(torch.float64)
            battery_kw = held_within(numbers[..., BATTERY] * rating, *limits)
            price = dispatch_price(numbers[..., PRICE], now, params)
            value = value + (torch.from_numpy(slopes.per_battery_kw) * battery_kw).sum()
            value = value + (torch.from_numpy(slopes.per_price) * price).sum()
            stored = energy_after(stored, battery_kw, params)
            learning += time.perf_counter() - before
        if params.terminates:
            price_left = days.lmp_day_ahead_per_kwh[:, : params.intervals].mean(axis=-1)[:, None]
            worth = price_left * params.microgrids.discharge_efficiency * _share(params)
            value = value + (torch.from_numpy(worth) * stored).sum()
        seconds = time.perf_counter() - start - learning
        return value / simulation.num_envs, torch.stack(seen), seconds

    def actor_alone(self):
        return actor_of(self.actor, self.scale)

    def save(self, folder: Path, n_batch: int) -> None:
        state = {
            "batches": n_batch,
            "actor": self.actor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scale": [self.scale.mean, self.scale.square, self.scale.count],
        }
        unfinished = folder / f"{CHECKPOINT}.partial"
        torch.save(state, unfinished)
        unfinished.replace(folder / CHECKPOINT)

    def resume(self, folder: Path) -> int:
        def put(state: dict[str, Any]) -> int:
            self.actor.load_state_dict(state["actor"])
            self.optimiser.load_state_dict(state["optimiser"])
            mean, square, count = state["scale"]
            self.scale.mean, self.scale.square, self.scale.count = mean, square, float(count)
            return int(state["batches"])

        return from_checkpoint(folder / CHECKPOINT, put) or 0


class _Held(torch.autograd.Function):
    """Clips; a slope goes to the end that holds the value, and to the value if it leads back inside."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.below, ctx.above = value < low, value > high
        return torch.minimum(torch.maximum(value, low), high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        outwards = (ctx.below & (gradient > 0)) | (ctx.above & (gradient < 0))  # losses are descended
        return torch.where(outwards, 0.0, gradient), gradient * ctx.below, gradient * ctx.above


def held_within(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The value clipped to its ends, with a gradient that can lead back inside."""
    held: Tensor = _Held.apply(value, low, high)
    return held


def battery_limits(stored: Tensor, now: Now, params: Params) -> tuple[Tensor, Tensor]:
    """The least and the most battery power, as `envs.microgrid.battery_limits` has them, by what is stored."""
    grids = params.microgrids
    least, most = (torch.from_numpy(kw) for kw in battery_reach(grids, now.interval))
    eta_c, eta_d = torch.from_numpy(grids.charge_efficiency), torch.from_numpy(grids.discharge_efficiency)

    def to_reach(energy_kwh: np.ndarray) -> Tensor:
        gain_kw = (torch.from_numpy(energy_kwh) - stored) / params.step_hours
        return torch.minimum(torch.maximum(-torch.maximum(gain_kw / eta_c, gain_kw * eta_d), least), most)

    return to_reach(now.most_kwh), to_reach(now.least_kwh)


def energy_after(stored: Tensor, battery_kw: Tensor, params: Params) -> Tensor:
    """The energy after an interval at a power within the limits, as `envs.microgrid.store` has it."""
    grids = params.microgrids
    eta_c, eta_d = torch.from_numpy(grids.charge_efficiency), torch.from_numpy(grids.discharge_efficiency)
    return stored + (eta_c * torch.relu(-battery_kw) - torch.relu(battery_kw) / eta_d) * params.step_hours


def dispatch_price(number: Tensor, now: Now, params: Params) -> Tensor:
    """The dispatch price that a number means, as `decode` has it."""
    highest = float(bent(params.market.price_cap_per_kwh))
    at = torch.from_numpy(bent(now.published_per_kwh)) + highest * number
    zero = torch.zeros_like(at)
    return PRICE_UNIT_PER_KWH * torch.sinh(held_within(at, zero, zero + highest))


def with_stored(seen: Tensor, stored: Tensor, limits: tuple[Tensor, Tensor], simulation: Simulation) -> Tensor:
    """What is seen, with the entries that tell of the stored energy as functions of it."""
    grids = simulation.params.microgrids
    names = [entry.name for entry in simulation.entries]
    usable = torch.from_numpy(np.maximum(grids.energy_max_kwh - grids.energy_min_kwh, 1e-9))
    rating = torch.from_numpy(np.maximum(grids.battery_rating_kw, 1e-9))
    told = ((stored - torch.from_numpy(grids.energy_min_kwh)) / usable, limits[0] / rating, limits[1] / rating)
    first = names.index(STORED[0])
    assert names[first:first+3] == list(STORED)
    return torch.cat([seen[..., :first], torch.stack(told, dim=-1).to(seen.dtype), seen[..., first+3:]], dim=-1)


def _share(params: Params) -> float:
    return 1.0 - params.cooperation + params.cooperation / len(params.trade_bus)


def slopes_of(outcome: Outcome, now: Now, params: Params, smoothing: float) -> Slopes:
    grids, response, hours, dso = params.microgrids, outcome.response, params.step_hours, params.dso
    assert isinstance(dso, DifferentiableDso)
    decisions, accepted_kw, contract_kw = outcome.decisions, response.accepted_kw, outcome.contracts.quantity_kw
    interval = replace(now.interval, battery_kw=decisions.battery_kw)
    value = marginal_value(grids, interval, accepted_kw)
    spread = params.market.half_spread_per_kwh
    price = decisions.dispatch_price_per_kwh

    def band(p):
        return export_band(grids, interval, p - spread, p + spread)

    least_kw, most_kw = band(price)
    (a0, a1), (b0, b1) = band(price - smoothing), band(price + smoothing)
    per_price_kw = (contract_kw.clip(b0, b1) - contract_kw.clip(a0, a1)) / (2.0 * smoothing)
    moves = ~((contract_kw > least_kw) & (contract_kw < most_kw))
    share, n = params.cooperation, len(params.trade_bus)
    per_kw = np.zeros_like(accepted_kw)
    if share > 0:
        per_kw = share / n * welfare_slope(dso, response, value, now, params)
    if share < 1:
        per_kw = per_kw + (1 - share) * gain_slope(dso, outcome, value, params)
    solved = (response.status < DsoStatus.INFEASIBLE)[:, None]
    of_battery = _share(params) * (np.where(solved, value, 0.0) - grids.wear_per_kwh * np.sign(decisions.battery_kw))
    return Slopes(per_battery_kw=(of_battery + per_kw * moves) * hours, per_price=per_kw * per_price_kw * hours)


def welfare_slope(dso, response, value, now, params):
    generators = params.generators
    return dso.of_proposals(
        accepted_kw=-value,
        substation_kw=-now.lmp_per_kwh,
        generator_kw=-(2 * generators.a_per_kw2h * response.generator_kw + generators.b_per_kwh),
        shed_kw=-(params.voll_per_kwh + 2 * params.c_ls_per_kw2h * response.shed_kw),
    )


def gain_slope(dso, outcome, value, params):
    response, bus = outcome.response, params.trade_bus
    accepted_kw, contract_kw = response.accepted_kw, outcome.contracts.quantity_kw
    cap = params.market.price_cap_per_kwh
    nodal = response.price_per_kwh.take(bus, axis=-1)
    of_accepted = nodal.clip(-cap, cap) - value - params.market.half_spread_per_kwh * np.sign(accepted_kw - contract_kw)
    within = np.abs(response.price_per_kwh) < cap
    slope = np.zeros_like(accepted_kw)
    for m, b in enumerate(bus):
        accepted, price = np.zeros_like(accepted_kw), np.zeros_like(response.price_per_kwh)
        accepted[:, m] = of_accepted[:, m]
        price[:, b] += accepted_kw[:, m] * within[:, b]
        price[:, 0] -= contract_kw[:, m] * within[:, 0]
        slope[:, m] = dso.of_proposals(accepted_kw=accepted, price_per_kwh=price)[:, m]
    return slope
