"""Fixed policies step the environment by its published interface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pettingzoo import ParallelEnv

from peergrid.baselines.episode.play import play_day
from peergrid.baselines.policies.cases import Case3CutOnly
from peergrid.baselines.policies.fixed import (
    FORGETTING,
    MARGIN_RATE,
    Adaptive,
    NoTrade,
    Optimal,
    Planned,
    RandomPolicy,
    Receding,
    Selfish,
    Truthful,
    ZeroIntelligence,
    community_export,
)
from peergrid.baselines.policies.foresight import Foresighted, NetworkMpc
from peergrid.envs import p2p_trading_v0
from peergrid.envs.common.policy import BatchPolicy, Policy
from peergrid.envs.microgrid import marginal_value
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval

POLICIES = (RandomPolicy, NoTrade, Truthful, Planned, Optimal, Receding, Selfish, ZeroIntelligence, Adaptive)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_plays_a_day_by_actions_of_the_action_space(policy):
    env = p2p_trading_v0.parallel_env(scenario="ieee33", max_cycles=3)
    played: Policy = policy()
    assert isinstance(played, Policy)
    observations, _ = env.reset(seed=1)
    played.begin(env)
    while env.agents:
        actions = played.act(observations)
        assert set(actions) == set(env.agents)
        assert all(env.action_space(agent).contains(action) for agent, action in actions.items())
        observations, *_ = env.step(actions)


def test_the_random_policy_repeats_itself_for_the_same_seed():
    env = p2p_trading_v0.parallel_env(scenario="ieee33", max_cycles=2)
    observations, _ = env.reset(seed=1)
    played = []
    for _ in range(2):
        policy = RandomPolicy(seed=4)
        policy.begin(env)
        played.append(policy.act(observations))
    for agent in env.possible_agents:
        np.testing.assert_array_equal(played[0][agent], played[1][agent])


@pytest.mark.parametrize("policy", [*POLICIES, Foresighted, NetworkMpc, Case3CutOnly])
def test_a_batch_is_played_as_its_rows_one_by_one(policy):
    batch = Simulation(load_scenario("ieee33", intervals=3), num_envs=2, predictor="oracle")
    singles = [Simulation(batch.scenario, predictor="oracle") for _ in range(2)]
    together, apart = policy(), [policy() for _ in singles]
    assert isinstance(together, BatchPolicy)
    batch.reset(seed=8)
    together.begin_rows(batch, np.ones(2, dtype=bool))
    for i, (single, own) in enumerate(zip(singles, apart, strict=True)):
        single.reset(seed=8 + i)
        own.begin_rows(single, np.ones(1, dtype=bool))
    for _ in range(2):
        actions = together.act_rows(batch, batch.seen)
        alone = np.concatenate([own.act_rows(s, s.seen) for own, s in zip(apart, singles, strict=True)])
        np.testing.assert_allclose(actions, alone, rtol=0, atol=1e-4)
        for i, single in enumerate(singles):
            single.step(actions[i : i + 1])
        batch.step(actions)
    # A day that begins in one row is not the business of the other.
    odd = np.array([False, True])
    before = together.act_rows(batch, batch.seen)
    batch.reset(rows=odd)
    together.begin_rows(batch, odd)
    after = together.act_rows(batch, batch.seen)
    # A central plan that is asked for again is a little better still.
    np.testing.assert_allclose(after[0], before[0], rtol=0, atol=1e-4 if isinstance(together, NetworkMpc) else 1e-6)
    # Whoever never trades does the same on every day.
    assert not np.array_equal(after[1], before[1]) or isinstance(together, NoTrade)


def test_without_trade_there_is_no_contract_and_no_battery():
    env = p2p_trading_v0.parallel_env(scenario="ieee33", max_cycles=3)
    observations, _ = env.reset(seed=1)
    policy = NoTrade()
    policy.begin(env)
    while env.agents:
        observations, *_ = env.step(policy.act(observations))
        assert env.last_outcome is not None
        assert (env.last_outcome.contracts.quantity_kw == 0).all()
        assert (env.last_outcome.decisions.battery_kw == 0).all()


def test_a_community_exports_where_it_is_balanced_or_at_the_edge_of_the_spread():
    env = p2p_trading_v0.parallel_env(scenario="ieee33")
    env.reset(seed=1)
    simulation = env.simulation
    state, days = simulation.running()
    now = current_interval(state, days, simulation.params)
    battery_kw = np.zeros_like(state.stored_kwh)
    wide = replace(now, lmp_per_kwh=np.array([0.3]))
    simulation.params = replace(
        simulation.params, market=replace(simulation.params.market, half_spread_per_kwh=0.3)
    )  # from 0 to 0.6 every community of this scenario can be balanced
    export_kw = community_export(simulation, wide, battery_kw)
    assert abs(export_kw.sum()) < 1e-3
    assert (np.abs(export_kw) > 1.0).any()


def test_a_day_is_played_the_same_twice():
    env = p2p_trading_v0.parallel_env(scenario="ieee33", max_cycles=4)
    first, second = (play_day(env, Truthful(), day=2) for _ in range(2))
    assert first.welfare == second.welfare
    np.testing.assert_array_equal(first.voltage_pu, second.voltage_pu)
    assert first.first_proposed_kwh == second.first_proposed_kwh


def test_policies_of_the_market_refuse_other_environments():
    class Other(ParallelEnv[str, np.ndarray, np.ndarray]):
        pass

    with pytest.raises(TypeError, match="p2p_trading_v0 only"):
        NoTrade().begin(Other())


def test_the_random_policy_leaves_the_environment_s_own_sampling_alone():
    env = p2p_trading_v0.parallel_env(scenario="ieee33", max_cycles=2)
    observations, _ = env.reset(seed=1)
    env.action_space("microgrid_0").seed(5)
    undisturbed = [env.action_space("microgrid_0").sample() for _ in range(2)]
    env.action_space("microgrid_0").seed(5)
    policy = RandomPolicy()
    policy.begin(env)
    first = policy.act(observations)
    np.testing.assert_array_equal(env.action_space("microgrid_0").sample(), undisturbed[0])
    policy.begin(env)
    assert not np.array_equal(policy.act(observations)["microgrid_0"], first["microgrid_0"])


def test_planning_anew_without_surprises_changes_nothing():
    # With the sun as forecast and real-time prices as day-ahead ones, the rest of a plan stays the best.
    calm = replace(load_scenario("ieee33").profiles, solar_uncertainty=0.0, lmp_deviation_std=0.0)
    env = p2p_trading_v0.parallel_env(scenario=load_scenario("ieee33", profiles=calm))
    simulation = env.simulation
    stored = {}
    for policy in (Planned(), Receding()):
        simulation.reset(seed=2)
        policy.begin_rows(simulation, np.ones(1, dtype=bool))
        while not simulation.is_over.all():
            simulation.step(policy.act_rows(simulation, simulation.seen))
        stored[type(policy)] = simulation.running()[0].stored_kwh
        worth = simulation.outcome.welfare
    np.testing.assert_allclose(stored[Receding], stored[Planned], atol=0.05)
    assert np.isfinite(worth).all()


def test_surprises_are_planned_for_anew():
    env = p2p_trading_v0.parallel_env(scenario="ieee33")
    simulation, chosen = env.simulation, {}
    for policy in (Planned(), Receding()):
        simulation.reset(seed=2)
        policy.begin_rows(simulation, np.ones(1, dtype=bool))
        chosen[type(policy)] = []
        while not simulation.is_over.all():
            _, outcome = simulation.step(policy.act_rows(simulation, simulation.seen))
            chosen[type(policy)].append(outcome.decisions.battery_kw)
    assert np.abs(np.array(chosen[Planned]) - np.array(chosen[Receding])).max() > 1.0


def test_planning_ahead_for_oneself_beats_looking_at_the_hour():
    env = p2p_trading_v0.parallel_env(scenario="ieee33", predictor="none")
    worth = {policy: sum(play_day(env, policy(), day).welfare for day in range(2)) for policy in (Selfish, Truthful)}
    assert worth[Selfish] > worth[Truthful]


def test_zero_intelligence_never_offers_at_a_loss_and_repeats_itself():
    simulation = Simulation("ieee33", num_envs=3)
    offers = []
    for _ in range(2):
        policy = ZeroIntelligence(seed=5)
        simulation.reset(seed=1)
        policy.begin_rows(simulation, np.ones(3, dtype=bool))
        now = current_interval(*simulation.running(), simulation.params)
        offers.append(policy.decide(simulation, now, simulation.seen))
    np.testing.assert_array_equal(offers[0].quantity_kw, offers[1].quantity_kw)
    grids, sold = simulation.params.microgrids, offers[0].quantity_kw
    value = marginal_value(grids, now.interval, sold)
    price = offers[0].limit_price_per_kwh
    assert (np.where(sold > 1e-6, price - value, 0.0) >= -1e-9).all()
    assert (np.where(sold < -1e-6, value - price, 0.0) >= -1e-9).all()
    assert np.unique(sold).size > 3


def test_adaptive_bidders_expect_what_was_published_and_follow_the_market():
    simulation, policy = Simulation("ieee33_communities", num_envs=3), Adaptive(seed=5)
    spread = simulation.params.market.half_spread_per_kwh
    simulation.reset(options={"evaluation_day": 0})
    policy.begin_rows(simulation, np.ones(3, dtype=bool))
    offset, moved = np.zeros((3, 4)), 0
    for _ in range(20):
        now = current_interval(*simulation.running(), simulation.params)
        decided = policy.decide(simulation, now, simulation.seen)
        again = policy.decide(simulation, now, simulation.seen)  # being asked twice teaches nothing
        np.testing.assert_array_equal(again.limit_price_per_kwh, decided.limit_price_per_kwh)
        lmp, side = now.lmp_per_kwh[:, None], np.sign(decided.quantity_kw)
        np.testing.assert_allclose(decided.dispatch_price_per_kwh, np.clip(lmp + offset, 0.0, 1.0), atol=1e-9)
        margin = side * (decided.limit_price_per_kwh - lmp) / spread
        assert (np.abs(margin) <= 1 + 1e-9).all()
        _, outcome = simulation.step(policy.act_rows(simulation, simulation.seen))
        offset += FORGETTING * (outcome.response.price_per_kwh[:, simulation.params.agent_bus] - lmp - offset)
        now = current_interval(*simulation.running(), simulation.params)
        later = policy.decide(simulation, now, simulation.seen)
        stays = np.sign(later.quantity_kw) == side
        change = np.where(stays, side * (later.limit_price_per_kwh - now.lmp_per_kwh[:, None]) / spread - margin, 0.0)
        unserved = np.abs(decided.quantity_kw) > np.abs(outcome.contracts.quantity_kw) * (1 + 1e-6)
        paid = side * (outcome.contracts.price_per_kwh.max(axis=1, keepdims=True) - lmp) / spread
        market = (outcome.contracts.quantity_kw != 0).any(axis=1, keepdims=True)
        goal = np.where(market, paid, -1.0)
        expected = np.where((goal > margin) | unserved, MARGIN_RATE * (goal - margin), 0.0)
        np.testing.assert_allclose(change, np.where(stays, expected, 0.0), atol=1e-6)
        moved += int((np.abs(change) > 1e-3).sum())
    assert moved > 20


def test_adaptive_bidders_do_better_than_truthful_ones_where_the_network_limits():
    env = p2p_trading_v0.parallel_env(scenario="ieee33_communities")
    worth = {policy: sum(play_day(env, policy(), day).welfare for day in range(2)) for policy in (Adaptive, Truthful)}
    assert worth[Adaptive] > worth[Truthful] + 50
