"""The figures of the transactive study: the paper's, and what the loop is worth over many days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from peergrid.baselines.episode.transactive import TransactiveDay
from peergrid.baselines.studies.transactive_admm import AdmmDay
from peergrid.envs.transactive.scenario import LoopSpec

# Okabe and Ito's colours, which stay apart for colour-blind readers.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#E69F00", "#56B4E9")


def draw_figures(
    found: Mapping[str, list[TransactiveDay]],
    loop: str,
    no_loop: str,
    day: int,
    rule: LoopSpec,
    admm: AdmmDay,
    hours: Sequence[int],
    agent: int,
    buses: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Draw and save all figures; return their paths.

    Args:
        loop: The case of which a day is drawn; `no_loop` is the one it is compared with.
        day: The day that is drawn.
        rule: The scenario's threshold and bounds.
        agent: Place of the agent that is drawn; `buses` names those of all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn_day, without = found[loop][day], found[no_loop][day]
    drawn = {
        "transactive_iterations": _iterations(drawn_day, hours, rule.threshold_share),
        "transactive_day": _day(drawn_day, without, rule.bound_share),
        "transactive_agent": _agent(drawn_day, agent, buses[agent]),
        "transactive_value": _value(found, no_loop),
        "admm_iterations": _admm(admm, hours),
    }
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _figure(rows: int, columns: int, size: tuple[float, float], **share: Any) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **share)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(linewidth=0.4, alpha=0.5)
        axis.set_axisbelow(True)
    return figure, axes


def _iterations(day: TransactiveDay, hours: Sequence[int], threshold: float) -> Figure:
    """Exchange and root signal over the TE iterations of single hours."""
    figure, axes = _figure(2, len(hours), (4.0 * len(hours), 5.6), sharex="col")
    for column, t in enumerate(hours):
        trace, scheduled, base = day.traces[t], day.scheduled_kw[t], day.base_per_kwh[t]
        count = 1 + np.arange(len(trace.import_kw))
        power, price = axes[:, column]
        low, high = (1 - threshold) * scheduled, (1 + threshold) * scheduled
        power.axhspan(low, high, color=GREY, alpha=0.15, lw=0, label=f"± {100 * threshold:g} %")
        power.axhline(scheduled, color=GREY, ls="--", label="scheduled")
        power.plot(count, trace.import_kw, "o-", color=BLUE, ms=4, label="real time")
        price.axhline(base, color=GREY, ls="--", label="where it starts")
        price.plot(count, trace.root_per_kwh, "o-", color=ORANGE, ms=4, label="signal")
        power.set_title(f"{t}:00")
        price.set_xlabel("TE iteration")
        price.set_xticks(count if len(count) < 12 else count[:: len(count) // 6])
    axes[0, 0].set_ylabel("import [kW]")
    axes[1, 0].set_ylabel("root signal [currency/kWh]")
    for axis in axes[:, 0]:
        axis.legend(frameon=False)
    return figure


def _day(day: TransactiveDay, without: TransactiveDay, bound: float) -> Figure:
    """The schedule of a day, what the exchange became with and without the loop, and the signals."""
    figure, axes = _figure(2, 1, (8.0, 6.0), sharex=True)
    hours = np.arange(len(day.lmp_per_kwh))
    power, price = axes[:, 0]
    power.step(hours, day.scheduled_kw, where="mid", color=GREY, ls="--", label="scheduled")
    power.step(hours, without.import_kw, where="mid", color=ORANGE, label="without the loop")
    power.step(hours, day.import_kw, where="mid", color=BLUE, label="with it")
    low, high, shade = (1 - bound) * day.base_per_kwh, (1 + bound) * day.base_per_kwh, f"± {100 * bound:g} %"
    price.fill_between(hours, low, high, step="mid", color=GREY, alpha=0.15, lw=0, label=shade)
    price.step(hours, day.base_per_kwh, where="mid", color=GREY, ls="--", label="where it starts")
    price.step(hours, day.root_per_kwh, where="mid", color=BLUE, label="signal as closed")
    power.set_ylabel("import [kW]")
    price.set_ylabel("signal at the substation\n[currency/kWh]")
    price.set_xlabel("hour of the day")
    price.set_xticks(hours[::3])
    for axis in (power, price):
        axis.legend(frameon=False, ncols=3)
    return figure


def _agent(day: TransactiveDay, agent: int, bus: str) -> Figure:
    """What one agent's load, storage and generator do with the signal."""
    figure, axes = _figure(3, 1, (8.0, 8.0), sharex=True)
    hours = np.arange(len(day.lmp_per_kwh))
    load, shift = day.load_kw[:, agent], day.shift_kw[:, agent]
    consumption, storage, generator = axes[:, 0]
    consumption.step(hours, load, where="mid", color=GREY, ls="--", label="load before")
    consumption.step(hours, load - shift, where="mid", color=BLUE, label="load after shifting")
    consumption.set_ylabel("load [kW]")
    storage.step(hours, day.stored_kwh[:, agent], where="mid", color=GREEN, label="energy stored")
    storage.set_ylabel("energy stored [kWh]")
    generator.step(hours, day.generator_kw[:, agent], where="mid", color=PINK, label="generation")
    generator.set_ylabel("generation [kW]")
    generator.set_xlabel("hour of the day")
    generator.set_xticks(hours[::3])
    consumption.set_title(f"The agent at bus {bus}")
    for axis in axes[:, 0]:
        _beside_signal(axis, hours, day.signal_per_kwh[:, agent])
    return figure


