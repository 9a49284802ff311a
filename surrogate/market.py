"""Days of the market with random actions: what microgrids can know when they propose, and what then comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from peergrid.envs.p2p_trading.predictors import Question
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval
from peergrid.envs.p2p_trading.types import N_ACTIONS, Params
from peergrid.envs.profiles import evaluation_days
from peergrid.envs.scenario import Scenario, build_profiles
from peergrid.grid.dso import OpfDso
from peergrid.surrogate.dataset import Samples, concatenate


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollout:
    """Intervals that were played: all proposals with the DSO's answers, and what each microgrid could ask before.

    It knew its own proposal, the only option of the question, and what was accepted of the others' last ones.
    """

    truth: Samples
    question: Question
    params: Params


def play(scenario: Scenario, dso: OpfDso, *, days: int, seed: int, held_out: bool) -> Rollout:
    """Play days side by side, held-out ones from the first or drawn training days, every action uniform."""
    once = replace(scenario, market=replace(scenario.market, correction_rounds=1))
    if held_out:
        days = min(days, len(evaluation_days(build_profiles(scenario).n_days)))
    simulation = Simulation(once, num_envs=days, dso=dso)
    simulation.reset(seed=seed, options={"evaluation_day": 0} if held_out else None)
    params, rng = simulation.params, np.random.default_rng(seed)
    played, published_kw, published_per_kwh = [], [], []
    while not simulation.is_over.all():
        state, drawn = simulation.running()
        now = current_interval(state, drawn, params)
        _, outcome = simulation.step(rng.uniform(-1.0, 1.0, (days, simulation.n_agent, N_ACTIONS)))
        response = outcome.response
        played.append(
            Samples(
                hour=(state.step * params.step_hours).astype(int),
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
        published_kw.append(state.last_accepted_kw)
        published_per_kwh.append(state.last_price_per_kwh)
    truth = concatenate(played)
    question = Question(
        load_kw=truth.load_kw,
        load_kvar=truth.load_kvar,
        lmp_per_kwh=truth.lmp_per_kwh,
        published_kw=np.concatenate(published_kw),
        published_price_per_kwh=np.concatenate(published_per_kwh),
        proposed_kw=truth.proposed_kw[..., None],
    )
    return Rollout(truth=truth, question=question, params=params)
