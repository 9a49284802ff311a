"""Gymnasium's view of the transactive loop: the DSO learns while the agents follow a fixed policy."""

from __future__ import annotations

from typing import Any, ClassVar

from peergrid.envs.common.player import PlayerEnv
from peergrid.envs.common.policy import BatchPolicy
from peergrid.envs.transactive.players import PricingDso
from peergrid.envs.transactive.simulation import Transactive


class DsoPricing(PlayerEnv):
    """The DSO sets the signal at the substation; the agents answer at once, by a fixed policy.

    Each step is one transactive iteration: the action in `Box(-1, 1, (1,))` puts the root signal between its bounds,
    0 being the price from which it starts, the agents answer, and the hour closes as in `transactive_v0`: also where
    the signal is left as it was. The reward is, negatively, what the gap that is left costs beyond its energy, in
    currency, in every iteration: so it pays to close an hour soon. Observations are those of the DSO in
    `transactive_v0`, infos those of the network.
    """

    metadata: ClassVar[dict[str, Any]] = Transactive.metadata  # type: ignore[misc]

    def __init__(
        self, agents: str | BatchPolicy = "optimising", *, render_mode: str | None = None, **arguments: Any
    ) -> None:
        """
        Args:
            agents: How agents answer: "optimising", "myopic", "scheduled", a `BatchPolicy`, or "module:attribute".
            **arguments: Those of `Transactive`.
        """
        super().__init__(PricingDso(Transactive(**arguments), agents), render_mode)
