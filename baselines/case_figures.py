"""The figures of the case studies: voltage profile, acceptance, economic result, the DSO's work."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from peergrid.baselines.play import DayRecord
from peergrid.envs.scenario import Scenario, build_feeder

# Okabe and Ito's colours, which stay apart for colour-blind readers.
# With darker shades where there are more cases than colours.
COLOURS = (
    *("#777777", "#D55E00", "#0072B2", "#CC79A7", "#F0E442", "#56B4E9"),
    *("#009E73", "#A6611A", "#E69F00", "#000000", "#5E3C99"),
)
Found = Mapping[Scenario, Mapping[str, list[DayRecord]]]


def draw_figures(found: Found, labels: Mapping[str, str], unchecked: Collection[str], folder: Path) -> list[Path]:
    """Draw and save all figures; return their paths.

    Args:
        labels: What each case is called.
        unchecked: The cases in which the DSO is not asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "voltage_profile": _voltage_profile(found, labels),
        "acceptance": _acceptance(found, labels),
        "economic_result": _economic_result(found, labels),
        "dso_work": _dso_work(found, labels, unchecked),
    }
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _figure(found: Found, rows: int, height: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(6.4 * len(found) + 0.6, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(found), squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", linewidth=0.4, alpha=0.5)
        axis.set_axisbelow(True)
    return figure, axes


def _colours(cases: Mapping[str, Any]) -> dict[str, str]:
    return dict(zip(cases, COLOURS[: len(cases)], strict=True))


def _voltage_profile(found: Found, labels: Mapping[str, str]) -> Figure:
    figure, axes = _figure(found, 2, 7.0)
    for column, (scenario, cases) in enumerate(found.items()):
        network = scenario.network
        feeder = build_feeder(network)
        distance = feeder.path_sum(np.hypot(feeder.r_ohm, feeder.x_ohm))
        colours = _colours(labels)
        # Each thinner than the one before, so that those that coincide are seen beneath each other.
        widths = dict(zip(labels, np.linspace(6.0, 0.8, len(labels)), strict=True))
        for case, records in cases.items():
            voltage = np.concatenate([r.voltage_pu for r in records])
            for row, edge in enumerate((voltage.max(axis=0), voltage.min(axis=0))):
                ends = [np.stack([x[feeder.parent[1:]], x[1:]], axis=-1) for x in (distance, edge)]
                lines = LineCollection(list(np.stack(ends, axis=-1)), colors=colours[case], linewidths=widths[case])
                lines.set_label(labels[case])
                axes[row, column].add_collection(lines)
        for row, limit in enumerate((network.v_max_pu, network.v_min_pu)):
            axes[row, column].axhline(limit, color="black", linewidth=0.9, linestyle=":")
            axes[row, column].autoscale_view()
            axes[row, column].set_xlabel("impedance of the lines from the substation [ohm]")
    _title(axes, found)
    axes[0, 0].set_ylabel("highest voltage of all hours [p.u.]")
    axes[1, 0].set_ylabel("lowest voltage of all hours [p.u.]")
    _legend(figure, axes[0, 0], ncols=len(labels))
    return figure


def _acceptance(found: Found, labels: Mapping[str, str]) -> Figure:
    figure, axes = _figure(found, 1, 4.0)
    for axis, cases in zip(axes[0], found.values(), strict=True):
        asked = {c: sum(r.first_proposed_kwh for r in records) for c, records in cases.items()}
        first = [sum(r.first_accepted_kwh for r in records) / max(asked[c], 1e-9) for c, records in cases.items()]
        final = [sum(r.accepted_kwh for r in records) / max(asked[c], 1e-9) for c, records in cases.items()]
        place = np.arange(len(cases))
        for shift, values, colour, label in (
            (-0.2, first, "#0072B2", "first submission"),
            (0.2, final, "#E69F00", "final"),
        ):
            bars = axis.bar(place + shift, values, 0.38, color=colour, label=label)
            axis.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
        _name_cases(axis, [labels[c] for c in cases])
        axis.set_ylim(0.0, 1.12)
    _title(axes, found)
    axes[0, 0].set_ylabel("accepted energy / energy first proposed [1]")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper right", ncols=2
    )
    return figure


def _economic_result(found: Found, labels: Mapping[str, str]) -> Figure:
    figure, axes = _figure(found, 2, 7.0)
    for column, (_, cases) in enumerate(found.items()):
        base = next(iter(cases.values()))
        others = {c: records for c, records in cases.items() if records is not base}
        colours = _colours(labels)
        welfare = [[r.welfare - b.welfare for r, b in zip(records, base, strict=True)] for records in others.values()]
        gain = [[(r.gain - b.gain).sum() for r, b in zip(records, base, strict=True)] for records in others.values()]
        for row, values in enumerate((welfare, gain)):
            axis = axes[row, column]
            boxes = axis.boxplot(values, widths=0.6, patch_artist=True, medianprops={"color": "black"})
            for box, case in zip(boxes["boxes"], others, strict=True):
                box.set(facecolor=colours[case], alpha=0.75)
            axis.axhline(0.0, color="black", linewidth=0.9, linestyle=":")
            _name_cases(axis, [labels[c] for c in others], first=1)
    _title(axes, found)
    axes[0, 0].set_ylabel("welfare over no trade\n[currency per day]")
    axes[1, 0].set_ylabel("private gain over no trade\n[currency per day]")
    return figure


def _dso_work(found: Found, labels: Mapping[str, str], unchecked: Collection[str]) -> Figure:
    figure, axes = _figure(found, 2, 6.4)
    for column, cases in enumerate(found.values()):
        colours = [_colours(labels)[c] for c in cases]
        days = len(next(iter(cases.values())))
        # Where trades are carried out unchecked, nobody waits for what the DSO says to them.
        asked = [c not in unchecked for c in cases]
        solves = [sum(r.dso_calls for r in cases[c]) / days * a for c, a in zip(cases, asked, strict=True)]
        seconds = [sum(r.dso_seconds for r in cases[c]) / days * a for c, a in zip(cases, asked, strict=True)]
        for row, (values, form) in enumerate(((solves, "%.0f"), (seconds, "%.2f"))):
            bars = axes[row, column].bar(np.arange(len(cases)), values, 0.6, color=colours)
            axes[row, column].bar_label(bars, fmt=form, fontsize=8, padding=1)
            _name_cases(axes[row, column], [labels[c] for c in cases])
    _title(axes, found)
    axes[0, 0].set_ylabel("proposals answered by the DSO\n[per day]")
    axes[1, 0].set_ylabel("time of the DSO's answers\n[s per day]")
    return figure


def _name_cases(axis: Axes, names: list[str], first: int = 0) -> None:
    broken = ["\n".join(textwrap.wrap(name, 12)) for name in names]
    axis.set_xticks(np.arange(first, first + len(names)), broken, fontsize=7.5)


def _legend(figure: Figure, axis: Axes, ncols: int) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8, loc="outside upper right", ncols=ncols)


def _title(axes: np.ndarray, found: Found) -> None:
    for axis, scenario in zip(axes[0], found, strict=True):
        axis.set_title(scenario.name)
