"""A feeder from a pandapower net. pandapower itself is not imported: the net's tables are enough."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from peergrid.grid.catalogue import feeder_from_tables
from peergrid.grid.errors import InvalidFeeder, raise_faults
from peergrid.grid.feeder import Feeder, some

# A row of a net's table, `index` included.
Element = dict[str, Any]

# pandapower has no way to say "no rating"; nets carry 99 kA, 9999 kA or 99999 kA instead.
NO_RATING_KA = 99.0
TRANSLATED = ("bus", "line", "trafo", "load", "sgen", "shunt", "ext_grid")
# Controllers act in no plain power flow, and direct-current tables are checked through the converters that join them.
WITHOUT_EFFECT = ("controller", "bus_dc", "line_dc", "load_dc", "source_dc")


def feeder_from_pandapower(
    net: Any,
    *,
    name: str | None = None,
    bus_names: str = "",
    neglect_charging: bool = False,
    neglect_iron_losses: bool = False,
) -> Feeder:
    """The radial feeder that a pandapower net describes.

    Elements out of service are left out; so are lines and transformers with an open switch. Buses that closed switches
    join become one, named by the lowest index, under the tightest of their voltage limits. Static generators count as
    negative load, and shunts as the constant kvar that they inject at 1 p.u. A transformer is its short-circuit
    impedance at nominal ratio; the shift of its vector group is left out of the angles. `max_loading_percent`, where
    given, lowers ratings.

    Args:
        net: A `pandapowerNet` with one external grid, which becomes the substation.
        name: The feeder's name; the net's own if None.
        bus_names: The column of `net.bus` that names the buses; if empty, they are named by their index.
        neglect_charging: Leave out the capacitance of lines, for which a feeder has no place. Overhead lines of a
            distribution feeder hardly miss it, long cables do: the fault raised without this argument names the kvar
            at stake.
        neglect_iron_losses: Leave out what transformers draw without load, for which there is no place either.

    Raises:
        InvalidFeeder: The net is not radial, not connected, or has elements that no feeder can represent: meshes,
            three-winding transformers, voltage-controlled generators, iron losses, taps off nominal. All such elements
            are named at once.
    """
    if not isinstance(net, Mapping):
        told = f"a {type(net).__name__} is no pandapower net; pandapower.from_json(path) reads one"
        raise InvalidFeeder(told)
    name = name or net.get("name") or "pandapower"
    faults = _untranslated(net)
    merged = _merged_buses(net, faults)
    substation, v_source_pu = _source(net, merged, faults)
    branches = [
        *_lines(net, merged, neglect_charging, faults),
        *_transformers(net, merged, neglect_iron_losses, faults),
    ]
    buses = _buses(net, merged, faults)
    if bus_names and bus_names not in net["bus"].columns:
        faults.append(f"net.bus has no column {bus_names!r}, only {some(list(net['bus'].columns))}")
    raise_faults(InvalidFeeder, f"pandapower net {name!r}", faults)

    feeder = feeder_from_tables(buses, branches, name=name, substation=substation, v_source_pu=v_source_pu)
    # Transformers are written down in ohms and amperes of their low-voltage side; where that is the parent, refer them.
    step_up = np.maximum(feeder.base_kv / feeder.base_kv[feeder.parent], 1.0)
    step_up[0] = 1.0
    return replace(
        feeder,
        bus=tuple(str(net["bus"].at[int(index), bus_names]) for index in feeder.bus) if bus_names else feeder.bus,
        r_ohm=feeder.r_ohm * step_up**2,
        x_ohm=feeder.x_ohm * step_up**2,
        i_max_a=feeder.i_max_a / step_up,
    )


def _elements(net: Mapping[str, Any], table: str) -> Iterator[Element]:
    """Rows of a table that are in service."""
    frame = net[table]
    for index, element in zip(frame.index, frame.to_dict("records"), strict=True):
        if element.get("in_service", True):
            yield {"index": index, **element}


def _given(element: Element, column: str, otherwise: float) -> float:
    """A column that a net may lack or leave blank."""
    value = element.get(column)
    return float(value) if isinstance(value, Real) and not math.isnan(value) else otherwise


def _untranslated(net: Mapping[str, Any]) -> list[str]:
    """Faults for whole tables of elements in service for which a feeder has no place."""
    faults = []
    for table, frame in net.items():
        is_element = hasattr(frame, "columns") and "in_service" in frame.columns and not table.startswith(("_", "res_"))
        if is_element and table not in TRANSLATED + WITHOUT_EFFECT:
            present = [str(element["index"]) for element in _elements(net, table)]
            if present:
                faults.append(f"a feeder cannot represent {table} {some(present)}")
    return faults


def _merged_buses(net: Mapping[str, Any], faults: list[str]) -> dict[int, int]:
    """For each bus in service, the lowest index among the buses that closed switches join to it."""
    merged = {bus["index"]: bus["index"] for bus in _elements(net, "bus")}
    for switch in _elements(net, "switch"):
        ends = switch["bus"], switch["element"]
        if switch["et"] != "b" or not switch["closed"] or not all(end in merged for end in ends):
            continue
        if _given(switch, "z_ohm", 0.0) != 0.0:
            faults.append(f"switch {switch['index']} has an impedance (make it a line)")
        keep, drop = sorted(merged[end] for end in ends)
        merged = {bus: keep if to == drop else to for bus, to in merged.items()}
    return merged


def _opened(net: Mapping[str, Any], kind: str) -> set[int]:
    """Lines (kind "l") or transformers (kind "t") with an open switch."""
    return {s["element"] for s in _elements(net, "switch") if s["et"] == kind and not s["closed"]}


def _source(net: Mapping[str, Any], merged: dict[int, int], faults: list[str]) -> tuple[str, float]:
    sources = [source for source in _elements(net, "ext_grid") if source["bus"] in merged]
    if len(sources) != 1:
        at = f" at buses {some([str(source['bus']) for source in sources])}" if sources else ""
        faults.append(f"there are {len(sources)} external grids in service{at}; a feeder has one")
        return "", 1.0
    return str(merged[sources[0]["bus"]]), float(sources[0]["vm_pu"])


def _lines(
    net: Mapping[str, Any], merged: dict[int, int], neglect_charging: bool, faults: list[str]
) -> Iterator[dict[str, str | float]]:
    opened = _opened(net, "l")
    charged, charging_kvar = [], 0.0
    for line in _elements(net, "line"):
        if line["from_bus"] not in merged or line["to_bus"] not in merged:
            continue
        length_km, parallel = line["length_km"], _given(line, "parallel", 1.0)
        base_kv = net["bus"].at[line["from_bus"], "vn_kv"]
        if base_kv != net["bus"].at[line["to_bus"], "vn_kv"]:
            faults.append(f"line {line['index']} joins buses of different vn_kv")
        capacitance_f = 1e-9 * _given(line, "c_nf_per_km", 0.0) * length_km * parallel
        if capacitance_f != 0.0:
            charged.append(str(line["index"]))
            charging_kvar += 1000.0 * 2.0 * math.pi * net["f_hz"] * capacitance_f * base_kv**2
        if _given(line, "g_us_per_km", 0.0) != 0.0:
            faults.append(f"line {line['index']} has a conductance to earth (g_us_per_km)")
        if line["index"] in opened:
            continue
        share = _given(line, "df", 1.0) * _given(line, "max_loading_percent", 100.0) / 100.0
        i_max_ka = _given(line, "max_i_ka", math.inf)
        yield {
            "from_bus": str(merged[line["from_bus"]]),
            "to_bus": str(merged[line["to_bus"]]),
            "r_ohm": line["r_ohm_per_km"] * length_km / parallel,
            "x_ohm": line["x_ohm_per_km"] * length_km / parallel,
            "i_max_a": math.inf if i_max_ka >= NO_RATING_KA else 1000.0 * i_max_ka * parallel * share,
        }
    if charged and not neglect_charging:
        faults.append(
            f"the capacitance of lines {some(charged)} gives {charging_kvar:.4g} kvar at 1 p.u. "
            "(neglect_charging=True leaves it out)"
        )


def _transformers(
    net: Mapping[str, Any], merged: dict[int, int], neglect_iron_losses: bool, faults: list[str]
) -> Iterator[dict[str, str | float]]:
    opened = _opened(net, "t")
    for trafo in _elements(net, "trafo"):
        hv, lv = trafo["hv_bus"], trafo["lv_bus"]
        if hv not in merged or lv not in merged:
            continue
        # Open at one end, a transformer still draws its iron losses, and a line its charging.
        if not neglect_iron_losses and (trafo["pfe_kw"] != 0.0 or trafo["i0_percent"] != 0.0):
            drawn = f"{trafo['pfe_kw']:.4g} kW, with {trafo['i0_percent']:.4g} % of its rating drawn without load"
            faults.append(f"trafo {trafo['index']} has iron losses: {drawn} (neglect_iron_losses=True leaves them out)")
        if trafo["index"] in opened:
            continue
        ratio = trafo["vn_hv_kv"] / trafo["vn_lv_kv"]
        if not math.isclose(ratio, net["bus"].at[hv, "vn_kv"] / net["bus"].at[lv, "vn_kv"], rel_tol=1e-9):
            faults.append(f"trafo {trafo['index']} has another ratio of voltages than its buses")
        if any(_is_off_neutral(trafo, tap) for tap in ("tap", "tap2")) or trafo.get("tap_dependency_table") is True:
            faults.append(f"trafo {trafo['index']} has its tap off nominal")
        sn_mva, parallel = trafo["sn_mva"], _given(trafo, "parallel", 1.0)
        share = _given(trafo, "df", 1.0) * _given(trafo, "max_loading_percent", 100.0) / 100.0
        base_ohm = trafo["vn_lv_kv"] ** 2 / sn_mva / parallel
        r, z = trafo["vkr_percent"] / 100.0, trafo["vk_percent"] / 100.0
        if r > z:
            faults.append(f"trafo {trafo['index']} has vkr_percent above vk_percent")
        yield {
            "from_bus": str(merged[hv]),
            "to_bus": str(merged[lv]),
            "r_ohm": r * base_ohm,
            "x_ohm": math.sqrt(max(z**2 - r**2, 0.0)) * base_ohm,
            "i_max_a": 1000.0 * sn_mva * parallel * share / (math.sqrt(3.0) * trafo["vn_lv_kv"]),
        }


def _is_off_neutral(trafo: Element, tap: str) -> bool:
    off = _given(trafo, f"{tap}_pos", 0.0) != _given(trafo, f"{tap}_neutral", 0.0)
    return off and any(_given(trafo, f"{tap}_step_{unit}", 0.0) != 0.0 for unit in ("percent", "degree"))


def _buses(net: Mapping[str, Any], merged: dict[int, int], faults: list[str]) -> list[dict[str, str | float]]:
    groups: dict[int, list[Element]] = {}
    for bus in _elements(net, "bus"):
        groups.setdefault(merged[bus["index"]], []).append(bus)
    load_kw, load_kvar = _loads(net, merged, faults)
    capacitor_kvar = _capacitors(net, merged, faults)
    rows: list[dict[str, str | float]] = []
    for name, group in groups.items():
        if len({member["vn_kv"] for member in group}) > 1:
            joined = some([str(member["index"]) for member in group])
            faults.append(f"closed switches join buses {joined} of different vn_kv")
        rows.append(
            {
                "bus": str(name),
                "base_kv": group[0]["vn_kv"],
                "load_kw": load_kw[name],
                "load_kvar": load_kvar[name],
                "capacitor_kvar": capacitor_kvar[name],
                "v_min_pu": max(_given(member, "min_vm_pu", 0.9) for member in group),
                "v_max_pu": min(_given(member, "max_vm_pu", 1.1) for member in group),
            }
        )
    return rows


def _loads(
    net: Mapping[str, Any], merged: dict[int, int], faults: list[str]
) -> tuple[defaultdict[int, float], defaultdict[int, float]]:
    load_kw: defaultdict[int, float] = defaultdict(float)
    load_kvar: defaultdict[int, float] = defaultdict(float)
    for table, kilo in (("load", 1000.0), ("sgen", -1000.0)):
        for element in _elements(net, table):
            if element["bus"] not in merged:
                continue
            if any(_given(element, column, 0.0) != 0.0 for column in element if column.startswith("const_")):
                faults.append(f"{table} {element['index']} varies with voltage; a feeder's loads are constant power")
            bus, scaling = merged[element["bus"]], _given(element, "scaling", 1.0)
            load_kw[bus] += kilo * scaling * element["p_mw"]
            load_kvar[bus] += kilo * scaling * element["q_mvar"]
    return load_kw, load_kvar


def _capacitors(net: Mapping[str, Any], merged: dict[int, int], faults: list[str]) -> defaultdict[int, float]:
    capacitor_kvar: defaultdict[int, float] = defaultdict(float)
    for shunt in _elements(net, "shunt"):
        if shunt["bus"] not in merged:
            continue
        if shunt["p_mw"] != 0.0:
            faults.append(f"shunt {shunt['index']} draws active power (make it a load)")
        if shunt.get("step_dependency_table") is True:
            faults.append(f"shunt {shunt['index']} takes its figures from a table")
        at_base = (net["bus"].at[shunt["bus"], "vn_kv"] / shunt["vn_kv"]) ** 2
        # A shunt's q_mvar counts what it draws.
        capacitor_kvar[merged[shunt["bus"]]] -= 1000.0 * _given(shunt, "step", 1.0) * at_base * shunt["q_mvar"]
    return capacitor_kvar
