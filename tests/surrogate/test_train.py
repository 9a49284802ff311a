"""Training: the command from nothing to a checkpoint, stopped and resumed, misspelled, and what its intervals hold."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, load_scenario
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.surrogate.calibration import calibrate
from peergrid.surrogate.checkpoint import WEIGHTS, load_model
from peergrid.surrogate.dataset import load_subset, make_dataset
from peergrid.surrogate.model import PARTS, DsoTransformer, ModelConfig
from peergrid.surrogate.sampling import Sampling
from peergrid.surrogate.settings import TrainingSettings
from peergrid.surrogate.training import (
    GRADIENTS_OF_PARTS,
    UNFINISHED,
    Tensors,
    gradient_norms,
    losses,
    new_model,
    train,
)

SCENARIO = "ieee33_communities"
SMALL = ModelConfig(width=8, layers=2, heads=2, feed_forward=16)
SHORT = TrainingSettings(steps=24, batch=32, warmup_steps=4, check_every=6)
COMMAND = [
    *(sys.executable, "-m", "peergrid.surrogate.train", f"scenario={SCENARIO}", "threads=1", "workers=1"),
    *("data.train_days=10", "data.other_days=4", "data.shard_days=5", "report.wanted=false"),
    *("model.width=8", "model.layers=2", "model.heads=2", "model.feed_forward=16"),
    *("training.batch=16", "training.check_every=10"),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder, SCENARIO, {"train": Sampling(days=12), "other": Sampling(days=6)}, workers=1)
    cpu = torch.device("cpu")
    return tuple(Tensors.of(load_subset(folder, name), cpu) for name in ("train", "other"))


@pytest.fixture(scope="module")
def dso():
    return build_dso(load_scenario(SCENARIO))


def trained(dso, parts, folder, settings=SHORT):
    model = new_model(dso, parts[0], SMALL, seed=0)
    rating_kw = build_microgrids(load_scenario(SCENARIO)).rating_kw
    return model, train(model, *parts, rating_kw, settings, seed=0, folder=folder)


def same(one, other):
    there = other.state_dict()
    return all(torch.equal(values, there[name]) for name, values in one.state_dict().items())


def test_the_loss_falls_and_the_curves_are_kept(dso, parts, tmp_path):
    _, history = trained(dso, parts, tmp_path)
    assert [row["step"] for row in history] == [6, 12, 18, 24]
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert any((tmp_path / "tensorboard").iterdir())


def test_every_weight_is_of_one_part_of_the_model(dso):
    model = DsoTransformer(dso, SMALL)
    parts = model.parts()
    assert tuple(parts) == PARTS
    of_parts = [id(weights) for part in parts.values() for weights in part]
    assert sorted(of_parts) == sorted(map(id, model.parameters()))
    names = {id(weights): name.split(".")[0] for name, weights in model.named_parameters()}
    modules = [{names[id(weights)] for weights in part} for part in parts.values()]
    assert modules == [{"embed", "bus"}, {"encoder", "norm"}, {"heads"}]


def test_gradient_norms_of_the_parts_are_those_of_their_weights(dso, parts):
    model = new_model(dso, parts[0], SMALL, seed=0)
    rating = torch.tensor(build_microgrids(load_scenario(SCENARIO)).rating_kw, dtype=torch.float32)
    batch = parts[0].rows(slice(32))
    losses(model, model(batch.inputs), batch, rating, SHORT).backward()
    found = dict(zip(PARTS, gradient_norms(model), strict=True))
    own = torch.cat([model.heads.weight.grad.flatten(), model.heads.bias.grad])
    assert float(found["head"]) == pytest.approx(float((own**2).sum().sqrt()), rel=1e-5)
    whole = torch.cat([weights.grad.flatten() for weights in model.parameters()])
    assert sum(float(norm) ** 2 for norm in found.values()) == pytest.approx(float((whole**2).sum()), rel=1e-5)


def test_the_curves_hold_the_gradient_norms_of_each_part_before_clipping(dso, parts, tmp_path):
    often = TrainingSettings(steps=4, batch=32, warmup_steps=4, check_every=1, largest_gradient=1e-3)
    _, history = trained(dso, parts, tmp_path, often)
    for row in history:
        of_parts = [row[name] for name in GRADIENTS_OF_PARTS.values()]
        assert min(of_parts) > 1e-3
        assert np.hypot.reduce(of_parts) == pytest.approx(row["gradient_norm"], rel=1e-5)


def test_a_training_that_was_stopped_ends_with_the_same_weights(dso, parts, tmp_path, monkeypatch):
    whole, history = trained(dso, parts, tmp_path / "whole")

    original, counted = torch.optim.AdamW.step, iter(range(100))

    def stop(*args, **kwargs):
        if next(counted) == 14:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.optim.AdamW, "step", stop)
        trained(dso, parts, tmp_path / "stopped")
    resumed, again = trained(dso, parts, tmp_path / "stopped")
    assert same(whole, resumed)
    assert again == history


def test_a_training_with_other_settings_or_a_damaged_one_is_not_resumed(dso, parts, tmp_path):
    trained(dso, parts, tmp_path)
    with pytest.raises(InvalidCheckpoint, match="other settings"):
        trained(dso, parts, tmp_path, TrainingSettings(steps=30, batch=32, warmup_steps=4, check_every=6))
    file = tmp_path / UNFINISHED
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InvalidCheckpoint, match="delete"):
        trained(dso, parts, tmp_path)


def test_training_stops_where_nothing_improves(dso, parts, tmp_path):
    still = TrainingSettings(steps=200, batch=32, check_every=2, patience=3, learning_rate=0.0)
    _, history = trained(dso, parts, tmp_path, still)
    assert len(history) < 10


def test_intervals_cover_what_they_are_calibrated_on(dso, parts, tmp_path):
    model, _ = trained(dso, parts, tmp_path)
    calibrate(model, parts[1], coverage=0.8)
    with torch.no_grad():
        found = model(parts[1].inputs, only_trades=True)
    off = (found.transformed_price - parts[1].transformed_price[:, model.network.trade_bus]).abs()
    covered = (off <= model.half_width(parts[1].inputs, found, "full")).float().mean()
    assert 0.8 <= covered <= 0.86


def run(folder: Path, steps: int) -> subprocess.Popen:
    command = [*COMMAND, f"output={folder}", f"training.steps={steps}"]
    return subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_killed_in_training_ends_with_the_same_weights(tmp_path, dso):
    killed = run(tmp_path / "killed", 400)
    end = time.monotonic() + 120
    while not (tmp_path / "killed" / UNFINISHED).exists() and time.monotonic() < end:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / WEIGHTS).exists()
    for folder in ("killed", "whole"):
        done = run(tmp_path / folder, 400)
        _, errors = done.communicate(timeout=240)
        assert done.returncode == 0, errors
    models = [load_model(tmp_path / folder / WEIGHTS, dso) for folder in ("killed", "whole")]
    assert same(*models)
    assert json.loads((tmp_path / "whole" / "training.json").read_text())["history"][-1]["step"] == 400


def test_a_misspelled_key_is_an_error(tmp_path):
    done = subprocess.run([*COMMAND, "trainig.steps=3"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "trainig" in done.stderr
