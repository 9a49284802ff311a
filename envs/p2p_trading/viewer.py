"""How an interval looks: `draw_ansi` as a table, `draw_rgb` as a picture. Pure functions of one row of the batch.

Importing this file loads matplotlib; nothing here touches pyplot, a display, or matplotlib's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from textwrap import shorten
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.console import Console
from rich.table import Table

from peergrid.envs.p2p_trading.infos import LOADING_TOLERANCE, VOLTAGE_TOLERANCE_PU
from peergrid.envs.p2p_trading.types import Days, Outcome, Params, State
from peergrid.grid.dso import DsoStatus

TEXT_WIDTH = 100
MOST_CONTRACTS = 12
INK, PALE, ACCEPTED, CURTAILED, CONTRACT, ALARM = "#22272b", "#7b858c", "#37474f", "#c2185b", "#00897b", "#d5006d"
# Blue, white, red without green in between, so that all eyes tell them apart; evenly spaced in perceived lightness.
# Source: vik, from F. Crameri's Scientific colour maps (doi.org/10.5281/zenodo.1243862).
VOLTAGE_COLOURS = LinearSegmentedColormap.from_list(
    "voltage",
    ["#033e7d", "#1e6f9d", "#71a8c4", "#c9dde7", "#f3efec", "#eacebd", "#d39774", "#be6533", "#8b2706"],
)
LOADING_COLOURS = LinearSegmentedColormap.from_list("loading", ["#b9bdca", "#9a8fc0", "#6a3d9a", "#2d004b"])
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
            f"Nothing is traded yet. To come: {lmp}, load {_kw(days.load_kw[row, t].sum())} kW.",
            _to_string(_table_before(params, state, days, row, t)),
        ]
        return "\n".join(lines)
    lines += [
        f"{lmp}, welfare {outcome.welfare[row]:.2f}, DSO: {DsoStatus(outcome.response.status[row]).sentence}",
        _network_sentence(params, outcome, row),
        _supply_sentence(params, outcome, row),
        _to_string(_table_after(params, outcome, row)),
        "kW injected are positive, kW drawn negative. * curtailed by the DSO",
    ]
    return "\n".join(lines)


def _interval(state: State, outcome: Outcome | None, row: int) -> int:
    return int(state.step[row]) - (outcome is not None)


def _when(params: Params, state: State, outcome: Outcome | None, row: int) -> str:
    t = _interval(state, outcome, row)
    begin, end = (_clock(k * params.step_hours) for k in (t, t + 1))
    return f"{begin} to {end}, interval {t + 1} of {params.intervals}"


def _clock(hours: float) -> str:
    minutes = round(60 * hours)
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def _kw(power: float) -> str:
    """A power with the digits that matter, without a minus before zero."""
    text = f"{power:.1f}" if abs(power) < 99.95 else f"{power:.0f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _network_sentence(params: Params, outcome: Outcome, row: int) -> str:
    response, feeder = outcome.response, params.feeder
    voltage = response.voltage_pu[row]
    low, high = int(voltage.argmin()), int(voltage.argmax())
    beyond = int(_beyond_limits(params, outcome, row).sum())
    return (
        f"Voltages from {voltage[low]:.3f} p.u. (bus {feeder.bus[low]}) to {voltage[high]:.3f} (bus {feeder.bus[high]})"
        f", {f'{beyond} buses beyond' if beyond else 'all within'} limits; "
        f"losses {_kw(response.losses_kw[row])} kW; shed {_kw(response.shed_kw[row].sum())} kW"
    )


def _supply_sentence(params: Params, outcome: Outcome, row: int) -> str:
    response = outcome.response
    sources = [("Substation:", response.substation_kw[row], response.substation_kvar[row])]
    for k, bus in enumerate(params.generators.bus):
        name = f"generator at bus {params.feeder.bus[bus]}:"
        sources.append((name, response.generator_kw[row, k], response.generator_kvar[row, k]))
    return "; ".join(f"{name} {_kw(p)} kW, {_kw(q)} kvar" for name, p, q in sources)


def _table_before(params: Params, state: State, days: Days, row: int, t: int) -> Table:
    table = _table("#", "bus", "PV\nkW", "demand\nkW", "stored\nkWh", "most diesel\nkW", "battery\nkW")
    for i, bus in enumerate(params.trade_bus):
        grids = params.microgrids
        numbers = (days.pv_kw[row, t, i], days.demand_kw[row, t, i], state.stored_kwh[row, i], grids.diesel_max_kw[i])
        table.add_row(str(i), params.feeder.bus[bus], *map(_kw, numbers), f"± {_kw(grids.battery_rating_kw[i])}")
    return table


def _table_after(params: Params, outcome: Outcome, row: int) -> Table:
    table = _table(
        *("#", "bus", "PV\nkW", "diesel\nkW", "batt.\nkW", "load\nkW", "stored\nkWh", "offer\nkW", "contract\nkW"),
        *("at\n/kWh", "proposed\nkW", "accepted\nkW", "price\n/kWh", "bill\n", "reward\n"),
    )
    dispatch, response = outcome.dispatch, outcome.response
    for i, bus in enumerate(params.trade_bus):
        device_kw = (dispatch.pv_kw, dispatch.diesel_kw, dispatch.battery_kw, dispatch.load_kw, outcome.stored_kwh)
        mark = "*" if outcome.is_curtailed[row, i] else " "
        table.add_row(
            str(i),
            params.feeder.bus[bus],
            *(_kw(power[row, i]) for power in device_kw),
            _kw(outcome.decisions.quantity_kw[row, i]),
            _kw(outcome.contracts.quantity_kw[row, i]),
            f"{outcome.contracts.price_per_kwh[row, i]:.3f}",
            _kw(outcome.proposed_kw[row, i]),
            _kw(response.accepted_kw[row, i]) + mark,
            f"{response.price_per_kwh[row, bus]:.3f}",
            f"{outcome.bills.total[row, i]:.2f}",
            f"{outcome.reward[row, i]:.2f}",
        )
    return table


def _table(*headers: str) -> Table:
    table = Table(box=box.HORIZONTALS, padding=0, pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _to_string(table: Table) -> str:
    file = StringIO()
    console = Console(file=file, width=TEXT_WIDTH, color_system=None, force_terminal=False, force_jupyter=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


# --- where buses stand ------------------------------------------------------------------------------------------------


def layout_tree(parent: Int[np.ndarray, " bus"]) -> tuple[Float[np.ndarray, " bus"], Float[np.ndarray, " bus"]]:
    """Where to draw the buses of a radial feeder: x is the depth, y the lane, 0 for the longest path.

    Every bus hands its lane on to the child with the longest way to go; its other children open lanes above and below.
    Drawn as a vertical stroke at the parent and a horizontal one in the child's lane, no two lines cross: laterals are
    placed from the far end of a lane to its near end, each beyond all that stands in its columns, so that the stroke
    that leads to it finds its own column free.

    Args:
        parent: Position of each bus's parent, before its children; that of bus 0 is not read.
    """
    x, y = _layout(tuple(parent.tolist()))
    return x.copy(), y.copy()


@lru_cache(maxsize=32)
def _layout(parent: tuple[int, ...]) -> tuple[Float[np.ndarray, " bus"], Float[np.ndarray, " bus"]]:
    n = len(parent)
    depth = np.zeros(n, dtype=int)
    for j in range(1, n):
        depth[j] = depth[parent[j]] + 1
    reach, heir = depth.copy(), np.full(n, -1)
    for j in range(n - 1, 0, -1):
        if reach[j] >= reach[parent[j]]:
            reach[parent[j]], heir[parent[j]] = reach[j], j

    branches: list[list[int]] = [[] for _ in range(n)]
    for j in range(1, n):
        if heir[parent[j]] != j:
            branches[parent[j]].append(j)
    # What a lateral with all its own laterals covers in each column of depth, relative to its lane.
    top: dict[int, np.ndarray] = {}
    bottom: dict[int, np.ndarray] = {}
    lane = np.zeros(n, dtype=int)  # of the first bus of a lateral, relative to the lane it leaves
    first_buses = [j for j in range(n) if j == 0 or heir[parent[j]] != j]
    for first in reversed(first_buses):
        above, below = np.zeros(depth.max() + 1, dtype=int), np.zeros(depth.max() + 1, dtype=int)
        upward = True
        for bus in reversed(_lane_of(first, heir)):
            for branch in branches[bus]:
                columns = slice(depth[branch], reach[branch] + 1)
                up = int((above - bottom[branch])[columns].max()) + 1
                down = int((top[branch] - below)[columns].max()) + 1
                upward = up < down if up != down else upward
                lane[branch] = up if upward else -down
                above[columns] = np.maximum(above, lane[branch] + top[branch])[columns]
                below[columns] = np.minimum(below, lane[branch] + bottom[branch])[columns]
                above[depth[bus]] = max(above[depth[bus]], lane[branch])
                below[depth[bus]] = min(below[depth[bus]], lane[branch])
                upward = not upward
        top[first], bottom[first] = above, below

    y = np.zeros(n)
    for j in range(1, n):
        y[j] = y[parent[j]] + lane[j]
    return depth.astype(float), y


def _lane_of(first: int, heir: np.ndarray) -> list[int]:
    lane = [first]
    while heir[lane[-1]] >= 0:
        lane.append(int(heir[lane[-1]]))
    return lane


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
    width, height = size
    dpi = width / 12.0
    figure = Figure(figsize=(12.0, height / dpi), dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    scene = _scene(params, state, days, outcome, row)
    _draw_title(figure, scene, _when(params, state, outcome, row))
    _draw_map(figure, scene)
    _draw_legend(figure, scene)
    bottom, tall = 0.07, 0.235
    _draw_prices(figure.add_axes((0.055, bottom, 0.26, tall)), scene)
    _draw_trades(figure.add_axes((0.385, bottom, 0.26, tall)), scene)
    _draw_voltages(figure.add_axes((0.715, bottom, 0.26, tall)), scene)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _scene(params: Params, state: State, days: Days, outcome: Outcome | None, row: int) -> _Scene:
    n = params.feeder.n_bus
    nothing = np.zeros(n)
    return _Scene(
        params=params,
        outcome=outcome,
        row=row,
        lmp_per_kwh=float(days.lmp_per_kwh[row, _interval(state, outcome, row)]),
        voltage_pu=state.last_voltage_pu[row] if outcome is None else outcome.response.voltage_pu[row],
        flow_kw=nothing if outcome is None else outcome.response.flow_kw[row],
        loading=nothing if outcome is None else outcome.response.current_a[row] / params.feeder.i_max_a,
        beyond_limits=np.zeros(n, dtype=bool) if outcome is None else _beyond_limits(params, outcome, row),
    )


def _beyond_limits(params: Params, outcome: Outcome, row: int) -> Bool[np.ndarray, " bus"]:
    voltage, feeder = outcome.response.voltage_pu[row], params.feeder
    beyond = (voltage < feeder.v_min_pu - VOLTAGE_TOLERANCE_PU) | (voltage > feeder.v_max_pu + VOLTAGE_TOLERANCE_PU)
    beyond[0] = False  # the substation's voltage is given
    return beyond


def _draw_title(figure: Figure, scene: _Scene, when: str) -> None:
    feeder, outcome, row = scene.params.feeder, scene.outcome, scene.row
    title = shorten(feeder.title or feeder.name, 85, placeholder=" …")
    figure.text(0.02, 0.972, title, size=13 if len(title) <= 66 else 11, weight="bold", color=INK, va="center")
    figure.text(0.98, 0.972, when, size=11, color=INK, va="center", ha="right")
    facts = [f"LMP {scene.lmp_per_kwh:.3f} per kWh"]
    if outcome is None:
        figure.text(0.02, 0.94, f"{facts[0]}   ·   nothing is traded yet", size=9.5, color=INK, va="center")
        return
    response = outcome.response
    facts += [
        f"welfare {outcome.welfare[row]:.2f}".replace("-", "\N{MINUS SIGN}"),
        f"losses {_kw(response.losses_kw[row])} kW",
        f"shed {_kw(response.shed_kw[row].sum())} kW",
    ]
    overloads = int((scene.loading > 1.0 + LOADING_TOLERANCE).sum())
    beyond = int(scene.beyond_limits.sum())
    facts += [f"{overloads} lines overloaded"] * (overloads > 0) + [f"{beyond} buses beyond limits"] * (beyond > 0)
    figure.text(0.02, 0.94, "   ·   ".join(facts), size=9.5, color=INK, va="center")
    status = DsoStatus(response.status[row])
    fine = status == DsoStatus.OPTIMAL
    sentence = status.sentence.split(":")[0]
    figure.text(0.98, 0.94, f"DSO: {sentence}", size=9.5, color=INK if fine else ALARM, va="center", ha="right")


def _draw_map(figure: Figure, scene: _Scene) -> None:
    # Data coordinates are points (1/72 inch), so that offsets between things and their labels are plain numbers.
    axes = figure.add_axes((0.0, 0.425, 1.0, 0.5))
    wide, tall = (float(points) for points in figure.get_size_inches() * 72 * (1.0, 0.5))
    axes.set(xlim=(0, wide), ylim=(0, tall))
    axes.set_axis_off()
    feeder, parent = scene.params.feeder, scene.params.feeder.parent
    x, lane = layout_tree(parent)
    shared = set(scene.params.generators.bus) & set(scene.params.trade_bus.tolist())
    marked = np.zeros(feeder.n_bus, dtype=bool)
    marked[[0, *scene.params.generators.bus, *scene.params.trade_bus]] = True
    x = 52 + x * (wide - 52 - 40) / max(x.max(), 1.0)
    level, crowded = _spread_lanes(lane, marked, shared)
    y = 28 + level * (tall - 28 - 28)
    _draw_lines(axes, scene, x, y)
    _draw_contracts(axes, scene, x, y)

    small = float(np.clip(900 / feeder.n_bus, 9, 34))
    ring = scene.beyond_limits
    axes.scatter(x[ring], y[ring], s=np.where(marked[ring], 420, small + 70), c="none", ec=ALARM, lw=1.6, zorder=5)
    plain = ~marked
    axes.scatter(x[plain], y[plain], s=small, c=scene.colours(plain), ec=INK, lw=0.6, zorder=6)
    axes.scatter(x[0], y[0], s=150, marker="s", c=[scene.colours(0)], ec=INK, lw=1.2, zorder=6)
    upward, downward = _strokes(parent, lane)
    for j in range(1, feeder.n_bus):
        if marked[j] and crowded:
            _note(axes, feeder.bus[j], x[j] - 13, y[j] + 2, size=6.5, color=PALE, ha="right", va="bottom")
        elif marked[j] or feeder.n_bus <= 40:
            away = 30.0 if j in shared else 11.0 if marked[j] else 6.5
            _draw_bus_label(axes, feeder.bus[j], x[j], y[j], away, bool(upward[j]), bool(downward[j]))
    _draw_sources(axes, scene, x, y)
    for i, bus in enumerate(scene.params.trade_bus):
        _draw_microgrid(axes, scene, i, float(x[bus]), float(y[bus]), bool(downward[bus]), crowded)


def _spread_lanes(
    lane: Float[np.ndarray, " bus"], marked: Bool[np.ndarray, " bus"], shared: set[int]
) -> tuple[Float[np.ndarray, " bus"], bool]:
    """Each bus's height between 0 and 1, with more room for lanes that hold marked buses; whether room is scarce."""
    lanes, of_bus = np.unique(lane, return_inverse=True)
    room = np.ones(len(lanes))
    room[of_bus[marked]] = 5.0
    room[of_bus[sorted(shared)]] = 9.0
    middle = np.cumsum(room) - room / 2
    span = middle[-1] - middle[0]
    level = (middle - middle[0]) / span if span else np.full(len(lanes), 0.5)
    return level[of_bus], len(lanes) > 10


