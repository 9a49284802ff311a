"""The transactive-energy paper's study: every case on every day, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Table
from scipy.stats import bootstrap

from peergrid.baselines.episode.processes import run_all
from peergrid.baselines.episode.transactive import TransactiveDay, play_day
from peergrid.baselines.policies.transactive import Myopic, Optimising, Scheduled, TransactivePolicy
from peergrid.baselines.studies.transactive_admm import AdmmDay
from peergrid.envs.transactive.scenario import TransactiveScenario, load_scenario, scenario_from_dict
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Closing

NO_LOOP, LOOP = "no loop", "halving"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Case:
    """Who answers, how the DSO moves the signal, and how tight its threshold is."""

    policy: type[TransactivePolicy]
    rule: str
    is_tight: bool = False


CASES = {
    "scheduled": Case(Scheduled, "none"),
    NO_LOOP: Case(Optimising, "none"),
    LOOP: Case(Optimising, "halving"),
    "fixed": Case(Optimising, "fixed"),
    "proportional": Case(Optimising, "proportional"),
    "myopic, no loop": Case(Myopic, "none"),
    "myopic, halving": Case(Myopic, "halving"),
    "halving, tight": Case(Optimising, "halving", is_tight=True),
    "fixed, tight": Case(Optimising, "fixed", is_tight=True),
}


@dataclass
class TransactiveStudySettings:
    """What `conf/transactive_study.yaml` sets."""

    transactive: dict[str, Any] = field(default_factory=dict)
    days: int = 36
    hours: list[int] = field(default_factory=list)
    agent: str = "713"
    tight: float = 0.0025
    workers: int = 0
    output: str = "outputs/transactive_study"


@dataclass(frozen=True)
class Job:
    """One case on one held-out day."""

    scenario: str | TransactiveScenario
    case: str
    day: int
    tight: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over days and its bootstrap interval at CONFIDENCE."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TransactiveSummary:
    """A case over all days; money per day, beside `no loop` where it says so."""

    case: str
    deviation_percent: Interval
    deviation_saved_percent: Interval
    cost: Interval
    cost_saved: Interval
    iterations: float
    hours_within: float
    hours_at_bound: float
    hours_out_of_iterations: float
    agents_day_ahead: float
    agents_real_time: float
    operating_cost: float
    upstream_day_ahead: float
    upstream_real_time: float
    dso_result: float
    shed_kwh: float
    failed: int


def scenario_of(job: Job) -> TransactiveScenario:
    """The scenario with the case's rule and threshold."""
    scenario, case = load_scenario(job.scenario), CASES[job.case]
    threshold = job.tight if case.is_tight else scenario.loop.threshold_share
    return replace(scenario, loop=replace(scenario.loop, rule=case.rule, threshold_share=threshold))


def play_case(job: Job) -> TransactiveDay:
    """Play one case on one day."""
    return play_day(Transactive(scenario_of(job)), CASES[job.case].policy(), job.day)


def interval_of(per_day: Float[np.ndarray, " day"]) -> Interval:
    """The mean over days with its bootstrap interval."""
    mean = float(per_day.mean())
    if np.ptp(per_day) == 0:
        return Interval(mean=mean, low=mean, high=mean)
    found = bootstrap((per_day,), np.mean, confidence_level=CONFIDENCE, rng=np.random.default_rng(0))
    return Interval(mean=mean, low=float(found.confidence_interval.low), high=float(found.confidence_interval.high))


def summarise(case: str, records: list[TransactiveDay], without: list[TransactiveDay]) -> TransactiveSummary:
    """The figures of a case over its days, beside the same days without the loop."""

    def per_day(name: str) -> Float[np.ndarray, " day"]:
        return np.array([getattr(r, name).sum() for r in records])

    def deviation(days: list[TransactiveDay]) -> Float[np.ndarray, " day"]:
        return np.array([100.0 * r.deviation_kw.sum() / np.abs(r.scheduled_kw).sum() for r in days])

    def hours(closing: Closing) -> float:
        return float(np.mean([(r.closing == closing).sum() for r in records]))

    cost, cost_without = per_day("total_cost"), np.array([r.total_cost.sum() for r in without])
    means = {
        name: float(per_day(name).mean())
        for name in (
            "agents_day_ahead",
            "agents_real_time",
            "operating_cost",
            "upstream_day_ahead",
            "upstream_real_time",
            "dso_result",
        )
    }
    return TransactiveSummary(
        case=case,
        deviation_percent=interval_of(deviation(records)),
        deviation_saved_percent=interval_of(deviation(without) - deviation(records)),
        cost=interval_of(cost),
        cost_saved=interval_of(cost_without - cost),
        iterations=float(np.mean([r.iterations.mean() for r in records])),
        hours_within=hours(Closing.WITHIN_THRESHOLD),
        hours_at_bound=hours(Closing.SIGNAL_STANDS),
        hours_out_of_iterations=hours(Closing.OUT_OF_ITERATIONS),
        shed_kwh=float(per_day("shed_kw").mean()),
        failed=sum(r.failed for r in records),
        **means,
    )


