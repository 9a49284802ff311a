"""Playing with the transformer takes nothing of what makes it: no data set, no training, no report."""

import subprocess
import sys

import pytest

MAKING = ("pyarrow", "joblib", "matplotlib")
# pandas, which the sun is computed with, loads pyarrow by itself where it is installed: so that nobody may, here.
PLAY = """
import sys
sys.modules.update(dict.fromkeys({making}))  # whoever imports one of these fails
from peergrid.envs import p2p_trading_v0
env = p2p_trading_v0.parallel_env(scenario="ieee33_communities", predictor={predictor!r})
observations, _ = env.reset(seed=0)
_, rewards, _, _, _ = env.step({{agent: env.action_space(agent).sample() for agent in env.agents}})
assert len(rewards) == 4
assert any(name == "torch" for name in sys.modules)
print(sorted(name for name in sys.modules if name.startswith("peergrid.surrogate.")))
"""


def python(code, cwd):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("predictor", ["transformer", "auto"])
def test_a_step_is_played_where_what_makes_the_transformer_is_not_installed(tmp_path, predictor):
    done = python(PLAY.format(making=MAKING, predictor=predictor), tmp_path)
    assert done.returncode == 0, done.stderr
    rooms = ("checkpoint", "model", "predictor", "questions")
    assert done.stdout.strip() == str([f"peergrid.surrogate.{room}" for room in rooms])


def test_the_predictor_loads_nothing_of_what_makes_it(tmp_path):
    code = f"import peergrid.surrogate.predictor, sys; print([name for name in {MAKING} if name in sys.modules])"
    done = python(code, tmp_path)
    assert done.stdout.strip() == "[]", done.stderr
