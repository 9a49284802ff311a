"""How well the transformer predicts the DSO: the report, always beside plain methods.

python -m peergrid.surrogate.evaluate [scenario=ieee33] [output=folder of the training]

sets           test days; hours, loads and sizes that training never saw; questions searched to mislead the model
local view     what a microgrid would be told in the market, not knowing the others' current proposals
another feeder the encoder on a network that it was not trained on, before and after some training there
correlations   of inputs and targets at each microgrid's bus, as `peergrid.surrogate.describe` prints them
run time       a query of the transformer beside one of the exact solvers
"""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from peergrid.command import command
from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, scenario_from_dict
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.surrogate.checkpoint import WEIGHTS, load_model
from peergrid.surrogate.report.tables import TABLE_WIDTH
from peergrid.surrogate.report.trials import elsewhere
from peergrid.surrogate.report.writing import report
from peergrid.surrogate.settings import SurrogateSettings, settings_from
from peergrid.surrogate.training import CURVES


def evaluate(settings: SurrogateSettings) -> None:
    """The report of what was trained with these settings, and its tables on the console."""
    folder = Path(settings.output)
    scenario = scenario_from_dict(settings.scenario)
    dso, wanted = build_dso(scenario), settings.report
    model = load_model(folder / WEIGHTS, dso)
    try:
        history = json.loads((folder / CURVES).read_text(encoding="utf-8"))["history"]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidCheckpoint(f"{folder / CURVES} can't be read ({error}): train with this output first") from None
    others = {wanted.transfer.scenario: elsewhere(model, settings, folder / "transfer" / wanted.transfer.scenario)}
    report(
        folder,
        model,
        dso,
        build_microgrids(scenario).rating_kw,
        folder / "data",
        scenario,
        history,
        wanted.mlp_steps,
        seed=settings.seed,
        days=wanted.days,
        others=others,
    )
    console = Console(width=max(Console().width, TABLE_WIDTH))
    console.print((folder / "report" / "tables.txt").read_text(encoding="utf-8"), highlight=False, markup=False)
    console.print(f"wrote {folder / WEIGHTS} and {folder / 'report'}", highlight=False)


@command("surrogate")
def main(cfg: DictConfig) -> None:
    """Report on a finished training."""
    evaluate(settings_from(cfg))


if __name__ == "__main__":
    main()
