"""What a prediction is worth: the score of policies over how many intervals the prediction looks ahead."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.cases import rules_for
from peergrid.baselines.policies.learned import policy_of
from peergrid.baselines.scoring.references import References
from peergrid.baselines.scoring.score import score, score_interval
from peergrid.baselines.studies.jobs import DONE, RESULT, RUN
from peergrid.envs.common.policy import BatchPolicy
from peergrid.envs.p2p_trading.scenario import Scenario, build_dso, load_scenario, scenario_from_dict
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import PeergridError
from peergrid.surrogate.checkpoint import shipped_file

# Okabe and Ito's: one colour a predictor.
COLOURS = {"transformer": "#0072B2", "oracle": "#D55E00", "none": "#777777"}
MARKS = ("o", "s", "^", "D", "v")


@dataclass
class HorizonSettings:
    """What `conf/horizons.yaml` sets."""

    scenarios: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    predictors: list[str] = field(default_factory=list)
    horizons: list[int] = field(default_factory=list)
    days: int = 20
    first_held_out: int = 0
    learned: str = ""
    threads: int = 1
    output: str = "outputs/horizons"
    cache: str = "outputs/references"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score, with its 95 % interval, by how many intervals were predicted by whom."""

    scenario: str
    policy: str
    predictor: str
    horizon: int
    score: float
    low: float
    high: float


def measure(scenario: Scenario, policy: str, predictor: str, horizon: int, known: References) -> Point:
    """Play the days of the references side by side, and score them."""
    n_days = len(known.no_trade)
    playing = policy_of(policy)
    if not isinstance(playing, BatchPolicy):
        raise PeergridError(f"policy {policy!r} cannot play many days side by side")
    rules = rules_for(playing, scenario)
    simulation = Simulation(**rules, num_envs=n_days, predictor=predictor, predicted_intervals=horizon)
    welfare = play_all(simulation, playing, known.first)
    of_days = (welfare.tolist(), known.no_trade.tolist(), known.optimum.tolist())
    low, high = score_interval(*of_days)
    return Point(
        scenario=scenario.name,
        policy=policy,
        predictor=predictor if horizon else "none",
        horizon=horizon,
        score=score(*of_days),
        low=low,
        high=high,
    )


def measured(settings: HorizonSettings) -> Iterable[tuple[str, str, str, int]]:
    """What is played: scenario, policy, predictor and horizon; without a prediction once for all predictors."""
    for name in settings.scenarios:
        can_transform = shipped_file(build_dso(load_scenario(name))) is not None
        predictors = [p for p in settings.predictors if p != "transformer" or can_transform]
        for policy in settings.policies:
            for predictor in predictors:
                for horizon in settings.horizons:
                    if horizon or predictor == predictors[0]:
                        yield name, policy, predictor, horizon


def learned(folder: Path) -> list[Point]:
    """The mean score over seeds of each kind of job that `baselines.train` has done in a folder, and its spread.

    The interval is the mean less and plus 1.96 standard errors over seeds.
    """
    found: dict[tuple[str, str, str, int], list[float]] = {}
    for path in sorted(folder.glob(f"**/{RUN}")):
        if (path.parent / DONE).is_file():
            settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
            result = json.loads((path.parent / RESULT).read_text(encoding="utf-8"))
            if "algo" not in settings:
                continue
            scenario, predictor = scenario_from_dict(settings["scenario"]), settings["predictor"]
            seen = settings["predicted_intervals"] or scenario.lookahead
            horizon = 0 if predictor == "none" else min(seen, scenario.lookahead)
            key = (scenario.name, f"{settings['algo']['name']}, {settings['player']}", predictor, horizon)
            found.setdefault(key, []).append(result["score"])
    points = []
    for (name, policy, predictor, horizon), scores in found.items():
        mean, error = float(np.mean(scores)), float(np.std(scores, ddof=min(1, len(scores) - 1))) / len(scores) ** 0.5
        low, high = mean - 1.96 * error, mean + 1.96 * error
        points.append(
            Point(scenario=name, policy=policy, predictor=predictor, horizon=horizon, score=mean, low=low, high=high)
        )
    return points


def table(points: list[Point], horizons: list[int]) -> Table:
    """The scores as a table, a column for each horizon."""
    title = "Score by intervals that are predicted, with its 95 % interval"
    grid = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for name in ("scenario", "policy", "predictor"):
        grid.add_column(name, no_wrap=True)
    for horizon in horizons:
        grid.add_column(f"{horizon}", justify="right", no_wrap=True)
    by_row: dict[tuple[str, str, str], dict[int, str]] = {}
    for p in points:
        cell = f"{p.score:.1f}\n{p.low:.0f}, {p.high:.0f}"
        by_row.setdefault((p.scenario, p.policy, p.predictor), {})[p.horizon] = cell
    for row, cells in by_row.items():
        grid.add_row(*row, *[cells.get(horizon, "") for horizon in horizons])
    return grid


def draw(points: list[Point], path: Path) -> None:
    """The scores over the horizon, a panel for each scenario, and save it."""
    scenarios = list(dict.fromkeys(p.scenario for p in points))
    policies = list(dict.fromkeys(p.policy for p in points))
    figure = Figure(figsize=(7.7, 2.9 * len(scenarios)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(scenarios), 1, squeeze=False)[:, 0]
    horizons = sorted({p.horizon for p in points})
    for axis, scenario in zip(axes, scenarios, strict=True):
        own = [p for p in points if p.scenario == scenario]
        for policy, mark in zip(policies, MARKS * len(policies), strict=False):
            _draw_policy(axis, [p for p in own if p.policy == policy], horizons, policy, mark)
        axis.set_title(scenario, fontsize=10)
        axis.set_xticks(range(len(horizons)), [f"{h}" for h in horizons])
        axis.set_ylabel("score")
        axis.axhline(0.0, color="black", linewidth=0.8, linestyle=":")
        axis.axhline(100.0, color="black", linewidth=0.8, linestyle=":")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", linewidth=0.4, alpha=0.5)
        axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("intervals that are predicted, the one that begins included")
    figure.savefig(path, dpi=150)


def _draw_policy(axis: Axes, points: list[Point], horizons: list[int], policy: str, mark: str) -> None:
    """A line for each predictor, all from the score without one."""
    blind = [p for p in points if p.horizon == 0]
    for predictor in dict.fromkeys(p.predictor for p in points if p.horizon):
        line = sorted([*blind, *(p for p in points if p.horizon and p.predictor == predictor)], key=lambda p: p.horizon)
        at = [horizons.index(p.horizon) for p in line]
        values, colour = np.array([p.score for p in line]), COLOURS.get(predictor, "#009E73")
        ends = np.array([[p.score - p.low for p in line], [p.high - p.score for p in line]])
        axis.errorbar(
            at,
            values,
            ends,
            marker=mark,
            markersize=5,
            capsize=2,
            linewidth=1.4,
            color=colour,
            label=f"{policy}\n({predictor})",
            linestyle="--" if "," in policy else "-",
        )