def _strokes(
    parent: Int[np.ndarray, " bus"], lane: Float[np.ndarray, " bus"]
) -> tuple[Bool[np.ndarray, " bus"], Bool[np.ndarray, " bus"]]:
    """Whether a vertical stroke leaves each bus upwards, and downwards."""
    upward, downward = np.zeros(len(parent), dtype=bool), np.zeros(len(parent), dtype=bool)
    rise = lane[1:] - lane[parent[1:]]
    upward[parent[1:][rise > 0]] = True
    downward[parent[1:][rise < 0]] = True
    return upward, downward


def _draw_lines(axes: Axes, scene: _Scene, x: np.ndarray, y: np.ndarray) -> None:
    parent = scene.params.feeder.parent
    share = np.abs(scene.flow_kw) / max(float(np.abs(scene.flow_kw).max()), 1e-9)
    width = 1.1 + 5.5 * share
    colour = LOADING_COLOURS(np.clip(scene.loading, 0.0, 1.0))
    # The least loaded first, so that what matters lies on top where lines share a stroke.
    order = [int(j) for j in np.argsort(scene.loading, kind="stable") if j]
    strokes = [[(x[parent[j]], y[parent[j]]), (x[parent[j]], y[j]), (x[j], y[j])] for j in order]
    axes.add_collection(
        LineCollection(strokes, colors=colour[order], linewidths=width[order], capstyle="round", joinstyle="round")
    )
    flows = np.array([j for j in order if share[j] > 0.01], dtype=int)
    for marker, direction in ((">", 1.0), ("<", -1.0)):
        there = flows[np.sign(scene.flow_kw[flows]) == direction]
        middle, dark = (x[there] + x[parent[there]]) / 2, colour[there] * (0.7, 0.7, 0.7, 1.0)
        axes.scatter(middle, y[there], s=(width[there] + 3.5) ** 2, marker=marker, c=dark, ec="white", lw=0.5)


