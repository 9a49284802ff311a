"""Gymnasium's vector environments: a player's view of a batch of markets that are stepped together."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float

from peergrid.envs.actions import check_actions, check_render_mode
from peergrid.envs.entries import Entry, box
from peergrid.envs.p2p_trading.env import picture
from peergrid.envs.p2p_trading.gymnasium import METADATA
from peergrid.envs.p2p_trading.infos import measure, nothing_yet
from peergrid.envs.p2p_trading.players import Central, Player, Shared, Solo
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.policy import Policy
from peergrid.grid.errors import PeergridError


class TradingVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A batch of markets, one DSO call per step for all of them, as one player sees it.

    Each row of the batch is the environment that its single form is: row i of a seeded reset draws with seed + i. A
    player with a slot for each microgrid makes an environment of each slot. Infos are arrays under the names of the
    single form's, each with its mask.
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
        self.metadata = {**METADATA, "autoreset_mode": self.autoreset_mode}
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
        return self.player.see(), self._infos(self._nothing(), rows)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play one interval in every row.

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
        rewards, measured, plays = np.zeros(self.num_envs), self._nothing(), ~over
        if plays.any():
            _, outcome = simulation.step(self.player.act(np.asarray(actions, dtype=np.float64)), plays)
            rewards[self._slots(plays)] = self.player.pay(outcome)
            measured[:, plays] = measure(outcome, simulation.params)

        ends, terminates = simulation.is_over, simulation.params.terminates
        terminations, truncations = self._slots(ends & terminates), self._slots(ends & (not terminates))
        seen, infos = self.player.see(), {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ends.any():
            infos = self._final(seen, measured, ends)
            self._begin(ends)
            seen = self.player.see()
            measured[:, ends] = 0.0
        return seen, rewards, terminations, truncations, infos | self._infos(measured, np.ones_like(ends))

    def render(self) -> tuple[Any, ...] | None:
        """The last interval of each row, as a table or as a picture."""
        if self.render_mode is None:
            return None
        return tuple(picture(self.simulation.row(i), self.render_mode) for i in range(self.simulation.num_envs))

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

    def _nothing(self) -> Float[np.ndarray, "info batch agent"]:
        return nothing_yet(self.simulation.num_envs, self.simulation.n_agent)

    def _infos(
        self, measured: Float[np.ndarray, "info batch agent"], rows: Bool[np.ndarray, " batch"]
    ) -> dict[str, Any]:
        """The infos as Gymnasium's vectors have them: under every name an array, and a mask of where it counts."""
        names = self.player.info_names
        masks = np.tile(self._slots(rows), (len(names), 1))
        told = dict(zip(names, self.player.tell(measured), strict=True))
        return told | {f"_{name}": mask for name, mask in zip(names, masks, strict=True)}

    def _final(
        self, seen: np.ndarray, measured: Float[np.ndarray, "info batch agent"], ends: Bool[np.ndarray, " batch"]
    ) -> dict[str, Any]:
        """What was seen and told at the end of the episodes that are over, where Gymnasium looks for it."""
        slots = self._slots(ends)
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(slots):
            observations[i] = seen[i]
        told = self._infos(np.where(ends[:, None], measured, 0.0), ends)
        return {"final_obs": observations, "_final_obs": slots, "final_info": told, "_final_info": slots.copy()}


def central_trading(
    num_envs: int = 1,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> TradingVector:
    """`CentralTrading` in a batch; arguments are those of `Simulation`."""
    return TradingVector(Central(Simulation(num_envs=num_envs, **arguments)), autoreset_mode, render_mode)


def solo_trading(
    num_envs: int = 1,
    *,
    learner: str = "microgrid_0",
    others: str | Policy = "truthful",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> TradingVector:
    """`SoloTrading` in a batch; arguments are those of `Simulation`, and who plays the others."""
    player = Solo(Simulation(num_envs=num_envs, **arguments), learner, others)
    return TradingVector(player, autoreset_mode, render_mode)


def shared_trading(
    num_envs: int = 1,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> TradingVector:
    """A batch of `num_envs` markets in which every microgrid is an environment: one policy is to act for all."""
    return TradingVector(Shared(Simulation(num_envs=num_envs, **arguments)), autoreset_mode, render_mode)
