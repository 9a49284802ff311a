"""What the viewers of all environments share: tables of text, the feeder as a map, the look of axes and legends.

Importing this file loads matplotlib; nothing here touches pyplot, a display, or matplotlib's settings.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from itertools import product
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
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.console import Console
from rich.table import Table

from peergrid.envs.common.limits import LOADING_TOLERANCE, beyond_limits
from peergrid.grid.dso import DsoResponse
from peergrid.grid.feeder import Feeder

TEXT_WIDTH = 100
MOST_NAMES, ROOM_FOR_NAMES = 40, 12.0  # buses that are all named, and points that a lane of theirs takes
INK, PALE, SOLID, MISSING, ALARM = "#22272b", "#7b858c", "#37474f", "#c2185b", "#d5006d"
LOADING_COLOURS = LinearSegmentedColormap.from_list("loading", ["#b9bdca", "#9a8fc0", "#6a3d9a", "#2d004b"])
LEGEND: dict[str, Any] = {
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


# --- as text ----------------------------------------------------------------------------------------------------------


def clock(hours: float) -> str:
    """Hours since midnight as a time of the day."""
    minutes = round(60 * hours)
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def hours_of(interval: int, step_hours: float) -> str:
    """When an interval begins and ends."""
    return f"{clock(interval * step_hours)} to {clock((interval + 1) * step_hours)}"


def kw(power: float) -> str:
    """A power with the digits that matter, without a minus before zero."""
    text = f"{power:.1f}" if abs(power) < 99.95 else f"{power:.0f}"
    return text.removeprefix("-") if float(text) == 0 else text


def mw(power_kw: float) -> str:
    """A power with its unit, in MW where it is large."""
    return f"{power_kw / 1000:.2f} MW" if abs(power_kw) >= 1000 else f"{kw(power_kw)} kW"


def minus(text: str) -> str:
    """The text of a picture with proper minus signs."""
    return text.replace("-", "\N{MINUS SIGN}")


def network_sentence(feeder: Feeder, response: DsoResponse, row: int) -> str:
    """Voltages, losses and what was shed in a row of the response."""
    voltage = response.voltage_pu[row]
    low, high = int(voltage.argmin()), int(voltage.argmax())
    beyond = int(buses_beyond(feeder, voltage).sum())
    return (
        f"Voltages from {voltage[low]:.3f} p.u. (bus {feeder.bus[low]}) to {voltage[high]:.3f} (bus {feeder.bus[high]})"
        f", {f'{beyond} buses beyond' if beyond else 'all within'} limits; "
        f"losses {kw(response.losses_kw[row])} kW; shed {kw(response.shed_kw[row].sum())} kW"
    )


def buses_beyond(feeder: Feeder, voltage_pu: Float[np.ndarray, " bus"]) -> Bool[np.ndarray, " bus"]:
    """The buses beyond their voltage limits, but for the substation, whose voltage is given."""
    beyond = beyond_limits(voltage_pu, feeder)
    beyond[0] = False
    return beyond


def excesses(loading: Float[np.ndarray, " bus"], beyond: Bool[np.ndarray, " bus"]) -> list[str]:
    """How many lines and buses are beyond their limits, where any is."""
    overloads, buses = int((loading > 1.0 + LOADING_TOLERANCE).sum()), int(beyond.sum())
    return [f"{overloads} lines overloaded"] * (overloads > 0) + [f"{buses} buses beyond limits"] * (buses > 0)


def table(*headers: str, spacing: int = 0) -> Table:
    """An empty table of numbers, with so much space between columns beyond the first."""
    columns = Table(box=box.HORIZONTALS, padding=(0, 0, 0, spacing), pad_edge=False)
    for header in headers:
        columns.add_column(header, justify="right", no_wrap=True)
    return columns


def to_string(columns: Table) -> str:
    """The table as plain text."""
    file = StringIO()
    console = Console(file=file, width=TEXT_WIDTH, color_system=None, force_terminal=False, force_jupyter=False)
    console.print(columns)
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


# --- the feeder as a map ----------------------------------------------------------------------------------------------


class Room:
    """What is taken on a map, by lines and by what must not be covered: middles and half sizes of boxes, in points."""

    def __init__(self, lines: Float[np.ndarray, "line 2 2"], taken: Float[np.ndarray, "box 2 2"]) -> None:
        self._lines, self._taken = lines, taken

    def take(self, middles: Float[np.ndarray, "box 2"], halves: Float[np.ndarray, "box 2"]) -> None:
        """Let nothing be written on these boxes."""
        self._taken = np.concatenate([self._taken, np.stack([middles, halves], axis=1)])

    def is_free(self, middle: Float[np.ndarray, "2"], half: Float[np.ndarray, "2"], over_lines: bool) -> bool:
        """Whether a box covers nothing, or nothing but lines."""
        boxes = self._taken if over_lines else np.concatenate([self._taken, self._lines])
        return not (np.abs(boxes[:, 0] - middle) < boxes[:, 1] + half).all(axis=-1).any()


@dataclass(frozen=True, eq=False, kw_only=True)
class FeederMap:
    """A feeder on axes whose coordinates are points (1/72 inch): offsets between things and labels are plain numbers.

    Attributes:
        marked: Buses with a mark, which takes more room than a plain bus.
        stacked: Those with two marks, one above the other.
        upward: Whether a vertical stroke leaves the bus upwards, and downwards.
        crowded: Room is scarce.
    """

    axes: Axes
    feeder: Feeder
    x: Float[np.ndarray, " bus"]
    y: Float[np.ndarray, " bus"]
    marked: Bool[np.ndarray, " bus"]
    stacked: Bool[np.ndarray, " bus"]
    upward: Bool[np.ndarray, " bus"]
    downward: Bool[np.ndarray, " bus"]
    crowded: bool

    @property
    def longest_bar(self) -> float:
        """Of the bars beside discs, in points."""
        return 14.0 if self.crowded else 20.0

    def draw_lines(self, flow_kw: Float[np.ndarray, " bus"], loading: Float[np.ndarray, " bus"]) -> None:
        """The lines: width and arrows by active power, colour by loading as a share of the rating."""
        x, y, parent = self.x, self.y, self.feeder.parent
        share = np.abs(flow_kw) / max(float(np.abs(flow_kw).max()), 1e-9)
        width = 1.1 + 5.5 * share
        colour = LOADING_COLOURS(np.clip(loading, 0.0, 1.0))
        # The least loaded first, so that what matters lies on top where lines share a stroke.
        order = [int(j) for j in np.argsort(loading, kind="stable") if j]
        strokes = [[(x[parent[j]], y[parent[j]]), (x[parent[j]], y[j]), (x[j], y[j])] for j in order]
        self.axes.add_collection(
            LineCollection(strokes, colors=colour[order], linewidths=width[order], capstyle="round", joinstyle="round")
        )
        flows = np.array([j for j in order if share[j] > 0.01], dtype=int)
        for marker, direction in ((">", 1.0), ("<", -1.0)):
            there = flows[np.sign(flow_kw[flows]) == direction]
            middle, dark = (x[there] + x[parent[there]]) / 2, colour[there] * (0.7, 0.7, 0.7, 1.0)
            self.axes.scatter(middle, y[there], s=(width[there] + 3.5) ** 2, marker=marker, c=dark, ec="white", lw=0.5)

    def draw_buses(self, colours: Float[np.ndarray, "bus 4"], ringed: Bool[np.ndarray, " bus"]) -> None:
        """The substation and the buses without a mark, with rings around the buses that are to stand out."""
        axes, x, y, plain = self.axes, self.x, self.y, ~self.marked
        small = float(np.clip(900 / self.feeder.n_bus, 9, 34))
        size = np.where(self.marked[ringed], 420, small + 70)
        axes.scatter(x[ringed], y[ringed], s=size, c="none", ec=ALARM, lw=1.6, zorder=5)
        axes.scatter(x[plain], y[plain], s=small, c=colours[plain], ec=INK, lw=0.6, zorder=6)
        axes.scatter(x[0], y[0], s=150, marker="s", c=[colours[0]], ec=INK, lw=1.2, zorder=6)
        note(axes, "substation", x[0], y[0] + 19)

    def draw_disc(self, bus: int, colour: Any) -> None:
        """The mark of whoever trades at a bus."""
        size = 160 if self.crowded else 230
        self.axes.scatter(self.x[bus], self.y[bus], s=size, c=[colour], ec=INK, lw=1.2, zorder=7)

    def name_marked(self, room: Room) -> None:
        """Names of the marked buses, beside them where they cover nothing but lines, if there is such a place."""
        for j in np.flatnonzero(self.marked)[1:].tolist():
            aside = [(-10.0, 3.0), (-10.0, -3.0)] * self.crowded
            places = [*aside, *self.places(j, 30.0 if self.stacked[j] else 11.0)]
            self.write_beside(room, j, self.feeder.bus[j], places, size=6.5, may_cover_lines=True, color=PALE)

    def room(self, reach: float) -> Room:
        """The map as it is drawn, with so much around the marked buses, in points."""
        x, y, parent = self.x, self.y, self.feeder.parent[1:]
        around = np.where(self.marked, reach, 3.5)
        around[0] = 26.0  # with what is written above and beneath the substation
        corner, start, end = (np.stack(at, -1) for at in ((x[parent], y[1:]), (x[parent], y[parent]), (x[1:], y[1:])))
        lines = np.concatenate([np.stack([corner + p, np.abs(corner - p)], axis=1) / 2 for p in (start, end)])
        return Room(lines, np.stack([np.stack([x, y], -1), np.stack([around, around], -1)], axis=1))

    def name_others(self, room: Room) -> None:
        """Names of the other buses where these are few, each where it covers nothing, if there is such a place."""
        for j in np.flatnonzero(~self.marked).tolist() if self.feeder.n_bus <= MOST_NAMES else ():
            self.write_beside(room, j, self.feeder.bus[j], self.places(j, 6.5), size=6.5, color=PALE)

    def places(self, bus: int, away: float) -> list[tuple[float, float]]:
        """Where a text may stand beside a bus, the best first: not on a line that leaves it."""
        aslant = 0.8 * away
        straight = [(0.0, away)] * (not self.upward[bus]) + [(0.0, -away)] * (not self.downward[bus])
        beyond = [(away, 0.0)] * int(self.feeder.subtree_end[bus] == bus + 1)
        return [*straight, *beyond, (aslant, aslant), (aslant, -aslant), (-aslant, aslant), (-aslant, -aslant)]

    def write_beside(
        self,
        room: Room,
        bus: int,
        text: str,
        places: Sequence[tuple[float, float]],
        size: float,
        may_cover_lines: bool = False,
        **style: Any,
    ) -> None:
        """A text at the first place beside a bus where there is room for it; nowhere if there is none."""
        half = size * np.array([0.33 * len(text), 0.6])
        for over_lines, (dx, dy) in product((False, True) if may_cover_lines else (False,), places):
            middle = np.array([self.x[bus] + dx, self.y[bus] + dy]) + np.sign((dx, dy)) * half
            if room.is_free(middle, half, over_lines):
                room.take(middle[None], half[None])
                self._write(bus, text, dx, dy, size=size, **style)
                return

    def _write(self, bus: int, text: str, dx: float, dy: float, **style: Any) -> None:
        ha, va = ("center", "left", "right")[int(np.sign(dx))], ("center", "bottom", "top")[int(np.sign(dy))]
        note(self.axes, text, self.x[bus] + dx, self.y[bus] + dy, ha=ha, va=va, **style)

    def draw_bar(self, bus: int, done: float, whole: float, away: float = 11.5) -> None:
        """A bar beside the disc at a bus, in points up from its middle: solid what is done, hatched the rest."""
        left, wide, y = self.x[bus] + away, 6.0, self.y[bus]
        self.axes.plot([left - 1.5, left + wide + 1.5], [y, y], color=INK, lw=0.9, zorder=8, solid_capstyle="butt")
        draw_bar(self.axes, left, wide, y, done, whole)


def map_feeder(
    figure: Figure, bottom: float, share: float, feeder: Feeder, marked: Collection[int], stacked: Collection[int] = ()
) -> FeederMap:
    """Empty axes over the whole width of the figure, and where the buses stand there.

    Args:
        bottom: Where the axes begin, as a share of the figure's height; `share` is how much of it they take.
        marked: Buses with a mark; the substation has one anyway.
        stacked: Those with two marks.
    """
    axes = figure.add_axes((0.0, bottom, 1.0, share))
    wide, tall = (float(points) for points in figure.get_size_inches() * 72 * (1.0, share))
    axes.set(xlim=(0, wide), ylim=(0, tall))
    axes.set_axis_off()
    x, lane = layout_tree(feeder.parent)
    is_marked, is_stacked = np.zeros(feeder.n_bus, dtype=bool), np.zeros(feeder.n_bus, dtype=bool)
    is_marked[[0, *marked]] = True
    is_stacked[list(stacked)] = True
    height = tall - 28 - 28
    level, crowded = spread_lanes(lane, is_marked, is_stacked, height if feeder.n_bus <= MOST_NAMES else np.inf)
    upward, downward = _strokes(feeder.parent, lane)
    return FeederMap(
        axes=axes,
        feeder=feeder,
        x=52 + x * (wide - 52 - 40) / max(x.max(), 1.0),
        y=28 + level * height,
        marked=is_marked,
        stacked=is_stacked,
        upward=upward,
        downward=downward,
        crowded=crowded,
    )


def spread_lanes(
    lane: Float[np.ndarray, " bus"],
    marked: Bool[np.ndarray, " bus"],
    stacked: Bool[np.ndarray, " bus"],
    height: float,
) -> tuple[Float[np.ndarray, " bus"], bool]:
    """Each bus's height between 0 and 1, with more room for lanes that hold marked buses; whether room is scarce.

    Args:
        height: Of all lanes, in points: a lane without marks takes what names need, where that is more than its share.
    """
    lanes, of_bus = np.unique(lane, return_inverse=True)
    room = np.ones(len(lanes))
    room[of_bus[marked]] = 5.0
    room[of_bus[stacked]] = 9.0
    if height / room.sum() < ROOM_FOR_NAMES:
        room[room == 1.0] = 3.0
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


def note(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    """A text on a map, legible on lines."""
    backing = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    chosen: dict[str, Any] = {"bbox": backing, "size": 7.5, "color": INK, "ha": "center", "va": "top", "zorder": 8}
    axes.text(x, y, text, **(chosen | style))


def write_on(axes: Axes, text: str, x: float, y: float, on: Any, **style: Any) -> None:
    """A text, legible on a disc of that colour."""
    luma = float(np.dot(on[:3], (0.299, 0.587, 0.114)))
    ink = "white" if luma < 0.5 else INK
    axes.text(x, y, text, color=ink, ha="center", va="center_baseline", zorder=8, **style)


def draw_bar(axes: Axes, left: float, wide: float, base: float, done: float, whole: float) -> None:
    """A bar from the base: solid what is done, hatched the rest of the whole."""
    axes.add_patch(Rectangle((left, base), wide, done, fc=SOLID, ec="none", zorder=7))
    if whole != done:
        rest = Rectangle((left, base + done), wide, whole - done, lw=0.9, zorder=7)
        rest.set(facecolor="white", edgecolor=MISSING, hatch="//////")
        axes.add_patch(rest)


# --- the look of figures ----------------------------------------------------------------------------------------------


def new_figure(size: tuple[int, int]) -> Figure:
    """An empty figure of a width and a height in pixels, 12 inches wide: all in it grows with the width."""
    width, height = size
    dpi = width / 12.0
    return Figure(figsize=(12.0, height / dpi), dpi=dpi, facecolor="white")


def pixels(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    """The figure as it would be on a screen."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def write_header(
    figure: Figure, feeder: Feeder, when: str, facts: Sequence[str], remark: str = "", colour: str = INK
) -> None:
    """Two lines: the feeder and when it is; facts, and a remark in its colour."""
    title = shorten(feeder.title or feeder.name, 85, placeholder=" …")
    figure.text(0.02, 0.972, title, size=13 if len(title) <= 66 else 11, weight="bold", color=INK, va="center")
    figure.text(0.98, 0.972, when, size=11, color=INK, va="center", ha="right")
    figure.text(0.02, 0.94, "   ·   ".join(facts), size=9.5, color=INK, va="center")
    figure.text(0.98, 0.94, remark, size=9.5, color=colour, va="center", ha="right")


