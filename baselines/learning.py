"""Training: a policy for microgrids, learned with one library or another, with its curve on held-out days."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from peergrid.baselines.learned import WEIGHTS, LearnedPolicy, save_policy
from peergrid.baselines.references import References
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.policy import BatchPolicy
from peergrid.envs.scenario import Scenario
from peergrid.grid.parts import resolve

CURVE, CHECKPOINT = "curve.csv", "checkpoint.pt"
LIBRARIES = {
    "sb3": "peergrid.baselines.learning_sb3:learn_with_sb3",
    "benchmarl": "peergrid.baselines.learning_benchmarl:learn_with_benchmarl",
}


@dataclass
class AlgoSettings:
    """An algorithm of a library, its arguments, and how many markets it steps at once."""

    name: str = "ppo"
    library: str = "sb3"
    num_envs: int = 16
    net_arch: list[int] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """How good the policy was on held-out days after so many environment steps, and what that took, in seconds."""

    steps: int
    welfare: float
    score: float
    seconds: float
    environment_seconds: float


class Training:
    """What is to be learned, by what and for how long, and the curve so far, kept in a folder."""

    def __init__(
        self,
        scenario: Scenario,
        references: References,
        algo: AlgoSettings,
        *,
        predictor: str,
        player: str,
        steps: int,
        check_every: int,
        seed: int,
        folder: Path,
        report: Callable[[CurvePoint], None],
    ) -> None:
        self.scenario, self.references, self.algo = scenario, references, algo
        self.predictor, self.player, self.seed = predictor, player, seed
        self.steps, self.check_every = steps, check_every
        self.folder, self.report = folder, report
        self.curve: list[CurvePoint] = []
        self.about = {"scenario": scenario.name, "predictor": predictor, "seed": seed}
        self._test = Simulation(scenario, num_envs=len(references.no_trade), predictor=predictor)
        self._spent, self._start = (0.0, 0.0), time.perf_counter()

    def go_on(self) -> None:
        """Go on with the curve of a training that was interrupted."""
        self.curve = read_curve(self.folder / CURVE)
        self._spent = (self.curve[-1].seconds, self.curve[-1].environment_seconds)

    def measure(self, steps: int, policy: Any, environment_seconds: float) -> None:
        """Add a point to the curve, and keep it with the policy.

        Args:
            steps: Environment steps done.
            policy: As `LearnedPolicy` plays it.
            environment_seconds: What the environment has taken since this process began to train.
        """
        welfare = play_all(self._test, LearnedPolicy(policy, self.player, self.about))
        point = CurvePoint(
            steps=steps,
            welfare=float(welfare.mean()),
            score=self.references.score(welfare),
            seconds=self._spent[0] + time.perf_counter() - self._start,
            environment_seconds=self._spent[1] + environment_seconds,
        )
        self.curve.append(point)
        algo, about = self.algo, self.about | {"steps": steps}
        save_policy(self.folder / WEIGHTS, policy, algo.name, self.player, list(algo.net_arch), about)
        write_curve(self.folder / CURVE, self.curve)
        self.report(point)


def learn(
    scenario: Scenario,
    references: References,
    algo: AlgoSettings,
    *,
    predictor: str,
    player: str,
    steps: int,
    check_every: int,
    seed: int,
    folder: Path,
    report: Callable[[CurvePoint], None] = lambda point: None,
) -> list[CurvePoint]:
    """Train, and write weights, checkpoints and the curve to a folder; goes on from a checkpoint that is there.

    Args:
        references: Of the held-out days on which the curve is measured. They are only looked at: nothing is chosen by
            them.
        steps: Environment steps: each is one interval of one market, in which all its microgrids act.
        check_every: Environment steps between two points of the curve, each with a checkpoint.
    """
    learn_with: Callable[[Training], None] = resolve(algo.library, "library", LIBRARIES)
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(
        scenario,
        references,
        algo,
        predictor=predictor,
        player=player,
        steps=steps,
        check_every=check_every,
        seed=seed,
        folder=folder,
        report=report,
    )
    learn_with(training)
    return training.curve


def play_all(simulation: Simulation, policy: BatchPolicy) -> Float[np.ndarray, " day"]:
    """Welfare of each held-out day, in currency: row k plays day k."""
    simulation.reset(options={"evaluation_day": 0})
    policy.begin_rows(simulation, np.ones(simulation.num_envs, dtype=bool))
    welfare = np.zeros(simulation.num_envs)
    while not simulation.is_over.all():
        _, outcome = simulation.step(policy.act_rows(simulation, simulation.seen))
        welfare += outcome.welfare
    return welfare


def write_curve(path: Path, curve: list[CurvePoint]) -> None:
    """The curve as CSV, whole or not at all."""
    unfinished = path.with_suffix(".partial")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(CurvePoint.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(vars(point) for point in curve)
    unfinished.replace(path)


def read_curve(path: Path) -> list[CurvePoint]:
    """The points of a curve that `write_curve` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            CurvePoint(steps=int(row.pop("steps")), **{name: float(value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]
