"""How an interval looks: `draw_ansi` as a table, `draw_rgb` as a picture, `draw_figure` as one to be saved.

Pure functions of one row of the batch. Importing this file loads matplotlib; nothing here touches pyplot, a
display, or matplotlib's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch
from rich.table import Table

from peergrid.envs.common.drawing import (
    ALARM,
    INK,
    LEGEND,
    MISSING,
    SOLID,
    FeederMap,
    Room,
    buses_beyond,
    colour_bar,
    draw_bar,
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
from peergrid.envs.p2p_trading.mechanisms import pairs_kw
from peergrid.envs.p2p_trading.types import Days, Outcome, Params, State
from peergrid.grid.dso import DsoStatus

MOST_CONTRACTS = 12
CONTRACT = "#00897b"
# Blue, white, red without green in between, so that all eyes tell them apart; evenly spaced in perceived lightness.
# Source: vik, from F. Crameri's Scientific colour maps (doi.org/10.5281/zenodo.1243862).
VOLTAGE_COLOURS = LinearSegmentedColormap.from_list(
    "voltage",
    ["#033e7d", "#1e6f9d", "#71a8c4", "#c9dde7", "#f3efec", "#eacebd", "#d39774", "#be6533", "#8b2706"],
)
PART_COLOURS = {
    "energy": "#c3c9cd",
    "loss": "#e69f00",
    "reactive": "#cc79a7",
    "voltage": "#2171b5",
    "congestion": "#6a3d9a",
}


# --- as a table -------------------------------------------------------------------------------------------------------


def draw_ansi(params: Params, state: State, days: Days, outcome: Outcome | None, row: int = 0) -> str:
    """The interval just played as plain text; before the first, what it will bring.

    Args:
        state: The state after the interval.
        outcome: Of the interval; None before the first.
    """
    lines = [f"{params.feeder.title or params.feeder.name}, {_when(params, state, outcome, row)}"]
    t = _interval(state, outcome, row)
    lmp = f"LMP {days.lmp_per_kwh[row, t]:.3f} per kWh"
    if outcome is None:
        lines += [
            f"Nothing is traded yet. To come: {lmp}, load {kw(days.load_kw[row, t].sum())} kW.",
            to_string(_table_before(params, state, days, row, t)),
        ]
        return "\n".join(lines)
    lines += [
        f"{lmp}, welfare {outcome.welfare[row]:.2f}, DSO: {DsoStatus(outcome.response.status[row]).sentence}",
        network_sentence(params.feeder, outcome.response, row),
        _supply_sentence(params, outcome, row),
        to_string(_table_after(params, outcome, row)),
        "kW injected are positive, kW drawn negative. * curtailed by the DSO",
    ]
    return "\n".join(lines)


def _interval(state: State, outcome: Outcome | None, row: int) -> int:
    return int(state.interval[row]) - (outcome is not None)


def _when(params: Params, state: State, outcome: Outcome | None, row: int) -> str:
    t = _interval(state, outcome, row)
    return f"{hours_of(t, params.step_hours)}, interval {t + 1} of {params.intervals}"


def _supply_sentence(params: Params, outcome: Outcome, row: int) -> str:
    response = outcome.response
    sources = [("Substation:", response.substation_kw[row], response.substation_kvar[row])]
    for k, bus in enumerate(params.generators.bus):
        name = f"generator at bus {params.feeder.bus[bus]}:"
        sources.append((name, response.generator_kw[row, k], response.generator_kvar[row, k]))
    return "; ".join(f"{name} {kw(p)} kW, {kw(q)} kvar" for name, p, q in sources)


def _table_before(params: Params, state: State, days: Days, row: int, t: int) -> Table:
    rows = table("#", "bus", "PV\nkW", "demand\nkW", "stored\nkWh", "most diesel\nkW", "battery\nkW")
    for i, bus in enumerate(params.agent_bus):
        grids = params.microgrids
        numbers = (days.pv_kw[row, t, i], days.demand_kw[row, t, i], state.stored_kwh[row, i], grids.diesel_max_kw[i])
        rows.add_row(str(i), params.feeder.bus[bus], *map(kw, numbers), f"± {kw(grids.battery_rating_kw[i])}")
    return rows


def _table_after(params: Params, outcome: Outcome, row: int) -> Table:
    rows = table(
        *("#", "bus", "PV\nkW", "diesel\nkW", "batt.\nkW", "load\nkW", "stored\nkWh", "offer\nkW", "contract\nkW"),
        *("at\n/kWh", "proposed\nkW", "accepted\nkW", "price\n/kWh", "bill\n", "reward\n"),
    )
    dispatch, response = outcome.dispatch, outcome.response
    for i, bus in enumerate(params.agent_bus):
        device_kw = (dispatch.pv_kw, dispatch.diesel_kw, dispatch.battery_kw, dispatch.load_kw, outcome.stored_kwh)
        mark = "*" if outcome.is_curtailed[row, i] else " "
        rows.add_row(
            str(i),
            params.feeder.bus[bus],
            *(kw(power[row, i]) for power in device_kw),
            kw(outcome.decisions.quantity_kw[row, i]),
            kw(outcome.contracts.quantity_kw[row, i]),
            f"{outcome.contracts.price_per_kwh[row, i]:.3f}",
            kw(outcome.proposed_kw[row, i]),
            kw(response.accepted_kw[row, i]) + mark,
            f"{response.price_per_kwh[row, bus]:.3f}",
            f"{outcome.bills.total[row, i]:.2f}",
            f"{outcome.reward[row, i]:.2f}",
        )
    return rows


# --- as a picture -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class _Scene:
    """One row of the batch, ready to be drawn; without outcome, voltages are the last known and nothing flows."""

    params: Params
    outcome: Outcome | None
    row: int
    lmp_per_kwh: float
    voltage_pu: Float[np.ndarray, " bus"]
    flow_kw: Float[np.ndarray, " bus"]
    loading: Float[np.ndarray, " bus"]
    beyond_limits: Bool[np.ndarray, " bus"]

    @property
    def v_limits_pu(self) -> tuple[float, float]:
        return float(self.params.feeder.v_min_pu[1:].min()), float(self.params.feeder.v_max_pu[1:].max())

    @property
    def v_norm(self) -> Normalize:
        # A fixed scale, so that pictures of a day compare: a little beyond the limits.
        half = 1.2 * max(abs(limit - 1.0) for limit in self.v_limits_pu)
        return Normalize(1.0 - half, 1.0 + half)

    def colours(self, bus: Any) -> Any:
        return VOLTAGE_COLOURS(self.v_norm(self.voltage_pu[bus]))


def draw_rgb(
    params: Params, state: State, days: Days, outcome: Outcome | None, row: int = 0, size: tuple[int, int] = (1200, 800)
) -> UInt8[np.ndarray, "height width 3"]:
    """The interval just played as a picture: the feeder and its flows, prices, trades and voltages.

    Args:
        state: The state after the interval.
        outcome: Of the interval; None before the first.
        size: Width and height in pixels. Fonts and strokes grow with the width.
    """
    return pixels(draw_figure(params, state, days, outcome, row, size))


def draw_figure(
    params: Params, state: State, days: Days, outcome: Outcome | None, row: int = 0, size: tuple[int, int] = (1200, 800)
) -> Figure:
    """The picture of `draw_rgb` as a figure, to be saved as PDF or SVG too."""
    figure = new_figure(size)
    scene = _scene(params, state, days, outcome, row)
    _draw_header(figure, scene, _when(params, state, outcome, row))
    _draw_map(figure, scene)
    _draw_legend(figure, scene)
    bottom, tall = 0.07, 0.235
    _draw_prices(figure.add_axes((0.055, bottom, 0.26, tall)), scene)
    _draw_trades(figure.add_axes((0.385, bottom, 0.26, tall)), scene)
    _draw_voltages(figure.add_axes((0.715, bottom, 0.26, tall)), scene)
    return figure


def _scene(params: Params, state: State, days: Days, outcome: Outcome | None, row: int) -> _Scene:
    n = params.feeder.n_bus
    nothing, nowhere = np.zeros(n), np.zeros(n, dtype=bool)
    return _Scene(
        params=params,
        outcome=outcome,
        row=row,
        lmp_per_kwh=float(days.lmp_per_kwh[row, _interval(state, outcome, row)]),
        voltage_pu=state.last_voltage_pu[row] if outcome is None else outcome.response.voltage_pu[row],
        flow_kw=nothing if outcome is None else outcome.response.flow_kw[row],
        loading=nothing if outcome is None else outcome.response.current_a[row] / params.feeder.i_max_a,
        beyond_limits=nowhere if outcome is None else buses_beyond(params.feeder, outcome.response.voltage_pu[row]),
    )


def _draw_header(figure: Figure, scene: _Scene, when: str) -> None:
    feeder, outcome, row = scene.params.feeder, scene.outcome, scene.row
    facts = [f"LMP {scene.lmp_per_kwh:.3f} per kWh"]
    if outcome is None:
        write_header(figure, feeder, when, [*facts, "nothing is traded yet"])
        return
    response = outcome.response
    facts += [
        minus(f"welfare {outcome.welfare[row]:.2f}"),
        f"losses {kw(response.losses_kw[row])} kW",
        f"shed {kw(response.shed_kw[row].sum())} kW",
    ]
    facts += excesses(scene.loading, scene.beyond_limits)
    status = DsoStatus(response.status[row])
    colour = INK if status == DsoStatus.OPTIMAL else ALARM
    write_header(figure, feeder, when, facts, f"DSO: {status.sentence.split(':')[0]}", colour)


def _draw_map(figure: Figure, scene: _Scene) -> None:
    generators, traders = set(scene.params.generators.bus), scene.params.agent_bus.tolist()
    chart = map_feeder(figure, 0.425, 0.5, scene.params.feeder, generators | set(traders), generators & set(traders))
    chart.draw_lines(scene.flow_kw, scene.loading)
    _draw_contracts(chart, scene)
    chart.draw_buses(scene.colours(slice(None)), scene.beyond_limits)
    room = chart.room(9.0)
    _draw_sources(chart, room, scene)
    for i in range(len(traders)):
        _draw_microgrid(chart, room, scene, i)
    _write_prices(chart, room, scene)
    chart.name_marked(room)
    chart.name_others(room)


def _draw_contracts(chart: FeederMap, scene: _Scene) -> None:
    if scene.outcome is None:
        return
    quantity = scene.outcome.contracts.quantity_kw[scene.row]
    pair_kw = pairs_kw(quantity)
    bus = scene.params.agent_bus
    places = np.stack([chart.x, chart.y], axis=-1)
    obstacles = np.concatenate([places, *(places[bus] + to for to in ((0, -15), (0, 15), (15, 0)))])
    largest = np.argsort(-pair_kw, axis=None, kind="stable")[:MOST_CONTRACTS]
    pairs = [np.unravel_index(k, pair_kw.shape) for k in largest if pair_kw.flat[k] > 0.005 * pair_kw.sum()]
    widest = 2.2 if len(pairs) <= 6 else 1.2
    for i, k in pairs:
        a, b = places[bus[i]], places[bus[k]]
        bend = _clearest_bend(a, b, obstacles, chart.axes.get_ylim()[1])
        control = _control_point(a, b, bend)
        arc = FancyArrowPatch(
            *(tuple(a), tuple(b)),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>,head_width=2.2,head_length=4.5",
            shrinkA=_gap(control - a, chart.crowded),
            shrinkB=_gap(b - control, chart.crowded) + 1,
        )
        arc.set(lw=0.6 + widest * pair_kw[i, k] / pair_kw.max(), color=CONTRACT, alpha=0.7, zorder=4)
        chart.axes.add_patch(arc)


def _control_point(a: Float[np.ndarray, "2"], b: Float[np.ndarray, "2"], bend: float) -> Float[np.ndarray, "2"]:
    """Of the quadratic curve that matplotlib draws from a to b with this bend."""
    return (a + b) / 2 + bend * np.array([b[1] - a[1], a[0] - b[0]])


def _gap(direction: Float[np.ndarray, "2"], crowded: bool) -> float:
    """Points between a microgrid and an arc's end: more where it is steep, for the text above and beneath the disc.

    Where room is scarce that text may stand anywhere, and an arc comes as near as it can.
    """
    is_steep = abs(direction[1]) > 0.75 * float(np.hypot(*direction))
    return 22.0 if is_steep and not crowded else 10.0


def _clearest_bend(
    a: Float[np.ndarray, "2"], b: Float[np.ndarray, "2"], obstacles: Float[np.ndarray, "n 2"], tall: float
) -> float:
    """How far to bend the arc from a to b, as a share of its length, so that it keeps away from buses and labels."""
    t = np.linspace(0.06, 0.94, 23)[:, None]

    def clearance(bend: float) -> float:
        control = _control_point(a, b, bend)
        arc = (1 - t) ** 2 * a + 2 * t * (1 - t) * control + t**2 * b
        outside = np.maximum(4 - arc[:, 1], arc[:, 1] - (tall - 4)).max()
        near = np.linalg.norm(arc[:, None] - obstacles, axis=-1).min(axis=1)
        return float(np.minimum(near, 30.0).mean() - max(outside, 0.0))

    return max((0.2, -0.2, 0.3, -0.3, 0.12, -0.12, 0.42, -0.42), key=clearance)


def _draw_sources(chart: FeederMap, room: Room, scene: _Scene) -> None:
    params, outcome, row = scene.params, scene.outcome, scene.row
    axes, x, y = chart.axes, chart.x, chart.y
    if outcome is not None:
        note(axes, mw(outcome.response.substation_kw[row]), x[0], y[0] - 11)
    for k, bus in enumerate(params.generators.bus):
        is_shared = chart.stacked[bus]  # then it stands above the microgrid, its output to the right
        at = (x[bus], y[bus] + 16) if is_shared else (x[bus], y[bus])
        axes.scatter(*at, s=90 if is_shared else 150, marker="^", c=[scene.colours(bus)], ec=INK, lw=1.2, zorder=6)
        _take(room, at, (6.0, 6.0))
        if outcome is None:
            continue
        output = mw(outcome.response.generator_kw[row, k])
        if is_shared:
            note(axes, output, at[0] + 8, at[1] + 3, ha="left", va="center", size=6.5)
            _take(room, (at[0] + 8 + 2.2 * len(output), at[1] + 3), (2.2 * len(output), 4.0))
        else:
            note(axes, output, at[0], at[1] - 10)
            _take(room, (at[0], at[1] - 14), (2.5 * len(output), 4.0))


def _draw_microgrid(chart: FeederMap, room: Room, scene: _Scene, i: int) -> None:
    bus = int(scene.params.agent_bus[i])
    chart.draw_disc(bus, scene.colours(bus))
    size = 7 if chart.crowded else 8
    write_on(chart.axes, str(i), chart.x[bus], chart.y[bus], scene.colours(bus), size=size, weight="bold")
    if scene.outcome is None:
        return
    tall = chart.longest_bar / max(float(np.abs(scene.outcome.proposed_kw[scene.row]).max()), 1e-9)
    accepted = tall * float(scene.outcome.response.accepted_kw[scene.row, i])
    asked = tall * float(_asked_kw(scene.outcome, scene.row)[i])
    chart.draw_bar(bus, accepted, asked)
    low, high = min(0.0, accepted, asked), max(0.0, accepted, asked)
    _take(room, (chart.x[bus] + 14.5, chart.y[bus] + (low + high) / 2), (4.5, (high - low) / 2 + 1.0))


def _write_prices(chart: FeederMap, room: Room, scene: _Scene) -> None:
    """The nodal price beneath each microgrid, beside the line that leaves it downwards, or where else there is room."""
    if scene.outcome is None:
        return
    size = 6.5 if chart.crowded else 7.5
    for bus in scene.params.agent_bus.tolist():
        away = 12.5 if scene.beyond_limits[bus] else 10.0
        aside = [(-away, -3.0), (-away, 3.0), (0.0, -1.6 * away), (0.0, 1.6 * away)] * chart.crowded
        places = [(4.0 if chart.downward[bus] else 0.0, -away), *chart.places(bus, away), *aside]
        price = f"{scene.outcome.response.price_per_kwh[scene.row, bus]:.3f}"
        chart.write_beside(room, bus, price, places, size=size, may_cover_lines=True, weight="bold")


def _take(room: Room, middle: tuple[float, float], half: tuple[float, float]) -> None:
    """Let nothing else be written on a box."""
    room.take(np.array([middle]), np.array([half]))


def _asked_kw(outcome: Outcome, row: int) -> Float[np.ndarray, " agent"]:
    """What was proposed, without the solver's rounding where nothing was curtailed."""
    return np.where(outcome.is_curtailed[row], outcome.proposed_kw[row], outcome.response.accepted_kw[row])


