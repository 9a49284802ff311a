"""An episode as one HTML page that needs nothing else: no network, no server, no framework.

The page is `page/page.html`; style, script and the episode as JSON are written into it.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from peergrid.baselines.episode.p2p import PARTS, Episode
from peergrid.envs.common.drawing import buses_beyond, excesses, hours_of, layout_tree, minus, spread_lanes
from peergrid.grid.dso import DsoStatus

PAGE = files("peergrid.baselines.episode") / "page"
# What would end the script element that holds the JSON, or begin another; as escapes JSON reads them back.
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def write_page(episode: Episode, path: Path, subtitle: str) -> None:
    """Write the page of an episode.

    Args:
        subtitle: What was played: a line beneath the feeder's name.
    """
    path.write_text(page(episode, subtitle), encoding="utf-8")


def page(episode: Episode, subtitle: str) -> str:
    """The page of an episode: the feeder at every interval, prices, trades, batteries, money."""
    feeder = episode.params.feeder
    heading = feeder.title or feeder.name
    facts = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in day_facts(episode).items()
    )
    text = json.dumps(page_data(episode), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    filled = {
        "title": html.escape(f"{heading}: {subtitle}"),
        "heading": html.escape(heading),
        "subtitle": html.escape(subtitle),
        "facts": facts,
        "style": _source("style.css"),
        "script": _source("script.js"),
        "data": text.translate(ESCAPES),
    }
    before, *pieces = _source("page.html").split("{{")
    names_and_rest = [piece.split("}}", 1) for piece in pieces]
    return before + "".join(filled[name] + rest for name, rest in names_and_rest)


def day_facts(episode: Episode) -> dict[str, str]:
    """What the day came to, by name, as texts with units."""
    hours = episode.params.step_hours
    voltage = episode.voltage_pu[:, 1:]
    proposed_kwh = np.abs(episode.proposed_kw).sum() * hours
    curtailed_kwh = episode.curtailed_kw.sum() * hours
    share = 100.0 * curtailed_kwh / max(proposed_kwh, 1e-9)
    return {
        "traded": f"{episode.trade_kw.sum() * hours:.0f} kWh",
        "curtailed": f"{curtailed_kwh:.0f} kWh ({share:.1f} %)",
        "shed": f"{episode.shed_kw.sum() * hours:.1f} kWh",
        "losses": f"{episode.losses_kw.sum() * hours:.0f} kWh",
        "voltages": f"{voltage.min():.3f} to {voltage.max():.3f} p.u.",
        "most loaded line": f"{100 * episode.loading.max():.0f} %",
        "gain of all": minus(f"{episode.gain.sum():.2f}"),
        "kept by the DSO": minus(f"{episode.dso_result.sum():.2f}"),
        "welfare": minus(f"{episode.welfare.sum():.2f}"),
    }


def page_data(episode: Episode) -> dict[str, Any]:
    """What the page's script draws, rounded to what can be seen."""
    params, feeder, grids = episode.params, episode.params.feeder, episode.params.microgrids
    x, lane = layout_tree(feeder.parent)
    is_marked, is_stacked = np.zeros(feeder.n_bus, dtype=bool), np.zeros(feeder.n_bus, dtype=bool)
    is_marked[[0, *params.generators.bus, *params.agent_bus]] = True
    level, _ = spread_lanes(lane, is_marked, is_stacked, np.inf)
    lanes_marked = len(np.unique(lane[is_marked]))
    when, seller, buyer = np.nonzero(episode.trade_kw > 1e-3)
    trades: list[list[tuple[int, int, float]]] = [[] for _ in range(episode.intervals)]
    for t, a, b in zip(when.tolist(), seller.tolist(), buyer.tolist(), strict=True):
        trades[t].append((a, b, round(float(episode.trade_kw[t, a, b]), 2)))
    return {
        "hours": [hours_of(t, params.step_hours) for t in range(episode.intervals)],
        "stepHours": params.step_hours,
        "buses": feeder.bus,
        "parent": feeder.parent.tolist(),
        "x": x.tolist(),
        "y": _rounded(level, 4),
        "tall": int(np.clip(120 + 48 * lanes_marked + 6 * len(np.unique(lane)), 300, 680)),
        "voltageLimits": [float(feeder.v_min_pu[1:].min()), float(feeder.v_max_pu[1:].max())],
        "microgrids": [
            {"bus": int(bus), "minKwh": float(low), "maxKwh": float(high)}
            for bus, low, high in zip(params.agent_bus, grids.energy_min_kwh, grids.energy_max_kwh, strict=True)
        ],
        "generators": list(params.generators.bus),
        "beyond": [np.flatnonzero(buses_beyond(feeder, voltage)).tolist() for voltage in episode.voltage_pu],
        "alarms": _alarms(episode),
        "lmp": _rounded(episode.lmp_per_kwh, 5),
        "substation": _rounded(episode.substation_kw, 2),
        "generation": _rounded(episode.generator_kw, 2),
        "losses": _rounded(episode.losses_kw, 2),
        "welfare": _rounded(episode.welfare, 3),
        "dsoResult": _rounded(episode.dso_result, 3),
        "voltage": _rounded(episode.voltage_pu, 5),
        "flow": _rounded(episode.flow_kw, 1),
        "loading": _rounded(episode.loading, 4),
        "load": _rounded(episode.load_kw, 1),
        "shed": _rounded(episode.shed_kw, 1),
        "price": _rounded(episode.price_per_kwh, 5),
        "parts": {part: _rounded(getattr(episode.price_parts, part), 5) for part in PARTS},
        "contract": _rounded(episode.contract_kw, 2),
        "contractPrice": _rounded(episode.contract_price_per_kwh, 5),
        "trades": trades,
        "proposed": _rounded(episode.proposed_kw, 2),
        "accepted": _rounded(episode.accepted_kw, 2),
        "isCurtailed": episode.is_curtailed.astype(int).tolist(),
        "pv": _rounded(episode.pv_kw, 2),
        "diesel": _rounded(episode.diesel_kw, 2),
        "battery": _rounded(episode.battery_kw, 2),
        "consumption": _rounded(episode.consumption_kw, 2),
        "stored": _rounded(episode.stored_kwh, 2),
        "money": {part: _rounded(amount, 4) for part, amount in vars(episode.money).items()},
        "gain": _rounded(episode.gain, 4),
    }


def _alarms(episode: Episode) -> list[str]:
    """What is wrong in each interval; an empty text where nothing is."""
    feeder, said = episode.params.feeder, []
    for loading, voltage, number in zip(episode.loading, episode.voltage_pu, episode.status.tolist(), strict=True):
        status = DsoStatus(number)
        faults = excesses(loading, buses_beyond(feeder, voltage))
        said.append("; ".join(faults + [f"DSO: {status.sentence}"] * (status != DsoStatus.OPTIMAL)))
    return said


def _rounded(values: np.ndarray, digits: int) -> Any:
    """Nested lists of numbers with so many digits, whole ones without a point: they are most of the page's size."""
    if values.ndim > 1:
        return [_rounded(row, digits) for row in values]
    return [int(value) if value.is_integer() else value for value in np.round(values, digits).tolist()]


def _source(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
