"""The P2P paper's three case studies: every case on every day, and what it came to beside the paper's own figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from rich.table import Table

from peergrid.baselines.episode.play import DayRecord, bus_hours_beyond_limits, play_day
from peergrid.baselines.episode.processes import run_all
from peergrid.baselines.policies.cases import Case1, Case2, Case3, Case3Blind, Case3CutOnly, Case3ThisHour
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.envs.common.configuration import merged_with, read_file
from peergrid.envs.common.limits import LOADING_TOLERANCE
from peergrid.envs.common.policy import Policy
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.predictors import Predictor, no_prediction, oracle
from peergrid.envs.p2p_trading.scenario import GROUP, Scenario, build_dso, scenario_from_dict
from peergrid.grid.dso import UncheckedDso
from peergrid.surrogate.checkpoint import shipped_file
from peergrid.surrogate.predictor import shipped_predictor

NO_TRADE = "no trade"
CASES = {
    NO_TRADE: "no trade",
    "1": "1 network-agnostic",
    "2": "2 DSO in the loop",
    "3n": "3 without prediction",
    "3c": "3 transformer, cut only",
    "3h": "3 transformer, this hour",
    "3": "3 transformer",
    "3ho": "3 oracle, this hour",
    "3o": "3 oracle",
    "3u": "3 transformer, unchecked",
    "3ou": "3 oracle, unchecked",
}
UNCHECKED = ("1", "3u", "3ou")
BY_TRANSFORMER = ("3c", "3h", "3", "3u")
# What the P2P paper reports. Its "approximately (2.4, 1.5) MW and (1.75, 0.54) MVAr" names the substation first: the
# second of each pair is what the generator at bus 18 can give at most.
PAPER = {
    "case 3, V beyond limits": "",
    "case 3, nobody checking": "0.29 %",
    "case 1, nobody checking": "",
    "case 3, substation": "2.4 MW, 1.75 Mvar",
    "case 3, bus 18": "1.5 MW, 0.54 Mvar",
}


@dataclass
class CaseStudySettings:
    """What `conf/case_studies.yaml` sets; `scenario` is what is changed in every scenario."""

    scenarios: list[str] = field(default_factory=list)
    scenario: dict[str, Any] = field(default_factory=dict)
    days: int = 20
    rounds: int = 5
    workers: int = 0
    output: str = "outputs/case_studies"


@dataclass(frozen=True)
class Job:
    """One case on one held-out day."""

    scenario: Scenario
    case: str
    day: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class CaseSummary:
    """A case over all days; money per day, relative to no trade. Shares are of 1, hours and counts per day."""

    scenario: str
    case: str
    voltage_min_pu: float
    voltage_max_pu: float
    voltage_excess_percent: float
    bus_hours_beyond_limits: float
    hours_overloaded: float
    loading_max: float
    acceptance_first: float
    acceptance_final: float
    hours_with_curtailment: float
    traded_kwh: float
    shed_kwh: float
    gain: float
    gain_std: float
    welfare: float
    welfare_std: float
    dso_solves: float
    messages: float
    dso_seconds: float
    prediction_seconds: float
    substation_peak_mw_mvar: tuple[float, float]
    generator_peak_mw_mvar: tuple[float, float]
    failed_solves: int
    not_tight: int


def play_case(job: Job) -> DayRecord:
    """Play one case on one day."""
    env, policy = _case(job.scenario, job.case, job.rounds)
    return play_day(env, policy, job.day)


@lru_cache(maxsize=16)
def _case(scenario: Scenario, case: str, rounds: int) -> tuple[P2PTrading, Policy]:
    market = scenario.market if case != "2" else replace(scenario.market, correction_rounds=rounds)
    chosen = replace(scenario, market=market)
    own = build_dso(chosen)
    policy = _policy(case, rounds, lambda: shipped_predictor(own), partial(oracle, dso=own))
    # The prediction is of the DSO that would check, also where nobody does.
    env = P2PTrading(chosen, dso=UncheckedDso(own) if case in UNCHECKED else own, predictor=no_prediction)
    # What is compiled at the first use is not part of what is timed.
    env.reset(options={"evaluation_day": 0})
    env.step({agent: np.zeros(env.action_space(agent).shape, dtype=np.float32) for agent in env.agents})
    return env, policy


def _policy(case: str, rounds: int, transformer: Callable[[], Predictor], exact: Predictor) -> Policy:
    match case:
        case "1":
            return Case1()
        case "2":
            return Case2(rounds)
        case "3n":
            return Case3Blind()
        case "3c":
            return Case3CutOnly(transformer())
        case "3h" | "3ho":
            return Case3ThisHour(exact if case == "3ho" else transformer())
        case "3" | "3u":
            return Case3(transformer())
        case "3o" | "3ou":
            return Case3(exact)
    return NoTrade()


def cases_of(scenario: Scenario) -> list[str]:
    """The cases that can be played: those of the transformer need one that is shipped for the scenario's network."""
    has_transformer = shipped_file(build_dso(scenario)) is not None
    return [case for case in CASES if case not in BY_TRANSFORMER or has_transformer]


