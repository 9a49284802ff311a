"""Training with BenchMARL: the microgrids of a market are one group, whose members share their actor's parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from peergrid.baselines.adapters import needs
from peergrid.baselines.adapters.benchmarl import TradingTask
from peergrid.baselines.adapters.torchrl import GROUP
from peergrid.baselines.policies.learned import Actor
from peergrid.baselines.training.lesson import CHECKPOINT, Lesson, Progress, save_whole
from peergrid.grid.errors import InvalidCheckpoint, PeergridError, UnknownName

with needs("BenchMARL", "marl"):
    from benchmarl.algorithms import IppoConfig, MappoConfig, MasacConfig
    from benchmarl.experiment import Callback, Experiment, ExperimentConfig
    from benchmarl.models import MlpConfig
    from benchmarl.models.common import Model, ModelConfig
    from tensordict import TensorDict, TensorDictBase

ALGORITHMS: dict[str, Any] = {"ippo": IppoConfig, "mappo": MappoConfig, "masac": MasacConfig}
# Arguments that are not to be given: an Actor relies on the tanh that BenchMARL's own defaults have, and a training
# has its length and its checkpoints.
FIXED = {"use_tanh_normal", "use_tanh_mapping", "max_n_frames", "max_n_iters", "restore_file"}
FIXED |= {"checkpoint_interval", "checkpoint_at_end"}
FIRST_ACTIONS = 0.01  # how far from 0 an untrained network acts, as a share of an ordinary layer's outputs
LARGEST_REWARD = 10.0  # in multiples of what rewards are divided by


def learn_with_benchmarl(progress: Progress) -> None:
    """Train with an algorithm of BenchMARL.

    What goes on after an interruption: networks, optimisers, exploration, replay buffer and the scale of rewards. Days
    and noise are drawn anew, from the seed and the steps done.
    """
    lesson = progress.lesson
    name, player = lesson.algo.name, lesson.player
    if name not in ALGORITHMS:
        raise UnknownName("algorithm", name, ALGORITHMS)
    if player != "shared":
        raise PeergridError(f"BenchMARL trains with player=shared, not player={player}")
    path = lesson.folder / CHECKPOINT
    done, kept = read_checkpoint(path)
    with TemporaryDirectory() as scratch:  # for the pickle that experiments write of themselves
        course = Course(progress, build_experiment(lesson, lesson.seed + done, scratch))
        if kept:
            course.restore(path, kept)
            progress.go_on(done)
        else:
            course.measure()
        if done < lesson.steps:
            course.run()


def build_experiment(lesson: Lesson, seed: int, scratch: str) -> Experiment:
    """BenchMARL's experiment for a training; it measures and writes nothing itself.

    Raises:
        UnknownName: An argument that neither the algorithm nor the experiment has, or one that is set here.
    """
    algo = lesson.algo
    algorithm, experiment = ALGORITHMS[algo.name].get_from_yaml(), ExperimentConfig.get_from_yaml()
    ours = {"evaluation": False, "evaluation_episodes": 1, "render": False, "loggers": [], "create_json": False}
    ours |= {"share_policy_params": True, "save_folder": scratch}
    ours |= {"on_policy_n_envs_per_worker": algo.num_envs, "off_policy_n_envs_per_worker": algo.num_envs}
    free = {*vars(algorithm), *vars(experiment)} - {*ours, *FIXED}
    for name in algo.arguments:
        if name not in free:
            raise UnknownName(f"argument of {algo.name} or of BenchMARL's experiments", name, free)
    for name, value in (algo.arguments | ours).items():
        setattr(algorithm if name in vars(algorithm) else experiment, name, value)
    per_batch = experiment.collected_frames_per_batch(algorithm.on_policy())
    experiment.max_n_frames = math.ceil(lesson.steps / per_batch) * per_batch
    built = Experiment(
        TradingTask(
            lesson.scenario,
            predictor=lesson.predictor,
            predicted_intervals=lesson.predicted_intervals,
            infos=(),
        ),
        algorithm,
        SharedActorConfig(list(algo.net_arch)),
        seed,
        experiment,
        critic_model_config=MlpConfig(list(algo.net_arch), nn.Linear, nn.Tanh),
    )
    if built.on_policy:
        # What an action changes is small beside what a critic misjudges at first, for all actions alike.
        loss = built.losses[GROUP]
        loss.normalize_advantage, loss.normalize_advantage_exclude_dims = True, (1,)  # each microgrid's apart
    return built


class Course(Callback):
    """An experiment as it goes: scales its rewards, measures its actor, and keeps checkpoints."""

    def __init__(self, progress: Progress, experiment: Experiment) -> None:
        super().__init__()
        self.progress, self.experiment = progress, experiment
        self.scale = ReturnScale(experiment.config.gamma)
        self.next_check = 0

    def run(self) -> None:
        """Train until the steps are done."""
        self.experiment.callbacks.append(self)
        self.experiment.run()

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Scale the rewards that are learned from."""
        key = ("next", GROUP, "reward")
        batch.set(key, self.scale(batch.get(key), batch.get(("next", "done"))))

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """Measure, where it is time."""
        steps = self.experiment.total_frames
        if steps >= min(self.next_check, self.progress.lesson.steps):
            self.measure()

    def measure(self) -> None:
        """Add a point to the curve, and write a checkpoint."""
        steps = self.experiment.total_frames
        self.next_check = steps + self.progress.lesson.check_every
        self.progress.measure(steps, self.actor(), self.experiment.collector.env.seconds)
        self.write(self.progress.lesson.folder / CHECKPOINT)

    def actor(self) -> Actor:
        """What the group has learned."""
        modules = self.experiment.algorithm.get_policy_for_loss(GROUP).modules()
        (layers,) = [module.layers for module in modules if isinstance(module, SharedActor)]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        weights = [layer.weight.detach().cpu().numpy().copy() for layer in linear]
        biases = [layer.bias.detach().cpu().numpy().copy() for layer in linear]
        # The last layer's first outputs are the locations of actions, the others scales, or none.
        n_numbers = self.experiment.action_spec[GROUP, "action"].shape[-1]
        weights[-1], biases[-1] = weights[-1][:n_numbers], biases[-1][:n_numbers]
        return Actor(weights=tuple(weights), biases=tuple(biases), activation="tanh", bound="tanh")

    def write(self, path: Path) -> None:
        """Write what the training needs to go on: numbers alone, whole or not at all."""
        experiment, buffer = self.experiment, self.experiment.replay_buffers[GROUP]
        state = {
            "steps": experiment.total_frames,
            "loss": experiment.losses[GROUP].state_dict(),
            "policy": experiment.policy.state_dict(),
            "optimizers": {name: each.state_dict() for name, each in experiment.optimizers[GROUP].items()},
            "replay": {} if experiment.on_policy or not len(buffer) else buffer[:].flatten_keys("/").to_dict(),
            "returns": [self.scale.mean, self.scale.var, self.scale.count],
        }
        save_whole(path, state)

    def restore(self, path: Path, kept: dict[str, Any]) -> None:
        """Put the experiment where a checkpoint left it.

        Raises:
            InvalidCheckpoint: It is of another training.
        """
        experiment = self.experiment
        try:
            experiment.losses[GROUP].load_state_dict(kept["loss"])
            experiment.policy.load_state_dict(kept["policy"])
            for name, each in experiment.optimizers[GROUP].items():
                each.load_state_dict(kept["optimizers"][name])
            if kept["replay"]:
                n = len(kept["replay"]["state"])
                experiment.replay_buffers[GROUP].extend(TensorDict(kept["replay"], [n]).unflatten_keys("/"))
            self.scale.mean, self.scale.var, self.scale.count = kept["returns"]
            experiment.total_frames = kept["steps"]
            self.next_check = kept["steps"] + self.progress.lesson.check_every
        except Exception as error:  # torch raises whatever does not fit
            raise _refused(path, error) from error
        config = experiment.config
        experiment.n_iters_performed = kept["steps"] // config.collected_frames_per_batch(experiment.on_policy)


