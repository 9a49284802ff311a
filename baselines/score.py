"""How good a policy is: between no trade (0) and the perfect-foresight social optimum with the network (100).

    score = 100 sum(W - W_no_trade) / sum(W_optimum - W_no_trade)

over held-out days, W being the day's welfare. All start and end every day with the same energy stored. Negative
scores are legal results. `python -m peergrid.baselines.score` scores the fixed policies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig
from rich.table import Table

from peergrid.baselines.entry import console_for_tables, run_all, settings_from, write_json
from peergrid.baselines.plans import Optimum
from peergrid.baselines.play import DayRecord, play_day
from peergrid.baselines.policies import NoTrade, Optimal, Planned, RandomPolicy, Truthful
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.policy import Policy
from peergrid.envs.scenario import Scenario, load_scenario
from peergrid.grid.errors import PeergridError

# Name: policy and the predictor in its observation.
FIXED: dict[str, tuple[Callable[[], Policy], str]] = {
    "no trade": (NoTrade, "none"),
    "random": (RandomPolicy, "none"),
    "day plan": (Planned, "none"),
    "truthful": (Truthful, "none"),
    "truthful, oracle": (Truthful, "oracle"),
    "optimum, played": (Optimal, "none"),
}


@dataclass
class ScoreSettings:
    """What `conf/score.yaml` sets."""

    scenarios: list[str] = field(default_factory=list)
    days: int = 20
    workers: int = 0
    output: str = "outputs/score"


@dataclass(frozen=True)
class Job:
    """A policy, or the optimum's value, on one held-out day."""

    scenario: str
    policy: str
    day: int


def score(welfare: Sequence[float], no_trade: Sequence[float], optimum: Sequence[float]) -> float:
    """The score of a policy from the welfare of each day, beside that without trade and that of the optimum.

    Raises:
        PeergridError: The optimum is no better than no trade, so there is no scale.
    """
    possible = float(np.sum(optimum) - np.sum(no_trade))
    if possible <= 0:
        raise PeergridError("the optimum is worth no more than no trade on these days: there is nothing to score by")
    return 100.0 * float(np.sum(welfare) - np.sum(no_trade)) / possible


def optimal_welfare(scenario: str | Scenario, day: int) -> float:
    """Welfare of the perfect-foresight optimum on held-out day `day`, in currency."""
    simulation = Simulation(load_scenario(scenario))
    simulation.reset(options={"evaluation_day": day})
    return Optimum.of(simulation.scenario).solve(simulation).value


def play_fixed(job: Job) -> DayRecord:
    """Play a fixed policy on one day."""
    env, policy = _fixed(job.scenario, job.policy)
    return play_day(env, policy, job.day)


@lru_cache(maxsize=16)
def _fixed(scenario: str, name: str) -> tuple[P2PTrading, Policy]:
    policy, predictor = FIXED[name]
    return P2PTrading(scenario, predictor=predictor), policy()


def _optimum(job: Job) -> float:
    return optimal_welfare(job.scenario, job.day)


@hydra.main(version_base="1.3", config_path="pkg://peergrid.conf", config_name="score")
def main(cfg: DictConfig) -> None:
    """Score the fixed policies, print the table, write the results."""
    settings = settings_from(cfg, ScoreSettings)
    for name in settings.scenarios:
        load_scenario(name)
    days = range(settings.days)
    jobs = [Job(s, p, d) for s in settings.scenarios for p in FIXED for d in days]
    bounds = [Job(s, "optimum", d) for s in settings.scenarios for d in days]
    records = dict(zip(jobs, run_all(play_fixed, jobs, settings.workers, "policies"), strict=True))
    optima = dict(zip(bounds, run_all(_optimum, bounds, settings.workers, "optimum"), strict=True))

    grid = Table(title=f"Scores over {settings.days} held-out days; money in currency per day", title_justify="left")
    for name in (
        "scenario",
        "policy",
        "score",
        "welfare",
        "over no trade",
        "accepted",
        "curtailed kWh",
        "bus-hours beyond",
    ):
        grid.add_column(name, justify="left" if name in ("scenario", "policy") else "right", no_wrap=True)
    results = []
    for scenario in settings.scenarios:
        no_trade = [records[Job(scenario, "no trade", d)].welfare for d in days]
        optimum = [optima[Job(scenario, "optimum", d)] for d in days]
        for name in FIXED:
            played = [records[Job(scenario, name, d)] for d in days]
            welfare = [r.welfare for r in played]
            row = {
                "scenario": scenario,
                "policy": name,
                "score": score(welfare, no_trade, optimum),
                "welfare": float(np.mean(welfare)),
                "over_no_trade": float(np.mean(welfare) - np.mean(no_trade)),
                "acceptance": _acceptance(played),
                "curtailed_kwh": float(np.mean([r.curtailed_kwh for r in played])),
                "bus_hours_beyond": _bus_hours_beyond(played, scenario),
                "days": welfare,
            }
            results.append(row)
            figures = [f"{row[k]:.2f}" for k in ("score", "welfare")] + [f"{row['over_no_trade']:+.2f}"]
            rest = [f"{row['acceptance']:.3f}", f"{row['curtailed_kwh']:.1f}", f"{row['bus_hours_beyond']:.2f}"]
            grid.add_row(scenario, name, *figures, *rest)
        worth = [f"{score(optimum, no_trade, optimum):.2f}", f"{np.mean(optimum):.2f}"]
        gain = f"{np.mean(optimum) - np.mean(no_trade):+.2f}"
        grid.add_row(scenario, "optimum, its value", *worth, gain, "", "", "", end_section=True)
        results.append({"scenario": scenario, "policy": "optimum, its value", "days": optimum})
    path = Path(settings.output) / "scores.json"
    write_json(path, {"settings": asdict(settings), "scores": results})
    console = console_for_tables()
    console.print(grid)
    console.print(f"wrote {path}", highlight=False)


def _acceptance(played: list[DayRecord]) -> float:
    proposed_kwh = sum(r.first_proposed_kwh for r in played)
    return sum(r.accepted_kwh for r in played) / proposed_kwh if proposed_kwh > 0 else 1.0


def _bus_hours_beyond(played: list[DayRecord], scenario: str) -> float:
    limits = load_scenario(scenario).network
    voltage = np.stack([r.voltage_pu[:, 1:] for r in played])
    beyond = (voltage > limits.v_max_pu + 1e-5) | (voltage < limits.v_min_pu - 1e-5)
    return float(beyond.sum() / len(played))


if __name__ == "__main__":
    main()
