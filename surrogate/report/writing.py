"""The report, written: metrics for programs, tables and figures for readers, always beside plain methods."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.grid.dso import OpfDso
from peergrid.grid.files import write_whole
from peergrid.surrogate.dataset import MANIFEST, load_subset, solar_factors
from peergrid.surrogate.market import play
from peergrid.surrogate.model import DsoTransformer
from peergrid.surrogate.report.correlations import pearson_by_bus
from peergrid.surrogate.report.figures import draw_data_set, draw_figures
from peergrid.surrogate.report.plain import plain_methods
from peergrid.surrogate.report.run_times import run_times
from peergrid.surrogate.report.scores import Score, score
from peergrid.surrogate.report.tables import Scores, as_text, tables
from peergrid.surrogate.report.trials import adversarial, answers_of, local_view

TRANSFORMER = "transformer"
SETS = ("test", "unseen hours", "load x1.2", "load x0.6", "size x2", "size x4")


def report(
    folder: Path,
    model: DsoTransformer,
    dso: OpfDso,
    rating_kw: Float[np.ndarray, " trade"],
    data: Path,
    scenario: Scenario,
    history: Sequence[Mapping[str, float]],
    mlp_steps: int,
    *,
    seed: int = 0,
    days: int = 20,
    others: Scores | None = None,
) -> dict[str, Any]:
    """Evaluate the model; write metrics, tables and figures into `folder/report/`, return the metrics.

    Args:
        data: The data set, whose subset `train` plain methods are fitted to.
        history: The curves of the training.
        days: Held-out days that are played for the local view, if there are so many.
        others: Scores on other feeders, to show with the rest.
    """
    train, solar_factor = load_subset(data, "train"), solar_factors(data, scenario, "train")
    held = json.loads((data / MANIFEST).read_text(encoding="utf-8"))["subsets"]
    sets = {name: load_subset(data, name) for name in SETS if name in held}
    sets["adversarial"] = adversarial(
        model,
        dso,
        sets["test"],
        np.random.default_rng(seed),
        rating_kw=rating_kw,
        lmp_per_kwh=(float(train.lmp_per_kwh.min()), float(train.lmp_per_kwh.max())),
    )
    methods = {TRANSFORMER: answers_of(model), **plain_methods(train, model, rating_kw, mlp_steps, seed)}
    # Where proposals are scaled, so are the microgrids that make them.
    ratings = {name: rating_kw * (held[name]["proposal_scale"] if name in held else 1.0) for name in sets}
    pairs = [(name, method) for name in sets for method in methods]
    scores: dict[str, dict[str, Score]] = {name: {} for name in sets}
    for name, method in tqdm(pairs, desc="report", unit="score", disable=None, leave=False):
        scores[name][method] = score(sets[name], methods[method](sets[name]), ratings[name], dso.trade_bus)
    scores |= {name: dict(found) for name, found in (others or {}).items()}
    local = local_view(model, dso, play(scenario, dso, days=days, seed=seed, held_out=True))
    seconds = run_times(model, dso, sets["test"])
    pearson = pearson_by_bus(train, dso.feeder.bus, dso.trade_bus)
    metrics: dict[str, Any] = _plain(
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "sets": {name: {method: asdict(s) for method, s in found.items()} for name, found in scores.items()},
            "local_view": {who: asdict(s) for who, s in local.items()},
            "seconds_per_query": seconds,
            "pearson_by_bus": pearson,
            "training": [dict(row) for row in history],
        }
    )
    output = folder / "report"
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    write_whole(output / "metrics.json", lambda path: path.write_text(text, encoding="utf-8"))
    shown = as_text(tables(scores, local, seconds, pearson))
    write_whole(output / "tables.txt", lambda path: path.write_text(shown, encoding="utf-8"))
    draw_data_set(
        output,
        train=train,
        solar_factor=solar_factor,
        feeder=dso.feeder,
        trade_bus=dso.trade_bus,
        rating_kw=rating_kw,
    )
    draw_figures(
        output,
        test=sets["test"],
        answers=methods[TRANSFORMER](sets["test"]),
        trade_bus=dso.trade_bus,
        history=history,
        metrics={name: metrics["sets"][name] for name in sets},
    )
    return metrics


def _plain(value: Any) -> Any:
    """The same with null for what is not a number, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
