"""PettingZoo's view of the transactive loop."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from peergrid.envs.common.env import Infos, MarketEnv
from peergrid.envs.common.profiles import ProfileSource
from peergrid.envs.transactive.infos import NETWORK_INFOS, OWN_INFOS, measure, nothing_yet
from peergrid.envs.transactive.scenario import TransactiveScenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import N_ACTIONS, Outcome
from peergrid.grid.dso import Dso
from peergrid.grid.errors import UnknownName

DSO = "dso"
ROLES = ("agents", "both")


class TransactiveMarket(MarketEnv):
    """Agents on a distribution feeder answer price signals; the DSO moves them until the day-ahead schedule is met.

    ## Description
    The day before, agents planned on forecasts and day-ahead signals, which fixed the exchange with the transmission
    system, P_Sch. Now sun and loads differ. Each step is one transactive iteration of the hour that is open: agents
    answer the signal at their bus with what their resources do, the DSO solves the power flow, signals follow from its
    losses, and the DSO moves the signal at the substation to close the gap between exchange and schedule. The hour
    closes when the gap is within its threshold, when the signal stands at its bound, or after the most iterations;
    then storage moves, and what was scheduled and what differs from it are settled at both markets.

    ## Action Space
    `Box(-1, 1, (3,))` for each agent:

    | index | meaning | -1 | +1 |
    |---|---|---|---|
    | 0 | load shifting | bring forward all that may be shifted at peak | put off as much |
    | 1 | generation | none | full output |
    | 2 | storage power | charge at rating | discharge at rating |

    Set-points beyond what is possible, or from which the day could not end as it began, are clipped;
    `infos["clipped_kw"]` says by how much. With `roles="both"` the agent "dso" has `Box(-1, 1, (1,))`: the signal at
    the substation that agents will answer in the next iteration of the hour, from one bound (-1) over the price from
    which it started (0) to the other (+1). It acts while they do, so that it hears their answer an iteration later. An
    hour opens at the day-ahead LMP, or at the real-time one if the scenario's `loop.signal_base` says so.

    ## Observation Space
    A flat float32 `Box` with finite bounds. `describe_observation(agent)` names each entry with its unit and range:
    time, the own signal, day-ahead signals ahead, own load, sun and its forecast, what storage and shifting may do,
    what was scheduled, and what was answered last. The DSO sees prices, the root signal, the schedule and the gap.

    ## Rewards
    When an hour closes, an agent is paid its settlement less the cost of its resources, in currency; before, nothing.
    The DSO is paid in every iteration, negatively, what the gap costs beyond its energy.

    ## Starting State
    Storage at the scenario's initial charge, a training day drawn from the profiles; with
    `reset(options={"evaluation_day": k})` held-out day k.

    ## Episode End
    Truncated when the day is over, or after `max_cycles` iterations.

    ## Arguments
    `scenario`: a name, a YAML file or a `TransactiveScenario`. `roles`: who acts, "agents" (the DSO follows the
    scenario's rule) or "both". `dso`: who solves the power flow, "interior_point", "conic", "admm", an object or
    "module:attribute"; the scenario's own if None. `profiles`: where days come from; the scenario's own if None.
    `max_cycles`: iterations of an episode at most; None is until the day ends. `render_mode`: "ansi" or "rgb_array".

    ## Version History
    * v0: initial release (0.1.0)
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "transactive_v0",
        **Transactive.metadata,
        "is_parallelizable": True,
    }

    simulation: Transactive

    def __init__(
        self,
        scenario: str | TransactiveScenario = "ieee37",
        *,
        roles: str = "agents",
        dso: str | Dso | None = None,
        profiles: str | ProfileSource | None = None,
        max_cycles: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if roles not in ROLES:
            raise UnknownName("role", roles, ROLES)
        self.simulation = Transactive(scenario, dso=dso, profiles=profiles, max_cycles=max_cycles)
        self.roles, self.max_cycles = roles, max_cycles
        agents = self.simulation.agents
        entries, n_numbers = dict.fromkeys(agents, self.simulation.entries), dict.fromkeys(agents, N_ACTIONS)
        if roles == "both":
            entries[DSO], n_numbers[DSO] = self.simulation.dso_entries, 1
        super().__init__(entries, n_numbers, render_mode)

    @property
    def last_outcome(self) -> Outcome | None:
        """What happened in the last iteration; None before the first."""
        return self.simulation.outcome

    def _play(self, given: dict[str, np.ndarray]) -> list[float]:
        of_dso = given.pop(DSO).clip(-1.0, 1.0) if DSO in given else None
        _, outcome = self.simulation.step(np.stack([list(given.values())]), dso_actions=of_dso)
        paid: list[float] = outcome.reward[0].tolist()
        return paid if of_dso is None else [*paid, *outcome.dso_reward.tolist()]

    def _seen(self) -> list[np.ndarray]:
        return [*super()._seen(), *(self.simulation.seen_by_dso if self.roles == "both" else ())]

    def _infos(self, outcome: Outcome | None) -> Infos:
        simulation = self.simulation
        own, network = measure(outcome, simulation.params) if outcome else nothing_yet(1, simulation.n_agent)
        common = dict(zip(NETWORK_INFOS, network[:, 0].tolist(), strict=True))
        told = {
            agent: dict(zip(OWN_INFOS, column, strict=True)) | common
            for agent, column in zip(simulation.agents, own[:, 0].T.tolist(), strict=True)
        }
        # What concerns an agent alone is zero for the DSO, so that all infos have the same names.
        return told | ({DSO: dict.fromkeys(OWN_INFOS, 0.0) | common} if self.roles == "both" else {})
