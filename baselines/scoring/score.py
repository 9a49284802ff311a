"""How good a policy is: between no trade (0) and the perfect-foresight social optimum with the network (100).

    score = 100 sum(W - W_no_trade) / sum(W_optimum - W_no_trade)

over held-out days, W being the day's welfare. All start and end every day with the same energy stored. Negative
scores are legal results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rich.table import Table

from peergrid.baselines.episode.play import DayRecord, bus_hours_beyond_limits
from peergrid.baselines.policies.plans import Optimum
from peergrid.envs.p2p_trading.scenario import Scenario, load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import PeergridError


def score(welfare: Sequence[float], no_trade: Sequence[float], optimum: Sequence[float]) -> float:
    """The score of a policy from the welfare of each day, beside that without trade and that of the optimum.

    Raises:
        PeergridError: The optimum is no better than no trade, so there is no scale.
    """
    possible = float(np.sum(optimum) - np.sum(no_trade))
    if possible <= 0:
        raise PeergridError("the optimum is worth no more than no trade on these days: there is nothing to score by")
    return 100.0 * float(np.sum(welfare) - np.sum(no_trade)) / possible


def score_interval(
    welfare: Sequence[float], no_trade: Sequence[float], optimum: Sequence[float], resamples: int = 2000
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the score over days, resampled as a ratio of sums."""
    days = np.random.default_rng(0).integers(len(welfare), size=(resamples, len(welfare)))
    gained, possible = np.subtract(welfare, no_trade)[days].sum(1), np.subtract(optimum, no_trade)[days].sum(1)
    low, high = np.quantile(100.0 * gained / possible, [0.025, 0.975])
    return float(low), float(high)


def optimal_welfare(scenario: str | Scenario, day: int) -> float:
    """Welfare of the perfect-foresight optimum on held-out day `day`, in currency."""
    simulation = Simulation(load_scenario(scenario), predictor="none")
    if not (simulation.scenario.daily_cycle or simulation.params.terminates):
        raise PeergridError("without daily_cycle or horizon 'terminate', days end with different energies stored")
    simulation.reset(options={"evaluation_day": day})
    return _program(simulation.scenario).solve(simulation).value


@lru_cache(maxsize=4)
def _program(scenario: Scenario) -> Optimum:
    return Optimum.of(scenario)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A policy's score and side metrics over held-out days; money in currency and energies per day."""

    scenario: str
    policy: str
    score: float
    score_95: tuple[float, float]
    welfare: float
    over_no_trade: float
    acceptance: float
    curtailed_kwh: float
    bus_hours_beyond: float
    gini: float
    failed_solves: int
    seconds: float  # of the DSO's answers and the policy's decisions
    days: list[float]


COLUMNS: dict[str, Callable[[Scored], str]] = {
    "score": lambda s: f"{s.score:.1f}",
    "95 %": lambda s: f"{s.score_95[0]:.0f} to {s.score_95[1]:.0f}",
    "welfare": lambda s: f"{s.welfare:.0f}",
    "over no\ntrade": lambda s: f"{s.over_no_trade:+.1f}",
    "accepted": lambda s: f"{s.acceptance:.3f}",
    "cut\nkWh": lambda s: f"{s.curtailed_kwh:.0f}",
    "bus-hours\nbeyond": lambda s: f"{s.bus_hours_beyond:.2f}",
    "Gini": lambda s: f"{s.gini:.2f}",
    "failed\nsolves": lambda s: f"{s.failed_solves}",
    "seconds": lambda s: f"{s.seconds:.1f}",
}


def evaluate(
    scenario: str | Scenario, policy: str, played: list[DayRecord], no_trade: list[float], optimum: list[float]
) -> Scored:
    """Score a policy from the days that it played, beside the same days without trade and at the optimum."""
    scenario = load_scenario(scenario)
    limits = scenario.network
    welfare = [r.welfare for r in played]
    return Scored(
        scenario=scenario.name,
        policy=policy,
        score=score(welfare, no_trade, optimum),
        score_95=score_interval(welfare, no_trade, optimum),
        welfare=float(np.mean(welfare)),
        over_no_trade=float(np.mean(welfare) - np.mean(no_trade)),
        acceptance=_acceptance(played),
        curtailed_kwh=float(np.mean([r.curtailed_kwh for r in played])),
        bus_hours_beyond=bus_hours_beyond_limits(played, limits.v_min_pu, limits.v_max_pu),
        gini=_gini(np.sum([r.gain for r in played], axis=0)),
        failed_solves=sum(r.failed for r in played),
        seconds=sum(r.dso_seconds + r.policy_seconds for r in played),
        days=welfare,
    )


def table(title: str, scored: list[Scored]) -> Table:
    """The scores as a table, a block of policies for each scenario."""
    grid = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for name in ("scenario", "policy", *COLUMNS):
        grid.add_column(name, justify="left" if name in ("scenario", "policy") else "right", no_wrap=name != "policy")
    for i, s in enumerate(scored):
        is_first = i == 0 or scored[i - 1].scenario != s.scenario
        is_last = i + 1 == len(scored) or scored[i + 1].scenario != s.scenario
        grid.add_row(
            s.scenario if is_first else "", s.policy, *[show(s) for show in COLUMNS.values()], end_section=is_last
        )
    return grid


def _acceptance(played: list[DayRecord]) -> float:
    proposed_kwh = sum(r.first_proposed_kwh for r in played)
    return sum(r.accepted_kwh for r in played) / proposed_kwh if proposed_kwh > 0 else 1.0


def _gini(gains: np.ndarray) -> float:
    """Inequality of the microgrids' gains: mean absolute difference over twice the mean magnitude."""
    magnitude = float(np.abs(gains).mean())
    return float(np.abs(gains[:, None] - gains).mean()) / (2.0 * magnitude) if magnitude > 0 else 0.0
