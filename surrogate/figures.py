"""The figures of the report on the transformer: what was asked, how training went, how far predictions are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, MaxNLocator, NullFormatter

from peergrid.grid.feeder import Feeder
from peergrid.surrogate.dataset import Samples
from peergrid.surrogate.plain import Answers

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS = ("#0072B2", "#777777", "#E69F00", "#CC79A7", "#009E73", "#D55E00")


def draw_figures(
    folder: Path,
    *,
    train: Samples,
    test: Samples,
    answers: Answers,
    feeder: Feeder,
    trade_bus: np.ndarray,
    rating_kw: Float[np.ndarray, " trade"],
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[Path]:
    """Draw and save all figures; return their paths.

    Args:
        answers: The transformer's to the test set.
        metrics: Scores as mappings, by set and method.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "inputs": _inputs(train, feeder, rating_kw),
        "correlations": _correlations(train, trade_bus),
        "training": _training(history),
        "predicted_against_true": _predicted_against_true(test, answers, trade_bus),
        "error_by_set": _error_by_set(metrics),
    }
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", linewidth=0.4, alpha=0.5)
        axis.set_axisbelow(True)
    return figure, axes


def _inputs(train: Samples, feeder: Feeder, rating_kw: Float[np.ndarray, " trade"]) -> Figure:
    figure, axes = _figure(2, 3, 11.0, 6.0)
    total_kw, total_kvar = train.load_kw.sum(axis=1), train.load_kvar.sum(axis=1)
    c_ls = train.c_ls_per_kw2h
    shown = (
        (total_kw / feeder.load_kw.sum(), "load of the feeder [share of nominal]"),
        (total_kw / np.hypot(total_kw, total_kvar), "power factor of the feeder's load [1]"),
        (train.lmp_per_kwh, "LMP [currency/kWh]"),
        (train.lambda_corr_per_kw2h, "lambda_corr [currency/kW$^2$h]"),
        (c_ls[c_ls > 0], f"c_ls [currency/kW$^2$h]; {np.mean(c_ls == 0):.0%} are 0"),
        (train.proposed_kw / rating_kw, "proposal, export positive [share of rating]"),
    )
    for axis, (values, label) in zip(axes.flat, shown, strict=True):
        is_log = label.startswith(("lambda", "c_ls"))
        flat = np.ravel(values).astype(float)
        edges = np.geomspace(flat.min(), flat.max(), 60) if is_log else np.linspace(flat.min(), flat.max(), 60)
        axis.hist(flat, edges, weights=np.full(len(flat), 100.0 / len(flat)), color=COLOURS[0])
        axis.set_xlabel(label)
        if is_log:
            axis.set_xscale("log")
            is_narrow = edges[-1] < 30.0 * edges[0]
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_narrow else (1.0,)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
    for axis in axes[:, 0]:
        axis.set_ylabel("share of training samples [%]")
    return figure


