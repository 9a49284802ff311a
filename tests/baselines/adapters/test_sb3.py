"""Stable-Baselines3 learns on a batch of markets: ends of episodes, seeds, attributes, short runs."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor, VecNormalize

from peergrid.baselines.adapters.sb3 import (
    ALGORITHMS,
    TradingVecEnv,
    actor_of,
    central_trading,
    shared_trading,
    solo_trading,
)
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.gymnasium import CentralTrading, SoloTrading
from peergrid.envs.p2p_trading.infos import INFOS
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import PeergridError

MAKERS = (shared_trading, central_trading, solo_trading)
every_maker = pytest.mark.parametrize("make", MAKERS)


def play(env, steps, seed=0, actions_seed=1):
    env.seed(seed)
    rng, results = np.random.default_rng(actions_seed), [env.reset()]
    shape = (env.num_envs, *env.action_space.shape)
    for _ in range(steps):
        results.append(env.step(rng.uniform(-1, 1, shape).astype(np.float32)))
    return results


def small(algorithm, env, **arguments):
    return algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0, **arguments)


# Steps


@every_maker
def test_observations_rewards_and_ends_are_arrays_of_one_entry_each(make):
    env = make(2, max_cycles=2)
    first, *steps = play(env, 3)
    for seen, rewards, dones, infos in steps:
        assert seen.shape == first.shape == (env.num_envs, *env.observation_space.shape)
        assert all(env.observation_space.contains(own) for own in seen)
        assert rewards.dtype == np.float32 and rewards.shape == dones.shape == (env.num_envs,)
        assert len(infos) == env.num_envs
    assert [dones.tolist() for _, _, dones, _ in steps] == [[end] * env.num_envs for end in (False, True, False)]
    assert env.num_envs == (8 if make is shared_trading else 2)


@pytest.mark.parametrize("horizon", ["truncate", "terminate"])
@every_maker
def test_the_last_info_has_the_end_of_the_episode_and_whether_it_was_cut(make, horizon):
    env = make(2, scenario=load_scenario("ieee33", horizon=horizon), max_cycles=2)
    _, (_, _, _, before), (seen, _, dones, infos), _ = play(env, 3)
    assert dones.all() and before == [{}] * env.num_envs
    assert len({id(info) for info in infos}) == env.num_envs
    for own, info in zip(seen, infos, strict=True):
        assert info["TimeLimit.truncated"] is (horizon == "truncate")
        assert env.observation_space.contains(info["terminal_observation"])
        assert not np.array_equal(info["terminal_observation"], own)
        figures = {k: v for k, v in info.items() if k not in ("TimeLimit.truncated", "terminal_observation")}
        assert len(figures) >= len(INFOS) and all(isinstance(figure, float) for figure in figures.values())


def test_the_end_of_the_episode_is_that_of_the_single_environments():
    actions = np.random.default_rng(3).uniform(-1, 1, (2, 16)).astype(np.float32)

    def last(env, actions):
        env.seed(20)
        env.reset()
        env.step(actions)
        _, rewards, _, infos = env.step(actions)
        return rewards, infos

    central, solo, shared = (
        last(make(2, max_cycles=2), a)
        for make, a in (
            (central_trading, actions),
            (solo_trading, actions[:, :4]),
            (shared_trading, actions.reshape(8, 4)),
        )
    )
    for i in range(2):
        for single, action, (rewards, infos) in (
            (CentralTrading(max_cycles=2), actions[i], central),
            (SoloTrading(max_cycles=2), actions[i, :4], solo),
        ):
            single.reset(seed=20 + i)
            single.step(action)
            seen, reward, terminated, truncated, info = single.step(action)
            np.testing.assert_allclose(infos[i].pop("terminal_observation"), seen, rtol=0, atol=1e-5)
            assert infos[i].pop("TimeLimit.truncated") is truncated is False and terminated
            assert infos[i].keys() == info.keys()
            np.testing.assert_allclose(list(infos[i].values()), list(info.values()), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(rewards[i], reward, rtol=1e-5, atol=1e-6)
        market = P2PTrading(max_cycles=2)
        market.reset(seed=20 + i)
        parts = dict(zip(market.agents, actions[i].reshape(4, 4), strict=True))
        market.step(parts)
        observations, paid, *_ = market.step(parts)
        for k, agent in enumerate(parts):
            slot = 4 * i + k
            np.testing.assert_allclose(shared[1][slot]["terminal_observation"], observations[agent], rtol=0, atol=1e-5)
            np.testing.assert_allclose(shared[0][slot], paid[agent], rtol=1e-5, atol=1e-6)


def test_microgrids_that_share_a_policy_have_the_same_spaces():
    for scenario in ("ieee33", "ieee69"):
        market, env = P2PTrading(scenario), shared_trading(1, scenario=scenario)
        for agent in market.possible_agents:
            assert market.observation_space(agent) == env.observation_space
            assert market.action_space(agent) == env.action_space


# Seeds and options


@every_maker
def test_a_seed_holds_for_the_next_reset_alone(make):
    env, other = make(2, max_cycles=2), make(2, max_cycles=2)
    one, again = play(env, 3, seed=5), play(env, 3, seed=5)
    for a, b in zip(one[1:], again[1:], strict=True):
        for part, same in zip(a[:3], b[:3], strict=True):
            np.testing.assert_array_equal(part, same)
    assert not np.array_equal(play(env, 0, seed=6)[0], one[0])
    other.seed(5)
    np.testing.assert_array_equal(other.reset(), one[0])
    assert not np.array_equal(other.reset(), one[0])


def test_options_hold_for_the_next_reset_alone():
    env = central_trading(2, max_cycles=2)
    env.set_options({"evaluation_day": 4})
    day = env.reset()
    expected = CentralTrading(max_cycles=2).reset(options={"evaluation_day": 5})[0]
    assert not np.array_equal(env.reset(), day)
    env.set_options([{"evaluation_day": 4}, {"evaluation_day": 4}])
    np.testing.assert_array_equal(env.reset(), day)
    np.testing.assert_array_equal(day[1], expected)
    env.set_options([{"evaluation_day": 4}, {"evaluation_day": 5}])
    with pytest.raises(PeergridError, match="holds for all environments"):
        env.reset()


# The rest of the interface


@every_maker
def test_attributes_and_methods_are_those_of_the_vector(make):
    env = make(2, max_cycles=2)
    n = env.num_envs
    assert env.get_attr("simulation") == [env.env.simulation] * n
    assert env.get_attr("simulation", indices=0) == [env.env.simulation]
    assert env.get_attr("render_mode", indices=[0, 1]) == [None, None]
    env.set_attr("note", "seen")
    assert env.get_attr("note") == ["seen"] * n and env.env.note == "seen"
    with pytest.raises(PeergridError, match="some environments only"):
        env.set_attr("note", "hidden", indices=[0])
    assert env.env_method("describe_observation", indices=1) == [env.env.describe_observation()]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * n
    assert not env.has_attr("nothing")
    with pytest.raises(AttributeError):
        env.get_attr("nothing")
    env.close()
    assert env.env.closed


def test_markets_are_drawn_side_by_side():
    env = solo_trading(2, max_cycles=2, render_mode="rgb_array")
    env.reset()
    assert env.render().size == 2 * env.get_images()[0].size
    assert env.get_images()[0].dtype == np.uint8


def test_a_vector_that_does_not_reset_in_the_last_step_is_refused():
    import peergrid  # noqa: F401, importing it registers the environments

    with pytest.raises(PeergridError, match="resets in the last step"):
        TradingVecEnv(gymnasium.make_vec("peergrid/CentralTrading-v0", num_envs=2))
    vector = gymnasium.make_vec("peergrid/CentralTrading-v0", num_envs=2, max_cycles=2, autoreset_mode="SameStep")
    env = VecMonitor(TradingVecEnv(vector))
    assert env.get_attr("spec")[0].id == "peergrid/CentralTrading-v0"


@every_maker
def test_wrappers_of_stable_baselines_work(make, tmp_path):
    name = "microgrid_0/bill" if make is central_trading else "bill"
    env = VecMonitor(make(2, max_cycles=2), str(tmp_path / "run"), info_keywords=(name,))
    _, (_, first, _, _), (_, second, _, infos), _ = play(env, 3)
    for i, info in enumerate(infos):
        assert info["episode"]["l"] == 2 and info["episode"][name] == info[name]
        np.testing.assert_allclose(info["episode"]["r"], first[i] + second[i], rtol=1e-5)
    env.close()
    env = VecNormalize(VecCheckNan(make(2, max_cycles=2), raise_exception=True))
    results = play(env, 3)
    assert np.isfinite(results[2][0]).all()
    assert results[2][3][0]["terminal_observation"].shape == env.observation_space.shape


# Learning


@every_maker
def test_the_same_seed_learns_the_same(make):
    def learned():
        model = small(PPO, make(2, max_cycles=3), n_steps=4, batch_size=8, n_epochs=2)
        return model.learn(16, progress_bar=False).policy.state_dict()

    one, other = learned(), learned()
    assert all(torch.equal(one[key], other[key]) for key in one)
    fresh = small(PPO, make(2, max_cycles=3), n_steps=4, batch_size=8).policy.state_dict()
    assert not all(torch.equal(one[key], fresh[key]) for key in one)


def test_off_policy_learning_keeps_the_true_end_and_looks_beyond_it():
    cut = load_scenario("ieee33", horizon="truncate")
    env = VecMonitor(shared_trading(2, scenario=cut, max_cycles=2))
    model = small(SAC, env, learning_starts=8, buffer_size=64, batch_size=8).learn(32)
    buffer = model.replay_buffer
    assert buffer.dones[1].all() and buffer.timeouts[1].all() and not buffer.dones[0].any()
    # What follows the last step is the end of that day, not the beginning of the next.
    assert not np.array_equal(buffer.next_observations[1], buffer.observations[2])
    np.testing.assert_array_equal(buffer.next_observations[0], buffer.observations[1])
    mean, _ = evaluate_policy(model, env, n_eval_episodes=8)
    assert np.isfinite(mean) and len(model.ep_info_buffer) == 16


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=list(ALGORITHMS))
@pytest.mark.parametrize("net_arch", [[8], [16, 8, 4]])
def test_the_actor_acts_as_the_model_does(algorithm, net_arch):
    env = shared_trading(2, scenario="ieee33")
    model = algorithm("MlpPolicy", env, policy_kwargs={"net_arch": net_arch}, device="cpu", seed=0)
    seen = np.random.default_rng(0).uniform(-2, 2, (50, *env.observation_space.shape)).astype(np.float32)
    if algorithm is PPO:  # so that bounds are met
        model.policy.action_net.bias.data += torch.tensor([2.0, -2.0, 0.5, 0.0])
    expected, _ = model.predict(seen, deterministic=True)
    np.testing.assert_allclose(actor_of(model)(seen), expected, atol=2e-6)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_without_stable_baselines_the_rest_goes_on_and_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['stable_baselines3'] = None\n"
        "import peergrid.baselines.adapters, peergrid.baselines.policies.fixed\n"
        "try:\n    import peergrid.baselines.adapters.sb3\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'peergrid[sb3]'" in done.stdout, done.stderr
