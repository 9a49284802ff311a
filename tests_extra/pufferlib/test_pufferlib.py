"""PufferLib's emulation and vectors play our environments. Its trainer needs an extension compiled for CUDA.

pip install -c constraints.txt -e '.[test]' && pip install --no-deps pufferlib-core==3.0.23
pip install -c constraints.txt psutil pyro-ppl rich-argparse && python -m pytest tests_extra/pufferlib
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pufferlib.vector
import pytest
from pufferlib.emulation import GymnasiumPufferEnv, PettingZooPufferEnv

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.envs import p2p_trading_v0
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.vector import shared_trading, solo_trading

HOURS, MARKETS = 4, 2
SHORT = load_scenario("ieee33", intervals=HOURS)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "outside_trainers.md"


def market(buf=None, seed=0):
    make = partial(p2p_trading_v0.parallel_env, scenario=SHORT, predictor="none")
    return PettingZooPufferEnv(env_creator=make, buf=buf, seed=seed)


def solo(buf=None, seed=0):
    make = partial(gym.make, "peergrid:peergrid/SoloTrading-v0", scenario=SHORT, predictor="none")
    return GymnasiumPufferEnv(env_creator=make, buf=buf, seed=seed)


@pytest.mark.parametrize("backend", ["Serial", "Multiprocessing"])
@pytest.mark.parametrize(("maker", "ours"), [(market, shared_trading), (solo, solo_trading)], ids=["market", "solo"])
def test_what_pufferlib_plays_is_what_we_play(maker, ours, backend):
    # Both reset in a step of its own after the last, and count seeds alike.
    arguments = {"num_workers": MARKETS} if backend == "Multiprocessing" else {}
    theirs = pufferlib.vector.make(maker, num_envs=MARKETS, backend=getattr(pufferlib.vector, backend), **arguments)
    own = ours(MARKETS, scenario=SHORT, predictor="none")
    try:
        seen, _ = theirs.reset(seed=7)
        expected, _ = own.reset(seed=7)
        rng, ends = np.random.default_rng(0), []
        for _ in range(2 * HOURS + 1):
            np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-5)
            actions = rng.uniform(-1, 1, own.action_space.shape).astype(np.float32)
            seen, rewards, terminals, truncations, _ = theirs.step(actions)
            expected, earned, terminated, truncated, _ = own.step(actions)
            np.testing.assert_allclose(rewards, earned, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(terminals, terminated)
            np.testing.assert_array_equal(truncations, truncated)
            ends.append(bool((terminated | truncated).all()))
        assert ends == [k in (HOURS - 1, 2 * HOURS) for k in range(2 * HOURS + 1)]
    finally:
        theirs.close()


def test_the_page_s_example_runs(capsys):
    (section,) = re.findall(
        r"^## PufferLib\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(code, "outside_trainers.md", "exec"), {})
    assert capsys.readouterr().out.startswith("(16, ")
