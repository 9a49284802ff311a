"""Tries to prove the optimal power flow wrong, with random proposals: against the AC power flow, and its own prices.

    python benchmarks/opf_against_physics.py --proposals 500 --scenarios ieee33 ieee33_communities ieee69

Half of the proposals are within the microgrids' ratings. The others reach 1.5 MW per microgrid, so that voltages and
lines bind: a quarter of all in any direction, a quarter exports alone. Exits with 1 if a claim fails; the share of
tight solves and the accuracy of the price parts are claimed for the lossless upper voltage, and shown for the plain
one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import NoReturn

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, load_scenario
from peergrid.grid.dso import TIGHT_PU, DsoQuery, DsoResponse, DsoStatus, OpfDso, Penalty, dispatch_power_flow
from peergrid.grid.opf import UpperVoltage

LARGE_KW = 1500.0
LOAD_SHARE = (0.3, 0.95)
LOAD_SPREAD = 0.2
LMP_PER_KWH = (0.06, 0.165)

CHUNK = 10  # proposals between two ticks of the progress bar
BINDS_PER_HOUR = 1e-4  # a multiplier above this binds
SHEDS_KW = 1e-3
STEP_KW = 0.5
SMALL_PRICE_PER_KWH = 0.01  # errors of prices nearer to zero are relative to this
KINK = 2e-4

LEAST_OPTIMAL_SHARE = 0.99
LARGEST_AC_ERROR = 1e-5
# The solver keeps every optimality condition to 1e-6 of the largest price, and the parts add up those of all the lines
# on the way to the substation.
LARGEST_PARTS_ERROR = 5e-6
LARGEST_DIFFERENCE_ERROR = 1e-3
LARGEST_IDLE_SHARE = 1e-4
PAPER_C_LS_PER_KW2H = 0.1


@dataclass(frozen=True, eq=False, kw_only=True)
class Findings:
    """What each proposal showed; NaN where it says nothing, as where the status is not OPTIMAL."""

    status: Int[np.ndarray, " proposal"]
    gap_pu: Float[np.ndarray, " proposal"]
    upper_binds: Float[np.ndarray, " proposal"]
    lower_binds: Float[np.ndarray, " proposal"]
    line_binds: Float[np.ndarray, " proposal"]
    sheds: Float[np.ndarray, " proposal"]
    voltage_error_pu: Float[np.ndarray, " proposal"]
    current_error: Float[np.ndarray, " proposal"]
    voltage_violation_pu: Float[np.ndarray, " proposal"]
    current_violation: Float[np.ndarray, " proposal"]
    parts_error_per_kwh: Float[np.ndarray, " proposal"]
    parts_error: Float[np.ndarray, " proposal"]
    difference_error: Float[np.ndarray, " proposal"]
    is_kink: Float[np.ndarray, " proposal"]
    solve_ms: Float[np.ndarray, " proposal"]


def draw_query(dso: OpfDso, rating_kw: Float[np.ndarray, " trade"], n: int, rng: np.random.Generator) -> DsoQuery:
    """Random loads, prices and proposals; of four proposals the second is large, the fourth large and all exports."""
    feeder = dso.feeder
    load = rng.uniform(*LOAD_SHARE, (n, 1)) * rng.uniform(1 - LOAD_SPREAD, 1 + LOAD_SPREAD, (n, feeder.n_bus))
    kind = np.arange(n)[:, None] % 4
    most_kw = np.where(kind % 2 == 1, LARGE_KW, rating_kw)
    direction = rng.uniform(-1.0, 1.0, most_kw.shape)
    return DsoQuery(
        load_kw=load * feeder.load_kw,
        load_kvar=load * feeder.load_kvar,
        proposed_kw=np.where(kind == 3, np.abs(direction), direction) * most_kw,
        lmp_per_kwh=rng.uniform(*LMP_PER_KWH, n),
    )


def rows(query: DsoQuery, chosen: slice) -> DsoQuery:
    """Some of a batch of queries."""
    lmp = np.asarray(query.lmp_per_kwh)[chosen]
    by_row = {name: getattr(query, name)[chosen] for name in ("load_kw", "load_kvar", "proposed_kw")}
    return replace(query, lmp_per_kwh=lmp, **by_row)


def examine(dso: OpfDso, query: DsoQuery, bus: Int[np.ndarray, " proposal"]) -> Findings:
    """The findings for a batch of queries, with finite differences of the cost at one bus of each."""
    feeder = dso.feeder
    start = time.perf_counter()
    response = dso(query)
    solve_ms = 1e3 * (time.perf_counter() - start) / len(bus)
    optimal = response.status == DsoStatus.OPTIMAL
    physics = dispatch_power_flow(dso.layout, response, dso.problem(query))

    def binds(multiplier: Float[np.ndarray, "proposal bus"]) -> Float[np.ndarray, " proposal"]:
        return np.where(optimal, (multiplier > BINDS_PER_HOUR).any(axis=-1), np.nan)

    def worst(error: Float[np.ndarray, "proposal bus"]) -> Float[np.ndarray, " proposal"]:
        return np.where(optimal, error.max(axis=-1), np.nan)

    overrun = np.maximum(physics.voltage_pu - feeder.v_max_pu, feeder.v_min_pu - physics.voltage_pu)
    is_load = query.load_kw > 0
    fully_shed = is_load & (response.shed_kw > query.load_kw - SHEDS_KW)
    parts_error = np.where(fully_shed, 0.0, np.abs(response.price_parts.total() - response.price_per_kwh))
    difference_error, is_kink = difference_errors(dso, query, response, bus)
    return Findings(
        status=response.status,
        gap_pu=response.relaxation_gap_pu,
        upper_binds=binds(response.v_max_multiplier),
        lower_binds=binds(response.v_min_multiplier),
        line_binds=binds(np.maximum(response.i_max_multiplier, response.i_max_lossless_multiplier)),
        sheds=np.where(optimal, (response.shed_kw > SHEDS_KW).any(axis=-1), np.nan),
        voltage_error_pu=worst(np.abs(response.voltage_pu - physics.voltage_pu)),
        current_error=worst(np.abs(response.current_a - physics.current_a) / feeder.i_max_a),
        voltage_violation_pu=worst(overrun[:, 1:]),
        current_violation=worst(physics.current_a / feeder.i_max_a - 1.0),
        parts_error_per_kwh=worst(parts_error),
        parts_error=worst(parts_error / np.maximum(1.0, np.abs(response.price_per_kwh).max(axis=-1, keepdims=True))),
        difference_error=np.where(optimal, difference_error, np.nan),
        is_kink=np.where(optimal, is_kink, np.nan),
        solve_ms=np.full(len(bus), solve_ms),
    )


def difference_errors(
    dso: OpfDso, query: DsoQuery, response: DsoResponse, bus: Int[np.ndarray, " proposal"]
) -> tuple[Float[np.ndarray, " proposal"], Float[np.ndarray, " proposal"]]:
    """Relative error of the price against the central difference of the cost, and whether the cost has a kink there.

    The one-sided slopes of a smooth cost differ by its curvature, half as much over half the step; at a kink they
    differ by the same over any step. A bus that sheds load says nothing: more load there could be shed as well, and the
    price leaves that out.
    """
    row = np.arange(len(bus))

    def cost(load_change_kw: float) -> Float[np.ndarray, " proposal"]:
        load_kw = query.load_kw.copy()
        load_kw[row, bus] += load_change_kw
        changed = dso(replace(query, load_kw=load_kw))
        return np.where(changed.status == DsoStatus.OPTIMAL, changed.cost_per_hour, np.nan)

    def slopes(step_kw: float) -> tuple[Float[np.ndarray, " proposal"], Float[np.ndarray, " proposal"]]:
        return (cost(step_kw) - middle) / step_kw, (middle - cost(-step_kw)) / step_kw

    middle, price = response.cost_per_hour, response.price_per_kwh[row, bus]
    (up, down), (half_up, half_down) = slopes(STEP_KW), slopes(STEP_KW / 2)
    size = np.maximum(np.abs(price), SMALL_PRICE_PER_KWH)
    unlike = np.abs((up - down) - 2.0 * (half_up - half_down)) / size
    says_nothing = (response.shed_kw[row, bus] > SHEDS_KW) | np.isnan(unlike)
    is_kink = unlike > KINK
    error = np.abs((up + down) / 2 - price) / size
    return np.where(says_nothing | is_kink, np.nan, error), np.where(says_nothing, np.nan, is_kink)


def examine_all(dso: OpfDso, query: DsoQuery, rng: np.random.Generator, bar: tqdm[NoReturn]) -> Findings:
    n = len(query.load_kw)
    bus = rng.integers(1, dso.feeder.n_bus, n)
    found = []
    for first in range(0, n, CHUNK):
        chosen = slice(first, first + CHUNK)
        found.append(examine(dso, rows(query, chosen), bus[chosen]))
        bar.update(len(bus[chosen]))
    return Findings(**{f.name: np.concatenate([getattr(one, f.name) for one in found]) for f in fields(Findings)})


def show(console: Console, columns: dict[str, Findings]) -> None:
    def count(flags: Float[np.ndarray, " proposal"]) -> str:
        return f"{int(np.nansum(flags))}"

    def largest(values: Float[np.ndarray, " proposal"]) -> str:
        return f"{np.nanmax(values):.1e}" if np.isfinite(values).any() else "-"

    def share(flags: Float[np.ndarray, " proposal"]) -> str:
        return f"{100 * flags.mean():.1f} %"

    def quantile(q: float) -> Callable[[Findings], str]:
        return lambda f: (
            f"{np.nanquantile(f.difference_error, q):.1e}" if np.isfinite(f.difference_error).any() else "-"
        )

    lines: dict[str, Callable[[Findings], str]] = {
        status.name: lambda f, status=status: f"{(f.status == status).sum()}"  # type: ignore[misc]
        for status in DsoStatus
        if any((f.status == status).any() for f in columns.values())
    }
    lines |= {
        "within ratings, not OPTIMAL": lambda f: count(f.status[::2] != DsoStatus.OPTIMAL),
        "upper voltage binds": lambda f: count(f.upper_binds),
        "lower voltage binds": lambda f: count(f.lower_binds),
        "a line binds": lambda f: count(f.line_binds),
        "load is shed": lambda f: count(f.sheds),
        f"gap above {TIGHT_PU:.0e} p.u.": lambda f: share(f.gap_pu > TIGHT_PU),
        "largest gap, p.u.": lambda f: largest(f.gap_pu),
        "|v - v of AC|, p.u.": lambda f: largest(f.voltage_error_pu),
        "|i - i of AC| / rating": lambda f: largest(f.current_error),
        "AC voltage beyond limits, p.u.": lambda f: largest(f.voltage_violation_pu),
        "AC current / rating - 1": lambda f: largest(f.current_violation),
        "|parts - price|, per kWh": lambda f: largest(f.parts_error_per_kwh),
        "|parts - price| / max(1, largest |price|)": lambda f: largest(f.parts_error),
        "finite differences": lambda f: f"{np.isfinite(f.difference_error).sum()}",
        "kinks left out": lambda f: count(f.is_kink),
        "relative error, median": quantile(0.5),
        "relative error, 99 %": quantile(0.99),
        "relative error, largest": quantile(1.0),
        "ms per solve": lambda f: f"{f.solve_ms.mean():.1f}",
    }
    table = Table(title="The optimal power flow against physics (errors: the worst among OPTIMAL)")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for label, cell in lines.items():
        table.add_row(label, *(cell(findings) for findings in columns.values()))
    console.print(table)


def failed_claims(name: str, findings: Findings, upper_voltage: UpperVoltage) -> Iterator[str]:
    def at_most(label: str, values: Float[np.ndarray, " proposal"], most: float) -> Iterator[str]:
        if not np.isfinite(values).any():
            yield f"{name}: {label} could not be measured"
        elif np.nanmax(values) > most:
            yield f"{name}: {label} is {np.nanmax(values):.2e}, above {most:.0e} (proposal {np.nanargmax(values)})"

    optimal = (findings.status == DsoStatus.OPTIMAL).mean()
    if upper_voltage is UpperVoltage.LOSSLESS and optimal < LEAST_OPTIMAL_SHARE:
        yield f"{name}: {100 * optimal:.2f} % are OPTIMAL, below {100 * LEAST_OPTIMAL_SHARE:.0f} %"
    yield from at_most("|v - v of AC|", findings.voltage_error_pu, LARGEST_AC_ERROR)
    yield from at_most("|i - i of AC| / rating", findings.current_error, LARGEST_AC_ERROR)
    yield from at_most("the voltage violation", findings.voltage_violation_pu, LARGEST_AC_ERROR)
    yield from at_most("the current violation", findings.current_violation, LARGEST_AC_ERROR)
    if upper_voltage is UpperVoltage.LOSSLESS:
        yield from at_most("the error of the price parts", findings.parts_error, LARGEST_PARTS_ERROR)
    yield from at_most("the error against finite differences", findings.difference_error, LARGEST_DIFFERENCE_ERROR)


@dataclass(frozen=True, kw_only=True)
class Touched:
    """The largest share of a trade that was curtailed, and of a load that was shed, where no limit binds."""

    import_share: float
    export_share: float
    shed_share: float

    @property
    def largest(self) -> float:
        return max(self.import_share, self.export_share, self.shed_share)


def touch_where_nothing_binds(dso: OpfDso, query: DsoQuery, penalty: Penalty, bar: tqdm[NoReturn]) -> Touched:
    """Asks on the same network with limits too wide to bind."""
    n_bus = dso.feeder.n_bus
    found = []
    for first in range(0, len(query.load_kw), CHUNK):
        part = rows(query, slice(first, first + CHUNK))
        wide = replace(
            part,
            penalty=penalty,
            v_min_pu=np.full(n_bus, 0.5),
            v_max_pu=np.full(n_bus, 1.5),
            i_max_a=np.full(n_bus, 1e5),
        )
        response = dso(wide)
        if (response.status != DsoStatus.OPTIMAL).any():
            return Touched(import_share=np.nan, export_share=np.nan, shed_share=np.nan)
        curtailed = 1.0 - response.accepted_kw / part.proposed_kw
        found.append(
            Touched(
                import_share=float(curtailed[part.proposed_kw < 0].max(initial=0.0)),
                export_share=float(curtailed[part.proposed_kw > 0].max(initial=0.0)),
                shed_share=float((response.shed_kw / np.maximum(part.load_kw, 1e-3)).max()),
            )
        )
        bar.update(len(part.load_kw))
    return Touched(**{f.name: max(getattr(one, f.name) for one in found) for f in fields(Touched)})


def show_touched(console: Console, touched: dict[str, Touched]) -> None:
    table = Table(title="Where nothing binds: the largest share that the operator touches, trades within ratings")
    for heading in ("", "import curtailed", "export curtailed", "load shed"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, t in touched.items():
        table.add_row(name, *(f"{100 * share:.5f} %" for share in (t.import_share, t.export_share, t.shed_share)))
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proposals", type=int, default=500, help="per scenario and upper voltage")
    parser.add_argument("--scenarios", nargs="+", default=["ieee33", "ieee33_communities", "ieee69"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    columns: dict[str, Findings] = {}
    touched: dict[str, Touched] = {}
    failed: list[str] = []
    light = max(CHUNK, args.proposals // 10)
    total = len(args.scenarios) * 2 * (args.proposals + light)
    with tqdm(total=total, unit="proposal", disable=not sys.stderr.isatty()) as bar:
        for scenario_name in args.scenarios:
            scenario = load_scenario(scenario_name)
            rating_kw = build_microgrids(scenario).rating_kw
            for upper_voltage in UpperVoltage:
                dso = build_dso(replace(scenario, dso=replace(scenario.dso, upper_voltage=upper_voltage)))
                rng = np.random.default_rng(args.seed)
                name = f"{scenario_name}\n{upper_voltage}"
                columns[name] = examine_all(dso, draw_query(dso, rating_kw, args.proposals, rng), rng, bar)
                failed += failed_claims(name.replace("\n", ", "), columns[name], upper_voltage)
            dso = build_dso(scenario)
            within_ratings = rows(
                draw_query(dso, rating_kw, 2 * light, np.random.default_rng(args.seed)), slice(0, None, 2)
            )
            paper = Penalty.quadratic_only(scenario.dso.lambda_corr_per_kw2h / scenario.scale, PAPER_C_LS_PER_KW2H)
            for penalty_name, penalty in (("default", dso.penalty), ("quadratic only", paper)):
                name = f"{scenario_name}, {penalty_name} penalty"
                touched[name] = touch_where_nothing_binds(dso, within_ratings, penalty, bar)
                if penalty is dso.penalty and not touched[name].largest < LARGEST_IDLE_SHARE:
                    failed.append(f"{name}: where nothing binds, {100 * touched[name].largest:.3g} % is touched")
    console = Console(width=None if sys.stdout.isatty() else 160)
    show(console, columns)
    show_touched(console, touched)
    for claim in failed:
        console.print(f"FAILED {claim}", style="red")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
