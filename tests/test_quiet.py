"""Nothing is printed unless asked for."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import peergrid
from peergrid.baselines.episode.play import play_day
from peergrid.baselines.policies.fixed import Planned
from peergrid.baselines.scoring.score import optimal_welfare
from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.envs.p2p_trading.scenario import load_scenario, scenario_names
from peergrid.grid import DsoQuery, OpfDso, load_feeder


def step_parallel(make, **arguments):
    env = make(**arguments)
    env.reset(seed=0)
    for _ in range(2):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    env.close()


def step_gymnasium(name):
    env = gymnasium.make(name)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda: step_parallel(p2p_trading_v0.parallel_env, predictor="transformer"),
        lambda: step_parallel(p2p_trading_v0.parallel_env, predictor="oracle", render_mode="ansi"),
        lambda: step_parallel(transactive_v0.parallel_env, roles="both"),
        *(lambda name=name: step_gymnasium(name) for name in gymnasium.registry if name.startswith("peergrid/")),
        lambda: [load_scenario(name) for name in scenario_names()],
        lambda: optimal_welfare("ieee33", 0),
        lambda: play_day(p2p_trading_v0.parallel_env(mechanism="direct"), Planned(), 0),
    ],
)
def test_using_the_library_prints_nothing(use, capfd):
    use()
    assert capfd.readouterr() == ("", "")


def test_the_physics_prints_nothing(capfd):
    feeder, proposed_kw = load_feeder("ieee33"), np.array([100.0])
    for solver in ("interior_point", "conic"):
        dso = OpfDso(feeder, trade_bus=[17], solver=solver)
        dso(DsoQuery(load_kw=feeder.load_kw, load_kvar=feeder.load_kvar, proposed_kw=proposed_kw, lmp_per_kwh=0.1))
    assert capfd.readouterr() == ("", "")


def test_a_first_import_prints_nothing(tmp_path):
    code = "import peergrid, peergrid.grid, peergrid.envs.p2p_trading_v0, peergrid.surrogate.predictor"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert peergrid.__version__
