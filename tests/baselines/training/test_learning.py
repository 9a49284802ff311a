"""Training: it learns, it is the same twice, it goes on where it was, and its files run no code."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from threadpoolctl import threadpool_info

from peergrid.baselines import train as train_entry
from peergrid.baselines.entry import settings_from
from peergrid.baselines.episode.play import play_all, play_day
from peergrid.baselines.evaluate import EvaluateSettings
from peergrid.baselines.policies.fixed import NoTrade, Truthful
from peergrid.baselines.policies.learned import LearnedPolicy, load_policy, policy_of, save_policy
from peergrid.baselines.run_policy import RunPolicySettings
from peergrid.baselines.scoring.references import References, references, score_policy
from peergrid.baselines.scoring.score import optimal_welfare
from peergrid.baselines.studies.collect import collect, marl_eval, scores
from peergrid.baselines.studies.jobs import DONE, FAILED, run_job
from peergrid.baselines.train import TrainSettings
from peergrid.baselines.training.lesson import CHECKPOINT, CURVE, AlgoSettings, Lesson, learn, read_curve
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.scenario import load_scenario, scenario_from_dict
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidCheckpoint, PeergridError, UnknownName

SCENARIO = load_scenario("ieee33", intervals=6)
PPO = AlgoSettings(num_envs=4, net_arch=[16], arguments={"copies": 2, "minibatch": 32, "epochs": 2})
PPO_SB3 = AlgoSettings(
    name="ppo_sb3",
    library="sb3",
    num_envs=4,
    net_arch=[16],
    arguments={"n_steps": 12, "batch_size": 48, "n_epochs": 2, "gamma": 0.9, "policy_kwargs": {"log_std_init": -1.0}},
)
SAC = AlgoSettings(
    name="sac",
    library="sb3",
    num_envs=4,
    net_arch=[16],
    arguments={"buffer_size": 500, "batch_size": 32, "learning_starts": 50},
)
every_algorithm = pytest.mark.parametrize("algo", [PPO, PPO_SB3, SAC], ids=["ppo", "ppo_sb3", "sac"])
CONF = Path(train_entry.__file__).resolve().parents[1] / "conf"


@pytest.fixture(scope="module")
def known():
    """Made-up references of two days: only the scale of scores depends on them."""
    return References(no_trade=np.array([-1000.0, -1000.0]), optimum=np.array([-900.0, -900.0]))


def train(folder, known, algo=PPO, steps=96, seed=3, player="shared"):
    lesson = Lesson(
        scenario=SCENARIO,
        references=known,
        algo=algo,
        predictor="none",
        predicted_intervals=None,
        player=player,
        steps=steps,
        check_every=48,
        seed=seed,
        folder=folder,
    )
    return learn(lesson)


def weights_of(folder):
    return load_policy(folder / "policy.safetensors").actor.weights


@every_algorithm
def test_the_same_seed_gives_the_same_curve_and_the_same_weights(tmp_path, known, algo):
    one, two = (train(tmp_path / name, known, algo) for name in "ab")
    assert [p.welfare for p in one] == [p.welfare for p in two]
    assert [p.steps for p in one] == [0, 48, 96]
    assert len({p.welfare for p in one}) == 3  # it does learn something
    a, b = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    other = train(tmp_path / "c", known, algo, seed=4)
    assert [p.welfare for p in other] != [p.welfare for p in one]


@every_algorithm
def test_an_interrupted_training_goes_on_where_it_was(tmp_path, known, algo):
    first = train(tmp_path, known, algo, steps=48)
    before = weights_of(tmp_path)
    longer = train(tmp_path, known, algo, steps=96)
    assert [p.steps for p in longer] == [0, 48, 96]
    assert longer[:2] == first
    assert read_curve(tmp_path / CURVE) == longer
    assert any(not np.array_equal(old, new) for old, new in zip(before, weights_of(tmp_path), strict=True))


def test_a_central_policy_sees_and_acts_for_all(tmp_path, known):
    train(tmp_path, known, player="central", steps=48)
    policy = load_policy(tmp_path / "policy.safetensors")
    assert policy.actor.n_seen == 4 * 138 and len(policy.actor.biases[-1]) == 16
    simulation = Simulation(SCENARIO, num_envs=2)
    assert np.isfinite(play_all(simulation, policy)).all()


def test_a_solo_policy_acts_for_the_first_while_others_are_truthful(tmp_path, known):
    train(tmp_path, known, player="solo", steps=48)
    policy, simulation, truthful = load_policy(tmp_path / "policy.safetensors"), Simulation(SCENARIO), Truthful()
    simulation.reset(seed=0)
    for each in (policy, truthful):
        each.begin_rows(simulation, np.ones(1, dtype=bool))
    acted, others = (each.act_rows(simulation, simulation.seen)[0] for each in (policy, truthful))
    np.testing.assert_array_equal(acted[1:], others[1:])
    np.testing.assert_array_equal(acted[0], policy.actor(simulation.seen[:, 0])[0])
    assert not np.allclose(acted[0], others[0])


def test_a_learned_policy_plays_the_same_alone_and_in_a_batch(tmp_path, known):
    curve = train(tmp_path, known, steps=48)
    policy = load_policy(tmp_path / "policy.safetensors")
    alone = [play_day(P2PTrading(SCENARIO, predictor="none"), policy, day).welfare for day in range(2)]
    together = Simulation(SCENARIO, num_envs=2, predictor="none")
    np.testing.assert_allclose(play_all(together, policy), alone, rtol=1e-5)
    assert curve[-1].welfare == pytest.approx(np.mean(alone), rel=1e-5)


def test_a_policy_of_another_size_of_market_is_refused(tmp_path, known):
    train(tmp_path, known, steps=48)
    other = Simulation(load_scenario("ieee33", lookahead=4))
    other.reset(seed=0)
    with pytest.raises(InvalidCheckpoint, match="sees 138 numbers, and this scenario shows 86"):
        load_policy(tmp_path / "policy.safetensors").begin_rows(other, np.ones(1, dtype=bool))


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


def test_files_that_are_damaged_or_evil_are_refused_and_run_nothing(tmp_path, known, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "job", known, steps=48)
    weights, checkpoint = tmp_path / "job" / "policy.safetensors", tmp_path / "job" / CHECKPOINT
    for bad in (b"", b"nonsense", pickle.dumps(Evil()), weights.read_bytes()[:-100]):
        (tmp_path / "bad.safetensors").write_bytes(bad)
        with pytest.raises(InvalidCheckpoint, match=r"bad\.safetensors"):
            load_policy(tmp_path / "bad.safetensors")
    actor = load_policy(weights).actor
    for evil in (
        replace(actor, weights=actor.weights[::-1]),
        replace(actor, biases=actor.biases[:1]),
        replace(actor, weights=(actor.weights[0] * np.float32(np.nan), *actor.weights[1:])),
        replace(actor, activation="eval"),
    ):
        save_policy(tmp_path / "bad.safetensors", evil, "shared", {})
        with pytest.raises(InvalidCheckpoint, match=r"bad\.safetensors"):
            load_policy(tmp_path / "bad.safetensors")
    with pytest.raises(InvalidCheckpoint, match=r"missing\.safetensors"):
        load_policy(tmp_path / "missing.safetensors")
    for bad in (b"nonsense", pickle.dumps(Evil())):
        checkpoint.write_bytes(bad)
        with pytest.raises(InvalidCheckpoint, match="Delete the folder to train anew"):
            train(tmp_path / "job", known, steps=96)
    assert not (tmp_path / "evil-was-here").exists()


def test_references_are_those_of_no_trade_and_of_the_optimum_and_are_kept(tmp_path):
    found = references(SCENARIO, 2, tmp_path)
    for day in range(2):
        assert found.no_trade[day] == play_day(P2PTrading(SCENARIO), NoTrade(), day).welfare
        assert found.optimum[day] == optimal_welfare(SCENARIO, day)
    (path,) = tmp_path.iterdir()
    changed = json.loads(path.read_text()) | {"no_trade": [1.0, 2.0]}
    path.write_text(json.dumps(changed))
    assert references(SCENARIO, 2, tmp_path).no_trade.tolist() == [1.0, 2.0]  # read, not computed again
    references(load_scenario("ieee33", intervals=5), 2, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # another scenario has its own


def test_no_trade_scores_0_when_it_is_played_like_any_other_policy(tmp_path):
    found = references(SCENARIO, 2, tmp_path)
    assert found.score(play_all(Simulation(SCENARIO, num_envs=2), NoTrade())) == pytest.approx(0.0, abs=1e-3)
    assert abs(found.score(play_all(Simulation(SCENARIO, num_envs=2), Truthful()))) > 1.0


def test_held_out_days_for_tuning_are_others(tmp_path):
    first, later = references(SCENARIO, 2, tmp_path), references(SCENARIO, 1, tmp_path, first=1)
    assert later.no_trade[0] == first.no_trade[1] and later.optimum[0] == first.optimum[1]
    simulation = Simulation(SCENARIO, num_envs=1)
    assert later.score(play_all(simulation, NoTrade(), later.first)) == pytest.approx(0.0, abs=1e-3)
    assert score_policy(SCENARIO, "none", NoTrade(), later, "no_trade").days == pytest.approx([first.no_trade[1]])


def test_policies_are_found_by_name_by_file_and_by_attribute(tmp_path, known):
    train(tmp_path, known, steps=48)
    assert isinstance(policy_of(str(tmp_path / "policy.safetensors")), LearnedPolicy)
    assert isinstance(policy_of("truthful"), Truthful)
    assert isinstance(policy_of("peergrid.baselines.policies.fixed:NoTrade"), NoTrade)
    with pytest.raises(UnknownName, match="Did you mean 'truthful'"):
        policy_of("truthfull")


# Configurations


def every_choice():
    groups = ("scenario", "network", "market", "season", "reward", "predictor", "algo", "launcher", "experiment")
    return [f"{group}={path.stem}" for group in groups for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("choice", every_choice())
def test_every_choice_composes(choice):
    with initialize_config_module("peergrid.conf", version_base="1.3"):
        settings = settings_from(compose("train", [choice]), TrainSettings)
        assert scenario_from_dict(settings.scenario).microgrids
        if not choice.startswith(("algo", "experiment")):
            settings_from(compose("evaluate", [choice]), EvaluateSettings)
            settings_from(compose("run_policy", [choice]), RunPolicySettings)


def test_choices_reach_the_scenario():
    with initialize_config_module("peergrid.conf", version_base="1.3"):
        chosen = ["market=bilateral", "reward=mixed", "network=unlimited", "predictor=oracle", "scenario=ieee69"]
        settings = settings_from(compose("train", chosen), TrainSettings)
    scenario = scenario_from_dict(settings.scenario)
    assert (scenario.name, scenario.market.mechanism, scenario.cooperation) == ("ieee69", "bilateral", 0.5)
    assert scenario.network.rating_floor_a == np.inf and settings.predictor == "oracle"


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_an_experiment_sets_is_set(path):
    wanted = OmegaConf.load(path)
    entry = "evaluate" if "policy" in wanted.get("hydra", {}).get("sweeper", {}).get("params", {}) else "train"
    with initialize_config_module("peergrid.conf", version_base="1.3"):
        cfg = compose(entry, [f"experiment={path.stem}"], return_hydra_config=True)
    own = {key: value for key, value in wanted.items() if key not in ("defaults", "hydra")}
    assert own and OmegaConf.merge(cfg, own) == cfg
    assert cfg.hydra.sweeper.params == wanted.hydra.sweeper.params


@pytest.mark.parametrize("typo", ["+step=5", "+algo.nme=ppo", "+scenario.market.mechansim=direct"])
def test_a_misspelled_key_fails(typo):
    with (
        initialize_config_module("peergrid.conf", version_base="1.3"),
        pytest.raises(Exception, match=r"step|nme|mechan"),
    ):
        scenario_from_dict(settings_from(compose("train", [typo]), TrainSettings).scenario)


# Jobs


def settings_for(tmp_path, **changes):
    base = {"output": str(tmp_path), "cache": "", "redo": False, "threads": 1, "seed": 0, "predictor": "none"}
    return base | {"scenario": {"name": "s"}, "policy": "p"} | changes


def test_a_job_is_done_once_and_found_again(tmp_path):
    did = []

    def work(folder):
        did.append(folder)
        return {"score": 1.0, "days": [2.0], "no_trade": [1.0], "optimum": [3.0]}

    for _ in range(2):
        run_job("a job", settings_for(tmp_path), work, lambda text: None)
    assert len(did) == 1
    run_job("a job", settings_for(tmp_path, threads=2, cache="elsewhere"), work, lambda text: None)
    assert len(did) == 1  # the same job
    run_job("a job", settings_for(tmp_path, seed=1), work, lambda text: None)
    run_job("a job", settings_for(tmp_path, redo=True), work, lambda text: None)
    assert len(did) == 3 and did[0] == did[2] != did[1]


def test_a_job_keeps_to_its_threads(tmp_path):
    found = []

    def work(folder):
        found.append((torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info()}))
        return {}

    before = torch.get_num_threads()
    run_job("job", settings_for(tmp_path, threads=1), work, lambda text: None)
    assert found == [(1, {1})] and torch.get_num_threads() == before


def test_what_a_job_loads_keeps_to_its_threads_too(tmp_path):
    code = f"""
