"""Proximal policy optimisation as this market needs it, in one file, over arrays of markets and their slots.

Every batch plays one whole day in all markets, then learns from it. Three things make it fit for the task, beside the
usual algorithm (Schulman, Wolski, Dhariwal, Radford and Klimov, Proximal policy optimization algorithms, 2017):

- A day that terminates has nothing behind it: what its end is worth is nought, and with discount 1 returns are money.
- What a day gives differs more between days than between policies. So several markets play the same day, and what an
  action was worth is counted from their mean in the same interval.
- The critic may see more than the actor: all that the market shows, or all that its day will bring.

The same settings give the same weights, also where a training was interrupted: batch k draws its days and its noise
from the seed and k alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from peergrid.baselines.policies.learned import Actor
from peergrid.baselines.training.lesson import CHECKPOINT, Progress, from_checkpoint, write_checkpoint
from peergrid.baselines.training.network import Network, Scale, actor_of
from peergrid.envs.common.configuration import from_mapping
from peergrid.envs.p2p_trading.players import Trader, player_of
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import PeergridError

CRITICS = ("own", "market", "day")


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """The numbers of the algorithm."""

    copies: int = 8
    """How many markets of a batch play the same day; 1 leaves the critic as the only baseline."""
    critic: str = "own"
    """What the critic sees: the slot's "own" observation, all of the "market", or also what the "day" will bring."""
    own_heads: bool = False
    """Whether each microgrid has a last layer of its own, on what all of them share."""
    epochs: int = 4
    minibatch: int = 1024
    learning_rate: float = 2.0e-3
    """Of the first batch; it falls to nought with the steps left."""
    discount: float = 1.0
    trace: float = 0.95
    """Lambda of the generalised advantage estimate."""
    clip: float = 0.2
    entropy: float = 0.0
    initial_deviation: float = 0.2
    value_weight: float = 0.5
    max_gradient: float = 0.5
    start: str = ""
    """A policy's file to go on from, whose layers are as these; with a small `initial_deviation`, not to lose it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """A day in every market: what was seen before each action and at the end, what was done and what it was paid."""

    seen: Float32[np.ndarray, "boundary market slot entry"]
    context: Float32[np.ndarray, "boundary market slot more"]  # what the critic sees beside it
    actions: Float32[np.ndarray, "time market slot number"]
    rewards: Float32[np.ndarray, "time market slot"]
    seconds: float  # of the environment


def learn_with_ppo(progress: Progress) -> None:
    """Train with the algorithm of this file."""
    lesson = progress.lesson
    settings: PpoSettings = from_mapping(PpoSettings, lesson.algo.arguments)
    n_market = lesson.algo.num_envs
    if settings.critic not in CRITICS:
        raise PeergridError(f"critic is {settings.critic!r}, not one of {', '.join(CRITICS)}")
    if settings.copies < 1 or n_market % settings.copies:
        raise PeergridError(f"num_envs is {n_market}, no multiple of copies, which is {settings.copies}")
    simulation = Simulation(
        lesson.scenario,
        num_envs=n_market,
        predictor=lesson.predictor,
        predicted_intervals=lesson.predicted_intervals,
    )
    player = player_of(lesson.player, simulation)
    torch.manual_seed(lesson.seed)
    learner = Learner(settings, player, lesson.algo.net_arch)
    per_batch = n_market * simulation.params.intervals
    n_batch = -(-lesson.steps // per_batch)
    every = -(-lesson.check_every // per_batch)
    first, spent = learner.resume(lesson.folder), 0.0
    if first:
        progress.go_on(first * per_batch)
    else:
        if settings.start:
            learner.actor.take_over(settings.start, lesson.player)
        progress.measure(0, learner.actor_alone(), 0.0)
    for k in range(first, n_batch):
        batch = play_day(player, learner, settings, [lesson.seed, k])
        spent += batch.seconds
        learner.learn(batch, share_left=1.0 - k / n_batch)
        if (k + 1) % every == 0 or k + 1 == n_batch:
            progress.measure((k + 1) * per_batch, learner.actor_alone(), spent)
            learner.save(lesson.folder, k + 1)


def play_day(player: Trader, learner: Learner, settings: PpoSettings, seeds: list[int]) -> Batch:
    """Play a day in every market, each day in several of them."""
    simulation: Simulation = player.simulation
    start, learning = time.perf_counter(), 0.0
    drawing = np.random.default_rng(seeds)
    noise = torch.Generator().manual_seed(int(drawing.integers(2**62)))
    n_day, everywhere = simulation.num_envs // settings.copies, np.ones(simulation.num_envs, dtype=bool)
    drawn = simulation.episodes.draw(range(n_day), int(drawing.integers(2**62)), None)
    simulation.begin(simulation.days_of(drawn), copies=settings.copies)
    player.begin(everywhere)
    n_time, n_slot = simulation.params.intervals, player.slots_per_row
    shape = (simulation.num_envs, n_slot)
    seen = np.empty((n_time + 1, *shape, len(player.entries)), dtype=np.float32)
    context = np.empty((n_time + 1, *shape, n_context(settings, simulation)), dtype=np.float32)
    actions = np.empty((n_time, *shape, player.n_numbers), dtype=np.float32)
    rewards = np.empty((n_time, *shape), dtype=np.float32)
    for t in range(n_time + 1):
        seen[t] = player.see().reshape(seen[t].shape)
        context[t] = context_of(settings, simulation)[:, None]
        if t == n_time:
            break
        before = time.perf_counter()
        actions[t] = learner.act(seen[t], noise)
        learning += time.perf_counter() - before
        _, outcome = simulation.step(player.act(actions[t].reshape(-1, player.n_numbers).astype(np.float64)))
        rewards[t] = player.pay(outcome).reshape(shape)
    seconds = time.perf_counter() - start - learning
    return Batch(seen=seen, context=context, actions=actions, rewards=rewards, seconds=seconds)


def n_context(settings: PpoSettings, simulation: Simulation) -> int:
    """How many numbers the critic sees beside the slot's own observation."""
    if settings.critic == "own":
        return 0
    n_time, n_agent = simulation.params.intervals, simulation.n_agent
    n_market = n_agent * len(simulation.entries)
    return n_market + ((2 + 2 * n_agent) * n_time if settings.critic == "day" else 0)


