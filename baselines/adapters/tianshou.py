"""Tianshou's view of a batch of markets: its collectors step all of them by one call.

Collector(algorithm, shared_trading(num_envs=32, scenario="ieee33"), VectorReplayBuffer(20_000, 128))
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from peergrid.baselines.adapters import needs
from peergrid.envs.p2p_trading import vector
from peergrid.grid.errors import PeergridError

with needs("Tianshou", "tianshou"):
    from tianshou.env import BaseVectorEnv
    from tianshou.env.worker import EnvWorker

Indices = int | list[int] | np.ndarray | None
Vector = VectorEnv[np.ndarray, np.ndarray, np.ndarray]


def shared_trading(num_envs: int = 1, **arguments: Any) -> TradingVectorEnv:
    """One policy for all microgrids of `num_envs` markets: each microgrid of each market is an environment."""
    return TradingVectorEnv(vector.shared_trading(num_envs, autoreset_mode=AutoresetMode.DISABLED, **arguments))


def central_trading(num_envs: int = 1, **arguments: Any) -> TradingVectorEnv:
    """One controller for all microgrids of a market, as in `CentralTrading`."""
    return TradingVectorEnv(vector.central_trading(num_envs, autoreset_mode=AutoresetMode.DISABLED, **arguments))


def solo_trading(num_envs: int = 1, **arguments: Any) -> TradingVectorEnv:
    """One learner among fixed policies, as in `SoloTrading`."""
    return TradingVectorEnv(vector.solo_trading(num_envs, autoreset_mode=AutoresetMode.DISABLED, **arguments))


class TradingVectorEnv(BaseVectorEnv):
    """Gymnasium's vector as Tianshou's: a batch of markets, with wrappers around it or without.

    Infos hold `env_id` alone. All environments are one object, which steps as a whole: a collector is to have an
    episode in each, or several.
    """

    def __init__(self, env: Vector) -> None:
        """
        Args:
            env: One that nobody resets but who asks for it, `autoreset_mode=AutoresetMode.DISABLED`.
        """
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.DISABLED:
            raise PeergridError(f"Tianshou resets by itself: autoreset_mode is {mode}")
        self.vector = env
        super().__init__([partial(_itself, env)] * env.num_envs, Slot)

    def reset(self, env_id: Indices = None, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Begin a day everywhere, or in these environments; what they see, and infos.

        Args:
            kwargs: `seed` and `options`, as the vector has them; a seed needs all environments.
        """
        chosen = np.arange(self.env_num)[self._wrap_id(env_id)]
        options = dict(kwargs.pop("options", None) or {})
        if len(chosen) < self.env_num:
            options["reset_mask"] = np.isin(np.arange(self.env_num), chosen)
        seen, _ = self.vector.reset(options=options, **kwargs)
        return seen[chosen], _infos(chosen)

    def step(
        self, action: Any, id: Indices = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Play one interval; where an episode ends, what is seen is its end.

        Raises:
            PeergridError: Some environments are left out, or an episode is over that nobody reset.
        """
        chosen = np.arange(self.env_num)[self._wrap_id(id)]
        if not np.array_equal(chosen, np.arange(self.env_num)):
            raise PeergridError(
                f"{len(chosen)} of {self.env_num} environments were to step, which step together: collect steps, or as "
                "many episodes as there are environments, or a multiple"
            )
        seen, rewards, terminations, truncations, _ = self.vector.step(np.asarray(action))
        return seen, rewards, terminations, truncations, _infos(chosen)

    def seed(self, seed: int | list[int] | None = None) -> list[Any]:
        """Seed the action spaces; days are drawn by the seed that is given to `reset`."""
        return super().seed(seed)

    def render(self, **kwargs: Any) -> list[Any]:
        """A picture of each market."""
        return list(self.vector.render() or ())


class Slot(EnvWorker):
    """One environment of the batch, to be asked for its spaces; it steps with the others."""

    def __init__(self, env_fn: Any) -> None:
        self.vector: Vector = env_fn()
        self.spaces: dict[str, gym.Space[Any]] = {
            "observation_space": self.vector.single_observation_space,
            "action_space": self.vector.single_action_space,
        }
        super().__init__(env_fn)

    def get_env_attr(self, key: str) -> Any:
        """The attribute of one environment, or of the batch."""
        return self.spaces[key] if key in self.spaces else getattr(self.vector, key)

    def set_env_attr(self, key: str, value: Any) -> None:
        """Set an attribute of the batch, which is the same for all environments."""
        setattr(self.vector, key, value)

    def send(self, action: np.ndarray | None) -> None:
        """Not to be called."""
        raise PeergridError("environments of a batch step together")

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Not to be called."""
        raise PeergridError("environments of a batch are reset by the batch")

    def render(self, **kwargs: Any) -> Any:
        """Nothing: the batch renders."""

    def close_env(self) -> None:
        """Nothing is held open."""


def _itself(env: Vector) -> Vector:
    return env


def _infos(chosen: np.ndarray) -> np.ndarray:
    return np.array([{"env_id": int(i)} for i in chosen])
