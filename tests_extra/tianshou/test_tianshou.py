"""Tianshou's collectors and trainers play batches of markets, and single ones in its own vectors.

pip install -c constraints.txt -e '.[test,tianshou]' && python -m pytest tests_extra/tianshou
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import TransformReward
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch.distributions import Independent, Normal

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.baselines.adapters.layers import actor_of
from peergrid.baselines.adapters.tianshou import TradingVectorEnv, central_trading, shared_trading, solo_trading
from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.learned import load_policy
from peergrid.envs.p2p_trading import vector
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import PeergridError

HOURS, MARKETS = 4, 3
SHORT = load_scenario("ieee33", intervals=HOURS)
MAKERS = {"shared": shared_trading, "central": central_trading, "solo": solo_trading}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "outside_trainers.md"

every_maker = pytest.mark.parametrize("name", MAKERS)


def make(name):
    return MAKERS[name](MARKETS, scenario=SHORT, predictor="none")


def ppo(envs):
    """PPO with small networks for the environments of a vector."""
    torch.manual_seed(0)
    seen, numbers = envs.observation_space[0], envs.action_space[0]
    nets = [Net(state_shape=seen.shape, hidden_sizes=(8,), activation=torch.nn.Tanh) for _ in range(2)]
    actor = ContinuousActorProbabilistic(preprocess_net=nets[0], action_shape=numbers.shape, unbounded=True)
    policy = ProbabilisticActorPolicy(
        actor=actor,
        dist_fn=lambda told: Independent(Normal(*told), 1),
        action_space=numbers,
        action_scaling=False,
        action_bound_method="clip",
    )
    critic = ContinuousCritic(preprocess_net=nets[1])
    return PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=1e-3))


def collected(envs, days=2):
    """What a collector says of some days of each environment, and the buffer it filled."""
    buffer = VectorReplayBuffer(envs.env_num * HOURS * days, envs.env_num)
    collector = Collector(ppo(envs), envs, buffer)
    collector.reset(gym_reset_kwargs={"seed": 7})
    return collector.collect(n_step=envs.env_num * HOURS * days), buffer


@every_maker
def test_what_tianshou_collects_is_what_we_play(name):
    envs = make(name)
    told, buffer = collected(envs)
    n = envs.env_num
    own = getattr(vector, f"{name}_trading")(MARKETS, scenario=SHORT, predictor="none", autoreset_mode="SameStep")
    seen, _ = own.reset(seed=7)
    day, days = np.zeros(n), []
    for k in range(2 * HOURS):
        at = np.arange(n) * 2 * HOURS + k  # where the buffer has this step of every environment
        np.testing.assert_allclose(buffer.obs[at], seen, rtol=0, atol=1e-6)
        seen, rewards, terminations, truncations, infos = own.step(np.clip(buffer.act[at], -1.0, 1.0))
        np.testing.assert_allclose(buffer.rew[at], rewards, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(buffer.terminated[at], terminations)
        np.testing.assert_array_equal(buffer.truncated[at], truncations)
        ended = terminations | truncations
        assert ended.all() == (k % HOURS == HOURS - 1)
        end = np.stack(list(infos["final_obs"])) if ended.all() else seen
        np.testing.assert_allclose(buffer.obs_next[at], end, rtol=0, atol=1e-6)
        day = day + rewards
        if ended.all():
            days, day = [*days, *day], np.zeros(n)
    assert told.n_collected_episodes == 2 * n and set(told.lens) == {HOURS}
    np.testing.assert_allclose(told.returns, days, rtol=1e-6)


def test_a_vector_of_tianshou_s_own_plays_single_environments():
    one = partial(gym.make, "peergrid/SoloTrading-v0", scenario=SHORT, predictor="none")
    told, _ = collected(DummyVectorEnv([one] * 2))
    batch, _ = collected(solo_trading(2, scenario=SHORT, predictor="none"))
    assert told.n_collected_episodes == 4 and set(told.lens) == {HOURS}
    assert np.isfinite(told.returns).all() and batch.n_collected_episodes == 4


def test_the_trainer_trains_and_its_actor_is_played(tmp_path):
    envs, test = make("shared"), make("shared")
    algorithm = ppo(envs)
    before = [p.detach().clone() for p in algorithm.policy.parameters()]
    training = Collector(algorithm, envs, VectorReplayBuffer(envs.env_num * HOURS * 4, envs.env_num))
    testing = Collector(algorithm, test)
    told = algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=training,
            test_collector=testing,
            max_epochs=2,
            epoch_num_steps=envs.env_num * HOURS * 40,
            collection_step_num_env_steps=envs.env_num * HOURS * 4,
            update_step_num_repetitions=2,
            test_step_num_episodes=test.env_num,
            batch_size=64,
        )
    )
    assert told.train_step == 2 * envs.env_num * HOURS * 40 and np.isfinite(told.best_reward)
    assert any((old != new).any() for old, new in zip(before, algorithm.policy.parameters(), strict=True))

    actor = actor_of(algorithm.policy.actor.preprocess, algorithm.policy.actor.mu)
    seen, _ = test.reset(seed=0)
    with torch.no_grad():
        expected = algorithm.policy.actor(seen)[0][0].numpy().clip(-1.0, 1.0)
    np.testing.assert_allclose(actor(seen), expected, atol=1e-5)


def test_environments_are_asked_and_set_as_tianshou_does():
    envs = make("shared")
    assert len(envs) == 4 * MARKETS and len(envs.observation_space) == 4 * MARKETS
    assert envs.action_space[0].shape == (4,) and envs.get_env_attr("num_envs", 0) == [4 * MARKETS]
    envs.set_env_attr("anything", 3)
    assert envs.vector.anything == 3
    envs.seed(3)
    assert envs.render() == []
    envs.close()


def test_gymnasium_s_wrappers_may_stand_between():
    plain, scaled = (vector.shared_trading(MARKETS, scenario=SHORT, autoreset_mode="Disabled") for _ in range(2))
    told, buffer = collected(TradingVectorEnv(TransformReward(scaled, lambda reward: reward / 100.0)))
    expected, own = collected(TradingVectorEnv(plain))
    np.testing.assert_allclose(buffer.rew, own.rew / 100.0, rtol=1e-6)
    np.testing.assert_allclose(told.returns, expected.returns / 100.0, rtol=1e-6)


def test_what_a_batch_cannot_do_is_refused():
    envs = make("shared")
    envs.reset()
    with pytest.raises(PeergridError, match="2 of 12 environments were to step, which step together"):
        envs.step(np.zeros((2, 4)), [0, 1])
    with pytest.raises(PeergridError, match="parts the microgrids of a row"):
        envs.reset([0, 1])
    with pytest.raises(PeergridError, match="Tianshou resets by itself"):
        TradingVectorEnv(vector.shared_trading(1, scenario=SHORT))


def test_the_page_s_example_runs_and_its_file_is_played(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (section,) = re.findall(
        r"^## Tianshou\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(re.sub(r"= ?(\S+)  # quick: (\S+)", r"= \2", code), "outside_trainers.md", "exec"), {})
    welfare = play_all(Simulation("ieee33", num_envs=2, predictor="none"), load_policy("tianshou.safetensors"))
    assert np.isfinite(welfare).all()
