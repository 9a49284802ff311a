"""The figures of the report on the transformer: what was asked, how training went, how far predictions are off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from peergrid.grid.feeder import Feeder
from peergrid.surrogate.questions import Answers
from peergrid.surrogate.report.correlations import features_of_trades, targets_of_trades
from peergrid.surrogate.samples import Samples
from peergrid.surrogate.training import GRADIENTS_OF_PARTS

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS = ("#0072B2", "#777777", "#E69F00", "#CC79A7", "#009E73", "#D55E00")
LINES: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0], "marker": "o"},
    {"color": COLOURS[5], "marker": "s"},
    {"color": COLOURS[4], "marker": "^"},
)


# In inches: the pages are 740 pixels wide, so type of this many points is read as that, and none is below 9.
READ_WIDTH = 740 / 96


def draw_data_set(
    folder: Path,
    *,
    train: Samples,
    solar_factor: Float[np.ndarray, "row trade"],
    feeder: Feeder,
    trade_bus: np.ndarray,
    rating_kw: Float[np.ndarray, " trade"],
) -> list[Path]:
    """Draw and save the figures of what is asked and answered; return their paths.

    Args:
        solar_factor: PV drawn over the day's, NaN where the day has none.
    """
    drawn = {
        "inputs": _inputs(train, solar_factor, feeder, rating_kw),
        "correlations": _correlations(train, trade_bus),
    }
    return _save(folder, drawn)


def draw_figures(
    folder: Path,
    *,
    test: Samples,
    answers: Answers,
    trade_bus: np.ndarray,
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[Path]:
    """Draw and save the figures of what was learned; return their paths.

    Args:
        answers: The transformer's to the test set.
        metrics: Scores as mappings, by set and method.
    """
    drawn = {
        "training": _training(history),
        "predicted_against_true": _predicted_against_true(test, answers, trade_bus),
        "error_by_set": _error_by_set(metrics),
    }
    return _save(folder, drawn)


def _save(folder: Path, drawn: Mapping[str, Figure]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    figure = _empty_figure(width, height)
    axes = figure.subplots(rows, columns, squeeze=False)
    _tidy(axes.flat)
    return figure, axes


def _empty_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes: Iterable[Axes]) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", linewidth=0.4, alpha=0.5)
        axis.set_axisbelow(True)


def _number_decades(axis: Axis, least: float, most: float) -> None:
    """Plain numbers on a logarithmic axis, 2 and 5 among them where it spans little."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if most < 30.0 * least else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _inputs(
    train: Samples,
    solar_factor: Float[np.ndarray, "row trade"],
    feeder: Feeder,
    rating_kw: Float[np.ndarray, " trade"],
) -> Figure:
    figure = _empty_figure(READ_WIDTH, 6.8)
    axes = figure.subplot_mosaic("AABBCC;DDDEEE;FFFGGG")
    _tidy(axes.values())
    total_kw, total_kvar = train.load_kw.sum(axis=1), train.load_kvar.sum(axis=1)
    c_ls, sun = train.c_ls_per_kw2h, solar_factor[np.isfinite(solar_factor)]
    shown = (
        (total_kw / feeder.load_kw.sum(), "load of the feeder\n[share of nominal]"),
        (total_kw / np.hypot(total_kw, total_kvar), "power factor\nof the feeder's load [1]"),
        (train.lmp_per_kwh, "LMP\n[currency/kWh]"),
        (train.lambda_corr_per_kw2h, "lambda_corr [currency/kW$^2$h]"),
        (c_ls[c_ls > 0], f"c_ls [currency/kW$^2$h]; {np.mean(c_ls == 0):.0%} are 0"),
        (train.proposed_kw / rating_kw, "proposal, export positive\n[share of rating]"),
        (sun, "solar uncertainty: PV drawn for a proposal\n[share of the day's PV, where it has any]"),
    )
    for axis, (values, label) in zip(axes.values(), shown, strict=True):
        axis.set_xlabel(label)
        flat = np.ravel(values).astype(float)
        if not flat.size:
            axis.text(0.5, 0.5, "none", ha="center", transform=axis.transAxes)
            continue
        is_log = label.startswith(("lambda", "c_ls"))
        edges: Any = np.geomspace(flat.min(), flat.max(), 60) if is_log else np.linspace(flat.min(), flat.max(), 60)
        axis.hist(flat, edges, weights=np.full(len(flat), 100.0 / len(flat)), color=COLOURS[0])
        if is_log:
            axis.set_xscale("log")
            _number_decades(axis.xaxis, edges[0], edges[-1])
    for place in "ADF":
        axes[place].set_ylabel("share of\nsamples [%]")
    return figure


