"""BenchMARL's view of the market: a task that is handed to an experiment as it is, without registration.

Experiment(TradingTask("ieee33"), MappoConfig.get_from_yaml(), MlpConfig.get_from_yaml(), seed=0, config=...).run()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peergrid.baselines.adapters import needs
from peergrid.baselines.adapters.torchrl import GROUP, TradingEnv
from peergrid.envs.p2p_trading.scenario import Scenario, load_scenario

with needs("BenchMARL", "marl"):
    from benchmarl.environments import TaskClass
    from torchrl.data import Composite
    from torchrl.envs import EnvBase


class TradingTask(TaskClass):
    """The P2P market on a scenario: one group of microgrids, with a global state for centralised critics."""

    def __init__(self, scenario: str | Scenario = "ieee33", **arguments: Any) -> None:
        """
        Args:
            arguments: Those of `TradingEnv`: predictor, infos and so on.
        """
        chosen = load_scenario(scenario)
        super().__init__(chosen.name, {"scenario": chosen, **arguments})

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        """What makes an environment of so many markets; row i draws with seed + i."""
        return lambda: TradingEnv(num_envs, seed=seed, device=device, **self.config)

    def supports_continuous_actions(self) -> bool:
        """Actions are four numbers between -1 and 1."""
        return True

    def supports_discrete_actions(self) -> bool:
        """There are none."""
        return False

    def max_steps(self, env: EnvBase) -> int:
        """Intervals of an episode."""
        return int(env.simulation.params.intervals)

    def has_render(self, env: EnvBase) -> bool:
        """Pictures come from `P2PTrading`."""
        return False

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        """All microgrids are one group."""
        return {GROUP: env.simulation.agents}

    def observation_spec(self, env: EnvBase) -> Composite:
        """What each microgrid sees."""
        return _shown(env, "observation")

    def info_spec(self, env: EnvBase) -> Composite | None:
        """What each microgrid is told; None where nothing is."""
        return _shown(env, "info") if "info" in env.full_observation_spec_unbatched[GROUP].keys() else None  # noqa: SIM118

    def state_spec(self, env: EnvBase) -> Composite:
        """The global view."""
        return Composite({"state": env.full_observation_spec_unbatched["state"].clone()})

    def action_spec(self, env: EnvBase) -> Composite:
        """What each microgrid does."""
        return env.full_action_spec_unbatched

    def action_mask_spec(self, env: EnvBase) -> None:
        """Every action is allowed."""

    @staticmethod
    def env_name() -> str:
        """What BenchMARL files results under."""
        return "peergrid"


def _shown(env: EnvBase, key: str) -> Composite:
    """That part alone of what the group is shown."""
    group = env.full_observation_spec_unbatched[GROUP]
    return Composite({GROUP: Composite({key: group[key].clone()}, shape=group.shape)})
