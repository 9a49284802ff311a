"""Gymnasium's view of the transactive loop: the DSO learns while the agents follow a fixed policy."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from peergrid.envs.actions import RENDER_MODES, check_actions, check_render_mode
from peergrid.envs.entries import Entry, box
from peergrid.envs.policy import BatchPolicy
from peergrid.envs.transactive.env import TransactiveMarket, picture
from peergrid.envs.transactive.infos import NETWORK_INFOS, measure, nothing_yet
from peergrid.envs.transactive.players import agents_policy
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Outcome
from peergrid.grid.errors import PeergridError

METADATA: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": TransactiveMarket.metadata["render_fps"]}


class DsoPricing(gym.Env[np.ndarray, np.ndarray]):
    """The DSO sets the signal at the substation; the agents answer at once, by a fixed policy.

    Each step is one transactive iteration: the action in `Box(-1, 1, (1,))` puts the root signal between its bounds,
    0 being the LMP, the agents answer, and the hour closes as in `transactive_v0`: also where the signal is left as it
    was. The reward is, negatively, what the gap that is left costs beyond its energy, in currency, in every
    iteration: so it pays to close an hour soon. Observations are those of the DSO in `transactive_v0`, infos those of
    the network.
    """

    metadata: ClassVar[dict[str, Any]] = METADATA  # type: ignore[misc]

    def __init__(
        self, agents: str | BatchPolicy = "optimising", *, render_mode: str | None = None, **arguments: Any
    ) -> None:
        """
        Args:
            agents: How agents answer: "optimising", "myopic", "scheduled", a `BatchPolicy`, or "module:attribute".
            **arguments: Those of `Transactive`.
        """
        check_render_mode(render_mode)
        self.simulation, self.render_mode = Transactive(**arguments), render_mode
        self.agents = agents_policy(agents)
        self.observation_space = box(self.simulation.dso_entries)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def last_outcome(self) -> Outcome | None:
        """What happened in the last iteration; None before the first."""
        return self.simulation.outcome

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of the observation."""
        return self.simulation.dso_entries

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Begin a day; options as in `transactive_v0`."""
        super().reset(seed=seed)
        self.simulation.reset(seed, options)
        self.agents.begin_rows(self.simulation, np.ones(1, dtype=bool))
        return self._seen(), self._info(nothing_yet(1, self.simulation.n_agent)[1])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        """One transactive iteration.

        Raises:
            InvalidAction: Wrong shape, or NaN.
            PeergridError: The episode is over, or has not begun.
        """
        self.simulation.running()
        if self.simulation.is_over.any():
            raise PeergridError("the episode is over: call reset() before step()")
        check_actions(action, (1,), "number")
        outcome = play(self.simulation, self.agents, np.asarray(action, dtype=np.float64))
        told = self._info(measure(outcome, self.simulation.params)[1])
        return self._seen(), float(outcome.dso_reward[0]), False, bool(self.simulation.is_over[0]), told

    def render(self) -> Any:
        """The last iteration as a table ("ansi") or as a picture ("rgb_array")."""
        return picture(self.simulation, self.render_mode)

    def _seen(self) -> np.ndarray:
        return self.simulation.seen_by_dso[0].copy()

    def _info(self, network: np.ndarray) -> dict[str, float]:
        return dict(zip(NETWORK_INFOS, network[:, 0].tolist(), strict=True))


def play(simulation: Transactive, agents: BatchPolicy, actions: np.ndarray, rows: np.ndarray | None = None) -> Outcome:
    """The DSO announces its signals, the agents answer; in all rows, or in the marked ones."""
    actions = actions.clip(-1.0, 1.0)
    simulation.announce(actions, rows)
    _, outcome = simulation.step(agents.act_rows(simulation, simulation.seen), rows, dso_actions=actions)
    return outcome
