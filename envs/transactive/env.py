"""PettingZoo's view of the simulation: spaces, seeding, the five dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from peergrid.envs.common.actions import RENDER_MODES, arrays_of, check_render_mode, of_agent
from peergrid.envs.common.entries import Entry, box
from peergrid.envs.common.profiles import ProfileSource
from peergrid.envs.transactive.infos import NETWORK_INFOS, OWN_INFOS, measure, nothing_yet
from peergrid.envs.transactive.scenario import TransactiveScenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import N_ACTIONS, Outcome
from peergrid.grid.dso import Dso
from peergrid.grid.errors import PeergridError, UnknownName

DSO = "dso"
ROLES = ("agents", "both")


class TransactiveMarket(ParallelEnv[str, np.ndarray, np.ndarray]):
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
        "render_modes": list(RENDER_MODES),
        "render_fps": 4,
        "is_parallelizable": True,
    }

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
        check_render_mode(render_mode)
        if roles not in ROLES:
            raise UnknownName("role", roles, ROLES)
        self.simulation = Transactive(scenario, dso=dso, profiles=profiles, max_cycles=max_cycles)
        self.roles, self.render_mode, self.max_cycles = roles, render_mode, max_cycles
        self.possible_agents = self.simulation.agents + [DSO] * (roles == "both")
        self.agents: list[str] = []
        self._entries = dict.fromkeys(self.simulation.agents, self.simulation.entries)
        self._n_numbers = dict.fromkeys(self.simulation.agents, N_ACTIONS)
        if roles == "both":
            self._entries[DSO], self._n_numbers[DSO] = self.simulation.dso_entries, 1
        self.observation_spaces = {a: box(e) for a, e in self._entries.items()}
        self.action_spaces = {a: spaces.Box(-1.0, 1.0, (n,), np.float32) for a, n in self._n_numbers.items()}
        self.state_space = box(self.simulation.state_entries)

    @property
    def last_outcome(self) -> Outcome | None:
        """What happened in the last iteration; None before the first."""
        return self.simulation.outcome

    def observation_space(self, agent: str) -> spaces.Box:
        """The same `Box` at every call."""
        return of_agent(self.observation_spaces, agent)

    def action_space(self, agent: str) -> spaces.Box:
        """The same `Box` at every call."""
        return of_agent(self.action_spaces, agent)

    def describe_observation(self, agent: str) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of an agent's observation."""
        return of_agent(self._entries, agent)

    def describe_state(self) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of `state()`."""
        return self.simulation.state_entries

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
        """Begin a day and return observations and (zero) infos.

        Args:
            options: `{"evaluation_day": k}` plays held-out day k.
        """
        self.simulation.reset(seed, options)
        self.agents = list(self.possible_agents)
        return self._observations(), self._infos(*nothing_yet(1, self.simulation.n_agent))

    def step(
        self, actions: Mapping[str, np.ndarray]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, float]],
    ]:
        """One transactive iteration.

        Raises:
            InvalidAction: An agent without action, an unknown agent, a wrong shape, or NaN.
            PeergridError: The episode is over, or has not begun.
        """
        if not self.agents:
            raise PeergridError("no episode runs: call reset() before step()")
        given = arrays_of(actions, self._n_numbers)
        of_dso = given.pop(DSO).clip(-1.0, 1.0) if DSO in given else None
        _, outcome = self.simulation.step(np.stack([list(given.values())]), dso_actions=of_dso)
        ended, agents = bool(self.simulation.is_over[0]), self.agents
        paid = [*outcome.reward[0].tolist(), *outcome.dso_reward.tolist()]
        rewards = dict(zip(agents, paid[: len(agents)], strict=True))
        observations, infos = self._observations(), self._infos(*measure(outcome, self.simulation.params))
        if ended:
            self.agents = []
        return observations, rewards, dict.fromkeys(agents, False), dict.fromkeys(agents, ended), infos

    def state(self) -> np.ndarray:
        """The global view for centralised critics, entry by entry as `describe_state` says."""
        return self.simulation.global_state()[0]

    def render(self) -> str | np.ndarray | None:
        """The last iteration as a table ("ansi") or as a picture ("rgb_array")."""
        return picture(self.simulation, self.render_mode)

    def close(self) -> None:
        """Nothing is held open."""

    def _observations(self) -> dict[str, np.ndarray]:
        seen = [*self.simulation.seen[0].copy(), *self.simulation.seen_by_dso.copy()]
        return dict(zip(self.agents, seen[: len(self.agents)], strict=True))

    def _infos(self, own: np.ndarray, network: np.ndarray) -> dict[str, dict[str, float]]:
        common = dict(zip(NETWORK_INFOS, network[:, 0].tolist(), strict=True))
        each = [dict(zip(OWN_INFOS, column, strict=True)) for column in own[:, 0].T.tolist()]
        # What concerns an agent alone is zero for the DSO, so that all infos have the same names.
        each.append(dict.fromkeys(OWN_INFOS, 0.0))
        return {agent: told | common for agent, told in zip(self.agents, each[: len(self.agents)], strict=True)}


METADATA: dict[str, Any] = {name: TransactiveMarket.metadata[name] for name in ("render_modes", "render_fps")}


def picture(simulation: Transactive, render_mode: str | None) -> str | np.ndarray | None:
    """The last iteration of a simulation of one row, as a table or as a picture."""
    if render_mode is None:
        return None
    from peergrid.envs.transactive import viewer  # matplotlib is slow to import, and few runs draw

    draw = viewer.draw_ansi if render_mode == "ansi" else viewer.draw_rgb
    state, days = simulation.running()
    return draw(simulation.params, state, days, simulation.outcome)
