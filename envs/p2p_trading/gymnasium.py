"""Gymnasium's views of the P2P market: one controller for all microgrids, or one learner among fixed policies."""

from __future__ import annotations

from typing import Any, ClassVar

from peergrid.envs.common.player import PlayerEnv
from peergrid.envs.common.policy import Policy
from peergrid.envs.p2p_trading.players import Central, Solo
from peergrid.envs.p2p_trading.simulation import Simulation


class CentralTrading(PlayerEnv):
    """One controller acts for all microgrids and is paid the welfare of the interval, in currency.

    Observation and action are those of `p2p_trading_v0`, agent after agent in one flat `Box`. Arguments are those of
    `p2p_trading_v0.parallel_env`.
    """

    metadata: ClassVar[dict[str, Any]] = Simulation.metadata  # type: ignore[misc]

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        super().__init__(Central(Simulation(**arguments), is_paid_welfare=True), render_mode)


class SoloTrading(PlayerEnv):
    """One microgrid learns while a fixed policy plays the others.

    Spaces, rewards and infos are those of the learner in `p2p_trading_v0`.
    """

    metadata: ClassVar[dict[str, Any]] = Simulation.metadata  # type: ignore[misc]

    def __init__(
        self,
        learner: str = "microgrid_0",
        others: str | Policy = "truthful",
        *,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        """
        Args:
            learner: The agent that acts by `step`.
            others: Who plays the rest: "truthful", "no_trade", "random", a `Policy`, or "module:attribute".
            **arguments: Those of `p2p_trading_v0.parallel_env`.
        """
        super().__init__(Solo(Simulation(**arguments), learner, others), render_mode)
