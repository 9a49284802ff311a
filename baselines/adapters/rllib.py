"""RLlib's view of a parallel environment, for its current API stack (EnvRunner, RLModule, Learner).

from ray.tune.registry import register_env
register_env("p2p_trading", lambda c: AsMultiAgent(p2p_trading_v0.parallel_env(**c), c.worker_index))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from peergrid.baselines.adapters import needs

with needs("RLlib", "rllib"):
    from ray.rllib.env.multi_agent_env import MultiAgentEnv

ALL = "__all__"


class AsMultiAgent(MultiAgentEnv):
    """A parallel environment whose agents all begin and end an episode together, as a `MultiAgentEnv`.

    It differs from RLlib's own `ParallelPettingZooEnv` (Ray 2.60) in two things:

    * An episode that is truncated is told for all agents at once. Told agent by agent, RLlib counts it as terminated,
      and the values of the last observations as nothing.
    * Every market of every runner has its own days. RLlib seeds market i of runner r with seed + r + i, so that two
      markets of two runners would live through the same weather.
    """

    def __init__(self, env: ParallelEnv[str, np.ndarray, np.ndarray], runner: int = 0) -> None:
        """
        Args:
            runner: Number of the runner that plays it, `worker_index` of RLlib's `EnvContext`.
        """
        super().__init__()
        self.env, self.runner = env, runner
        self.possible_agents = list(env.possible_agents)
        self.agents = self.possible_agents
        self.observation_spaces = {agent: env.observation_space(agent) for agent in self.possible_agents}
        self.action_spaces = {agent: env.action_space(agent) for agent in self.possible_agents}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin an episode; the seed counts together with the runner."""
        if seed is not None:
            seed = int(np.random.SeedSequence([seed, self.runner]).generate_state(1)[0])
        return self.env.reset(seed=seed, options=options)

    def step(self, action_dict: Mapping[str, np.ndarray]) -> tuple[Any, Any, dict[str, bool], dict[str, bool], Any]:
        """Play one step; all agents have an observation and a reward in the last one too."""
        observations, rewards, terminations, truncations, infos = self.env.step(dict(action_dict))
        ended = {ALL: all(terminations.values())}, {ALL: all(truncations.values())}
        return observations, rewards, *ended, infos

    def render(self) -> Any:
        """What the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()
