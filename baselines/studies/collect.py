"""Jobs of a folder as tables: what was run, the score of each group of runs, learning curves, performance profiles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.box import HEAVY_HEAD, MARKDOWN, Box
from rich.table import Table

from peergrid.baselines.scoring.estimates import estimate_score, performance_profile
from peergrid.baselines.studies.jobs import DONE, FAILED, RESULT, RUN
from peergrid.baselines.training.lesson import CURVE, read_curve
from peergrid.grid.errors import PeergridError

# What tells one group of runs from another; seeds are its runs.
OF_GROUP = ("scenario", "variant", "policy", "player", "predictor")
# Figures beside the score, means over a group's runs and per day: their heading and how many decimals are shown.
BESIDE = {
    "over_no_trade": ("over no\ntrade", 1),
    "acceptance": ("accepted", 3),
    "curtailed_kwh": ("cut\nkWh", 0),
    "bus_hours_beyond": ("bus-hours\nbeyond", 2),
    "gini": ("Gini", 2),
    "failed_solves": ("failed\nsolves", 0),
    "wall_s": ("wall\ns", 0),
}
TOLD_ELSEWHERE = {
    "scenario",
    "algo",
    "policy",
    "player",
    "predictor",
    "seed",
    "experiment",
    "launcher",
    "steps",
    "days",
}
TOLD_ELSEWHERE |= {"output", "cache", "redo", "threads", "check_every"}
# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
LINES = ("-", "--", ":")


def collect(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Jobs, their held-out days and their learning curves, each a tidy table.

    Raises:
        PeergridError: There is no job in the folder.
    """
    runs, days, curves = [], [], []
    for path in sorted(folder.glob(f"**/{RUN}")):
        about, place = json.loads(path.read_text(encoding="utf-8")), path.parent
        settings = about["settings"]
        run = {
            "job": place.name,
            "scenario": settings["scenario"]["name"],
            "variant": _variant(about["overrides"]),
            "policy": settings.get("policy") or settings["algo"]["name"],
            "player": settings.get("player", "fixed"),
            "predictor": settings["predictor"],
            "seed": settings["seed"],
            "overrides": " ".join(about["overrides"]),
            "version": about["version"],
            "host": about["host"],
            "started": about["started"],
            "status": "done" if (place / DONE).is_file() else "failed" if (place / FAILED).is_file() else "unfinished",
            "error": _last_line(place / FAILED),
        }
        if run["status"] == "done":
            result = json.loads((place / RESULT).read_text(encoding="utf-8"))
            run |= {"wall_s": json.loads((place / DONE).read_text(encoding="utf-8"))["seconds"]}
            run |= {name: value for name, value in result.items() if isinstance(value, (int, float))}
            if "learned" in result:
                run |= _learned(result["learned"])
            each = zip(result["days"], result["no_trade"], result["optimum"], strict=True)
            for day, (welfare, least, most) in enumerate(each):
                days.append({**run, "day": day, "welfare": welfare, "no_trade": least, "optimum": most})
        if (place / CURVE).is_file():
            curves += [{**run, **vars(point)} for point in read_curve(place / CURVE)]
        runs.append(run)
    if not runs:
        raise PeergridError(f"there is no job in {str(folder)!r}: no {RUN} in any folder of it")
    return pd.DataFrame(runs), pd.DataFrame(days), pd.DataFrame(curves)


def scores(days: pd.DataFrame) -> pd.DataFrame:
    """The interquartile mean score of each group of runs with its interval, and the figures beside it."""
    found = []
    for group, part in days.groupby(list(OF_GROUP), sort=True, dropna=False):
        welfare = part.pivot(index="seed", columns="day", values="welfare").dropna(axis=1)
        reference = part.drop_duplicates("day").set_index("day").loc[welfare.columns]
        least, most = reference["no_trade"].to_numpy(float), reference["optimum"].to_numpy(float)
        estimate = estimate_score(welfare.to_numpy(float) - least, most - least)
        beside = part.drop_duplicates("seed").reindex(columns=list(BESIDE)).mean().to_dict()
        found.append(dict(zip(OF_GROUP, group, strict=True)) | {"runs": len(welfare)} | vars(estimate) | beside)
    return pd.DataFrame(found)


def marl_eval(days: pd.DataFrame) -> dict[str, Any]:
    """The results in marl-eval's form: environment, task, algorithm, run, absolute metrics."""
    told: dict[str, Any] = {"peergrid": {}}
    for (scenario, policy, predictor, seed), part in days.groupby(["scenario", "policy", "predictor", "seed"]):
        algorithms = told["peergrid"].setdefault(str(scenario), {})
        run = {"absolute_metrics": {"welfare": part.sort_values("day")["welfare"].astype(float).tolist()}}
        algorithms.setdefault(f"{policy} ({predictor})", {})[f"seed_{seed}"] = run
    return told