def _draw_contracts(axes: Axes, scene: _Scene, x: np.ndarray, y: np.ndarray) -> None:
    if scene.outcome is None:
        return
    quantity = scene.outcome.contracts.quantity_kw[scene.row]
    bus = scene.params.trade_bus
    sold, bought = np.maximum(quantity, 0.0), np.maximum(-quantity, 0.0)
    volume = max(float(sold.sum()), 1e-9)
    pair_kw = np.outer(sold, bought) / volume  # contracts balance as a whole; who meets whom is drawn pro rata
    bus = scene.params.trade_bus
    obstacles = np.stack([x, y], axis=-1)
    obstacles = np.concatenate([obstacles, *(obstacles[bus] + to for to in ((0, -15), (0, 15), (15, 0)))])
    largest = np.argsort(-pair_kw, axis=None, kind="stable")[:MOST_CONTRACTS]
    pairs = [np.unravel_index(k, pair_kw.shape) for k in largest if pair_kw.flat[k] > 0.005 * volume]
    widest = 2.2 if len(pairs) <= 6 else 1.2
    for i, k in pairs:
        a, b = (np.array([x[j], y[j]]) for j in (bus[i], bus[k]))
        bend = _clearest_bend(a, b, obstacles, axes.get_ylim()[1])
        control = _control_point(a, b, bend)
        arc = FancyArrowPatch(
            *(tuple(a), tuple(b)),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>,head_width=2.2,head_length=4.5",
            shrinkA=_gap(control - a),
            shrinkB=_gap(b - control) + 1,
        )
        arc.set(lw=0.6 + widest * pair_kw[i, k] / pair_kw.max(), color=CONTRACT, alpha=0.7, zorder=4)
        axes.add_patch(arc)


