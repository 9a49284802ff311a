"""Gymnasium's view of the transactive loop: the DSO learns while the agents follow a fixed policy."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from peergrid.envs.common.actions import check_actions, check_render_mode
from peergrid.envs.common.entries import Entry, box
from peergrid.envs.common.policy import BatchPolicy
from peergrid.envs.transactive.env import METADATA, picture
from peergrid.envs.transactive.players import PricingDso
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Outcome
from peergrid.grid.errors import PeergridError


class DsoPricing(gym.Env[np.ndarray, np.ndarray]):
    """The DSO sets the signal at the substation; the agents answer at once, by a fixed policy.

    Each step is one transactive iteration: the action in `Box(-1, 1, (1,))` puts the root signal between its bounds,
    0 being the price from which it starts, the agents answer, and the hour closes as in `transactive_v0`: also where
    the signal is left as it was. The reward is, negatively, what the gap that is left costs beyond its energy, in
    currency, in every iteration: so it pays to close an hour soon. Observations are those of the DSO in
    `transactive_v0`, infos those of the network.
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
        self.player = PricingDso(self.simulation, agents)
        self.observation_space = box(self.player.entries)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def last_outcome(self) -> Outcome | None:
        """What happened in the last iteration; None before the first."""
        return self.simulation.outcome

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of the observation."""
        return self.player.entries

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Begin a day; options as in `transactive_v0`."""
        super().reset(seed=seed)
        self.simulation.reset(seed, options)
        self.player.begin(np.ones(1, dtype=bool))
        return self.player.see()[0], dict.fromkeys(self.player.info_names, 0.0)

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
        paid, told = self.player.play(np.asarray(action, dtype=np.float64)[None], np.ones(1, dtype=bool))
        info = dict(zip(self.player.info_names, told[:, 0].tolist(), strict=True))
        return self.player.see()[0], float(paid[0]), False, bool(self.simulation.is_over[0]), info

    def render(self) -> Any:
        """The last iteration as a table ("ansi") or as a picture ("rgb_array")."""
        return picture(self.simulation, self.render_mode)
