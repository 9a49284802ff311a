"""Entry points: what `--help` says, and what whoever misspells something is told."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, resources

import pytest
import yaml

from peergrid.about import commands, docstring, first_sentence
from peergrid.baselines import evaluate, train, transactive_study
from peergrid.baselines.studies.jobs import FAILED
from peergrid.command import groups_of, plainly
from peergrid.envs.common.configuration import shipped_names
from peergrid.grid.errors import PeergridError, UnknownName

CONFIG = {name: name.split(".")[-1] for name in commands() if not name.endswith("collect")}
CONFIG |= {"peergrid.surrogate.train": "surrogate", "peergrid.surrogate.evaluate": "surrogate"}
CONFIG |= {"peergrid.surrogate.describe": "surrogate"}


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Calls an entry point in an empty folder and returns its exit code, output and errors."""

    def call(main, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", commands())
def test_every_command_says_how_it_is_called(name):
    assert f"python -m {name}" in docstring(name)


@pytest.mark.parametrize("name", CONFIG)
def test_help_names_groups_choices_and_settings(name, call):
    code, shown, errors = call(import_module(name).main, "--help")
    assert (code, errors) == (0, "")
    assert first_sentence(docstring(name)) in " ".join(shown.split())
    text = (resources.files("peergrid.conf") / f"{CONFIG[name]}.yaml").read_text(encoding="utf-8")
    settings = set(yaml.safe_load(text)) - {"defaults", "hydra"}
    lines = shown.splitlines()
    assert settings and all(any(line.startswith(f"  {setting}:") for line in lines) for setting in settings)
    for group, _ in groups_of(CONFIG[name]):
        choices = next(line for line in lines if line.startswith(f"  {group} "))
        assert all(choice in choices for choice in shipped_names(group))
    if "output" in settings:
        assert yaml.safe_load(text)["output"] in shown


def test_help_of_a_process_of_its_own():
    command = [sys.executable, "-m", "peergrid.baselines.collect", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs.parquet" in done.stdout and "folder" in done.stdout


@pytest.mark.parametrize(
    ("main", "arguments", "told"),
    [
        (evaluate.main, ["scenario=ieee3"], "no scenario is named 'ieee3'. Did you mean 'ieee33'?"),
        (evaluate.main, ["predictor=orakel"], "Did you mean 'oracle'?"),
        (evaluate.main, ["launcher=slrum"], "Did you mean 'slurm'?"),
        (evaluate.main, ["hydra/launcher=jobli"], 'pip install "peergrid[sweep]"'),
        (evaluate.main, ["lauchner=joblib"], "no setting or group is named 'lauchner'. Did you mean 'launcher'?"),
        (evaluate.main, ["polcy=truthful"], "no setting or group is named 'polcy'. Did you mean 'policy'?"),
        (evaluate.main, ["+dayz=3"], "Did you mean 'days'?"),
        (evaluate.main, ["market.mechanism=direct"], "'market' is a group, chosen as market=NAME"),
        (
            evaluate.main,
            ["scenario.network.v_min=0.9"],
            "no setting of scenario.network is named 'v_min'.",
        ),
        (evaluate.main, ["+scenario.marke.mechanism=x"], "unknown key marke (did you mean market?)"),
        (evaluate.main, ["days=many"], "'many'"),
        (evaluate.main, ["policy=truthfull"], "no policy is named 'truthfull'. Did you mean 'truthful'?"),
        (evaluate.main, ["policy=outputs/x.safetensors"], "there is no policy file 'outputs/x.safetensors'"),
        (train.main, ["player=sharde"], "no player is named 'sharde'. Did you mean 'shared'?"),
        (train.main, ["algo=pop"], "no algo is named 'pop'. Did you mean 'ppo'?"),
        (transactive_study.main, ["transactive=ieee7"], "no transactive is named 'ieee7'. Did you mean 'ieee37'?"),
        (transactive_study.main, ["agent=714"], "no agent is at bus '714'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_a_sentence(main, arguments, told, call):
    code, shown, errors = call(main, *arguments)
    assert code == 2 and told in errors
    assert "Traceback" not in shown + errors and len(errors.splitlines()) < 6


def test_collect_tells_a_mistake_in_a_sentence(tmp_path):
    command = [sys.executable, "-m", "peergrid.baselines.collect", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no job in") and len(done.stderr.splitlines()) == 1


def test_a_missing_policy_file_brings_those_that_there_are(call, tmp_path):
    there = tmp_path / "outputs" / "train" / "job" / "policy.safetensors"
    there.parent.mkdir(parents=True)
    there.touch()
    _, _, errors = call(evaluate.main, "policy=outputs/train/jbo/policy.safetensors")
    assert os.path.join("outputs", "train", "job", "policy.safetensors") in errors


def test_a_job_that_failed_keeps_its_traceback(call, tmp_path):
    call(evaluate.main, "policy=truthfull")
    (failed,) = tmp_path.glob(f"outputs/policies/*/{FAILED}")
    kept = failed.read_text(encoding="utf-8")
    assert "Traceback" in kept and "policy_of" in kept and "no policy is named 'truthfull'" in kept


def test_whoever_asks_hydra_for_tracebacks_gets_them(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["command", "agent=714"])
    with pytest.raises(PeergridError, match="no agent is at bus"):
        transactive_study.main()
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(ZeroDivisionError), plainly():
        _ = 1 / 0
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_ctrl_c_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as ended, plainly():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_message_is_all_that_is_told(capsys):
    with pytest.raises(SystemExit) as ended, plainly():
        raise UnknownName("fruit", "aple", ["apple"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no fruit is named 'aple'. Did you mean 'apple'? Known: apple.\n"


def test_output_in_a_file_has_neither_colours_nor_progress_bars(tmp_path):
    command = [sys.executable, "-m", "peergrid.baselines.evaluate", "policy=no_trade", "days=1"]
    with (tmp_path / "log").open("wb") as log:
        subprocess.run(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, check=True)
    written = (tmp_path / "log").read_text(encoding="utf-8")
    assert "no_trade" in written and "is done" in written
    assert not set("\r\x1b") & set(written) and "%|" not in written


def test_a_library_that_is_missing_is_told_at_once_with_what_brings_it(call, monkeypatch):
    for module in ("peergrid.baselines.adapters.sb3", "peergrid.baselines.training.sb3"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    code, _, errors = call(train.main, "steps=100", "algo=sac")
    assert code == 2
    assert "Stable-Baselines3 comes with: pip install 'peergrid[sb3]'" in errors and "Traceback" not in errors