def _control_point(a: Float[np.ndarray, "2"], b: Float[np.ndarray, "2"], bend: float) -> Float[np.ndarray, "2"]:
    """Of the quadratic curve that matplotlib draws from a to b with this bend."""
    return (a + b) / 2 + bend * np.array([b[1] - a[1], a[0] - b[0]])


def _gap(direction: Float[np.ndarray, "2"]) -> float:
    """Points between a microgrid and an arc's end: more where it is steep, for the text above and beneath the disc."""
    return 22.0 if abs(direction[1]) > 0.75 * float(np.hypot(*direction)) else 10.0


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


def _draw_bus_label(axes: Axes, name: str, x: float, y: float, away: float, upward: bool, downward: bool) -> None:
    """Above the bus, or where no line leaves it."""
    dx, dy = (0.0, away) if not upward else (0.0, -away) if not downward else (away * 0.8, away * 0.8)
    va = "bottom" if dy > 0 else "top"
    _note(axes, name, x + dx, y + dy, size=6.5, color=PALE, ha="left" if dx else "center", va=va)


def _draw_sources(axes: Axes, scene: _Scene, x: np.ndarray, y: np.ndarray) -> None:
    params, outcome, row = scene.params, scene.outcome, scene.row
    if outcome is not None:
        _note(axes, f"{_mw(outcome.response.substation_kw[row])}", x[0], y[0] - 11)
    _note(axes, "substation", x[0], y[0] + 19)
    for k, bus in enumerate(params.generators.bus):
        is_shared = bus in params.trade_bus  # then it stands above the microgrid, its output to the right
        at = (x[bus], y[bus] + 16) if is_shared else (x[bus], y[bus])
        axes.scatter(*at, s=90 if is_shared else 150, marker="^", c=[scene.colours(bus)], ec=INK, lw=1.2, zorder=6)
        if outcome is not None:
            output = _mw(outcome.response.generator_kw[row, k])
            if is_shared:
                _note(axes, output, at[0] + 8, at[1] + 3, ha="left", va="center", size=6.5)
            else:
                _note(axes, output, at[0], at[1] - 10)


