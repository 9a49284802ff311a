"""Days of the market with random actions: what microgrids know when they propose, and what the DSO then answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from peergrid.envs.common.profiles import evaluation_days
from peergrid.envs.common.rollout import rollout
from peergrid.envs.p2p_trading.outlook import moving_along, supposed
from peergrid.envs.p2p_trading.predictors import Question
from peergrid.envs.p2p_trading.scenario import Scenario, build_profiles
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import Public
from peergrid.grid.dso import OpfDso
from peergrid.surrogate.samples import Samples, concatenate


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollout:
    """Intervals that were played: all proposals with the DSO's answers, and what each microgrid could ask before.

    Either question has one option, the microgrid's own proposal. `question` is asked when the interval begins, and
    supposes that the others propose what was accepted of them last; `early` is asked the day before, from forecasts,
    and supposes that the others move along with it.
    """

    truth: Samples
    question: Question
    early: Question
    public: Public


def play(scenario: Scenario, dso: OpfDso, *, days: int, seed: int, held_out: bool) -> Rollout:
    """Play days side by side, held-out ones from the first or drawn training days, every action uniform."""
    once = replace(scenario, market=replace(scenario.market, correction_rounds=1))
    if held_out:
        days = min(days, len(evaluation_days(build_profiles(scenario).n_days)))
    simulation = Simulation(once, num_envs=days, dso=dso, predictor="none")
    simulation.reset(seed=seed, options={"evaluation_day": 0} if held_out else None)
    params, rng = simulation.params, np.random.default_rng(seed)
    nothing_yet, drawn = simulation.running()
    played: list[Samples] = []
    asked: list[Question] = []
    asked_early: list[Question] = []
    shape = (days, simulation.n_agent, simulation.params.n_actions)
    for step in rollout(simulation, lambda: rng.uniform(-1.0, 1.0, shape), simulation.step):
        state, now, outcome = step.state, step.now, step.outcome
        response, t = outcome.response, int(state.interval[0])
        played.append(
            Samples(
                hour=(state.interval * params.step_hours).astype(int),
                load_kw=now.load_kw,
                load_kvar=now.load_kvar,
                proposed_kw=outcome.proposed_kw,
                lmp_per_kwh=now.lmp_per_kwh,
                lambda_corr_per_kw2h=np.full(days, dso.penalty.lambda_corr_per_kw2h),
                c_ls_per_kw2h=np.full(days, dso.penalty.c_ls_per_kw2h),
                accepted_kw=response.accepted_kw,
                shed_kw=response.shed_kw,
                price_per_kwh=response.price_per_kwh,
                status=response.status,
            )
        )
        own_kw = outcome.proposed_kw[:, :, None, None]
        asked.append(
            Question(
                load_kw=now.load_kw[:, None],
                load_kvar=now.load_kvar[:, None],
                lmp_per_kwh=now.lmp_per_kwh[:, None],
                published_per_kwh=state.last_price_per_kwh,
                published_lmp_per_kwh=state.last_lmp_per_kwh,
                supposed_kw=supposed(own_kw, state.last_accepted_kw[:, None]),
            )
        )
        asked_early.append(
            replace(
                asked[-1],
                load_kw=drawn.load_forecast_kw[:, t : t + 1],
                load_kvar=drawn.load_forecast_kvar[:, t : t + 1],
                lmp_per_kwh=drawn.lmp_day_ahead_per_kwh[:, t : t + 1],
                supposed_kw=moving_along(own_kw, nothing_yet, params),
            )
        )
    return Rollout(truth=concatenate(played), question=_joined(asked), early=_joined(asked_early), public=params.public)


def _joined(questions: Sequence[Question]) -> Question:
    """Questions of the same form as one, row after row."""
    return Question(**{f.name: np.concatenate([getattr(q, f.name) for q in questions]) for f in fields(Question)})