def _draw_legend(figure: Figure, scene: _Scene) -> None:
    entries: list[tuple[Any, str]] = [
        (marker_key("s", 8.0), "substation"),
        (marker_key("^", 8.0), "generator of the DSO"),
        (marker_key("o", 10.0), "microgrid, with its nodal price per kWh"),
        (Patch(fc=SOLID), "injection accepted (up) or drawn (down)"),
        (Patch(fc="white", ec=MISSING, hatch="//////"), "proposed but curtailed"),
        (Line2D([], [], color=CONTRACT, lw=2), f"contract, seller to buyer (largest {MOST_CONTRACTS})"),
        (line_key(), "line, width by active power"),
        (Line2D([], [], ls="none", marker="o", ms=10, mfc="none", mec=ALARM, mew=1.6), "voltage beyond limits"),
    ]
    draw_key(figure, entries, ncols=4)
    low, high = scene.v_limits_pu
    bounds = (0.725, 0.385, 0.11, 0.012)
    bar = colour_bar(figure, bounds, scene.v_norm, VOLTAGE_COLOURS, "voltage in p.u.", "both", ".2f")
    bar.set_xticks([low, 1.0, high])
    for limit in (low, high):
        bar.axvline(limit, color=INK, lw=1.4)
    loading_bar(figure)


