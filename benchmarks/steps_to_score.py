"""How many steps and seconds each trainer takes to a score: PPO beside gradients through the operator.

    python benchmarks/steps_to_score.py [--scenarios ieee33 ieee33_communities] [--reward cooperative_over_no_trade]
        [--trainers ppo:200000 gradients:50000] [--seeds 2] [--first-held-out 20] [--days 16] [--threads 1]
        [--figure curves.png]

Every trainer learns for its number of environment steps and is measured every 3,000 of them on the held-out days.
Printed is the mean over the seeds of the first measurement at or above the score, where all came to it; seconds are
those of the process, without measurements, beside those of the clock. The figure shows each seed's score over steps
and over seconds of the process.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import peergrid
from peergrid.baselines.entry import settings_from
from peergrid.baselines.policies.learned import Actor
from peergrid.baselines.scoring.references import references
from peergrid.baselines.train import TrainSettings
from peergrid.baselines.training.lesson import LIBRARIES, Lesson, Progress
from peergrid.envs.p2p_trading.scenario import scenario_from_dict
from peergrid.grid.parts import resolve

SCORES = (50, 60, 70, 80, 85, 90)
CHECK_EVERY = 3000


class TimedProgress(Progress):
    """Progress that also counts the seconds of the process."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson, lambda point: None)
        self.spent: list[np.ndarray] = []
        self._began, self._away = now(), np.zeros(2)

    def measure(self, steps: int, actor: Actor, environment_seconds: float) -> None:
        before = now()
        self.spent.append(before - self._began - self._away)
        super().measure(steps, actor, environment_seconds)
        self._away += now() - before


def now() -> np.ndarray:
    """Seconds of the process and of the clock."""
    return np.array([time.process_time(), time.perf_counter()])


def curve_of(scenario: str, reward: str, trainer: str, seed: int, held_out: tuple[int, int]) -> np.ndarray:
    """Rows of steps, score, seconds of the process, seconds of the clock."""
    algo, steps = trainer.split(":")
    first, days = held_out
    overrides = [f"scenario={scenario}", f"reward={reward}", f"algo={algo}", "predictor=none"]
    with initialize_config_dir(str(Path(peergrid.__file__).parent / "conf"), version_base=None):
        settings = settings_from(compose("train", overrides), TrainSettings)
    market = scenario_from_dict(settings.scenario)
    known = references(market, days, Path(settings.cache), first=first)
    with TemporaryDirectory() as folder:
        lesson = Lesson(
            scenario=market,
            references=known,
            algo=settings.algo,
            predictor=settings.predictor,
            predicted_intervals=None,
            player="shared",
            steps=int(steps),
            check_every=CHECK_EVERY,
            seed=seed,
            folder=Path(folder),
        )
        progress = TimedProgress(lesson)
        resolve(settings.algo.library, "library", LIBRARIES)(progress)
    return np.array([(p.steps, p.score, *spent) for p, spent in zip(progress.curve, progress.spent, strict=True)])


def draw(curves: dict[str, dict[str, list[np.ndarray]]], path: Path) -> None:
    """Scores over steps and over seconds: a row of panels for each scenario, a colour for each trainer."""
    figure = Figure(figsize=(9.0, 3.2 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), 2, squeeze=False, sharey="row")
    for row, (scenario, of_trainers) in zip(panels, curves.items(), strict=True):
        for panel, column, name in zip(row, (0, 2), ("environment steps", "seconds of one core"), strict=True):
            for k, (trainer, seeds) in enumerate(of_trainers.items()):
                for i, curve in enumerate(seeds):
                    panel.plot(curve[1:, column], curve[1:, 1], f"C{k}", label="" if i else trainer)
            panel.set(xscale="log", xlabel=name, ylim=(0.0, 100.0))
            panel.grid(alpha=0.3)
        row[0].set(ylabel=f"score on {scenario}")
        row[1].legend(loc="lower right")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["ieee33", "ieee33_communities"])
    parser.add_argument("--reward", default="cooperative_over_no_trade")
    parser.add_argument("--trainers", nargs="+", default=["ppo:200000", "gradients:50000"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-held-out", type=int, default=20)
    parser.add_argument("--days", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table(title=f"steps to a score, reward {options.reward}: mean of {options.seeds} seeds")
    for name in ("scenario", "trainer", *(f"to {score}" for score in SCORES), "in the end", "seconds, process / clock"):
        table.add_column(name)
    drawn: dict[str, dict[str, list[np.ndarray]]] = {}
    for scenario in options.scenarios:
        drawn[scenario] = {}
        for trainer in options.trainers:
            held_out = (options.first_held_out, options.days)
            curves = [curve_of(scenario, options.reward, trainer, seed, held_out) for seed in range(options.seeds)]
            drawn[scenario][trainer.split(":")[0]] = curves
            cells = []
            for score in SCORES:
                reached = [curve[curve[:, 1] >= score][:1] for curve in curves]
                steps, _, process, _ = np.mean(np.concatenate(reached), axis=0) if all(map(len, reached)) else [0] * 4
                cells.append(f"{steps:,.0f} ({process:.0f} s)" if steps else "")
            last = np.mean([curve[-1] for curve in curves], axis=0)
            cells += [f"{last[1]:.1f} at {last[0]:,.0f}", f"{last[2]:.0f} / {last[3]:.0f}"]
            table.add_row(scenario, trainer.split(":")[0], *cells)
    Console(width=180).print(table)
    if options.figure:
        draw(drawn, options.figure)


if __name__ == "__main__":
    main()
