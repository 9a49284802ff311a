"""The P2P paper's three cases as policies, each with the rules of the market that it is played in.

case 1    the day plan, carried out unchecked
case 2    the day plan, proposed, corrected and proposed again
case 3    the plan refined against the predicted answer of the operator, submitted once
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float

from peergrid.baselines.policies.fixed import MarketPolicy, Planned, targeting
from peergrid.baselines.policies.foresight import Foresighted, Plan, Rest, answers_of, followed, plan_against
from peergrid.envs.common.policy import BatchPolicy, Policy
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.outlook import ask, expected, supposed
from peergrid.envs.p2p_trading.predictors import Predictor
from peergrid.envs.p2p_trading.scenario import Scenario, load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import Days, Decisions, Now, State

ROUNDS = 5
SAME_SHARE = 1e-6  # of the rating: less is no cut


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of the market that a case is played by: those of the scenario, where None or as it says."""

    mechanism: str | None = "direct"
    dso: str | None = None
    correction_rounds: int = 1


def environment_for(policy: Policy, scenario: str | Scenario, **arguments: Any) -> P2PTrading:
    """The environment that a policy is played in: the scenario's, or that of the rules which the policy brings.

    Args:
        arguments: Those of `P2PTrading`.
    """
    return P2PTrading(**rules_for(policy, scenario), **arguments)


def rules_for(policy: Policy | BatchPolicy, scenario: str | Scenario) -> dict[str, Any]:
    """The scenario, and where the policy brings rules of its own, those: arguments of `P2PTrading` and `Simulation`."""
    rules = getattr(policy, "rules", None)
    if not isinstance(rules, Rules):
        return {"scenario": scenario}
    chosen = load_scenario(scenario)
    chosen = replace(chosen, market=replace(chosen.market, correction_rounds=rules.correction_rounds))
    return {"scenario": chosen, "mechanism": rules.mechanism, "dso": rules.dso}


class _FromDayPlan(MarketPolicy):
    """What the cases share that begin with the microgrids' cooperative plan of the day.

    Abstract: subclasses have `rules`, and those that do not propose the plan as it is, another `decide`.
    """

    def __init__(self) -> None:
        self.planned = Planned()

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        self.planned.begin_rows(simulation, rows)

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        return self.planned.decide(simulation, now, seen)


class Case1(_FromDayPlan):
    """Network-agnostic trading: the cooperative day plan, its trades carried out unchecked."""

    rules: ClassVar[Rules] = Rules(dso="unchecked")


class Case2(_FromDayPlan):
    """The operator in the loop: the day plan, proposed, corrected, and proposed again within the correction."""

    def __init__(self, rounds: int = ROUNDS) -> None:
        super().__init__()
        self.rules = Rules(correction_rounds=rounds)


class Case3Blind(_FromDayPlan):
    """Case 3 without a prediction: the day plan's proposals, submitted once."""

    rules: ClassVar[Rules] = Rules()


class Case3(MarketPolicy):
    """Learning-augmented trading: each microgrid refines plan and proposal until they agree with the answer predicted.

    The rest of its day is planned anew in every interval, against the prices that its own exports are predicted to
    meet: `Foresighted`. The whole range of exports is searched, so that it does not matter which plan it starts from.
    """

    rules: ClassVar[Rules] = Rules()

    def __init__(self, predictor: Predictor | None = None) -> None:
        """
        Args:
            predictor: Who is asked, if not the predictor of the environment.
        """
        self.refined = Foresighted(predictor)

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        return self.refined.decide(simulation, now, seen)


class Case3ThisHour(_FromDayPlan):
    """Case 3 for the interval at hand alone: batteries follow the day plan, the export is refined."""

    rules: ClassVar[Rules] = Rules()

    def __init__(self, predictor: Predictor | None = None) -> None:
        super().__init__()
        self.predictor = predictor

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        params, predictor = simulation.params, self.predictor or simulation.predictor
        planned = self.planned.decide(simulation, now, seen)

        def plan(state: State, days: Days, rows: Bool[np.ndarray, " batch"]) -> Plan:
            fleet_kw = tuple(power_kw[rows] for power_kw in planned.fleet_kw)
            rest = Rest.of(state, days, params).now(planned.battery_kw[rows], fleet_kw)
            coming = expected(state, days, params, 1)
            return plan_against(answers_of(predictor, coming, state, params), rest, params.microgrids, params)

        return followed(simulation, now, plan)


class Case3CutOnly(_FromDayPlan):
    """Case 3 without refining: the day plan's proposals, cut to what is predicted to be accepted of them."""

    rules: ClassVar[Rules] = Rules()

    def __init__(self, predictor: Predictor | None = None) -> None:
        super().__init__()
        self.predictor = predictor

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        planned = self.planned.decide(simulation, now, seen)
        params, (state, days) = simulation.params, simulation.running()
        asked_kw = supposed(planned.quantity_kw[:, :, None, None], state.last_accepted_kw[:, None])
        predictor, coming = self.predictor or simulation.predictor, expected(state, days, params, 1)
        cut_kw = ask(asked_kw, coming, state, predictor, params).accepted_kw[:, :, 0, 0]
        is_cut = np.abs(cut_kw - planned.quantity_kw) > SAME_SHARE * params.microgrids.rating_kw
        targeted = targeting(simulation, now, planned.battery_kw, cut_kw)
        price = np.where(is_cut, targeted.dispatch_price_per_kwh, planned.dispatch_price_per_kwh)
        return replace(planned, quantity_kw=cut_kw, dispatch_price_per_kwh=price)