def _draw_prices(axes: Axes, scene: _Scene) -> None:
    style_axes(axes, "Nodal price at the microgrids, by cause", "currency per kWh")
    _name_microgrids(axes, scene)
    axes.axhline(scene.lmp_per_kwh, color=INK, lw=0.9, ls=(0, (4, 2)), label="LMP")
    if scene.outcome is None:
        axes.set_ylim(0, 1.4 * max(scene.lmp_per_kwh, 1e-3))
        axes.legend(**LEGEND)
        return
    bus = scene.params.agent_bus
    places = np.arange(len(bus))
    rise, fall = np.zeros(len(bus)), np.zeros(len(bus))
    for name, colour in PART_COLOURS.items():
        part = getattr(scene.outcome.response.price_parts, name)[scene.row, bus]
        axes.bar(places, part, bottom=np.where(part >= 0, rise, fall), width=0.62, color=colour, label=name)
        rise, fall = rise + np.maximum(part, 0.0), fall + np.minimum(part, 0.0)
    total = scene.outcome.response.price_per_kwh[scene.row, bus]
    axes.scatter(places, total, s=16, marker="D", c="white", ec=INK, lw=1.0, zorder=4, label="price")
    low, high = min(float(fall.min()), 0.0), max(float(rise.max()), float(total.max()), scene.lmp_per_kwh)
    axes.set_ylim(low * 1.08, high + 0.34 * (high - low))  # room for the legend
    axes.legend(**LEGEND, ncols=4)