def _beside_signal(axis: Axes, hours: np.ndarray, signal: np.ndarray) -> None:
    twin = axis.twinx()
    twin.step(hours, signal, where="mid", color=ORANGE, lw=1.0, alpha=0.8, label="signal (right)")
    twin.set_ylabel("signal [currency/kWh]")
    twin.spines["top"].set_visible(False)
    lines = [*axis.get_lines(), *twin.get_lines()]
    axis.legend(lines, [str(line.get_label()) for line in lines], frameon=False, loc="upper left", ncols=3)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.35 * (high - low))


def _value(found: Mapping[str, list[TransactiveDay]], no_loop: str) -> Figure:
    """Deviation and cost of every case, over all days."""
    figure, axes = _figure(1, 2, (11.0, 0.42 * len(found) + 1.6), sharey=True)
    cost_without = np.array([d.total_cost.sum() for d in found[no_loop]])
    deviation, saved = [], []
    for days in found.values():
        deviation.append([100.0 * d.deviation_kw.sum() / np.abs(d.scheduled_kw).sum() for d in days])
        saved.append(cost_without - np.array([d.total_cost.sum() for d in days]))
    for axis, values, colour in ((axes[0, 0], deviation, BLUE), (axes[0, 1], saved, GREEN)):
        boxes = axis.boxplot(values, vert=False, tick_labels=list(found), patch_artist=True, widths=0.6, whis=(5, 95))
        for box in boxes["boxes"]:
            box.set(facecolor=colour, alpha=0.6)
        for median in boxes["medians"]:
            median.set(color="black")
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlabel("deviation from schedule [% of it, per day]")
    axes[0, 1].axvline(0.0, color="black", lw=0.8)
    axes[0, 1].set_xlabel(f"cost saved beside '{no_loop}' [currency per day]")
    return figure


def _admm(admm: AdmmDay, hours: Sequence[int]) -> Figure:
    """Exchange and residuals over ADMM iterations of single hours."""
    figure, axes = _figure(1, 4, (16.0, 4.0), sharex=True)
    iterates = admm.iterates
    for t, colour in zip(hours, COLOURS, strict=False):
        n = min(int(admm.iterations[t]), iterates.rho.shape[1])
        count = 1 + np.arange(n)
        axes[0, 0].plot(count, iterates.exchange_kw[t, :n], color=colour, label=f"{t}:00")
        axes[0, 0].axhline(admm.exchange_kw[t], color=colour, ls=":", lw=1.0)
        axes[0, 1].loglog(count, np.maximum(iterates.power_residual_pu[t, :n], 1e-12), color=colour)
        axes[0, 2].loglog(count, np.maximum(iterates.voltage_residual_pu[t, :n], 1e-12), color=colour)
        axes[0, 3].loglog(count, np.maximum(iterates.dual_residual[t, :n], 1e-12), color=colour)
    axes[0, 0].set_xscale("log")
    axes[0, 0].legend(frameon=False, title="dotted: central")
    names = (
        "import [kW]",
        "primal residual, power [p.u.]",
        "primal residual, squared voltage [p.u.]",
        "dual residual [1]",
    )
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("ADMM iteration")
    return figure
