"""Learning through the operator: days are differentiated, and the policy climbs the slope of what they give.

The operator's answer has an exact adjoint; dispatch, batteries and settlement are closed forms. So what a day gives has
a slope with respect to every action in it, and nothing has to be tried out. With proposals t, what is accepted of them
a, nodal prices l (l_0 at the substation), battery power b, marginal values mu, contracts c at prices pi, per hour:

    d W / d t_m  =  -sum_k mu_k da_k/dt_m  -  what the operator's own devices cost more
                 =  l_m - mu_m  where nobody is curtailed
    d gain_m / d t_m  =  (l_m - mu_m - delta sign(a_m - c_m)) da_m/dt_m  +  a_m dl_m/dt_m  -  c_m dl_0/dt_m
    d t_m / d price_m  =  slope of the export curve where the dispatch price bounds the proposal, else 0
    d t_m / d b_m  =  1 there, else 0;  at a given export a kW more of the battery gives  mu_m - wear sign(b_m)
    d t_m / d c_m  =  0 there, else 1;  at a given export a kW more of it gives  pi_m - l_0 + delta sign(a_m - c_m)

The derivatives of a and l come from the adjoint. At a proposal of zero it says nothing, and l_m - mu_m stands for both
slopes.
Each microgrid climbs its own reward, (1 - cooperation) gain_m + cooperation W / n, with the others' actions held. From
one interval to the next the slope follows the stored energy: through the limits that it sets, and through what is seen
of it. All else that is seen is held constant. The auction is not differentiated: a little more that is offered is taken
to be a little more contracted if all that was offered is, at the same price. Limit prices stay at the LMP.

Every batch plays one whole day in some markets, with noise on the actions. Then the policy is moved in a few steps of
the optimiser to where a parabola has its top in each action, with the slope that was found and a supposed curvature.
What is kept is a running mean of the policies. The same settings give the same weights, also where a training was
interrupted: batch k draws its days and its noise from the seed and k alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from peergrid.baselines.policies.learned import Actor
from peergrid.baselines.training.lesson import CHECKPOINT, Progress, from_checkpoint, write_checkpoint
from peergrid.baselines.training.network import Network, Scale, actor_of
from peergrid.envs.common.configuration import from_mapping
from peergrid.envs.common.entries import PRICE_UNIT_PER_KWH, bent
from peergrid.envs.microgrid import battery_reach, export_band, marginal_value
from peergrid.envs.p2p_trading.predictors import Predictor
from peergrid.envs.p2p_trading.scenario import Scenario, build_dso
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import N_ACTIONS, Now, Outcome, Params
from peergrid.grid.dso import DsoQuery, DsoResponse, DsoStatus, OpfDso
from peergrid.grid.dso.gradient import QueryGradient, ResponseGradient, respond_with_gradient
from peergrid.grid.errors import PeergridError

BATTERY, QUANTITY, LIMIT, PRICE = range(N_ACTIONS)
STORED = ("state of charge", "least battery power", "most battery power")  # what is seen of the stored energy
WHOLE = 1.0e-6  # of the rating: what is offered counts as taken whole if no more is missing


@dataclass(frozen=True, kw_only=True)
class GradientSettings:
    """The numbers of the algorithm."""

    learning_rate: float = 1.0e-2
    deviation: float = 0.05
    """Of the noise on actions; like the learning rate it falls to nought as training ends."""
    smoothing_per_kwh: float = 0.01
    """How far to both sides of the dispatch price the slope of the export curve is taken."""
    passes: int = 8
    """Steps of the optimiser after every batch."""
    curvature: float = 30.0
    """By how much the worth of a kW of the battery is supposed to fall from idle to full power, in units of
    PRICE_UNIT_PER_KWH: how careful later passes are."""
    averaging: float = 0.9
    """Share of the running mean that is left after a batch; 0 keeps the last policy alone."""
    max_gradient: float = 0.1
    start: str = ""
    """A policy's file to go on from, whose layers are as these; with a small learning rate, not to lose it."""


class DifferentiableDso:
    """An operator that keeps how to take slopes back through its next answer once it was told to listen."""

    def __init__(self, planner: OpfDso) -> None:
        self.planner = planner
        self._listens = False
        self._pull_back: Callable[[ResponseGradient], QueryGradient] | None = None

    def listen(self) -> None:
        """Keep the next answer: that to the market, as predictors ask later."""
        self._listens, self._pull_back = True, None

    def __call__(self, query: DsoQuery) -> DsoResponse:
        if not self._listens:
            return self.planner(query)
        response, self._pull_back = respond_with_gradient(self.planner, query)
        self._listens = False
        return response

    def of_proposals(self, **of_response: np.ndarray) -> Float[np.ndarray, "batch trade"]:
        """What a slope with respect to the answer that was kept is with respect to its proposals."""
        assert self._pull_back is not None, "listen() comes first"
        return self._pull_back(ResponseGradient(**of_response)).proposed_kw


