"""The convex programs against the dispatch formula, the environment, and common sense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from peergrid.baselines.episode.play import play_day
from peergrid.baselines.policies.fixed import NoTrade, Optimal, Planned, Truthful
from peergrid.baselines.policies.plans import DayPlan, Optimum
from peergrid.baselines.scoring.score import optimal_welfare, score, score_interval
from peergrid.envs import p2p_trading_v0
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import PeergridError

SHORT = 6


def short(name: str):
    return load_scenario(name, intervals=SHORT)


def begun(name: str):
    env = p2p_trading_v0.parallel_env(scenario=short(name))
    env.reset(options={"evaluation_day": 0})
    return env


@pytest.mark.parametrize("name", ["ieee33", "ieee33_communities"])
def test_the_optimum_as_played_earns_what_its_program_says(name):
    # Two independent computations of welfare: one convex program over the day, and the market stepped hour by hour.
    env = p2p_trading_v0.parallel_env(scenario=short(name))
    played = play_day(env, Optimal(), day=0)
    assert played.welfare == pytest.approx(optimal_welfare(short(name), 0), rel=1e-5, abs=1e-2)


@pytest.mark.parametrize("name", ["ieee33", "ieee33_communities"])
def test_nobody_beats_the_optimum(name):
    bound = optimal_welfare(short(name), 0)
    for policy in (NoTrade(), Truthful(), Planned()):
        env = p2p_trading_v0.parallel_env(scenario=short(name))
        assert play_day(env, policy, day=0).welfare <= bound + 1e-3


def test_plans_return_every_battery_to_its_initial_energy():
    env = begun("ieee33")
    grids, hours = env.simulation.params.microgrids, env.simulation.params.step_hours
    for program in (DayPlan, Optimum):
        schedule = program.of(env.simulation.scenario).solve(env.simulation)
        charge, discharge = np.maximum(-schedule.battery_kw, 0.0), np.maximum(schedule.battery_kw, 0.0)
        change = (grids.charge_efficiency * charge - discharge / grids.discharge_efficiency).sum(axis=0) * hours
        np.testing.assert_allclose(change, 0.0, atol=0.05)


def test_the_day_plan_is_worth_at_least_the_same_plan_with_idle_batteries():
    scenario = short("ieee33")
    idle = replace(scenario, microgrids=tuple(replace(m, battery_kw=0.0) for m in scenario.microgrids))
    values = []
    for chosen in (scenario, idle):
        env = p2p_trading_v0.parallel_env(scenario=chosen)
        env.reset(options={"evaluation_day": 0})
        values.append(DayPlan.of(chosen).solve(env.simulation).value)
    assert values[0] >= values[1] - 1e-6


def test_scores_are_linear_between_no_trade_and_the_optimum():
    assert score([10.0, 20.0], [10.0, 20.0], [20.0, 40.0]) == 0.0
    assert score([20.0, 40.0], [10.0, 20.0], [20.0, 40.0]) == 100.0
    assert score([5.0, 10.0], [10.0, 20.0], [20.0, 40.0]) == -50.0


def test_without_anything_to_gain_there_is_no_score():
    with pytest.raises(PeergridError, match="nothing to score by"):
        score([1.0], [2.0], [2.0])


def test_a_day_that_terminates_is_valued_by_the_program_as_it_is_played():
    ending = load_scenario("ieee33_communities", intervals=SHORT, horizon="terminate", daily_cycle=False)
    env = p2p_trading_v0.parallel_env(scenario=ending)
    assert play_day(env, Optimal(), day=0).welfare == pytest.approx(optimal_welfare(ending, 0), rel=1e-5, abs=1e-2)


def test_days_that_end_with_different_energies_have_no_score():
    with pytest.raises(PeergridError, match="daily_cycle"):
        optimal_welfare(load_scenario("ieee33", daily_cycle=False, horizon="truncate"), 0)


def test_the_interval_of_a_score_holds_it_and_shrinks_to_it_where_all_days_are_alike():
    low, high = score_interval([5.0, 9.0, 1.0], [0.0, 0.0, 0.0], [10.0, 10.0, 10.0])
    assert low < score([5.0, 9.0, 1.0], [0.0] * 3, [10.0] * 3) < high
    assert score_interval([5.0] * 4, [0.0] * 4, [10.0] * 4) == pytest.approx((50.0, 50.0))