def _mw(kw: float) -> str:
    return f"{kw / 1000:.2f} MW" if abs(kw) >= 1000 else f"{_kw(kw)} kW"


def _note(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    backing = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    chosen: dict[str, Any] = {
        "bbox": backing,
        "size": 7.5,
        "color": INK,
        "ha": "center",
        "va": "top",
        "zorder": 8,
    } | style
    axes.text(x, y, text, **chosen)


def _number(axes: Axes, i: int, x: float, y: float, on: Any, **style: Any) -> None:
    """A microgrid's number, legible on the colour of its disc."""
    luma = float(np.dot(on[:3], (0.299, 0.587, 0.114)))
    ink = "white" if luma < 0.5 else INK
    axes.text(x, y, str(i), color=ink, ha="center", va="center_baseline", zorder=8, **style)


def _draw_microgrid(axes: Axes, scene: _Scene, i: int, x: float, y: float, downward: bool, crowded: bool) -> None:
    bus = scene.params.trade_bus[i]
    colour = scene.colours(bus)
    axes.scatter(x, y, s=160 if crowded else 230, c=[colour], ec=INK, lw=1.2, zorder=7)
    _number(axes, i, x, y, colour, size=7 if crowded else 8, weight="bold")
    if scene.outcome is None:
        return
    price = scene.outcome.response.price_per_kwh[scene.row, bus]
    beside = {"ha": "left", "va": "top"} if downward and not crowded else {"va": "top"}
    size = 6.5 if crowded else 7.5
    _note(axes, f"{price:.3f}", x + 4 * ("ha" in beside), y - size - 2, weight="bold", size=size, **beside)
    proposed = scene.outcome.proposed_kw[scene.row]
    tall = (14.0 if crowded else 20.0) / max(float(np.abs(proposed).max()), 1e-9)
    accepted = float(scene.outcome.response.accepted_kw[scene.row, i])
    asked = float(_asked_kw(scene.outcome, scene.row)[i])
    left, wide = x + 11.5, 6.0
    axes.plot([left - 1.5, left + wide + 1.5], [y, y], color=INK, lw=0.9, zorder=8, solid_capstyle="butt")
    _draw_bar(axes, left, wide, y, accepted * tall, asked * tall)


def _asked_kw(outcome: Outcome, row: int) -> Float[np.ndarray, " agent"]:
    """What was proposed, without the solver's rounding where nothing was curtailed."""
    return np.where(outcome.is_curtailed[row], outcome.proposed_kw[row], outcome.response.accepted_kw[row])


def _draw_bar(axes: Axes, left: float, wide: float, base: float, accepted: float, asked: float) -> None:
    """A bar from the base: solid what is accepted, hatched what is not."""
    axes.add_patch(Rectangle((left, base), wide, accepted, fc=ACCEPTED, ec="none", zorder=7))
    if asked != accepted:
        rest = Rectangle((left, base + accepted), wide, asked - accepted, lw=0.9, zorder=7)
        rest.set(facecolor="white", edgecolor=CURTAILED, hatch="//////")
        axes.add_patch(rest)


def _draw_legend(figure: Figure, scene: _Scene) -> None:
    def mark(marker: str, size: float, **style: Any) -> Line2D:
        return Line2D([], [], ls="none", marker=marker, ms=size, mfc="#f3efec", mec=INK, **style)

    line = Line2D([], [], color=LOADING_COLOURS(0.4), lw=3, marker=">", ms=7, mec="white", markevery=[0])
    entries: list[tuple[Any, str]] = [
        (mark("s", 8.0), "substation"),
        (mark("^", 8.0), "generator of the DSO"),
        (mark("o", 10.0), "microgrid, beneath it the nodal price per kWh"),
        (Patch(fc=ACCEPTED), "injection accepted (up) or drawn (down)"),
        (Patch(fc="white", ec=CURTAILED, hatch="//////"), "proposed but curtailed"),
        (Line2D([], [], color=CONTRACT, lw=2), f"contract, seller to buyer (largest {MOST_CONTRACTS})"),
        (line, "line, width by active power"),
        (Line2D([], [], ls="none", marker="o", ms=10, mfc="none", mec=ALARM, mew=1.6), "voltage beyond limits"),
    ]
    legend = figure.legend(
        *zip(*entries, strict=True),
        loc="center left",
        bbox_to_anchor=(0.012, 0.385),
        ncols=4,
        fontsize=7.5,
        labelcolor=INK,
        frameon=False,
        columnspacing=1.4,
        handletextpad=0.6,
        borderpad=0,
    )
    legend.set_zorder(0)
    low, high = scene.v_limits_pu
    norm = scene.v_norm
    bar = _colour_bar(figure, (0.725, 0.385, 0.11, 0.012), norm, VOLTAGE_COLOURS, "voltage in p.u.", "both", ".2f")
    bar.set_xticks([low, 1.0, high])
    for limit in (low, high):
        bar.axvline(limit, color=INK, lw=1.4)
    share = _colour_bar(
        figure,
        (0.87, 0.385, 0.1, 0.012),
        Normalize(0, 100),
        LOADING_COLOURS,
        "loading in % of rating",
        "neither",
        ".0f",
    )
    share.set_xticks([0, 50, 100])


def _colour_bar(
    figure: Figure,
    bounds: tuple[float, float, float, float],
    norm: Normalize,
    colours: LinearSegmentedColormap,
    label: str,
    extend: str,
    digits: str,
) -> Axes:
    axes = figure.add_axes(bounds)
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=axes, orientation="horizontal", extend=extend)
    bar.outline.set_visible(False)
    axes.set_title(label, size=7.5, color=INK, pad=3)
    axes.tick_params(labelsize=7, colors=INK, length=2, pad=1.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:{digits}}")
    return axes


