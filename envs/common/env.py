"""PettingZoo's view of a market: spaces, seeding, and the five dictionaries of a step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from peergrid.envs.common.actions import arrays_of, check_render_mode, of_agent
from peergrid.envs.common.batch import Batch
from peergrid.envs.common.entries import Entry, box
from peergrid.grid.errors import PeergridError

Infos = dict[str, dict[str, float]]


class MarketEnv(ParallelEnv[str, np.ndarray, np.ndarray]):
    """A batch of one row, as all its agents see it. Abstract: `_play` and `_infos` differ from market to market."""

    simulation: Batch[Any, Any, Any, Any]

    def __init__(
        self, entries: Mapping[str, tuple[Entry, ...]], n_numbers: Mapping[str, int], render_mode: str | None
    ) -> None:
        """
        Args:
            entries: Of the observation of each agent.
            n_numbers: Of the action of each agent.
        """
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.possible_agents = list(entries)
        self.agents: list[str] = []
        self._entries, self._n_numbers = entries, n_numbers
        self.observation_spaces = {a: box(e) for a, e in entries.items()}
        self.action_spaces = {a: spaces.Box(-1.0, 1.0, (n,), np.float32) for a, n in n_numbers.items()}
        self.state_space = box(self.simulation.state_entries)

    @abstractmethod
    def _play(self, given: dict[str, np.ndarray]) -> list[float]:
        """Step the simulation by the actions of all agents; what each is paid."""

    @abstractmethod
    def _infos(self, outcome: Any) -> Infos:
        """What each agent is told of the last step; of None, before the first, zeros under the same names."""

    def _seen(self) -> list[np.ndarray]:
        """What each agent sees now."""
        return [*self.simulation.seen[0].copy()]

    def observation_space(self, agent: str) -> spaces.Box:
        """The same `Box` at every call."""
        return of_agent(self.observation_spaces, agent)

    def action_space(self, agent: str) -> spaces.Box:
        """The same `Box` at every call."""
        return of_agent(self.action_spaces, agent)

    def describe_observation(self, agent: str) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of an agent's observation."""
        return of_agent(self._entries, agent)

    def describe_state(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of `state()`."""
        return self.simulation.state_entries

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Infos]:
        """Begin a day and return observations and (zero) infos.

        Args:
            options: `{"evaluation_day": k}` plays held-out day k.
        """
        self.simulation.reset(seed, options)
        self.agents = list(self.possible_agents)
        return self._observations(), self._infos(None)

    def step(
        self, actions: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Play one interval, or one transactive iteration of it.

        Raises:
            InvalidAction: An agent without action, an unknown agent, a wrong shape, or NaN.
            PeergridError: The episode is over, or has not begun.
        """
        if not self.agents:
            raise PeergridError("no episode runs: call reset() before step()")
        paid, agents = self._play(arrays_of(actions, self._n_numbers)), self.agents
        ended, terminates = bool(self.simulation.is_over[0]), self.simulation.terminates
        observations, infos = self._observations(), self._infos(self.simulation.outcome)
        if ended:
            self.agents = []
        return (
            observations,
            dict(zip(agents, paid, strict=True)),
            dict.fromkeys(agents, ended and terminates),
            dict.fromkeys(agents, ended and not terminates),
            infos,
        )

    def state(self) -> np.ndarray:
        """The global view for centralised critics, entry by entry as `describe_state` says."""
        return self.simulation.global_state()[0]

    def render(self) -> str | np.ndarray | None:
        """The last step as a table ("ansi") or as a picture ("rgb_array")."""
        picture: str | np.ndarray | None = self.simulation.picture(self.render_mode)
        return picture

    def close(self) -> None:
        """Nothing is held open."""

    def _observations(self) -> dict[str, np.ndarray]:
        return dict(zip(self.agents, self._seen(), strict=True))
