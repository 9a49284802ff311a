"""Training: a policy for microgrids, learned with one library or another, with its curve on held-out days."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.learned import WEIGHTS, Actor, LearnedPolicy, save_policy
from peergrid.baselines.scoring.references import References
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.grid.files import remove_unfinished, write_whole
from peergrid.grid.parts import part_name, resolve

CURVE, CHECKPOINT = "curve.csv", "checkpoint.pt"
LIBRARIES = {
    "peergrid": "peergrid.baselines.training.ppo:learn_with_ppo",
    "gradients": "peergrid.baselines.training.gradients:learn_with_gradients",
    "imitation": "peergrid.baselines.training.imitation:learn_with_imitation",
    "offline": "peergrid.baselines.training.offline:learn_offline",
    "sb3": "peergrid.baselines.training.sb3:learn_with_sb3",
    "benchmarl": "peergrid.baselines.training.benchmarl:learn_with_benchmarl",
}
T = TypeVar("T")


@dataclass
class AlgoSettings:
    """An algorithm of a library, its arguments, and how many markets it steps at once."""

    name: str = "ppo"
    library: str = part_name("peergrid")
    num_envs: int = 128
    net_arch: list[int] = field(default_factory=lambda: [64, 64])
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """How good the policy was on held-out days after so many environment steps, and what that took, in seconds."""

    steps: int
    welfare: float
    score: float
    seconds: float
    environment_seconds: float


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is to be learned, by what and for how long.

    `steps` are environment steps: each is one interval of one market, in which all its microgrids act. Every
    `check_every` of them the policy is measured on the held-out days of `references`, and a checkpoint is written to
    `folder`. The held-out days are only looked at: nothing is chosen by them.
    """

    scenario: Scenario
    references: References
    folder: Path
    steps: int
    algo: AlgoSettings = field(default_factory=AlgoSettings)
    predictor: str = "auto"
    predicted_intervals: int | None = None
    player: str = "shared"
    check_every: int = 20_000
    seed: int = 0
    threads: int = 1
    """Of the libraries below; networks as small as these gain nothing from more."""


class Progress:
    """The curve of a lesson so far, kept in its folder together with the policy."""

    def __init__(self, lesson: Lesson, report: Callable[[CurvePoint], None]) -> None:
        scenario = lesson.scenario
        self.lesson, self.report = lesson, report
        self.curve: list[CurvePoint] = []
        self._about = {
            "algorithm": lesson.algo.name,
            "scenario": scenario.name,
            "season": [scenario.first_day, scenario.n_days],
            "predictor": lesson.predictor,
            "predicted_intervals": lesson.predicted_intervals,
            "seed": lesson.seed,
        }
        self._test = Simulation(
            scenario,
            num_envs=len(lesson.references.no_trade),
            predictor=lesson.predictor,
            predicted_intervals=lesson.predicted_intervals,
        )
        self._spent, self._start = (0.0, 0.0), time.perf_counter()

    def go_on(self, steps: int) -> None:
        """Go on with the curve of a training that was interrupted, from its checkpoint after so many steps."""
        self.curve = [point for point in read_curve(self.lesson.folder / CURVE) if point.steps <= steps]
        self._spent = (self.curve[-1].seconds, self.curve[-1].environment_seconds)
        self.report(self.curve[-1])

    def measure(self, steps: int, actor: Actor, environment_seconds: float) -> None:
        """Add a point to the curve, and keep it with the policy.

        Args:
            steps: Environment steps done.
            environment_seconds: What the environment has taken since this process began to train.
        """
        lesson, known = self.lesson, self.lesson.references
        welfare = play_all(self._test, LearnedPolicy(actor, lesson.player, self._about), known.first)
        point = CurvePoint(
            steps=steps,
            welfare=float(welfare.mean()),
            score=known.score(welfare),
            seconds=self._spent[0] + time.perf_counter() - self._start,
            environment_seconds=self._spent[1] + environment_seconds,
        )
        self.curve.append(point)
        save_policy(lesson.folder / WEIGHTS, actor, lesson.player, self._about | {"steps": steps})
        write_curve(lesson.folder / CURVE, self.curve)
        self.report(point)


def learn(lesson: Lesson, report: Callable[[CurvePoint], None] = lambda point: None) -> list[CurvePoint]:
    """Train, and write weights, checkpoints and the curve to the folder; goes on from a checkpoint that is there."""
    learn_with: Callable[[Progress], None] = resolve(lesson.algo.library, "library", LIBRARIES)
    lesson.folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(lesson.folder)
    progress = Progress(lesson, report)
    with threadpool_limits(lesson.threads):
        learn_with(progress)
    return progress.curve


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Keep what a training needs to go on in its folder, whole or not at all."""
    save_whole(folder / CHECKPOINT, state)


def save_whole(path: Path, state: Mapping[str, Any]) -> None:
    """What `torch.load` reads again, whole or not at all."""
    file = io.BytesIO()  # torch itself doesn't say in so many words that a disk is full
    torch.save(dict(state), file)
    write_whole(path, lambda unfinished: unfinished.write_bytes(file.getvalue()))


def from_checkpoint(path: Path, put: Callable[[dict[str, Any]], T]) -> T | None:
    """What `put` makes of what a checkpoint holds; None where there is none.

    Raises:
        InvalidCheckpoint: It is damaged, or `put` can't use it.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself doesn't look at the sums
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        return put(torch.load(path, weights_only=True))
    except Exception as error:  # torch raises whatever the bytes suggest
        raise InvalidCheckpoint(f"{str(path)!r} can't be used: {error}. Delete the folder to train anew.") from error


def write_curve(path: Path, curve: list[CurvePoint]) -> None:
    """The curve as CSV, whole or not at all."""

    def write(unfinished: Path) -> None:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(CurvePoint.__dataclass_fields__))
            writer.writeheader()
            writer.writerows(vars(point) for point in curve)

    write_whole(path, write)


def read_curve(path: Path) -> list[CurvePoint]:
    """The points of a curve that `write_curve` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            CurvePoint(steps=int(row.pop("steps")), **{name: float(value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]
