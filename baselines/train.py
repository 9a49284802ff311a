"""Train a policy, by one of our own ways or with Stable-Baselines3 or BenchMARL, and score it on held-out days.

    python -m peergrid.baselines.train scenario=ieee33 reward=cooperative_over_no_trade predictor=none
    python -m peergrid.baselines.train scenario=ieee33 algo=gradients
    python -m peergrid.baselines.train -m scenario=ieee33,ieee69 algo=ppo,sac 'seed=range(5)' launcher=joblib
    python -m peergrid.baselines.collect outputs/train

A job that was interrupted goes on from its last checkpoint when it is called again; what is done is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from peergrid.baselines.entry import console_for_tables, settings_from
from peergrid.baselines.policies.learned import WEIGHTS, load_policy
from peergrid.baselines.scoring.references import references, score_policy
from peergrid.baselines.studies.jobs import run_job
from peergrid.baselines.training.lesson import LIBRARIES, AlgoSettings, CurvePoint, Lesson, learn
from peergrid.command import command
from peergrid.envs.p2p_trading.players import PLAYERS
from peergrid.envs.p2p_trading.scenario import scenario_from_dict
from peergrid.grid.errors import UnknownName
from peergrid.grid.parts import part_name, resolve


@dataclass
class TrainSettings:
    """What `conf/train.yaml` sets."""

    scenario: dict[str, Any] = field(default_factory=dict)
    predictor: str = part_name("auto")
    predicted_intervals: int | None = None
    algo: AlgoSettings = field(default_factory=AlgoSettings)
    player: str = "shared"
    steps: int = 100_000
    check_every: int = 20_000
    days: int = 20
    first_held_out: int = 0
    seed: int = 0
    threads: int = 1
    output: str = "outputs/train"
    cache: str = "outputs/references"
    redo: bool = False


def train(settings: TrainSettings, folder: Path) -> Mapping[str, Any]:
    """Train in a folder, and return the final policy's scores with the time that training took."""
    if settings.player not in PLAYERS:
        raise UnknownName("player", settings.player, PLAYERS)
    resolve(settings.algo.library, "library", LIBRARIES)  # a library that is missing is missed at once
    scenario = scenario_from_dict(settings.scenario)
    known = references(scenario, settings.days, Path(settings.cache), first=settings.first_held_out)
    with tqdm(total=settings.steps, desc="environment steps", disable=None, leave=False) as bar:

        def report(point: CurvePoint) -> None:
            bar.update(point.steps - bar.n)
            bar.set_postfix(score=f"{point.score:.1f}")

        lesson = Lesson(
            scenario=scenario,
            references=known,
            algo=settings.algo,
            predictor=settings.predictor,
            predicted_intervals=settings.predicted_intervals,
            player=settings.player,
            steps=settings.steps,
            check_every=settings.check_every,
            seed=settings.seed,
            threads=settings.threads,
            folder=folder,
        )
        curve = learn(lesson, report)
    scored = score_policy(
        scenario,
        settings.predictor,
        load_policy(folder / WEIGHTS),
        known,
        settings.algo.name,
        settings.predicted_intervals,
    )
    last = curve[-1]
    spent = {"steps": last.steps, "seconds": last.seconds, "environment_seconds": last.environment_seconds}
    return asdict(scored) | known.as_lists() | spent


@command("train")
def main(cfg: DictConfig) -> float:
    """Train, score, and write weights, curve and result to the job's folder; returns the score."""
    settings = settings_from(cfg, TrainSettings)
    scenario, console = scenario_from_dict(settings.scenario), console_for_tables()
    name = "-".join((scenario.name, settings.algo.name, settings.player, settings.predictor, f"seed{settings.seed}"))
    result = run_job(name, asdict(settings), lambda folder: train(settings, folder), console.print)
    low, high = result["score_95"]
    console.print(f"score {result['score']:.1f}, 95 % {low:.1f} to {high:.1f}, after {result['steps']} steps")
    return float(result["score"])  # what a search maximises


if __name__ == "__main__":
    # By its name, so that the processes of a sweep find what they are sent.
    from peergrid.baselines.train import main as named

    named()
