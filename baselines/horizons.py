"""What a prediction is worth: the score of policies over how many intervals the prediction looks ahead.

    python -m peergrid.baselines.horizons [scenarios=[ieee33]] [policies=[foresighted]] [days=20]
    python -m peergrid.baselines.horizons learned=outputs/train       # learned policies in the figure, too

Nothing is predicted at 0, the interval that begins at 1. All days are played side by side. The output folder holds
`horizons.json` and `horizons.png`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from peergrid.baselines.entry import console_for_tables, settings_from
from peergrid.baselines.scoring.references import references
from peergrid.baselines.studies.horizons import HorizonSettings, draw, learned, measure, measured, table
from peergrid.command import command
from peergrid.envs.common.registered import PREDICTORS
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import PeergridError, UnknownName, raise_faults
from peergrid.grid.files import write_json


@command("horizons")
def main(cfg: DictConfig) -> None:
    """Play, print the table, write figures and results."""
    settings = settings_from(cfg, HorizonSettings)
    console, output = console_for_tables(), Path(settings.output)
    lists = ("scenarios", "policies", "predictors", "horizons")
    faults = [f"{name} is empty" for name in lists if not getattr(settings, name)]
    faults += [f"horizons holds {horizon}, below 0" for horizon in settings.horizons if horizon < 0]
    raise_faults(PeergridError, "settings", faults)
    for predictor in settings.predictors:
        if ":" not in predictor and predictor not in PREDICTORS:
            raise UnknownName("predictor", predictor, PREDICTORS)
    jobs, points = list(measured(settings)), []
    known: Mapping[str, Any] = {
        name: references(load_scenario(name), settings.days, Path(settings.cache), first=settings.first_held_out)
        for name in settings.scenarios
    }
    with threadpool_limits(settings.threads), tqdm(total=len(jobs), desc="scores", disable=None, leave=False) as bar:
        for name, policy, predictor, horizon in jobs:
            points.append(measure(load_scenario(name), policy, predictor, horizon, known[name]))
            bar.update()
    if settings.learned:
        points += [p for p in learned(Path(settings.learned)) if p.scenario in settings.scenarios]
    write_json(output / "horizons.json", {"settings": asdict(settings), "points": [asdict(p) for p in points]})
    draw(points, output / "horizons.png")
    console.print(table(points, sorted({p.horizon for p in points})))
    for file in ("horizons.png", "horizons.json"):
        console.print(f"wrote {output / file}", highlight=False)


if __name__ == "__main__":
    main()
