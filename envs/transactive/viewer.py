"""How an iteration looks: `draw_ansi` as a table, `draw_rgb` as a picture, `draw_figure` as one to be saved.

Pure functions of one row of the batch. Importing this file loads matplotlib; nothing here touches pyplot, a
display, or matplotlib's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from peergrid.envs.common.drawing import (
    ALARM,
    INK,
    LEGEND,
    SOLID,
    FeederMap,
    Room,
    buses_beyond,
    colour_bar,
    draw_key,
    excesses,
    hours_of,
    kw,
    label_below,
    line_key,
    loading_bar,
    map_feeder,
    marker_key,
    minus,
    mw,
    network_sentence,
    new_figure,
    note,
    pixels,
    style_axes,
    table,
    to_string,
    write_header,
    write_on,
)
from peergrid.envs.transactive.signal import SignalBase
from peergrid.envs.transactive.transition import base_per_kwh, current_interval
from peergrid.envs.transactive.types import Closing, Days, Outcome, Params, State
from peergrid.grid.dso import DsoStatus, is_curtailed

# Pale to dark, evenly spaced in perceived lightness, so that all eyes see the same order.
# Source: lajolla, from F. Crameri's Scientific colour maps (doi.org/10.5281/zenodo.1243862).
SIGNAL_COLOURS = LinearSegmentedColormap.from_list(
    "signal", ["#fffecb", "#fbec9a", "#f4cc68", "#eba754", "#e48751", "#d2624d", "#a54742", "#73382f", "#422818"]
)
# Okabe and Ito's, which stay apart for colour-blind readers; the generator's is darker.
RESOURCE_COLOURS = {"PV": "#e69f00", "generator": "#4c3b6e", "storage": "#009e73", "shift": "#56b4e9"}
NOW, REAL_TIME, WITHIN = "#c2185b", "#2171b5", "#cfe0ef"
FROM_DISC_TO_BAR = 17.0  # points
MOST_TICKS = 36


@dataclass(frozen=True, eq=False, kw_only=True)
class _Scene:
    """One row of the batch, ready to be shown; without outcome, signals are to be answered and nothing flows."""

    params: Params
    days: Days
    outcome: Outcome | None
    row: int
    interval: int
    iteration: int
    lmp_per_kwh: float
    base_per_kwh: float
    root_per_kwh: float
    scheduled_kw: float
    signal_per_kwh: Float[np.ndarray, " bus"]
    stored_kwh: Float[np.ndarray, " agent"]
    flow_kw: Float[np.ndarray, " bus"]
    loading: Float[np.ndarray, " bus"]
    beyond_limits: Bool[np.ndarray, " bus"]

    @property
    def when(self) -> str:
        most = self.params.loop.max_iterations
        return f"{hours_of(self.interval, self.params.step_hours)}, iteration {self.iteration + 1} of at most {most}"

    @property
    def load_kw(self) -> Float[np.ndarray, " agent"]:
        return self.params.own_of(self.days.load_kw[self.row, self.interval])

    @property
    def base_name(self) -> str:
        """What the price is called from which the root signal starts."""
        return "day-ahead LMP" if self.params.loop.signal_base is SignalBase.DAY_AHEAD else "LMP"

    @property
    def beyond_root(self) -> Float[np.ndarray, " bus"]:
        """What the signal at each bus is above that of the substation, in %."""
        return 100.0 * (self.signal_per_kwh / self.root_per_kwh - 1.0)

    @property
    def is_curtailed(self) -> Bool[np.ndarray, " agent"]:
        if self.outcome is None:
            return np.zeros(len(self.params.agent_bus), dtype=bool)
        asked_kw, accepted_kw = self.outcome.asked_kw[self.row], self.outcome.response.accepted_kw[self.row]
        return is_curtailed(asked_kw, accepted_kw, self.params.resources.peak_kw)


def _scene(params: Params, state: State, days: Days, outcome: Outcome | None, row: int) -> _Scene:
    seen = state if outcome is None else outcome
    # A state after the last hour of the day has no hour that is open: what is shown then is the last.
    t = min(int(seen.interval[row]), params.intervals - 1)
    n = params.feeder.n_bus
    nothing, nowhere = np.zeros(n), np.zeros(n, dtype=bool)
    return _Scene(
        params=params,
        days=days,
        outcome=outcome,
        row=row,
        interval=t,
        iteration=int(seen.iteration[row]),
        lmp_per_kwh=float(days.lmp_per_kwh[row, t]),
        base_per_kwh=float(base_per_kwh(days, params)[row, t]),
        root_per_kwh=float(seen.root_per_kwh[row]),
        scheduled_kw=float(days.day_ahead.import_kw[row, t]),
        signal_per_kwh=seen.signal_per_kwh[row],
        stored_kwh=seen.stored_kwh[row],
        flow_kw=nothing if outcome is None else outcome.response.flow_kw[row],
        loading=nothing if outcome is None else outcome.response.current_a[row] / params.feeder.i_max_a,
        beyond_limits=nowhere if outcome is None else buses_beyond(params.feeder, outcome.response.voltage_pu[row]),
    )


# --- as a table -------------------------------------------------------------------------------------------------------


def draw_ansi(params: Params, state: State, days: Days, outcome: Outcome | None, row: int = 0) -> str:
    """The last iteration as plain text; before the first, what is to be answered.

    Args:
        state: The state after the iteration.
        outcome: Of the iteration; None before the first.
    """
    scene = _scene(params, state, days, outcome, row)
    lines = [f"{params.feeder.title or params.feeder.name}, {scene.when}", _prices(scene)]
    if outcome is None:
        load, pv = days.load_kw[row, scene.interval].sum(), days.pv_kw[row, scene.interval].sum()
        lines += [
            f"To be answered. P_Sch {kw(scene.scheduled_kw)} kW, load of all buses {kw(load)} kW, PV {kw(pv)} kW",
            to_string(_table_before(scene, state)),
            "What is injected is positive, of loads what is drawn; shift is load put off.",
        ]
        return "\n".join(lines)
    lines += [
        f"P_RT {kw(outcome.import_kw[row])} kW, P_Sch {kw(scene.scheduled_kw)} kW, {_gap(scene, outcome, ' of P_Sch')}",
        _closing(outcome, row).capitalize(),
        f"DSO: {DsoStatus(outcome.response.status[row]).sentence}",
        network_sentence(params.feeder, outcome.response, row),
        to_string(_table_after(scene, outcome)),
        "What is injected is positive, of loads what is drawn; shift is load put off. * curtailed by the DSO",
    ]
    return "\n".join(lines)


def _prices(scene: _Scene) -> str:
    """The LMP and the root signal: how far that is from its base, as a share of how far it may be."""
    prices = f"LMP {scene.lmp_per_kwh:.4f} per kWh, root signal {scene.root_per_kwh:.4f}"
    beyond, bound = scene.root_per_kwh / scene.base_per_kwh - 1.0, scene.params.loop.bound_share
    if abs(beyond) < 1e-6:
        return f"{prices} (the {scene.base_name})"
    which, share = "upper" if beyond > 0 else "lower", abs(beyond) / bound
    way = f"at its {which} bound" if share > 1 - 1e-6 else f"{100 * share:.0f} % of the way to its {which} bound"
    return f"{prices} ({scene.base_name} {100 * beyond:+.1f} %, {way})"


def _gap(scene: _Scene, outcome: Outcome, of_what: str = "") -> str:
    gap_kw = float(outcome.gap_kw[scene.row])
    share = 100.0 * gap_kw / max(abs(scene.scheduled_kw), 1e-9)
    return f"gap {_signed(gap_kw)} kW ({share:+.1f} %{of_what})"


def _signed(power: float) -> str:
    text = kw(power)
    return f"+{text}" if power > 0 and float(text) else text


def _closing(outcome: Outcome, row: int) -> str:
    sentence = Closing(outcome.closing[row]).sentence
    return f"closed, as {sentence}" if outcome.is_closed[row] else sentence


def _table_before(scene: _Scene, state: State) -> Table:
    now, scheduled = current_interval(state, scene.days, scene.params), scene.days.day_ahead.exchange_kw
    rows = table(
        *("bus", "signal\n/kWh", "load\nkW", "PV\nkW", "shift\nkW", "generator\nkW", "storage\nkW", "stored\nkWh"),
        "scheduled\nkW",
        spacing=1,
    )
    for i, (name, bus) in enumerate(zip(scene.params.agent_name, scene.params.agent_bus, strict=True)):
        reaches = (
            (now.limits.shift_least_kw[scene.row, i], now.limits.shift_most_kw[scene.row, i]),
            (0.0, scene.params.resources.generator_max_kw[i]),
            (now.limits.storage_least_kw[scene.row, i], now.limits.storage_most_kw[scene.row, i]),
        )
        rows.add_row(
            name,
            f"{scene.signal_per_kwh[bus]:.4f}",
            kw(scene.load_kw[i]),
            kw(now.pv_kw[scene.row, i]),
            *(f"{kw(least)} to {kw(most)}" for least, most in reaches),
            kw(scene.stored_kwh[i]),
            kw(scheduled[scene.row, scene.interval, i]),
        )
    return rows


def _table_after(scene: _Scene, outcome: Outcome) -> Table:
    row, done = scene.row, outcome.set_points
    is_closed = bool(outcome.is_closed[row])
    rows = table(
        *("bus", "signal\n/kWh", "load\nkW", "PV\nkW", "shift\nkW", "generator\nkW", "storage\nkW", "stored\nkWh"),
        *("exchange\nkW", "scheduled\nkW"),
        *("bill\n", "reward\n") * is_closed,
        spacing=1,
    )
    parts = (outcome.load_kw, outcome.pv_kw, done.shift_kw, done.generator_kw, done.storage_kw, outcome.stored_kwh)
    for i, (name, bus) in enumerate(zip(scene.params.agent_name, scene.params.agent_bus, strict=True)):
        money = (outcome.bills.total[row, i], outcome.reward[row, i]) if is_closed else ()
        rows.add_row(
            name,
            f"{scene.signal_per_kwh[bus]:.4f}",
            *(kw(part[row, i]) for part in parts),
            kw(outcome.exchange_kw[row, i]) + ("*" if scene.is_curtailed[i] else " "),
            kw(outcome.scheduled_exchange_kw[row, i]),
            *(f"{amount:.2f}" for amount in money),
        )
    return rows


# --- as a picture -----------------------------------------------------------------------------------------------------


def draw_rgb(
    params: Params, state: State, days: Days, outcome: Outcome | None, row: int = 0, size: tuple[int, int] = (1200, 800)
) -> UInt8[np.ndarray, "height width 3"]:
    """The last iteration as a picture: signals on the feeder, the day's schedule and prices, the agents' answers.

    Args:
        state: The state after the iteration.
        outcome: Of the iteration; None before the first.
        size: Width and height in pixels. Fonts and strokes grow with the width.
    """
    return pixels(draw_figure(params, state, days, outcome, row, size))


def draw_figure(
    params: Params, state: State, days: Days, outcome: Outcome | None, row: int = 0, size: tuple[int, int] = (1200, 800)
) -> Figure:
    """The picture of `draw_rgb` as a figure, to be saved as PDF or SVG too."""
    figure = new_figure(size)
    scene = _scene(params, state, days, outcome, row)
    _draw_header(figure, scene)
    _draw_map(figure, scene)
    _draw_legend(figure, scene)
    bottom, tall = 0.07, 0.235
    _draw_exchange(figure.add_axes((0.055, bottom, 0.26, tall)), scene)
    _draw_prices(figure.add_axes((0.385, bottom, 0.26, tall)), scene)
    _draw_answers(figure.add_axes((0.715, bottom, 0.26, tall)), scene)
    return figure


def _draw_header(figure: Figure, scene: _Scene) -> None:
    feeder, outcome, row = scene.params.feeder, scene.outcome, scene.row
    facts = [f"LMP {scene.lmp_per_kwh:.4f} per kWh", rf"$P_\mathrm{{Sch}}$ {kw(scene.scheduled_kw)} kW"]
    if outcome is None:
        write_header(figure, feeder, scene.when, list(map(minus, facts)), "to be answered")
        return
    facts += [rf"$P_\mathrm{{RT}}$ {kw(outcome.import_kw[row])} kW", _gap(scene, outcome)]
    write_header(figure, feeder, scene.when, list(map(minus, facts)), _closing(outcome, row).split(":")[0])
    status, shed = DsoStatus(outcome.response.status[row]), float(outcome.response.shed_kw[row].sum())
    alarms = [f"DSO: {status.sentence.split(':')[0]}"] * (status != DsoStatus.OPTIMAL)
    alarms += excesses(scene.loading, scene.beyond_limits)
    alarms += [f"shed {kw(shed)} kW"] * (shed >= 0.05)
    if scene.is_curtailed.any():
        alarms.append(f"{scene.is_curtailed.sum()} of {len(scene.is_curtailed)} agents curtailed")
    beneath = 0.94 - 12.5 / (72.0 * figure.get_figheight())
    figure.text(0.02, beneath, "   ·   ".join(alarms), size=9.5, color=ALARM, va="center")


def _signal_norm(scene: _Scene) -> Normalize:
    """A scale that holds for the whole day, unless signals leave what was agreed by far."""
    agreed = scene.days.day_ahead.signal_per_kwh[scene.row]
    beyond = np.concatenate([100.0 * (agreed / agreed[:, :1] - 1.0).ravel(), scene.beyond_root])
    return Normalize(np.floor(beyond.min()), max(np.ceil(beyond.max()), np.floor(beyond.min()) + 1.0))


def _draw_map(figure: Figure, scene: _Scene) -> None:
    agents, outcome = _agent_buses(scene).tolist(), scene.outcome
    chart = map_feeder(figure, 0.425, 0.5, scene.params.feeder, agents)
    colours = SIGNAL_COLOURS(_signal_norm(scene)(scene.beyond_root))
    chart.draw_lines(scene.flow_kw, scene.loading)
    chart.draw_buses(colours, scene.beyond_limits)
    note(chart.axes, f"{scene.root_per_kwh:.4f}", chart.x[0], chart.y[0] - 11, weight="bold")
    if outcome is not None:
        note(chart.axes, minus(mw(outcome.import_kw[scene.row])), chart.x[0], chart.y[0] - 22)
    for bus in agents:
        chart.draw_disc(bus, colours[bus])
    room = chart.room(9.0)
    if outcome is not None:
        _draw_bars(chart, room, scene, outcome)
    _write_agents(chart, room, scene, colours)
    chart.name_others(room)


def _draw_bars(chart: FeederMap, room: Room, scene: _Scene, outcome: Outcome) -> None:
    """What the agents of a bus inject beyond their schedule, beside its disc."""
    agents = _agent_buses(scene)
    heights = chart.longest_bar * _unscheduled_kw(scene, outcome) / _full_bar_kw(scene, outcome)
    for bus, height in zip(agents.tolist(), heights.tolist(), strict=True):
        chart.draw_bar(bus, height, height, away=FROM_DISC_TO_BAR)
    middles = np.stack([chart.x[agents] + FROM_DISC_TO_BAR + 3.0, chart.y[agents] + heights / 2], -1)
    room.take(middles, np.stack([np.full(len(agents), 4.5), np.abs(heights) / 2 + 1.0], -1))


def _write_agents(chart: FeederMap, room: Room, scene: _Scene, colours: Float[np.ndarray, "bus 4"]) -> None:
    """Names on the discs, or beside them where they are small or names long; then signals, where there is room."""
    agents = _agent_buses(scene).tolist()
    for bus in agents:
        name = chart.feeder.bus[bus]
        if len(name) <= 3 and not chart.crowded:
            write_on(chart.axes, name, chart.x[bus], chart.y[bus], colours[bus], size=6.5, weight="bold")
        else:
            places = [(-10.0, 3.0), (-10.0, -3.0), *chart.places(bus, 10.0)]
            chart.write_beside(room, bus, name, places, size=6.5, may_cover_lines=True, weight="bold")
    for bus in agents:
        away = 12.5 if scene.beyond_limits[bus] else 10.0
        places = [(-4.0 if chart.downward[bus] else 0.0, -away), *chart.places(bus, away)]
        size = 6.5 if chart.crowded else 7.5
        chart.write_beside(room, bus, f"{scene.signal_per_kwh[bus]:.4f}", places, size=size, weight="bold")


def _agent_buses(scene: _Scene) -> Int[np.ndarray, " place"]:
    """The buses with agents; several may stand at one."""
    return np.unique(scene.params.agent_bus)


def _unscheduled_kw(scene: _Scene, outcome: Outcome) -> Float[np.ndarray, " place"]:
    """What all agents of a bus inject beyond their schedule."""
    of_agents = outcome.exchange_kw[scene.row] - outcome.scheduled_exchange_kw[scene.row]
    at_bus: Float[np.ndarray, " bus"] = np.bincount(scene.params.agent_bus, of_agents, scene.params.feeder.n_bus)
    return at_bus[_agent_buses(scene)]


def _full_bar_kw(scene: _Scene, outcome: Outcome) -> float:
    """What the longest bar stands for: not the noise of agents who all keep to their schedule."""
    least = 0.01 * float(scene.params.resources.peak_kw.max())
    return max(float(np.abs(_unscheduled_kw(scene, outcome)).max()), least)


def _draw_legend(figure: Figure, scene: _Scene) -> None:
    unscheduled = "injection beyond schedule"
    if scene.outcome is not None:
        unscheduled += f", longest bar {kw(_full_bar_kw(scene, scene.outcome))} kW"
    entries: list[tuple[Any, str]] = [
        (marker_key("s", 8.0), "substation, with the root signal per kWh"),
        (marker_key("o", 10.0), "agent, with its signal per kWh"),
        (Patch(fc=SOLID), unscheduled),
        (line_key(), "line, width by active power"),
        (Line2D([], [], ls="none", marker="o", ms=10, mfc="none", mec=ALARM, mew=1.6), "voltage beyond limits"),
    ]
    draw_key(figure, entries, ncols=3)
    norm = _signal_norm(scene)
    bar = colour_bar(
        figure, (0.725, 0.385, 0.11, 0.012), norm, SIGNAL_COLOURS, "signal over root signal in %", "neither", "g"
    )
    low, high = norm.vmin or 0.0, norm.vmax or 0.0
    bar.set_xticks([low, 0.0, high] if low < 0 < high else [low, (low + high) / 2, high])
    loading_bar(figure)


def _draw_exchange(axes: Axes, scene: _Scene) -> None:
    style_axes(axes, "Exchange with the transmission system", "kW, positive drawn")
    _draw_hours(axes, scene)
    edges, scheduled = _edges(scene), scene.days.day_ahead.import_kw[scene.row]
    share = scene.params.loop.threshold_share
    within = share * np.abs(scheduled)
    axes.stairs(
        scheduled + within, edges, baseline=scheduled - within, fill=True, color=WITHIN, label=f"± {100 * share:g} %"
    )
    axes.stairs(scheduled, edges, baseline=None, color=INK, lw=1.2, label=r"schedule $P_\mathrm{Sch}$")
    shown = [scheduled - within, scheduled + within]
    if scene.outcome is not None:
        import_kw = float(scene.outcome.import_kw[scene.row])
        _draw_now(axes, scene, scene.scheduled_kw, import_kw, r"now $P_\mathrm{RT}$")
        shown.append(np.array([import_kw]))
    _leave_room(axes, np.concatenate(shown))
    axes.legend(**LEGEND, ncols=3)


def _draw_prices(axes: Axes, scene: _Scene) -> None:
    style_axes(axes, "Prices at the substation", "currency per kWh")
    _draw_hours(axes, scene)
    edges, bound = _edges(scene), scene.params.loop.bound_share
    known = scene.interval + 1  # what the hours to come will cost is not known yet
    lmp, ahead = scene.days.lmp_per_kwh[scene.row], scene.days.forecast.lmp_per_kwh[scene.row]
    is_ahead = scene.params.loop.signal_base is SignalBase.DAY_AHEAD
    base = ahead if is_ahead else lmp[:known]
    axes.stairs(
        (1 + bound) * base,
        edges[: len(base) + 1],
        baseline=(1 - bound) * base,
        fill=True,
        color=WITHIN,
        label="bounds of the root signal",
    )
    axes.stairs(ahead, edges, baseline=None, color=INK, lw=1.0, ls=(0, (3, 1.5)), label="day-ahead LMP")
    axes.stairs(lmp[:known], edges[: known + 1], baseline=None, color=REAL_TIME, lw=1.4, label="real-time LMP")
    _draw_now(axes, scene, scene.base_per_kwh, scene.root_per_kwh, "root signal now")
    _leave_room(axes, np.outer((1 - bound, 1 + bound), np.concatenate([lmp[:known], ahead])).ravel())
    axes.legend(**LEGEND, ncols=2)


def _edges(scene: _Scene) -> Float[np.ndarray, " boundary"]:
    return scene.params.step_hours * np.arange(scene.params.intervals + 1)


def _draw_hours(axes: Axes, scene: _Scene) -> None:
    edges = _edges(scene)
    axes.axvspan(edges[scene.interval], edges[scene.interval + 1], color="#f3e3ea", lw=0, zorder=0, ymax=0.78)
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 3, 6, 10]))
    label_below(axes, "hour of the day")


def _draw_now(axes: Axes, scene: _Scene, base: float, value: float, label: str) -> None:
    """The value of the hour as a mark, and how far it is from the base."""
    middle = float(_edges(scene)[scene.interval : scene.interval + 2].mean())
    axes.plot([middle, middle], [base, value], color=NOW, lw=1.6, zorder=4)
    axes.scatter([middle], [value], s=24, marker="D", c=NOW, ec="white", lw=0.7, zorder=5, label=label, clip_on=False)


def _leave_room(axes: Axes, shown: Float[np.ndarray, " value"]) -> None:
    """Let the axes show these values, with room for a legend above."""
    low, high = float(shown.min()), float(shown.max())
    height = max(high - low, 1e-3 * max(abs(high), abs(low)), 1e-6)
    axes.set_ylim(low - 0.06 * height, high + 0.3 * height)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _draw_answers(axes: Axes, scene: _Scene) -> None:
    style_axes(axes, "Injection of the agents' resources", "% of the agent's peak")
    peak, places = scene.params.resources.peak_kw, np.arange(len(scene.params.agent_bus))
    _name_agents(axes, scene)
    axes.axhline(0.0, color=INK, lw=0.8)
    ahead = scene.days.day_ahead.exchange_kw + scene.params.own_of(scene.days.forecast.load_kw)
    planned = 100.0 * ahead[scene.row, scene.interval] / peak
    rise, fall = np.zeros(len(peak)), np.zeros(len(peak))
    for name, power_kw in _answers_kw(scene).items():
        part = 100.0 * power_kw / peak
        bottom = np.where(part >= 0, rise, fall)
        axes.bar(places, part, bottom=bottom, width=0.62, color=RESOURCE_COLOURS[name], label=name)
        rise, fall = rise + np.maximum(part, 0.0), fall + np.minimum(part, 0.0)
    if scene.outcome is not None:
        axes.scatter(places, rise + fall, s=70, marker="_", c=NOW, lw=1.8, zorder=4, label="sum")
    axes.scatter(places, planned, s=16, marker="D", c="white", ec=INK, lw=1.0, zorder=5, label="scheduled")
    _leave_room(axes, np.concatenate([rise, fall, planned, [5.0]]))
    axes.legend(**LEGEND, ncols=3)


def _answers_kw(scene: _Scene) -> dict[str, Float[np.ndarray, " agent"]]:
    """What each resource injects; before an answer the sun alone, which asks nobody."""
    if scene.outcome is None:
        return {"PV": scene.days.pv_kw[scene.row, scene.interval]}
    done, row = scene.outcome.set_points, scene.row
    return {
        "PV": scene.outcome.pv_kw[row],
        "generator": done.generator_kw[row],
        "storage": done.storage_kw[row],
        "shift": done.shift_kw[row],
    }


def _name_agents(axes: Axes, scene: _Scene) -> None:
    """A column for each agent, at least as many as keep bars narrow."""
    n, names = len(scene.params.agent_name), list(scene.params.agent_name)
    middle, half = (n - 1) / 2, max(n, 5) / 2 + 0.1
    axes.set_xlim(middle - half, middle + half)
    label = "bus of the agent"
    if n <= 10:
        names = [f"{name}\n{peak:.0f}" for name, peak in zip(names, scene.params.resources.peak_kw, strict=True)]
        label += ", beneath it its peak in kW"
    every = -(-n // MOST_TICKS)
    axes.set_xticks(range(0, n, every), names[::every], rotation=90 if n > 14 else 0)
    axes.tick_params(axis="x", length=0, labelsize=7 if n <= 24 else 5.5)
    label_below(axes, label)
