"""The timing diagrams of the pages: who does what, in which order.

    python docs/diagrams.py

draws docs/images/*.svg.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

IMAGES = Path(__file__).parent / "images"
COLOURS = ("#dbe9f6", "#fde8c8", "#dcefdc")
INK = "#333333"
WIDTH, HEIGHT = 0.84, 0.68
# Text stays text, and the same call gives the same file.
plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "peergrid", "font.family": "sans-serif", "font.size": 8.5}


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens at a time, in somebody's lane."""

    time: float
    lane: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Again:
    """A way back in time: from one event to an earlier one, under a condition."""

    start: int
    stop: int
    when: str


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Lanes from the top, events in order, ways back, and what one call of `step` covers."""

    lanes: Sequence[str]
    events: Sequence[Event]
    again: Again
    step: tuple[float, float, str]


P2P = Timing(
    lanes=("microgrids", "market", "DSO"),
    events=(
        Event(time=0, lane=0, what="observe: sun,\nload, prices,\nprediction"),
        Event(time=1, lane=0, what="act: battery,\noffer, limit and\ndispatch price"),
        Event(time=2, lane=1, what="clear offers\ninto contracts"),
        Event(time=3, lane=0, what="dispatch against\nthe contract,\npropose injection"),
        Event(time=4, lane=2, what="OPF: accept or\ncurtail, price\nevery bus"),
        Event(time=5, lane=0, what="dispatch to\nwhat was\naccepted"),
        Event(time=6, lane=1, what="settle at\nnodal prices"),
        Event(time=7, lane=0, what="batteries move;\nnext observation,\nreward, infos"),
    ),
    again=Again(start=4, stop=2, when="correction rounds: who was curtailed offers less"),
    step=(2, 7, "env.step(actions)"),
)
TRANSACTIVE = Timing(
    lanes=("agents", "network", "DSO"),
    events=(
        Event(time=0, lane=2, what="the hour opens:\nroot signal =\nday-ahead LMP"),
        Event(time=1, lane=0, what="observe signal\nat the own bus,\nsun, storage"),
        Event(time=2, lane=0, what="act: shift load,\ngenerate,\nstore"),
        Event(time=3, lane=1, what="OPF: flows,\nlosses, import;\nsignals follow"),
        Event(time=4, lane=2, what="gap between\nimport and\nschedule"),
        Event(time=5, lane=2, what="hour closes:\nsettle at both\nmarkets"),
        Event(time=6, lane=0, what="storage moves;\nthe next hour\nopens"),
    ),
    again=Again(start=4, stop=1, when="hour stays open: the DSO moves the root signal, next iteration"),
    step=(3, 6, "env.step(actions)"),
)
DSO_PRICING = Timing(
    lanes=("agents", "network", "DSO"),
    events=(
        Event(time=0, lane=2, what="observe: LMP,\nschedule,\nlast gap"),
        Event(time=1, lane=2, what="act: root\nsignal"),
        Event(time=2, lane=0, what="answer the\nsignal at the\nown bus"),
        Event(time=3, lane=1, what="OPF: flows,\nlosses, import"),
        Event(time=4, lane=2, what="gap between\nimport and\nschedule: reward"),
        Event(time=5, lane=2, what="hour closes:\nsettle at both\nmarkets"),
        Event(time=6, lane=0, what="storage moves;\nthe next hour\nopens"),
    ),
    again=Again(start=4, stop=0, when="hour stays open: next iteration"),
    step=(2, 6, "env.step(action)"),
)


def draw(timing: Timing, path: Path) -> None:
    """Write a timing diagram as SVG: time to the right, a lane for each party."""
    times = [event.time for event in timing.events]
    figure, axes = plt.subplots(figsize=(12, 4))
    axes.set(xlim=(-1.35, max(times) + 0.6), ylim=(len(timing.lanes) - 0.1, -1.0))
    axes.axis("off")
    for lane, name in enumerate(timing.lanes):
        axes.axhspan(lane - 0.44, lane + 0.44, xmin=0.005, color=COLOURS[lane], alpha=0.45, linewidth=0)
        axes.text(-1.25, lane, name, va="center", fontweight="bold", color=INK)
    _mark_step(axes, *timing.step)
    for one, other in zip(timing.events, timing.events[1:], strict=False):
        if (one.time, one.lane) != (other.time, other.lane):
            _arrow(axes, one, other)
    back = timing.again
    _way_back(axes, timing.events[back.start], timing.events[back.stop], back.when)
    for number, event in enumerate(timing.events, start=1):
        _box(axes, event, number)
    figure.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Date": None})
    plt.close(figure)


def _box(axes: Axes, event: Event, number: int) -> None:
    corner = (event.time - WIDTH / 2, event.lane - HEIGHT / 2)
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle=style, facecolor="white", edgecolor=INK, zorder=3))
    axes.text(event.time, event.lane, event.what, ha="center", va="center", fontsize=7.2, color=INK, zorder=4)
    axes.text(corner[0] + 0.02, corner[1] - 0.02, str(number), fontsize=7, color="#777777", zorder=4)


def _arrow(axes: Axes, one: Event, other: Event) -> None:
    aims = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
    if one.lane == other.lane:
        start, stop, bend = (one.time + WIDTH / 2, one.lane), (other.time - WIDTH / 2, other.lane), "arc3"
    else:
        down = 1 if other.lane > one.lane else -1
        start, bend = (one.time + WIDTH / 2, one.lane), "angle,angleA=0,angleB=90,rad=4"
        stop = (other.time, other.lane - down * HEIGHT / 2)
    axes.annotate("", stop, start, arrowprops=aims | {"connectionstyle": bend}, zorder=2)


def _way_back(axes: Axes, one: Event, other: Event, when: str) -> None:
    below, colour = one.lane + 0.62, "#b04a2f"
    line = {"color": colour, "linestyle": "--", "linewidth": 1.2, "zorder": 2}
    axes.plot([one.time, one.time, other.time], [one.lane + HEIGHT / 2, below, below], **line)
    aims = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line}
    axes.annotate("", (other.time, other.lane + HEIGHT / 2), (other.time, below), arrowprops=aims)
    axes.text((one.time + other.time) / 2, below + 0.05, when, ha="center", va="top", fontsize=8, color=colour)


def _mark_step(axes: Axes, first: float, last: float, call: str) -> None:
    left, right = first - WIDTH / 2, last + WIDTH / 2
    axes.plot([left, left, right, right], [-0.52, -0.6, -0.6, -0.52], color="#777777", linewidth=1)
    axes.text((left + right) / 2, -0.66, call, ha="center", va="bottom", family="monospace", color="#555555")


if __name__ == "__main__":
    draw(P2P, IMAGES / "p2p_trading_interval.svg")
    draw(TRANSACTIVE, IMAGES / "transactive_hour.svg")
    draw(DSO_PRICING, IMAGES / "dso_pricing_hour.svg")