def _between(interval: Interval, digits: int) -> str:
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


LOOP_COLUMNS: dict[str, Callable[[TransactiveSummary], str]] = {
    "deviation\n% of schedule": lambda s: _between(s.deviation_percent, 2),
    "deviation saved\n% of schedule": lambda s: _between(s.deviation_saved_percent, 2),
    "cost\nof the day": lambda s: f"{s.cost.mean:.0f}",
    "cost saved\nof the day": lambda s: _between(s.cost_saved, 1),
    "iterations\nper hour": lambda s: f"{s.iterations:.1f}",
    "hours\nwithin": lambda s: f"{s.hours_within:.1f}",
    "at\nbound": lambda s: f"{s.hours_at_bound:.1f}",
    "given\nup": lambda s: f"{s.hours_out_of_iterations:.1f}",
}
MONEY_COLUMNS: dict[str, Callable[[TransactiveSummary], str]] = {
    "agents pay\nday-ahead": lambda s: f"{s.agents_day_ahead:.1f}",
    "agents pay\nreal-time": lambda s: f"{s.agents_real_time:.1f}",
    "cost of\nresources": lambda s: f"{s.operating_cost:.1f}",
    "upstream\nday-ahead": lambda s: f"{s.upstream_day_ahead:.1f}",
    "upstream\nreal-time": lambda s: f"{s.upstream_real_time:.1f}",
    "DSO\nkeeps": lambda s: f"{s.dso_result:.1f}",
    "shed\nkWh": lambda s: f"{s.shed_kwh:.2f}",
    "failed\nsolves": lambda s: f"{s.failed}",
}
# What is shown of each hour, and how.
ADMM_COLUMNS: dict[str, tuple[str, str]] = {
    "iterations": ("iterations", ","),
    "rho at\nthe end": ("rho", ".2g"),
    "primal residual\npower, p.u.": ("power_residual_pu", ".1e"),
    "primal residual\nvoltage, p.u.": ("voltage_residual_pu", ".1e"),
    "dual\nresidual": ("dual_residual", ".1e"),
    "cost beside\ncentral": ("cost_error", ".1e"),
    "exchange beside\ncentral": ("exchange_error", ".1e"),
    "messages": ("messages", ","),
    "bytes": ("message_bytes", ","),
}


def table_of_cases(
    title: str, summaries: list[TransactiveSummary], columns: Mapping[str, Callable[[TransactiveSummary], str]]
) -> Table:
    """A line for each case."""
    grid = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for name in ("case", *columns):
        grid.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    for summary in summaries:
        grid.add_row(summary.case, *(show(summary) for show in columns.values()))
    return grid


def table_of_admm(found: AdmmDay, day: int, hours: list[int]) -> Table:
    """A line for each hour that is drawn, and one for the worst of the day."""
    title = f"ADMM beside the central solver, on held-out day {day}"
    grid = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for name in ("hour", *ADMM_COLUMNS):
        grid.add_column(name, justify="right", no_wrap=True)
    rows = {f"{t}:00": [t] for t in hours} | {"most": range(len(found.rho))}
    for name, which in rows.items():
        worst = [getattr(found, of)[list(which)].max() for of, _ in ADMM_COLUMNS.values()]
        shown = [f"{value:{form}}" for value, (_, form) in zip(worst, ADMM_COLUMNS.values(), strict=True)]
        grid.add_row(name, *shown)
    return grid


def day_to_draw(records: list[TransactiveDay], hours: list[int]) -> int:
    """The first day on which every one of these hours takes the loop several iterations, or else the first day."""
    busy = (k for k, record in enumerate(records) if (record.iterations[hours] > 2).all())
    return next(busy, 0)


def run(settings: TransactiveStudySettings) -> dict[str, list[TransactiveDay]]:
    """Every case on every day."""
    scenario = scenario_from_dict(settings.transactive)
    jobs = [Job(scenario, case, day, settings.tight) for case in CASES for day in range(settings.days)]
    records = run_all(play_case, jobs, settings.workers, "transactive study")
    found: dict[str, list[TransactiveDay]] = {case: [] for case in CASES}
    for job, record in zip(jobs, records, strict=True):
        found[job.case].append(record)
    return found
