"""Plans with devices beside the standard ones: the optimum keeps its word, and who looks ahead comes near it."""

import numpy as np
import pytest

from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.learned import policy_of
from peergrid.baselines.scoring.score import optimal_welfare, score
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation

DAYS = 2


@pytest.fixture(scope="module", params=["ieee33_vehicles", "ieee33_heat_pumps"])
def scenario(request):
    return request.param


def played(scenario, policy, predictor="none", days=DAYS):
    simulation = Simulation(scenario, num_envs=days, predictor=predictor)
    return list(play_all(simulation, policy_of(policy), first=0))


def test_the_optimum_is_played_as_it_was_planned(scenario):
    np.testing.assert_allclose(
        played(scenario, "optimal"), [optimal_welfare(scenario, k) for k in range(DAYS)], atol=0.01
    )


def test_who_looks_ahead_comes_near_the_optimum(scenario):
    best, nothing = [optimal_welfare(scenario, k) for k in range(DAYS)], played(scenario, "no_trade")
    assert score(played(scenario, "foresighted", "oracle"), nothing, best) > 90
    assert score(played(scenario, "network_mpc", days=1), nothing[:1], best[:1]) > 90


@pytest.mark.parametrize(
    "policy", ["random", "truthful", "planned", "receding", "selfish", "adaptive", "zero_intelligence"]
)
def test_every_policy_plays_them(scenario, policy):
    assert np.isfinite(played(scenario, policy, days=1)).all()


def test_a_case_that_refines_one_hour_keeps_the_plan_of_its_devices(scenario):
    simulation = Simulation(load_scenario(scenario), predictor="oracle", mechanism="direct")
    assert np.isfinite(list(play_all(simulation, policy_of("case_3_this_hour"), first=0))).all()
