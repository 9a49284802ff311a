"""PettingZoo's view of the simulation: spaces, seeding, the five dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from jaxtyping import Float
from pettingzoo import ParallelEnv

from peergrid.envs.common.actions import RENDER_MODES, arrays_of, check_render_mode, of_agent
from peergrid.envs.common.entries import Entry, box
from peergrid.envs.common.profiles import ProfileSource
from peergrid.envs.p2p_trading.infos import INFOS, measure, nothing_yet
from peergrid.envs.p2p_trading.mechanisms import Mechanism
from peergrid.envs.p2p_trading.predictors import Predictor
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import N_ACTIONS, Outcome
from peergrid.grid.dso import Dso
from peergrid.grid.errors import PeergridError


class P2PTrading(ParallelEnv[str, np.ndarray, np.ndarray]):
    """Microgrids on a distribution feeder trade energy with each other, as far as the network carries it.

    ## Description
    In every interval each microgrid sets its battery and offers energy. A mechanism clears the offers into contracts,
    each microgrid dispatches its devices and proposes an injection, and the DSO answers with an optimal power flow that
    accepts or curtails it and prices energy at every bus. Who is curtailed dispatches again. All is settled at nodal
    prices.

    ## Action Space
    `Box(-1, 1, (4,))` for each microgrid:

    | index | meaning | -1 | +1 |
    |---|---|---|---|
    | 0 | battery power | charge at rating | discharge at rating |
    | 1 | offered quantity | buy the rating | sell the rating |
    | 2 | limit price of the offer | LMP - half-spread | LMP + half-spread |
    | 3 | dispatch price: the nodal price expected (0: the one published last) | 0 | price cap |

    Set-points and quantities beyond what is physically possible are clipped; `infos["clipped_kw"]` says by how much.

    ## Observation Space
    A flat float32 `Box` with finite bounds, the same layout for every predictor. `describe_observation(agent)` names
    each entry with its unit and range: time, battery, sun, demand, own costs, day-ahead and expected prices and the
    feeder's expected load ahead, the own nodal price, transactive signal and acceptance in the last interval; for four
    proposals in this interval (full import, none, the last one, full export) what the DSO is predicted to accept and
    at which nodal price; and for every interval ahead the nodal price that is predicted without an own trade, at full
    import and at full export; each prediction with an interval.

    ## Rewards
    Utility of consumption less cost of generation, battery wear and the bill, in currency; blended with an equal
    share of the community's welfare by the scenario's `cooperation`. With `over_no_trade` both are paid less what the
    same interval gives on a day without trade.

    ## Starting State
    Batteries at the scenario's initial charge, a training day drawn from the profiles; with
    `reset(options={"evaluation_day": k})` held-out day k.

    ## Episode End
    Terminated after the scenario's intervals (24 of one hour): the day is all there is, and energy left in the
    batteries above the initial is paid. A scenario with `horizon: truncate` is truncated instead, and pays nothing.

    ## Arguments
    `scenario`: a name, a YAML file or a `Scenario`. `predictor`: "auto" (the transformer where one is shipped for the
    operator, else none), "transformer", "oracle", "none", an object or "module:attribute". `predicted_intervals`: for
    how many intervals it is asked, from the one that begins on; all if None.
    `mechanism`: "call_auction", "mid_market_rate", "bilateral", "direct" or your own; the scenario's if None. `dso`:
    who answers proposals: "opf" (also if None), "unchecked", an object, or "module:attribute" of a function from the
    scenario to one. `profiles`: where days come from; the scenario's own if None. `max_cycles`: intervals of an
    episode, the scenario's if None. `render_mode`: "ansi" or "rgb_array".

    ## Version History
    * v0: initial release (0.1.0). Before it was released, observations got what lies ahead (predicted nodal prices
      and loads of later intervals, the transactive signal), "auto" became the default predictor, days terminate, and
      the dispatch price is counted in the bent scale of prices.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "p2p_trading_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": 2,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        scenario: str | Scenario = "ieee33",
        *,
        predictor: str | Predictor = "auto",
        mechanism: str | Mechanism | None = None,
        dso: str | Dso | None = None,
        profiles: str | ProfileSource | None = None,
        max_cycles: int | None = None,
        predicted_intervals: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        self.simulation = Simulation(
            scenario,
            predictor=predictor,
            mechanism=mechanism,
            dso=dso,
            profiles=profiles,
            max_cycles=max_cycles,
            predicted_intervals=predicted_intervals,
        )
        self.max_cycles = self.simulation.params.intervals  # to read: the horizon itself is fixed in the simulation
        self.render_mode = render_mode
        self.possible_agents = self.simulation.agents
        self.agents: list[str] = []
        self.observation_spaces = {a: box(self.simulation.entries) for a in self.possible_agents}
        self.action_spaces = {a: spaces.Box(-1.0, 1.0, (N_ACTIONS,), np.float32) for a in self.possible_agents}
        self.state_space = box(self.simulation.state_entries)

    @property
    def last_outcome(self) -> Outcome | None:
        """What happened in the last interval; None before the first."""
        return self.simulation.outcome

    def observation_space(self, agent: str) -> spaces.Box:
        """The same `Box` at every call."""
        return of_agent(self.observation_spaces, agent)

    def action_space(self, agent: str) -> spaces.Box:
        """The same `Box` at every call."""
        return of_agent(self.action_spaces, agent)

    def describe_observation(self, agent: str) -> tuple[Entry, ...]:
        """Name, unit and range of every entry of an agent's observation."""
        self.observation_space(agent)
        return self.simulation.entries

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
        return self._observations(), self._infos(nothing_yet(1, self.simulation.n_agent))

    def step(
        self, actions: Mapping[str, np.ndarray]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, float]],
    ]:
        """Play one interval.

        Raises:
            InvalidAction: An agent without action, an unknown agent, a wrong shape, or NaN.
            PeergridError: The episode is over, or has not begun.
        """
        if not self.agents:
            raise PeergridError("no episode runs: call reset() before step()")
        _, outcome = self.simulation.step(self.stacked(actions))
        ended, terminates = bool(self.simulation.is_over[0]), self.simulation.params.terminates
        agents = self.agents
        rewards = dict(zip(agents, outcome.reward[0].tolist(), strict=True))
        terminations = dict.fromkeys(agents, ended and terminates)
        truncations = dict.fromkeys(agents, ended and not terminates)
        observations, infos = self._observations(), self._infos(measure(outcome, self.simulation.params))
        if ended:
            self.agents = []
        return observations, rewards, terminations, truncations, infos

    def state(self) -> np.ndarray:
        """The global view for centralised critics, entry by entry as `describe_state` says."""
        return self.simulation.global_state()[0]

    def render(self) -> str | np.ndarray | None:
        """The last interval as a table ("ansi") or as a picture of the feeder ("rgb_array")."""
        return picture(self.simulation, self.render_mode)

    def close(self) -> None:
        """Nothing is held open."""

    def stacked(self, actions: Mapping[str, np.ndarray]) -> Float[np.ndarray, "1 agent 4"]:
        """The actions of all agents as one array.

        Raises:
            InvalidAction: An agent without action, an unknown agent, a wrong shape, or NaN.
        """
        given = arrays_of(actions, dict.fromkeys(self.agents, N_ACTIONS))
        return np.stack([list(given.values())])

    def _observations(self) -> dict[str, np.ndarray]:
        return dict(zip(self.agents, self.simulation.seen[0].copy(), strict=True))

    def _infos(self, measured: Float[np.ndarray, "info 1 agent"]) -> dict[str, dict[str, float]]:
        columns = measured[:, 0].T.tolist()
        return {a: dict(zip(INFOS, own, strict=True)) for a, own in zip(self.agents, columns, strict=True)}


METADATA: dict[str, Any] = {name: P2PTrading.metadata[name] for name in ("render_modes", "render_fps")}


def picture(simulation: Simulation, render_mode: str | None) -> str | np.ndarray | None:
    """The last interval of a simulation of one row, as a table or as a picture."""
    if render_mode is None:
        return None
    from peergrid.envs.p2p_trading import viewer  # matplotlib is slow to import, and few runs draw

    draw = viewer.draw_ansi if render_mode == "ansi" else viewer.draw_rgb
    state, days = simulation.running()
    return draw(simulation.params, state, days, simulation.outcome)
