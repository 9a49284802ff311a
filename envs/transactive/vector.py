"""Gymnasium's vector environment of the DSO's role: a batch of days that are stepped together."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float

from peergrid.envs.actions import check_actions, check_render_mode
from peergrid.envs.entries import Entry, box
from peergrid.envs.policy import BatchPolicy
from peergrid.envs.transactive.env import picture
from peergrid.envs.transactive.gymnasium import METADATA, play
from peergrid.envs.transactive.infos import NETWORK_INFOS, measure
from peergrid.envs.transactive.players import agents_policy
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid.errors import PeergridError


class DsoPricingVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`DsoPricing` in a batch, one power flow per step for all rows; row i of a seeded reset draws with seed + i."""

    def __init__(
        self,
        simulation: Transactive,
        agents: str | BatchPolicy = "optimising",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            agents: How agents answer: "optimising", "myopic", "scheduled", a `BatchPolicy`, or "module:attribute".
            autoreset_mode: When rows begin anew: NEXT_STEP in the step after the last, whose action is not looked at;
                SAME_STEP in the last step itself, with what was seen at the end in `infos["final_obs"]`; DISABLED by
                `reset(options={"reset_mask": ...})` alone.
            render_mode: "ansi" or "rgb_array": a table or a picture of each row.
        """
        check_render_mode(render_mode)
        self.simulation, self.agents = simulation, agents_policy(agents)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**METADATA, "autoreset_mode": self.autoreset_mode}
        self.render_mode, self.num_envs = render_mode, simulation.num_envs
        self.single_observation_space = box(simulation.dso_entries)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of one environment's observation."""
        return self.simulation.dso_entries

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a day everywhere, or in the environments that `options["reset_mask"]` marks.

        Args:
            seed: Row i draws with seed + i; None goes on with the generators as they are.
            options: `{"evaluation_day": k}` plays held-out day k in row 0, k + 1 in row 1 and so on.
        """
        super().reset(seed=seed)
        rows = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        if not isinstance(rows, np.ndarray) or rows.dtype != bool or rows.shape != (self.num_envs,) or not rows.any():
            raise PeergridError(f"options['reset_mask'] is no array of {self.num_envs} booleans, one of them True")
        self._begin(rows, seed, options)
        return self._seen(), _infos(np.zeros((len(NETWORK_INFOS), self.num_envs)), rows)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One transactive iteration in every row.

        Raises:
            InvalidAction: Wrong shape, or NaN.
            PeergridError: No episode has begun, or one is over that nobody reset.
        """
        self.simulation.running()
        check_actions(actions, (self.num_envs, 1), "row, number")
        over = self.simulation.is_over
        if over.any():
            if self.autoreset_mode is not AutoresetMode.NEXT_STEP:
                raise PeergridError(f"the episode is over in rows {np.flatnonzero(over).tolist()}: call reset() first")
            self._begin(over)
        rewards, measured, plays = np.zeros(self.num_envs), np.zeros((len(NETWORK_INFOS), self.num_envs)), ~over
        if plays.any():
            outcome = play(self.simulation, self.agents, np.asarray(actions, dtype=np.float64)[:, 0], plays)
            rewards[plays] = outcome.dso_reward
            measured[:, plays] = measure(outcome, self.simulation.params)[1]
        ends = self.simulation.is_over
        seen, infos = self._seen(), {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ends.any():
            infos = _final(seen, measured, ends)
            self._begin(ends)
            seen = self._seen()
            measured[:, ends] = 0.0
        return seen, rewards, np.zeros_like(ends), ends, infos | _infos(measured, np.ones_like(ends))

    def render(self) -> tuple[Any, ...] | None:
        """The last iteration of each row, as a table or as a picture."""
        if self.render_mode is None:
            return None
        return tuple(picture(self.simulation.row(i), self.render_mode) for i in range(self.num_envs))

    def _begin(
        self, rows: Bool[np.ndarray, " batch"], seed: int | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self.simulation.reset(seed, options, rows)
        self.agents.begin_rows(self.simulation, rows)

    def _seen(self) -> np.ndarray:
        return self.simulation.seen_by_dso.copy()


def _infos(measured: Float[np.ndarray, "info batch"], rows: Bool[np.ndarray, " batch"]) -> dict[str, Any]:
    """The infos as Gymnasium's vectors have them: under every name an array, and a mask of where it counts."""
    told: dict[str, Any] = dict(zip(NETWORK_INFOS, measured.copy(), strict=True))
    return told | {f"_{name}": rows.copy() for name in NETWORK_INFOS}


def _final(
    seen: np.ndarray, measured: Float[np.ndarray, "info batch"], ends: Bool[np.ndarray, " batch"]
) -> dict[str, Any]:
    """What was seen and told at the end of the episodes that are over, where Gymnasium looks for it."""
    observations = np.full(len(seen), None, dtype=object)
    for i in np.flatnonzero(ends):
        observations[i] = seen[i]
    told = _infos(np.where(ends, measured, 0.0), ends)
    return {"final_obs": observations, "_final_obs": ends.copy(), "final_info": told, "_final_info": ends.copy()}


def dso_pricing(
    num_envs: int = 1,
    *,
    agents: str | BatchPolicy = "optimising",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> DsoPricingVector:
    """`DsoPricing` in a batch; arguments are those of `Transactive`."""
    return DsoPricingVector(Transactive(num_envs=num_envs, **arguments), agents, autoreset_mode, render_mode)
