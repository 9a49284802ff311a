"""Who learns? The DSO, while the agents answer by a fixed policy."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from peergrid.envs.common.policy import BatchPolicy
from peergrid.envs.common.registered import TRANSACTIVE_POLICIES
from peergrid.envs.common.vector import Player
from peergrid.envs.transactive.env import METADATA, picture
from peergrid.envs.transactive.infos import NETWORK_INFOS, measure
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid.parts import resolve


class PricingDso(Player):
    """The DSO announces the signal at the substation of every row, and the agents answer."""

    metadata = METADATA

    def __init__(self, simulation: Transactive, agents: str | BatchPolicy = "optimising") -> None:
        """
        Args:
            agents: How agents answer: "optimising", "myopic", "scheduled", a `BatchPolicy`, or "module:attribute".
        """
        self.simulation: Transactive = simulation
        self.slots_per_row, self.n_numbers = 1, 1
        self.entries, self.info_names = simulation.dso_entries, tuple(NETWORK_INFOS)
        chosen = resolve(agents, "policy", TRANSACTIVE_POLICIES)
        policy: Any = chosen() if inspect.isclass(chosen) else chosen
        self.agents: BatchPolicy = policy

    def begin(self, rows: Bool[np.ndarray, " batch"]) -> None:
        self.agents.begin_rows(self.simulation, rows)

    def see(self) -> Float32[np.ndarray, "slot entry"]:
        return self.simulation.seen_by_dso.copy()

    def play(
        self, actions: Float[np.ndarray, "slot number"], rows: Bool[np.ndarray, " batch"]
    ) -> tuple[Float[np.ndarray, " played"], Float[np.ndarray, "name played"]]:
        signals = actions[:, 0].clip(-1.0, 1.0)
        self.simulation.announce(signals, rows)
        answers = self.agents.act_rows(self.simulation, self.simulation.seen)
        _, outcome = self.simulation.step(answers, rows, dso_actions=signals)
        return outcome.dso_reward, measure(outcome, self.simulation.params)[1]

    def picture(self, row: int, render_mode: str) -> Any:
        return picture(self.simulation.row(row), render_mode)