import sys
from peergrid.baselines.studies.jobs import run_job

def work(folder):
    assert "torch" not in sys.modules
    import torch
    return {{"threads": torch.get_num_threads()}}

print(run_job("job", {settings_for(tmp_path, threads=1)!r}, work, lambda text: None)["threads"])
"""
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_failure_leaves_its_traceback_and_is_tried_again(tmp_path):
    def fail(folder):
        raise PeergridError("the network is on fire")

    with pytest.raises(PeergridError):
        run_job("job", settings_for(tmp_path), fail, lambda text: None)
    (folder,) = tmp_path.iterdir()
    assert "in fail" in (folder / FAILED).read_text() and not (folder / DONE).exists()
    runs, days, _ = collect(tmp_path)
    assert runs.loc[0, "status"] == "failed" and "on fire" in runs.loc[0, "error"] and days.empty
    good = {"score": 1.0, "days": [2.0], "no_trade": [1.0], "optimum": [3.0]}
    run_job("job", settings_for(tmp_path), lambda folder: good, lambda text: None)
    assert (folder / DONE).exists() and not (folder / FAILED).exists()


def test_collect_makes_tidy_tables_and_the_scores_of_groups(tmp_path):
    for seed, gained in enumerate((0.0, 1.0, 2.0)):
        result = {"score": 50 * gained, "days": [1 + gained, 2 + gained], "no_trade": [1.0, 2.0], "optimum": [3.0, 4.0]}
        run_job(f"j{seed}", settings_for(tmp_path, seed=seed), lambda folder, r=result: r, lambda text: None)
    runs, days, curves = collect(tmp_path)
    assert len(runs) == 3 and len(days) == 6 and curves.empty
    assert set(runs["status"]) == {"done"} and runs["wall_s"].notna().all()
    (group,) = scores(days).to_dict("records")
    assert group["value"] == pytest.approx(50.0) and group["runs"] == 3 and group["low"] < 50 < group["high"]
    told = marl_eval(days)["peergrid"]["s"]["p (none)"]
    assert told["seed_1"]["absolute_metrics"]["welfare"] == [2.0, 3.0]


def test_an_empty_folder_is_an_error_that_says_so(tmp_path):
    with pytest.raises(PeergridError, match="no job in"):
        collect(tmp_path)


def test_the_array_script_runs_its_line_of_the_list(tmp_path):
    (tmp_path / "python").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "jobs.txt").write_text("scenario=ieee33 seed=0\nscenario=ieee69 algo=sac seed=1\n")
    script = Path(__file__).resolve().parents[3] / "examples" / "slurm_array.sh"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(
        ["bash", str(script), str(tmp_path / "jobs.txt")], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["-m", "peergrid.baselines.train", "scenario=ieee69", "algo=sac", "seed=1"]


@pytest.mark.slow
def test_a_sweep_goes_through_the_command_and_is_collected(tmp_path):
    command = [
        sys.executable,
        "-m",
        "peergrid.baselines.train",
        "-m",
        "seed=0,1",
        "steps=32",
        "check_every=32",
        "days=1",
    ]
    command += ["+scenario.intervals=3", "algo.num_envs=2", "algo.arguments.n_steps=16", "algo.arguments.batch_size=32"]
    command += ["launcher=joblib", "hydra.launcher.n_jobs=2"]
    command += [f"output={tmp_path / 'out'}", f"cache={tmp_path / 'cache'}"]
    for expected in (2, 0):  # the second time nothing is left to do
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = done.stdout.replace("\n", " ")
        assert told.count("is done") == 2 and told.count("is done, in") == expected
    show = [sys.executable, "-m", "peergrid.baselines.collect", str(tmp_path / "out")]
    done = subprocess.run(show, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 jobs: 2 done" in done.stdout
    for name in ("runs.parquet", "days.parquet", "curves.parquet", "manifest.csv", "scores.json", "curves.png"):
        assert (tmp_path / "out" / name).is_file()