def _draw_trades(axes: Axes, scene: _Scene) -> None:
    style_axes(axes, "Injection of the microgrids", "kW, below zero drawn")
    _name_microgrids(axes, scene)
    axes.axhline(0.0, color=INK, lw=0.8)
    if scene.outcome is None:
        rating = float(scene.params.microgrids.rating_kw.max())
        axes.set_ylim(-rating, rating)
        return
    outcome, row = scene.outcome, scene.row
    proposed, accepted = _asked_kw(outcome, row), outcome.response.accepted_kw[row]
    contract = outcome.contracts.quantity_kw[row]
    for i in range(len(proposed)):
        draw_bar(axes, i - 0.31, 0.62, 0.0, float(accepted[i]), float(proposed[i]))
    axes.scatter(np.arange(len(contract)), contract, s=26, marker="_", c=CONTRACT, lw=2.4, zorder=8)
    low, high = min(0.0, proposed.min(), contract.min()), max(0.0, proposed.max(), contract.max())
    span = max(float(high - low), 1e-3)
    axes.set_ylim(low - 0.06 * span, high + 0.26 * span)
    handles = [
        Patch(fc=SOLID, label="accepted"),
        Patch(fc="white", ec=MISSING, hatch="//////", label="curtailed"),
        Line2D([], [], color=CONTRACT, lw=2.4, label="contract"),
    ]
    axes.legend(handles=handles, **LEGEND, ncols=3)


