"""Who learns? The DSO, while the agents answer by a fixed policy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32

from peergrid.envs.common.player import Player
from peergrid.envs.common.policy import BatchPolicy, named_policy
from peergrid.envs.common.registered import TRANSACTIVE_POLICIES
from peergrid.envs.transactive.infos import NETWORK_INFOS, measure
from peergrid.envs.transactive.simulation import Transactive


class PricingDso(Player):
    """The DSO announces the signal at the substation of every row, and the agents answer."""

    def __init__(self, simulation: Transactive, agents: str | BatchPolicy = "optimising") -> None:
        """
        Args:
            agents: How agents answer: "optimising", "myopic", "scheduled", a `BatchPolicy`, or "module:attribute".
        """
        self.simulation: Transactive = simulation
        self.slots_per_row, self.n_numbers = 1, 1
        self.entries, self.info_names = simulation.dso_entries, tuple(NETWORK_INFOS)
        self.agents: BatchPolicy = named_policy(agents, TRANSACTIVE_POLICIES)

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
