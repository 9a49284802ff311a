"""Stable-Baselines3's view of a batch of markets: one policy for every microgrid, a central controller, or one learner.

PPO("MlpPolicy", shared_trading(num_envs=8, scenario="ieee33"), seed=0).learn(100_000)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from peergrid.baselines.adapters import needs
from peergrid.baselines.policies.learned import Actor
from peergrid.envs.common.vector import PlayerVector
from peergrid.envs.p2p_trading import vector
from peergrid.grid.errors import PeergridError

with needs("Stable-Baselines3", "sb3"):
    import torch
    from stable_baselines3 import PPO, SAC, TD3
    from stable_baselines3.common.vec_env import VecEnv

ALGORITHMS: dict[str, Any] = {"ppo": PPO, "sac": SAC, "td3": TD3}
Indices = int | Iterable[int] | None


def shared_trading(num_envs: int = 1, **arguments: Any) -> TradingVecEnv:
    """One policy for all microgrids of `num_envs` markets: each microgrid of each market is an environment.

    All have the same spaces. Each is paid its own reward, so that competitors share what they learn.
    """
    return TradingVecEnv(vector.shared_trading(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **arguments))


def central_trading(num_envs: int = 1, **arguments: Any) -> TradingVecEnv:
    """One controller for all microgrids of a market, as in `CentralTrading`."""
    return TradingVecEnv(vector.central_trading(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **arguments))


def solo_trading(num_envs: int = 1, **arguments: Any) -> TradingVecEnv:
    """One learner among fixed policies, as in `SoloTrading`."""
    return TradingVecEnv(vector.solo_trading(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **arguments))


def actor_of(model: Any) -> Actor:
    """The network that acts, of a model of one of ALGORITHMS with an "MlpPolicy"."""
    policy = model.policy
    if isinstance(model, PPO):
        parts = [policy.mlp_extractor.policy_net, policy.action_net]
    elif isinstance(model, SAC):
        parts = [policy.actor.latent_pi, policy.actor.mu]
    else:
        parts = [policy.actor.mu]
    modules = [module for part in parts for module in part.modules()]
    layers = [module for module in modules if isinstance(module, torch.nn.Linear)]
    is_tanh = isinstance(modules[2], torch.nn.Tanh)  # after the container and its first layer
    return Actor(
        weights=tuple(layer.weight.detach().cpu().numpy().copy() for layer in layers),
        biases=tuple(layer.bias.detach().cpu().numpy().copy() for layer in layers),
        activation="tanh" if is_tanh else "relu",
        bound="clip" if isinstance(model, PPO) else "tanh",
    )


class TradingVecEnv(VecEnv):
    """A `PlayerVector` as a `VecEnv`.

    Infos are empty but in the last step of an episode, where they hold the figures of that step,
    `terminal_observation` and `TimeLimit.truncated`; those of other steps are in `env.simulation.outcome`. All
    environments are one object: attributes are got, set and called there, once for all.
    """

    def __init__(self, env: PlayerVector) -> None:
        if env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise PeergridError(f"Stable-Baselines3 resets in the last step: autoreset_mode is {env.autoreset_mode}")
        self.env = env
        self._actions = np.zeros(env.action_space.shape or ())
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        """Begin a day everywhere, with the seed and the options given before: the same options for all."""
        seed, options = self._seeds[0], self._options[0]
        if any(other != options for other in self._options):
            raise PeergridError("set_options() takes one dictionary, which holds for all environments")
        observations, _ = self.env.reset(seed=seed, options=options)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Play one interval; where an episode ends, the observation is the first of the next."""
        observations, rewards, terminations, truncations, told = self.env.step(self._actions)
        dones = terminations | truncations
        infos: list[dict[str, Any]] = [{} for _ in dones]
        if dones.any():
            names = self.env.player.info_names
            last = np.stack([told["final_info"][name] for name in names], axis=-1).tolist()
            for i in np.flatnonzero(dones).tolist():
                infos[i] = dict(zip(names, last[i], strict=True))
                infos[i]["terminal_observation"] = told["final_obs"][i]
                infos[i]["TimeLimit.truncated"] = bool(truncations[i] and not terminations[i])
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Nothing is held open."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The attribute of the vector, once for each environment asked about."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the vector, which is the same for all environments."""
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise PeergridError(f"{attr_name} can't be set for some environments only: they are one batch")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector once, and return what it returns for each environment asked about."""
        answer = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [answer] * len(list(self._get_indices(indices)))

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Indices = None
    ) -> list[bool]:
        """No environment is wrapped."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> list[Any]:
        """A picture of each market."""
        return list(self.env.render() or ())