def _draw_voltages(axes: Axes, scene: _Scene) -> None:
    style_axes(axes, "Voltage along the feeder", "p.u.")
    feeder = scene.params.feeder
    distance = feeder.path_sum(np.hypot(feeder.r_ohm, feeder.x_ohm) * (feeder.base_kv[0] / feeder.base_kv) ** 2)
    parent, voltage = feeder.parent[1:], scene.voltage_pu
    ends = np.stack([np.stack([distance[parent], voltage[parent]], -1), np.stack([distance[1:], voltage[1:]], -1)], 1)
    axes.add_collection(LineCollection(list(ends), colors="#b4bbc0", linewidths=1.0, zorder=2))
    for limit in scene.v_limits_pu:
        axes.axhline(limit, color=ALARM, lw=1.0, ls=(0, (4, 2)), zorder=1)
    axes.scatter(distance, voltage, s=11, c=scene.colours(slice(None)), ec=INK, lw=0.4, zorder=3)
    for bus in scene.params.generators.bus:
        axes.scatter(distance[bus], voltage[bus], s=40, marker="^", c=[scene.colours(bus)], ec=INK, lw=0.9, zorder=4)
    size = 95 if len(scene.params.agent_bus) <= 8 else 62
    for i, bus in enumerate(scene.params.agent_bus):
        axes.scatter(distance[bus], voltage[bus], s=size, c=[scene.colours(bus)], ec=INK, lw=0.9, zorder=5)
        write_on(axes, str(i), distance[bus], voltage[bus], scene.colours(bus), size=6)
    label_below(axes, "impedance from the substation in ohm")
    low, high = scene.v_limits_pu
    margin = 0.08 * (high - low)
    axes.set_ylim(min(low, voltage.min()) - margin, max(high, voltage.max()) + margin)


def _name_microgrids(axes: Axes, scene: _Scene) -> None:
    bus = scene.params.agent_bus
    axes.set_xlim(-0.6, len(bus) - 0.4)
    axes.set_xticks(range(len(bus)), [f"{i}" for i in range(len(bus))])
    axes.tick_params(axis="x", length=0)
    label_below(axes, "microgrid")
