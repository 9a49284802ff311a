"""The figures of the case studies: voltage profile, acceptance, economic result, the DSO's work."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from peergrid.baselines.episode.play import DayRecord
from peergrid.envs.common.network import build_feeder
from peergrid.envs.p2p_trading.scenario import Scenario

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
        figure.savefig(paths[-1], dpi=144)
    return paths


def _figure(found: Found, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """A row of panels for each scenario, named on its left; 740 pixels wide at the size that it is read."""
    figure = Figure(figsize=(7.7, height * len(found) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(found), columns, squeeze=False)
    for scenario, row in zip(found, axes, strict=True):
        row[0].set_title(scenario.name, fontsize=10, loc="left", fontweight="bold")
        for axis in row:
            axis.tick_params(labelsize=9)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_axisbelow(True)
    return figure, axes


def _colours(cases: Mapping[str, Any]) -> dict[str, str]:
    return dict(zip(cases, COLOURS[: len(cases)], strict=True))


def _voltage_profile(found: Found, labels: Mapping[str, str]) -> Figure:
    figure, axes = _figure(found, 2, 2.9)
    for row, (scenario, cases) in zip(axes, found.items(), strict=True):
        network = scenario.network
        feeder = build_feeder(network)
        distance = feeder.path_sum(np.hypot(feeder.r_ohm, feeder.x_ohm))
        colours = _colours(labels)
        # Each thinner than the one before, so that those that coincide are seen beneath each other.
        widths = dict(zip(labels, np.linspace(6.0, 0.8, len(labels)), strict=True))
        for case, records in cases.items():
            voltage = np.concatenate([r.voltage_pu for r in records])
            for axis, edge in zip(row, (voltage.max(axis=0), voltage.min(axis=0)), strict=True):
                ends = [np.stack([x[feeder.parent[1:]], x[1:]], axis=-1) for x in (distance, edge)]
                lines = LineCollection(list(np.stack(ends, axis=-1)), colors=colours[case], linewidths=widths[case])
                lines.set_label(labels[case])
                axis.add_collection(lines)
        for axis, limit in zip(row, (network.v_max_pu, network.v_min_pu), strict=True):
            axis.axhline(limit, color="black", linewidth=0.9, linestyle=":")
            axis.autoscale_view()
            axis.grid(axis="y", linewidth=0.4, alpha=0.5)
        for axis, edge in zip(row, ("highest", "lowest"), strict=True):
            axis.set_ylabel(f"{edge} voltage [p.u.]", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("impedance of the lines from the substation [ohm]", fontsize=9)
    _legend(figure, axes[0, 0], ncols=3)
    return figure


def _acceptance(found: Found, labels: Mapping[str, str]) -> Figure:
    figure, axes = _figure(found, 1, 4.0)
    for axis, cases in zip(axes[:, 0], found.values(), strict=True):
        asked = {c: sum(r.first_proposed_kwh for r in records) for c, records in cases.items()}
        first = [sum(r.first_accepted_kwh for r in records) / max(asked[c], 1e-9) for c, records in cases.items()]
        final = [sum(r.accepted_kwh for r in records) / max(asked[c], 1e-9) for c, records in cases.items()]
        place = np.arange(len(cases))
        for shift, values, colour, label in (
            (-0.2, first, "#0072B2", "first submission"),
            (0.2, final, "#E69F00", "final"),
        ):
            bars = axis.barh(place + shift, values, 0.38, color=colour, label=label)
            axis.bar_label(bars, fmt="%.3f", fontsize=7.5, padding=2)
        _name_cases(axis, [labels[c] for c in cases])
        axis.set_xlim(0.0, 1.12)
    axes[-1, 0].set_xlabel("accepted energy over energy first proposed", fontsize=9)
    _legend(figure, axes[0, 0], ncols=2)
    return figure


def _economic_result(found: Found, labels: Mapping[str, str]) -> Figure:
    figure, axes = _figure(found, 2, 2.7)
    for row, cases in zip(axes, found.values(), strict=True):
        base = next(iter(cases.values()))
        others = {c: records for c, records in cases.items() if records is not base}
        colours = _colours(labels)
        welfare = [[r.welfare - b.welfare for r, b in zip(records, base, strict=True)] for records in others.values()]
        gain = [[(r.gain - b.gain).sum() for r, b in zip(records, base, strict=True)] for records in others.values()]
        for axis, values in zip(row, (welfare, gain), strict=True):
            place = np.arange(len(others))
            style: dict[str, Any] = {"medianprops": {"color": "black"}, "flierprops": {"markersize": 3}}
            boxes = axis.boxplot(values, positions=place, widths=0.6, vert=False, patch_artist=True, **style)
            for box, case in zip(boxes["boxes"], others, strict=True):
                box.set(facecolor=colours[case], alpha=0.75)
            axis.axvline(0.0, color="black", linewidth=0.9, linestyle=":")
            _name_cases(axis, [labels[c] for c in others])
        row[1].set_yticklabels([])
    axes[-1, 0].set_xlabel("welfare over no trade [currency per day]", fontsize=9)
    axes[-1, 1].set_xlabel("private gain over no trade [currency per day]", fontsize=9)
    return figure


def _dso_work(found: Found, labels: Mapping[str, str], unchecked: Collection[str]) -> Figure:
    figure, axes = _figure(found, 2, 2.7)
    for row, cases in zip(axes, found.values(), strict=True):
        colours = [_colours(labels)[c] for c in cases]
        days = len(next(iter(cases.values())))
        # Where trades are carried out unchecked, nobody waits for what the DSO says to them.
        asked = [c not in unchecked for c in cases]
        solves = [sum(r.dso_calls for r in cases[c]) / days * a for c, a in zip(cases, asked, strict=True)]
        seconds = [sum(r.policy_seconds for r in cases[c]) / days for c in cases]
        for axis, (values, form) in zip(row, ((solves, "%.0f"), (seconds, "%.2f")), strict=True):
            bars = axis.barh(np.arange(len(cases)), values, 0.6, color=colours)
            axis.bar_label(bars, fmt=form, fontsize=8, padding=2)
            axis.margins(x=0.12)
            _name_cases(axis, [labels[c] for c in cases])
        row[1].set_yticklabels([])
    axes[-1, 0].set_xlabel("proposals answered by the DSO [per day]", fontsize=9)
    axes[-1, 1].set_xlabel("time of the microgrids' decisions [s per day]", fontsize=9)
    return figure


def _name_cases(axis: Axes, names: list[str]) -> None:
    """Cases from top to bottom."""
    axis.set_yticks(np.arange(len(names)), names, fontsize=9)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", linewidth=0.4, alpha=0.5)


def _legend(figure: Figure, axis: Axes, ncols: int) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=9, loc="outside upper center", ncols=ncols)
