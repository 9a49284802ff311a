"""Gymnasium's views of the P2P market: one controller for all microgrids, or one learner among fixed policies."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from peergrid.envs.common.actions import as_array
from peergrid.envs.common.entries import Entry
from peergrid.envs.common.policy import Policy
from peergrid.envs.p2p_trading.env import METADATA, P2PTrading
from peergrid.envs.p2p_trading.players import Solo
from peergrid.envs.p2p_trading.types import N_ACTIONS
from peergrid.grid.errors import InvalidAction, PeergridError


class CentralTrading(gym.Env[np.ndarray, np.ndarray]):
    """One controller acts for all microgrids and is paid the welfare of the interval, in currency.

    Observation and action are those of `p2p_trading_v0`, agent after agent in one flat `Box`. Arguments are those of
    `p2p_trading_v0.parallel_env`.
    """

    metadata: ClassVar[dict[str, Any]] = METADATA  # type: ignore[misc]

    def __init__(self, **arguments: Any) -> None:
        self.market = P2PTrading(**arguments)
        self.render_mode = self.market.render_mode
        agents = self.market.possible_agents
        each = [self.market.observation_space(a) for a in agents]
        self.observation_space = spaces.Box(
            np.concatenate([s.low for s in each]), np.concatenate([s.high for s in each]), dtype=np.float32
        )
        self.action_space = spaces.Box(-1.0, 1.0, (N_ACTIONS * len(agents),), np.float32)

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of the observation."""
        count = len(self.market.possible_agents) * len(self.market.simulation.entries)
        return self.market.describe_state()[:count]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Begin a day; options as in `p2p_trading_v0`."""
        super().reset(seed=seed)
        observations, infos = self.market.reset(seed, options)
        return self._flat(observations), self._info(infos)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        """Play one interval."""
        action = as_array(action)
        if action.shape != self.action_space.shape:
            raise InvalidAction(f"action has shape {action.shape}, not {self.action_space.shape}")
        agents = self.market.possible_agents
        parts = dict(zip(agents, action.reshape(len(agents), N_ACTIONS), strict=True))
        observations, _, terminations, truncations, infos = self.market.step(parts)
        first = agents[0]
        reward = infos[first]["welfare"]
        return self._flat(observations), reward, terminations[first], truncations[first], self._info(infos)

    def render(self) -> Any:
        """The market's rendering."""
        return self.market.render()

    def _flat(self, observations: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([observations[a] for a in self.market.possible_agents])

    def _info(self, infos: dict[str, dict[str, float]]) -> dict[str, float]:
        return {f"{a}/{name}": value for a, info in infos.items() for name, value in info.items()}


class SoloTrading(gym.Env[np.ndarray, np.ndarray]):
    """One microgrid learns while a fixed policy plays the others.

    Spaces, rewards and infos are those of the learner in `p2p_trading_v0`.
    """

    metadata: ClassVar[dict[str, Any]] = METADATA  # type: ignore[misc]

    def __init__(self, learner: str = "microgrid_0", others: str | Policy = "truthful", **arguments: Any) -> None:
        """
        Args:
            learner: The agent that acts by `step`.
            others: Who plays the rest: "truthful", "no_trade", "random", a `Policy`, or "module:attribute".
            **arguments: Those of `p2p_trading_v0.parallel_env`.
        """
        self.market = P2PTrading(**arguments)
        self.render_mode = self.market.render_mode
        self.learner = learner
        self.player = Solo(self.market.simulation, learner, others)
        self.observation_space = self.market.observation_space(learner)
        self.action_space = self.market.action_space(learner)

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of the observation."""
        return self.market.describe_observation(self.learner)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Begin a day; options as in `p2p_trading_v0`."""
        super().reset(seed=seed)
        observations, infos = self.market.reset(seed, options)
        self.player.begin(np.ones(1, dtype=bool))
        return observations[self.learner], infos[self.learner]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        """Play one interval."""
        if not self.market.agents:  # asked first, as the others can't act then either
            raise PeergridError("no episode runs: call reset() before step()")
        simulation = self.market.simulation
        everybody = self.player.others.act_rows(simulation, simulation.seen)[0]
        actions = dict(zip(self.market.agents, everybody, strict=True)) | {self.learner: action}
        observations, rewards, terminations, truncations, infos = self.market.step(actions)
        me = self.learner
        return observations[me], rewards[me], terminations[me], truncations[me], infos[me]

    def render(self) -> Any:
        """The market's rendering."""
        return self.market.render()
