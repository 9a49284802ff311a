"""Policies that look ahead: proposals that fit the price that they cause, and what foresight is worth."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.baselines.episode.play import play_all, play_day
from peergrid.baselines.policies.cases import Case2, Case3, environment_for
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.baselines.policies.foresight import Foresighted, NetworkMpc, Strategic
from peergrid.baselines.policies.learned import policy_of
from peergrid.baselines.scoring.score import optimal_welfare, score
from peergrid.envs.microgrid import marginal_value
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval

DAYS = 2


def scores(scenario, policies):
    """The score of each policy, with its predictor, over some days for tuning."""
    best = [optimal_welfare(scenario, 20 + k) for k in range(DAYS)]
    played = {
        name: play_all(Simulation(scenario, num_envs=DAYS, predictor=predictor), policy, first=20)
        for name, (policy, predictor) in {"no trade": (NoTrade(), "none"), **policies}.items()
    }
    return {name: score(list(w), list(played["no trade"]), best) for name, w in played.items()}


@pytest.fixture(scope="module", params=["ieee33", "ieee33_communities"])
def found(request):
    return scores(
        request.param,
        {
            "oracle": (Foresighted(), "oracle"),
            "transformer": (Foresighted(), "transformer"),
            "none": (Foresighted(), "none"),
            "strategic": (Strategic(), "oracle"),
            "network": (NetworkMpc(), "none"),
        },
    )


def test_who_looks_ahead_comes_near_the_central_plan_and_needs_the_prediction(found):
    assert found["oracle"] > 92
    assert found["transformer"] > 0.95 * found["oracle"]
    assert found["none"] < 60
    assert found["network"] > 95


def test_who_reckons_with_its_influence_on_prices_costs_the_community_something(found):
    assert found["strategic"] < found["oracle"] - 5


def test_with_everything_known_the_central_plan_is_nearly_the_optimum():
    """Against the convex program of the whole day with the network, which is solved by Clarabel."""
    calm = load_scenario("ieee33_communities")
    still = replace(calm.profiles, solar_uncertainty=0.0, lmp_deviation_std=0.0, load_common_std=0.0, load_bus_std=0.0)
    assert scores(replace(calm, profiles=still), {"network": (NetworkMpc(), "none")})["network"] > 98


def test_a_proposal_fits_the_price_that_it_causes():
    """Where nothing is cut, what one more kW is worth to a microgrid is what the operator then publishes for it."""
    simulation = Simulation("ieee33_communities", num_envs=4, predictor="oracle")
    simulation.reset(options={"evaluation_day": 20})
    policy, gaps = Foresighted(), []
    while not simulation.is_over.all():
        now = current_interval(*simulation.running(), simulation.params)
        _, outcome = simulation.step(policy.act_rows(simulation, simulation.seen))
        interval = replace(now.interval, battery_kw=outcome.decisions.battery_kw)
        own = marginal_value(simulation.params.microgrids, interval, outcome.response.accepted_kw)
        published = outcome.response.price_per_kwh[:, simulation.params.agent_bus]
        accepted = np.abs(outcome.proposed_kw - outcome.response.accepted_kw) < 1.0
        gaps.append(np.abs(own - published)[accepted])
    assert np.median(np.concatenate(gaps)) < 0.01  # the others have moved meanwhile
    blind = Simulation("ieee33_communities", num_envs=4, predictor="none")
    assert blind.reset(options={"evaluation_day": 20}).shape[0] == 4


@pytest.mark.parametrize("make", [Foresighted, Strategic, NetworkMpc])
def test_rows_in_different_intervals_are_planned_as_if_alone(make):
    both = Simulation("ieee33", num_envs=2, predictor="oracle", max_cycles=4)
    both.reset(options={"evaluation_day": 1})
    policy, first_row = make(), np.array([True, False])
    policy.begin_rows(both, np.ones(2, dtype=bool))
    for _ in range(2):  # row 0 plays ahead, row 1 waits
        actions = policy.act_rows(both, both.seen)
        both.step(actions, rows=first_row)
    together = policy.act_rows(both, both.seen)
    alone = Simulation("ieee33", num_envs=1, predictor="oracle", max_cycles=4)
    alone.reset(options={"evaluation_day": 2})
    single = make()
    single.begin_rows(alone, np.ones(1, dtype=bool))
    for _ in range(3):
        found = single.act_rows(alone, alone.seen)
    np.testing.assert_allclose(together[1], found[0], atol=2e-3)


def test_the_same_day_is_played_the_same_twice():
    played = [
        play_day(environment_for(Foresighted(), "ieee33", predictor="oracle", max_cycles=5), Foresighted(), 3)
        for _ in range(2)
    ]
    assert played[0].welfare == played[1].welfare
    np.testing.assert_array_equal(played[0].voltage_pu, played[1].voltage_pu)


def test_a_day_is_foreseen_by_what_is_public_and_one_s_own_alone():
    """What others have, and what the day will bring, changes nothing of what a microgrid does."""
    simulation = Simulation("ieee33_communities", num_envs=1, predictor="oracle")
    simulation.reset(options={"evaluation_day": 20})
    policy, t = Foresighted(), 12
    for _ in range(t):
        simulation.step(policy.act_rows(simulation, simulation.seen))
    before = policy.act_rows(simulation, simulation.seen)[0, 0]
    days, secrets = simulation.days, {}
    for name in ("pv_kw", "load_kw", "load_kvar", "lmp_per_kwh"):  # to come
        values = getattr(days, name).copy()
        values[:, t + 1 :] *= 0.5
        secrets[name] = values
    for name in ("pv_forecast_kw", "demand_kw"):  # the others'
        values = getattr(days, name).copy()
        values[:, :, 1:] *= 0.5
        secrets[name] = values
    simulation.days = replace(days, **secrets)
    after = policy.act_rows(simulation, simulation.seen)[0]
    np.testing.assert_allclose(after[0], before, atol=1e-5)


# Cases as policies


def test_cases_bring_the_rules_that_they_are_played_by():
    env = environment_for(policy_of("case_1"), "ieee33", predictor="none")
    assert type(env.simulation.params.dso).__name__ == "UncheckedDso"
    two = environment_for(Case2(rounds=3), "ieee33", predictor="none")
    assert two.simulation.params.market.correction_rounds == 3
    three = environment_for(Case3(), "ieee33", predictor="oracle")
    assert three.simulation.params.market.correction_rounds == 1
    for each in (env, two, three):
        assert each.simulation.params.mechanism.__name__ == "direct"
    assert environment_for(NoTrade(), "ieee33").simulation.params.mechanism.__name__ == "call_auction"


@pytest.mark.parametrize("name", ["case_1", "case_2", "case_3", "case_3_this_hour", "case_3_cut_only", "case_3_blind"])
def test_every_case_plays_by_its_name(name):
    policy = policy_of(name)
    record = play_day(environment_for(policy, "ieee33", predictor="oracle", max_cycles=2), policy, 0)
    assert np.isfinite(record.welfare) and record.failed == 0
