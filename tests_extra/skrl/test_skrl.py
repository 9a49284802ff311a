"""skrl's wrappers, agents and trainers play batches of markets, single ones, and PettingZoo's.

pip install -c constraints.txt -e '.[test,skrl]' && python -m pytest tests_extra/skrl
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from skrl.utils.model_instantiators.torch import deterministic_model, gaussian_model

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.baselines.adapters.layers import actor_of
from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.learned import load_policy
from peergrid.envs import p2p_trading_v0
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

every_maker = pytest.mark.parametrize("name", MAKERS)


def make(name):
    return MAKERS[name](scenario=SHORT, predictor="none", autoreset_mode="SameStep")


class Recorder(PPO):
    """PPO that keeps what it is told of every step."""

    def init(self, **told):
        super().init(**told)
        self.told = []

    def record_transition(self, **step):
        self.told.append({k: v.clone() for k, v in step.items() if isinstance(v, torch.Tensor)})
        super().record_transition(**step)


def trained(env, days, folder, rollouts=2 * HOURS):
    """An agent after so many days of every environment."""
    set_seed(5)
    both = {"observation_space": env.observation_space, "action_space": env.action_space, "device": env.device}
    network = [{"name": "net", "input": "OBSERVATIONS", "layers": [8], "activations": "tanh"}]
    models = {
        "policy": gaussian_model(**both, network=network, output="ACTIONS"),
        "value": deterministic_model(**both, network=network, output="ONE"),
    }
    cfg = PPO_CFG(rollouts=rollouts, learning_epochs=2, mini_batches=2, time_limit_bootstrap=True)
    cfg.experiment.directory, cfg.experiment.write_interval = str(folder), 1_000_000
    cfg.experiment.checkpoint_interval = 0
    agent = Recorder(models=models, memory=RandomMemory(memory_size=rollouts, num_envs=env.num_envs), cfg=cfg, **both)
    chosen = {"timesteps": days * HOURS, "disable_progressbar": True, "close_environment_at_exit": False}
    SequentialTrainer(env=env, agents=agent, cfg=chosen).train()
    agent.writer.close()
    return agent, models


@every_maker
def test_what_skrl_is_told_and_reports_is_what_we_play(name, tmp_path):
    set_seed(5)
    agent, _ = trained(wrap_env(make(name), verbose=False), 3, tmp_path)
    own = make(name)
    seen, _ = own.reset(seed=5)
    day, days = np.zeros(own.num_envs), []
    for k, step in enumerate(agent.told):
        np.testing.assert_allclose(step["observations"], seen, rtol=0, atol=1e-6)
        seen, rewards, terminations, truncations, _ = own.step(step["actions"].numpy())
        np.testing.assert_allclose(step["rewards"].ravel(), rewards, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(step["terminated"].ravel(), terminations)
        np.testing.assert_array_equal(step["truncated"].ravel(), truncations)
        ended = terminations | truncations
        assert ended.all() == (k % HOURS == HOURS - 1)
        day = day + rewards
        if ended.all():
            days, day = [*days, *day], np.zeros(own.num_envs)
    told = agent.tracking_data
    assert len(agent.told) == 3 * HOURS and set(told["Episode / Total timesteps (mean)"]) == {HOURS}
    np.testing.assert_allclose(told["Reward / Total reward (mean)"][-1], np.mean(days), rtol=1e-5)


def test_the_trainer_trains_and_its_actor_is_played(tmp_path):
    env = wrap_env(make("shared"), verbose=False)
    _, untrained = trained(env, 1, tmp_path / "a")
    _, models = trained(env, 80, tmp_path / "b")
    before, after = (m["policy"].state_dict() for m in (untrained, models))
    assert any((before[name] != after[name]).any() for name in before)
    seen, _ = make("shared").reset(seed=0)
    with torch.no_grad():
        expected = models["policy"].compute({"observations": torch.from_numpy(seen)}, "policy")[0]
    np.testing.assert_allclose(actor_of(models["policy"])(seen), expected.clip(-1, 1), atol=1e-5)


def test_single_and_parallel_environments_are_played_to_the_end_of_their_days():
    solo = wrap_env(gym.make("peergrid/SoloTrading-v0", scenario=SHORT, predictor="none"), verbose=False)
    solo.reset()
    market = wrap_env(p2p_trading_v0.parallel_env(scenario=SHORT, predictor="none"), verbose=False)
    seen, _ = market.reset()
    assert market.possible_agents == list(seen) and market.state() is not None
    for k in range(HOURS):
        *_, terminated, truncated, _ = solo.step(torch.zeros(1, 4))
        assert bool(terminated | truncated) == (k == HOURS - 1)
        *_, all_terminated, all_truncated, _ = market.step({agent: torch.zeros(1, 4) for agent in seen})
        for agent in seen:
            assert bool(all_terminated[agent]) == bool(terminated) and bool(all_truncated[agent]) == bool(truncated)


def test_the_page_s_example_runs_and_its_file_is_played(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (section,) = re.findall(r"^## skrl\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(re.sub(r"= ?(\S+)  # quick: (\S+)", r"= \2", code), "outside_trainers.md", "exec"), {})
    welfare = play_all(Simulation("ieee33", num_envs=2, predictor="none"), load_policy("skrl.safetensors"))
    assert np.isfinite(welfare).all()
