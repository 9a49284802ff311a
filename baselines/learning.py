"""Training with Stable-Baselines3, with the curve on held-out days."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from peergrid.baselines.adapters.sb3 import (
    ALGORITHMS,
    TradingVecEnv,
    actor_of,
    central_trading,
    shared_trading,
    solo_trading,
)
from peergrid.baselines.learned import WEIGHTS, LearnedPolicy, save_policy
from peergrid.baselines.play import play_all
from peergrid.baselines.references import References
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.scenario import Scenario
from peergrid.grid.errors import InvalidCheckpoint, PeergridError

CURVE, CHECKPOINT, REPLAY = "curve.csv", "checkpoint.pt", "replay.npz"
MAKERS: dict[str, Callable[..., TradingVecEnv]] = {
    "shared": shared_trading,
    "central": central_trading,
    "solo": solo_trading,
}
OF_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@dataclass
class AlgoSettings:
    """An algorithm of Stable-Baselines3, its arguments, and how many markets it steps at once."""

    name: str = "ppo"
    num_envs: int = 16
    net_arch: list[int] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """How good the policy was on held-out days after so many environment steps, and what that took, in seconds."""

    steps: int
    welfare: float
    score: float
    seconds: float
    environment_seconds: float


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


def learn(
    scenario: Scenario,
    references: References,
    algo: AlgoSettings,
    *,
    predictor: str,
    player: str,
    steps: int,
    check_every: int,
    seed: int,
    folder: Path,
    report: Callable[[CurvePoint], None] = lambda point: None,
) -> list[CurvePoint]:
    """Train, and write weights, checkpoints and the curve to a folder; goes on from a checkpoint that is there.

    Args:
        references: Of the held-out days on which the curve is measured. They are only looked at: nothing is chosen by
            them.
        steps: Environment steps: each is one interval of one market, in which all its microgrids act.
        check_every: Environment steps between two points of the curve, each with a checkpoint.
    """
    if algo.name not in ALGORITHMS or player not in MAKERS:
        raise PeergridError(f"algorithm {algo.name!r} or player {player!r} is unknown")
    folder.mkdir(parents=True, exist_ok=True)
    market = MAKERS[player](algo.num_envs, scenario=scenario, predictor=predictor)
    timed, gamma = Timed(market), float(algo.arguments.get("gamma", 0.99))
    env = VecNormalize(timed, norm_obs=False, gamma=gamma)
    slots = market.num_envs // algo.num_envs
    model = ALGORITHMS[algo.name](
        "MlpPolicy", env, seed=seed, policy_kwargs={"net_arch": list(algo.net_arch)}, **algo.arguments
    )
    curve = read_curve(folder / CURVE) if resume(model, env, folder) else []
    spent = (curve[-1].seconds, curve[-1].environment_seconds) if curve else (0.0, 0.0)
    season = [scenario.first_day, scenario.n_days]
    about = {"scenario": scenario.name, "season": season, "predictor": predictor, "seed": seed, "algorithm": algo.name}
    test = Simulation(scenario, num_envs=len(references.no_trade), predictor=predictor)
    start = time.perf_counter()
    while True:
        done = model.num_timesteps // slots
        if not curve or curve[-1].steps < done:
            actor = actor_of(model)
            welfare = play_all(test, LearnedPolicy(actor, player, about), references.first)
            curve.append(
                CurvePoint(
                    steps=done,
                    welfare=float(welfare.mean()),
                    score=references.score(welfare),
                    seconds=spent[0] + time.perf_counter() - start,
                    environment_seconds=spent[1] + timed.seconds,
                )
            )
            save_policy(folder / WEIGHTS, actor, player, about | {"steps": done})
            write_curve(folder / CURVE, curve)
            save_checkpoint(model, env, folder)
        report(curve[-1])
        if done >= steps:
            return curve
        model.learn(min(check_every, steps - done) * slots, reset_num_timesteps=False)


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
    unfinished = folder / f"{CHECKPOINT}.partial"
    torch.save(state, unfinished)
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        arrays = {name: getattr(buffer, name) for name in OF_REPLAY}
        filled = folder / f"{REPLAY}.partial.npz"
        np.savez(filled, pos=buffer.pos, full=buffer.full, **arrays)
        filled.replace(folder / REPLAY)
    unfinished.replace(folder / CHECKPOINT)


def resume(model: Any, env: VecNormalize, folder: Path) -> bool:
    """Put a model where the checkpoint of a folder left it; False where there is none.

    Raises:
        InvalidCheckpoint: It is damaged, or of another model.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return False
    try:
        state = torch.load(path, weights_only=True)
        model.set_parameters(state["parameters"])
        model.num_timesteps, model._n_updates = state["steps"], state["updates"]
        mean, var, count = state["returns"]
        env.ret_rms.mean, env.ret_rms.var, env.ret_rms.count = np.array(mean), np.array(var), count
        torch.set_rng_state(state["random"])
        if getattr(model, "replay_buffer", None) is not None:
            with np.load(folder / REPLAY, allow_pickle=False) as kept:
                for name in OF_REPLAY:
                    getattr(model.replay_buffer, name)[:] = kept[name]
                model.replay_buffer.pos, model.replay_buffer.full = int(kept["pos"]), bool(kept["full"])
    except Exception as error:  # torch raises whatever the bytes suggest
        raise InvalidCheckpoint(f"{str(path)!r} can't be used: {error}. Delete the folder to train anew.") from error
    return True


def write_curve(path: Path, curve: list[CurvePoint]) -> None:
    """The curve as CSV, whole or not at all."""
    unfinished = path.with_suffix(".partial")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(CurvePoint.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(vars(point) for point in curve)
    unfinished.replace(path)


def read_curve(path: Path) -> list[CurvePoint]:
    """The points of a curve that `write_curve` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            CurvePoint(steps=int(row.pop("steps")), **{name: float(value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]
