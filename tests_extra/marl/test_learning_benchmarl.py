"""Training with BenchMARL: the same jobs, curves and files as with Stable-Baselines3."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from peergrid.baselines.adapters.torchrl import GROUP, TradingEnv
from peergrid.baselines.episode.play import play_all, play_day
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.baselines.policies.learned import load_policy
from peergrid.baselines.scoring.references import References
from peergrid.baselines.training.benchmarl import Course, ReturnScale, SharedActor, build_experiment
from peergrid.baselines.training.lesson import CHECKPOINT, CURVE, AlgoSettings, Lesson, Progress, learn, read_curve
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidCheckpoint, PeergridError, UnknownName

SCENARIO = load_scenario("ieee33", intervals=6)
ON_POLICY = {
    "on_policy_collected_frames_per_batch": 64,
    "on_policy_minibatch_size": 32,
    "on_policy_n_minibatch_iters": 2,
    "lr": 0.01,
}
OFF_POLICY = {
    "off_policy_collected_frames_per_batch": 32,
    "off_policy_train_batch_size": 16,
    "off_policy_n_optimizer_steps": 2,
    "off_policy_memory_size": 500,
    "lr": 0.01,
}
ALGORITHMS = {"ippo": ON_POLICY, "mappo": ON_POLICY, "masac": OFF_POLICY}
KNOWN = References(no_trade=np.array([-1000.0, -1000.0]), optimum=np.array([-900.0, -900.0]))


def algo(name, **arguments):
    chosen = ALGORITHMS[name] | arguments
    return AlgoSettings(name=name, library="benchmarl", num_envs=4, net_arch=[16], arguments=chosen)


def lesson(folder, name="mappo", steps=128, seed=3, player="shared", scenario=SCENARIO, known=KNOWN, **arguments):
    return Lesson(
        scenario=scenario,
        references=known,
        algo=algo(name, **arguments),
        predictor="none",
        player=player,
        steps=steps,
        check_every=64,
        seed=seed,
        folder=folder,
    )


def train(folder, *given, **named):
    return learn(lesson(folder, *given, **named))


def weights_of(folder):
    return load_policy(folder / "policy.safetensors").actor.weights


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_gives_the_same_curve_and_the_same_weights(tmp_path, name):
    one, two = (train(tmp_path / folder, name) for folder in "ab")
    assert [p.welfare for p in one] == [p.welfare for p in two]
    assert [p.steps for p in one] == [0, 64, 128]
    assert len({p.welfare for p in one}) == 3  # it does learn something
    a, b = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    other = train(tmp_path / "c", name, seed=4)
    assert [p.welfare for p in other] != [p.welfare for p in one]
    assert 0 < one[1].environment_seconds < one[1].seconds


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_interrupted_training_goes_on_where_it_was(tmp_path, name):
    first = train(tmp_path, name, steps=64)
    before, kept = weights_of(tmp_path), torch.load(tmp_path / CHECKPOINT, weights_only=True)
    longer = train(tmp_path, name, steps=128)
    assert [p.steps for p in longer] == [0, 64, 128] and longer[:2] == first
    assert read_curve(tmp_path / CURVE) == longer
    assert any(not np.array_equal(old, new) for old, new in zip(before, weights_of(tmp_path), strict=True))
    after = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    # Optimisers, replay and the scale of rewards go on rather than begin anew.
    steps = [
        min(s["step"] for s in state["optimizers"][part]["state"].values())
        for state in (kept, after)
        for part in list(state["optimizers"])[:1]
    ]
    assert steps[1] == 2 * steps[0] > 0
    assert after["returns"][2] == pytest.approx(2 * kept["returns"][2], rel=1e-6)
    if ALGORITHMS[name] is OFF_POLICY:
        assert len(after["replay"]["state"]) == 128
        assert torch.equal(after["replay"]["state"][:64], kept["replay"]["state"])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_policy_of_the_file_acts_as_benchmarls_own_does_without_exploring(tmp_path, name):
    wanted = lesson(tmp_path, name, steps=64)
    experiment = build_experiment(wanted, 0, str(tmp_path))
    own = experiment.algorithm.get_policy_for_loss(GROUP)
    (layers,) = [module.layers for module in own.modules() if isinstance(module, SharedActor)]
    with torch.no_grad():
        layers[-1].weight.mul_(100.0)
    actor = Course(Progress(wanted, print), experiment).actor()
    seen = TradingEnv(3, seed=0, scenario=SCENARIO).reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        expected = own(seen.clone())[GROUP, "action"].numpy()
    acted = actor(seen[GROUP, "observation"].reshape(12, -1).numpy())
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(acted.reshape(3, 4, 4), expected, atol=1e-6)
    experiment.close()


def test_an_untrained_policy_is_near_no_trade(tmp_path):
    scenario = load_scenario("ieee33")
    test = Simulation(scenario, num_envs=2)
    idle = play_all(test, NoTrade())
    known = References(no_trade=idle, optimum=idle + 100.0)
    for name in ALGORITHMS:
        curve = train(tmp_path / name, name, steps=0, scenario=scenario, known=known)
        assert len(curve) == 1 and abs(curve[0].score) < 5.0


def test_a_learned_policy_plays_the_same_alone_and_in_a_batch(tmp_path):
    curve = train(tmp_path, steps=64)
    policy = load_policy(tmp_path / "policy.safetensors")
    known = {"algorithm": "mappo", "scenario": "ieee33", "season": [0, 0], "predictor": "none", "seed": 3, "steps": 64}
    assert policy.about == known
    alone = [play_day(P2PTrading(SCENARIO), policy, day).welfare for day in range(2)]
    np.testing.assert_allclose(play_all(Simulation(SCENARIO, num_envs=2), policy), alone, rtol=1e-5)
    assert curve[-1].welfare == pytest.approx(np.mean(alone), rel=1e-5)


def test_a_policy_is_played_without_benchmarl(tmp_path):
    train(tmp_path, steps=64)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torchrl', 'benchmarl', 'tensordict', 'stable_baselines3')))\n"
    )
    code += "from peergrid.baselines.policies.learned import load_policy; "
    code += f"load_policy({str(tmp_path / 'policy.safetensors')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


def test_checkpoints_that_are_damaged_or_evil_are_refused_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "job", steps=64)
    checkpoint = tmp_path / "job" / CHECKPOINT
    for bad in (b"nonsense", pickle.dumps(Evil())):
        checkpoint.write_bytes(bad)
        with pytest.raises(InvalidCheckpoint, match="Delete the folder to train anew"):
            train(tmp_path / "job", steps=128)
    assert not (tmp_path / "evil-was-here").exists()
    torch.save({"steps": 64, "loss": {}, "policy": {}}, checkpoint)
    with pytest.raises(InvalidCheckpoint, match="Delete the folder to train anew"):
        train(tmp_path / "job", steps=128)
    assert not list(tmp_path.glob("**/*.pkl"))


def test_what_cannot_be_trained_says_why(tmp_path):
    with pytest.raises(PeergridError, match="player=shared"):
        train(tmp_path, player="central")
    with pytest.raises(UnknownName, match="Did you mean 'lmbda'"):
        train(tmp_path, lmbd=0.9)
    with pytest.raises(UnknownName, match="no argument"):
        train(tmp_path, use_tanh_normal=False)


def test_rewards_are_divided_by_the_spread_of_discounted_returns():
    scale, rewards = ReturnScale(0.5), torch.tensor([2.0, 4.0, 8.0, 2.0]).reshape(1, 4, 1, 1)
    done = torch.tensor([False, True, False, False]).reshape(1, 4, 1)
    scaled = torch.cat([scale(rewards[:, :3], done[:, :3]), scale(rewards[:, 3:], done[:, 3:])], dim=1)
    # Returns are 2, 5 | 8, 6: the episode's end begins them anew, and a batch's end does not.
    first, all_four = np.std([2.0, 5.0, 8.0]), np.std([2.0, 5.0, 8.0, 6.0])
    np.testing.assert_allclose(scaled.ravel(), np.array([2 / first, 4 / first, 8 / first, 2 / all_four]), rtol=1e-3)


def test_the_command_makes_a_job_whose_policy_plays(tmp_path):
    options = ["days=1", "+scenario.intervals=3", f"cache={tmp_path / 'cache'}"]
    train_it = ["train", "algo=mappo", "steps=64", "check_every=64", "algo.num_envs=2", f"output={tmp_path / 'out'}"]
    train_it += [f"algo.arguments.{name}={value}" for name, value in ON_POLICY.items()]
    run(train_it + options, tmp_path)
    (job,) = (tmp_path / "out").iterdir()
    assert {"DONE", "run.json", "result.json", "curve.csv", "policy.safetensors", CHECKPOINT} == {
        path.name for path in job.iterdir()
    }
    assert "is done" in run(train_it + options, tmp_path)
    play = ["evaluate", f"policy={job / 'policy.safetensors'}", f"output={tmp_path / 'played'}"]
    run(play + options, tmp_path)
    (played,) = (tmp_path / "played").glob("*/result.json")
    trained = json.loads((job / "result.json").read_text())
    assert json.loads(played.read_text())["days"] == trained["days"] and trained["steps"] == 64


def run(arguments, folder):
    command = [sys.executable, "-m", f"peergrid.baselines.{arguments[0]}", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