class ReturnScale:
    """Divides rewards by the standard deviation of the discounted returns seen so far."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.mean, self.var, self.count = 0.0, 1.0, 1e-4
        self._running: Tensor | None = None

    def __call__(
        self, rewards: Float[Tensor, "row time agent 1"], done: Bool[Tensor, "row time 1"]
    ) -> Float[Tensor, "row time agent 1"]:
        """The rewards of the next steps of each row, scaled by what is known after them."""
        returns = torch.empty_like(rewards)
        running = torch.zeros_like(rewards[:, 0]) if self._running is None else self._running
        for t in range(rewards.shape[1]):
            running = self.gamma * running + rewards[:, t]
            returns[:, t] = running
            running = running * ~done[:, t, None]
        self._running = running
        self._absorb(returns.double())
        return (rewards / math.sqrt(self.var + 1e-8)).clip(-LARGEST_REWARD, LARGEST_REWARD)

    def _absorb(self, returns: Tensor) -> None:
        n, delta = returns.numel(), float(returns.mean()) - self.mean
        total = self.count + n
        spread = self.var * self.count + float(returns.var(correction=0)) * n + delta**2 * self.count * n / total
        self.mean, self.var, self.count = self.mean + delta * n / total, spread / total, total


class SharedActor(Model):
    """An actor's layers as BenchMARL has models."""

    def __init__(self, net_arch: Sequence[int], **arguments: Any) -> None:
        super().__init__(**arguments)
        n_seen, n_out = self.input_leaf_spec.shape[-1], self.output_leaf_spec.shape[-1]
        self.layers = build_layers(n_seen, net_arch, n_out).to(self.device)

    def _forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set(self.out_key, self.layers(tensordict.get(self.in_key)))


@dataclass
class SharedActorConfig(ModelConfig):
    """Sizes of the layers of a `SharedActor`."""

    net_arch: list[int]

    @staticmethod
    def associated_class() -> type[Model]:
        """The model of these settings."""
        return SharedActor


def read_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """The steps done and what `Course.write` wrote; none and nothing where there is no file.

    Raises:
        InvalidCheckpoint: It is damaged.
    """
    if not path.is_file():
        return 0, {}
    try:
        state = torch.load(path, weights_only=True)
        return int(state["steps"]), dict(state)
    except Exception as error:  # torch raises whatever the bytes suggest
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"{str(path)!r} can't be used: {error}. Delete the folder to train anew.")


def build_layers(n_seen: int, net_arch: Sequence[int], n_out: int) -> nn.Sequential:
    """Layers with tanh between them; untrained, their outputs are near 0."""
    sizes = (n_seen, *net_arch)
    layers: list[nn.Module] = []
    for n_in, n in zip(sizes, net_arch, strict=False):
        layers += [_linear(n_in, n, 2**0.5), nn.Tanh()]
    return nn.Sequential(*layers, _linear(sizes[-1], n_out, FIRST_ACTIONS))


def _linear(n_in: int, n_out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
