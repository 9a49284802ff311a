"""Training with Stable-Baselines3: one policy for every microgrid, or one for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peergrid.baselines.adapters import needs
from peergrid.baselines.adapters.sb3 import (
    ALGORITHMS,
    TradingVecEnv,
    actor_of,
    central_trading,
    shared_trading,
    solo_trading,
)
from peergrid.baselines.training.lesson import CHECKPOINT, Progress, from_checkpoint, write_checkpoint
from peergrid.grid.errors import UnknownName
from peergrid.grid.files import write_whole

with needs("Stable-Baselines3", "sb3"):
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

REPLAY, TENSORBOARD = "replay.npz", "tensorboard"
MAKERS: dict[str, Callable[..., TradingVecEnv]] = {
    "shared": shared_trading,
    "central": central_trading,
    "solo": solo_trading,
}
OF_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Timed(VecEnvWrapper):
    """Counts the seconds that the environment takes of the training."""

    def __init__(self, env: TradingVecEnv) -> None:
        super().__init__(env)
        self.seconds = 0.0

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        start = time.perf_counter()
        result = self.venv.step_wait()
        self.seconds += time.perf_counter() - start
        return result


def learn_with_sb3(progress: Progress) -> None:
    """Train with an algorithm of Stable-Baselines3."""
    lesson = progress.lesson
    algo, folder = lesson.algo, lesson.folder
    name = algo.name.removesuffix("_sb3")
    if name not in ALGORITHMS:
        raise UnknownName("algorithm", algo.name, ALGORITHMS)
    if lesson.player not in MAKERS:
        raise UnknownName("player", lesson.player, MAKERS)
    market = MAKERS[lesson.player](
        algo.num_envs,
        scenario=lesson.scenario,
        predictor=lesson.predictor,
        predicted_intervals=lesson.predicted_intervals,
    )
    timed, gamma = Timed(market), float(algo.arguments.get("gamma", 0.99))
    env = VecNormalize(timed, norm_obs=False, gamma=gamma)
    slots = market.num_envs // algo.num_envs
    arguments = dict(algo.arguments)
    of_policy = {"net_arch": list(algo.net_arch), **arguments.pop("policy_kwargs", {})}
    model = ALGORITHMS[name]("MlpPolicy", env, seed=lesson.seed, policy_kwargs=of_policy, **arguments)
    model.set_logger(configure(str(folder / TENSORBOARD), ["tensorboard"]))
    if resume(model, env, folder):
        progress.go_on(model.num_timesteps // slots)
    else:
        progress.measure(0, actor_of(model), 0.0)
    done = model.num_timesteps // slots
    while done < lesson.steps:
        model.learn(min(lesson.check_every, lesson.steps - done) * slots, reset_num_timesteps=False)
        done = model.num_timesteps // slots
        progress.measure(done, actor_of(model), timed.seconds)
        save_checkpoint(model, env, folder)
    model.logger.close()


def save_checkpoint(model: Any, env: VecNormalize, folder: Path) -> None:
    """Write what the training needs to go on: numbers alone, whole or not at all."""
    returns = env.ret_rms
    state = {
        "steps": model.num_timesteps,
        "updates": getattr(model, "_n_updates", 0),
        "parameters": model.get_parameters(),
        "returns": [float(returns.mean), float(returns.var), float(returns.count)],
        "random": torch.get_rng_state(),
    }
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        arrays = {name: getattr(buffer, name) for name in OF_REPLAY}

        def write(unfinished: Path) -> None:
            with unfinished.open("wb") as file:  # NumPy would end its name in .npz
                np.savez(file, pos=buffer.pos, full=buffer.full, **arrays)

        write_whole(folder / REPLAY, write)
    write_checkpoint(folder, state)


def resume(model: Any, env: VecNormalize, folder: Path) -> bool:
    """Put a model where the checkpoint of a folder left it; False where there is none.

    Raises:
        InvalidCheckpoint: It is damaged, or of another model.
    """

    def put(state: dict[str, Any]) -> bool:
        model.set_parameters(state["parameters"])
        model.num_timesteps, model._n_updates = state["steps"], state["updates"]
        mean, var, count = state["returns"]
        env.ret_rms.mean, env.ret_rms.var, env.ret_rms.count = np.array(mean), np.array(var), count
        torch.set_rng_state(state["random"])
        if getattr(model, "replay_buffer", None) is not None:
            # NumPy leaves a damaged file open that it has opened itself.
            with (folder / REPLAY).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                for name in OF_REPLAY:
                    getattr(model.replay_buffer, name)[:] = kept[name]
                model.replay_buffer.pos, model.replay_buffer.full = int(kept["pos"]), bool(kept["full"])
        return True

    return from_checkpoint(folder / CHECKPOINT, put) or False
