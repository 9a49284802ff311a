"""Figures of the speed benchmarks: bars and lines on logarithmic axes, in colours that stay apart for all readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from speed_common import Found, three_digits

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")


def bars(series: Mapping[str, Mapping[str, Found]], label: str, scale: float, title: str) -> Figure:
    """Horizontal bars of seconds, a group for each name and a colour for each series, the quickest on top."""
    quickest = {name: min(rows[name]["seconds"] for rows in series.values() if name in rows) for name in _names(series)}
    names = sorted(quickest, key=lambda name: -quickest[name])
    figure, axis = _figure(8.6, 1.6 + 0.55 * len(names), title)
    thickness = 0.8 / len(series)
    for i, name in enumerate(names):
        kinds = [kind for kind, rows in series.items() if name in rows]
        for k, kind in enumerate(kinds):
            value = series[kind][name]["seconds"] * scale
            place = i + (len(kinds) / 2 - k - 0.5) * thickness
            colour = COLOURS[list(series).index(kind)]
            shown = axis.barh(place, value, thickness * 0.9, color=colour, label=kind)
            axis.bar_label(shown, [three_digits(value)], fontsize=7, padding=2)
    axis.set_yticks(range(len(names)), [name.replace("`", "") for name in names], fontsize=9)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(10.0 ** np.floor(np.log10(low)), high * 2)  # room for the numbers
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_xlabel(label)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    axis.grid(axis="x", linewidth=0.4, alpha=0.5)
    return figure


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, title: str
) -> Figure:
    """Lines on two logarithmic axes, each with its own colour and marker."""
    figure, axis = _figure(7.2, 4.6, title)
    for (name, (x, y)), colour, marker in zip(series.items(), COLOURS, MARKERS, strict=False):
        axis.plot(x, y, color=colour, marker=marker, label=name.replace("`", ""))
    axis.set_xscale("log")
    axis.set_yscale("log")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.legend(frameon=False, fontsize=9)
    axis.grid(linewidth=0.4, alpha=0.5)
    return figure


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
    return figure, axis


def _names(series: Mapping[str, Mapping[str, Found]]) -> list[str]:
    return list(dict.fromkeys(name for rows in series.values() for name in rows))
