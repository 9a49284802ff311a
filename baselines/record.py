"""Record what policies do on training days: a data set in Minari's format, for learning without the market.

    python -m peergrid.baselines.record scenario=ieee33 predictor=none
    python -m peergrid.baselines.record policies=[truthful,outputs/train/<job>/policy.safetensors] days=200

Every policy plays the same days. An episode is a day of one microgrid, or with player=central of the controller of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from peergrid.baselines.entry import console_for_tables, settings_from
from peergrid.baselines.episode.recording import RecordSettings, record
from peergrid.baselines.studies.jobs import run_job
from peergrid.command import command
from peergrid.envs.p2p_trading.scenario import scenario_from_dict


@command("record")
def main(cfg: DictConfig) -> None:
    """Play the days with every policy, and write the data set to the job's folder."""
    settings = settings_from(cfg, RecordSettings)
    scenario, console = scenario_from_dict(settings.scenario), console_for_tables()

    def work(folder: Path) -> Mapping[str, Any]:
        found = record(settings, scenario, folder)
        console.print(f"{found['episodes']} episodes of {found['intervals']} intervals: {found['dataset']}")
        return found

    name = "-".join((scenario.name, settings.player, settings.predictor, f"seed{settings.seed}"))
    run_job(name, asdict(settings), work, console.print)


if __name__ == "__main__":
    # By its name, so that the processes of a sweep find what they are sent.
    from peergrid.baselines.record import main as named

    named()
