"""The one loop that plays days, in either market, by rows and through PettingZoo's view."""

from __future__ import annotations

import numpy as np
import pytest

from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.fixed import Truthful
from peergrid.baselines.policies.learned import Actor, LearnedPolicy
from peergrid.baselines.policies.transactive import Myopic
from peergrid.envs.common.rollout import rollout_in, rollout_of
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.transactive.env import TransactiveMarket
from peergrid.envs.transactive.simulation import Transactive

MARKETS = {
    "p2p_trading": (lambda n: Simulation("ieee33", num_envs=n, predictor="none"), Truthful),
    "transactive": (lambda n: Transactive("ieee37", num_envs=n), Myopic),
}
ENVIRONMENTS = {
    "p2p_trading": lambda: P2PTrading("ieee33", predictor="none"),
    "transactive": lambda: TransactiveMarket("ieee37"),
}


@pytest.mark.parametrize("market", MARKETS)
def test_every_row_is_played_to_its_end_and_rests_then(market):
    make, policy = MARKETS[market]
    simulation = make(3)
    simulation.reset(options={"evaluation_day": 0})
    played = []
    for step in rollout_of(simulation, policy()):
        played.append(simulation.played.copy())
        assert step.outcome is simulation.outcome and step.state is not simulation.state
        assert step.deciding_seconds >= 0.0
    assert simulation.is_over.all()
    of_each = np.sum(played, axis=0)
    assert (np.diff(np.array(played).astype(int), axis=0) <= 0).all()  # nobody begins again
    assert (of_each >= simulation.params.intervals).all()
    if market == "p2p_trading":
        assert (of_each == simulation.params.intervals).all()


@pytest.mark.parametrize("market", MARKETS)
def test_the_view_of_pettingzoo_plays_the_same_day_as_the_batch(market):
    make, policy = MARKETS[market]
    simulation, env = make(1), ENVIRONMENTS[market]()
    simulation.reset(options={"evaluation_day": 2})
    by_rows = [step.outcome.welfare[0] for step in rollout_of(simulation, policy())]
    in_view = [step.outcome.welfare[0] for step in rollout_in(env, policy(), 2)]
    assert in_view == by_rows and env.agents == []


@pytest.mark.parametrize("player", ["shared", "central"])
@pytest.mark.parametrize("market", MARKETS)
def test_a_learned_policy_plays_any_market_the_same_alone_and_side_by_side(market, player):
    simulation, env = MARKETS[market][0](2), ENVIRONMENTS[market]()
    n_agent = simulation.n_agent if player == "central" else 1
    n_seen, n_number = n_agent * len(simulation.entries), n_agent * len(env.action_space(simulation.agents[0]).low)
    weight = np.random.default_rng(0).normal(0.0, 0.1, (n_number, n_seen)).astype(np.float32)
    actor = Actor(weights=(weight,), biases=(np.zeros(n_number, np.float32),), activation="tanh", bound="tanh")
    policy = LearnedPolicy(actor, player, {})
    alone = [sum(step.outcome.welfare[0] for step in rollout_in(env, policy, day)) for day in range(2)]
    np.testing.assert_allclose(play_all(simulation, policy), alone, rtol=1e-5)