def table(found: pd.DataFrame, form: Box = HEAVY_HEAD) -> Table:
    """The scores as a table; columns that say nothing are left out."""
    title = None if form is MARKDOWN else "Scores: interquartile mean [95 %]; no trade is 0, the optimum 100"
    grid = Table(title=title, title_justify="left", box=form)
    told = [name for name in OF_GROUP if found[name].nunique() > 1 or name in ("scenario", "policy")]
    for name in (*told, "runs", "score", *(heading for heading, _ in BESIDE.values())):
        name = name.replace("\n", " ") if form is MARKDOWN else name
        grid.add_column(name, justify="left" if name in told else "right", no_wrap=name in (*told, "score"))
    for row in found.to_dict("records"):
        shown = f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        beside = ["" if pd.isna(row[name]) else f"{row[name]:.{n}f}" for name, (_, n) in BESIDE.items()]
        grid.add_row(*(str(row[name]) for name in told), str(row["runs"]), shown, *beside)
    return grid


def draw_curves(curves: pd.DataFrame, path: Path) -> Path:
    """Learning curves: the mean over seeds, and the range of the seeds."""

    def draw(axis: Axes, part: pd.DataFrame, style: Mapping[str, Any]) -> None:
        by_step = part.groupby("steps")["score"]
        axis.plot(np.array(list(by_step.groups)), by_step.mean(), **style)
        low, high = by_step.min().to_numpy(), by_step.max().to_numpy()
        axis.fill_between(np.array(list(by_step.groups)), low, high, color=style["color"], alpha=0.15, lw=0)

    figure = _panels(curves, draw, "environment steps", "score (no trade 0, optimum 100)")
    for axis in figure.axes:
        axis.axhline(0.0, color="black", lw=0.8)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_ylim(bottom=max(-100.0, axis.get_ylim()[0]))
    figure.savefig(path, dpi=150)
    return path


def draw_profiles(days: pd.DataFrame, path: Path) -> Path:
    """Performance profiles: the share of held-out days, over all runs, that score more than each value."""
    at = np.linspace(-50.0, 100.0, 151)

    def draw(axis: Axes, part: pd.DataFrame, style: Mapping[str, Any]) -> None:
        score = 100.0 * (part["welfare"] - part["no_trade"]) / (part["optimum"] - part["no_trade"])
        axis.plot(at, performance_profile(score.to_numpy(float), at), **style)

    figure = _panels(days, draw, "score of a day (no trade 0, optimum 100)", "share of days above it")
    figure.savefig(path, dpi=150)
    return path


def _panels(
    runs: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame, Mapping[str, Any]], None], x_label: str, y_label: str
) -> Figure:
    """A panel for each scenario, in which every group of runs is drawn in its own style; one legend for all."""
    scenarios, columns = sorted(runs["scenario"].unique()), ["variant", "policy", "player", "predictor"]
    told = [name for name in columns if runs[name].nunique() > 1] or ["policy"]
    groups = sorted({tuple(row) for row in runs[told].astype(str).itertuples(index=False)})
    styles = {
        group: {"color": COLOURS[k % len(COLOURS)], "ls": LINES[k // len(COLOURS) % len(LINES)]}
        for k, group in enumerate(groups)
    }
    n_column = min(3, len(scenarios))
    n_row = -(-len(scenarios) // n_column)
    figure = Figure(figsize=(5.0 * n_column, 3.6 * n_row + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    for k, scenario in enumerate(scenarios):
        axis, own = figure.add_subplot(n_row, n_column, k + 1), runs[runs["scenario"] == scenario]
        for group, part in own.groupby([own[name].astype(str) for name in told], sort=True):
            seeds = part["seed"].nunique()
            label = ", ".join(name for name in group if name) + (f" ({seeds} runs)" if seeds > 1 else "")
            draw(axis, part, styles[group] | {"label": label})
            handles.setdefault(label, axis.lines[-1])
        axis.set_title(scenario)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(linewidth=0.4, alpha=0.5)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _learned(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a run of a learned policy is called: by what it learned, and where."""
    first, n = about["season"]
    season = f", days {first} to {first + n - 1}" if n else ""
    return {
        "policy": f"{about['algorithm']} of {about['scenario']}{season}",
        "player": about["player"],
        "seed": about["seed"],
    }


def _variant(overrides: list[str]) -> str:
    """The overrides that no column of its own tells, and that change what is found."""
    return " ".join(text for text in overrides if text.lstrip("+").split("=")[0] not in TOLD_ELSEWHERE)


def _last_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip().splitlines()[-1] if path.is_file() else ""


def manifest(runs: pd.DataFrame) -> pd.DataFrame:
    """What was run, and how it ended."""
    columns = ["job", "overrides", "seed", "status", "version", "host", "started", "wall_s", "error"]
    return runs.reindex(columns=columns)
