"""The P2P paper's three case studies, as policies that step `p2p_trading_v0` over held-out days.

    1   network-agnostic      the microgrids' cooperative day plan, carried out unchecked; the AC power flow shows what
                              that does
    2   DSO in the loop       the day plan: propose, be corrected, re-optimise within the correction, propose again
    3   learning-augmented    plan and proposal refined against a local prediction of the DSO until they agree, then
                              submitted once: by the transformer or by the exact oracle, for this hour or for all hours
                              of the day that are left

Beside them stand ablations: proposals that are merely cut to what is predicted, the plan submitted without a
prediction, and case 3 carried out unchecked, which shows what the prediction alone prevents.

    python -m peergrid.baselines.case_studies [scenarios=[ieee33]] [days=20] [rounds=5] [network=tight] [season=summer]
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from peergrid.baselines.entry import console_for_tables, settings_from
from peergrid.baselines.studies.case_figures import draw_figures
from peergrid.baselines.studies.case_studies import (
    CASES,
    MARKET_COLUMNS,
    NETWORK_COLUMNS,
    NO_TRADE,
    UNCHECKED,
    CaseStudySettings,
    cases_of,
    changed,
    paper_table,
    run,
    summarise,
    table,
)
from peergrid.command import command
from peergrid.grid.files import write_json


@command("case_studies")
def main(cfg: DictConfig) -> None:
    """Run the case studies, print the tables, write figures and results."""
    settings = settings_from(cfg, CaseStudySettings)
    console = console_for_tables()
    n_cases = sum(len(cases_of(changed(name, settings.scenario))) for name in settings.scenarios)
    console.print(f"{len(settings.scenarios)} scenarios, {n_cases} cases, {settings.days} days each")
    found = run(settings)
    summaries = [
        summarise(scenario, case, records, cases[NO_TRADE])
        for scenario, cases in found.items()
        for case, records in cases.items()
    ]
    output = Path(settings.output)
    write_json(
        output / "results.json",
        {
            "settings": asdict(settings),
            "summaries": [asdict(s) for s in summaries],
            "days": {
                scenario.name: {case: [asdict(r) for r in records] for case, records in cases.items()}
                for scenario, cases in found.items()
            },
        },
    )
    figures = draw_figures(found, CASES, UNCHECKED, output)
    console.print(table("The network: extremes over all days; hours and energy per day", summaries, NETWORK_COLUMNS))
    money = "The market: means per day; gains in currency over no trade"
    console.print(table(money, summaries, MARKET_COLUMNS))
    console.print(paper_table(summaries))
    for scenario, cases in found.items():
        if left_out := [CASES[case] for case in CASES if case not in cases]:
            console.print(f"{scenario.name}: no transformer is shipped for it, so without {', '.join(left_out)}")
    for path in (*figures, output / "results.json"):
        console.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    main()
