"""PettingZoo's view of the P2P market."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.actions import arrays_of
from peergrid.envs.common.env import Infos, MarketEnv
from peergrid.envs.common.profiles import ProfileSource
from peergrid.envs.p2p_trading.infos import infos_of, measure, nothing_yet
from peergrid.envs.p2p_trading.mechanisms import Mechanism
from peergrid.envs.p2p_trading.predictors import Predictor
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import Outcome
from peergrid.grid.dso import Dso


class P2PTrading(MarketEnv):
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

    A scenario with further devices adds a number for each kind of them: its power, from drawing at its rating (-1) over
    nothing (0) to giving at its rating (+1).

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
        **Simulation.metadata,
        "is_parallelizable": True,
    }

    simulation: Simulation

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
        agents = self.simulation.agents
        entries, n_numbers = self.simulation.entries, self.simulation.params.n_actions
        super().__init__(dict.fromkeys(agents, entries), dict.fromkeys(agents, n_numbers), render_mode)

    @property
    def last_outcome(self) -> Outcome | None:
        """What happened in the last interval; None before the first."""
        return self.simulation.outcome

    def stacked(self, actions: Mapping[str, np.ndarray]) -> Float[np.ndarray, "1 agent number"]:
        """The actions of all agents as one array.

        Raises:
            InvalidAction: An agent without action, an unknown agent, a wrong shape, or NaN.
        """
        return np.stack([list(arrays_of(actions, self._n_numbers).values())])

    def _play(self, given: dict[str, np.ndarray]) -> list[float]:
        _, outcome = self.simulation.step(np.stack([list(given.values())]))
        paid: list[float] = outcome.reward[0].tolist()
        return paid

    def _infos(self, outcome: Outcome | None) -> Infos:
        simulation = self.simulation
        told = measure(outcome, simulation.params) if outcome else nothing_yet(1, simulation.params)
        each = told[:, 0].T.tolist()
        names = infos_of(simulation.params)
        return {agent: dict(zip(names, own, strict=True)) for agent, own in zip(self.agents, each, strict=True)}