def _correlations(train: Samples, trade_bus: np.ndarray) -> Figure:
    """Pearson's coefficients over microgrids and samples."""
    n_row, n_trade = train.proposed_kw.shape
    load_kw, load_kvar = train.load_kw[:, trade_bus], train.load_kvar[:, trade_bus]

    def each(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:, None], (n_row, n_trade))

    columns = {
        "load at its bus": load_kw,
        "power factor at its bus": load_kw / np.maximum(np.hypot(load_kw, load_kvar), 1e-9),
        "load of the feeder": each(train.load_kw.sum(axis=1)),
        "its proposal": train.proposed_kw,
        "the others' proposals": each(train.proposed_kw.sum(axis=1)) - train.proposed_kw,
        "LMP": each(train.lmp_per_kwh),
        "lambda_corr": each(train.lambda_corr_per_kw2h),
        "c_ls": each(train.c_ls_per_kw2h),
        "correction": train.proposed_kw - train.accepted_kw,
        "nodal price": train.price_per_kwh[:, trade_bus],
        "shedding": train.shed_kw[:, trade_bus],
    }
    solved = train.status == 0
    values = np.stack([column[solved].ravel().astype(float) for column in columns.values()])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.corrcoef(values)  # NaN where a quantity does not vary
    figure, axes = _figure(1, 1, 8.4, 7.2)
    axis: Axes = axes[0, 0]
    axis.grid(False)
    picture = axis.imshow(found, cmap="PuOr", vmin=-1.0, vmax=1.0)
    for i, j in np.argwhere(np.isfinite(found)):
        colour = "white" if abs(found[i, j]) > 0.6 else "black"
        axis.text(j, i, f"{found[i, j].round(2) + 0.0:.2f}", ha="center", va="center", fontsize=8, color=colour)
    places = np.arange(len(columns))
    axis.set_xticks(places, list(columns), rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axis.set_yticks(places, list(columns), fontsize=9)
    figure.colorbar(picture, ax=axis, shrink=0.8, label="Pearson's coefficient [1]")
    axis.set_title("A microgrid's inputs and targets, all training samples", fontsize=10)
    return figure


def _training(history: Sequence[Mapping[str, float]]) -> Figure:
    figure, axes = _figure(1, 3, 11.0, 3.4)
    step = [row["step"] for row in history]
    panels = (
        ("loss [1]", {"train_loss": "training", "validation_loss": "validation"}),
        ("norm of the gradient [1]", {"gradient_norm": "mean since the last check"}),
        ("learning rate [1]", {"learning_rate": "learning rate"}),
    )
    for axis, (label, curves) in zip(axes[0], panels, strict=True):
        for colour, (key, name) in zip((COLOURS[0], COLOURS[5]), curves.items(), strict=False):
            axis.plot(step, [row[key] for row in history], color=colour, linewidth=1.3, label=name)
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_ylabel(label)
        if len(curves) > 1:
            axis.legend(frameon=False, fontsize=8)
    axes[0, 1].set_yscale("log")  # the loss may be negative: it holds the logarithm of the spread
    axes[0, 1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0, 1].yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.6)))
    axes[0, 2].ticklabel_format(axis="y", scilimits=(0, 0))
    return figure


def _predicted_against_true(test: Samples, answers: Answers, trade_bus: np.ndarray) -> Figure:
    figure, axes = _figure(1, 2, 10.6, 4.4)
    solved = test.status == 0
    proposed = test.proposed_kw[solved]
    pairs = (
        (proposed - test.accepted_kw[solved], proposed - answers.accepted_kw[solved], "correction [kW]"),
        (
            test.price_per_kwh[solved][:, trade_bus],
            answers.price_per_kwh[solved],
            "nodal price [currency/kWh]",
        ),
    )
    for axis, (truth, said, label) in zip(axes[0], pairs, strict=True):
        ends = [float(min(truth.min(), said.min())), float(max(truth.max(), said.max()))]
        spots = axis.hexbin(truth.ravel(), said.ravel(), gridsize=80, bins="log", mincnt=1, cmap="viridis_r")
        axis.plot(ends, ends, color="black", linewidth=0.8, linestyle=":")
        axis.set_xlabel(f"true {label}")
        axis.set_ylabel(f"predicted {label}")
        axis.set_aspect("equal")
        axis.grid(axis="x", linewidth=0.4, alpha=0.5)
        figure.colorbar(spots, ax=axis, shrink=0.9, label="proposals in the test set")
    return figure


def _error_by_set(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    figure, axes = _figure(2, 1, 11.0, 6.8)
    panels: tuple[tuple[str, Any], ...] = (
        ("error of acceptance (MAE)\n[% of rating]", lambda s: 100.0 * s["accepted_mae_of_rating"]),
        ("error of the nodal price (MAE)\n[currency/kWh]", lambda s: s["price"]["mae"]),
    )
    methods = list(next(iter(metrics.values())))
    width = 0.84 / len(methods)
    for axis, (label, of) in zip(axes[:, 0], panels, strict=True):
        for k, (method, colour) in enumerate(zip(methods, COLOURS, strict=True)):
            places = np.arange(len(metrics)) + (k - (len(methods) - 1) / 2) * width
            bars = axis.bar(places, [of(found[method]) for found in metrics.values()], 0.94 * width, color=colour)
            bars.set_label(method)
            axis.bar_label(bars, fmt="%.2g", fontsize=6, padding=1, rotation=90)
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(low, 2.5 * high)  # room for the numbers
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_xticks(np.arange(len(metrics)), list(metrics))
        axis.set_ylabel(label)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        frameon=False,
        fontsize=8,
        loc="outside upper right",
        ncols=len(methods),
    )
    return figure
