"""Who learns? One controller for all, one microgrid among fixed policies, or every microgrid by one shared policy.

A player has one slot in each row of the batch, or one for each microgrid of each row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import copy, deepcopy

import numpy as np
from jaxtyping import Bool, Float, Float32

from peergrid.envs.common.player import Player
from peergrid.envs.common.policy import BatchPolicy, Policy, named_policy
from peergrid.envs.common.registered import POLICIES
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.infos import infos_of, measure
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import Outcome
from peergrid.grid.errors import UnknownName


class Trader(Player):
    """What the players of the P2P market share: from their slots' actions to a step of the market.

    Abstract: `act`, `pay` and `tell` are what differs.
    """

    simulation: Simulation

    def play(
        self, actions: Float[np.ndarray, "slot number"], rows: Bool[np.ndarray, " batch"]
    ) -> tuple[Float[np.ndarray, " played"], Float[np.ndarray, "name played"]]:
        _, outcome = self.simulation.step(self.act(actions), rows)
        return self.pay(outcome), self.tell(measure(outcome, self.simulation.params))

    @abstractmethod
    def act(self, actions: Float[np.ndarray, "slot number"]) -> Float[np.ndarray, "batch agent each"]:
        """What all microgrids do when each slot does this."""

    @abstractmethod
    def pay(self, outcome: Outcome) -> Float[np.ndarray, " slot"]:
        """What the interval was worth to each slot of the rows that played, in currency."""

    @abstractmethod
    def tell(self, measured: Float[np.ndarray, "info batch agent"]) -> Float[np.ndarray, "name slot"]:
        """The infos of each slot, in the order of `info_names`."""


class Central(Trader):
    """One controller acts for all microgrids, agent after agent, and is paid the common reward, or the welfare."""

    def __init__(self, simulation: Simulation, *, is_paid_welfare: bool = False) -> None:
        """
        Args:
            is_paid_welfare: The welfare as it is, also where the scenario's rewards count from no trade.
        """
        self.is_paid_welfare = is_paid_welfare
        self.simulation = simulation
        self.slots_per_row = 1
        self.entries = simulation.state_entries[: simulation.n_agent * len(simulation.entries)]
        self.n_numbers = simulation.params.n_actions * simulation.n_agent
        told = infos_of(simulation.params)
        self.info_names = tuple(f"{agent}/{name}" for agent in simulation.agents for name in told)

    def see(self) -> Float32[np.ndarray, "slot entry"]:
        seen = self.simulation.seen
        return seen.reshape(len(seen), -1).copy()

    def act(self, actions: Float[np.ndarray, "slot number"]) -> Float[np.ndarray, "batch agent each"]:
        return actions.reshape(len(actions), self.simulation.n_agent, -1)

    def pay(self, outcome: Outcome) -> Float[np.ndarray, " slot"]:
        return outcome.welfare if self.is_paid_welfare else outcome.common_reward

    def tell(self, measured: Float[np.ndarray, "info batch agent"]) -> Float[np.ndarray, "name slot"]:
        return measured.transpose(2, 0, 1).reshape(len(self.info_names), -1)


class Shared(Trader):
    """Every microgrid is a slot, row after row: one policy learns from, and acts for, all of them."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.slots_per_row = simulation.n_agent
        self.entries, self.n_numbers = simulation.entries, simulation.params.n_actions
        self.info_names = tuple(infos_of(simulation.params))

    def see(self) -> Float32[np.ndarray, "slot entry"]:
        return self.simulation.seen.reshape(-1, len(self.entries)).copy()

    def act(self, actions: Float[np.ndarray, "slot number"]) -> Float[np.ndarray, "batch agent each"]:
        return actions.reshape(-1, self.simulation.n_agent, self.n_numbers)

    def pay(self, outcome: Outcome) -> Float[np.ndarray, " slot"]:
        return outcome.reward.ravel()

    def tell(self, measured: Float[np.ndarray, "info batch agent"]) -> Float[np.ndarray, "name slot"]:
        return measured.reshape(len(self.info_names), -1)


class Solo(Trader):
    """One microgrid learns while a fixed policy plays the others."""

    def __init__(self, simulation: Simulation, learner: str = "microgrid_0", others: str | Policy = "truthful") -> None:
        """
        Args:
            learner: The agent that acts.
            others: Who plays the rest: "truthful", "no_trade", "random", a policy, or "module:attribute". One that is
                no `BatchPolicy` is copied for each row, and asked row by row, which is slower.
        """
        if learner not in simulation.agents:
            raise UnknownName("agent", learner, simulation.agents)
        self.simulation = simulation
        self.slots_per_row = 1
        self.entries, self.n_numbers = simulation.entries, simulation.params.n_actions
        self.info_names = tuple(infos_of(simulation.params))
        self.place = simulation.agents.index(learner)
        policy = named_policy(others, POLICIES)
        self.others: BatchPolicy = policy if isinstance(policy, BatchPolicy) else RowByRow(policy, simulation)

    def begin(self, rows: Bool[np.ndarray, " batch"]) -> None:
        self.others.begin_rows(self.simulation, rows)

    def see(self) -> Float32[np.ndarray, "slot entry"]:
        return self.simulation.seen[:, self.place].copy()

    def act(self, actions: Float[np.ndarray, "slot number"]) -> Float[np.ndarray, "batch agent each"]:
        everybody = np.array(self.others.act_rows(self.simulation, self.simulation.seen), dtype=np.float64)
        everybody[:, self.place] = actions
        return everybody

    def pay(self, outcome: Outcome) -> Float[np.ndarray, " slot"]:
        return outcome.reward[:, self.place]

    def tell(self, measured: Float[np.ndarray, "info batch agent"]) -> Float[np.ndarray, "name slot"]:
        return measured[:, :, self.place].copy()


PLAYERS: dict[str, Callable[[Simulation], Trader]] = {"shared": Shared, "central": Central, "solo": Solo}


def player_of(name: str, simulation: Simulation) -> Trader:
    """Who acts in a simulation: one policy for each microgrid, for all at once, or for the first."""
    if name not in PLAYERS:
        raise UnknownName("player", name, PLAYERS)
    return PLAYERS[name](simulation)


class RowByRow:
    """Lets a policy that knows dictionaries alone play a batch: itself the first row, copies of it the others.

    Each sees its row as an environment of its own.
    """

    def __init__(self, policy: Policy, simulation: Simulation) -> None:
        self.policies = [policy, *(deepcopy(policy) for _ in range(1, simulation.num_envs))]
        market = P2PTrading(
            simulation.scenario,
            predictor=simulation.predictor,
            mechanism=simulation.params.mechanism,
            dso=simulation.params.dso,
            profiles=simulation.profiles,
            predicted_intervals=simulation.params.predicted_intervals,
        )
        market.agents = list(market.possible_agents)
        self.markets = [copy(market) for _ in self.policies]

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        for i in np.flatnonzero(rows).tolist():
            self.markets[i].simulation = simulation.row(i)
            self.policies[i].begin(self.markets[i])

    def act_rows(
        self, simulation: Simulation, seen: Float32[np.ndarray, "batch agent entry"]
    ) -> Float[np.ndarray, "batch agent number"]:
        actions = []
        for i, (policy, market) in enumerate(zip(self.policies, self.markets, strict=True)):
            market.simulation = simulation.row(i)
            chosen = policy.act(dict(zip(market.agents, seen[i].copy(), strict=True)))
            actions.append(market.stacked(chosen))
        return np.concatenate(actions)