def changed(name: str, changes: Mapping[str, Any]) -> Scenario:
    """The scenario of that name, with settings changed in it and in its parts."""

    return scenario_from_dict(merged_with(read_file(GROUP, name), changes))


def summarise(scenario: Scenario, case: str, records: list[DayRecord], no_trade: list[DayRecord]) -> CaseSummary:
    """The figures of a case over its days, beside the same days without trade."""
    limits = scenario.network
    n_agent = len(records[0].gain)
    voltage = np.stack([r.voltage_pu[:, 1:] for r in records])
    excess = np.maximum(voltage / limits.v_max_pu - 1.0, 1.0 - voltage / limits.v_min_pu)
    loading = np.stack([r.loading_max for r in records])
    gain = np.array([r.gain.sum() - base.gain.sum() for r, base in zip(records, no_trade, strict=True)])
    welfare = np.array([r.welfare - base.welfare for r, base in zip(records, no_trade, strict=True)])

    def total(name: str) -> float:
        return float(sum(getattr(r, name) for r in records))

    def per_day(name: str) -> float:
        return total(name) / len(records)

    def peak(name: str) -> tuple[float, float]:
        most = np.stack([getattr(r, name) for r in records]).reshape(-1, 2).max(axis=0) / 1000.0
        return float(most[0]), float(most[1])

    calls = 0.0 if case in UNCHECKED else per_day("dso_calls")
    return CaseSummary(
        scenario=scenario.name,
        case=case,
        voltage_min_pu=float(voltage.min()),
        voltage_max_pu=float(voltage.max()),
        voltage_excess_percent=float(max(100.0 * excess.max(), 0.0)),
        bus_hours_beyond_limits=bus_hours_beyond_limits(records, limits.v_min_pu, limits.v_max_pu),
        hours_overloaded=float((loading > 1.0 + LOADING_TOLERANCE).sum() * records[0].step_hours / len(records)),
        loading_max=float(loading.max()),
        acceptance_first=total("first_accepted_kwh") / max(total("first_proposed_kwh"), 1e-9),
        acceptance_final=total("accepted_kwh") / max(total("first_proposed_kwh"), 1e-9),
        hours_with_curtailment=per_day("hours_with_curtailment"),
        traded_kwh=per_day("traded_kwh"),
        shed_kwh=per_day("shed_kwh"),
        gain=float(gain.mean()),
        gain_std=float(gain.std()),
        welfare=float(welfare.mean()),
        welfare_std=float(welfare.std()),
        dso_solves=calls,
        messages=2.0 * n_agent * calls,
        dso_seconds=0.0 if case in UNCHECKED else per_day("dso_seconds"),
        prediction_seconds=per_day("policy_seconds") if case.startswith("3") else 0.0,
        substation_peak_mw_mvar=peak("substation"),
        generator_peak_mw_mvar=peak("generator"),
        failed_solves=int(total("failed")),
        not_tight=int(total("not_tight")),
    )


