"""TorchRL's view of a batch of markets: one call steps them all, and the microgrids are one group.

check_env_specs(TradingEnv(num_envs=32, scenario="ieee33"))
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from peergrid.baselines.adapters import needs
from peergrid.envs.common.entries import Entry, box
from peergrid.envs.p2p_trading.infos import INFOS, measure
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import UnknownName

with needs("TorchRL", "marl"):
    import torch
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import Bounded, Categorical, Composite, Unbounded
    from torchrl.envs import EnvBase

GROUP = "microgrid"


class TradingEnv(EnvBase):
    """`num_envs` markets as one batched environment, in each of which all microgrids act.

    | key | shape | meaning |
    |---|---|---|
    | `("microgrid", "observation")` | batch, agent, entry | as `describe_observation` says |
    | `("microgrid", "action")` | batch, agent, 4 | as in `P2PTrading`, between -1 and 1 |
    | `("microgrid", "reward")` | batch, agent, 1 | each one's own, in currency |
    | `("microgrid", "info", name)` | batch, agent, 1 | as INFOS says; zero before the first interval |
    | `"state"` | batch, entry | the global view for centralised critics |
    | `"done"`, `"terminated"`, `"truncated"` | batch, 1 | an episode terminates, unless its scenario truncates it |

    Numbers are float32. Markets marked by `_reset` alone begin anew; `reset(evaluation_day=k)` plays held-out day k in
    row 0, k + 1 in row 1 and so on.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        seed: int | None = None,
        infos: Sequence[str] = tuple(INFOS),
        device: torch.device | str = "cpu",
        **arguments: Any,
    ) -> None:
        """
        Args:
            seed: Row i draws with seed + i, from the next reset on; None draws at random.
            infos: The infos that are told: each takes its time in every step.
            device: Where tensors are; the market itself runs on the CPU.
            arguments: Those of `Simulation`.
        """
        super().__init__(device=torch.device(device), batch_size=[num_envs])
        unknown = [name for name in infos if name not in INFOS]
        if unknown:
            raise UnknownName("info", unknown[0], INFOS)
        self.simulation = Simulation(num_envs=num_envs, **arguments)
        self.group_map = {GROUP: self.simulation.agents}
        self.seconds = 0.0  # spent in markets so far
        self._infos = tuple(infos)
        self._places = [list(INFOS).index(name) for name in infos]
        self._told = np.zeros((len(infos), num_envs, self.simulation.n_agent), dtype=np.float32)
        self._seed = seed
        self._make_specs()

    def describe_observation(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of a microgrid's observation."""
        return self.simulation.entries

    def _make_specs(self) -> None:
        n_row, n_agent = self.batch_size[0], self.simulation.n_agent

        def bounded(entries: Sequence[Entry], *shape: int) -> Bounded:
            low, high = (torch.from_numpy(bound).expand(*shape, -1) for bound in (box(entries).low, box(entries).high))
            return Bounded(low, high, shape=low.shape, dtype=torch.float32, device=self.device)

        def of_group(**specs: Any) -> Composite:
            return Composite({GROUP: Composite(specs, shape=(n_row, n_agent))}, shape=(n_row,), device=self.device)

        per_agent = (n_row, n_agent, 1)
        seen: dict[str, Any] = {"observation": bounded(self.simulation.entries, n_row, n_agent)}
        if self._infos:
            told = {name: Unbounded(per_agent, dtype=torch.float32) for name in self._infos}
            seen["info"] = Composite(told, shape=(n_row, n_agent))
        self.observation_spec = of_group(**seen)
        self.observation_spec["state"] = bounded(self.simulation.state_entries, n_row)
        n_numbers = self.simulation.params.n_actions
        self.action_spec = of_group(action=Bounded(-1.0, 1.0, (n_row, n_agent, n_numbers), dtype=torch.float32))
        self.reward_spec = of_group(reward=Unbounded(per_agent, dtype=torch.float32))
        flags = {
            name: Categorical(2, shape=(n_row, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")
        }
        self.done_spec = Composite(flags, shape=(n_row,), device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        self._seed = seed

    def _reset(self, tensordict: TensorDictBase | None = None, *, evaluation_day: int | None = None) -> TensorDict:
        start = time.perf_counter()
        rows = self._marked(tensordict, "_reset")
        options = {} if evaluation_day is None else {"evaluation_day": evaluation_day}
        seed, self._seed = self._seed, None
        self.simulation.reset(seed, options, rows)
        self._told[:, rows] = 0.0
        self.seconds += time.perf_counter() - start
        return self._seen()

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        start = time.perf_counter()
        rows = self._marked(tensordict, "_step")
        _, outcome = self.simulation.step(tensordict[GROUP, "action"].numpy(force=True), rows)
        if self._infos:
            self._told[:, rows] = measure(outcome, self.simulation.params)[self._places]
        reward = np.zeros((*self.batch_size, self.simulation.n_agent, 1), dtype=np.float32)
        reward[rows, :, 0] = outcome.reward
        self.seconds += time.perf_counter() - start
        return self._seen().set((GROUP, "reward"), torch.from_numpy(reward))

    def _marked(self, tensordict: TensorDictBase | None, key: str) -> Bool[np.ndarray, " batch"]:
        """The rows that are asked for under a key: all where there is none."""
        mask = None if tensordict is None else tensordict.get(key, None)
        if mask is None:
            return np.ones(self.batch_size[0], dtype=bool)
        return mask.numpy(force=True).reshape(self.batch_size[0])

    def _seen(self) -> TensorDict:
        """What every row shows now."""
        simulation, shape = self.simulation, self.batch_size
        over, ends_itself = simulation.is_over[:, None], simulation.params.terminates
        group: dict[str, Any] = {"observation": simulation.seen.copy()}
        if self._infos:
            group["info"] = dict(zip(self._infos, self._told[..., None].copy(), strict=True))
        seen = {
            GROUP: TensorDict(group, batch_size=(*shape, simulation.n_agent)),
            "state": simulation.global_state(),
            "done": over,
            "terminated": over & ends_itself,
            "truncated": over & (not ends_itself),
        }
        return TensorDict(seen, batch_size=shape, device=self.device)
