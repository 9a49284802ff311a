"""The transactive-energy paper's study: a DSO moves price signals until real-time exchange follows its schedule.

Every case plays the same held-out days of `transactive_v0`:

    scheduled      agents do what was planned, whatever the signal says
    no loop        agents plan anew at the price from which the signal starts, which the DSO leaves as it is
    halving        the loop, its step halved whenever the gap changes its sign: the default
    fixed          the loop with the paper's fixed steps
    proportional   the loop with steps in proportion to the gap
    myopic ...     agents look at the signal of the hour alone
    ..., tight     the loop with a tighter threshold

    python -m peergrid.baselines.transactive_study [days=36] [hours=[14,18,21]]
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from peergrid.baselines.entry import console_for_tables, settings_from
from peergrid.baselines.studies.transactive_admm import solve_hours
from peergrid.baselines.studies.transactive_figures import draw_figures
from peergrid.baselines.studies.transactive_study import (
    CONFIDENCE,
    LOOP,
    LOOP_COLUMNS,
    MONEY_COLUMNS,
    NO_LOOP,
    TransactiveStudySettings,
    day_to_draw,
    run,
    summarise,
    table_of_admm,
    table_of_cases,
)
from peergrid.command import command
from peergrid.envs.transactive.scenario import agent_names, scenario_from_dict
from peergrid.grid.errors import PeergridError
from peergrid.grid.files import write_json


@command("transactive_study")
def main(cfg: DictConfig) -> None:
    """Run the study, print its tables, write figures and results."""
    settings = settings_from(cfg, TransactiveStudySettings)
    scenario = scenario_from_dict(settings.transactive)
    agents = agent_names([a.bus for a in scenario.agents])
    outside = [t for t in settings.hours if not 0 <= t < scenario.intervals]
    if settings.agent not in agents:
        raise PeergridError(f"no agent is at bus {settings.agent!r}; agents are at {', '.join(agents)}")
    if outside:
        raise PeergridError(f"hours {outside} are not in the scenario's {scenario.intervals} intervals")
    found = run(settings)
    summaries = [summarise(case, records, found[NO_LOOP]) for case, records in found.items()]
    day = day_to_draw(found[LOOP], settings.hours)
    admm = solve_hours(scenario, found[LOOP][day])
    output = Path(settings.output)
    write_json(
        output / "results.json",
        {
            "settings": asdict(settings),
            "summaries": [asdict(s) for s in summaries],
            "drawn_day": day,
            "admm": admm.figures(),
            "days": {case: [asdict(r) for r in records] for case, records in found.items()},
        },
    )
    figures = draw_figures(
        found, LOOP, NO_LOOP, day, scenario.loop, admm, settings.hours, agents.index(settings.agent), agents, output
    )
    console = console_for_tables()
    beside = f"per day over {settings.days} days, with {100 * CONFIDENCE:.0f} % intervals; saved beside 'no loop'"
    console.print(table_of_cases(f"The loop: {beside}", summaries, LOOP_COLUMNS))
    console.print(table_of_cases("Settlement at both markets: currency per day", summaries, MONEY_COLUMNS))
    console.print(table_of_admm(admm, day, settings.hours))
    console.print(
        f"ADMM took {1e3 * admm.seconds / len(admm.rho):.1f} ms an hour, the central solver "
        f"{1e3 * admm.central_seconds / len(admm.rho):.2f} ms"
    )
    for path in (*figures, output / "results.json"):
        console.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    main()