def _draw_prices(axes: Axes, scene: _Scene) -> None:
    _style(axes, "Nodal price at the microgrids, by cause", "currency per kWh")
    _name_microgrids(axes, scene)
    axes.axhline(scene.lmp_per_kwh, color=INK, lw=0.9, ls=(0, (4, 2)), label="LMP")
    if scene.outcome is None:
        axes.set_ylim(0, 1.4 * max(scene.lmp_per_kwh, 1e-3))
        axes.legend(**_LEGEND)
        return
    bus = scene.params.trade_bus
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
    axes.legend(**_LEGEND, ncols=4)


def _draw_trades(axes: Axes, scene: _Scene) -> None:
    _style(axes, "Injection of the microgrids", "kW, below zero drawn")
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
        _draw_bar(axes, i - 0.31, 0.62, 0.0, float(accepted[i]), float(proposed[i]))
    axes.scatter(np.arange(len(contract)), contract, s=26, marker="_", c=CONTRACT, lw=2.4, zorder=8)
    low, high = min(0.0, proposed.min(), contract.min()), max(0.0, proposed.max(), contract.max())
    span = max(float(high - low), 1e-3)
    axes.set_ylim(low - 0.06 * span, high + 0.26 * span)
    handles = [
        Patch(fc=ACCEPTED, label="accepted"),
        Patch(fc="white", ec=CURTAILED, hatch="//////", label="curtailed"),
        Line2D([], [], color=CONTRACT, lw=2.4, label="contract"),
    ]
    axes.legend(handles=handles, **_LEGEND, ncols=3)


