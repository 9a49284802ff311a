"""What a trained transformer is worth on another feeder, without and with some training there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, load_scenario
from peergrid.grid.dso import OpfDso
from peergrid.surrogate.dataset import load_subset, make_dataset
from peergrid.surrogate.model import DsoTransformer
from peergrid.surrogate.samples import Samples
from peergrid.surrogate.sampling import Sampling
from peergrid.surrogate.settings import KNOWN_HOURS, SurrogateSettings
from peergrid.surrogate.training import Tensors, new_model, train


def transferred(model: DsoTransformer, dso: OpfDso) -> DsoTransformer:
    """The model on another operator's network: all weights but the buses' embeddings, which get their mean."""
    there = DsoTransformer(dso, model.config)
    weights = dict(model.state_dict())
    weights["bus"] = weights["bus"].mean(0, keepdim=True).expand_as(there.bus).clone()
    there.load_state_dict(weights)
    return there


def transfer(
    model: DsoTransformer, settings: SurrogateSettings, folder: Path
) -> tuple[OpfDso, Samples, Samples, dict[str, DsoTransformer]]:
    """The other feeder's operator, its training and its test samples, and the models to compare on them."""
    wanted = settings.report.transfer
    scenario = load_scenario(wanted.scenario)
    dso, rating_kw = build_dso(scenario), build_microgrids(scenario).rating_kw
    sampling = Sampling(days=wanted.train_days, hours=KNOWN_HOURS)
    few = max(settings.data.other_days // 4, 1)
    sets = {
        "train": sampling,
        "validation": replace(sampling, days=few),
        "test": replace(sampling, days=few, held_out_days=True),
    }
    make_dataset(folder / "data", scenario, sets, seed=settings.seed, shard_days=few, workers=settings.workers)
    samples = {name: load_subset(folder / "data", name) for name in sets}
    known, validation = (Tensors.of(samples[name], torch.device("cpu")) for name in ("train", "validation"))
    rules = replace(settings.training, steps=wanted.steps, check_every=max(wanted.steps // 2, 1))
    models = {"before fine-tuning": transferred(model, dso)}
    begun = {
        f"after {wanted.steps} steps there": transferred(model, dso),
        f"trained there alone, {wanted.steps} steps": new_model(dso, known, model.config, settings.seed),
    }
    for place, (name, there) in enumerate(begun.items()):
        train(there, known, validation, rating_kw, rules, seed=settings.seed, folder=folder / f"{place}")
        models[name] = there
    return dso, samples["train"], samples["test"], models
