"""Watch a policy play one held-out day: an hourly table, a page to click through, tables, and a film if wanted.

    python -m peergrid.baselines.run_policy policy=truthful scenario=ieee33 predictor=oracle day=0
    python -m peergrid.baselines.run_policy policy=outputs/train/<job>/policy.safetensors scenario=ieee33 gif=true

The folder that it names holds `report.html`, `tables/`, and `day.gif` or `day.mp4`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich import box
from rich.table import Table

from peergrid.baselines.entry import console_for_tables, settings_from
from peergrid.baselines.episode.film import write_film
from peergrid.baselines.episode.p2p import Episode, play_episode, write_tables
from peergrid.baselines.episode.report import day_facts, write_page
from peergrid.baselines.policies.cases import environment_for
from peergrid.baselines.policies.learned import policy_of
from peergrid.baselines.studies.jobs import run_job
from peergrid.command import command
from peergrid.envs.common.drawing import clock
from peergrid.envs.p2p_trading.scenario import scenario_from_dict
from peergrid.grid.dso import DsoStatus
from peergrid.grid.parts import part_name


@dataclass
class RunPolicySettings:
    """What `conf/run_policy.yaml` sets."""

    scenario: dict[str, Any] = field(default_factory=dict)
    predictor: str = part_name("auto")
    predicted_intervals: int | None = None
    policy: str = part_name("truthful")
    day: int = 0
    seed: int = 0
    gif: bool = False
    mp4: bool = False
    tables: str = "parquet"
    threads: int = 1
    output: str = "outputs/episodes"
    redo: bool = True


@command("run_policy")
def main(cfg: DictConfig) -> None:
    """Play the day, print it hour by hour, write what there is to see of it to the job's folder."""
    settings = settings_from(cfg, RunPolicySettings)
    scenario, console = scenario_from_dict(settings.scenario), console_for_tables()
    played = f"policy {settings.policy}, predictor {settings.predictor}, held-out day {settings.day}"

    def work(folder: Path) -> Mapping[str, Any]:
        frames: list[np.ndarray] = []
        policy = policy_of(settings.policy, settings.seed)
        env = environment_for(
            policy,
            scenario,
            predictor=settings.predictor,
            predicted_intervals=settings.predicted_intervals,
            render_mode="rgb_array",
        )

        def take_picture() -> None:
            picture = env.render()
            assert isinstance(picture, np.ndarray)
            frames.append(picture)

        wants_film = settings.gif or settings.mp4
        episode = play_episode(env, policy, settings.day, take_picture if wants_film else None)
        console.print(hourly_table(episode, f"{scenario.name}, {played}"))
        write_page(episode, folder / "report.html", f"scenario {scenario.name}, {played}")
        write_tables(episode, folder / "tables", settings.tables)
        for kind, is_wanted in (("gif", settings.gif), ("mp4", settings.mp4)):
            if is_wanted:
                write_film(frames, folder / f"day.{kind}")
        console.print(f"To look at: {folder / 'report.html'}")
        return day_facts(episode)

    name = "-".join((scenario.name, Path(settings.policy).stem, settings.predictor, f"day{settings.day}"))
    run_job(name, asdict(settings), work, console.print)


def hourly_table(episode: Episode, title: str) -> Table:
    """The episode as a table, a row for each interval; power in kW, prices per kWh, welfare in currency."""
    grid = Table(title=title, title_justify="left", padding=0, box=box.HORIZONTALS)
    columns = ("from", "LMP", "prices of\nmicrogrids", "traded", "proposed", "accepted", "curtailed", "substation")
    for column in (*columns, "losses", "shed", "voltages\np.u.", "loading\n%", "welfare"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("DSO")
    prices, voltages = episode.price_per_kwh[:, episode.params.agent_bus], episode.voltage_pu[:, 1:]
    proposed, accepted = (np.abs(power).sum(axis=1) for power in (episode.proposed_kw, episode.accepted_kw))
    for t in range(episode.intervals):
        grid.add_row(
            clock(t * episode.params.step_hours),
            f"{episode.lmp_per_kwh[t]:.3f}",
            f"{prices[t].min():.3f} {prices[t].max():.3f}",
            f"{episode.trade_kw[t].sum():.1f}",
            f"{proposed[t]:.1f}",
            f"{accepted[t]:.1f}",
            f"{episode.curtailed_kw[t].sum():.1f}",
            f"{episode.substation_kw[t]:.0f}",
            f"{episode.losses_kw[t]:.1f}",
            f"{episode.shed_kw[t].sum():.1f}",
            f"{voltages[t].min():.3f} {voltages[t].max():.3f}",
            f"{100 * episode.loading[t].max():.0f}",
            f"{episode.welfare[t]:.2f}",
            DsoStatus(episode.status[t]).name.lower().replace("_", " "),
        )
    return grid


if __name__ == "__main__":
    # By its name, so that the processes of a sweep find what they are sent.
    from peergrid.baselines.run_policy import main as named

    named()
