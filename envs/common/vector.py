"""Gymnasium's vector environments: a player's view of a batch of episodes that are stepped together."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float

from peergrid.envs.common.actions import check_actions, check_render_mode
from peergrid.envs.common.entries import Entry, box
from peergrid.envs.common.player import Player
from peergrid.grid.errors import PeergridError


class PlayerVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A batch of episodes, stepped by one call for all of them, as one player sees it.

    Each row of the batch is the environment that its single form is: row i of a seeded reset draws with seed + i. A
    player with several slots makes an environment of each. Infos are arrays under the names of the single form's, each
    with its mask.
    """

    def __init__(
        self,
        player: Player,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            autoreset_mode: When rows begin anew: NEXT_STEP in the step after the last, whose action is not looked at;
                SAME_STEP in the last step itself, with what was seen at the end in `infos["final_obs"]`; DISABLED by
                `reset(options={"reset_mask": ...})` alone.
            render_mode: "ansi" or "rgb_array": a table or a picture of each row.
        """
        check_render_mode(render_mode)
        self.player, self.simulation = player, player.simulation
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.simulation.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.num_envs = self.simulation.num_envs * player.slots_per_row
        self.single_observation_space = box(player.entries)
        self.single_action_space = spaces.Box(-1.0, 1.0, (player.n_numbers,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of one environment's observation."""
        return self.player.entries

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a day everywhere, or in the environments that `options["reset_mask"]` marks.

        Args:
            seed: Row i draws with seed + i; None goes on with the generators as they are.
            options: `{"evaluation_day": k}` plays held-out day k in row 0, k + 1 in row 1 and so on.
        """
        super().reset(seed=seed)
        rows = self._marked_rows(options)
        self._begin(rows, seed, options)
        return self.player.see(), self._infos(self._nothing(), self._slots(rows))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every row once.

        Raises:
            InvalidAction: Wrong shape, or NaN.
            PeergridError: No episode has begun, or one is over that nobody reset.
        """
        simulation = self.simulation
        simulation.running()
        check_actions(actions, (self.num_envs, self.player.n_numbers), "row, number")
        over = simulation.is_over
        if over.any():
            if self.autoreset_mode is not AutoresetMode.NEXT_STEP:
                raise PeergridError(f"the episode is over in rows {np.flatnonzero(over).tolist()}: call reset() first")
            self._begin(over)
        rewards, told, plays = np.zeros(self.num_envs), self._nothing(), ~over
        if plays.any():
            slots = self._slots(plays)
            rewards[slots], told[:, slots] = self.player.play(np.asarray(actions, dtype=np.float64), plays)

        ends = simulation.is_over
        ended = self._slots(ends)
        terminations, truncations = ended & simulation.terminates, ended & (not simulation.terminates)
        seen, infos = self.player.see(), {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ends.any():
            infos = self._final(seen, told, ended)
            self._begin(ends)
            seen = self.player.see()
            told[:, ended] = 0.0
        return seen, rewards, terminations, truncations, infos | self._infos(told, np.ones_like(ended))

    def render(self) -> tuple[Any, ...] | None:
        """Each row as it is now, as a table or as a picture."""
        if self.render_mode is None:
            return None
        return tuple(self.simulation.row(i).picture(self.render_mode) for i in range(self.simulation.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What each environment answers when this method is called, or this attribute read, as in Gymnasium's vectors.

        All are one batch, so each answers what the vector itself does; only pictures and spaces are its own.

        Raises:
            PeergridError: The method would change all of them at once, as often as there are environments.
        """
        if name in ("reset", "step", "close"):
            raise PeergridError(f"call {name}() itself: it is for all environments")
        if name == "render":
            pictures = self.render() or (None,) * self.simulation.num_envs
            return tuple(picture for picture in pictures for _ in range(self.player.slots_per_row))
        single = {"observation_space": self.single_observation_space, "action_space": self.single_action_space}
        found = single[name] if name in single else getattr(self, name)
        return (found(*args, **kwargs) if callable(found) else found,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute of each environment."""
        return self.call(name)

    def _begin(
        self, rows: Bool[np.ndarray, " batch"], seed: int | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self.simulation.reset(seed, options, rows)
        self.player.begin(rows)

    def _marked_rows(self, options: dict[str, Any] | None) -> Bool[np.ndarray, " batch"]:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise PeergridError(f"options['reset_mask'] is no array of {self.num_envs} booleans, one of them True")
        slots = mask.reshape(-1, self.player.slots_per_row)
        if (slots.any(axis=1) != slots.all(axis=1)).any():
            raise PeergridError("options['reset_mask'] parts the microgrids of a row, which begin together")
        return slots[:, 0]

    def _slots(self, rows: Bool[np.ndarray, " batch"]) -> Bool[np.ndarray, " slot"]:
        return np.repeat(rows, self.player.slots_per_row)

    def _nothing(self) -> Float[np.ndarray, "name slot"]:
        return np.zeros((len(self.player.info_names), self.num_envs))

    def _infos(self, told: Float[np.ndarray, "name slot"], slots: Bool[np.ndarray, " slot"]) -> dict[str, Any]:
        """The infos as Gymnasium's vectors have them: under every name an array, and a mask of where it counts."""
        names = self.player.info_names
        masks = np.tile(slots, (len(names), 1))
        values: dict[str, Any] = dict(zip(names, told.copy(), strict=True))
        return values | {f"_{name}": mask for name, mask in zip(names, masks, strict=True)}

    def _final(
        self, seen: np.ndarray, told: Float[np.ndarray, "name slot"], slots: Bool[np.ndarray, " slot"]
    ) -> dict[str, Any]:
        """What was seen and told at the end of the episodes that are over, where Gymnasium looks for it."""
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(slots):
            observations[i] = seen[i]
        last = self._infos(np.where(slots, told, 0.0), slots)
        return {"final_obs": observations, "_final_obs": slots, "final_info": last, "_final_info": slots.copy()}
