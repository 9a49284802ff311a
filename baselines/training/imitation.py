"""Learning from a teacher: a policy that is asked what it would do in the very states that its student comes to.

Every batch plays one whole day in all markets. In some of them the teacher acts, in the others the student, and in all
of them the teacher shows what it would do. What it showed is kept, and the student learns to do the same (Ross, Gordon
and Bagnell, A reduction of imitation learning and structured prediction to no-regret online learning, AISTATS 2011:
DAgger). Where the teacher always acts, that is behaviour cloning: the student never sees where its own errors lead.

The teacher may know more than the student does: what its predictor tells it, or the day to come. The student then
learns what the teacher does on average where it sees the same.

The same settings give the same weights, also where a training was interrupted, as in `ppo`.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn

from peergrid.baselines.policies.learned import policy_of
from peergrid.baselines.training.lesson import CHECKPOINT, Progress, from_checkpoint, write_checkpoint
from peergrid.baselines.training.network import Network, Scale, actor_of
from peergrid.envs.common.configuration import from_mapping
from peergrid.envs.common.policy import BatchPolicy
from peergrid.envs.common.registered import PREDICTORS
from peergrid.envs.p2p_trading.players import Trader, player_of
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import Days
from peergrid.grid.errors import PeergridError
from peergrid.grid.parts import part_name, resolve


@dataclass(frozen=True, kw_only=True)
class ImitationSettings:
    """The numbers of the algorithm."""

    teacher: str = part_name("foresighted")
    """The name of a policy, or the file of one that was learned."""
    teacher_predictor: str = part_name("")
    """What the teacher is told of the operator's answer; the same as its student where nothing is said."""
    share_kept: float = 0.5
    """In a share of the markets the teacher acts: in all at first, times this after each batch. With 1 it is cloned."""
    own_heads: bool = False
    """Whether each microgrid has a last layer of its own, on what all of them share."""
    updates: int = 200
    """Steps of the optimiser after each batch."""
    minibatch: int = 1024
    learning_rate: float = 1.0e-3
    memory: int = 50_000
    """Of how many environment steps what was shown is kept; the oldest go first."""
    max_gradient: float = 0.5


class Teacher:
    """A policy that watches a simulation which others may play, with a predictor of its own."""

    def __init__(self, name: str, predictor: str, simulation: Simulation) -> None:
        policy: Any = policy_of(name)
        if not isinstance(policy, BatchPolicy):
            raise PeergridError(f"teacher {name!r} does not play whole batches: it has no begin_rows and act_rows")
        self.policy: BatchPolicy = policy
        self._watched, self._own = simulation, copy(simulation)
        self._knows_more = bool(predictor)
        if predictor:
            self._own.predictor = resolve(predictor, "predictor", PREDICTORS)

    def begin(self, days: Days) -> None:
        """The simulation has begun these days."""
        self._own.begin(days)
        self.policy.begin_rows(self._own, np.ones(self._own.num_envs, dtype=bool))

    def show(self) -> np.ndarray:
        """What it would do now in every market, for all microgrids."""
        own, watched = self._own, self._watched
        own.state, own.days, own.outcome, own.played = watched.state, watched.days, watched.outcome, watched.played
        own.seen = own.observe() if self._knows_more else watched.seen
        return np.asarray(self.policy.act_rows(own, own.seen))


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """A day in every market: what was seen before each action, and what the teacher would have done."""

    seen: Float32[np.ndarray, "time market slot entry"]
    actions: Float32[np.ndarray, "time market slot number"]
    seconds: float  # of the environment