NETWORK_COLUMNS: dict[str, Callable[[CaseSummary], str]] = {
    "lowest\nV p.u.": lambda s: f"{s.voltage_min_pu:.4f}",
    "highest\nV p.u.": lambda s: f"{s.voltage_max_pu:.4f}",
    "beyond\nlimits %": lambda s: f"{s.voltage_excess_percent:.3f}",
    "bus-hours\nbeyond": lambda s: f"{s.bus_hours_beyond_limits:.1f}",
    "line\nload": lambda s: f"{s.loading_max:.2f}",
    "hours\nover": lambda s: f"{s.hours_overloaded:.1f}",
    "shed\nkWh": lambda s: f"{s.shed_kwh:.1f}",
    "failed\nsolves": lambda s: f"{s.failed_solves}",
    "generator\nMW/Mvar": lambda s: "/".join(f"{peak:.2f}" for peak in s.generator_peak_mw_mvar),
}
MARKET_COLUMNS: dict[str, Callable[[CaseSummary], str]] = {
    "accepted\nat first": lambda s: f"{s.acceptance_first:.3f}",
    "accepted\nfinally": lambda s: f"{s.acceptance_final:.3f}",
    "hours\ncut": lambda s: f"{s.hours_with_curtailment:.1f}",
    "private\ngain": lambda s: f"{s.gain:+.1f}",
    "welfare\ngain": lambda s: f"{s.welfare:+.1f}",
    "DSO\nsolves": lambda s: f"{s.dso_solves:.0f}",
    "messages": lambda s: f"{s.messages:.0f}",
    "DSO\nseconds": lambda s: f"{s.dso_seconds:.2f}",
    "predict\nseconds": lambda s: f"{s.prediction_seconds:.2f}",
}


def table(title: str, summaries: list[CaseSummary], columns: Mapping[str, Callable[[CaseSummary], str]]) -> Table:
    """The summaries as a table, a block of cases for each scenario."""
    grid = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for name in ("scenario", "case", *columns):
        grid.add_column(name, justify="left" if name in ("scenario", "case") else "right", no_wrap=True)
    for i, s in enumerate(summaries):
        is_first = i == 0 or summaries[i - 1].scenario != s.scenario
        is_last = i + 1 == len(summaries) or summaries[i + 1].scenario != s.scenario
        cells = [show(s) for show in columns.values()]
        grid.add_row(s.scenario if is_first else "", CASES[s.case], *cells, end_section=is_last)
    return grid


def paper_table(summaries: list[CaseSummary]) -> Table:
    """The paper's own figures beside ours: by the transformer where there is one, else by the oracle.

    Voltages are the farthest beyond their limits, dispatches the largest.
    """

    def beyond(s: CaseSummary) -> str:
        return f"{s.voltage_excess_percent:.2f} %"

    def machine(peak: tuple[float, float]) -> str:
        return f"{peak[0]:.2f} MW, {peak[1]:.2f} Mvar"

    rows: tuple[tuple[str, str, Callable[[CaseSummary], str]], ...] = (
        ("3", "3o", beyond),
        ("3u", "3ou", beyond),
        ("1", "1", beyond),
        ("3", "3o", lambda s: machine(s.substation_peak_mw_mvar)),
        ("3", "3o", lambda s: machine(s.generator_peak_mw_mvar)),
    )
    by_scenario: dict[str, dict[str, CaseSummary]] = {}
    for s in summaries:
        by_scenario.setdefault(s.scenario, {})[s.case] = s
    grid = Table(title="Next to the paper's figures", title_justify="left", padding=(0, 0, 0, 1))
    grid.add_column("figure", no_wrap=True)
    for name in ("the paper", *by_scenario):
        grid.add_column(name, justify="right", no_wrap=True)
    for (figure, published), (case, otherwise, show) in zip(PAPER.items(), rows, strict=True):
        cells = [show(cases.get(case) or cases[otherwise]) for cases in by_scenario.values()]
        grid.add_row(figure, published, *cells)
    return grid


def run(settings: CaseStudySettings) -> dict[Scenario, dict[str, list[DayRecord]]]:
    """Every case on every day: records by scenario and case."""
    scenarios = [changed(name, settings.scenario) for name in settings.scenarios]
    jobs = [
        Job(scenario, case, day, settings.rounds)
        for scenario in scenarios
        for case in cases_of(scenario)
        for day in range(settings.days)
    ]
    records = run_all(play_case, jobs, settings.workers, "case studies")
    found: dict[Scenario, dict[str, list[DayRecord]]] = {s: {c: [] for c in cases_of(s)} for s in scenarios}
    for job, record in zip(jobs, records, strict=True):
        found[job.scenario][job.case].append(record)
    return found
