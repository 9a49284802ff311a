"""Learning from recorded episodes alone: behaviour cloning, and implicit Q-learning, in one file.

Cloning does what was recorded, whoever did it. Implicit Q-learning does what was recorded where it went better than
usual: a critic learns what actions of the records were worth, a second one what is usual, or rather what the better
ones of such actions are worth, and each action counts in cloning by how far it was above that. No action is ever
judged that nobody played (Kostrikov, Nair and Levine, Offline reinforcement learning with implicit Q-learning, ICLR
2022). Ours: advantages are divided by their spread in the minibatch, so that `temperature` has no unit.

No market is played but to measure the policy. So the steps of such a lesson are updates, not intervals of a market.
The same settings give the same weights, also where a training was interrupted.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from peergrid.baselines.episode.recorded import Dataset, read_dataset
from peergrid.baselines.training.lesson import CHECKPOINT, Lesson, Progress, from_checkpoint, write_checkpoint
from peergrid.baselines.training.network import Network, Scale, actor_of
from peergrid.envs.common.configuration import from_mapping
from peergrid.grid.errors import InvalidDataset, PeergridError

LARGEST_WEIGHT = 20.0


@dataclass(frozen=True, kw_only=True)
class OfflineSettings:
    """The numbers of the algorithm."""

    data: str = ""
    """The folder of a data set that `record` wrote."""
    policies: tuple[str, ...] = ()
    """Whose episodes of it are learned from; all where nothing is said."""
    temperature: float = 3.0
    """How much more an action counts that was better than usual; 0 is behaviour cloning, which needs no critic."""
    expectile: float = 0.8
    """What is usual: at 0.5 the mean of what such actions are worth, nearer 1 what the best of them are."""
    discount: float = 1.0
    tracking: float = 0.005
    """By which share the critic that others learn from follows the one that learns, each update."""
    minibatch: int = 1024
    learning_rate: float = 1.0e-3
    max_gradient: float = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    """Intervals in no order: what was seen, done and paid, what was seen next, and whether the day ended so."""

    seen: Float[Tensor, "step entry"]
    actions: Float[Tensor, "step number"]
    rewards: Float[Tensor, " step"]
    after: Float[Tensor, "step entry"]
    goes_on: Float[Tensor, " step"]


def learn_offline(progress: Progress) -> None:
    """Train with the algorithm of this file."""
    lesson = progress.lesson
    settings: OfflineSettings = from_mapping(OfflineSettings, lesson.algo.arguments)
    if not settings.data:
        raise PeergridError("algo.arguments.data is empty: the folder of a data set, as baselines.record writes them")
    if not 0.0 < settings.expectile < 1.0 or settings.temperature < 0.0:
        raise PeergridError("expectile is to be between 0 and 1, and temperature at least 0")
    dataset = read_dataset(settings.data)
    check_fit(dataset, lesson)
    torch.manual_seed(lesson.seed)
    reader = Reader(settings, dataset, lesson.algo.net_arch)
    done = reader.resume(lesson.folder)
    if done:
        progress.go_on(done)
    else:
        progress.measure(0, actor_of(reader.network, reader.scale), 0.0)
    while done < lesson.steps:
        until = min(lesson.steps, done + lesson.check_every)
        for k in range(done, until):
            reader.learn(share_left=1.0 - k / lesson.steps)
        done = until
        progress.measure(done, actor_of(reader.network, reader.scale), 0.0)
        reader.save(lesson.folder, done)


def check_fit(dataset: Dataset, lesson: Lesson) -> None:
    """Raise InvalidDataset if this was recorded of another scenario, predictor or player, and name all that differs."""
    wanted = {"scenario": lesson.scenario.name, "predictor": lesson.predictor, "player": lesson.player}
    other = [f"{k} {dataset.about[k]!r} rather than {v!r}" for k, v in wanted.items() if dataset.about[k] != v]
    if other:
        raise InvalidDataset(f"the data set was recorded with {', '.join(other)}")


def steps_of(dataset: Dataset, policies: tuple[str, ...]) -> Steps:
    """The intervals of a data set, with rewards in units of what days differ by."""
    chosen = dataset.chosen(policies)
    n_episode, n_time = chosen.rewards.shape
    spread = float(chosen.rewards.sum(axis=1).std()) or 1.0
    goes_on = np.ones((n_episode, n_time), dtype=np.float32)
    goes_on[:, -1] = 0.0 if dataset.terminates else 1.0

    def flat(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values.reshape(n_episode * n_time, *values.shape[2:])))

    return Steps(
        seen=flat(chosen.seen[:, :-1]),
        actions=flat(chosen.actions),
        rewards=flat(chosen.rewards / np.float32(spread)),
        after=flat(chosen.seen[:, 1:]),
        goes_on=flat(goes_on),
    )


class Reader:
    """The policy, the critics, their optimiser, and the records that they learn from."""

    def __init__(self, settings: OfflineSettings, dataset: Dataset, hidden: list[int]) -> None:
        self.settings, self.steps = settings, steps_of(dataset, settings.policies)
        n_seen, n_number = self.steps.seen.shape[1], self.steps.actions.shape[1]
        self.network = Network(n_seen, hidden, n_number, 1, 0.01)
        self.worth = nn.ModuleList([Network(n_seen + n_number, hidden, 1, 1, 1.0) for _ in range(2)])
        self.worth_followed, self.usual = deepcopy(self.worth), Network(n_seen, hidden, 1, 1, 1.0)
        self.learning = nn.ModuleList([self.network, self.worth, self.usual])
        self.optimiser = torch.optim.Adam(self.learning.parameters(), lr=settings.learning_rate, eps=1e-5, fused=True)
        self.scale, self.scale_actions = Scale(n_seen), Scale(n_number)
        self.scale.update(self.steps.seen)
        self.scale_actions.update(self.steps.actions)

    def learn(self, share_left: float) -> None:
        """One update of everything; the learning rate falls with the share of the training that is left."""
        settings, steps = self.settings, self.steps
        chosen = torch.randint(len(steps.seen), (settings.minibatch,))
        seen, actions = self.scale(steps.seen[chosen]), steps.actions[chosen]
        error = nn.functional.smooth_l1_loss(
            self.network(seen) / self.scale_actions.deviation,
            actions / self.scale_actions.deviation,
            reduction="none",
        ).mean(dim=-1)
        if settings.temperature:
            of_critics, weight = self._judge(chosen, seen, self.scale_actions(actions))
            loss: Any = (weight * error).mean() + of_critics
        else:
            loss = error.mean()
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * share_left
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learning.parameters(), settings.max_gradient)
        self.optimiser.step()
        with torch.no_grad():
            for followed, worth in zip(self.worth_followed.parameters(), self.worth.parameters(), strict=True):
                followed.lerp_(worth, settings.tracking)

    def _judge(self, chosen: Tensor, seen: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The critics' loss, and what each action counts: more, the more it was worth above what is usual."""
        settings, steps = self.settings, self.steps
        both = torch.cat([seen, actions], dim=-1)
        usual = self.usual(seen)[:, 0]
        with torch.no_grad():
            worth = torch.minimum(*[critic(both)[:, 0] for critic in self.worth_followed])
            later = self.usual(self.scale(steps.after[chosen]))[:, 0]
            target = steps.rewards[chosen] + settings.discount * steps.goes_on[chosen] * later
        above = worth - usual
        # E[|expectile - 1(above < 0)| above^2] is least at the expectile.
        of_usual = (torch.where(above < 0, 1.0 - settings.expectile, settings.expectile) * above.square()).mean()
        of_worth = sum((critic(both)[:, 0] - target).square().mean() for critic in self.worth)
        advantage = above.detach() / (above.detach().std() + 1.0e-8)
        return of_usual + of_worth, (settings.temperature * advantage).exp().clip(max=LARGEST_WEIGHT)

    def save(self, folder: Path, n_update: int) -> None:
        """Write what is needed to go on, whole or not at all."""
        state = {
            "updates": n_update,
            "learning": self.learning.state_dict(),
            "followed": self.worth_followed.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }
        write_checkpoint(folder, state)

    def resume(self, folder: Path) -> int:
        """Be where the checkpoint of a folder was, and return after how many updates; 0 where there is none.

        Raises:
            InvalidCheckpoint: It is damaged, or of another network.
        """

        def put(state: dict[str, Any]) -> int:
            self.learning.load_state_dict(state["learning"])
            self.worth_followed.load_state_dict(state["followed"])
            self.optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["random"])
            return int(state["updates"])

        return from_checkpoint(folder / CHECKPOINT, put) or 0
