"""Gymnasium's single environments: a player's view of one episode at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float, Float32

from peergrid.envs.common.actions import check_actions, check_render_mode
from peergrid.envs.common.batch import Batch
from peergrid.envs.common.entries import Entry, box
from peergrid.grid.errors import PeergridError


class Player(ABC):
    """Whoever learns: what it sees, what it does, what it is paid and told.

    It acts in all rows of a batch at once, with one slot in each row, or several.
    """

    simulation: Batch[Any, Any, Any, Any]
    slots_per_row: int
    entries: tuple[Entry, ...]  # of a slot's observation
    n_numbers: int  # of a slot's action
    info_names: tuple[str, ...]

    def begin(self, rows: Bool[np.ndarray, " batch"]) -> None:  # noqa: B027, most have nothing to prepare
        """Episodes have begun in the marked rows."""

    @abstractmethod
    def see(self) -> Float32[np.ndarray, "slot entry"]:
        """What each slot sees now; the simulation does not hold on to the array."""

    @abstractmethod
    def play(
        self, actions: Float[np.ndarray, "slot number"], rows: Bool[np.ndarray, " batch"]
    ) -> tuple[Float[np.ndarray, " played"], Float[np.ndarray, "name played"]]:
        """Step the marked rows; what their slots are paid and told, in the order of `info_names`."""


class PlayerEnv(gym.Env[np.ndarray, np.ndarray]):
    """One episode at a time, as one player sees it: `PlayerVector` of one row, without its axis."""

    def __init__(self, player: Player, render_mode: str | None = None) -> None:
        """
        Args:
            player: Of a simulation of one row, with one slot in it.
            render_mode: "ansi" or "rgb_array": a table or a picture of the last step.
        """
        check_render_mode(render_mode)
        self.player, self.simulation, self.render_mode = player, player.simulation, render_mode
        self.observation_space = box(player.entries)
        self.action_space = spaces.Box(-1.0, 1.0, (player.n_numbers,), np.float32)

    @property
    def last_outcome(self) -> Any:
        """What happened in the last step; None before the first."""
        return self.simulation.outcome

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of the observation."""
        return self.player.entries

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Begin a day.

        Args:
            options: `{"evaluation_day": k}` plays held-out day k.
        """
        super().reset(seed=seed)
        self.simulation.reset(seed, options)
        self.player.begin(np.ones(1, dtype=bool))
        return self.player.see()[0], dict.fromkeys(self.player.info_names, 0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        """Play one interval, or one transactive iteration of it.

        Raises:
            InvalidAction: Wrong shape, or NaN.
            PeergridError: The episode is over, or has not begun.
        """
        simulation = self.simulation
        simulation.running()
        if simulation.is_over.any():
            raise PeergridError("the episode is over: call reset() before step()")
        check_actions(action, (self.player.n_numbers,), "number")
        paid, told = self.player.play(np.asarray(action, dtype=np.float64)[None], np.ones(1, dtype=bool))
        info = dict(zip(self.player.info_names, told[:, 0].tolist(), strict=True))
        ended, terminates = bool(simulation.is_over[0]), simulation.terminates
        return self.player.see()[0], float(paid[0]), ended and terminates, ended and not terminates, info

    def render(self) -> Any:
        """The last step as a table ("ansi") or as a picture ("rgb_array")."""
        return self.simulation.picture(self.render_mode)
