"""BenchMARL's view of the market: its algorithms train on the task and evaluate it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from benchmarl.algorithms import IppoConfig, MaddpgConfig, MappoConfig, MasacConfig
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig

from peergrid.baselines.adapters.benchmarl import TradingTask
from peergrid.envs.p2p_trading.scenario import load_scenario

SCENARIO = load_scenario("ieee33", intervals=4)
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def config(folder):
    """A few short iterations, with evaluation after each."""
    chosen = ExperimentConfig.get_from_yaml()
    chosen.loggers, chosen.render, chosen.save_folder = [], False, str(folder)
    chosen.evaluation_interval, chosen.evaluation_episodes = 32, 2
    chosen.on_policy_collected_frames_per_batch = chosen.off_policy_collected_frames_per_batch = 32
    chosen.on_policy_n_envs_per_worker = chosen.off_policy_n_envs_per_worker = 4
    chosen.on_policy_n_minibatch_iters, chosen.on_policy_minibatch_size = 2, 16
    chosen.off_policy_n_optimizer_steps, chosen.off_policy_train_batch_size = 2, 16
    chosen.max_n_frames = 96
    return chosen


@pytest.mark.parametrize("algorithm", [IppoConfig, MappoConfig, MaddpgConfig, MasacConfig])
@pytest.mark.parametrize("arguments", [{}, {"infos": (), "predictor": "oracle"}], ids=["told", "predicting"])
def test_an_algorithm_trains_and_evaluates(tmp_path, algorithm, arguments):
    experiment = Experiment(
        TradingTask(SCENARIO, **arguments),
        algorithm.get_from_yaml(),
        MlpConfig.get_from_yaml(),
        seed=0,
        config=config(tmp_path),
    )
    before = [parameter.clone() for parameter in experiment.policy.parameters()]
    experiment.run()
    assert experiment.total_frames == 96 and np.isfinite(experiment.mean_return)
    after = list(experiment.policy.parameters())
    assert any((old != new).any() for old, new in zip(before, after, strict=True))
    (told,) = tmp_path.glob("*/*.json")
    run = json.loads(told.read_text())["peergrid"]["ieee33"][experiment.algorithm_name]["seed_0"]
    returns = [value for name, step in run.items() if name.startswith("step_") for value in step["return"]]
    assert len(returns) == 6 and np.isfinite(returns).all()  # three evaluations of two episodes


def test_the_task_tells_its_specs_without_the_batch():
    task = TradingTask("ieee33", infos=("welfare",))
    env = task.get_env_fun(3, True, 0, "cpu")()
    assert env.batch_size == (3,) and task.max_steps(env) == 24
    assert task.group_map(env) == {"microgrid": [f"microgrid_{i}" for i in range(4)]}
    assert task.observation_spec(env)["microgrid", "observation"].shape == (4, 138)
    assert list(task.observation_spec(env)["microgrid"].keys()) == ["observation"]
    assert task.info_spec(env)["microgrid", "info", "welfare"].shape == (4, 1)
    assert task.action_spec(env)["microgrid", "action"].shape == (4, 4)
    assert list(task.state_spec(env).keys()) == ["state"] and len(task.state_spec(env)["state"].shape) == 1
    assert (
        TradingTask("ieee33", infos=()).info_spec(TradingTask("ieee33", infos=()).get_env_fun(1, True, 0, "cpu")())
        is None
    )


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_page_s_examples_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "training.md", "exec"), {})
