"""Gymnasium's vector environments of the P2P market: what each player sees of a batch of markets."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from peergrid.envs.common.policy import Policy
from peergrid.envs.common.vector import PlayerVector
from peergrid.envs.p2p_trading.players import Central, Shared, Solo
from peergrid.envs.p2p_trading.simulation import Simulation


def central_trading(
    num_envs: int = 1,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> PlayerVector:
    """`CentralTrading` in a batch; arguments are those of `Simulation`."""
    return PlayerVector(Central(Simulation(num_envs=num_envs, **arguments)), autoreset_mode, render_mode)


def solo_trading(
    num_envs: int = 1,
    *,
    learner: str = "microgrid_0",
    others: str | Policy = "truthful",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> PlayerVector:
    """`SoloTrading` in a batch; arguments are those of `Simulation`, and who plays the others."""
    player = Solo(Simulation(num_envs=num_envs, **arguments), learner, others)
    return PlayerVector(player, autoreset_mode, render_mode)


def shared_trading(
    num_envs: int = 1,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> PlayerVector:
    """A batch of `num_envs` markets in which every microgrid is an environment: one policy is to act for all."""
    return PlayerVector(Shared(Simulation(num_envs=num_envs, **arguments)), autoreset_mode, render_mode)
