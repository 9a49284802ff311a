"""What the data set holds: how its inputs are distributed and correlated with its targets. No model is needed.

    python -m peergrid.surrogate.describe [scenario=ieee33] [output=folder of the training]

Makes the data set as the training does, where it is not there yet, draws `inputs.png` and `correlations.png` into the
folder `report`, and prints Pearson's coefficients at each microgrid's bus as Markdown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from peergrid.command import command
from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, scenario_from_dict
from peergrid.surrogate.dataset import load_subset, make_dataset, solar_factors
from peergrid.surrogate.report.correlations import pearson_by_bus, pearson_markdown
from peergrid.surrogate.report.figures import draw_data_set
from peergrid.surrogate.settings import SurrogateSettings, settings_from, subsets


def make_data(settings: SurrogateSettings) -> dict[str, Any]:
    """Make what is missing of the data set of these settings, and return its manifest."""
    return make_dataset(
        Path(settings.output) / "data",
        scenario_from_dict(settings.scenario),
        subsets(settings.data),
        seed=settings.seed,
        shard_days=settings.data.shard_days,
        workers=settings.workers,
    )


def describe(settings: SurrogateSettings) -> str:
    """Draw the figures of the data set; return Pearson's coefficients as Markdown."""
    folder, scenario = Path(settings.output), scenario_from_dict(settings.scenario)
    make_data(settings)
    dso, train = build_dso(scenario), load_subset(folder / "data", "train")
    draw_data_set(
        folder / "report",
        train=train,
        solar_factor=solar_factors(folder / "data", scenario, "train"),
        feeder=dso.feeder,
        trade_bus=dso.trade_bus,
        rating_kw=build_microgrids(scenario).rating_kw,
    )
    return pearson_markdown(pearson_by_bus(train, dso.feeder.bus, dso.trade_bus))


@command("surrogate")
def main(cfg: DictConfig) -> None:
    """Describe the data set of these settings."""
    settings = settings_from(cfg)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(describe(settings))
    console.print(f"wrote inputs.png and correlations.png into {Path(settings.output) / 'report'}")


if __name__ == "__main__":
    main()