def _draw_voltages(axes: Axes, scene: _Scene) -> None:
    _style(axes, "Voltage along the feeder", "p.u.")
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
    size = 95 if len(scene.params.trade_bus) <= 8 else 62
    for i, bus in enumerate(scene.params.trade_bus):
        axes.scatter(distance[bus], voltage[bus], s=size, c=[scene.colours(bus)], ec=INK, lw=0.9, zorder=5)
        _number(axes, i, distance[bus], voltage[bus], scene.colours(bus), size=6)
    axes.set_xlabel("impedance from the substation in ohm", size=7.5, color=INK, labelpad=2)
    low, high = scene.v_limits_pu
    margin = 0.08 * (high - low)
    axes.set_ylim(min(low, voltage.min()) - margin, max(high, voltage.max()) + margin)


_LEGEND: dict[str, Any] = {
    "loc": "upper center",
    "fontsize": 6.5,
    "labelcolor": INK,
    "frameon": False,
    "columnspacing": 1.0,
    "handlelength": 1.2,
    "handletextpad": 0.5,
    "borderpad": 0.1,
    "labelspacing": 0.3,
}


def _style(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, size=9, weight="bold", color=INK, loc="left", pad=5)
    axes.set_ylabel(unit, size=7.5, color=INK, labelpad=2)
    axes.tick_params(labelsize=7, colors=INK, length=2.5, pad=2)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y", color="#e4e7ea", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set(color="#9aa3a9", linewidth=0.8)


def _name_microgrids(axes: Axes, scene: _Scene) -> None:
    bus = scene.params.trade_bus
    axes.set_xlim(-0.6, len(bus) - 0.4)
    axes.set_xticks(range(len(bus)), [f"{i}" for i in range(len(bus))])
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("microgrid", size=7.5, color=INK, labelpad=2)