def _correlations(train: Samples, trade_bus: np.ndarray) -> Figure:
    """Pearson's coefficients over microgrids and samples."""
    features, targets = features_of_trades(train, trade_bus), targets_of_trades(train, trade_bus)

    def each(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:, None], train.proposed_kw.shape)

    columns = {
        "load at its bus": features["active load"],
        "power factor at its bus": features["power factor"],
        "load of the feeder": each(train.load_kw.sum(axis=1)),
        "its proposal": train.proposed_kw,
        "the others' proposals": each(train.proposed_kw.sum(axis=1)) - train.proposed_kw,
        "LMP": features["LMP"],
        "lambda_corr": features["lambda_corr"],
        "c_ls": features["c_ls"],
        **targets,
    }
    solved = train.status == 0
    values = np.stack([column[solved].ravel().astype(float) for column in columns.values()])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.corrcoef(values)  # NaN where a quantity does not vary
    figure, axes = _figure(1, 1, READ_WIDTH, 6.6)
    axis: Axes = axes[0, 0]
    axis.grid(False)
    picture = axis.imshow(found, cmap="PuOr", vmin=-1.0, vmax=1.0)
    for i, j in np.argwhere(np.isfinite(found)):
        colour = "white" if abs(found[i, j]) > 0.6 else "black"
        axis.text(j, i, f"{found[i, j].round(2) + 0.0:.2f}", ha="center", va="center", fontsize=9, color=colour)
    places = np.arange(len(columns))
    axis.set_xticks(places, list(columns), rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(places, list(columns))
    figure.colorbar(picture, ax=axis, shrink=0.8, label="Pearson's coefficient [1]")
    axis.set_title("A microgrid's inputs and targets, all training samples", fontsize=10)
    return figure


def _training(history: Sequence[Mapping[str, float]]) -> Figure:
    figure, axes = _figure(2, 2, READ_WIDTH, 5.4)
    step = [row["step"] for row in history]
    panels = (
        ("loss [1]", {"train_loss": "training", "validation_loss": "validation"}),
        ("learning rate [1]", {"learning_rate": ""}),
        ("norm of the gradient,\nof the whole model [1]", {"gradient_norm": ""}),
        ("norm of the gradient,\nof its parts [1]", {name: part for part, name in GRADIENTS_OF_PARTS.items()}),
    )
    for axis, (label, curves) in zip(axes.flat, panels, strict=True):
        for style, (key, name) in zip(LINES, curves.items(), strict=False):
            # Of trainings before norms of parts were kept there is nothing to draw.
            values = [row.get(key, np.nan) for row in history]
            axis.plot(step, values, label=name, linewidth=1.3, markersize=3.5, **style)
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_ylabel(label)
        if len(curves) > 1:
            above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": len(curves)}
            axis.legend(frameon=False, fontsize=9, columnspacing=1.2, **above)
    for axis in axes[1]:
        axis.set_yscale("log")  # the loss may be negative: it holds the logarithm of the spread
        _number_decades(axis.yaxis, *axis.get_ylim())
    axes[0, 1].ticklabel_format(axis="y", scilimits=(0, 0))
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