@dataclass(frozen=True, eq=False, kw_only=True)
class Slopes:
    """What each microgrid's own reward gains for a unit more of its own decision, and by how much the slope falls.

    In currency per kW, and per currency / kWh of the dispatch price.
    """

    per_battery_kw: Float[np.ndarray, "market agent"]
    per_quantity_kw: Float[np.ndarray, "market agent"]
    per_price: Float[np.ndarray, "market agent"]
    fall_per_price: Float[np.ndarray, "market agent"]  # what the slope loses for each unit of price: dt / dprice


@dataclass(frozen=True, eq=False, kw_only=True)
class DayPlayed:
    """A day in every market: what it gives, whose gradient alone means something, and what was seen and done."""

    value: Tensor
    seen: Float[Tensor, "time market agent entry"]  # without gradient
    numbers: list[Float[Tensor, "market agent number"]]
    meant: list[Float[Tensor, "market agent number"]]
    fall: Float[Tensor, "time market agent"]  # of the slope of each dispatch price's number, per number
    seconds: float  # of the environment


def learn_with_gradients(progress: Progress) -> None:
    """Train by climbing the slopes of the days that are played."""
    lesson = progress.lesson
    settings: GradientSettings = from_mapping(GradientSettings, lesson.algo.arguments)
    if lesson.player != "shared":
        raise PeergridError(f"learning through the operator is for player=shared, not player={lesson.player}")
    simulation = differentiable(lesson.scenario, lesson.algo.num_envs, lesson.predictor, lesson.predicted_intervals)
    torch.manual_seed(lesson.seed)
    climber = Climber(settings, simulation, lesson.algo.net_arch)
    per_batch = simulation.num_envs * simulation.params.intervals
    n_batch, every = -(-lesson.steps // per_batch), -(-lesson.check_every // per_batch)
    first, spent = climber.resume(lesson.folder), 0.0
    if first:
        progress.go_on(first * per_batch)
    else:
        climber.look_around([lesson.seed])
        progress.measure(0, climber.actor_alone(), 0.0)
    for k in range(first, n_batch):
        spent += climber.climb(share_left=1.0 - k / n_batch, seeds=[lesson.seed, k])
        if (k + 1) % every == 0 or k + 1 == n_batch:
            progress.measure((k + 1) * per_batch, climber.actor_alone(), spent)
            climber.save(lesson.folder, k + 1)


def differentiable(
    scenario: Scenario, num_envs: int, predictor: str | Predictor, predicted_intervals: int | None = None
) -> Simulation:
    """Markets whose operator keeps how to take slopes back through its answers.

    Rewards are not counted from no trade: that is a constant less, which has no slope but would have to be played.

    Raises:
        PeergridError: The scenario has several correction rounds, or devices with decisions of their own.
    """
    if scenario.market.correction_rounds != 1:
        raise PeergridError(
            f"learning through the operator needs correction_rounds=1, not {scenario.market.correction_rounds}"
        )
    simulation = Simulation(
        replace(scenario, over_no_trade=False),
        num_envs=num_envs,
        predictor=predictor,
        predicted_intervals=predicted_intervals,
        dso=DifferentiableDso(build_dso(scenario)),
    )
    if simulation.params.n_actions != N_ACTIONS:
        raise PeergridError(
            f"learning through the operator knows the {N_ACTIONS} numbers of a microgrid with battery, generator and "
            f"sun, not those of further devices: {simulation.params.n_actions} in scenario {scenario.name!r}"
        )
    return simulation


class Climber:
    """The actor, the running mean of it, and their optimiser."""

    def __init__(self, settings: GradientSettings, simulation: Simulation, hidden: list[int]) -> None:
        self.settings, self.simulation = settings, simulation
        n_seen = len(simulation.entries)
        self.actor = Network(n_seen, hidden, N_ACTIONS, 1, 0.01)
        with torch.no_grad():
            # Limits have no slope, and stay at the LMP; offers begin at nothing.
            self.actor.weight[:, [LIMIT, QUANTITY]] = 0.0
        self.mean, self.n_batch = deepcopy(self.actor.state_dict()), 0
        self.optimiser = torch.optim.Adam(self.actor.parameters(), lr=settings.learning_rate, eps=1.0e-7, fused=True)
        self.scale = Scale(n_seen)
        self._noisy = torch.tensor([1.0, 0.0, 0.0, 1.0])  # an auction of noise would contract what nobody means

    def look_around(self, seeds: list[int]) -> None:
        """Begin with the scale of a day on which nothing is done, or that of a policy's file is played."""
        settings, nothing = self.settings, torch.zeros(self.simulation.num_envs, self.simulation.n_agent, N_ACTIONS)
        if settings.start:
            self.actor.take_over(settings.start, "shared")

        def act(seen: Tensor) -> tuple[Tensor, Tensor]:
            numbers = self.actor(seen) if settings.start else nothing
            return numbers, numbers

        with torch.no_grad():
            self.scale.update(play_day(self.simulation, act, seeds, 1.0).seen)
        if settings.start:
            self.actor.undo(self.scale)
            self.mean = deepcopy(self.actor.state_dict())

    def climb(self, share_left: float, seeds: list[int]) -> float:
        """Play a day in every market, and go up its slope; returns the seconds that the environment took."""
        settings = self.settings
        drawing = np.random.default_rng(seeds)
        noise = torch.Generator().manual_seed(int(drawing.integers(2**62)))
        deviation = settings.deviation * share_left * self._noisy

        def act(seen: Tensor) -> tuple[Tensor, Tensor]:
            meant: Tensor = self.actor(self.scale(seen))
            return meant, meant + deviation * torch.randn(meant.shape, generator=noise)

        day = play_day(self.simulation, act, [int(drawing.integers(2**62))], settings.smoothing_per_kwh)
        slope = torch.stack(torch.autograd.grad(day.value, day.numbers))
        self._to_the_tops(day, slope, settings.learning_rate * share_left)
        self.n_batch += 1
        kept = min(settings.averaging, self.n_batch / (self.n_batch + 10.0)) if settings.averaging else 0.0
        for name, values in self.actor.state_dict().items():
            self.mean[name].lerp_(values, 1.0 - kept)
        if not settings.start:
            self.scale.update(day.seen)
        return day.seconds

    def _to_the_tops(self, day: DayPlayed, slope: Tensor, learning_rate: float) -> None:
        """Move the policy to where slope and curvature have the best action, in a few steps.

        A dispatch price has the curvature that its own marginal value gives it, around what was done. That of battery
        and offers, whose worth is nearly linear, is only to keep later passes near what was meant.
        """
        simulation, settings = self.simulation, self.settings
        grids, params = simulation.params.microgrids, simulation.params
        done, meant = torch.stack(day.numbers).detach(), torch.stack(day.meant).detach()
        fall, around = torch.zeros_like(slope), meant.clone()
        fall[..., PRICE], around[..., PRICE] = day.fall, done[..., PRICE]
        per_kw = settings.curvature * PRICE_UNIT_PER_KWH * own_share(params) * params.step_hours
        fall[..., BATTERY] = per_kw * torch.tensor(grids.battery_rating_kw)
        fall[..., QUANTITY] = per_kw * torch.tensor(grids.rating_kw)
        seen = self.scale(day.seen)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        for _ in range(settings.passes):
            numbers = self.actor(seen)
            gained = slope * numbers - 0.5 * fall * (numbers - around).square()
            self.optimiser.zero_grad(set_to_none=True)
            (-gained.sum() / simulation.num_envs).backward()
            nn.utils.clip_grad_norm_(self.actor.parameters(), settings.max_gradient)
            self.optimiser.step()

    def actor_alone(self) -> Actor:
        """The running mean of the policies as it is kept in a file."""
        mean = deepcopy(self.actor)
        mean.load_state_dict(self.mean)
        return actor_of(mean, self.scale)

    def save(self, folder: Path, n_batch: int) -> None:
        """Write what is needed to go on, whole or not at all."""
        state = {
            "batches": n_batch,
            "actor": self.actor.state_dict(),
            "mean": self.mean,
            "optimiser": self.optimiser.state_dict(),
            "scale": self.scale.kept(),
        }
        write_checkpoint(folder, state)

    def resume(self, folder: Path) -> int:
        """Be where the checkpoint of a folder was, and return after how many batches; 0 where there is none.

        Raises:
            InvalidCheckpoint: It is damaged, or of another network.
        """

        def put(state: dict[str, Any]) -> int:
            self.actor.load_state_dict(state["mean"])  # refuses what does not fit
            self.actor.load_state_dict(state["actor"])
            self.mean = state["mean"]
            self.optimiser.load_state_dict(state["optimiser"])
            self.scale.put(state["scale"])
            self.n_batch = int(state["batches"])
            return self.n_batch

        return from_checkpoint(folder / CHECKPOINT, put) or 0


def play_day(
    simulation: Simulation, act: Callable[[Tensor], tuple[Tensor, Tensor]], seeds: list[int], smoothing_per_kwh: float
) -> DayPlayed:
    """Play a day in every market of a simulation from `differentiable`, with the slopes of what it gives.

    Args:
        act: From what is seen, whose entries of the stored energy have gradients, to the numbers that are meant and
            those that are done.
        smoothing_per_kwh: How far to both sides of the dispatch price the slope of the export curve is taken.
    """
    params, dso = simulation.params, simulation.params.dso
    assert isinstance(dso, DifferentiableDso)
    start, learning = time.perf_counter(), 0.0
    simulation.reset(seed=int(np.random.default_rng(seeds).integers(2**62)))
    stored = torch.tensor(simulation.running()[0].stored_kwh)
    value, seen, meant, numbers, fall = torch.zeros((), dtype=torch.float64), [], [], [], []
    while not simulation.is_over.all():
        now = simulation.now()
        before = time.perf_counter()
        limits = battery_limits(stored, now, params)
        looked = with_stored(torch.from_numpy(simulation.seen), stored, limits, simulation)
        mean, drawn = act(looked)
        seen.append(looked.detach())
        meant.append(mean)
        numbers.append(drawn)
        learning += time.perf_counter() - before
        dso.listen()
        _, outcome = simulation.step(drawn.detach().numpy().astype(np.float64))
        slopes = slopes_of(outcome, now, params, smoothing_per_kwh)
        before = time.perf_counter()
        battery_kw, quantity_kw, price = decided(drawn.to(torch.float64), limits, outcome, now, params)
        # First order: slopes are constants.
        value = value + (torch.from_numpy(slopes.per_battery_kw) * battery_kw).sum()
        value = value + (torch.from_numpy(slopes.per_quantity_kw) * quantity_kw).sum()
        value = value + (torch.from_numpy(slopes.per_price) * price).sum()
        stored = energy_after(stored, battery_kw, params)
        fall.append(torch.from_numpy(slopes.fall_per_price * price_per_number(outcome, params) ** 2))
        learning += time.perf_counter() - before
    value = value + (torch.from_numpy(worth_of_energy_left(simulation)) * stored).sum()
    return DayPlayed(
        value=value,
        seen=torch.stack(seen),
        numbers=numbers,
        meant=meant,
        fall=torch.stack(fall).to(torch.float32),
        seconds=time.perf_counter() - start - learning,
    )


def own_share(params: Params) -> float:
    """The share that the reward has of what a microgrid adds to its own gain and to the welfare alike."""
    return 1.0 - params.cooperation + params.cooperation / len(params.agent_bus)


def slopes_of(outcome: Outcome, now: Now, params: Params, smoothing_per_kwh: float) -> Slopes:
    """The slopes of the interval that was just played."""
    grids, response, contracts = params.microgrids, outcome.response, outcome.contracts
    decisions, accepted_kw, contract_kw = outcome.decisions, response.accepted_kw, contracts.quantity_kw
    interval, spread = replace(now.interval, battery_kw=decisions.battery_kw), params.market.half_spread_per_kwh
    price, cap, hours = decisions.dispatch_price_per_kwh, params.market.price_cap_per_kwh, params.step_hours

    def band(at_per_kwh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return export_band(grids, interval, at_per_kwh - spread, at_per_kwh + spread)

    least_kw, most_kw = band(price)
    below_kw, above_kw = (contract_kw.clip(*band(price + s * smoothing_per_kwh)) for s in (-1.0, 1.0))
    per_price_kw = (above_kw - below_kw) / (2.0 * smoothing_per_kwh)
    keeps_contract = (contract_kw > least_kw) & (contract_kw < most_kw)

    value = marginal_value(grids, interval, accepted_kw)
    per_kw = _per_proposed_kw(outcome, value, now, params)
    solved = (response.status < DsoStatus.INFEASIBLE)[:, None]
    of_battery = own_share(params) * (np.where(solved, value, 0.0) - grids.wear_per_kwh * np.sign(decisions.battery_kw))
    substation = response.price_per_kwh[:, :1].clip(-cap, cap)
    of_contract = contracts.price_per_kwh - substation + spread * np.sign(accepted_kw - contract_kw)
    of_contract = (1.0 - params.cooperation) * of_contract + per_kw * keeps_contract
    offered_kw = decisions.quantity_kw.clip(np.minimum(least_kw, 0.0), np.maximum(most_kw, 0.0))
    is_whole = (np.abs(offered_kw - contract_kw) < WHOLE * grids.rating_kw) & (offered_kw == decisions.quantity_kw)
    return Slopes(
        per_battery_kw=(of_battery + per_kw * ~keeps_contract) * hours,
        per_quantity_kw=of_contract * is_whole * hours,
        per_price=per_kw * per_price_kw * hours,
        fall_per_price=own_share(params) * per_price_kw * hours,
    )


def _per_proposed_kw(
    outcome: Outcome, value_per_kwh: Float[np.ndarray, "market agent"], now: Now, params: Params
) -> Float[np.ndarray, "market agent"]:
    """What each microgrid's own reward gains for each kW that it proposes more, per hour, others as they are."""
    share, found = params.cooperation, np.zeros_like(value_per_kwh)
    if share > 0.0:
        found += share / len(params.agent_bus) * _welfare_per_kw(outcome.response, value_per_kwh, now, params)
    if share < 1.0:
        found += (1.0 - share) * _gain_per_kw(outcome, value_per_kwh, params)
    # At a proposal of zero the answer has a kink, and the adjoint says nothing.
    cap = params.market.price_cap_per_kwh
    nodal = outcome.response.price_per_kwh[:, params.agent_bus].clip(-cap, cap)
    solved = (outcome.response.status < DsoStatus.INFEASIBLE)[:, None]
    of_none = np.where(solved, own_share(params) * (nodal - value_per_kwh), 0.0)
    return np.where(outcome.proposed_kw == 0.0, of_none, found)


def _welfare_per_kw(
    response: DsoResponse, value_per_kwh: Float[np.ndarray, "market agent"], now: Now, params: Params
) -> Float[np.ndarray, "market agent"]:
    generators, dso = params.generators, params.dso
    assert isinstance(dso, DifferentiableDso)
    return dso.of_proposals(
        accepted_kw=-value_per_kwh,
        substation_kw=-now.lmp_per_kwh,
        generator_kw=-(2.0 * generators.a_per_kw2h * response.generator_kw + generators.b_per_kwh),
        shed_kw=-(params.voll_per_kwh + 2.0 * params.c_ls_per_kw2h * response.shed_kw),
    )


def _gain_per_kw(
    outcome: Outcome, value_per_kwh: Float[np.ndarray, "market agent"], params: Params
) -> Float[np.ndarray, "market agent"]:
    """As everybody's gain depends on its own price alone, each needs an adjoint of its own."""
    response, dso, cap = outcome.response, params.dso, params.market.price_cap_per_kwh
    assert isinstance(dso, DifferentiableDso)
    accepted_kw, contract_kw = response.accepted_kw, outcome.contracts.quantity_kw
    nodal = response.price_per_kwh.clip(-cap, cap)
    has_slope = np.abs(response.price_per_kwh) < cap
    deviation_cost = params.market.half_spread_per_kwh * np.sign(accepted_kw - contract_kw)
    of_own = nodal[:, params.agent_bus] - value_per_kwh - deviation_cost
    found = np.zeros_like(of_own)
    for m, bus in enumerate(params.agent_bus):
        of_accepted, of_price = np.zeros_like(of_own), np.zeros_like(nodal)
        of_accepted[:, m] = of_own[:, m]
        of_price[:, bus] += accepted_kw[:, m] * has_slope[:, bus]
        of_price[:, 0] -= contract_kw[:, m] * has_slope[:, 0]
        found[:, m] = dso.of_proposals(accepted_kw=of_accepted, price_per_kwh=of_price)[:, m]
    return found


def worth_of_energy_left(simulation: Simulation) -> Float[np.ndarray, "market agent"]:
    """What the own reward gains for each kWh that is left when the day is over; nought where nothing is paid for it."""
    (_, days), params = simulation.running(), simulation.params
    mean_price = days.lmp_day_ahead_per_kwh[:, : params.intervals].mean(axis=-1, keepdims=True)
    worth: Float[np.ndarray, "market agent"] = mean_price * params.microgrids.discharge_efficiency
    return worth * own_share(params) * params.terminates


class _Held(torch.autograd.Function):
    """A value between two ends: what holds it gets its gradient, and it too where that leads back inside."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.below, ctx.above = value < low, value > high
        return torch.minimum(torch.maximum(value, low), high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients  # of what is to grow
        outwards = (ctx.below & (gradient < 0)) | (ctx.above & (gradient > 0))
        return torch.where(outwards, 0.0, gradient), gradient * ctx.below, gradient * ctx.above


def held_within(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The value clipped to its ends, with a gradient, of what is to grow, that can lead it back inside."""
    held: Tensor = _Held.apply(value, low, high)  # type: ignore[no-untyped-call]
    return held


def decided(
    numbers: Float[Tensor, "market agent number"],
    limits: tuple[Tensor, Tensor],
    outcome: Outcome,
    now: Now,
    params: Params,
) -> tuple[Tensor, Tensor, Tensor]:
    """Battery power, offered quantity and dispatch price as `decode` has them, by the numbers of an action."""
    grids, decisions = params.microgrids, outcome.decisions
    battery_kw = held_within(numbers[..., BATTERY] * torch.tensor(grids.battery_rating_kw), *limits)
    ends = (torch.from_numpy(kw + decisions.battery_kw) for kw in (now.idle_least_kw, now.idle_most_kw))
    quantity_kw = held_within(numbers[..., QUANTITY] * torch.tensor(grids.rating_kw), *ends)
    highest = torch.full_like(battery_kw, float(bent(params.market.price_cap_per_kwh)))
    seen_price = torch.from_numpy(bent(now.published_per_kwh)) + highest * numbers[..., PRICE]
    price = PRICE_UNIT_PER_KWH * torch.sinh(held_within(seen_price, torch.zeros_like(highest), highest))
    return battery_kw, quantity_kw, price


def price_per_number(outcome: Outcome, params: Params) -> Float[np.ndarray, "market agent"]:
    """How far the dispatch price moves with its number."""
    price = outcome.decisions.dispatch_price_per_kwh
    moved: Float[np.ndarray, "market agent"] = bent(params.market.price_cap_per_kwh) * np.hypot(
        PRICE_UNIT_PER_KWH, price
    )
    return moved


def battery_limits(stored: Tensor, now: Now, params: Params) -> tuple[Tensor, Tensor]:
    """The least and the most battery power, as `envs.microgrid.battery_limits` has them, by what is stored."""
    grids = params.microgrids
    least, most = (torch.tensor(kw) for kw in battery_reach(grids, now.interval))
    eta_c, eta_d = torch.tensor(grids.charge_efficiency), torch.tensor(grids.discharge_efficiency)

    def to_reach(energy_kwh: Float[np.ndarray, "market agent"]) -> Tensor:
        gain_kw = (torch.tensor(energy_kwh) - stored) / params.step_hours
        return torch.clamp(-torch.maximum(gain_kw / eta_c, gain_kw * eta_d), least, most)

    return to_reach(now.most_kwh), to_reach(now.least_kwh)


def energy_after(stored: Tensor, battery_kw: Tensor, params: Params) -> Tensor:
    """The energy after an interval at a power within the limits, as `envs.microgrid.store` has it."""
    grids = params.microgrids
    eta_c, eta_d = torch.tensor(grids.charge_efficiency), torch.tensor(grids.discharge_efficiency)
    return stored + (eta_c * torch.relu(-battery_kw) - torch.relu(battery_kw) / eta_d) * params.step_hours


def with_stored(
    seen: Float[Tensor, "market agent entry"], stored: Tensor, limits: tuple[Tensor, Tensor], simulation: Simulation
) -> Float[Tensor, "market agent entry"]:
    """What is seen, with the entries that tell of the stored energy as functions of it."""
    grids = simulation.params.microgrids
    usable = torch.tensor(np.maximum(grids.energy_max_kwh - grids.energy_min_kwh, 1.0e-9))
    rating = torch.tensor(np.maximum(grids.battery_rating_kw, 1.0e-9))
    told = ((stored - torch.tensor(grids.energy_min_kwh)) / usable, limits[0] / rating, limits[1] / rating)
    names = [entry.name for entry in simulation.entries]
    start = names.index(STORED[0])
    end = start + len(STORED)
    assert tuple(names[start:end]) == STORED, "they follow one another"
    return torch.cat([seen[..., :start], torch.stack(told, dim=-1).to(seen.dtype), seen[..., end:]], dim=-1)
