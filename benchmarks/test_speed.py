"""Speed as pytest benchmarks, to save and to compare between commits; they assert nothing about time.

    python -m pytest benchmarks/test_speed.py --benchmark-autosave
    python -m pytest benchmarks/test_speed.py --benchmark-compare

What is saved lies in outputs/benchmarks.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from speed_cones import RawClarabel
from speed_problems import FAST, REFERENCE, ProblemSet, draw_sets

from peergrid.envs import p2p_trading_v0
from peergrid.grid import solve_power_flow
from peergrid.grid.dso import SOLVERS

BATCH = 256
SETS = ("slack", "binding", "plain")
ROWS = (1, 64)


@pytest.fixture(scope="module")
def sets() -> dict[str, ProblemSet]:
    return draw_sets(BATCH)


@pytest.fixture(params=SETS)
def chosen(request, sets) -> ProblemSet:
    return sets[request.param]


@pytest.mark.parametrize("name", [name for name in (FAST, REFERENCE) if name in SOLVERS])
def test_one_opf(benchmark, chosen, name):
    solution = benchmark(chosen.solver(name), chosen.rows[0])
    assert solution.status == 0


def test_one_opf_of_raw_clarabel(benchmark, chosen):
    solution = benchmark(RawClarabel(chosen.problems, chosen.has_free_q), chosen.rows[0])
    assert solution.status == 0


@pytest.mark.skipif(FAST not in SOLVERS, reason="solves one by one")
def test_a_batch_of_opfs(benchmark, chosen):
    solution = benchmark(chosen.solver(FAST), chosen.problems)
    assert (solution.status == 0).all()


def test_one_answer_of_the_dso(benchmark, chosen):
    benchmark(chosen.dso, chosen.queries[0])


def test_a_batch_of_power_flows(benchmark, sets):
    chosen = sets["slack"]
    flow = benchmark(solve_power_flow, chosen.dso.feeder, -chosen.query.load_kw, -chosen.query.load_kvar)
    assert (flow.status == 0).all()


def test_a_step_of_pettingzoo(benchmark):
    env = p2p_trading_v0.parallel_env(scenario="ieee33", predictor="none")
    actions = {agent: np.zeros(4, np.float32) for agent in env.possible_agents}

    def begin_if_over():
        if not env.agents:
            env.reset(seed=0)

    benchmark.pedantic(env.step, args=(actions,), setup=begin_if_over, rounds=96, warmup_rounds=1)


@pytest.mark.parametrize("rows", ROWS)
def test_a_step_of_a_vector(benchmark, rows):
    env = gymnasium.make_vec("peergrid/CentralTrading-v0", rows)
    env.reset(seed=0)
    benchmark(env.step, np.zeros(env.action_space.shape, np.float32))
