"""Loops in the manner of CleanRL: Gymnasium's vector wrappers around our vector environments, and PPO on top of them.

pip install -c constraints.txt -e '.[test]' && python -m pytest tests_extra/cleanrl
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from cleanrl_ppo import Settings, actor_in, advantages_of, run, train, wrapped
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.baselines.policies.learned import load_policy
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.vector import shared_trading

HOURS, MARKETS = 4, 3
SHORT = load_scenario("ieee33", intervals=HOURS)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "outside_trainers.md"
MAKERS = {
    "shared": partial(shared_trading, MARKETS),
    "central": partial(gym.make_vec, "peergrid/CentralTrading-v0", num_envs=MARKETS),
    "solo": partial(gym.make_vec, "peergrid/SoloTrading-v0", num_envs=MARKETS),
}
WRAPPERS = {
    "ClipAction": wrappers.ClipAction,
    "ClipReward": partial(wrappers.ClipReward, min_reward=-1.0, max_reward=1.0),
    "DtypeObservation": partial(wrappers.DtypeObservation, dtype=np.float64),
    "FlattenObservation": wrappers.FlattenObservation,
    "NormalizeObservation": wrappers.NormalizeObservation,
    "NormalizeReward": wrappers.NormalizeReward,
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "RescaleAction": partial(wrappers.RescaleAction, min_action=-2.0, max_action=2.0),
    "RescaleObservation": partial(wrappers.RescaleObservation, min_obs=-1.0, max_obs=1.0),
    "TransformReward": partial(wrappers.TransformReward, func=lambda reward: reward / 100.0),
}

every_maker = pytest.mark.parametrize("name", MAKERS)


def make(name, mode=AutoresetMode.NEXT_STEP, scenario=SHORT):
    return MAKERS[name](scenario=scenario, predictor="none", autoreset_mode=mode)


def actions_for(envs, steps, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *envs.action_space.shape)).astype(np.float32)


@every_maker
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_of_vectors_steps_through_the_end_of_a_day(name, wrapper):
    envs, plain = WRAPPERS[wrapper](make(name)), make(name)
    seen, _ = envs.reset(seed=0)
    plain.reset(seed=0)
    ends = []
    for actions in actions_for(plain, HOURS + 2):
        assert envs.observation_space.contains(seen)
        seen, rewards, terminations, truncations, _ = envs.step(actions * (2.0 if wrapper == "RescaleAction" else 1.0))
        _, own, *_ = plain.step(actions)
        ends.append((terminations | truncations).tolist())
        assert np.isfinite(rewards).all() and rewards.shape == (envs.num_envs,)
        if wrapper not in ("ClipReward", "NormalizeReward", "TransformReward"):
            np.testing.assert_allclose(rewards, own, rtol=1e-5, atol=1e-6)
    assert ends == [[k == HOURS - 1] * envs.num_envs for k in range(HOURS + 2)]


@every_maker
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_statistics_of_an_episode_are_the_sum_of_its_rewards(name, mode):
    envs, earned, days = wrappers.RecordEpisodeStatistics(make(name, mode)), 0.0, []
    envs.reset(seed=5)
    for actions in actions_for(envs, 3 * HOURS + 2):
        _, rewards, terminations, truncations, infos = envs.step(actions)
        earned = earned + rewards
        # One of both, for all at once, as the scenario says.
        assert not (terminations & truncations).any()
        if (terminations | truncations).any():
            terminates = envs.unwrapped.player.simulation.terminates
            assert terminations.all() == terminates and truncations.all() == (not terminates)
            assert infos["episode"]["l"].tolist() == [HOURS] * envs.num_envs and infos["_episode"].all()
            np.testing.assert_allclose(infos["episode"]["r"], earned, rtol=1e-9)
            days.append(infos["episode"]["r"])
            earned = 0.0
    assert len(days) == 3 and envs.episode_count == 3 * envs.num_envs


def test_what_the_microgrids_of_a_market_earn_is_what_we_count_ourselves():
    # Held-out day k is in row k, where nobody trades, both for a wrapper of others and for our own scores.
    envs = wrappers.RecordEpisodeStatistics(make("shared"))
    envs.reset(options={"evaluation_day": 0})
    for _ in range(HOURS):
        *_, infos = envs.step(np.zeros(envs.action_space.shape, dtype=np.float32))
    test, gains = Simulation(SHORT, num_envs=MARKETS, predictor="none"), 0.0
    test.reset(options={"evaluation_day": 0})
    for _ in range(HOURS):
        _, outcome = test.step(np.zeros((MARKETS, test.n_agent, 4)))
        gains = gains + outcome.reward
    np.testing.assert_allclose(infos["episode"]["r"], gains.ravel(), rtol=1e-6)


@pytest.mark.parametrize("terminates", [True, False])
def test_nothing_follows_a_termination_and_the_last_observation_a_truncation(terminates):
    # Values are 1, 2, 4 and rewards 0; the episode ends with the second step, and the third is the reset.
    settings = Settings(gamma=0.5, gae_lambda=0.5)
    values = torch.tensor([[1.0], [2.0], [4.0]])
    ended = torch.tensor([[False], [True], [False]])
    batch = [torch.zeros(0)] * 3 + [values, torch.zeros_like(values), ~ended, ended & terminates, ended]
    advantages = advantages_of(batch, torch.tensor([8.0]), settings)
    second = -2.0 if terminates else 0.5 * 4.0 - 2.0
    np.testing.assert_allclose(advantages.ravel(), [0.5 * 2.0 - 1.0 + 0.25 * second, second, 0.5 * 8.0 - 4.0])


def test_the_file_acts_as_the_agent_does_behind_its_wrappers(tmp_path):
    settings = Settings(steps=256, num_envs=4, n_steps=16)
    envs = wrapped(shared_trading(4, scenario=SHORT, predictor="none"), settings.gamma)
    agent, curve = train(envs, settings)
    assert len(curve) == 4 and np.isfinite(curve).all()
    seen, _ = shared_trading(4, scenario=SHORT, predictor="none").reset(seed=9)
    normal = envs.env
    scaled = (seen - normal.obs_rms.mean) / np.sqrt(normal.obs_rms.var + normal.epsilon)
    with torch.no_grad():
        agent.actor[-1].weight.mul_(10.0)
        expected = agent.actor(torch.from_numpy(scaled.astype(np.float32))).numpy().clip(-1.0, 1.0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actor_in(agent, envs)(seen), expected, atol=1e-3)


def test_ppo_learns_and_its_file_is_better_than_no_trade(tmp_path):
    file = tmp_path / "cleanrl.safetensors"
    curve = run("ieee33", "none", Settings(steps=50_000), file)
    assert np.mean(curve[-3:]) > np.mean(curve[:3])
    test = Simulation("ieee33", num_envs=5, predictor="none")
    assert play_all(test, load_policy(file)).mean() > play_all(test, NoTrade()).mean()


def test_the_page_s_example_runs_and_its_file_is_played(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (section,) = re.findall(
        r"^## CleanRL\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(re.sub(r"= ?(\S+)  # quick: (\S+)", r"= \2", code), "outside_trainers.md", "exec"), {})
    welfare = play_all(Simulation("ieee33", num_envs=2, predictor="none"), load_policy("cleanrl.safetensors"))
    assert np.isfinite(welfare).all()
