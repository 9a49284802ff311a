"""Gymnasium's vector environment of the DSO's role: a batch of days that are stepped together."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from peergrid.envs.common.policy import BatchPolicy
from peergrid.envs.common.vector import PlayerVector
from peergrid.envs.transactive.players import PricingDso
from peergrid.envs.transactive.simulation import Transactive


def dso_pricing(
    num_envs: int = 1,
    *,
    agents: str | BatchPolicy = "optimising",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> PlayerVector:
    """`DsoPricing` in a batch; arguments are those of `Transactive`."""
    return PlayerVector(PricingDso(Transactive(num_envs=num_envs, **arguments), agents), autoreset_mode, render_mode)
