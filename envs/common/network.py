"""The network of a scenario: its feeder with limits and ratings, and how the DSO weighs what it curtails or sheds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from peergrid.grid.catalogue import feeder_names, load_feeder
from peergrid.grid.dso import Penalty
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import UpperVoltage
from peergrid.grid.parts import part_name
from peergrid.grid.power_flow import solve_power_flow


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """The feeder, its limits, and the ratings of its lines.

    `ratings` is "nominal_load" (each line's current at nominal load times `rating_factor`, or the floor if that is
    more) or "feeder" (those of the feeder's own data).
    """

    feeder: str
    v_source_pu: float = 1.0
    v_min_pu: float = 0.95
    v_max_pu: float = 1.05
    ratings: str = "nominal_load"
    rating_factor: float = 1.25
    rating_floor_a: float = 80.0
    rating_floor_path_to: str = ""
    """Bus on whose way from the substation `rating_floor_path_a` is the floor."""
    rating_floor_path_a: float = 80.0


@dataclass(frozen=True, kw_only=True)
class DsoSpec:
    """How the DSO weighs trades and loads; `penalty` is "default" or "paper" (pure quadratics)."""

    penalty: str = "default"
    kappa_per_kwh: float = 0.05
    lambda_corr_per_kw2h: float = 0.005
    voll_per_kwh: float = 3.0
    c_ls_per_kw2h: float = 0.0
    upper_voltage: str = "lossless"
    solver: str = part_name("interior_point")


def build_feeder(network: NetworkSpec) -> Feeder:
    """The scenario's feeder: with its source voltage, limits and line ratings.

    An infinite floor leaves lines without a rating.
    """
    # What is shipped stays as it is; a user's files may change.
    return _shipped_feeder(network) if network.feeder in feeder_names() else _build_feeder(network)


@lru_cache(maxsize=64)
def _shipped_feeder(network: NetworkSpec) -> Feeder:
    return _build_feeder(network)


def _build_feeder(network: NetworkSpec) -> Feeder:
    feeder = replace(load_feeder(network.feeder), v_source_pu=network.v_source_pu)
    n = feeder.n_bus
    feeder = replace(feeder, v_min_pu=np.full(n, network.v_min_pu), v_max_pu=np.full(n, network.v_max_pu))
    if network.ratings == "feeder":
        return feeder
    base = solve_power_flow(feeder, -feeder.load_kw, -feeder.load_kvar)
    floor = np.full(n, network.rating_floor_a)
    if network.rating_floor_path_to:
        on_path = feeder.on_path[feeder.index(network.rating_floor_path_to)]
        floor[on_path] = network.rating_floor_path_a
    rating = np.maximum(network.rating_factor * base.current_a, floor)
    rating[0] = np.inf
    return replace(feeder, i_max_a=rating)


def build_penalty(spec: DsoSpec, scale: float = 1.0) -> Penalty:
    """What the DSO minimises beside the cost of energy; quadratic prices of trades are divided by `scale`."""
    lambda_corr = spec.lambda_corr_per_kw2h / scale
    if spec.penalty == "paper":
        return Penalty.quadratic_only(lambda_corr, spec.c_ls_per_kw2h)
    return Penalty(
        kappa_per_kwh=spec.kappa_per_kwh,
        lambda_corr_per_kw2h=lambda_corr,
        voll_per_kwh=spec.voll_per_kwh,
        c_ls_per_kw2h=spec.c_ls_per_kw2h,
    )


def faulty_dso(spec: DsoSpec) -> list[str]:
    """What is wrong with the names in it."""
    faults = []
    if spec.penalty not in ("default", "paper"):
        faults.append(f"dso.penalty is {spec.penalty!r}; it is 'default' or 'paper'")
    if spec.upper_voltage not in list(UpperVoltage):
        known = " or ".join(repr(str(u)) for u in UpperVoltage)
        faults.append(f"dso.upper_voltage is {spec.upper_voltage!r}; it is {known}")
    return faults


def strain(feeder: Feeder, load_pu: float) -> str:
    """Where the loads alone strain the network most, and what to change."""
    flow = solve_power_flow(feeder, -load_pu * feeder.load_kw, -load_pu * feeder.load_kvar)
    loading = flow.current_a[1:] / feeder.i_max_a[1:]
    low, full = int(np.argmin(flow.voltage_pu[1:])) + 1, int(np.argmax(loading)) + 1
    return (
        f"with the loads alone, bus {feeder.bus[low]} is at {flow.voltage_pu[low]:.3f} p.u., its limits are "
        f"{feeder.v_min_pu[low]:g} and {feeder.v_max_pu[low]:g}, and the line into bus {feeder.bus[full]} carries "
        f"{100 * loading[full - 1]:.0f} % of its rating: widen network.v_min_pu, v_max_pu or the ratings, raise "
        "network.v_source_pu, or lower profiles.max_load_pu"
    )
