"""From nothing to a trained transformer: data set, training, intervals, report.

    python -m peergrid.surrogate.train [scenario=ieee33] [training.steps=8000] [device=cuda]

Whatever was finished before is kept: shards of the data set, and the training as it was at its last checkpoint.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from omegaconf import DictConfig

from peergrid.command import command
from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, scenario_from_dict
from peergrid.grid.errors import PeergridError
from peergrid.grid.files import write_whole
from peergrid.surrogate.calibration import calibrate, calibrate_local
from peergrid.surrogate.checkpoint import WEIGHTS, save_model
from peergrid.surrogate.dataset import load_subset
from peergrid.surrogate.describe import make_data
from peergrid.surrogate.evaluate import evaluate
from peergrid.surrogate.market import play
from peergrid.surrogate.settings import SurrogateSettings, settings_from
from peergrid.surrogate.training import CURVES, Tensors, new_model, train


def device_of(settings: SurrogateSettings) -> torch.device:
    """Where to train.

    Raises:
        PeergridError: There is no such device.
    """
    try:
        return torch.zeros(1, device=settings.device).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise PeergridError(f"device {settings.device!r} can't be used ({first}): take cpu or cuda") from None


def run(settings: SurrogateSettings) -> None:
    """Data set, training and intervals; the weights are in the output folder afterwards."""
    folder, device = Path(settings.output), device_of(settings)
    scenario = scenario_from_dict(settings.scenario)
    dso = build_dso(scenario)
    manifest = make_data(settings)
    known, validation, calibration = (
        Tensors.of(load_subset(folder / "data", name), device) for name in ("train", "validation", "calibration")
    )
    model = new_model(dso, known, settings.model, settings.seed)
    start = time.perf_counter()
    rating_kw = build_microgrids(scenario).rating_kw
    history = train(model, known, validation, rating_kw, settings.training, seed=settings.seed, folder=folder)
    calibrate(model, calibration, settings.training.coverage)
    local = play(scenario, dso, days=settings.data.other_days, seed=settings.seed + 1, held_out=False)
    calibrate_local(model.cpu(), local, settings.training.coverage)
    about = {
        "scenario": scenario.name,
        "command": f"python -m peergrid.surrogate.train scenario={scenario.name}",
        "data_sha256": manifest["sha256"],
        "settings": asdict(settings),
    }
    save_model(folder / WEIGHTS, model, dso, rating_kw, about)
    curves = {"seconds": time.perf_counter() - start, "history": history, "settings": asdict(settings)}
    text = json.dumps(curves, indent=2) + "\n"
    write_whole(folder / CURVES, lambda path: path.write_text(text, encoding="utf-8"))


@command("surrogate")
def main(cfg: DictConfig) -> None:
    """Make the data set, train, calibrate, report."""
    settings = settings_from(cfg)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    run(settings)
    if settings.report.wanted:
        evaluate(settings)


if __name__ == "__main__":
    main()