def context_of(settings: PpoSettings, simulation: Simulation) -> Float32[np.ndarray, "market more"]:
    """What the critic sees beside the slot's own observation, of each market."""
    n_market = simulation.num_envs
    parts: list[np.ndarray] = [np.empty((n_market, 0))]
    if settings.critic != "own":
        parts.append(simulation.seen.reshape(n_market, -1))
    if settings.critic == "day":
        (_, days), params = simulation.running(), simulation.params
        n_time, rating = params.intervals, params.microgrids.rating_kw
        load_kw = days.load_kw.sum(axis=-1) / params.feeder.base_kva
        parts += [days.lmp_per_kwh[:, :n_time] / 0.1, load_kw[:, :n_time]]
        parts += [(kw[:, :n_time] / rating).reshape(n_market, -1) for kw in (days.pv_kw, days.demand_kw)]
    return np.concatenate(parts, axis=1).astype(np.float32)


class Learner:
    """Actor, critic and their optimiser."""

    def __init__(self, settings: PpoSettings, player: Trader, hidden: list[int]) -> None:
        self.settings, self.terminates = settings, player.simulation.terminates
        n_seen, heads = len(player.entries), player.slots_per_row if settings.own_heads else 1
        n_more = n_context(settings, player.simulation)
        self.actor = Network(n_seen, hidden, player.n_numbers, heads, 0.01)
        self.deviation = nn.Parameter(torch.full((player.n_numbers,), float(np.log(settings.initial_deviation))))
        self.critic = Network(n_seen + n_more, hidden, 1, 1, 1.0)
        self.weights = [*self.actor.parameters(), self.deviation, *self.critic.parameters()]
        self.optimiser = torch.optim.Adam(self.weights, lr=settings.learning_rate, eps=1.0e-5, fused=True)
        self.scale, self.scale_more, self.scale_returns = Scale(n_seen), Scale(n_more), Scale(1)

    def act(self, seen: np.ndarray, noise: torch.Generator) -> np.ndarray:
        """Actions drawn around what the actor means; not clipped."""
        with torch.no_grad():
            mean: Tensor = self.actor(self.scale(torch.from_numpy(seen)))
            drawn = mean + self.deviation.exp() * torch.randn(mean.shape, generator=noise)
        return drawn.numpy()

    def learn(self, batch: Batch, share_left: float) -> None:
        """Some epochs over a batch; the learning rate falls with the share of the training that is left."""
        settings = self.settings
        seen, context, actions, rewards = map(
            torch.from_numpy, (batch.seen, batch.context, batch.actions, batch.rewards)
        )
        if settings.start and not self.scale.count:
            self.scale.update(seen)
            self.actor.undo(self.scale)
        with torch.no_grad():
            # As it was while it acted: the scale of a batch counts from the next on.
            before = self._log_likelihood(self.actor(self.scale(seen[:-1])), actions)
            known = torch.cat([self.scale(seen), self.scale_more(context)], dim=-1)
            worth: Tensor = self.critic(known)[..., 0] * self.scale_returns.deviation + self.scale_returns.mean
            if self.terminates:
                worth[-1] = 0.0
        advantages, returns = self._advantages(rewards, worth)
        self.scale_returns.update(returns[..., None])
        targets = self.scale_returns(returns[..., None])[..., 0]
        flat_seen = self.scale(seen[:-1]).flatten(0, 1)
        flat = [x.flatten(0, 1) for x in (known[:-1], actions, before, advantages, targets)]
        n = len(flat_seen)
        size = max(1, settings.minibatch // seen.shape[2])  # rows of markets, each with all its slots
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * share_left
        for _ in range(settings.epochs):
            order = torch.randperm(n)
            for chosen in torch.split(order, size):
                self._step(flat_seen[chosen], *[x[chosen] for x in flat])
        self.scale_by(seen, context)

    def _step(
        self, seen: Tensor, known: Tensor, actions: Tensor, before: Tensor, advantages: Tensor, targets: Tensor
    ) -> None:
        settings = self.settings
        ratio = (self._log_likelihood(self.actor(seen), actions) - before).exp()
        clipped = ratio.clip(1.0 - settings.clip, 1.0 + settings.clip)
        of_actor = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        of_critic = (self.critic(known)[..., 0] - targets).square().mean()
        loss = of_actor + settings.value_weight * of_critic - settings.entropy * self.deviation.sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, settings.max_gradient)
        self.optimiser.step()

    def _advantages(self, rewards: Tensor, worth: Tensor) -> tuple[Tensor, Tensor]:
        """What each action was worth above what was expected, of spread 1, and the returns that the critic learns.

        Source: Schulman, Moritz, Levine, Jordan and Abbeel, High-dimensional continuous control using generalized
        advantage estimation, 2016.
        """
        settings = self.settings
        found, later = torch.empty_like(rewards), torch.zeros_like(rewards[0])
        for t in reversed(range(len(rewards))):
            surprise = rewards[t] + settings.discount * worth[t + 1] - worth[t]
            later = surprise + settings.discount * settings.trace * later
            found[t] = later
        returns = found + worth[:-1]
        if settings.copies > 1:
            of_days = found.reshape(len(found), -1, settings.copies, found.shape[2])
            found = (of_days - of_days.mean(2, keepdim=True)).flatten(1, 2)
        return (found - found.mean()) / (found.std() + 1.0e-8), returns

    def _log_likelihood(self, mean: Tensor, actions: Tensor) -> Tensor:
        # Up to a constant, which ratios lose.
        return -(0.5 * ((actions - mean) / self.deviation.exp()).square() + self.deviation).sum(dim=-1)

    def scale_by(self, seen: Tensor, context: Tensor) -> None:
        """Let what was seen count in the scale of what will be."""
        if not self.settings.start:
            self.scale.update(seen)
        self.scale_more.update(context)

    def actor_alone(self) -> Actor:
        """The actor as it is kept in a file."""
        return actor_of(self.actor, self.scale)

    def save(self, folder: Path, n_batch: int) -> None:
        """Write what is needed to go on, whole or not at all."""
        scales = [s.kept() for s in (self.scale, self.scale_more, self.scale_returns)]
        state = {
            "batches": n_batch,
            "actor": self.actor.state_dict(),
            "deviation": self.deviation.data,
            "critic": self.critic.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scales": scales,
            "random": torch.get_rng_state(),
        }
        write_checkpoint(folder, state)

    def resume(self, folder: Path) -> int:
        """Be where the checkpoint of a folder was, and return after how many batches; 0 where there is none.

        Raises:
            InvalidCheckpoint: It is damaged, or of another network.
        """

        def put(state: dict[str, Any]) -> int:
            self.actor.load_state_dict(state["actor"])
            self.critic.load_state_dict(state["critic"])
            self.deviation.data.copy_(state["deviation"])
            self.optimiser.load_state_dict(state["optimiser"])
            scales = (self.scale, self.scale_more, self.scale_returns)
            for scale, kept in zip(scales, state["scales"], strict=True):
                scale.put(kept)
            torch.set_rng_state(state["random"])
            return int(state["batches"])

        return from_checkpoint(folder / CHECKPOINT, put) or 0