def learn_with_imitation(progress: Progress) -> None:
    """Train with the algorithm of this file."""
    lesson = progress.lesson
    settings: ImitationSettings = from_mapping(ImitationSettings, lesson.algo.arguments)
    if lesson.player == "solo":
        raise PeergridError("player is 'solo', whose others are truthful: a teacher shows what all do together")
    if not 0.0 <= settings.share_kept <= 1.0:
        raise PeergridError(f"share_kept is {settings.share_kept}, not from 0 to 1")
    simulation = Simulation(
        replace(lesson.scenario, over_no_trade=False),  # rewards are not looked at
        num_envs=lesson.algo.num_envs,
        predictor=lesson.predictor,
        predicted_intervals=lesson.predicted_intervals,
    )
    player = player_of(lesson.player, simulation)
    teacher = Teacher(settings.teacher, settings.teacher_predictor, simulation)
    torch.manual_seed(lesson.seed)
    student = Student(settings, player, lesson.algo.net_arch)
    per_batch = simulation.num_envs * simulation.params.intervals
    n_batch = -(-lesson.steps // per_batch)
    every = -(-lesson.check_every // per_batch)
    first, spent = student.resume(lesson.folder), 0.0
    if first:
        progress.go_on(first * per_batch)
    else:
        progress.measure(0, actor_of(student.network, student.scale), 0.0)
    for k in range(first, n_batch):
        shown = play_day(player, teacher, student, settings.share_kept**k, [lesson.seed, k])
        spent += shown.seconds
        student.learn(shown, share_left=1.0 - k / n_batch)
        if (k + 1) % every == 0 or k + 1 == n_batch:
            progress.measure((k + 1) * per_batch, actor_of(student.network, student.scale), spent)
            student.save(lesson.folder, k + 1)


def play_day(player: Trader, teacher: Teacher, student: Student, share: float, seeds: list[int]) -> Shown:
    """Play a day in every market, in a share of them as the teacher does, in the others as the student does."""
    simulation: Simulation = player.simulation
    start, thinking = time.perf_counter(), 0.0
    drawing, n_market = np.random.default_rng(seeds), simulation.num_envs
    days = simulation.days_of(simulation.episodes.draw(range(n_market), int(drawing.integers(2**62)), None))
    simulation.begin(days)
    player.begin(np.ones(n_market, dtype=bool))
    before = time.perf_counter()
    teacher.begin(days)
    thinking += time.perf_counter() - before
    by_teacher: Bool[np.ndarray, " market"] = np.arange(n_market) < round(share * n_market)
    n_time, n_slot = simulation.params.intervals, player.slots_per_row
    seen = np.empty((n_time, n_market, n_slot, len(player.entries)), dtype=np.float32)
    actions = np.empty((n_time, n_market, n_slot, player.n_numbers), dtype=np.float32)
    for t in range(n_time):
        seen[t] = player.see().reshape(seen[t].shape)
        before = time.perf_counter()
        actions[t] = teacher.show().reshape(actions[t].shape)
        played = np.where(by_teacher[:, None, None], actions[t], student.act(seen[t]))
        thinking += time.perf_counter() - before
        simulation.step(player.act(played.reshape(-1, player.n_numbers).astype(np.float64)))
    return Shown(seen=seen, actions=actions, seconds=time.perf_counter() - start - thinking)


class Student:
    """A network, its optimiser, and what it was shown."""

    def __init__(self, settings: ImitationSettings, player: Trader, hidden: list[int]) -> None:
        self.settings, n_slot = settings, player.slots_per_row
        n_seen, n_number = len(player.entries), player.n_numbers
        self.network = Network(n_seen, hidden, n_number, n_slot if settings.own_heads else 1, 0.01)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate, eps=1e-5, fused=True)
        self.scale, self.scale_shown = Scale(n_seen), Scale(n_number)
        self.seen, self.shown = torch.empty(0, n_slot, n_seen), torch.empty(0, n_slot, n_number)

    def act(self, seen: np.ndarray) -> np.ndarray:
        """What it does where it sees this; not clipped."""
        with torch.no_grad():
            meant: Tensor = self.network(self.scale(torch.from_numpy(seen)))
        return meant.numpy()

    def learn(self, shown: Shown, share_left: float) -> None:
        """Keep what was shown, and learn from all that is kept; the rate falls with the share of training that is left.

        An error counts by its square while it is smaller than what the number differs from state to state, and by its
        size beyond: a teacher that may do one thing or another where the student sees the same does not drag it around.
        """
        settings = self.settings
        seen, actions = torch.from_numpy(shown.seen), torch.from_numpy(shown.actions)
        self.scale.update(seen)
        self.scale_shown.update(actions)
        self.seen = torch.cat([self.seen, seen.flatten(0, 1)])[-settings.memory :]
        self.shown = torch.cat([self.shown, actions.flatten(0, 1)])[-settings.memory :]
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * share_left
        size = max(1, settings.minibatch // self.seen.shape[1])  # markets, each with all its slots
        known, wanted = self.scale(self.seen), self.shown / self.scale_shown.deviation
        for _ in range(settings.updates):
            chosen = torch.randint(len(known), (size,))
            found = self.network(known[chosen]) / self.scale_shown.deviation
            loss: Any = nn.functional.smooth_l1_loss(found, wanted[chosen])
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.max_gradient)
            self.optimiser.step()

    def save(self, folder: Path, n_batch: int) -> None:
        """Write what is needed to go on, whole or not at all."""
        state = {
            "batches": n_batch,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scales": [s.kept() for s in (self.scale, self.scale_shown)],
            "seen": self.seen,
            "shown": self.shown,
            "random": torch.get_rng_state(),
        }
        write_checkpoint(folder, state)

    def resume(self, folder: Path) -> int:
        """Be where the checkpoint of a folder was, and return after how many batches; 0 where there is none.

        Raises:
            InvalidCheckpoint: It is damaged, or of another network.
        """

        def put(state: dict[str, Any]) -> int:
            self.network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            for scale, kept in zip((self.scale, self.scale_shown), state["scales"], strict=True):
                scale.put(kept)
            self.seen, self.shown = state["seen"], state["shown"]
            torch.set_rng_state(state["random"])
            return int(state["batches"])

        return from_checkpoint(folder / CHECKPOINT, put) or 0