def marker_key(marker: str, size: float) -> Line2D:
    """A legend's picture of a mark on the map."""
    return Line2D([], [], ls="none", marker=marker, ms=size, mfc="#f3efec", mec=INK)


def line_key() -> Line2D:
    """A legend's picture of a line on the map."""
    return Line2D([], [], color=LOADING_COLOURS(0.4), lw=3, marker=">", ms=7, mec="white", markevery=[0])


def draw_key(figure: Figure, entries: Sequence[tuple[Any, str]], ncols: int) -> None:
    """What the marks of the map mean, beneath it."""
    legend = figure.legend(
        *zip(*entries, strict=True),
        loc="center left",
        bbox_to_anchor=(0.012, 0.385),
        ncols=ncols,
        fontsize=7.5,
        labelcolor=INK,
        frameon=False,
        columnspacing=1.4,
        handletextpad=0.6,
        borderpad=0,
    )
    legend.set_zorder(0)


def colour_bar(
    figure: Figure,
    bounds: tuple[float, float, float, float],
    norm: Normalize,
    colours: LinearSegmentedColormap,
    label: str,
    extend: str,
    digits: str,
) -> Axes:
    """What the colours of the map mean, from left to right."""
    axes = figure.add_axes(bounds)
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=axes, orientation="horizontal", extend=extend)
    bar.outline.set_visible(False)
    axes.set_title(label, size=7.5, color=INK, pad=3)
    axes.tick_params(labelsize=7, colors=INK, length=2, pad=1.5)
    axes.xaxis.set_major_formatter(lambda value, _: minus(f"{value:{digits}}"))
    return axes


def loading_bar(figure: Figure) -> None:
    """What the colours of lines mean."""
    bounds, norm = (0.87, 0.385, 0.1, 0.012), Normalize(0, 100)
    share = colour_bar(figure, bounds, norm, LOADING_COLOURS, "loading in % of rating", "neither", ".0f")
    share.set_xticks([0, 50, 100])


def style_axes(axes: Axes, title: str, unit: str) -> None:
    """The look of a diagram."""
    axes.set_title(title, size=9, weight="bold", color=INK, loc="left", pad=5)
    axes.set_ylabel(unit, size=7.5, color=INK, labelpad=2)
    axes.tick_params(labelsize=7, colors=INK, length=2.5, pad=2)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y", color="#e4e7ea", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set(color="#9aa3a9", linewidth=0.8)


def label_below(axes: Axes, label: str) -> None:
    """The name of the horizontal axis."""
    axes.set_xlabel(label, size=7.5, color=INK, labelpad=2)
