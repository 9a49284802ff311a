"""What the P2P paper's purely quadratic penalty does at which coefficients, on `ieee33_paper`.

    python benchmarks/paper_penalty.py [--days 5]

The paper publishes neither lambda_corr (per kW2h of a trade that is cut) nor c_ls (per kW2h of load that is shed);
with nothing linear in the penalty, the operator weighs them against the cost of energy. A row for each pair: what is
accepted and shed without trade, what is accepted of case 2 and case 3 (by the oracle), and the largest dispatch in
case 3.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from rich.console import Console
from rich.table import Table

from peergrid.baselines.episode.processes import run_all
from peergrid.baselines.studies.case_studies import NO_TRADE, Job, play_case, summarise
from peergrid.envs.p2p_trading.scenario import Scenario, load_scenario

COEFFICIENTS = ((0.005, 0.1), (0.05, 1.0), (0.05, 10.0), (0.5, 1.0), (0.5, 10.0), (5.0, 10.0), (0.5, 100.0))
CASES = (NO_TRADE, "2", "3o")


def with_penalty(scenario: Scenario, lambda_corr: float, c_ls: float) -> Scenario:
    """The scenario with these coefficients, and contracts as they are planned."""
    dso = replace(scenario.dso, lambda_corr_per_kw2h=lambda_corr, c_ls_per_kw2h=c_ls)
    return replace(scenario, dso=dso, market=replace(scenario.market, mechanism="direct"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    table = Table(title=f"The paper's penalty, {options.days} held-out days", title_justify="left")
    for name in ("lambda_corr", "c_ls", "accepted\nno trade", "shed kWh\na day", "case 2\nfirst", "case 2\nfinal"):
        table.add_column(name, justify="right")
    for name in ("case 3\nfirst", "substation\nMW, Mvar", "bus 18\nMW, Mvar"):
        table.add_column(name, justify="right")
    for lambda_corr, c_ls in COEFFICIENTS:
        scenario = with_penalty(load_scenario("ieee33_paper"), lambda_corr, c_ls)
        jobs = [Job(scenario, case, day, 5) for case in CASES for day in range(options.days)]
        records = run_all(play_case, jobs, options.workers, f"{lambda_corr:g}, {c_ls:g}")
        of_case = {c: records[k * options.days : (k + 1) * options.days] for k, c in enumerate(CASES)}
        told = partial(summarise, scenario, no_trade=of_case[NO_TRADE])
        idle, second, third = (told(case, of_case[case]) for case in CASES)
        table.add_row(
            f"{lambda_corr:g}",
            f"{c_ls:g}",
            f"{idle.acceptance_first:.3f}",
            f"{idle.shed_kwh:.0f}",
            f"{second.acceptance_first:.3f}",
            f"{second.acceptance_final:.3f}",
            f"{third.acceptance_first:.3f}",
            ", ".join(f"{x:.2f}" for x in third.substation_peak_mw_mvar),
            ", ".join(f"{x:.2f}" for x in third.generator_peak_mw_mvar),
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
