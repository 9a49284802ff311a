"""Gymnasium's views: one controller for all, or one learner among fixed policies."""

import gymnasium as gym
import numpy as np
import pytest

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.gymnasium import CentralTrading, SoloTrading
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName


def test_the_central_controller_sees_everything_and_is_paid_the_welfare():
    central, market, rng = CentralTrading(max_cycles=3), P2PTrading(max_cycles=3), np.random.default_rng(0)
    seen, info = central.reset(seed=3)
    observations, _ = market.reset(seed=3)
    assert not any(info.values())
    ended = False
    while not ended:
        np.testing.assert_array_equal(seen, np.concatenate(list(observations.values())))
        action = rng.uniform(-1, 1, central.action_space.shape).astype(np.float32)
        seen, reward, terminated, truncated, info = central.step(action)
        parts = dict(zip(market.agents, action.reshape(-1, 4), strict=True))
        observations, _, terminations, _, infos = market.step(parts)
        assert reward == infos["microgrid_0"]["welfare"]
        assert info == {f"{a}/{name}": value for a, own in infos.items() for name, value in own.items()}
        assert not truncated and terminated == terminations["microgrid_0"]
        ended = terminated
    assert central.observation_space.contains(seen)


def test_the_central_observation_is_described_entry_by_entry():
    env = CentralTrading()
    described = env.describe_observation()
    assert len(described) == env.observation_space.shape[0]
    assert described[0].name.startswith("microgrid_0: ") and described[-1].name.startswith("microgrid_3: ")
    np.testing.assert_array_equal(env.observation_space.low, np.array([e.low for e in described], dtype=np.float32))


def test_welfare_of_a_finite_task_pays_for_the_energy_left():
    rewards = {}
    for horizon in ("truncate", "terminate"):
        env = CentralTrading(scenario=load_scenario("ieee33", horizon=horizon, daily_cycle=False), max_cycles=1)
        env.reset(seed=0)
        action = np.zeros(16)
        action[::4] = -1.0  # everybody charges
        _, rewards[horizon], terminated, truncated, _ = env.step(action)
        assert (terminated, truncated) == (horizon == "terminate", horizon == "truncate")
    assert rewards["terminate"] > rewards["truncate"] + 1.0


def test_a_central_action_of_the_wrong_shape_or_with_nan_is_refused():
    env = CentralTrading(max_cycles=2)
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match=r"shape \(4, 4\), not \(16,\)"):
        env.step(np.zeros((4, 4)))
    with pytest.raises(InvalidAction, match="not finite"):
        env.step(np.r_[np.zeros(4), np.full(4, np.nan), np.zeros(8)])


@pytest.mark.parametrize("others", ["no_trade", NoTrade, NoTrade(), "peergrid.baselines.policies.fixed:NoTrade"])
def test_the_others_play_their_policy(others):
    solo, market, rng = (
        SoloTrading("microgrid_2", others, max_cycles=2),
        P2PTrading(max_cycles=2),
        np.random.default_rng(0),
    )
    policy = NoTrade()
    seen, _ = solo.reset(seed=5)
    observations, _ = market.reset(seed=5)
    policy.begin(market)
    for _ in range(2):
        np.testing.assert_array_equal(seen, observations["microgrid_2"])
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        actions = policy.act(observations) | {"microgrid_2": action}
        seen, reward, terminated, truncated, info = solo.step(action)
        observations, rewards, terminations, _, infos = market.step(actions)
        assert (reward, info) == (rewards["microgrid_2"], infos["microgrid_2"])
        assert not truncated and terminated == terminations["microgrid_2"]
    assert terminated


@pytest.mark.parametrize("others", ["truthful", "random"])
def test_the_other_policies_can_be_named(others):
    env = SoloTrading(others=others, max_cycles=2)
    env.reset(seed=0)
    _, reward, *_ = env.step(np.zeros(4, dtype=np.float32))
    assert np.isfinite(reward)


def test_a_learner_or_policy_that_nobody_has_suggests_the_nearest():
    with pytest.raises(UnknownName, match=r"no agent is named 'microgrid_4'. Did you mean 'microgrid_"):
        SoloTrading("microgrid_4")
    with pytest.raises(UnknownName, match=r"no policy is named 'thruthful'. Did you mean 'truthful'"):
        SoloTrading(others="thruthful")


def test_a_learner_sees_its_own_entries():
    env = SoloTrading("microgrid_1")
    market = P2PTrading()
    assert env.describe_observation() == market.describe_observation("microgrid_1")
    assert env.observation_space == market.observation_space("microgrid_1")


def test_a_step_needs_an_episode():
    for env in (CentralTrading(max_cycles=1), SoloTrading(max_cycles=1)):
        with pytest.raises(PeergridError, match=r"call reset\(\)"):
            env.step(np.zeros(env.action_space.shape))


@pytest.mark.parametrize("name", ["peergrid/CentralTrading-v0", "peergrid/SoloTrading-v0"])
def test_arguments_of_the_market_pass_through_make(name):
    env = gym.make(name, scenario="ieee33_communities", predictor="oracle", mechanism="bilateral", max_cycles=2)
    simulation = env.unwrapped.simulation
    assert simulation.scenario.name == "ieee33_communities" and simulation.params.intervals == 2
    env.reset(seed=0)
    env.step(env.action_space.sample())
    with pytest.raises(TypeError, match="senario"):
        gym.make(name, senario="ieee33")
